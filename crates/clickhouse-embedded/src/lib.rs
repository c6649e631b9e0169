//! ClickHouse's HTTP interface over the embedded engine.
//!
//! One process, one engine, one data directory: the library libchdb is loaded, and what it can do is served on a loopback
//! address in the protocol of a ClickHouse server, so that the `clickhouse` crate, curl and clickhouse-connect work
//! unmodified. A request goes through these modules: `http` (routes, admission) → `request` (what is asked) → `statement`
//! (how it runs) → `gate` (whether it may) → `ffi` (the engine), and back through `reply`.
//!
//! It is a process of its own so that an engine crash cannot take the pipeline along. It is no server for others: it
//! has one user, no password and no TLS, and refuses any address that is not loopback.

mod body;
mod compression;
mod config;
mod connections;
mod engine;
mod error;
mod ffi;
mod format;
mod gate;
mod http;
pub mod metrics;
mod reply;
mod request;
mod running;
mod sandbox;
mod serve;
mod sql;
mod statement;

pub use config::Options;
pub use error::{ServerError, StartError};
pub use sandbox::confine;
pub use serve::{Ready, end_with_parent, exit_at_once, run};
