//! Price tables that were applied to calls after the fact.

use crate::{Store, StoreError};

/// A price table and the calls it was applied to.
#[derive(Clone, Debug, Default, PartialEq, Eq, clickhouse::Row, serde::Serialize, serde::Deserialize)]
pub struct Repricing {
    /// When, nanoseconds of ClickHouse's clock; unique, and the order among several.
    pub repriced_at: i64,
    /// Project; empty for all.
    pub project_id: String,
    /// Model, where `*` stands for any text.
    pub model: String,
    /// Calls from this time on, nanoseconds,
    pub from_time: i64,
    /// until before this one.
    pub until_time: i64,
    /// Versions of the tables, the preferred one first.
    pub versions: Vec<String>,
    /// The tables, TOML.
    pub sheets: Vec<String>,
}

/// How many there are, and when the last was added: they have changed when this has.
pub type RepricingMark = (u64, i64);

impl Store {
    /// Adds one. Whoever reads a version from [`Store::next_version`] afterwards, and the repricings after that, sees it.
    ///
    /// # Errors
    /// After an error it may be there or not; add it again, which is harmless.
    pub async fn add_repricing(&self, repricing: &Repricing) -> Result<(), StoreError> {
        let mut insert = self.insert::<Repricing>("repricings", None).await?;
        insert.write(repricing).await.map_err(StoreError::from_client)?;
        insert.end().await.map_err(StoreError::from_client)
    }

    /// All of them, the last one first.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn repricings(&self) -> Result<Vec<Repricing>, StoreError> {
        let sql = format!(
            "SELECT repriced_at, project_id, model, from_time, until_time, versions, sheets FROM {}.repricings \
             ORDER BY repriced_at DESC",
            self.database()
        );
        self.read_all(&sql).await
    }

    /// What changes when one is added.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn repricing_mark(&self) -> Result<RepricingMark, StoreError> {
        let sql = format!(
            "SELECT count(), toUnixTimestamp64Nano(max(repriced_at)) FROM {}.repricings",
            self.database()
        );
        self.read_one(&sql, self.read_timeout).await
    }
}
