//! What the ledger is made of: dead letters, settlements and pieces.

use fleetlog_schemas::{DeadLetter, Settlement};

use super::event::fact_row;
use crate::facts::{Attempt, Located};

fact_row! {
    /// A row of `dead_letters`.
    DeadLetterRow from (letter: DeadLetter, at, attempt) {
        project_id: &'a str = &letter.project_id,
        reason: &'a str = letter.reason.as_str(),
        message: &'a str = &letter.message,
        stage: &'a str = &letter.stage,
        records: u32 = letter.records,
        received_at: i64 = letter.received_at,
        failed_at: i64 = letter.failed_at,
        request_id: &'a str = &letter.request_id,
        key_id: &'a str = &letter.key_id,
        route: &'a str = letter.route.as_str(),
        format_hint: &'a str = &letter.format_hint,
        content_type: &'a str = &letter.content_type,
        content_encoding: &'a str = &letter.content_encoding,
        payload_size: u64 = letter.payload.0.len() as u64,
        payload_preview: &'a str = &letter.preview,
        replay_of: &'a str = letter.replay_of(),
        raw_partition: i32 = letter.raw_partition,
        raw_offset: i64 = letter.raw_offset,
        raw_index: i32 = letter.raw_index,
        log_partition: i32 = at.partition,
        log_offset: i64 = at.offset,
        log_index: u32 = at.index,
        insert_before: i64 = attempt.insert_before_ms,
    }
}

fact_row! {
    /// A row of `settlements`.
    SettlementRow from (settlement: Settlement, at, attempt) {
        project_id: &'a str = &settlement.project_id,
        raw_partition: i32 = settlement.raw_partition,
        raw_offset: i64 = settlement.raw_offset,
        received_at: i64 = settlement.received_at,
        request_id: &'a str = &settlement.request_id,
        records: u32 = settlement.records,
        filtered: u32 = settlement.filtered,
        dead: u32 = settlement.dead,
        context: u32 = settlement.context,
        events: u32 = settlement.events,
        #[serde(rename = "pieces.partition")]
        piece_partitions: Vec<i32> = settlement.pieces.iter().map(|piece| piece.partition).collect(),
        #[serde(rename = "pieces.records")]
        piece_records: Vec<u32> = settlement.pieces.iter().map(|piece| piece.records).collect(),
        log_partition: i32 = at.partition,
        log_offset: i64 = at.offset,
        log_index: u32 = at.index,
        insert_before: i64 = attempt.insert_before_ms,
    }
}

/// What became of one raw record's events out of one record of the events topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceRow {
    /// Project.
    pub project_id: String,
    /// Partition of the raw record.
    pub raw_partition: i32,
    /// Offset of the raw record.
    pub raw_offset: i64,
    /// When the gateway accepted it, nanoseconds.
    pub received_at: i64,
    /// Lowest index of the piece's records within the request.
    pub first_index: u32,
    /// Highest index.
    pub last_index: u32,
    /// Records of which at least one event is stored.
    pub stored: u32,
    /// Records all of whose events were known already.
    pub duplicate: u32,
    /// Events of the piece that are stored.
    pub events: u32,
}

fact_row! {
    /// A row of `piece_settlements`.
    PieceFact from (piece: PieceRow, at, attempt) {
        project_id: &'a str = &piece.project_id,
        raw_partition: i32 = piece.raw_partition,
        raw_offset: i64 = piece.raw_offset,
        received_at: i64 = piece.received_at,
        first_index: u32 = piece.first_index,
        last_index: u32 = piece.last_index,
        stored: u32 = piece.stored,
        duplicate: u32 = piece.duplicate,
        events: u32 = piece.events,
        log_partition: i32 = at.partition,
        log_offset: i64 = at.offset,
        log_index: u32 = at.index,
        insert_before: i64 = attempt.insert_before_ms,
    }
}
