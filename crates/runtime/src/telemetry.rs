//! Logs to stderr, metrics to `/metrics`.

use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config_section;

config_section! {
    /// Logs and metrics.
    pub struct TelemetryConfig, "telemetry" {
        /// Which logs are written: a level, or directives such as `info,fleetlog_aggregator=debug`.
        pub log: String = "info".to_owned(),
        /// How logs are written: `auto` (text on a terminal, else JSON), `text` or `json`.
        pub log_format: LogFormat = LogFormat::Auto,
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Renders the metrics of this process in the Prometheus text format.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// The metrics as text.
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}

/// Seconds; from half a millisecond to a minute, dense where the latency goals lie.
const BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Installs logging and metrics for this process; a second call changes nothing.
///
/// # Errors
/// A message when the log filter does not parse or the recorder cannot be built.
pub fn init_telemetry(config: &TelemetryConfig) -> Result<MetricsHandle, String> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let filter = EnvFilter::try_new(&config.log).map_err(|e| format!("telemetry.log: {e}"))?;
    let json = match config.log_format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second installation is refused by tracing and that is fine: tests share one process.
    let _already = if json { builder.json().try_init().is_err() } else { builder.try_init().is_err() };
    if let Some(handle) = HANDLE.get() {
        return Ok(MetricsHandle(handle.clone()));
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), BUCKETS)
        .map_err(|e| e.to_string())?
        .build_recorder();
    let handle = HANDLE.get_or_init(|| recorder.handle());
    let _already = metrics::set_global_recorder(recorder).is_err();
    Ok(MetricsHandle(handle.clone()))
}
