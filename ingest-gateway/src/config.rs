//! What of the configuration the gateway reads.

use std::time::Duration;

use fleetlog_log::KafkaConfig;
use fleetlog_runtime::{Settings, SettingsError, config_section};
use fleetlog_schemas::control::SendLimits;
use fleetlog_schemas::topic;

use crate::allowance::Defaults;
use crate::overload::{OverloadBounds, QueueBounds, Range};

config_section! {
    /// The ingest gateway.
    pub struct GatewayConfig, "gateway" {
        /// Address of the HTTP listener; port 0 for any free port.
        pub listen: String = "127.0.0.1:4318".to_owned(),
        /// Address of a second listener, where OTLP exporters look for gRPC; port 0 for any free port, empty for
        /// none. Both listeners speak HTTP and gRPC.
        pub grpc_listen: String = "127.0.0.1:4317".to_owned(),
        /// Name of this instance in the records it writes; empty for a random one.
        pub id: String = String::new(),
        /// Longest body as sent, bytes.
        pub body_max_bytes: usize = 20 * 1024 * 1024,
        /// Longest body after decompression, bytes.
        pub decoded_max_bytes: usize = 20 * 1024 * 1024,
        /// Most records in one request.
        pub records_max: u32 = 50_000,
        /// Largest Kafka message; a larger body is split where its format allows it, and what is still larger is
        /// compressed. At most the raw topic's limit.
        pub message_max_bytes: usize = topic::RAW_MAX_MESSAGE_BYTES,
        /// Most bytes of bodies, as sent and decompressed, held at once; more is answered with 503.
        pub in_flight_max_bytes: usize = 256 * 1024 * 1024,
        /// Most requests worked on at once; more is answered with 503.
        pub in_flight_max_requests: usize = 4096,
        /// Share of `in_flight_max_bytes` that one project may hold once half of it is taken; more is answered
        /// with 429.
        pub project_share: f64 = 0.5,
        /// Requests that may always be checked and published at once.
        pub concurrency_min: usize = 16,
        /// Most requests checked and published at once. In between, the number follows how long they take.
        pub concurrency_max: usize = 1024,
        /// How many times longer than without pressure requests may take before fewer are worked on at once.
        pub concurrency_tolerance: f64 = 2.0,
        /// Most requests that wait for their turn; when it is full, the last one of the project that has most waiting
        /// is answered with 429 (503 if it is the only one).
        pub queue_max_requests: usize = 512,
        /// Longest that a request waits for its turn, milliseconds; then it is answered with 503, or 429 if others wait.
        pub queue_wait_ms: u64 = 100,
        /// The same while its project always has one waiting, milliseconds: what is accepted of a flood stays quick.
        pub queue_standing_wait_ms: u64 = 5,
        /// Memory above which new requests are answered with 503, bytes; 0 for the share alone.
        pub memory_max_bytes: u64 = 0,
        /// The same as a share of the control group's limit (its working set counts then), or else of the machine's
        /// memory; 0 for none.
        pub memory_share: f64 = 0.9,
        /// Longest that records wait without Kafka acknowledging any; then requests are answered with 503 at once, but
        /// for a probe now and then, until it acknowledges again. 0, or with a spool: for ever.
        pub circuit_patience_ms: u64 = 3_000,
        /// Time between two such probes, milliseconds.
        pub circuit_pause_ms: u64 = 1_000,
        /// Records a second that a key may send through each gateway, unless the key says otherwise
        /// (`fleetlog keys limit`); 0 for no limit. More is answered with 429.
        pub key_records_per_second: u64 = 0,
        /// Bytes of bodies a second that a key may send through each gateway, likewise.
        pub key_bytes_per_second: u64 = 0,
        /// Records a day (UTC) that a key may send through all gateways together, likewise.
        pub key_records_per_day: u64 = 0,
        /// Records a second that all keys of a project together may send through each gateway, unless the project says
        /// otherwise (`fleetlog projects set`); 0 for no limit. More is answered with 429.
        pub project_records_per_second: u64 = 0,
        /// Bytes of bodies a second that all keys of a project together may send through each gateway, likewise.
        pub project_bytes_per_second: u64 = 0,
        /// Records a day (UTC) that all keys of a project together may send through all gateways, likewise.
        pub project_records_per_day: u64 = 0,
        /// How long an unused rate is saved up, milliseconds: what it allows in that time may come at
        /// once.
        pub rate_burst_ms: u64 = 5_000,
        /// How often gateways tell each other what of daily quotas was used, milliseconds; by what comes within it a
        /// quota may be exceeded, and a crash forget.
        pub quota_publish_ms: u64 = 2_000,
        /// Most open connections of each listener; further ones wait to be accepted.
        pub connections_max: usize = 10_000,
        /// Longest that a request's headers may take, milliseconds.
        pub header_timeout_ms: u64 = 10_000,
        /// Longest that a request's body may take, milliseconds.
        pub body_timeout_ms: u64 = 60_000,
        /// Longest that requests under way may take after shutdown was asked for, milliseconds; flushing the
        /// producer has the same again.
        pub shutdown_budget_ms: u64 = 10_000,
        /// Folder of the spool, to which requests are accepted while Kafka does not acknowledge (2xx then means synced
        /// to this disk); empty for none. Each gateway needs its own, on a disk that survives it. A gateway that starts
        /// while Kafka is away accepts nothing until it has loaded the keys, spool or not.
        pub spool_path: String = String::new(),
        /// Most bytes of all files of the spool; when full, requests are answered with 503 as without it.
        pub spool_max_bytes: u64 = 1024 * 1024 * 1024,
        /// Bytes that the spool leaves free on its file system.
        pub spool_min_free_bytes: u64 = 1024 * 1024 * 1024,
        /// How long Kafka may take to acknowledge a request before it is spooled, milliseconds.
        pub spool_after_ms: u64 = 1_000,
        /// Most bytes of spooled messages under way to Kafka at once; while at most so much is left, new requests wait
        /// for it to be drained, for up to `spool_after_ms`.
        pub spool_drain_max_bytes: usize = 8 * 1024 * 1024,
        /// A path on the disk that Kafka and ClickHouse share with the gateway: while it is nearly full, requests are
        /// answered with 503. Empty for none; `fleetlog up` sets its data folder.
        pub disk_watch_path: String = String::new(),
        /// Free bytes below which that disk is nearly full; this or `disk_min_free_percent`, whichever is less.
        pub disk_min_free_bytes: u64 = 2 * 1024 * 1024 * 1024,
        /// Free bytes below which that disk is nearly full, as percent of its size.
        pub disk_min_free_percent: f64 = 5.0,
        /// How many times that must be free before requests are accepted again.
        pub disk_resume_ratio: f64 = 1.25,
    }
}

