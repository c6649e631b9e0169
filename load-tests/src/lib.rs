//! Load for a running Fleetlog, and the sums it must arrive at.
//!
//! [`mix`] makes the agent-mix workload (half tool calls, a quarter model calls, a quarter messages) from a seed,
//! so that a run can be repeated and a sender knows exactly what the tables must say afterwards; [`sender`] posts
//! it over HTTP as an SDK would, retrying what is retryable; [`overload`] sends more than can be taken; [`visibility`]
//! measures how soon an accepted event answers a query; [`garbage`] attacks every listener; [`process`] reads what the
//! system's processes cost. The same code drives the end-to-end tests and
//! the benchmarks.

pub mod garbage;
pub mod mix;
pub mod overload;
pub mod process;
pub mod sender;
pub mod visibility;
