//! The gateway's metrics.

use std::time::Duration;

use fleetlog_runtime::Metric;
use metrics::{Counter, Gauge, Histogram};

/// Requests by outcome.
pub const REQUESTS: Metric =
    Metric::counter("fleetlog_gateway_requests_total", "Requests by `code`: `accepted`, or why refused.");
/// Records accepted.
pub const ACCEPTED: Metric =
    Metric::counter("fleetlog_gateway_records_accepted_total", "Records accepted and acknowledged by Kafka.");
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

/// Every metric, for the generated table.
pub const ALL: &[Metric] =
    &[REQUESTS, ACCEPTED, REJECTED, BYTES, PIECES, SECONDS, IN_FLIGHT_BYTES, IN_FLIGHT, CONNECTIONS];

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
