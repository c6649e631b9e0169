//! Shadow databases: what a window of the raw topic became, and what it becomes today, side by side.
//!
//! Each has all tables of the main database and the same row filters, and holds the events of one side. What is compared
//! is counted here and judged elsewhere. Nothing in the main database is written.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use clickhouse::query::Query;
use fleetlog_schemas::AgentEvent;
use fleetlog_schemas::ddl::{Parameters, Shadow};

use crate::store::limited;
use crate::{Store, StoreError};

/// Longest that copying one partition's window, or comparing all of it, may take.
const WHOLE_WINDOW_WITHIN: Duration = Duration::from_secs(3600);
const STATEMENT_WITHIN: Duration = Duration::from_secs(60);
/// How much older than the window's records what they hold may be: a replayed dead letter keeps its time of receipt, and
/// its topic keeps it for thirty days.
const OLDER_NS: i64 = 32 * 86_400 * 1_000_000_000;
/// How much younger: clocks differ.
const YOUNGER_NS: i64 = 86_400 * 1_000_000_000;
/// From how much memory on a comparison of all rows goes on on disk.
const GROUPS_IN_MEMORY: u64 = 512 << 20;

/// A window of the raw topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its offsets by partition.
    pub offsets: Vec<(i32, Range<i64>)>,
    /// When its records were written, nanoseconds; bounds where their rows are looked for.
    pub written: Range<i64>,
    /// Only this project.
    pub project_id: Option<String>,
}

/// Where a stored event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub struct PlaceRow {
    /// Its identity.
    pub dedup_key: u128,
    /// When it was received, nanoseconds.
    pub received_at: i64,
    /// Partition of its raw record.
    pub raw_partition: i32,
    /// Offset of its raw record.
    pub raw_offset: i64,
    /// Index within the request.
    pub raw_index: u32,
}

/// What became of the records of a window.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clickhouse::Row, serde::Deserialize, serde::Serialize,
)]
pub struct Fates {
    /// Raw records.
    pub raw_records: u64,
    /// Records, as the gateway counted them.
    pub records: u64,
    /// Dropped by policy.
    pub filtered: u64,
    /// Dead letters.
    pub dead: u64,
    /// Context to others.
    pub context: u64,
    /// With events.
    pub with_events: u64,
}

/// Raw records that are settled and no longer in the raw topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub struct Gone {
    /// Raw records.
    pub raw_records: u64,
    /// Records in them.
    pub records: u64,
}

/// Rows of `events` of one kind.
#[derive(Clone, Debug, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub struct EventCount {
    /// Type of event.
    pub event_type: String,
    /// Format it arrived in.
    pub source_format: String,
    /// Rows.
    pub rows: u64,
}

/// Calls of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub struct CallTotals {
    /// Model that answered.
    pub model: String,
    /// Calls.
    pub calls: u64,
    /// Input tokens neither read from nor written to a cache.
    pub in_uncached: u64,
    /// Input tokens read from a cache.
    pub cache_read: u64,
    /// Input tokens written to a 5-minute cache.
    pub cache_write_5m: u64,
    /// Input tokens written to a 1-hour cache.
    pub cache_write_1h: u64,
    /// Output tokens that are not reasoning.
    pub out_visible: u64,
    /// Output tokens spent on reasoning.
    pub out_reasoning: u64,
    /// Reported cost, billionths of a dollar.
    pub cost_reported: i64,
    /// Computed cost, billionths of a dollar.
    pub cost_computed: i64,
    /// Calls without a computed cost.
    pub unpriced: u64,
}

/// Calls of one tool.
#[derive(Clone, Debug, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub struct ToolCount {
    /// Tool.
    pub tool_name: String,
    /// Calls.
    pub calls: u64,
}

/// Dead letters of one reason.
#[derive(Clone, Debug, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub struct ReasonCount {
    /// Reason code.
    pub reason: String,
    /// Letters.
    pub letters: u64,
}

/// How the rows of two databases differ, each found by its raw record, index and identity.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clickhouse::Row, serde::Deserialize, serde::Serialize,
)]
pub struct RowChanges {
    /// In the first only.
    pub only_before: u64,
    /// In the second only.
    pub only_after: u64,
    /// In both, with other values.
    pub changed: u64,
}

