//! Queries on behalf of one project.
//!
//! The project goes into the setting `log_comment`, which every table's row filter compares with `project_id`, and
//! `readonly=1` keeps the query from changing it. The SQL itself may therefore come from anyone (INV-10); what it may
//! cost is bounded by the limits, which it cannot change either.

use std::time::Duration;

use clickhouse::query::RowCursor;
use clickhouse::{Row, RowOwned, RowRead};
use serde::Serialize;

use crate::listed::{Listable, Listed};
use crate::store::limited;
use crate::{Store, StoreError};

/// What one query may cost.
#[derive(Clone, Copy, Debug)]
pub struct ReaderLimits {
    /// Longest it may run.
    pub execution: Duration,
    /// Most rows it may read.
    pub rows_read: u64,
    /// Most bytes it may read, uncompressed.
    pub bytes_read: u64,
    /// Most rows of its answer.
    pub result_rows: u64,
    /// Most bytes of its answer.
    pub result_bytes: u64,
    /// Most memory it may use.
    pub memory_bytes: u64,
}

impl Default for ReaderLimits {
    fn default() -> Self {
        Self {
            execution: Duration::from_secs(10),
            rows_read: 1_000_000_000,
            bytes_read: 50_000_000_000,
            result_rows: 100_000,
            result_bytes: 64 << 20,
            memory_bytes: 1 << 30,
        }
    }
}

/// Gives out readers confined to a project. Obtained only with the proof that confinement works.
#[derive(Clone)]
pub struct Reader {
    store: Store,
    limits: ReaderLimits,
}

/// Runs queries that see one project's rows only.
#[derive(Clone)]
pub struct ProjectReader {
    store: Store,
    limits: ReaderLimits,
    project_id: String,
}

/// A query with its parameters.
#[must_use]
pub struct Query {
    query: clickhouse::query::Query,
    within: Duration,
}

impl Store {
    /// A reader for the query API, once every table is proved to be confined.
    ///
    /// # Errors
    /// [`StoreError::NotConfined`], or whatever keeps the proof from being made.
    pub async fn reader(&self, limits: ReaderLimits) -> Result<Reader, StoreError> {
        self.verify_row_policies().await?;
        Ok(Reader { store: self.clone(), limits })
    }
}

impl Reader {
    /// A reader confined to a project.
    ///
    /// # Errors
    /// [`StoreError::NoProject`] for an empty id, which would mean "not confined".
    pub fn project(&self, project_id: &str) -> Result<ProjectReader, StoreError> {
        if project_id.is_empty() {
            return Err(StoreError::NoProject);
        }
        Ok(ProjectReader {
            store: self.store.clone(),
            limits: self.limits,
            project_id: project_id.to_owned(),
        })
    }

    /// The store behind it, for what belongs to no project (readiness, `derived_through`).
    pub fn store(&self) -> &Store {
        &self.store
    }
}

impl ProjectReader {
    /// The project.
    pub fn project_id(&self) -> &str {
        &self.project_id
    }

    /// The database of all tables.
    pub fn database(&self) -> &str {
        self.store.database()
    }

    /// The same reader with other limits.
    #[must_use]
    pub fn with_limits(&self, limits: ReaderLimits) -> Self {
        Self { limits, ..self.clone() }
    }

    /// Prepares a query. Tables are found in the store's database; values are given as server-side parameters,
    /// `{name:Type}` in the text.
    pub fn query(&self, sql: &str) -> Query {
        let limits = &self.limits;
        let seconds = limits.execution.as_secs().max(1);
        let query = self
            .store
            .client
            .clone()
            .with_database(self.store.database())
            .query_raw(sql)
            .with_setting("readonly", "1")
            // As for the store's own reads: compiled, min and max misplace times before 1970.
            .with_setting("compile_aggregate_expressions", "0")
            .with_setting("log_comment", &self.project_id)
            .with_setting("max_execution_time", seconds.to_string())
            .with_setting("max_rows_to_read", limits.rows_read.to_string())
            .with_setting("max_bytes_to_read", limits.bytes_read.to_string())
            .with_setting("read_overflow_mode", "throw")
            .with_setting("max_result_rows", limits.result_rows.to_string())
            .with_setting("max_result_bytes", limits.result_bytes.to_string())
            .with_setting("result_overflow_mode", "throw")
            .with_setting("max_memory_usage", limits.memory_bytes.to_string())
            // A caller that has left costs nothing more; the embedded engine's bridge cancels anyway.
            .with_setting("cancel_http_readonly_queries_on_client_close", "1")
            // A list reads in the table's order and stops; buffering first reads ahead in every part (14 times the rows).
            .with_setting("read_in_order_use_buffering", "0");
        Query { query, within: limits.execution }
    }
}

impl Query {
    /// Gives a parameter its value.
    pub fn param(self, name: &str, value: impl Serialize) -> Self {
        Self { query: self.query.param(name, value), ..self }
    }

    /// Gives a list its values.
    pub fn list<T: Listable>(self, list: &Listed<T>) -> Self {
        Self { query: list.bind(self.query), ..self }
    }

    /// All rows. The row type is checked against the answer's columns by name and type.
    ///
    /// # Errors
    /// [`StoreError::Limit`] when the query exceeds a limit; otherwise whatever ClickHouse says.
    pub async fn fetch_all<T: Row + RowOwned + RowRead>(self) -> Result<Vec<T>, StoreError> {
        limited(self.within, self.query.fetch_all::<T>()).await.map_err(StoreError::of_reader)
    }

    /// The first row, if there is any.
    ///
    /// # Errors
    /// As for [`Self::fetch_all`].
    pub async fn fetch_optional<T: Row + RowOwned + RowRead>(self) -> Result<Option<T>, StoreError> {
        limited(self.within, self.query.fetch_optional::<T>()).await.map_err(StoreError::of_reader)
    }

    /// The rows one by one, for answers that should not be held whole.
    ///
    /// # Errors
    /// When the query cannot be prepared; what ClickHouse says comes with the rows.
    pub fn stream<T: Row + RowOwned + RowRead>(self) -> Result<Rows<T>, StoreError> {
        Ok(Rows { cursor: self.query.fetch::<T>().map_err(StoreError::from_client)?, within: self.within })
    }

    /// The answer in any output format of ClickHouse, whole.
    ///
    /// # Errors
    /// As for [`Self::fetch_all`].
    pub async fn fetch_bytes(self, format: &str) -> Result<Vec<u8>, StoreError> {
        let within = self.within;
        let mut cursor = self.query.fetch_bytes(format).map_err(StoreError::from_client)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = limited(within, cursor.next()).await.map_err(StoreError::of_reader)? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// Rows of a running query.
pub struct Rows<T> {
    cursor: RowCursor<T>,
    within: Duration,
}

impl<T: Row + RowOwned + RowRead> Rows<T> {
    /// The next row.
    ///
    /// # Errors
    /// As for [`Query::fetch_all`].
    pub async fn next(&mut self) -> Result<Option<T>, StoreError>
    where
        T: for<'a> Row<Value<'a> = T>,
    {
        limited(self.within, self.cursor.next()).await.map_err(StoreError::of_reader)
    }
}
