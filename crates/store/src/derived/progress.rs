//! How far the derivations have come, and what is not in them yet.

use std::collections::HashMap;

use super::{GroupHour, GroupKey, facts::GroupFilter};
use crate::{GroupKind, Store, StoreError};

/// Up to where a partition of the events topic is derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Partition of the events topic.
    pub partition: i32,
    /// Every stored event up to this offset is reflected in the groups.
    pub derived_offset: i64,
    /// Version of the groups that reflect them.
    pub version: u64,
}

#[derive(clickhouse::Row, serde::Serialize)]
struct ProgressRow {
    log_partition: i32,
    derived_offset: i64,
    version: u64,
}

/// A group with underived events, and one of its hours.
#[derive(Clone, Debug, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub struct UnderivedGroup {
    project_id: String,
    kind: String,
    id: String,
    /// Hour of the events.
    pub hour: i32,
    /// Day of receipt of the last of them, seconds since the epoch.
    pub received_day: u32,
    /// Their lowest offset.
    pub first_offset: i64,
}

/// The group of an event as expressions, in the order of [`UnderivedGroup`].
pub(super) const GROUP: &str = "project_id, \
   multiIf(session_id != '', 'session', trace_id != '', 'trace', 'loose') AS kind, \
   multiIf(session_id != '', session_id, trace_id != '', trace_id, \
     toString(intDiv(toUnixTimestamp64Nano(timestamp), 60000000000) * 60)) AS id";
/// The hour of an event as an expression.
pub(super) const HOUR: &str = "intDiv(toUnixTimestamp64Nano(timestamp), 3600000000000)";

impl UnderivedGroup {
    /// The group.
    pub fn key(&self) -> GroupKey {
        let kind = match self.kind.as_str() {
            "session" => GroupKind::Session,
            "trace" => GroupKind::Trace,
            _ => GroupKind::Loose,
        };
        GroupKey { project_id: self.project_id.clone(), kind, id: self.id.clone() }
    }

    /// The group and the hour.
    pub fn group_hour(&self) -> GroupHour {
        GroupHour { key: self.key(), hour: self.hour, received_day: self.received_day }
    }
}

impl Store {
    /// Records progress. Only after the groups and the usage of these versions are written.
    ///
    /// # Errors
    /// After an error the facts beyond what was recorded are derived again, which is harmless.
    pub async fn record_progress(&self, progress: &[Progress]) -> Result<(), StoreError> {
        if progress.is_empty() {
            return Ok(());
        }
        let mut insert = self.insert::<ProgressRow>("derivation_progress", None).await?;
        for at in progress {
            let row = ProgressRow {
                log_partition: at.partition,
                derived_offset: at.derived_offset,
                version: at.version,
            };
            insert.write(&row).await.map_err(StoreError::from_client)?;
        }
        insert.end().await.map_err(StoreError::from_client)
    }

    /// Recorded progress by partition.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn progress(&self) -> Result<HashMap<i32, i64>, StoreError> {
        let sql = format!(
            "SELECT log_partition, argMax(derived_offset, version) FROM {}.derivation_progress GROUP BY log_partition",
            self.database()
        );
        Ok(self.read_all::<(i32, i64)>(&sql).await?.into_iter().collect())
    }

    /// Groups that have stored events of a partition beyond an offset and up to another, with the hours of these events:
    /// what a new owner of the partition has to touch again.
    ///
    /// At most `limit` rows, by their `first_offset`: when as many come back, groups that begin at the last one's
    /// `first_offset` or later may be missing, and the next call goes on from the offset before it.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn underived(
        &self,
        partition: i32,
        (beyond, through): (i64, i64),
        limit: usize,
    ) -> Result<Vec<UnderivedGroup>, StoreError> {
        let sql = format!(
            "SELECT {GROUP}, toInt32({HOUR}) AS hour, \
               toUnixTimestamp(toStartOfDay(max(received_at))) AS received_day, min(log_offset) AS first_offset \
             FROM {}.events WHERE log_partition = {{partition:Int32}} AND log_offset > {{beyond:Int64}} \
               AND log_offset <= {{through:Int64}} \
             GROUP BY project_id, kind, id, hour ORDER BY first_offset LIMIT {{limit:UInt64}}",
            self.database()
        );
        self.read_with(&sql, |query| {
            let query = query.param("partition", partition).param("beyond", beyond);
            query.param("through", through).param("limit", limit as u64)
        })
        .await
    }

    /// `derived_through`: every stored event that was received before this instant (nanoseconds) is reflected in the
    /// derivations. It is the store's present when nothing waits.
    ///
    /// Says nothing of what is acknowledged and not stored yet: that is `complete_through`'s matter.
    ///
    /// # Errors
    /// Whatever keeps the queries from being answered.
    pub async fn derived_through(&self) -> Result<i64, StoreError> {
        let sql = format!(
            "SELECT toUnixTimestamp64Nano(if(count() = 0, now64(9), least(now64(9), min(received_at)))) \
             FROM {}.events WHERE {}",
            self.database(),
            self.beyond_progress().await?
        );
        self.read_one(&sql, self.read_timeout).await
    }

    /// The condition that holds for stored events that are not known to be derived.
    pub(super) async fn beyond_progress(&self) -> Result<String, StoreError> {
        let progress = self.progress().await?;
        let known: Vec<i32> = progress.keys().copied().collect();
        let beyond: Vec<String> = progress
            .iter()
            // Numbers only: nothing to escape.
            .map(|(partition, offset)| format!("(log_partition = {partition} AND log_offset > {offset})"))
            .chain([format!("log_partition NOT IN {known:?}")])
            .collect();
        Ok(beyond.join(" OR "))
    }

    /// The filter that finds all facts of groups of one kind.
    ///
    /// # Errors
    /// Whatever keeps their hours from being read.
    pub async fn group_filter(
        &self,
        kind: GroupKind,
        keys: Vec<GroupKey>,
    ) -> Result<GroupFilter, StoreError> {
        let hours = match kind {
            GroupKind::Session | GroupKind::Trace => self.group_hours(&keys).await?.into_iter().collect(),
            GroupKind::Loose => {
                let mut hours: Vec<i32> = keys
                    .iter()
                    .filter_map(|key| key.id.parse::<i64>().ok())
                    .map(|start| super::hour_of(start.saturating_mul(1_000_000_000)))
                    .collect();
                hours.sort_unstable();
                hours.dedup();
                hours
            }
        };
        Ok(GroupFilter { kind, keys, hours, adopted: Vec::new(), since: Vec::new() })
    }
}
