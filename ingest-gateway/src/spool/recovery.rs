//! What a segment holds after a crash or a damage: everything up to the first byte that cannot be believed.
//!
//! Segments are written one after the other and a new one is begun only when all of the last is on disk. So damage in
//! the newest may be the tail that a crash interrupted, of which nothing was acknowledged: it is cut off. Damage
//! anywhere else, or with further records behind it, is set aside for people to look at, and said loudly.

use super::format::{HEADER_BYTES, Parsed, holds_a_record, parse, parse_header};

/// What can be believed of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Sequence and acceptance of each sound record, in order.
    pub(super) records: Vec<Found>,
    /// Where the last sound record ends; 0 when not even the head is sound.
    pub(super) end: usize,
    pub(super) tail: Tail,
}

/// A sound record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) sequence: u64,
    pub(super) received_at: i64,
    /// Bytes it takes.
    pub(super) bytes: usize,
}

/// What follows the last sound record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing.
    Clean,
    /// Bytes of a write that was interrupted.
    Torn,
    /// A damage that may hide acknowledged records.
    Corrupt,
}

/// Scans a segment that should begin with `first`; only the newest can be torn.
pub(super) fn scan(bytes: &[u8], first: u64, is_newest: bool) -> Scan {
    let before = first.saturating_sub(1);
    let mut records = Vec::new();
    let mut end = 0;
    let mut after = before;
    if parse_header(bytes) == Some(first) {
        end = HEADER_BYTES;
        while let Parsed::Record(record, length) = parse(bytes.get(end..).unwrap_or_default(), after) {
            after = record.sequence;
            end += length;
            let (sequence, received_at) = (record.sequence, record.received_at);
            records.push(Found { sequence, received_at, bytes: length });
        }
    }
    let rest = bytes.get(end..).unwrap_or_default();
    let tail = if rest.is_empty() && end > 0 {
        Tail::Clean
    } else if is_newest && !holds_a_record(rest.get(1..).unwrap_or_default(), after) {
        Tail::Torn
    } else {
        Tail::Corrupt
    };
    Scan { records, end, tail }
}

#[cfg(test)]
mod tests;
