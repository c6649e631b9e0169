//! The gateway's metrics.

use std::time::Duration;

use fleetlog_runtime::Metric;
use metrics::{Counter, Gauge, Histogram};

/// Requests by outcome.
pub const REQUESTS: Metric =
    Metric::counter("fleetlog_gateway_requests_total", "Requests by `code`: `accepted`, or why refused.");
/// Records accepted.
pub const ACCEPTED: Metric =
    Metric::counter("fleetlog_gateway_records_accepted_total", "Records accepted, by Kafka or the spool.");
/// Records rejected beside accepted ones.
pub const REJECTED: Metric = Metric::counter(
    "fleetlog_gateway_records_rejected_total",
    "Records rejected by index, while others of their request were accepted.",
);
/// Bytes of accepted bodies.
pub const BYTES: Metric =
    Metric::counter("fleetlog_gateway_body_bytes_total", "Bytes of accepted bodies, as sent.");
/// Messages published.
pub const PIECES: Metric = Metric::counter(
    "fleetlog_gateway_messages_total",
    "Kafka messages published; more than requests where bodies were split.",
);
/// Time to the answer.
pub const SECONDS: Metric =
    Metric::histogram("fleetlog_gateway_request_seconds", "Time from a request's headers to its answer.");
/// Bytes held.
pub const IN_FLIGHT_BYTES: Metric =
    Metric::gauge("fleetlog_gateway_in_flight_bytes", "Bytes of bodies held now, as sent and decompressed.");
/// Requests under way.
pub const IN_FLIGHT: Metric = Metric::gauge("fleetlog_gateway_in_flight_requests", "Requests worked on now.");
/// Open connections.
pub const CONNECTIONS: Metric = Metric::gauge("fleetlog_gateway_connections", "Open connections.");
/// Messages spooled.
pub const SPOOL_APPENDED: Metric = Metric::counter(
    "fleetlog_gateway_spool_appended_total",
    "Kafka messages accepted to the spool because Kafka did not acknowledge them in time.",
);
/// Messages drained.
pub const SPOOL_DRAINED: Metric =
    Metric::counter("fleetlog_gateway_spool_drained_total", "Spooled messages that Kafka has acknowledged.");
/// Requests that the spool did not take.
pub const SPOOL_REFUSED: Metric = Metric::counter(
    "fleetlog_gateway_spool_refused_total",
    "Requests that the spool did not take, by `reason`: `full` or `unwritable`.",
);
/// Tails cut off.
pub const SPOOL_TORN: Metric = Metric::counter(
    "fleetlog_gateway_spool_torn_total",
    "Tails cut off the spool at a start: writes that a crash interrupted, of which nothing was acknowledged.",
);
/// What was set aside.
pub const SPOOL_SET_ASIDE: Metric = Metric::counter(
    "fleetlog_gateway_spool_set_aside_total",
    "Damaged parts of the spool, and messages that Kafka refuses for ever, kept in its folder and not published.",
);
/// Bytes of the spool.
pub const SPOOL_BYTES: Metric =
    Metric::gauge("fleetlog_gateway_spool_bytes", "Bytes of the spool's files, those set aside included.");
/// Messages in the spool.
pub const SPOOL_RECORDS: Metric =
    Metric::gauge("fleetlog_gateway_spool_records", "Spooled messages that Kafka has not acknowledged yet.");
/// Age of the spool.
pub const SPOOL_OLDEST: Metric = Metric::gauge(
    "fleetlog_gateway_spool_oldest_seconds",
    "Time since the oldest spooled message was accepted; 0 when there is none.",
);
/// Free bytes of the watched disk.
pub const DISK_FREE: Metric = Metric::gauge(
    "fleetlog_gateway_disk_free_bytes",
    "Free bytes of the disk below `gateway.disk_watch_path`.",
);
/// Whether the watched disk is nearly full.
pub const DISK_LOW: Metric = Metric::gauge(
    "fleetlog_gateway_disk_low",
    "1 while requests are refused because that disk is nearly full, else 0.",
);

/// How many may be worked on.
pub const CONCURRENCY_LIMIT: Metric = Metric::gauge(
    "fleetlog_gateway_concurrency_limit",
    "Requests that may be checked and published at once now, found from how long they take.",
);
/// How many are worked on.
pub const SERVING: Metric =
    Metric::gauge("fleetlog_gateway_serving_requests", "Requests that are checked and published now.");