/// A session that differs between two databases.
#[derive(Clone, Debug, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub struct SessionPair {
    /// Project.
    pub project_id: String,
    /// Session.
    pub session_id: String,
    /// Calls to models before and after.
    pub calls: (u64, u64),
    /// Tool calls before and after.
    pub tool_calls: (u64, u64),
    /// Tokens of all buckets before and after.
    pub tokens: (u64, u64),
    /// Computed cost before and after, billionths of a dollar.
    pub cost_computed: (i64, i64),
    /// Reported cost before and after, billionths of a dollar.
    pub cost_reported: (i64, i64),
    /// Sessions that differ, of which this list may be the beginning.
    pub differing: u64,
}

impl Window {
    /// The condition for rows that were made of the window's raw records; its parameters are [`Self::bind`]'s.
    fn condition(&self) -> String {
        let places: Vec<String> = self
            .offsets
            .iter()
            // Numbers only: nothing to escape.
            .map(|(partition, offsets)| {
                format!(
                    "(raw_partition = {partition} AND raw_offset >= {} AND raw_offset < {})",
                    offsets.start, offsets.end
                )
            })
            .collect();
        let places = if places.is_empty() { "0".to_owned() } else { places.join(" OR ") };
        let project = if self.project_id.is_some() { " AND project_id = {project:String}" } else { "" };
        let (from, to) =
            (self.written.start.saturating_sub(OLDER_NS), self.written.end.saturating_add(YOUNGER_NS));
        format!(
            "({places}) AND received_at >= fromUnixTimestamp64Nano(toInt64({from}), 'UTC') \
             AND received_at < fromUnixTimestamp64Nano(toInt64({to}), 'UTC'){project}"
        )
    }

    fn bind(&self, query: Query) -> Query {
        match &self.project_id {
            Some(project) => query.param("project", project),
            None => query,
        }
    }

    /// The same window of one partition.
    fn of_partition(&self, place: usize) -> Self {
        Self { offsets: self.offsets.get(place).cloned().into_iter().collect(), ..self.clone() }
    }
}

impl Store {
    /// The same ClickHouse's shadow database.
    ///
    /// # Errors
    /// [`StoreError::Config`] when the main database's name leaves no room for its name.
    pub fn shadow(&self, shadow: Shadow) -> Result<Self, StoreError> {
        let database =
            self.parameters.database.shadow(shadow).map_err(|e| StoreError::Config(e.to_string()))?;
        Ok(Self {
            parameters: Arc::new(Parameters { database, ..(*self.parameters).clone() }),
            last_version: Arc::new(AtomicU64::new(0)),
            ..self.clone()
        })
    }

