//! How to reach the Kafka cluster, and how big what is kept in memory for it may become.

use std::collections::BTreeMap;

use fleetlog_runtime::{Secret, config_section};
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

config_section! {
    /// The Kafka cluster, shared by all services.
    pub struct KafkaConfig, "kafka" {
        /// Bootstrap servers, `host:port`, separated by commas.
        pub brokers: String = "127.0.0.1:9092".to_owned(),
        /// How connections are protected: `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
        pub security: Security = Security::Plaintext,
        /// SASL mechanism: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
        pub sasl_mechanism: String = "SCRAM-SHA-512".to_owned(),
        /// SASL user.
        pub sasl_username: String = String::new(),
        /// SASL password; never logged.
        pub sasl_password: Secret = Secret::default(),
        /// File with the CA certificates that sign the brokers' certificates; empty for the system's.
        pub ca_location: String = String::new(),
        /// File with this client's certificate, for mutual TLS.
        pub certificate_location: String = String::new(),
        /// File with this client's private key, for mutual TLS.
        pub key_location: String = String::new(),
        /// Password of the private key; never logged.
        pub key_password: Secret = Secret::default(),
        /// Name by which brokers know this client in their logs and quotas.
        pub client_id: String = "fleetlog".to_owned(),
        /// Whether missing topics are created at start; otherwise they must exist.
        pub create_topics: bool = true,
        /// Partitions of the raw topic when it is created; a later change is a migration.
        pub raw_partitions: u32 = 4,
        /// Partitions of the events and dead-letter topics when they are created; a later change is a migration.
        pub events_partitions: u32 = 4,
        /// Hours that the raw topic keeps what the processors have settled; younger or unsettled records always stay.
        pub raw_keep_hours: u32 = 7 * 24,
        /// Hours that the events topic keeps what the aggregators have stored.
        pub events_keep_hours: u32 = 3 * 24,
        /// Copies of each partition when a topic is created; 3 in production.
        pub replication_factor: u32 = 1,
        /// How long the producer gathers records for one request to a broker, milliseconds; every request waits it.
        pub linger_ms: u32 = 0,
        /// Compression of produced batches: `none`, `lz4`, `zstd`, `gzip` or `snappy`.
        pub compression: Compression = Compression::Lz4,
        /// Longest a record may take from the producer's queue to the broker's acknowledgement, milliseconds; in a
        /// transaction no longer than that may take.
        pub delivery_timeout_ms: u32 = 10_000,
        /// Longest that one of the processor's transactions may take, milliseconds, after which it is ended and tried again.
        /// While the cluster does not answer, a rebalance waits this long and up to 7 s for its end: at most 20000.
        pub transaction_timeout_ms: u32 = 10_000,
        /// Most records waiting in a producer, after which it refuses more.
        pub queue_max_records: u32 = 10_000,
        /// Most bytes waiting in a producer, after which it refuses more.
        pub queue_max_bytes: usize = 64 * 1024 * 1024,
        /// Most bytes fetched ahead per consumed partition; one record more is always allowed.
        pub fetch_ahead_bytes: usize = 8 * 1024 * 1024,
        /// How long a silent group member keeps its partitions, milliseconds; a crash stops them this long.
        pub session_timeout_ms: u32 = 10_000,
        /// Name of this instance within its consumer groups: a restart under the same name gets its partitions back
        /// at once instead of after the session timeout, which should be a minute then: a broker that stands still for
        /// longer ends the service. Empty: every start is a new member.
        pub instance_id: String = String::new(),
        /// Further librdkafka properties, by their own names; they win over everything above.
        pub extra: BTreeMap<String, Secret> = BTreeMap::new(),
    }
}

/// How connections to the brokers are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// Neither encrypted nor authenticated.
    Plaintext,
    /// TLS, with a client certificate if one is configured.
    Ssl,
    /// SASL without encryption.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

/// How produced batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    None,
    /// About 1.4 µs per event, a quarter of the size.
    Lz4,
    /// About 3 µs per event, smaller still.
    Zstd,
    /// Slow; for clusters that know nothing else.
    Gzip,
    /// Like lz4, a little worse at both.
    Snappy,
}

impl Security {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    const fn sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

impl Compression {
    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
        }
    }
}

