//! One database of one ClickHouse, and its clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clickhouse::{Client, Compression, Row, RowOwned, RowRead};
use fleetlog_schemas::ddl::{ClusterName, DatabaseName, Engine, Parameters};
use tokio::sync::{Mutex, MutexGuard};

use crate::{StoreConfig, StoreError};

/// Thirty years. A TTL is a `DateTime`, which ends in 2106 and wraps: an expiry beyond it would delete at once.
const RETENTION_MAX_DAYS: u32 = 10_950;

/// A pool of connections to one database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) client: Client,
    pub(crate) parameters: Arc<Parameters>,
    pub(crate) insert_timeout: Duration,
    pub(crate) read_timeout: Duration,
    /// Whether inserted rows are checked against the columns of their table first.
    pub(crate) validates_rows: bool,
    /// For what the bridge of the embedded engine answers beside SQL.
    pub(crate) http: reqwest::Client,
    pub(crate) bridge_url: String,
    pub(crate) clock_skew_ms: u32,
    /// On a cluster: inserts with a quorum refuse each other when they run side by side.
    pub(crate) turns: Arc<Mutex<()>>,
    /// The highest version given out, so that none is given out twice (design: versions come from one clock).
    pub(crate) last_version: Arc<AtomicU64>,
}

impl Store {
    /// Prepares connections; none is opened before the first request.
    ///
    /// # Errors
    /// [`StoreError::Config`] when the database's name needs quoting or the address is not HTTP.
    pub fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        let database =
            DatabaseName::parse(&config.database).map_err(|e| StoreError::Config(e.to_string()))?;
        let engine =
            match config.cluster.as_str() {
                "" => Engine::SingleNode,
                name => Engine::Replicated(ClusterName::parse(name).map_err(|_| {
                    StoreError::Config(format!("clickhouse.cluster {name:?} is no identifier"))
                })?),
            };
        if !config.url.starts_with("http://") {
            return Err(StoreError::Config(format!(
                "clickhouse.url {:?} does not start with http://",
                config.url
            )));
        }
        for (key, days) in [
            ("retention_days", config.retention_days),
            ("derived_retention_days", config.derived_retention_days),
        ] {
            if !(1..=RETENTION_MAX_DAYS).contains(&days) {
                let message = format!("clickhouse.{key} = {days} is not within 1..={RETENTION_MAX_DAYS}");
                return Err(StoreError::Config(message));
            }
        }
        let mut client = Client::default()
            .with_url(&config.url)
            .with_user(&config.user)
            .with_compression(if config.compression { Compression::Lz4 } else { Compression::None });
        if !config.password.is_empty() {
            client = client.with_password(config.password.expose());
        }
        Ok(Self {
            client,
            parameters: Arc::new(Parameters {
                database,
                retention_days: config.retention_days,
                derived_retention_days: config.derived_retention_days,
                engine,
            }),
            insert_timeout: Duration::from_secs(config.insert_timeout_s.into()),
            read_timeout: Duration::from_secs(config.read_timeout_s.into()),
            validates_rows: false,
            http: reqwest::Client::new(),
            bridge_url: format!("{}/fleetlog/running", config.url.trim_end_matches('/')),
            clock_skew_ms: config.clock_skew_ms,
            turns: Arc::default(),
            last_version: Arc::new(AtomicU64::new(0)),
        })
    }

    /// The same store, which asks for a table's columns and checks every row against them before it is sent.
    ///
    /// For tests: it costs a query a table and a comparison a value.
    #[must_use]
    pub fn validating_rows(mut self) -> Self {
        self.validates_rows = true;
        self
    }

    /// The database of all tables.
    pub fn database(&self) -> &str {
        self.parameters.database.as_str()
    }

    /// The cluster, when there is one.
    pub(crate) fn cluster(&self) -> Option<&ClusterName> {
        self.parameters.engine.cluster()
    }

    /// How far a time of [`Store::now_ms`] can be ahead of another server's, milliseconds: 0 on a single node.
    pub fn clock_skew_ms(&self) -> i64 {
        if self.cluster().is_some() { self.clock_skew_ms.into() } else { 0 }
    }

    /// Waits until no other insert of this process is under way; on a single node there is nothing to wait for.
    pub(crate) async fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        if self.cluster().is_some() { Some(self.turns.lock().await) } else { None }
    }

    /// Days that facts are kept.
    pub fn retention_days(&self) -> u32 {
        self.parameters.retention_days
    }

    /// Days that what is derived is kept.
    pub fn derived_retention_days(&self) -> u32 {
        self.parameters.derived_retention_days
    }

    /// Whether ClickHouse answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and the like when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let one: u8 = self.read_one("SELECT toUInt8(1)", Duration::from_secs(5)).await?;
        if one == 1 { Ok(()) } else { Err(StoreError::Answer("SELECT 1 is not 1".to_owned())) }
    }

    /// ClickHouse's clock, milliseconds since the epoch.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn now_ms(&self) -> Result<i64, StoreError> {
        self.read_one("SELECT toUnixTimestamp64Milli(now64(3))", Duration::from_secs(5)).await
    }

    /// A version for a recomputation that begins after this call.
    ///
    /// # Invariants
    /// From the node's clock, in nanoseconds; above every version this process has given out, and never below the
    /// highest one stored (design: versions). On a cluster, whose clocks differ, from a counter in Keeper. Read it before
    /// the facts, or the highest version may not have seen them.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered; [`StoreError::Config`] when the counter is behind what is stored.
    pub async fn next_version(&self) -> Result<u64, StoreError> {
        if self.last_version.load(Ordering::SeqCst) == 0 {
            let stored = self.highest_version().await?;
            if self.cluster().is_some() {
                // The counter is above all that was given out before this process; else it is not the one that they
                // came from.
                let counter = self.counted_version().await?;
                if counter <= stored {
                    let message = format!(
                        "the version counter in Keeper says {counter}, and {stored} is stored: it was reset, or the tables \
                         are another cluster's"
                    );
                    return Err(StoreError::Config(message));
                }
                self.last_version.fetch_max(counter, Ordering::SeqCst);
                return Ok(counter);
            }
            self.last_version.fetch_max(stored, Ordering::SeqCst);
        }
        if self.cluster().is_some() {
            return self.counted_version().await;
        }
        let now: i64 =
            self.read_one("SELECT toUnixTimestamp64Nano(now64(9))", Duration::from_secs(5)).await?;
        let now = u64::try_from(now).unwrap_or(0);
        let mut last = self.last_version.load(Ordering::SeqCst);
        loop {
            let next = now.max(last + 1);
            match self.last_version.compare_exchange(last, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(next),
                Err(raced) => last = raced,
            }
        }
    }

    /// The next number of the database's counter in Keeper, which all replicas share.
    async fn counted_version(&self) -> Result<u64, StoreError> {
        let sql = format!("SELECT toUInt64(generateSerialID('fleetlog/{}/version') + 1)", self.database());
        self.read_one(&sql, Duration::from_secs(5)).await
    }

    async fn highest_version(&self) -> Result<u64, StoreError> {
        let db = self.database();
        let sql = format!(
            "SELECT max(version) FROM (SELECT max(version) AS version FROM {db}.session_groups \
             UNION ALL SELECT max(version) FROM {db}.usage_1m_groups \
             UNION ALL SELECT max(version) FROM {db}.usage_1h_groups \
             UNION ALL SELECT max(version) FROM {db}.trace_groups)"
        );
        self.read_one(&sql, self.read_timeout).await
    }

    /// Runs a statement that returns nothing.
    pub(crate) async fn execute(&self, sql: &str, within: Duration) -> Result<(), StoreError> {
        let query = self
            .client
            .query_raw(sql)
            .with_setting("max_execution_time", within.as_secs().to_string())
            .with_setting("log_comment", "");
        limited(within, query.execute()).await
    }

    /// A query of ours, unconfined and limited in time.
    pub(crate) fn reading(&self, sql: &str) -> clickhouse::query::Query {
        let query = self.client.query_raw(sql);
        let query = match self.cluster() {
            None => query,
            // A replica that is behind says so instead of leaving out what was acknowledged.
            Some(_) => query.with_setting("select_sequential_consistency", "1"),
        };
        query
            .with_setting("max_execution_time", self.read_timeout.as_secs().to_string())
            .with_setting("log_comment", "")
            // Compiled (which happens after a few runs), min and max take times before 1970 for the latest of all.
            .with_setting("compile_aggregate_expressions", "0")
    }

    /// Reads the only row of a query.
    pub(crate) async fn read_one<T>(&self, sql: &str, within: Duration) -> Result<T, StoreError>
    where
        T: Row + RowOwned + RowRead,
    {
        let query = self.reading(sql).with_setting("max_execution_time", within.as_secs().to_string());
        limited(within, query.fetch_one::<T>()).await
    }

    /// Reads all rows of a query.
    pub(crate) async fn read_all<T>(&self, sql: &str) -> Result<Vec<T>, StoreError>
    where
        T: Row + RowOwned + RowRead,
    {
        self.read_with(sql, |query| query).await
    }

    /// Reads all rows of a query with parameters.
    pub(crate) async fn read_with<T>(
        &self,
        sql: &str,
        parameters: impl FnOnce(clickhouse::query::Query) -> clickhouse::query::Query,
    ) -> Result<Vec<T>, StoreError>
    where
        T: Row + RowOwned + RowRead,
    {
        limited(self.read_timeout, parameters(self.reading(sql)).fetch_all::<T>()).await
    }
}

/// Waits a little longer for an answer than ClickHouse may take for it, so that a dead connection ends too.
pub(crate) async fn limited<T>(
    within: Duration,
    answer: impl Future<Output = Result<T, clickhouse::error::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(within + Duration::from_secs(5), answer).await {
        Ok(answer) => answer.map_err(StoreError::from_client),
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {within:?}"))),
    }
}