    /// Whether this store's database exists.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn exists(&self) -> Result<bool, StoreError> {
        let sql = format!("SELECT count() FROM system.databases WHERE name = '{}'", self.database());
        Ok(self.read_one::<u64>(&sql, STATEMENT_WITHIN).await? > 0)
    }

    /// Drops a shadow database with all that is in it.
    ///
    /// # Errors
    /// [`StoreError::Config`] for any other database, which nothing here may ever drop.
    pub async fn drop_shadow(&self) -> Result<(), StoreError> {
        if !self.database().contains("_shadow_") {
            return Err(StoreError::Config(format!("{} is no shadow database", self.database())));
        }
        self.execute(&format!("DROP DATABASE IF EXISTS {} SYNC", self.database()), STATEMENT_WITHIN).await
    }

    /// Copies the events of a window into a shadow database and returns how many these are.
    ///
    /// # Errors
    /// Whatever ClickHouse says; then the shadow may hold a part of them.
    pub async fn copy_window(&self, into: &Self, window: &Window) -> Result<u64, StoreError> {
        let columns: Vec<String> = self
            .read_all(&format!(
                "SELECT name FROM system.columns WHERE database = '{}' AND table = 'events' \
                 AND default_kind IN ('', 'DEFAULT') ORDER BY position",
                into.database()
            ))
            .await?;
        let listed = columns.join(", ");
        // The table refuses what comes after the time that the row states.
        let read = listed.replace(
            "insert_before",
            &format!("now64(3) + {} AS insert_before", WHOLE_WINDOW_WITHIN.as_secs()),
        );
        for place in 0..window.offsets.len() {
            let part = window.of_partition(place);
            let sql = format!(
                "INSERT INTO {}.events ({listed}) SELECT {read} FROM {}.events WHERE {}",
                into.database(),
                self.database(),
                part.condition(),
            );
            let query = part
                .bind(self.reading(&sql))
                .with_setting("max_execution_time", WHOLE_WINDOW_WITHIN.as_secs().to_string())
                .with_setting("max_partitions_per_insert_block", "1000")
                // By content two blocks of different windows could be the same; here every row is meant.
                .with_setting("insert_deduplicate", "0")
                .with_setting("optimize_on_insert", "0");
            limited(WHOLE_WINDOW_WITHIN, query.execute()).await?;
        }
        into.read_one(&format!("SELECT count() FROM {}.events", into.database()), STATEMENT_WITHIN).await
    }

    /// Where stored events with the identity of any of these came from, within the bounds of
    /// [`known_events`](Self::known_events).
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn known_places(
        &self,
        events: &[&AgentEvent],
        window_ns: i64,
    ) -> Result<Vec<PlaceRow>, StoreError> {
        self.known(events, window_ns, "dedup_key, received_at, raw_partition, raw_offset, raw_index").await
    }

    /// Up to which offset each partition of the log is stored, of those that have events.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn stored_through(&self) -> Result<Vec<(i32, i64)>, StoreError> {
        self.read_all(&format!(
            "SELECT log_partition, max(log_offset) FROM {}.events GROUP BY log_partition",
            self.database()
        ))
        .await
    }

    /// What the settlements say of a window.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn window_fates(&self, window: &Window) -> Result<Fates, StoreError> {
        let sql = format!(
            "SELECT count() AS raw_records, sum(s.records) AS records, sum(s.filtered) AS filtered, \
               sum(s.dead) AS dead, sum(s.context) AS context, \
               sum(arraySum(s.`pieces.records`)) AS with_events \
             FROM {}.settlements AS s WHERE {}",
            self.database(),
            window.condition()
        );
        self.read_only(&sql, window).await
    }

    /// How many records of a window are proved to be stored, or known to be duplicates.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn window_stored(&self, window: &Window) -> Result<u64, StoreError> {
        let sql = format!(
            "SELECT sum(p.stored + p.duplicate) FROM {}.piece_settlements AS p WHERE {}",
            self.database(),
            window.condition()
        );
        self.read_only(&sql, window).await
    }

    /// What is settled of a partition's raw records before an offset that were received within a range of time.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn settled_before(
        &self,
        partition: i32,
        offset: i64,
        received: &Range<i64>,
    ) -> Result<Gone, StoreError> {
        let sql = format!(
            "SELECT count() AS raw_records, sum(s.records) AS records FROM {}.settlements AS s \
             WHERE raw_partition = {partition} AND raw_offset < {offset} \
               AND received_at >= fromUnixTimestamp64Nano(toInt64({}), 'UTC') \
               AND received_at < fromUnixTimestamp64Nano(toInt64({}), 'UTC')",
            self.database(),
            received.start,
            received.end
        );
        self.read_one(&sql, self.read_timeout).await
    }

    /// Dead letters of a window by reason.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn window_dead(&self, window: &Window) -> Result<Vec<ReasonCount>, StoreError> {
        let sql = format!(
            "SELECT toString(d.reason) AS reason, count() AS letters FROM {}.dead_letters AS d WHERE {} GROUP BY reason",
            self.database(),
            window.condition()
        );
        self.read_with(&sql, |query| window.bind(query)).await
    }

    /// All rows of `events` by type and format.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn event_counts(&self) -> Result<Vec<EventCount>, StoreError> {
        self.read_all(&format!(
            "SELECT toString(type) AS event_type, toString(e.source_format) AS source_format, count() AS rows \
             FROM {}.events AS e GROUP BY event_type, source_format",
            self.database()
        ))
        .await
    }

    /// All calls to models, by model.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn call_totals(&self) -> Result<Vec<CallTotals>, StoreError> {
        self.read_all(&format!(
            "SELECT toString(c.model) AS model, count() AS calls, sum(c.in_uncached) AS in_uncached, \
               sum(c.cache_read) AS cache_read, sum(c.cache_write_5m) AS cache_write_5m, \
               sum(c.cache_write_1h) AS cache_write_1h, sum(c.out_visible) AS out_visible, \
               sum(c.out_reasoning) AS out_reasoning, \
               toDecimal64(sum(ifNull(c.cost_reported, 0)), 9) AS cost_reported, \
               toDecimal64(sum(ifNull(c.cost_computed, 0)), 9) AS cost_computed, \
               countIf(c.cost_computed IS NULL) AS unpriced \
             FROM {}.llm_calls AS c GROUP BY model",
            self.database()
        ))
        .await
    }

    /// All tool calls, by tool.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn tool_counts(&self) -> Result<Vec<ToolCount>, StoreError> {
        self.read_all(&format!(
            "SELECT toString(t.tool_name) AS tool_name, count() AS calls FROM {}.tool_calls AS t GROUP BY tool_name",
            self.database()
        ))
        .await
    }

    /// How the events of another database differ from this one's. Which price table a cost is of is no difference.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn row_changes(&self, after: &Self) -> Result<RowChanges, StoreError> {
        let side = |store: &Self, side: u8| {
            format!(
                "SELECT {side} AS side, raw_partition, raw_offset, raw_index, dedup_key, \
                   cityHash64(tuple(* EXCEPT (raw_partition, raw_offset, raw_index, dedup_key, log_partition, \
                     log_offset, log_index, insert_before, price_version))) AS content \
                 FROM {}.events",
                store.database()
            )
        };
        let sql = format!(
            "SELECT countIf(befores > afters) AS only_before, countIf(afters > befores) AS only_after, \
               countIf(befores = afters AND before != after) AS changed \
             FROM (SELECT countIf(side = 0) AS befores, countIf(side = 1) AS afters, \
                 sumIf(content, side = 0) AS before, sumIf(content, side = 1) AS after \
               FROM ({} UNION ALL {}) GROUP BY raw_partition, raw_offset, raw_index, dedup_key)",
            side(self, 0),
            side(after, 1)
        );
        let query = self
            .reading(&sql)
            .with_setting("max_execution_time", WHOLE_WINDOW_WITHIN.as_secs().to_string())
            .with_setting("max_bytes_before_external_group_by", GROUPS_IN_MEMORY.to_string());
        limited(WHOLE_WINDOW_WITHIN, query.fetch_one::<RowChanges>()).await
    }

    /// Sessions that differ between this database and another, those with the largest difference of cost first, then of
    /// tokens.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn session_pairs(&self, after: &Self, most: u32) -> Result<Vec<SessionPair>, StoreError> {
        let side = |store: &Self, side: u8| {
            format!(
                "SELECT {side} AS side, project_id, session_id, llm_call_count, tool_call_count, \
                   in_uncached + cache_read + cache_write_5m + cache_write_1h + out_visible + out_reasoning AS used, \
                   cost_computed AS computed, cost_reported AS reported \
                 FROM {}.sessions",
                store.database()
            )
        };
        let pair = |value: &str| format!("(sumIf({value}, side = 0), sumIf({value}, side = 1))");
        let money = |value: &str| {
            let of = |side: u8| format!("toDecimal64(sumIf({value}, side = {side}), 9)");
            format!("({}, {})", of(0), of(1))
        };
        let sql = format!(
            "SELECT toString(project_id) AS project_id, session_id, {} AS calls, {} AS tool_calls, {} AS tokens, \
               {} AS cost_computed, {} AS cost_reported, count() OVER () AS differing \
             FROM ({} UNION ALL {}) GROUP BY project_id, session_id \
             HAVING countIf(side = 0) != countIf(side = 1) OR calls.1 != calls.2 OR tool_calls.1 != tool_calls.2 \
               OR tokens.1 != tokens.2 OR cost_computed.1 != cost_computed.2 OR cost_reported.1 != cost_reported.2 \
             ORDER BY abs(cost_computed.2 - cost_computed.1) DESC, \
               abs(toInt64(tokens.2) - toInt64(tokens.1)) DESC, project_id, session_id \
             LIMIT {most}",
            pair("llm_call_count"),
            pair("tool_call_count"),
            pair("used"),
            money("computed"),
            money("reported"),
            side(self, 0),
            side(after, 1)
        );
        self.read_all(&sql).await
    }

    /// The only row of a query about a window.
    async fn read_only<T>(&self, sql: &str, window: &Window) -> Result<T, StoreError>
    where
        T: clickhouse::Row + clickhouse::RowOwned + clickhouse::RowRead,
    {
        limited(self.read_timeout, window.bind(self.reading(sql)).fetch_one::<T>()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_names_each_partition_and_nothing_when_it_is_empty() {
        let window = Window { offsets: vec![(0, 3..9), (2, 0..1)], written: 0..1, project_id: None };
        let condition = window.condition();
        assert!(
            condition
                .contains("raw_partition = 0 AND raw_offset >= 3 AND raw_offset < 9) OR (raw_partition = 2")
        );
        assert!(!condition.contains("project_id"));
        let empty = Window { offsets: Vec::new(), project_id: Some("p".to_owned()), ..window.clone() };
        assert!(empty.condition().starts_with("(0) AND ") && empty.condition().contains("{project:String}"));
        assert_eq!(window.of_partition(1).offsets, [(2, 0..1)]);
    }
}
