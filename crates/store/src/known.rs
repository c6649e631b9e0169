//! Which events are stored already, by their identity (INV-5).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clickhouse::{Row, RowOwned, RowRead};
use fleetlog_schemas::AgentEvent;

use crate::derived::hour_of;
use crate::{Store, StoreError};

/// Keys of one query: its text stays below 256 KiB and its parameters below the longest address that is taken.
const KEYS_A_QUERY: usize = 1_000;
/// Keys of later times that are read at once.
const LATER_MAX: u64 = 1_000_000;

/// A stored event with a key that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub struct KnownRow {
    /// Its identity.
    pub dedup_key: u128,
    /// When it was received, nanoseconds.
    pub received_at: i64,
    /// Partition of the events topic.
    pub log_partition: i32,
    /// Offset in that partition.
    pub log_offset: i64,
    /// Index within that record.
    pub log_index: u32,
}

impl KnownRow {
    /// Its place in the events topic.
    pub const fn position(&self) -> (i32, i64, u32) {
        (self.log_partition, self.log_offset, self.log_index)
    }
}

impl Store {
    /// The stored rows with the identity of any of these events, as far as project, session and hour of the event's own
    /// time are the same: a sender's retry repeats them all, and they lead straight to the place in the table.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn known_events(&self, events: &[&AgentEvent]) -> Result<Vec<KnownRow>, StoreError> {
        self.same_identity(events, "dedup_key, received_at, log_partition, log_offset, log_index").await
    }

    /// Columns of the stored rows with the identity of any of these events, within the same bounds.
    pub(crate) async fn same_identity<T>(
        &self,
        events: &[&AgentEvent],
        columns: &str,
    ) -> Result<Vec<T>, StoreError>
    where
        T: Row + RowOwned + RowRead,
    {
        let mut known = Vec::new();
        for chunk in events.chunks(KEYS_A_QUERY) {
            let places: BTreeSet<(&str, i64, &str)> = chunk
                .iter()
                .map(|event| {
                    (
                        event.project_id.as_str(),
                        i64::from(hour_of(event.timestamp)),
                        event.session_id.as_str(),
                    )
                })
                .collect();
            let (mut projects, mut hours, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
            for (project, hour, session) in places {
                projects.push(project);
                hours.push(hour);
                sessions.push(session);
            }
            // Numbers of ours: in the statement itself, where a thousand of them may stand. Quoted, because beyond 64 bits
            // a bare literal is a floating-point number.
            let mut keys = String::new();
            for event in chunk {
                let _infallible = write!(keys, "'{}',", event.dedup_key.as_u128());
            }
            let sql = format!(
                "SELECT {columns} FROM {}.events \
                 WHERE project_id IN {{projects:Array(String)}} AND session_id IN {{sessions:Array(String)}} \
                   AND intDiv(toUnixTimestamp64Nano(timestamp), 3600000000000) IN {{hours:Array(Int64)}} \
                   AND dedup_key IN ({})",
                self.database(),
                keys.trim_end_matches(','),
            );
            projects.dedup();
            hours.sort_unstable();
            hours.dedup();
            let rows = self.read_with::<T>(&sql, |query| {
                query.param("projects", &projects).param("sessions", &sessions).param("hours", &hours)
            });
            known.extend(rows.await?);
        }
        Ok(known)
    }

    /// Identity and time of the partition's stored events from a time on (nanoseconds), the earliest first, and the time
    /// before which they are complete.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn later_keys(
        &self,
        log_partition: i32,
        from: i64,
    ) -> Result<(Vec<(u128, i64)>, i64), StoreError> {
        let sql = format!(
            "SELECT dedup_key, toUnixTimestamp64Nano(timestamp) AS at FROM {}.events \
             WHERE intDiv(toUnixTimestamp64Nano(timestamp), 3600000000000) >= {{hour:Int64}} \
               AND toUnixTimestamp64Nano(timestamp) >= {{from:Int64}} AND log_partition = {{partition:Int32}} \
             ORDER BY at LIMIT {LATER_MAX}",
            self.database(),
        );
        let rows: Vec<(u128, i64)> = self
            .read_with(&sql, |query| {
                query.param("hour", hour_of(from)).param("from", from).param("partition", log_partition)
            })
            .await?;
        let complete_below = match rows.last() {
            Some((_, last)) if rows.len() as u64 == LATER_MAX => *last,
            _ => i64::MAX,
        };
        Ok((rows, complete_below))
    }
}