/// How many wait.
pub const WAITING: Metric =
    Metric::gauge("fleetlog_gateway_waiting_requests", "Requests that wait for their turn now.");
/// How long they wait.
pub const WAIT_SECONDS: Metric = Metric::histogram(
    "fleetlog_gateway_wait_seconds",
    "Time that a request waited for its turn, if it had to wait.",
);
/// How it went.
pub const TURNS: Metric = Metric::counter(
    "fleetlog_gateway_turns_total",
    "Requests by how they got their turn, `outcome`: `at_once`, `waited`; or why they got none: `full` queue, `late`, \
     `evicted` for another project's.",
);
/// Memory in use.
pub const MEMORY_BYTES: Metric = Metric::gauge(
    "fleetlog_gateway_memory_bytes",
    "Memory of the process, or of its control group without file cache where that has a limit.",
);
/// Memory that may be used.
pub const MEMORY_LIMIT: Metric = Metric::gauge(
    "fleetlog_gateway_memory_limit_bytes",
    "Memory above which new requests are refused; 0 for none.",
);
/// Whether it is short.
pub const MEMORY_SHORT: Metric = Metric::gauge(
    "fleetlog_gateway_memory_short",
    "1 while new requests are refused because memory is short, else 0.",
);
/// Whether Kafka is silent.
pub const CIRCUIT_OPEN: Metric = Metric::gauge(
    "fleetlog_gateway_circuit_open",
    "1 while requests are refused because Kafka does not acknowledge, else 0.",
);
/// How often it was.
pub const CIRCUIT_OPENED: Metric = Metric::counter(
    "fleetlog_gateway_circuit_opened_total",
    "Times that Kafka stopped to acknowledge, or the queue to it was full.",
);
/// Counts that could not be told.
pub const QUOTA_UNSAID: Metric = Metric::gauge(
    "fleetlog_gateway_quota_unsaid_counts",
    "Daily counts of keys and projects that the other gateways do not know yet.",
);

/// Every metric, for the generated table.
pub const ALL: &[Metric] = &[
    REQUESTS,
    ACCEPTED,
    REJECTED,
    BYTES,
    PIECES,
    SECONDS,
    IN_FLIGHT_BYTES,
    IN_FLIGHT,
    CONNECTIONS,
    CONCURRENCY_LIMIT,
    SERVING,
    WAITING,
    WAIT_SECONDS,
    TURNS,
    MEMORY_BYTES,
    MEMORY_LIMIT,
    MEMORY_SHORT,
    CIRCUIT_OPEN,
    CIRCUIT_OPENED,
    QUOTA_UNSAID,
    SPOOL_APPENDED,
    SPOOL_DRAINED,
    SPOOL_REFUSED,
    SPOOL_TORN,
    SPOOL_SET_ASIDE,
    SPOOL_BYTES,
    SPOOL_RECORDS,
    SPOOL_OLDEST,
    DISK_FREE,
    DISK_LOW,
];

/// What the hot path records, looked up once.
pub(crate) struct Meters {
    accepted_requests: Counter,
    accepted: Counter,
    rejected: Counter,
    bytes: Counter,
    pieces: Counter,
    seconds: Histogram,
    pub(crate) in_flight_bytes: Gauge,
    pub(crate) in_flight: Gauge,
}

impl Meters {
    pub(crate) fn new() -> Self {
        Self {
            accepted_requests: REQUESTS.counter_handle_for("code", "accepted"),
            accepted: ACCEPTED.counter_handle(),
            rejected: REJECTED.counter_handle(),
            bytes: BYTES.counter_handle(),
            pieces: PIECES.counter_handle(),
            seconds: SECONDS.histogram_handle(),
            in_flight_bytes: IN_FLIGHT_BYTES.gauge_handle(),
            in_flight: IN_FLIGHT.gauge_handle(),
        }
    }

    pub(crate) fn accepted(&self, records: u32, rejected: usize, bytes: usize, pieces: usize) {
        self.accepted_requests.increment(1);
        self.accepted.increment(records.into());
        self.rejected.increment(rejected as u64);
        self.bytes.increment(bytes as u64);
        self.pieces.increment(pieces as u64);
    }

    pub(crate) fn refused(&self, code: &'static str) {
        REQUESTS.add_for("code", code, 1);
    }

    pub(crate) fn answered(&self, took: Duration) {
        self.seconds.record(took.as_secs_f64());
    }
}
