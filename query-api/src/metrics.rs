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
    "Statements refused because too many run or wait, and queries because too many wait for a receipt, by `bound` (project \
     or process; log: a dead letter's bytes were not read in time).",
);

/// Open connections.
pub const CONNECTIONS: Metric = Metric::gauge("fleetlog_query_connections", "Open connections.");

/// Raw records whose fate is open.
pub const LEDGER_IN_FLIGHT: Metric = Metric::gauge(
    "fleetlog_query_ledger_in_flight_records",
    "Raw records (requests or pieces) acknowledged and not yet settled in the store, by `partition` of the raw topic.",
);
/// Raw records found lost.
pub const LEDGER_LOST: Metric = Metric::counter(
    "fleetlog_query_ledger_lost_records_total",
    "Raw records found to be neither stored nor on their way: a broken promise (INV-6), by `partition` of the raw topic.",
);
/// Age of what is proved.
pub const LEDGER_LAG: Metric = Metric::gauge(
    "fleetlog_query_ledger_lag_seconds",
    "Age of `complete_through`, seconds: everything acknowledged earlier is stored.",
);
/// What a gateway's spool holds.
pub const SPOOL_RECORDS: Metric = Metric::gauge(
    "fleetlog_query_spool_records",
    "Acknowledged messages that wait in a gateway's spool, by its own last word, by `gateway`.",
);
/// How far back a gateway holds what is complete.
pub const SPOOL_LAG: Metric = Metric::gauge(
    "fleetlog_query_spool_lag_seconds",
    "Age of the time that `complete_through` cannot pass for a gateway's spool, seconds, by `gateway`: of the oldest message \
     in it, or of the gateway's last word. One that grows is of a gateway that does not drain or does not run.",
);
/// Time of a look.
pub const LEDGER_LOOK_SECONDS: Metric = Metric::histogram(
    "fleetlog_query_ledger_look_seconds",
    "Time of one look of the ledger at the logs and the store, seconds.",
);
/// Looks that failed.
pub const LEDGER_FAILURES: Metric = Metric::counter(
    "fleetlog_query_ledger_failures_total",
    "Looks of the ledger that were not finished, by error `code`; they are repeated.",
);
/// Queries that waited for a receipt.
pub const WAITS: Metric = Metric::counter(
    "fleetlog_query_waits_total",
    "Queries that waited for a receipt, by `outcome` (redeemed, timeout, refused).",
);

/// All of them, for the generated table.
pub const ALL: &[Metric] = &[
    ANSWERS,
    ANSWER_SECONDS,
    STATEMENT_SECONDS,
    QUEUE_SECONDS,
    REFUSED,
    CONNECTIONS,
    LEDGER_IN_FLIGHT,
    LEDGER_LOST,
    LEDGER_LAG,
    SPOOL_RECORDS,
    SPOOL_LAG,
    LEDGER_LOOK_SECONDS,
    LEDGER_FAILURES,
    WAITS,
];
