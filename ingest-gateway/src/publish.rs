//! From checked pieces to acknowledged records of the raw topic (INV-1).

use fleetlog_log::{LogError, Outgoing, Producer, Target};
use fleetlog_schemas::avro::{Blob, to_single_object};
use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::RawBatch;
use fleetlog_schemas::topic;

use crate::check::Piece;
use crate::error::Refusal;

/// Publishes every piece and waits until all of them are acknowledged.
///
/// # Errors
/// [`Refusal::NotPublished`] when one of them is not. Others may be by then: the sender sends the request again,
/// and repeats are recognised (INV-5).
pub(crate) async fn publish(
    producer: &Producer,
    envelope: &RawBatch,
    pieces: Vec<Piece>,
    target: Target,
) -> Result<Vec<Position>, Refusal> {
    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    let mut deliveries = Vec::with_capacity(pieces.len());
    for (number, piece) in (0..).zip(pieces) {
        let record = RawBatch { piece: number, pieces: count, ..with_piece(envelope.clone(), piece) };
        let bytes = to_single_object(&record).map_err(|e| Refusal::Internal(e.to_string()))?;
        let outgoing = Outgoing { topic: topic::RAW, target, key: None, payload: Some(&bytes) };
        deliveries.push(producer.enqueue(outgoing).map_err(refused)?);
    }
    let mut positions = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        positions.push(delivery.await.map_err(refused)?);
    }
    Ok(positions)
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

fn refused(error: LogError) -> Refusal {
    match error {
        LogError::TooLarge { .. } => Refusal::Unsplittable { limit: topic::RAW_MAX_MESSAGE_BYTES },
        error => Refusal::NotPublished(error),
    }
}
