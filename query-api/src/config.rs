//! Limits and the listener of the query API.

use std::time::Duration;

use fleetlog_log::KafkaConfig;
use fleetlog_runtime::{Settings, SettingsError, config_section};
use fleetlog_store::{ReaderLimits, StoreConfig};

use crate::ledger;
use crate::plan::PageSize;
use crate::sql::Payload;
use crate::time_range::RangePolicy;

config_section! {
    /// The query API.
    pub struct QueryConfig, "query" {
        /// Address of the HTTP listener; port 0 for any free port.
        pub listen: String = "127.0.0.1:8080".to_owned(),
        /// Most open connections; further ones wait to be accepted.
        pub connections_max: u32 = 1_024,
        /// How long a connection may take to send a request's head, milliseconds; idle ones are closed after it.
        pub header_timeout_ms: u64 = 30_000,
        /// Length of a list's time range when its start is not given, hours.
        pub range_default_hours: u32 = 24,
        /// Longest time range of one list, days.
        pub range_max_days: u32 = 92,
        /// Longest time range of one question about usage, days; rollups are kept longer than events.
        pub usage_range_max_days: u32 = 400,
        /// How far after now a range ends when its end is not given, seconds: events of clocks ahead of ours show.
        pub range_ahead_s: u32 = 300,
        /// Rows on a page when `limit` is not given.
        pub page_default_rows: u32 = 100,
        /// Most rows on a page.
        pub page_max_rows: u32 = 1_000,
        /// Most rows on a page with payload, which can be megabytes each.
        pub payload_page_max_rows: u32 = 200,
        /// Most rows on a page of usage.
        pub usage_page_max_rows: u32 = 10_000,
        /// Most statements running at a time, of this process.
        pub statements_max: u32 = 16,
        /// Most statements running at a time, of one project.
        pub project_statements_max: u32 = 8,
        /// Most statements of one project that run or wait; more are refused with 429.
        pub project_queue_max: u32 = 32,
        /// Longest a statement waits for its turn, milliseconds; after that 503.
        pub queue_wait_ms: u64 = 2_000,
        /// Longest a statement may run, seconds.
        pub statement_max_s: u32 = 10,
        /// Most rows one statement may read.
        pub statement_max_rows: u64 = 1_000_000_000,
        /// Most memory one statement may use, bytes.
        pub statement_max_memory_bytes: u64 = 1024 * 1024 * 1024,
        /// Largest answer of one statement, bytes.
        pub result_max_bytes: u64 = 64 * 1024 * 1024,
        /// Time between two looks of the ledger at what is stored, milliseconds; the least age of `complete_through`.
        pub ledger_interval_ms: u32 = 1_000,
        /// Raw records of a partition that the ledger looks up at once.
        pub ledger_window_records: u32 = 100_000,
        /// How far back the ledger looks when it starts, and how long a lost record holds back `complete_through`, hours.
        pub ledger_hours: u32 = 24,
        /// Consumer group of the processor (`processor.group`): what it has committed tells what is lost.
        pub ledger_processor_group: String = "fleetlog.processor".to_owned(),
        /// Consumer group of the aggregator (`aggregator.group`).
        pub ledger_aggregator_group: String = "fleetlog.aggregator".to_owned(),
        /// Longest time range of one question about completeness, days.
        pub completeness_range_max_days: u32 = 7,
        /// How long after a window's end something of it may still be on its way through a gateway, milliseconds: more than
        /// `kafka.delivery_timeout_ms`, and what the machines' clocks differ.
        pub completeness_margin_ms: u64 = 15_000,
        /// How long a query with `wait_for` waits when `wait_timeout_ms` is not given, milliseconds.
        pub wait_default_ms: u64 = 10_000,
        /// Longest that a query may wait for a receipt, milliseconds.
        pub wait_max_ms: u64 = 60_000,
        /// Most queries waiting for a receipt at a time, of this process; more are refused with 503.
        pub waits_max: u32 = 256,
        /// Most queries of one project waiting for a receipt at a time; more are refused with 429.
        pub project_waits_max: u32 = 32,
        /// Most bytes of a dead letter that are shown to an administrator; the rest is cut off.
        pub dead_letter_max_bytes: usize = 1024 * 1024,
        /// Longest that reading a dead letter from its topic may take, its turn included, milliseconds; after that 503.
        pub dead_letter_read_ms: u64 = 5_000,
        /// Origins of web pages that may call the API from a browser, separated by commas; `*` for all.
        pub allowed_origins: String = String::new(),
        /// How long requests in flight have to end at shutdown, milliseconds.
        pub drain_ms: u64 = 5_000,
    }
}