impl KafkaConfig {
    /// The properties every client of the cluster shares.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = self.connection();
        // Last, so that an operator can overrule anything.
        for (key, value) in &self.extra {
            client.set(key, value.expose());
        }
        client
    }

    /// The shared properties with those of one kind of client; `extra` still wins.
    pub(crate) fn client_with(&self, properties: &[(&str, String)]) -> ClientConfig {
        let mut client = self.client();
        for (key, value) in properties {
            if !self.extra.contains_key(*key) {
                client.set(*key, value);
            }
        }
        client
    }

    pub(crate) fn producer(&self, max_message_bytes: usize) -> ClientConfig {
        self.client_with(&[
            ("enable.idempotence", "true".to_owned()),
            ("acks", "all".to_owned()),
            ("compression.type", self.compression.as_str().to_owned()),
            ("linger.ms", self.linger_ms.to_string()),
            ("message.timeout.ms", self.delivery_timeout_ms.to_string()),
            ("message.max.bytes", with_envelope(max_message_bytes).to_string()),
            ("queue.buffering.max.messages", self.queue_max_records.to_string()),
            ("queue.buffering.max.kbytes", self.queue_max_bytes.div_ceil(1024).to_string()),
            ("retry.backoff.ms", "50".to_owned()),
        ])
    }

    pub(crate) fn consumer(&self, group: &str, isolation: &str) -> ClientConfig {
        self.client_with(&[
            ("group.id", group.to_owned()),
            ("enable.auto.commit", "false".to_owned()),
            ("enable.auto.offset.store", "false".to_owned()),
            ("enable.partition.eof", "true".to_owned()),
            ("isolation.level", isolation.to_owned()),
            // Where to start is always said explicitly; a position that no longer exists is loss, never "earliest".
            ("auto.offset.reset", "error".to_owned()),
            ("queued.max.messages.kbytes", self.fetch_ahead_bytes.div_ceil(1024).max(1).to_string()),
            // The default of 1 s would stall a consumer each time its bounded buffer was full.
            ("fetch.queue.backoff.ms", "10".to_owned()),
            ("fetch.error.backoff.ms", "100".to_owned()),
            ("fetch.wait.max.ms", "500".to_owned()),
            ("fetch.message.max.bytes", self.fetch_ahead_bytes.clamp(1024, 1_000_000_000).to_string()),
        ])
    }

    fn connection(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("security.protocol", self.security.as_str())
            .set("allow.auto.create.topics", "false")
            .set("log.connection.close", "false")
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "2000");
        if self.security.sasl() {
            client
                .set("sasl.mechanism", &self.sasl_mechanism)
                .set("sasl.username", &self.sasl_username)
                .set("sasl.password", self.sasl_password.expose());
        }
        let files = [
            ("ssl.ca.location", &self.ca_location),
            ("ssl.certificate.location", &self.certificate_location),
            ("ssl.key.location", &self.key_location),
        ];
        for (key, value) in files {
            if !value.is_empty() {
                client.set(key, value);
            }
        }
        if !self.key_password.is_empty() {
            client.set("ssl.key.password", self.key_password.expose());
        }
        client
    }
}

/// A message limit with room for Kafka's batch header and the record's own framing.
pub(crate) const fn with_envelope(max_message_bytes: usize) -> usize {
    max_message_bytes + 64 * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_out_of_the_debug_form() {
        let config = KafkaConfig {
            sasl_password: Secret::new("hunter2"),
            extra: [("sasl.oauthbearer.client.secret".to_owned(), Secret::new("hunter3"))].into(),
            ..KafkaConfig::default()
        };
        assert!(!format!("{config:?}").contains("hunter"));
    }

    #[test]
    fn every_way_of_protection_is_one_that_librdkafka_was_built_with() {
        for security in [Security::Plaintext, Security::Ssl, Security::SaslPlaintext, Security::SaslSsl] {
            for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
                let config = KafkaConfig {
                    security,
                    sasl_mechanism: mechanism.to_owned(),
                    sasl_username: "u".to_owned(),
                    sasl_password: Secret::new("p"),
                    brokers: "127.0.0.1:1".to_owned(),
                    ..KafkaConfig::default()
                };
                crate::Producer::new(&config, 1_000_000).unwrap();
            }
        }
    }

    #[test]
    fn a_refused_property_is_named_without_its_value() {
        let extra = [("no.such.property".to_owned(), Secret::new("hunter2"))].into();
        let config = KafkaConfig { extra, ..KafkaConfig::default() };
        let message = crate::Producer::new(&config, 1_000_000).unwrap_err().to_string();
        assert!(message.contains("no.such.property") && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn extra_properties_win_over_ours() {
        let extra = [("acks".to_owned(), Secret::new("1"))].into();
        let config = KafkaConfig { extra, ..KafkaConfig::default() };
        assert_eq!(config.producer(1).get("acks"), Some("1"));
        assert_eq!(config.producer(1).get("enable.idempotence"), Some("true"));
    }
}