/// Everything the gateway is configured with.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Its own section.
    pub gateway: GatewayConfig,
    /// The Kafka cluster.
    pub kafka: KafkaConfig,
}

impl Config {
    /// Takes the gateway's sections and checks them.
    ///
    /// # Errors
    /// [`SettingsError`] for an unknown key, a wrong type, or limits that contradict each other.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let config = Self {
            gateway: settings.section(GatewayConfig::SECTION)?,
            kafka: settings.section(KafkaConfig::SECTION)?,
        };
        config.gateway.check()?;
        Ok(config)
    }
}

impl GatewayConfig {
    pub(crate) fn overload(&self) -> OverloadBounds {
        let nanos = |ms: u64| i64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        OverloadBounds {
            queue: QueueBounds {
                waiting: self.queue_max_requests,
                wait_ns: nanos(self.queue_wait_ms),
                standing_wait_ns: nanos(self.queue_standing_wait_ms.min(self.queue_wait_ms)),
            },
            range: Range {
                min: self.concurrency_min,
                max: self.concurrency_max,
                tolerance: self.concurrency_tolerance,
            },
            memory_bytes: self.memory_max_bytes,
            memory_share: self.memory_share,
            // With a spool nothing is refused for Kafka's silence: what it does not acknowledge goes to disk.
            patience: Duration::from_millis(if self.spool_path.trim().is_empty() {
                self.circuit_patience_ms
            } else {
                0
            }),
            pause: Duration::from_millis(self.circuit_pause_ms),
        }
    }

