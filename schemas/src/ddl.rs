//! The numbered ClickHouse migrations, and who may read which table.
//!
//! Each file under `ddl/` is one statement, named `<number>_<table or view>.sql`, and never changes once released: what
//! is applied is recorded with its checksum. A view that changes is replaced by a later file of the same name. Only the parameters of [`Parameters`] are filled in. Facts are append-only;
//! derived base tables (`*_groups`, `usage_contributions`, `derivation_progress`) hold one row per group and version,
//! and everyone reads the views, which take a group's highest version only.
//!
//! A project's reader is confined by a row filter on every base table (INV-10): the reader's queries carry the project
//! in the setting `log_comment` and cannot change it, because they run with `readonly=1`. On a server the filters are
//! row policies, on the embedded engine they are part of the users file it reads at start. A table missing from
//! [`TABLES`] would be readable by all, so a test compares it with the migrations.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

/// A database name that is safe to write into a statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DatabaseName(String);

/// The text is not a plain identifier.
#[derive(Debug, thiserror::Error)]
#[error(
    "database name {0:?} is not an identifier: letters, digits and underscores, at most 64, no digit first"
)]
pub struct BadDatabaseName(String);

impl DatabaseName {
    /// Accepts a plain identifier.
    ///
    /// # Errors
    /// When the text needs quoting, is empty or longer than 64 characters.
    pub fn parse(text: &str) -> Result<Self, BadDatabaseName> {
        let plain = text.len() <= 64
            && text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if plain { Ok(Self(text.to_owned())) } else { Err(BadDatabaseName(text.to_owned())) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the tables are built on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// One node. The templates are written for it; the replicated variant rewrites their `ENGINE` clause.
    #[default]
    SingleNode,
}

/// What a migration's text leaves open.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Database of all tables.
    pub database: DatabaseName,
    /// Days that facts are kept after receipt.
    pub retention_days: u32,
    /// Days that calls, sessions and usage are kept.
    pub derived_retention_days: u32,
    /// What the tables are built on.
    pub engine: Engine,
}

/// One migration: one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its number; migrations are applied in this order.
    pub number: u32,
    /// Table or view it creates.
    pub name: &'static str,
    template: &'static str,
}

impl Migration {
    /// Fingerprint of the text as released: 16 hexadecimal digits. Parameters do not change it.
    pub fn checksum(&self) -> String {
        format!("{:016x}", xxh3_64(self.template.as_bytes()))
    }

    /// The statement to run.
    pub fn statement(&self, parameters: &Parameters) -> String {
        fill(self.template, parameters)
    }

    /// The table's retention as an expression, when it has one.
    ///
    /// A changed retention is applied with `ALTER TABLE … MODIFY TTL`; it is configuration, not a migration.
    pub fn retention(&self, parameters: &Parameters) -> Option<String> {
        let line = self.template.lines().find_map(|line| line.strip_prefix("TTL "))?;
        Some(fill(line, parameters))
    }
}

fn fill(template: &str, parameters: &Parameters) -> String {
    let Engine::SingleNode = parameters.engine;
    template
        .replace("{database}", parameters.database.as_str())
        .replace("{retention_days}", &parameters.retention_days.to_string())
        .replace("{derived_retention_days}", &parameters.derived_retention_days.to_string())
}

/// Declares migrations from the names of their files without extension: four digits, an underscore, the table.
macro_rules! migrations {
    ($($number:literal $file:literal),+ $(,)?) => {
        &[$(Migration {
            number: $number,
            name: $file.split_at(5).1,
            template: include_str!(concat!("../ddl/", $file, ".sql")),
        }),+]
    };
}

/// The table in which applied migrations are recorded. It is created before any of them.
pub const LEDGER: Migration = Migration {
    number: 0,
    name: "schema_migrations",
    template: include_str!("../ddl/0000_schema_migrations.sql"),
};

