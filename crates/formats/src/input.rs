//! What a decoder is given and what it gives back.

use fleetlog_schemas::event::{AgentEvent, TimestampSource};
use fleetlog_schemas::record::{DeadReason, RawBatch, Route, StreamContext};
use thiserror::Error;

use crate::inspect::{BadBody, Body};
use crate::plausible::Implausible;

/// One raw record's payload, decompressed, and everything about its arrival that an event or its identity needs.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Door it came in by.
    pub route: Route,
    /// `Content-Type` as sent, or empty.
    pub content_type: &'a str,
    /// Format named by the sender, or empty.
    pub format_hint: &'a str,
    /// The bytes, decompressed.
    pub body: &'a [u8],
    /// Project of the key that sent it.
    pub project_id: &'a str,
    /// Id of the request, minted by the gateway.
    pub request_id: &'a str,
    /// The sender's `Idempotency-Key`, or empty.
    pub idempotency_key: &'a str,
    /// When the gateway accepted it, nanoseconds UTC.
    pub received_at: i64,
    /// Partition of the raw record.
    pub raw_partition: i32,
    /// Offset of the raw record.
    pub raw_offset: i64,
    /// Index of the piece's first record within the request.
    pub first_record: u32,
    /// Number of the piece within the request.
    pub piece: u32,
    /// Indexes within the piece that the gateway rejected, ascending; they are skipped.
    pub rejected: &'a [u32],
    /// Context of the stream the payload continues.
    pub stream: Option<&'a StreamContext>,
}

impl<'a> Input<'a> {
    /// The input of a raw record, given its position and its payload after decompression.
    pub fn of(batch: &'a RawBatch, body: &'a [u8], raw_partition: i32, raw_offset: i64) -> Self {
        Self {
            route: batch.route,
            content_type: &batch.content_type,
            format_hint: &batch.format_hint,
            body,
            project_id: &batch.project_id,
            request_id: &batch.request_id,
            idempotency_key: &batch.idempotency_key,
            received_at: batch.received_at,
            raw_partition,
            raw_offset,
            first_record: batch.first_record,
            piece: batch.piece,
            rejected: &batch.rejected,
            stream: batch.stream.as_ref(),
        }
    }

    pub(crate) fn as_body(&self) -> Body<'a> {
        Body {
            route: self.route,
            content_type: self.content_type,
            format_hint: self.format_hint,
            bytes: self.body,
        }
    }

    /// An event of record `index` that says nothing yet but where it came from.
    pub(crate) fn blank_event(&self, index: u32) -> AgentEvent {
        AgentEvent {
            project_id: self.project_id.to_owned(),
            timestamp: self.received_at,
            timestamp_source: TimestampSource::Ingest,
            received_at: self.received_at,
            raw_partition: self.raw_partition,
            raw_offset: self.raw_offset,
            raw_index: self.first_record.saturating_add(index),
            ..AgentEvent::default()
        }
    }
}

/// What became of the records of one raw record.
///
/// # Invariants
/// Every record that the gateway did not reject either has at least one event, whose `raw_index` names it, or exactly
/// one entry in `eventless` (INV-6).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Events, in the order of their records.
    pub events: Vec<AgentEvent>,
    /// Records without an event, in order.
    pub eventless: Vec<Eventless>,
    /// Events with a number that cannot be, which is not in its column.
    pub implausible: Implausible,
}

/// A record that has no event, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eventless {
    /// Index of the record within the piece.
    pub index: u32,
    /// What became of it.
    pub fate: Fate,
}

/// The fate of a record that has no event of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Used to understand other records.
    Context,
    /// Dropped by the policy of this name.
    Filtered(&'static str),
    /// Cannot be used.
    Dead(Dead),
}

/// A record that cannot be used, with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Why.
    pub reason: DeadReason,
    /// What exactly went wrong; never contains payload bytes.
    pub message: String,
    /// The record's bytes.
    pub bytes: Vec<u8>,
}

/// A body of which no record can be told from the next.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Undecodable {
    /// What exactly went wrong; never contains payload bytes.
    pub message: String,
    /// Byte offset of the fault in the decompressed body.
    pub position: Option<usize>,
}

impl From<BadBody> for Undecodable {
    fn from(bad: BadBody) -> Self {
        Self { message: bad.message, position: bad.position }
    }
}

impl Decoded {
    /// The events of the body are too large together already: the record is kept as it came, for another time.
    pub(crate) fn beyond_budget(&mut self, index: u32, bytes: &[u8]) {
        let message = "the events made of this request's records are too large together".to_owned();
        let dead = Dead { reason: DeadReason::TooLarge, message, bytes: bytes.to_vec() };
        self.eventless.push(Eventless { index, fate: Fate::Dead(dead) });
    }

    pub(crate) fn dead(&mut self, index: u32, message: impl Into<String>, bytes: &[u8]) {
        let dead = Dead { reason: DeadReason::Undecodable, message: message.into(), bytes: bytes.to_vec() };
        self.eventless.push(Eventless { index, fate: Fate::Dead(dead) });
    }
}
