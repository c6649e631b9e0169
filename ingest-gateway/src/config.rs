//! What of the configuration the gateway reads.

use fleetlog_log::KafkaConfig;
use fleetlog_runtime::{Settings, SettingsError, config_section};
use fleetlog_schemas::topic;

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
    fn a_message_larger_than_the_topic_takes_is_a_configuration_error() {
        let config = GatewayConfig { message_max_bytes: usize::MAX, ..GatewayConfig::default() };
        assert!(config.check().unwrap_err().to_string().contains("gateway.message_max_bytes"));
    }
}
