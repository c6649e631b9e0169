//! Tables that take rows as the tables of facts do and keep none: what they refuse is refused for its data (INV-8).
//!
//! They are made from the tables as they are, so what an operator added to one, a constraint or a column, counts in its
//! probe too. What is behind a table does not: parts, disk, memory, materialized views. A refusal that a probe does not
//! repeat is an outage.

use std::time::Duration;

use crate::{FactTable, Store, StoreError};

const STATEMENT_WITHIN: Duration = Duration::from_secs(30);

impl Store {
    /// Makes the probe of a table anew, with the table's columns and constraints of this moment.
    ///
    /// # Errors
    /// Whatever keeps the statement from being run; the probe that was there stays.
    pub async fn renew_probe(&self, table: FactTable) -> Result<(), StoreError> {
        let sql = fleetlog_schemas::ddl::renew_probe(&self.parameters, table.name(), table.probe());
        self.execute(&sql, STATEMENT_WITHIN).await
    }
}
