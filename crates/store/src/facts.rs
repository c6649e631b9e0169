//! Writing facts, each range of the log once (INV-4).

use std::collections::HashSet;

use fleetlog_schemas::{AgentEvent, DeadLetter, Settlement};

use crate::insert::Identity;
use crate::rows::{DeadLetterRow, EventRow, PieceFact, PieceRow, SettlementRow};
use crate::{Store, StoreError};

/// A table of facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactTable {
    /// `events`.
    Events,
    /// `piece_settlements`.
    Pieces,
    /// `settlements`.
    Settlements,
    /// `dead_letters`.
    DeadLetters,
}

impl FactTable {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Events, Self::Pieces, Self::Settlements, Self::DeadLetters];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Pieces => "piece_settlements",
            Self::Settlements => "settlements",
            Self::DeadLetters => "dead_letters",
        }
    }

    /// Name of the table that takes the same rows and keeps none ([`Store::renew_probe`]).
    pub const fn probe(self) -> &'static str {
        match self {
            Self::Events => "events_probe",
            Self::Pieces => "piece_settlements_probe",
            Self::Settlements => "settlements_probe",
            Self::DeadLetters => "dead_letters_probe",
        }
    }
}

/// Places of facts within one partition of a topic: offset and index.
pub type Positions = HashSet<(i64, u32)>;

/// What is stored of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The places that are stored.
    pub positions: Positions,
    /// Rows beyond the first of their place: a broken promise, to be reported.
    pub repeats: usize,
}

/// A range of one partition of a topic: the unit of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactRange {
    /// Topic.
    pub topic: &'static str,
    /// Partition.
    pub partition: i32,
    /// Offset of the first record.
    pub first: i64,
    /// Offset of the last record, itself included.
    pub last: i64,
}

impl FactRange {
    /// The deduplication token of an attempt to store this range's rows in a table.
    pub fn token(&self, table: FactTable, attempt: u32) -> String {
        let inserts = self.inserts(table);
        format!("{inserts}{}-{}~{attempt}", self.first, self.last)
    }

    /// What the ids of all inserts from this partition into a table begin with.
    fn inserts(&self, table: FactTable) -> String {
        format!("{}/{}/{}/", table.name(), self.topic, self.partition)
    }
}

/// One attempt to store rows of a range: the same rows under the same token, however often they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// How often it was sent before.
    pub sends: u32,
    /// ClickHouse refuses to start it after this time, milliseconds of its clock.
    pub insert_before_ms: i64,
}

/// A fact's place in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Located {
    /// Partition.
    pub partition: i32,
    /// Offset of the record.
    pub offset: i64,
    /// Index within the record.
    pub index: u32,
}

/// Writes all rows of one fact table as one insert; or to its probe, which keeps nothing.
macro_rules! insert_facts {
    ($(#[$doc:meta])* $method:ident, $probe:ident, $table:expr, $fact:ty, $row:ident) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// After an error nobody knows whether the rows are stored: send the same range again.
        ///
        /// # Cancellation
        /// A dropped insert may still be stored.
        pub async fn $method<'a>(
            &self,
            range: &FactRange,
            attempt: &Attempt,
            facts: impl Iterator<Item = (Located, &'a $fact)> + Send,
        ) -> Result<(), StoreError> {
            let identity = identity($table, range, attempt);
            let _turn = self.turn().await;
            let mut insert = self.insert::<$row<'static>>($table.name(), Some(identity)).await?;
            for (at, fact) in facts {
                insert.write(&$row::new(fact, at, attempt)).await.map_err(StoreError::from_client)?;
            }
            insert.end().await.map_err(StoreError::from_client)
        }

        /// Asks whether ClickHouse takes these rows, and stores nothing.
        ///
        /// # Errors
        /// [`StoreError::Refused`] when it does not.
        pub async fn $probe<'a>(
            &self,
            facts: impl Iterator<Item = (Located, &'a $fact)> + Send,
        ) -> Result<(), StoreError> {
            let mut insert = self.insert::<$row<'static>>($table.probe(), None).await?;
            for (at, fact) in facts {
                insert.write(&$row::new(fact, at, &PROBING)).await.map_err(StoreError::from_client)?;
            }
            insert.end().await.map_err(StoreError::from_client)
        }
    };
}

/// A probe is never too late: the year 2200.
const PROBING: Attempt = Attempt { number: 0, sends: 0, insert_before_ms: 7_258_118_400_000 };

impl Store {
    insert_facts! {
        /// Stores a range's events. At most 500,000 rows and 128 MB, so that they are one block.
        insert_events, probe_events, FactTable::Events, AgentEvent, EventRow
    }
    insert_facts! {
        /// Stores a range's dead letters, without their bytes.
        insert_dead_letters, probe_dead_letters, FactTable::DeadLetters, DeadLetter, DeadLetterRow
    }
    insert_facts! {
        /// Stores a range's settlements.
        insert_settlements, probe_settlements, FactTable::Settlements, Settlement, SettlementRow
    }
    insert_facts! {
        /// Stores what became of a range's pieces. Only after their events are stored (INV-6).
        insert_pieces, probe_pieces, FactTable::Pieces, PieceRow, PieceFact
    }
}

impl Store {
    /// The places of a range that are stored in a table.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn stored_positions(&self, table: FactTable, range: &FactRange) -> Result<Stored, StoreError> {
        let sql = format!(
            "SELECT log_offset, log_index FROM {}.{} \
             WHERE log_partition = {{partition:Int32}} AND log_offset BETWEEN {{first:Int64}} AND {{last:Int64}}",
            self.database(),
            table.name(),
        );
        let rows: Vec<(i64, u32)> = self
            .read_with(&sql, |query| {
                query
                    .param("partition", range.partition)
                    .param("first", range.first)
                    .param("last", range.last)
            })
            .await?;
        let read = rows.len();
        let positions: Positions = rows.into_iter().collect();
        Ok(Stored { repeats: read - positions.len(), positions })
    }

    /// Whether an insert from the range's partition into a table may still be under way: on this node, or on any replica
    /// of the cluster.
    ///
    /// # Errors
    /// Whatever keeps ClickHouse, or the bridge of the embedded engine, from telling.
    pub async fn is_inserting(&self, table: FactTable, range: &FactRange) -> Result<bool, StoreError> {
        if self.running(&range.inserts(table)).await? > 0 {
            return Ok(true);
        }
        // A part that waits for its quorum belongs to no running query, and becomes visible later.
        Ok(self.cluster().is_some() && self.awaits_quorum(table.name()).await?)
    }
}

fn identity(table: FactTable, range: &FactRange, attempt: &Attempt) -> Identity {
    let token = range.token(table, attempt.number);
    let query_id = format!("{token}#{}", attempt.sends);
    Identity { token, query_id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_table_topic_partition_range_and_attempt() {
        let range = FactRange { topic: "fleetlog.events.v1", partition: 3, first: 7, last: 9 };
        let of = |number, sends| {
            identity(FactTable::Events, &range, &Attempt { number, sends, insert_before_ms: 0 })
        };
        assert_eq!(of(1, 0).token, "events/fleetlog.events.v1/3/7-9~1");
        assert_eq!(of(1, 0).token, of(1, 1).token);
        assert_ne!(of(1, 0).query_id, of(1, 1).query_id);
        assert_ne!(of(1, 0).token, of(2, 0).token);
        assert!(of(2, 5).query_id.starts_with(&range.inserts(FactTable::Events)));
        assert_ne!(range.token(FactTable::Settlements, 1), of(1, 0).token);
    }
}