/// All migrations, in order.
///
/// Its place is taken for what a later version adds: the projection of `events` for the exact duplicate lookup.
pub const MIGRATIONS: &[Migration] = migrations![
    1 "0001_events",
    2 "0002_dead_letters",
    3 "0003_settlements",
    4 "0004_piece_settlements",
    5 "0005_group_hours",
    6 "0006_session_groups",
    7 "0007_usage_contributions",
    8 "0008_usage_1m_groups",
    9 "0009_usage_1h_groups",
    10 "0010_derivation_progress",
    11 "0011_llm_calls",
    12 "0012_tool_calls",
    13 "0013_sessions",
    14 "0014_usage_1m",
    15 "0015_usage_1h",
    16 "0016_events",
    17 "0017_session_groups",
    18 "0018_llm_calls",
    19 "0019_tool_calls",
    20 "0020_trace_sessions",
    21 "0021_trace_groups",
    22 "0022_traces",
    23 "0023_observations",
    24 "0024_scores",
    50 "0050_events",
    51 "0051_repricings",
];

/// Who may read a base table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// A confined reader sees its project's rows.
    Project,
    /// A confined reader sees no row.
    Operators,
}

impl Readers {
    /// The row filter. An unconfined connection (the aggregator's, an operator's) leaves `log_comment` empty.
    pub const fn filter(self) -> &'static str {
        match self {
            Self::Project => "getSetting('log_comment') = '' OR project_id = getSetting('log_comment')",
            Self::Operators => "getSetting('log_comment') = ''",
        }
    }
}

/// Every base table with its readers. Views need none: the filters apply to what they read.
pub const TABLES: &[(&str, Readers)] = &[
    ("schema_migrations", Readers::Operators),
    ("events", Readers::Project),
    ("dead_letters", Readers::Project),
    ("settlements", Readers::Project),
    ("piece_settlements", Readers::Project),
    ("group_hours", Readers::Project),
    ("session_groups", Readers::Project),
    ("usage_contributions", Readers::Project),
    ("usage_1m_groups", Readers::Project),
    ("usage_1h_groups", Readers::Project),
    ("derivation_progress", Readers::Operators),
    ("trace_sessions", Readers::Project),
    ("trace_groups", Readers::Project),
    ("repricings", Readers::Operators),
];

/// Name of the row policy on each table of a server.
pub const ROW_POLICY: &str = "fleetlog_project";

/// The statements that confine readers on a server.
///
/// They need `CREATE ROW POLICY` and writable access storage; the embedded engine has neither and reads
/// [`users_config_xml`] instead.
pub fn row_policies(database: &DatabaseName) -> Vec<String> {
    TABLES
        .iter()
        .map(|(table, readers)| {
            format!(
                "CREATE ROW POLICY IF NOT EXISTS {ROW_POLICY} ON {database}.{table} USING {} TO ALL",
                readers.filter()
            )
        })
        .collect()
}

/// What the one user of the embedded engine may do: everything inside the engine, nothing outside it.
///
/// Left out are the sources (`file()`, `url()`, `s3()` and the like), which would read the host's files and network.
const EMBEDDED_GRANT: &str = "GRANT SHOW, SHOW ROW POLICIES, SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, CREATE VIEW, \
     CREATE TEMPORARY TABLE, DROP, TRUNCATE, OPTIMIZE, KILL QUERY, SYSTEM ON *.*";

/// The users file of the embedded engine: one user, the row filters of every table, no reach outside the engine.
///
/// The engine reads it once, at start, so it names every table before the first exists.
pub fn users_config_xml(database: &DatabaseName) -> String {
    let filters: String = TABLES
        .iter()
        .map(|(table, readers)| {
            format!("                    <{table}><filter>{}</filter></{table}>\n", readers.filter())
        })
        .collect();
    format!(
        "<clickhouse>
    <profiles><default/></profiles>
    <quotas><default/></quotas>
    <users>
        <default>
            <password></password>
            <networks><ip>::/0</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
            <grants><query>{EMBEDDED_GRANT}</query></grants>
            <databases>
                <{database}>
{filters}                </{database}>
            </databases>
        </default>
    </users>
</clickhouse>
"
    )
}
