//! Inserts with every setting said, because the defaults differ between versions (engines: trap 13).

use std::time::Duration;

use clickhouse::Row;
use clickhouse::insert::Insert;

use crate::{Store, StoreError};

/// How an insert is recognised.
pub(crate) struct Identity {
    /// Same token: same rows; a repeat within the table's window stores nothing.
    pub(crate) token: String,
    /// Id of this attempt, by which it can be found while it runs.
    pub(crate) query_id: String,
}

impl Store {
    /// Begins an insert of rows into a table. Without an identity a repeat is stored again.
    pub(crate) async fn insert<R: Row>(
        &self,
        table: &str,
        identity: Option<Identity>,
    ) -> Result<Insert<R>, StoreError> {
        let insert = self
            .client
            .clone()
            .with_database(self.database())
            .with_validation(self.validates_rows)
            .insert::<R>(table)
            .await
            .map_err(StoreError::from_client)?
            .with_timeouts(Some(self.insert_timeout), Some(self.insert_timeout + Duration::from_secs(5)))
            .with_setting("async_insert", "0")
            .with_setting("max_execution_time", self.insert_timeout.as_secs().to_string())
            // A batch of facts may span many days of receipt when an old backlog is drained.
            .with_setting("max_partitions_per_insert_block", "1000")
            // Rows are stored as sent: whether a version is the highest is decided when it is read.
            .with_setting("optimize_on_insert", "0")
            // The merge builds the text index; the insert would pay two thirds of its time for it.
            .with_setting("exclude_materialize_skip_indexes_on_insert", "data_text");
        let insert = match self.cluster() {
            None => insert,
            // Acknowledged by a majority, one after the other: what select_sequential_consistency rests on.
            Some(_) => insert
                .with_setting("insert_quorum", "auto")
                .with_setting("insert_quorum_parallel", "0")
                .with_setting("insert_quorum_timeout", self.insert_timeout.as_millis().to_string()),
        };
        Ok(match identity {
            Some(identity) => insert
                .with_setting("insert_deduplicate", "1")
                .with_setting("deduplicate_blocks_in_dependent_materialized_views", "1")
                .with_setting("insert_deduplication_token", identity.token)
                .with_setting("query_id", identity.query_id),
            None => insert.with_setting("insert_deduplicate", "0"),
        })
    }
}
