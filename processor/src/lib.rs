//! Record in, events out: the only place where enrichment lives.
//!
//! Reads the raw topic, decodes every record with `fleetlog-formats`, prices and redacts what came out, and writes events,
//! settlements and dead letters. It keeps no state: whatever needs other records is resolved in the derivations.
//!
//! The cores are pure: [`transform`] turns one raw record into its [`transform::Transformed`], `pack` makes messages
//! of a cycle's results, `fleetlog-pricing` and [`redact`] work on one event. `pipeline` shows how they are joined.

mod config;
mod cycle;
pub mod drift;
mod error;
mod isolation;
mod json_text;
pub mod metrics;
mod pack;
mod pipeline;
pub mod redact;
pub mod span_policy;
mod suspicion;
mod tally;
pub mod transform;

use fleetlog_runtime::{Deps, Shutdown};

pub use config::{Config, ProcessorConfig};
pub use error::ProcessorError;

/// Runs the processor until shutdown.
///
/// # Errors
/// [`ProcessorError`] when it cannot start or cannot go on.
pub async fn run(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(), ProcessorError> {
    run_watched(config, deps, shutdown, |_| {}).await
}

/// Runs the processor with a witness that is shown the bytes of every raw record before it is decoded. It is how a test
/// makes a record end the process, as a decoder's bug would.
///
/// # Errors
/// As [`run`].
pub async fn run_watched(
    config: Config,
    deps: Deps,
    shutdown: Shutdown,
    witness: fn(&[u8]),
) -> Result<(), ProcessorError> {
    pipeline::run(config, deps, shutdown, witness).await
}
