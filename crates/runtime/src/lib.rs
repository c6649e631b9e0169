//! What every service needs and none should write again: config, telemetry, health, shutdown, supervision.
//!
//! This room knows no event and no topic. A service is a library with `run(config, deps, shutdown)`;
//! [`launch`] turns it into a program: arguments, layered config, logs, signals, exit code.

mod admin;
mod clock;
mod error;
mod health;
mod http;
mod launch;
mod metric;
mod secret;
mod settings;
mod shutdown;
mod supervisor;
mod telemetry;

pub use admin::{AdminConfig, admin_router, serve_admin};
pub use clock::Clock;
pub use error::{Classified, ErrorClass};
pub use health::{Health, Readiness};
pub use http::{HttpBounds, serve_http};
pub use launch::{EXIT_CONFIG, EXIT_FAILURE, ServiceArgs, launch};
pub use metric::{Kind, Metric};
pub use secret::Secret;
pub use settings::{KeyDoc, SECTIONS, Settings, SettingsError};
pub use shutdown::Shutdown;
pub use supervisor::{Supervisor, TaskFailure};
pub use telemetry::{LogFormat, MetricsHandle, TelemetryConfig, init_telemetry};

/// What a service is given besides its config.
#[derive(Clone)]
pub struct Deps {
    /// The only source of wall time.
    pub clock: Clock,
    /// Where the service says whether it is ready.
    pub health: Health,
    /// What `/metrics` renders.
    pub metrics: MetricsHandle,
}

/// For [`config_section!`] only.
#[doc(hidden)]
pub fn __private_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
