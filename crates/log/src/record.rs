//! A record as it was read.

use bytes::Bytes;
use fleetlog_schemas::id::Position;
use rdkafka::Message;
use rdkafka::message::BorrowedMessage;

/// A record read from a topic, with its bytes owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it is.
    pub position: Position,
    /// When it was produced, milliseconds UTC, if the broker knows.
    pub timestamp_ms: Option<i64>,
    /// Kafka key.
    pub key: Option<Bytes>,
    /// Payload; `None` is a tombstone.
    pub payload: Option<Bytes>,
}

/// Which records of transactions a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Only those of committed transactions, and those outside of transactions.
    Committed,
    /// All, for readers that must be quick and drop repeats themselves.
    Uncommitted,
}

impl Record {
    pub(crate) fn copy_of(message: &BorrowedMessage<'_>) -> Self {
        Self {
            position: Position { partition: message.partition(), offset: message.offset() },
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(Bytes::copy_from_slice),
            payload: message.payload().map(Bytes::copy_from_slice),
        }
    }
}

impl Isolation {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "read_committed",
            Self::Uncommitted => "read_uncommitted",
        }
    }
}
