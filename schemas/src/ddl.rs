//! The numbered ClickHouse migrations, and who may read which table.
//!
//! Each file under `ddl/` is one statement, named `<number>_<table or view>.sql`, and never changes once released: what
//! is applied is recorded with its checksum. A view that changes is replaced by a later file of the same name. Only the
//! parameters of [`Parameters`] are filled in; on a cluster the same text becomes its replicated form ([`Engine`]). Facts are append-only;
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

    /// The database beside this one into which a replay writes.
    ///
    /// # Errors
    /// When this name leaves no room for what tells the two apart.
    pub fn shadow(&self, shadow: Shadow) -> Result<Self, BadDatabaseName> {
        Self::parse(&format!("{self}_shadow_{}", shadow.as_str()))
    }
}

/// Which side of a comparison a shadow database holds. Their names are fixed, so that their row filters can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shadow {
    /// A copy of what is stored.
    Stored,
    /// What the raw records become today.
    Replayed,
}

impl Shadow {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stored, Self::Replayed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Replayed => "replayed",
        }
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the tables are built on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// One node. The templates are written for it.
    #[default]
    SingleNode,
    /// One shard of replicas: every statement runs on the whole cluster of this name, and every table of the MergeTree
    /// family is its `Replicated…` form. Servers define the cluster and the macros `shard` and `replica`.
    Replicated(ClusterName),
}

/// A cluster's name that is safe to write into a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterName(DatabaseName);

impl ClusterName {
    /// Accepts a plain identifier, as for a database.
    ///
    /// # Errors
    /// When the text needs quoting, is empty or longer than 64 characters.
    pub fn parse(text: &str) -> Result<Self, BadDatabaseName> {
        DatabaseName::parse(text).map(Self)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Engine {
    /// The cluster, when there is one.
    pub const fn cluster(&self) -> Option<&ClusterName> {
        match self {
            Self::SingleNode => None,
            Self::Replicated(cluster) => Some(cluster),
        }
    }

    /// What follows a table's name in a statement that alters it; empty on a single node.
    pub fn on_cluster(&self) -> String {
        self.cluster().map_or_else(String::new, |cluster| format!(" ON CLUSTER {}", cluster.as_str()))
    }
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
    let text = template
        .replace("{database}", parameters.database.as_str())
        .replace("{retention_days}", &parameters.retention_days.to_string())
        .replace("{derived_retention_days}", &parameters.derived_retention_days.to_string());
    match &parameters.engine {
        Engine::SingleNode => text,
        Engine::Replicated(_) => replicated(&text, parameters),
    }
}

/// How statements begin that name what they make or alter at the end of a line.
const HEADS: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS ",
    "CREATE OR REPLACE TABLE ",
    "CREATE VIEW IF NOT EXISTS ",
    "CREATE OR REPLACE VIEW ",
    "ALTER TABLE ",
];
/// The window that tables of facts have on a single node, as the templates write it.
const NODE_WINDOW: &str = "non_replicated_deduplication_window = 10000";
/// Its replicated form: in inserts and in seconds, for seven days. A token is sent again within 30 seconds (INV-4.2), so
/// both are far beyond it.
const REPLICATED_WINDOW: &str =
    "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800";
/// What is derived is inserted without tokens, and equal rows of two versions are two inserts.
const NO_WINDOW: &str =
    "SETTINGS replicated_deduplication_window = 0, replicated_deduplication_window_seconds = 604800";

/// A statement's replicated form. The templates keep to one clause a line, which a test holds them to.
fn replicated(statement: &str, parameters: &Parameters) -> String {
    let (database, on_cluster) = (parameters.database.as_str(), parameters.engine.on_cluster());
    let mut lines: Vec<String> = Vec::new();
    let mut table = "";
    let mut without_settings = false;
    for line in statement.lines() {
        if let Some(name) = HEADS.iter().find_map(|head| line.strip_prefix(head)) {
            table = name.rsplit('.').next().unwrap_or(name);
            lines.push(format!("{line}{on_cluster}"));
        } else if let Some(engine) =
            line.strip_prefix("ENGINE = ").filter(|engine| engine.contains("MergeTree"))
        {
            let (family, arguments) = engine.split_once('(').unwrap_or((engine, ")"));
            let comma = if arguments == ")" { "" } else { ", " };
            lines.push(format!(
                "ENGINE = Replicated{family}('/clickhouse/tables/{{shard}}/{database}/{table}', '{{replica}}'{comma}{arguments}"
            ));
            without_settings = true;
        } else if line.starts_with("SETTINGS ") {
            lines.push(line.replace(NODE_WINDOW, REPLICATED_WINDOW));
            without_settings = false;
        } else if line.starts_with("COMMENT '") && without_settings {
            lines.extend([NO_WINDOW.to_owned(), line.to_owned()]);
            without_settings = false;
        } else {
            lines.push(line.to_owned());
        }
    }
    lines.join("\n")
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
    25 "0025_settlements",
    26 "0026_piece_settlements",
    27 "0027_dead_letters",
    28 "0028_events",
    29 "0029_repricings",
    30 "0030_dead_letters",
    31 "0031_sessions",
    32 "0032_observations",
    33 "0033_events",
    34 "0034_events_probe",
    35 "0035_dead_letters_probe",
    36 "0036_settlements_probe",
    37 "0037_piece_settlements_probe",
    38 "0038_derivation_progress",
    39 "0039_scores",
    40 "0040_events",
    41 "0041_scores",
];

/// The statement that makes the probe of a table of facts anew, from the table as it is.
pub fn renew_probe(parameters: &Parameters, table: &str, probe: &str) -> String {
    fill(
        &format!(
            "CREATE OR REPLACE TABLE {{database}}.{probe}\nAS {{database}}.{table}\nENGINE = Null\n\
             COMMENT 'Internal, always empty: asked which rows {table} would refuse.'"
        ),
        parameters,
    )
}

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
    ("events_probe", Readers::Operators),
    ("dead_letters_probe", Readers::Operators),
    ("settlements_probe", Readers::Operators),
    ("piece_settlements_probe", Readers::Operators),
    ("repricings", Readers::Operators),
];

/// Name of the row policy on each table of a server.
pub const ROW_POLICY: &str = "fleetlog_project";

/// The statements that confine readers on a server.
///
/// They need `CREATE ROW POLICY` and writable access storage; the embedded engine has neither and reads
/// [`users_config_xml`] instead.
pub fn row_policies(parameters: &Parameters) -> Vec<String> {
    let (database, on_cluster) = (&parameters.database, parameters.engine.on_cluster());
    TABLES
        .iter()
        .map(|(table, readers)| {
            format!(
                "CREATE ROW POLICY IF NOT EXISTS {ROW_POLICY}{on_cluster} ON {database}.{table} USING {} TO ALL",
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
/// The engine reads it once, at start, so it names every table before the first exists, those of the shadow databases
/// included.
pub fn users_config_xml(database: &DatabaseName) -> String {
    let filters: String = TABLES
        .iter()
        .map(|(table, readers)| {
            format!("                    <{table}><filter>{}</filter></{table}>\n", readers.filter())
        })
        .collect();
    // A name without room for a shadow's has none either.
    let shadows = Shadow::ALL.iter().filter_map(|shadow| database.shadow(*shadow).ok());
    let databases: String = std::iter::once(database.clone())
        .chain(shadows)
        .map(|database| format!("                <{database}>\n{filters}                </{database}>\n"))
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
{databases}            </databases>
        </default>
    </users>
</clickhouse>
"
    )
}