    pub(crate) fn allowances(&self) -> Defaults {
        let limits = |second, bytes, day| SendLimits {
            records_per_second: Some(second),
            bytes_per_second: Some(bytes),
            records_per_day: Some(day),
        };
        Defaults {
            key: limits(self.key_records_per_second, self.key_bytes_per_second, self.key_records_per_day),
            project: limits(
                self.project_records_per_second,
                self.project_bytes_per_second,
                self.project_records_per_day,
            ),
            burst_ns: i64::try_from(self.rate_burst_ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX),
        }
    }

    fn check(&self) -> Result<(), SettingsError> {
        let invalid = |key: &str, message: String| SettingsError::Invalid {
            key: format!("{}.{key}", Self::SECTION),
            message,
        };
        if self.listen.trim().is_empty() {
            return Err(invalid("listen", "an address is needed, for instance 127.0.0.1:4318".to_owned()));
        }
        if self.message_max_bytes > topic::RAW_MAX_MESSAGE_BYTES {
            let limit = topic::RAW_MAX_MESSAGE_BYTES;
            return Err(invalid("message_max_bytes", format!("the raw topic takes at most {limit}")));
        }
        if self.in_flight_max_bytes < self.body_max_bytes.saturating_add(self.decoded_max_bytes) {
            let message = "must hold at least one body, as sent and decompressed".to_owned();
            return Err(invalid("in_flight_max_bytes", message));
        }
        if !(0.0..=1.0).contains(&self.project_share) {
            return Err(invalid("project_share", "must lie between 0 and 1".to_owned()));
        }
        if !(0.0..=1.0).contains(&self.memory_share) {
            return Err(invalid("memory_share", "must lie between 0 and 1".to_owned()));
        }
        if !(1.0..=100.0).contains(&self.concurrency_tolerance) {
            return Err(invalid("concurrency_tolerance", "must lie between 1 and 100".to_owned()));
        }
        if self.concurrency_min == 0 || self.concurrency_max < self.concurrency_min {
            let message = "must be at least 1 and at most gateway.concurrency_max".to_owned();
            return Err(invalid("concurrency_min", message));
        }
        if self.quota_publish_ms == 0 {
            return Err(invalid("quota_publish_ms", "must be at least 1".to_owned()));
        }
        if self.spool_drain_max_bytes == 0 {
            return Err(invalid("spool_drain_max_bytes", "must be above 0".to_owned()));
        }
        if !(0.0..=100.0).contains(&self.disk_min_free_percent) {
            return Err(invalid("disk_min_free_percent", "must lie between 0 and 100".to_owned()));
        }
        if !(1.0..=100.0).contains(&self.disk_resume_ratio) {
            return Err(invalid("disk_resume_ratio", "must lie between 1 and 100".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_together() {
        Config::from_settings(&Settings::defaults()).unwrap();
    }

    #[test]
    fn a_gateway_without_an_address_is_a_configuration_error() {
        let config = GatewayConfig { listen: " ".to_owned(), ..GatewayConfig::default() };
        assert!(config.check().unwrap_err().to_string().contains("gateway.listen"));
    }

    #[test]
    fn a_spool_path_of_blanks_is_none_and_leaves_the_circuit_on() {
        let config = GatewayConfig { spool_path: " ".to_owned(), ..GatewayConfig::default() };
        assert_eq!(config.overload().patience, Duration::from_millis(config.circuit_patience_ms));
    }

    #[test]
    fn a_message_larger_than_the_topic_takes_is_a_configuration_error() {
        let config = GatewayConfig { message_max_bytes: usize::MAX, ..GatewayConfig::default() };
        assert!(config.check().unwrap_err().to_string().contains("gateway.message_max_bytes"));
    }
}
