//! The only user of the ClickHouse client; applies the DDL.
//!
//! - [`Store`] is one connection pool to one database: migrations, the proof that readers are confined, the store's
//!   clock.
//! - [`Store::insert_events`] and its neighbours write facts: one Kafka partition's range a call, under a token that
//!   makes a retry harmless (INV-4).
//! - [`Store::settled_runs`] says which places of the raw log are settled: what the ledger is made of (INV-6, INV-7).
//! - [`derived`] reads what the derivations need and writes what they yield, versioned.
//! - [`Reader`] and [`ProjectReader`] are the query API's: every query is confined to one project by the row filters,
//!   read-only and limited (INV-10). SELECTs are built there, not here.
//!
//! This crate decides nothing about events: it knows columns, settings and what ClickHouse's errors mean.

mod access;
mod config;
pub mod derived;
mod error;
mod facts;
mod insert;
mod known;
mod ledger;
mod listed;
mod migrate;
mod probe;
mod reader;
mod rows;
mod running;
mod shadow;
mod store;

pub use config::StoreConfig;
pub use error::StoreError;
pub use facts::{Attempt, Fact, FactId, FactRange, FactTable, Located, Positions, Stored};
pub use known::KnownRow;
pub use ledger::RawRun;
pub use listed::{Listable, Listed};
pub use migrate::Migrated;
pub use reader::{ProjectReader, Query, Reader, ReaderLimits};
pub use rows::{Call, Contribution, GroupKind, PieceRow, Session, Tool, Trace, UsageRow};
pub use shadow::{
    CallTotals, EventCount, Fates, Gone, PlaceRow, ReasonCount, RowChanges, SessionPair, ToolCount, Window,
};
pub use store::Store;

/// The client's row traits, so that the query API can derive them without depending on the client:
/// `#[derive(fleetlog_store::row::Row, serde::Deserialize)] #[clickhouse(crate = "fleetlog_store::row")]`.
pub mod row {
    #[doc(hidden)]
    pub use clickhouse::_priv;
    pub use clickhouse::{Row, RowOwned, RowRead};
}
