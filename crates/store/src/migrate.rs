//! Applying the migrations.
//!
//! Safe when several start at once, and when one is killed at any point: every statement of every migration can be
//! repeated without effect, and what is recorded is only that it was applied, and how it read. So there is no lock to
//! be left behind.

use fleetlog_schemas::ddl::{LEDGER, MIGRATIONS, Migration};
use std::time::Duration;

use crate::{Store, StoreError};

const STATEMENT_WITHIN: Duration = Duration::from_secs(60);

/// What a run of [`Store::migrate`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Names of the migrations applied by this run.
    pub applied: Vec<&'static str>,
    /// Tables whose retention was changed to the configured one.
    pub retention_changed: Vec<&'static str>,
    /// Whether readers are confined once it is done; on a server whose access storage is not ours to write, an
    /// operator has to run the statements of [`fleetlog_schemas::ddl::row_policies`].
    pub confined: bool,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct AppliedRow {
    number: u32,
    checksum: String,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct TableRow {
    name: String,
    definition: String,
}

impl Store {
    /// Brings the database to this version: missing migrations, configured retention, row filters.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when an applied migration reads differently from this version's; otherwise whatever
    /// ClickHouse says. A failed run can be repeated.
    pub async fn migrate(&self) -> Result<Migrated, StoreError> {
        self.verify_cluster().await?;
        let on_cluster = self.parameters.engine.on_cluster();
        let database = format!("CREATE DATABASE IF NOT EXISTS {}{on_cluster}", self.database());
        self.execute(&database, STATEMENT_WITHIN).await?;
        self.execute(&LEDGER.statement(&self.parameters), STATEMENT_WITHIN).await?;
        let recorded = self.recorded().await?;
        let mut done = Migrated::default();
        for migration in MIGRATIONS {
            match recorded.iter().find(|row| row.number == migration.number) {
                Some(row) if row.checksum == migration.checksum() => {}
                Some(row) => {
                    return Err(StoreError::Changed {
                        number: migration.number,
                        name: migration.name,
                        applied: row.checksum.clone(),
                        expected: migration.checksum(),
                    });
                }
                None => {
                    self.apply(migration).await?;
                    tracing::info!(number = migration.number, name = migration.name, "migration applied");
                    done.applied.push(migration.name);
                }
            }
        }
        if let Some(newer) = recorded.iter().map(|row| row.number).max().filter(|number| *number > highest())
        {
            tracing::warn!(applied = newer, known = highest(), "the database is newer than this program");
        }
        done.retention_changed = self.apply_retention().await?;
        done.confined = self.confine().await?;
        Ok(done)
    }

    async fn recorded(&self) -> Result<Vec<AppliedRow>, StoreError> {
        let table = format!("{}.{}", self.database(), LEDGER.name);
        self.read_all(&format!(
            "SELECT number, argMin(m.checksum, m.applied_at) AS checksum FROM {table} AS m GROUP BY number"
        ))
        .await
    }

    async fn apply(&self, migration: &Migration) -> Result<(), StoreError> {
        self.execute(&migration.statement(&self.parameters), STATEMENT_WITHIN).await?;
        // Names and checksums are ours: identifiers and hexadecimal digits, nothing to escape.
        let record = format!(
            "INSERT INTO {}.{} (number, name, checksum) VALUES ({}, '{}', '{}')",
            self.database(),
            LEDGER.name,
            migration.number,
            migration.name,
            migration.checksum()
        );
        self.execute(&record, STATEMENT_WITHIN).await
    }

    async fn apply_retention(&self) -> Result<Vec<&'static str>, StoreError> {
        let database = self.database();
        let sql = format!(
            "SELECT name, create_table_query AS definition FROM system.tables WHERE database = '{database}'"
        );
        let tables: Vec<TableRow> = self.read_all(&sql).await?;
        let mut changed = Vec::new();
        for migration in MIGRATIONS {
            let Some(retention) = migration.retention(&self.parameters) else { continue };
            let Some(table) = tables.iter().find(|table| table.name == migration.name) else { continue };
            // The templates are written the way ClickHouse prints them.
            if !table.definition.contains(&format!(" TTL {retention} ")) {
                let on_cluster = self.parameters.engine.on_cluster();
                let sql =
                    format!("ALTER TABLE {database}.{}{on_cluster} MODIFY TTL {retention}", migration.name);
                self.execute(&sql, STATEMENT_WITHIN).await?;
                tracing::info!(table = migration.name, %retention, "retention changed");
                changed.push(migration.name);
            }
        }
        Ok(changed)
    }
}

fn highest() -> u32 {
    MIGRATIONS.last().map_or(0, |migration| migration.number)
}
