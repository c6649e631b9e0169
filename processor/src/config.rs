//! Configuration of the processor.

use std::time::Duration;

use fleetlog_log::{KafkaConfig, TRANSACTION_TIMEOUT_MOST_MS};
use fleetlog_pricing::PricesConfig;
use fleetlog_runtime::{AdminConfig, KeyDoc, Settings, SettingsError, config_section};

use crate::redact::{RedactRule, Redactor};
use crate::span_policy::{SpanPolicy, SpanRule, default_rules};

config_section! {
    /// The processor.
    pub struct ProcessorConfig, "processor" {
        /// Consumer group; instances of one group share the work.
        pub group: String = "fleetlog.processor".to_owned(),
        /// Most raw records of one cycle (read, transform, produce, commit) of a partition.
        pub cycle_max_records: usize = 500,
        /// A cycle takes no further record once it has read this many bytes; bounds what is redone after a crash.
        pub cycle_max_bytes: usize = 8 * 1024 * 1024,
        /// A cycle transforms no further record once what it made is about this large, bytes; the rest is left to the next
        /// cycle. Bounds, for each partition, the memory and the size of a transaction, whatever compression hides.
        pub cycle_max_output_bytes: usize = 32 * 1024 * 1024,
        /// Largest request body after decompression, bytes; at least the gateway's limit.
        pub decoded_max_bytes: usize = 20 * 1024 * 1024,
        /// Size at which a message of events is closed, bytes.
        pub message_target_bytes: usize = 4 * 1024 * 1024,
        /// Longest beginning of a dead letter's bytes, secrets replaced, that is stored beside its reason; the bytes
        /// themselves stay in the dead-letter topic. 0 for none.
        pub preview_max_bytes: usize = 2_000,
        /// Rules of the operator's for what is replaced in events, besides the well-known secrets: a list of
        /// { name, pattern, replacement }. A pattern (syntax of Rust's regex, linear time) sees one text at a time: each
        /// string value of data and context, and each column that is shown and is no identity.
        pub redact_rules: Vec<RedactRule> = Vec::new(),
        /// Which spans are dropped as noise: a list of { name, action, scope, service, span, level, kind, module }, of
        /// which the first that matches decides. A condition is a text, or the beginning of one followed by *; action is
        /// drop or keep. A span with usage, an error, a tool call or a session is always kept. Replaces the default list.
        pub span_policy: Vec<SpanRule> = default_rules(),
        /// How often decoding a raw record may end the process before the record becomes a dead letter of reason `poison`
        /// without being decoded. A record is only tried alone, so a process that is killed for other reasons blames none.
        pub poison_tries: u32 = 3,
        /// How long the processor may take to settle and commit when it is told to stop, milliseconds.
        pub shutdown_budget_ms: u64 = 20_000,
    }
}

/// Everything the processor reads from the settings.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Its own section.
    pub processor: ProcessorConfig,
    /// The price table.
    pub prices: PricesConfig,
    /// The Kafka cluster.
    pub kafka: KafkaConfig,
    /// The listener for operation.
    pub admin: AdminConfig,
}

impl Config {
    /// Takes the processor's sections.
    ///
    /// # Errors
    /// [`SettingsError`] naming the key.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let config = Self {
            processor: settings.section(ProcessorConfig::SECTION)?,
            prices: settings.section(PricesConfig::SECTION)?,
            kafka: settings.section(KafkaConfig::SECTION)?,
            admin: settings.section(AdminConfig::SECTION)?,
        };
        let own = &config.processor;
        for (key, value) in [
            ("processor.cycle_max_records", own.cycle_max_records),
            ("processor.cycle_max_bytes", own.cycle_max_bytes),
            ("processor.cycle_max_output_bytes", own.cycle_max_output_bytes),
            ("processor.decoded_max_bytes", own.decoded_max_bytes),
            ("processor.message_target_bytes", own.message_target_bytes),
            ("processor.poison_tries", own.poison_tries as usize),
        ] {
            if value == 0 {
                return Err(SettingsError::Invalid {
                    key: key.to_owned(),
                    message: "must be above 0".to_owned(),
                });
            }
        }
        if config.kafka.transaction_timeout_ms > TRANSACTION_TIMEOUT_MOST_MS {
            return Err(SettingsError::Invalid {
                key: "kafka.transaction_timeout_ms".to_owned(),
                message: format!(
                    "must be at most {TRANSACTION_TIMEOUT_MOST_MS}: a rebalance waits for a transaction"
                ),
            });
        }
        config.prices.table()?;
        config.processor.redactor()?;
        config.processor.spans()?;
        Ok(config)
    }

    /// Documentation of the processor's own keys.
    pub fn keys() -> Vec<KeyDoc> {
        ProcessorConfig::keys()
    }
}

impl ProcessorConfig {
    /// The redaction rules that are configured.
    pub(crate) fn redactor(&self) -> Result<Redactor, SettingsError> {
        Redactor::with_rules(&self.redact_rules).map_err(|e| SettingsError::Invalid {
            key: "processor.redact_rules".to_owned(),
            message: e.to_string(),
        })
    }

    /// The span policy that is configured.
    pub(crate) fn spans(&self) -> Result<SpanPolicy, SettingsError> {
        SpanPolicy::new(self.span_policy.clone()).map_err(|e| SettingsError::Invalid {
            key: "processor.span_policy".to_owned(),
            message: e.to_string(),
        })
    }

    pub(crate) fn shutdown_budget(&self) -> Duration {
        Duration::from_millis(self.shutdown_budget_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(file: &str) -> String {
        let config = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        std::fs::write(config.path(), file).unwrap();
        let settings = Settings::load(Some(config.path()), &[]).unwrap();
        Config::from_settings(&settings).unwrap_err().to_string()
    }

    #[test]
    fn a_transaction_that_a_rebalance_cannot_wait_for_is_an_error_at_start() {
        let message = problem("[kafka]\ntransaction_timeout_ms = 20001\n");
        assert!(message.contains("kafka.transaction_timeout_ms") && message.contains("20000"), "{message}");
    }

    #[test]
    fn a_price_file_that_cannot_be_used_is_an_error_at_start() {
        let message = problem("[prices]\nfile = \"/nowhere/prices.toml\"\n");
        assert!(message.contains("/nowhere/prices.toml: cannot be read"), "{message}");
    }

    #[test]
    fn a_redaction_rule_that_cannot_be_used_is_an_error_at_start_with_its_name() {
        let rules = "[[processor.redact_rules]]\nname = \"ticket\"\npattern = \"(\"\n";
        let message = problem(rules);
        assert!(
            message.contains("processor.redact_rules") && message.contains("rule 1 (ticket)"),
            "{message}"
        );
        let message = problem("[[processor.redact_rules]]\nname = \"a\"\npatern = \"x\"\n");
        assert!(message.contains("patern"), "{message}");
    }

    #[test]
    fn a_span_policy_replaces_the_default_one_and_is_checked_at_start() {
        let message = problem("[[processor.span_policy]]\nname = \"all\"\n");
        assert!(message.contains("processor.span_policy") && message.contains("rule 1 (all)"), "{message}");
        let file = "[[processor.span_policy]]\nname = \"fs\"\nspan = \"fs.*\"\naction = \"keep\"\n";
        let config = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        std::fs::write(config.path(), file).unwrap();
        let settings = Settings::load(Some(config.path()), &[]).unwrap();
        let rules = Config::from_settings(&settings).unwrap().processor.span_policy;
        assert_eq!((rules.len(), rules[0].span.as_str()), (1, "fs.*"));
    }
}
