//! Configuration of the aggregator.

use std::time::Duration;

use fleetlog_log::KafkaConfig;
use fleetlog_pricing::PricesConfig;
use fleetlog_runtime::{AdminConfig, KeyDoc, Settings, SettingsError, config_section};
use fleetlog_store::StoreConfig;

use crate::recompute::SightingBounds;

config_section! {
    /// The aggregator.
    pub struct AggregatorConfig, "aggregator" {
        /// Consumer group; instances of one group share the work.
        pub group: String = "fleetlog.aggregator".to_owned(),
        /// Whether migrations are applied at start; otherwise `fleetlog migrate` has to be run before.
        pub migrate_at_start: bool = true,
        /// A partition's range is closed once it has this many rows.
        pub batch_max_rows: usize = 20_000,
        /// A partition's range is closed once its records have this many bytes; with the number of partitions it
        /// bounds the memory.
        pub batch_max_bytes: usize = 16 * 1024 * 1024,
        /// Shortest time between two inserts of a partition, milliseconds. Stretched so that all partitions together
        /// make at most about 4 inserts a second.
        pub batch_wait_ms: u64 = 1000,
        /// An event that is received again within so many hours is a sender's retry: counted, not stored.
        pub dedup_window_hours: u32 = 24,
        /// Memory for recognising such events without asking ClickHouse, over all partitions, bytes: 11 to 22 a
        /// key; docs/deduplication.md says how far it reaches.
        pub dedup_max_bytes: usize = 128 * 1024 * 1024,
        /// Shortest time between two recomputations, milliseconds.
        pub derive_interval_ms: u64 = 500,
        /// Share of the time that recomputing may take while much is being stored, percent; ClickHouse works about
        /// as long. Twice that while little is.
        pub derive_share_percent: u32 = 33,
        /// Most groups recomputed under one version.
        pub derive_max_groups: usize = 2000,
        /// Most sightings held at once, unless one group alone has more.
        pub derive_max_sightings: u64 = 50_000,
        /// Most sightings of one group, which are held at once, about 2 KB each. A group of more is set aside as too
        /// large: it is not recomputed, and its project's `derived_through` stands still, until this allows it.
        pub derive_max_group_sightings: u64 = 400_000,
        /// Most touched groups remembered; beyond it they are found again in the store.
        pub derive_max_pending: usize = 200_000,
        /// How long the aggregator may take to settle and commit when it is told to stop, milliseconds.
        pub shutdown_budget_ms: u64 = 45_000,
    }
}

/// Everything the aggregator reads from the settings.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Its own section.
    pub aggregator: AggregatorConfig,
    /// The price table.
    pub prices: PricesConfig,
    /// The Kafka cluster.
    pub kafka: KafkaConfig,
    /// ClickHouse.
    pub clickhouse: StoreConfig,
    /// The listener for operation.
    pub admin: AdminConfig,
}

impl Config {
    /// Takes the aggregator's sections.
    ///
    /// # Errors
    /// [`SettingsError`] naming the key.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let config = Self {
            aggregator: settings.section(AggregatorConfig::SECTION)?,
            prices: settings.section(PricesConfig::SECTION)?,
            kafka: settings.section(KafkaConfig::SECTION)?,
            clickhouse: settings.section(StoreConfig::SECTION)?,
            admin: settings.section(AdminConfig::SECTION)?,
        };
        config.prices.table()?;
        let own = &config.aggregator;
        // One insert must stay one block of ClickHouse (INV-4), whatever a record adds after the limit was reached.
        for (key, value, range) in [
            ("aggregator.batch_max_rows", own.batch_max_rows, 1..=400_000),
            ("aggregator.batch_max_bytes", own.batch_max_bytes, 1..=96 * 1024 * 1024),
            ("aggregator.derive_max_groups", own.derive_max_groups, 1..=100_000),
            (
                "aggregator.derive_max_group_sightings",
                own.derive_max_group_sightings as usize,
                1..=100_000_000,
            ),
            ("aggregator.derive_max_pending", own.derive_max_pending, 1..=10_000_000),
            ("aggregator.derive_share_percent", own.derive_share_percent as usize, 1..=50),
        ] {
            if !range.contains(&value) {
                let message = format!("{value} is not within {}..={}", range.start(), range.end());
                return Err(SettingsError::Invalid { key: key.to_owned(), message });
            }
        }
        Ok(config)
    }

    /// Documentation of the aggregator's own keys and of those it shares with the query API.
    pub fn keys() -> Vec<KeyDoc> {
        let mut keys = AggregatorConfig::keys();
        keys.extend(StoreConfig::keys());
        keys
    }
}

impl AggregatorConfig {
    pub(crate) fn sighting_bounds(&self) -> SightingBounds {
        SightingBounds { at_once: self.derive_max_sightings, of_group: self.derive_max_group_sightings }
    }

    pub(crate) fn shutdown_budget(&self) -> Duration {
        Duration::from_millis(self.shutdown_budget_ms)
    }

    /// Time between two inserts of a partition when a topic has `partitions` of them.
    pub(crate) fn batch_wait(&self, partitions: u32) -> Duration {
        /// A fourth of a second: four inserts a second for one node (design: flushing).
        const PER_PARTITION: Duration = Duration::from_millis(250);
        Duration::from_millis(self.batch_wait_ms).max(PER_PARTITION * partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_partitions_share_four_inserts_a_second() {
        let config = AggregatorConfig::default();
        assert_eq!(config.batch_wait(1), Duration::from_secs(1));
        assert_eq!(config.batch_wait(4), Duration::from_secs(1));
        assert_eq!(config.batch_wait(12), Duration::from_secs(3));
    }

    #[test]
    fn limits_beyond_one_block_of_the_store_are_refused() {
        let flags = ["aggregator.batch_max_rows=1000000".to_owned()];
        let settings = Settings::load(None, &flags).unwrap();
        let error = Config::from_settings(&settings).unwrap_err();
        assert!(error.to_string().contains("batch_max_rows"), "{error}");
    }
}
