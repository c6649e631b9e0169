//! The harness of the end-to-end tests: the real programs, started and asked as a user would.
//!
//! [`System`] is a running `fleetlog up`; [`Project`] is a project of it with its own keys, so that promises can
//! share one system and count exactly. [`Suite`] runs many promises against one system and stops it after the last.
//! Nothing of the services is linked in: what is promised at the surface is tried at the surface. Waiting is always
//! for a condition, with a deadline ([`eventually`]); every process ends with its owner, whatever happens
//! ([`Process`]).

mod clickhouse;
mod client;
mod deployment;
mod derived;
mod fixture;
mod node;
mod process;
mod project;
mod python;
mod suite;
mod system;
mod wait;

pub use clickhouse::ClickHouse;
pub use client::{Answer, Client};
pub use deployment::{Deployment, Engines, SERVICES};
pub use derived::rederives_to_the_same;
pub use fixture::{fixture, recording, recordings};
pub use node::node_library;
pub use process::{Process, command_line, descendants, is_alive, peak_memory, program, run, signal_process};
pub use project::{Project, create_key};
pub use python::{clickhouse_connect, client_library, sdks};
pub use suite::{Suite, say};
pub use system::{Addresses, Ports, System};
pub use wait::{SOON, eventually};
