//! The topics: their names, and how a record finds its partition.

use xxhash_rust::xxh3::xxh3_64;

use crate::event::AgentEvent;

/// Raw requests, Avro [`RawBatch`](crate::record::RawBatch).
pub const RAW: &str = "fleetlog.raw.v1";
/// Events and settlements, Avro [`EventBatch`](crate::record::EventBatch).
pub const EVENTS: &str = "fleetlog.events.v1";
/// Dead letters, Avro [`DeadLetter`](crate::record::DeadLetter).
pub const DEAD: &str = "fleetlog.dead.v1";
/// API keys and project settings, JSON [`ControlRecord`](crate::control::ControlRecord), compacted.
pub const CONTROL: &str = "fleetlog.control.v1";
/// What was used of daily quotas, JSON [`UsageCount`](crate::usage::UsageCount), compacted and forgotten after two days.
pub const USAGE: &str = "fleetlog.usage.v1";

/// What each gateway holds in its spool, Avro [`SpoolStanding`](crate::record::SpoolStanding), compacted: the last word of a
/// gateway stays until it takes it back, or an operator does.
pub const SPOOLS: &str = "fleetlog.spools.v1";

/// Largest message of the raw topic, bytes.
pub const RAW_MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// Largest message of the events and dead-letter topics, bytes.
pub const EVENTS_MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;

/// The partition of the events topic that an event belongs to.
///
/// By project and session, else trace, else `dedup_key`: an event and its retry always meet in one partition,
/// which is what lets the aggregator recognise the retry (INV-5). A change of `partitions` is a migration.
pub fn events_partition(event: &AgentEvent, partitions: u32) -> i32 {
    let affinity = if !event.session_id.is_empty() {
        event.session_id.as_bytes()
    } else if !event.trace_id.is_empty() {
        event.trace_id.as_bytes()
    } else {
        &event.dedup_key.0
    };
    partition_of(&event.project_id, affinity, partitions)
}

/// The partition of a (project, affinity) pair among `partitions`.
pub fn partition_of(project_id: &str, affinity: &[u8], partitions: u32) -> i32 {
    let mut key = Vec::with_capacity(project_id.len() + 1 + affinity.len());
    key.extend_from_slice(project_id.as_bytes());
    key.push(0);
    key.extend_from_slice(affinity);
    (xxh3_64(&key) % u64::from(partitions.max(1))) as i32
}
