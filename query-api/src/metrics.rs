//! The query API's metrics.

use fleetlog_runtime::Metric;

/// Answers by HTTP status.
pub const ANSWERS: Metric = Metric::counter("fleetlog_query_answers_total", "Answers, by `status`.");
/// Time from a request to its answer.
pub const ANSWER_SECONDS: Metric =
    Metric::histogram("fleetlog_query_answer_seconds", "Time from a request to its answer.");
/// Time a statement took.
pub const STATEMENT_SECONDS: Metric = Metric::histogram(
    "fleetlog_query_statement_seconds",
    "Time a statement took in ClickHouse, its rows read.",
);
/// Time a statement waited for its turn.
pub const QUEUE_SECONDS: Metric =
    Metric::histogram("fleetlog_query_queue_seconds", "Time a statement waited for its turn.");
/// Statements refused because too many run or wait.
pub const REFUSED: Metric = Metric::counter(
    "fleetlog_query_statements_refused_total",
    "Statements refused because too many run or wait, by `bound` (project or process; log: a dead letter's bytes were not read in time).",
);

/// Open connections.
pub const CONNECTIONS: Metric = Metric::gauge("fleetlog_query_connections", "Open connections.");

/// All of them, for the generated table.
pub const ALL: &[Metric] = &[ANSWERS, ANSWER_SECONDS, STATEMENT_SECONDS, QUEUE_SECONDS, REFUSED, CONNECTIONS];
