//! Which events are stored already, by their identity (INV-5).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use clickhouse::{Row, RowOwned, RowRead};
use fleetlog_schemas::AgentEvent;
use fleetlog_schemas::event::TimestampSource;

use crate::derived::hour_of;
use crate::listed::Listed;
use crate::store::limited;
use crate::{Store, StoreError};

/// Keys of one query: its text stays below 128 KiB.
const KEYS_A_QUERY: usize = 1_000;
/// Keys of later times that are read at once.
const LATER_MAX: u64 = 1_000_000;
/// Keys without a time of their own that are read at once, and how long that may take: it spares later lookups, and an
/// assignment does not depend on it.
const UNTIMED_MAX: u64 = 1_000_000;
const UNTIMED_WITHIN: Duration = Duration::from_secs(10);

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
    /// time are the same: a sender's retry repeats them all, and they lead straight to the place in the table. An event
    /// without a time of its own has that of its receipt, so it is looked for in all hours of the window around it.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn known_events(
        &self,
        events: &[&AgentEvent],
        window_ns: i64,
    ) -> Result<Vec<KnownRow>, StoreError> {
        self.known(events, window_ns, "dedup_key, received_at, log_partition, log_offset, log_index").await
    }

    /// Columns of the rows that [`known_events`](Self::known_events) finds.
    pub(crate) async fn known<T>(
        &self,
        events: &[&AgentEvent],
        window_ns: i64,
        columns: &str,
    ) -> Result<Vec<T>, StoreError>
    where
        T: Row + RowOwned + RowRead,
    {
        let (untimed, timed): (Vec<&AgentEvent>, Vec<&AgentEvent>) =
            events.iter().partition(|event| event.timestamp_source == TimestampSource::Ingest);
        let mut known = self.same_identity(&timed, 0, columns).await?;
        known.extend(self.same_identity(&untimed, window_ns, columns).await?);
        Ok(known)
    }

    /// Columns of the stored rows with the identity of any of these events, of the hours up to `window_ns` around each.
    async fn same_identity<T>(
        &self,
        events: &[&AgentEvent],
        window_ns: i64,
        columns: &str,
    ) -> Result<Vec<T>, StoreError>
    where
        T: Row + RowOwned + RowRead,
    {
        let mut known = Vec::new();
        for chunk in events.chunks(KEYS_A_QUERY) {
            let (mut projects, mut sessions) = (BTreeSet::new(), BTreeSet::new());
            let mut hours: BTreeSet<i64> = BTreeSet::new();
            for event in chunk {
                projects.insert(event.project_id.as_str());
                sessions.insert(event.session_id.as_str());
                let first = hour_of(event.timestamp.saturating_sub(window_ns));
                let last = hour_of(event.timestamp.saturating_add(window_ns));
                hours.extend((first..=last).map(i64::from));
            }
            let projects = Listed::new("projects", "String", projects);
            let sessions = Listed::new("sessions", "String", sessions);
            let hours = Listed::new("hours", "Int64", hours);
            // Numbers of ours: in the statement itself, where a thousand of them may stand. Quoted, because beyond 64 bits
            // a bare literal is a floating-point number.
            let mut keys = String::new();
            for event in chunk {
                let _infallible = write!(keys, "'{}',", event.dedup_key.as_u128());
            }
            let sql = format!(
                "SELECT {columns} FROM {}.events \
                 WHERE project_id IN {projects} AND session_id IN {sessions} \
                   AND intDiv(toUnixTimestamp64Nano(timestamp), 3600000000000) IN {hours} \
                   AND dedup_key IN ({})",
                self.database(),
                keys.trim_end_matches(','),
            );
            let rows = self.read_with::<T>(&sql, |query| hours.bind(sessions.bind(projects.bind(query))));
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

    /// Identity and receipt of the partition's stored events without a time of their own that were received from a time on
    /// (nanoseconds), the latest first, and the time from which on they are complete.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered; it reads two narrow columns of every event received since.
    pub async fn untimed_keys(
        &self,
        log_partition: i32,
        from: i64,
    ) -> Result<(Vec<(u128, i64)>, i64), StoreError> {
        let sql = format!(
            "SELECT dedup_key, toUnixTimestamp64Nano(received_at) AS at FROM {}.events \
             WHERE received_at >= fromUnixTimestamp64Nano({{from:Int64}}) \
               AND log_partition = {{partition:Int32}} AND timestamp_source = 'ingest' \
             ORDER BY at DESC LIMIT {UNTIMED_MAX}",
            self.database(),
        );
        let query =
            self.reading(&sql).with_setting("max_execution_time", UNTIMED_WITHIN.as_secs().to_string());
        let query = query.param("from", from).param("partition", log_partition);
        let rows: Vec<(u128, i64)> = limited(UNTIMED_WITHIN, query.fetch_all()).await?;
        let complete_from = match rows.last() {
            // Others may have been received at the same instant.
            Some((_, first)) if rows.len() as u64 == UNTIMED_MAX => first.saturating_add(1),
            _ => from,
        };
        Ok((rows, complete_from))
    }
}