/// Everything the query API is configured by.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Its own section.
    pub query: QueryConfig,
    /// Where the keys are.
    pub kafka: KafkaConfig,
    /// Where the answers are.
    pub store: StoreConfig,
}

impl Config {
    /// Takes the sections from the settings and checks that they make sense together.
    ///
    /// # Errors
    /// [`SettingsError`] for an unknown key, a wrong type, or a limit of zero.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let query: QueryConfig = settings.section(QueryConfig::SECTION)?;
        query.check()?;
        Ok(Self {
            query,
            kafka: settings.section(KafkaConfig::SECTION)?,
            store: settings.section(StoreConfig::SECTION)?,
        })
    }
}

impl QueryConfig {
    fn check(&self) -> Result<(), SettingsError> {
        let positive = [
            ("query.range_default_hours", self.range_default_hours),
            ("query.range_max_days", self.range_max_days),
            ("query.usage_range_max_days", self.usage_range_max_days),
            ("query.page_default_rows", self.page_default_rows),
            ("query.page_max_rows", self.page_max_rows),
            ("query.payload_page_max_rows", self.payload_page_max_rows),
            ("query.usage_page_max_rows", self.usage_page_max_rows),
            ("query.connections_max", self.connections_max),
            ("query.statement_max_s", self.statement_max_s),
            ("query.statements_max", self.statements_max),
            ("query.project_statements_max", self.project_statements_max),
            ("query.project_queue_max", self.project_queue_max),
            ("query.ledger_interval_ms", self.ledger_interval_ms),
            ("query.ledger_window_records", self.ledger_window_records),
            ("query.ledger_hours", self.ledger_hours),
            ("query.completeness_range_max_days", self.completeness_range_max_days),
            ("query.waits_max", self.waits_max),
            ("query.project_waits_max", self.project_waits_max),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(SettingsError::Invalid {
                key: (*key).to_owned(),
                message: "must be at least 1".to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// What one statement may cost.
    pub(crate) fn statement_limits(&self) -> ReaderLimits {
        ReaderLimits {
            execution: Duration::from_secs(self.statement_max_s.into()),
            rows_read: self.statement_max_rows,
            result_bytes: self.result_max_bytes,
            memory_bytes: self.statement_max_memory_bytes,
            ..ReaderLimits::default()
        }
    }

    /// How the time ranges of lists are completed and limited.
    pub(crate) fn list_ranges(&self) -> RangePolicy {
        self.ranges(self.range_max_days)
    }

    /// How the time ranges of usage are completed and limited.
    pub(crate) fn usage_ranges(&self) -> RangePolicy {
        self.ranges(self.usage_range_max_days)
    }

    /// How the time ranges of completeness are completed and limited.
    pub(crate) fn completeness_ranges(&self) -> RangePolicy {
        self.ranges(self.completeness_range_max_days)
    }

    /// How often and how much the ledger looks at.
    pub(crate) fn ledger_bounds(&self) -> ledger::Bounds {
        ledger::Bounds {
            every: Duration::from_millis(self.ledger_interval_ms.into()),
            window: i64::from(self.ledger_window_records),
            memory: Duration::from_secs(u64::from(self.ledger_hours) * 3_600),
        }
    }

    /// The groups that tell where the pipeline stands.
    pub(crate) fn ledger_groups(&self) -> ledger::Groups {
        ledger::Groups {
            processor: self.ledger_processor_group.clone(),
            aggregator: self.ledger_aggregator_group.clone(),
        }
    }

    /// How long the pages of lists are.
    pub(crate) fn list_pages(&self) -> PageSize {
        PageSize { default: self.page_default_rows, max: self.page_max_rows }
    }

    /// How long the pages of events are.
    pub(crate) fn event_pages(&self, payload: Payload) -> PageSize {
        match payload {
            Payload::Left => self.list_pages(),
            Payload::Included => {
                PageSize { max: self.payload_page_max_rows.min(self.page_max_rows), ..self.list_pages() }
            }
        }
    }

    /// How long the pages of usage are: a chart should need one.
    pub(crate) fn usage_pages(&self) -> PageSize {
        PageSize { default: self.usage_page_max_rows, max: self.usage_page_max_rows }
    }

    fn ranges(&self, max_days: u32) -> RangePolicy {
        const NS_PER_S: i64 = 1_000_000_000;
        RangePolicy {
            default_ns: i64::from(self.range_default_hours).saturating_mul(3_600 * NS_PER_S),
            ahead_ns: i64::from(self.range_ahead_s) * NS_PER_S,
            max_days,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_zero_is_refused_by_name_at_start() {
        let config = QueryConfig { page_max_rows: 0, ..QueryConfig::default() };
        assert!(config.check().unwrap_err().to_string().contains("query.page_max_rows"));
        assert!(QueryConfig::default().check().is_ok());
    }
}
