//! The contracts of Fleetlog: names and shapes, and nothing else.
//!
//! - [`event`]: the one event model every source is mapped to, with its closed vocabularies.
//! - [`record`]: what travels through Kafka (raw batches, event batches, settlements, dead letters, spools).
//! - [`control`]: API keys and project settings, as the compacted control topic carries them.
//! - [`avro`]: the wire encoding of all records: single-object Avro, generated field by field.
//! - [`topic`]: the topics' names and how they are partitioned.
//! - [`ddl`]: the numbered ClickHouse migrations.
//! - [`api`]: the JSON form of an event that people and tools see.
//!
//! This crate has no async, no IO and no clock. Whatever decides something lives in a service.

pub mod api;
pub mod avro;
pub mod control;
pub mod ddl;
pub mod event;
pub mod id;
pub mod record;
pub mod topic;
pub mod usage;

pub use event::{AgentEvent, EventType};
pub use record::{DeadLetter, EventBatch, RawBatch, Settlement};
