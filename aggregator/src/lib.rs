//! Writes facts to ClickHouse and keeps what is derived from them true.
//!
//! Reads the events topic and the dead-letter topic. A partition's records are gathered into a range, the range is
//! stored as one insert a table, and only then is its offset committed (INV-2). Then every group that the stored events
//! name is recomputed from all of its facts ([`mod@derive`]) and written under a new version. It never changes what an
//! event says, and no number is ever added up from what was inserted.
//!
//! The cores are pure: the batcher (when a range is closed), the touched groups (what is to be recomputed, and how far
//! the recomputation has come), the search for refused rows, ownership (whose the events are that name a trace alone) and
//! [`mod@derive`]. `pipeline` shows how they are joined. [`rederive()`] is for operators: it compares everything
//! derived with its facts; [`reprice()`] applies a price table to calls of the past.

mod batch;
mod bisect;
mod config;
mod dedup;
pub mod derive;
mod deriver;
mod error;
mod expiry;
mod facts;
pub mod metrics;
mod once;
mod ownership;
mod partition;
mod pipeline;
mod recompute;
mod rederive;
mod reprice;
mod settle;
mod shadow;
mod touched;

use fleetlog_runtime::{Deps, Shutdown};

pub use config::{AggregatorConfig, Config};
pub use error::AggregatorError;
pub use once::BadNote;
pub use rederive::{Rederivation, Report, Step, rederive};
pub use reprice::{Repricings, reprice};
pub use shadow::ShadowWriter;

/// Runs the aggregator until shutdown.
///
/// # Errors
/// [`AggregatorError`] when it cannot start or cannot go on.
pub async fn run(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(), AggregatorError> {
    pipeline::run(config, deps, shutdown).await
}
