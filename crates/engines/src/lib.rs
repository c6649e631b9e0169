//! Fetches, verifies, starts, supervises and stops the pinned engines of the one-command run: a real Apache Kafka
//! node and a real ClickHouse engine.
//!
//! - [`EngineCache`] brings the engines onto this machine with Maven's and npm's own clients, checks every file
//!   against a pinned SHA-256 and keeps them outside the work tree, so that the second start needs no network.
//! - [`KafkaNode`] and [`ClickHouseNode`] are running engines: child processes on loopback that die with this
//!   process, own their data folder alone, and say why when they cannot start or end unasked.
//!
//! The crate knows nothing of topics, tables or services, and production never uses it: there, endpoints come from
//! the configuration. Engines start only on loopback; nothing here is meant to face a network.

mod cache;
mod clickhouse;
mod error;
mod fetch;
mod folder;
mod kafka;
mod launcher;
mod log;
mod pins;
mod ports;
mod process;
mod progress;
mod set;
mod toolchain;

pub use cache::{EngineCache, Engines};
pub use clickhouse::{ClickHouseNode, ClickHouseOptions, ClickHouseProgram, ClickHouseSource};
pub use error::{EngineError, Result};
pub use kafka::{KafkaNode, KafkaOptions};
pub use pins::Engine;
pub use ports::{ensure_free, free_ports};
pub use process::{EngineExit, Stopped};
pub use progress::Progress;
pub use set::EngineSet;
