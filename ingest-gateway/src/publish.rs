//! From checked pieces to acknowledged records of the raw topic (INV-1).

use fleetlog_log::{LogError, Outgoing, Producer, Target};
use fleetlog_schemas::avro::{Blob, to_single_object};
use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::RawBatch;
use fleetlog_schemas::topic;

use crate::check::Piece;
use crate::error::Refusal;

/// Where the messages of a request durably are.
#[derive(Debug)]
pub(crate) enum Stored {
    /// In Kafka, on every in-sync replica.
    Replicated {
        /// Where they are.
        positions: Vec<Position>,
        /// Whether they had to wait for the spool first.
        waited: bool,
    },
    /// Some or all of them on this machine's disk; they have no positions yet.
    Spooled,
}

impl Stored {
    /// Whether the time it took says how many requests Kafka can take at once. A request without a record takes none,
    /// and how long the disk or the spool took says nothing of Kafka.
    pub(crate) fn times_kafka(&self) -> bool {
        matches!(self, Self::Replicated { positions, waited: false } if !positions.is_empty())
    }
}

/// The messages of a request, one a piece.
pub(crate) fn messages(envelope: &RawBatch, pieces: Vec<Piece>) -> impl Iterator<Item = RawBatch> {
    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    (0..).zip(pieces).map(move |(piece, rest)| RawBatch {
        piece,
        pieces: count,
        ..with_piece(envelope.clone(), rest)
    })
}

/// Publishes every message and waits until all of them are acknowledged.
///
/// # Errors
/// [`Refusal::NotPublished`] when one of them is not. Others may be by then: the sender sends the request again,
/// and repeats are recognised (INV-5).
pub(crate) async fn publish(
    producer: &Producer,
    messages: impl Iterator<Item = RawBatch>,
    target: Target,
) -> Result<Stored, Refusal> {
    let mut deliveries = Vec::with_capacity(messages.size_hint().0);
    for record in messages {
        let bytes = to_single_object(&record).map_err(|e| Refusal::Internal(e.to_string()))?;
        let outgoing = Outgoing { topic: topic::RAW, target, key: None, payload: Some(&bytes) };
        deliveries.push(producer.enqueue(outgoing).map_err(refused)?);
    }
    let mut positions = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        positions.push(delivery.await.map_err(refused)?);
    }
    Ok(Stored::Replicated { positions, waited: false })
}

fn with_piece(envelope: RawBatch, piece: Piece) -> RawBatch {
    RawBatch {
        content_encoding: piece.encoding.as_str().to_owned(),
        record_count: piece.records,
        first_record: piece.first_record,
        rejected: piece.rejected,
        stream: piece.stream,
        payload: Blob(Vec::from(piece.payload)),
        ..envelope
    }
}

pub(crate) fn refused(error: LogError) -> Refusal {
    match error {
        LogError::TooLarge { .. } => Refusal::Unsplittable { limit: topic::RAW_MAX_MESSAGE_BYTES },
        error => Refusal::NotPublished(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_kafka_took_at_once_says_how_long_it_takes() {
        let positions = vec![Position { partition: 0, offset: 7 }];
        assert!(Stored::Replicated { positions: positions.clone(), waited: false }.times_kafka());
        assert!(!Stored::Replicated { positions, waited: true }.times_kafka());
        assert!(
            !Stored::Replicated { positions: Vec::new(), waited: false }.times_kafka(),
            "nothing was sent"
        );
        assert!(!Stored::Spooled.times_kafka());
    }
}
