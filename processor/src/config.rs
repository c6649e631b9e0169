//! Configuration of the processor.

use std::path::PathBuf;
use std::time::Duration;

use fleetlog_log::KafkaConfig;
use fleetlog_runtime::{AdminConfig, KeyDoc, Settings, SettingsError, config_section};

use crate::pricing::PriceTable;

config_section! {
    /// The processor.
    pub struct ProcessorConfig, "processor" {
        /// Consumer group; instances of one group share the work.
        pub group: String = "fleetlog.processor".to_owned(),
        /// Most raw records of one cycle (read, transform, produce, commit) of a partition.
        pub cycle_max_records: usize = 500,
        /// A cycle takes no further record once it has read this many bytes; bounds what is redone after a crash.
        pub cycle_max_bytes: usize = 8 * 1024 * 1024,
        /// Largest request body after decompression, bytes; at least the gateway's limit.
        pub decoded_max_bytes: usize = 20 * 1024 * 1024,
        /// Size at which a message of events is closed, bytes.
        pub message_target_bytes: usize = 4 * 1024 * 1024,
        /// Price table of the operator's (TOML, as `processor/data/prices.toml`); where it has a price, that one holds
        /// before the one that ships. Empty for none.
        pub prices_file: PathBuf = PathBuf::new(),
        /// How long the processor may take to settle and commit when it is told to stop, milliseconds.
        pub shutdown_budget_ms: u64 = 20_000,
    }
}

/// Everything the processor reads from the settings.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Its own section.
    pub processor: ProcessorConfig,
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
            kafka: settings.section(KafkaConfig::SECTION)?,
            admin: settings.section(AdminConfig::SECTION)?,
        };
        let own = &config.processor;
        for (key, value) in [
            ("processor.cycle_max_records", own.cycle_max_records),
            ("processor.cycle_max_bytes", own.cycle_max_bytes),
            ("processor.decoded_max_bytes", own.decoded_max_bytes),
            ("processor.message_target_bytes", own.message_target_bytes),
        ] {
            if value == 0 {
                return Err(SettingsError::Invalid {
                    key: key.to_owned(),
                    message: "must be above 0".to_owned(),
                });
            }
        }
        config.processor.prices()?;
        Ok(config)
    }

    /// Documentation of the processor's own keys.
    pub fn keys() -> Vec<KeyDoc> {
        ProcessorConfig::keys()
    }
}

impl ProcessorConfig {
    /// The price table that is configured.
    pub(crate) fn prices(&self) -> Result<PriceTable, SettingsError> {
        let path = &self.prices_file;
        let table =
            if path.as_os_str().is_empty() { PriceTable::built_in() } else { PriceTable::with_file(path) };
        table.map_err(|e| SettingsError::Invalid {
            key: "processor.prices_file".to_owned(),
            message: format!("{}: {e}", path.display()),
        })
    }

    pub(crate) fn shutdown_budget(&self) -> Duration {
        Duration::from_millis(self.shutdown_budget_ms)
    }
}
