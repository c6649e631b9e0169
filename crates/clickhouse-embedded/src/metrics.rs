//! The process's metrics, served at `/metrics`.

use fleetlog_runtime::Metric;

/// Statements by outcome.
pub const STATEMENTS: Metric = Metric::counter(
    "fleetlog_clickhouse_statements_total",
    "Statements that reached the engine's threads, by ClickHouse's `code`; 0 is success.",
);
/// Time of a statement.
pub const SECONDS: Metric = Metric::histogram(
    "fleetlog_clickhouse_statement_seconds",
    "Time from a statement's turn to the end of its answer.",
);
/// Statements under way.
pub const RUNNING: Metric = Metric::gauge("fleetlog_clickhouse_running", "Statements under way.");
/// Requests refused at once or after waiting.
pub const BUSY: Metric = Metric::counter(
    "fleetlog_clickhouse_busy_total",
    "Requests refused with 503 because too many ran and waited.",
);
/// Queries cancelled.
pub const CANCELLED: Metric = Metric::counter(
    "fleetlog_clickhouse_cancelled_total",
    "Queries cancelled because their client had gone.",
);
/// Cancellations dropped.
pub const NOT_CANCELLED: Metric = Metric::counter(
    "fleetlog_clickhouse_not_cancelled_total",
    "Queries left to their time limit because too many cancellations waited.",
);
/// Open connections.
pub const CONNECTIONS: Metric = Metric::gauge("fleetlog_clickhouse_connections", "Open connections.");

/// Every metric, for the generated table.
pub const ALL: &[Metric] = &[STATEMENTS, SECONDS, RUNNING, BUSY, CANCELLED, NOT_CANCELLED, CONNECTIONS];
