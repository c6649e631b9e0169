//! The bytes of a segment file, and nothing about files.
//!
//! ```text
//! segment: "FLSPOOL1" │ first sequence u64 │ CRC32C of both u32 │ record, record, …
//! record:  length u32 │ CRC32C u32 of all that follows │ sequence u64 │ partition i32 │ received_at i64 │ payload
//! ```
//!
//! Integers are little-endian; `length` is the payload's; partition -1 is none in particular; the payload is the raw
//! topic's message as it will be published. Sequences only grow, with gaps where an append failed. A record is believed
//! only where the one before it ended: a payload is a stranger's bytes and may hold what looks like a record.

use fleetlog_log::Target;
use fleetlog_schemas::topic;

pub(super) const HEADER_BYTES: usize = 20;
pub(super) const HEAD_BYTES: usize = 28;
/// Larger messages are not published, so a larger length is damage.
const PAYLOAD_MAX_BYTES: usize = topic::RAW_MAX_MESSAGE_BYTES + 64 * 1024;
const MAGIC: [u8; 8] = *b"FLSPOOL1";
const SPREAD: i32 = -1;

/// A spooled message of the raw topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) sequence: u64,
    pub(super) target: Spot,
    /// When its request was accepted, nanoseconds UTC.
    pub(super) received_at: i64,
    pub(super) payload: Vec<u8>,
}

/// The partition that was chosen when a record was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot(i32);

impl Spot {
    pub(super) const fn of(target: Target) -> Self {
        match target {
            Target::Partition(partition) => Self(partition),
            Target::Spread => Self(SPREAD),
        }
    }

    /// Where it goes in a topic of so many partitions; one that the topic does not have is none in particular.
    pub(super) fn within(self, partitions: u32) -> Target {
        match u32::try_from(self.0) {
            Ok(partition) if partition < partitions => Target::Partition(self.0),
            _ => Target::Spread,
        }
    }
}

/// What stands at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A record, and the bytes it takes.
    Record(Record, usize),
    /// What may be a record, if this many bytes were there.
    Short(usize),
    /// No record.
    Damaged,
}

/// The head of a segment.
pub(super) fn header(first: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let (magic, rest) = header.split_at_mut(8);
    magic.copy_from_slice(&MAGIC);
    let (sequence, crc) = rest.split_at_mut(8);
    sequence.copy_from_slice(&first.to_le_bytes());
    crc.copy_from_slice(&crc32c::crc32c_append(crc32c::crc32c(magic), sequence).to_le_bytes());
    header
}

/// The first sequence of a segment, if its head is whole.
pub(super) fn parse_header(bytes: &[u8]) -> Option<u64> {
    let sequence = u64_at(bytes, 8)?;
    (bytes.get(..HEADER_BYTES)? == header(sequence)).then_some(sequence)
}

/// Adds a record to a segment.
pub(super) fn write(out: &mut Vec<u8>, record: &Record) {
    let length = u32::try_from(record.payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    let crc_at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&record.sequence.to_le_bytes());
    out.extend_from_slice(&record.target.0.to_le_bytes());
    out.extend_from_slice(&record.received_at.to_le_bytes());
    out.extend_from_slice(&record.payload);
    let crc = checksum(length, out.get(crc_at + 4..).unwrap_or_default());
    if let Some(place) = out.get_mut(crc_at..crc_at + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Reads the record at the start of `bytes`, whose sequence must be above `after`.
pub(super) fn parse(bytes: &[u8], after: u64) -> Parsed {
    let Some(head) = Head::of(bytes) else { return Parsed::Short(HEAD_BYTES) };
    if !head.is_plausible(after) {
        return Parsed::Damaged;
    }
    let end = HEAD_BYTES + head.length as usize;
    let (Some(covered), Some(payload)) = (bytes.get(8..end), bytes.get(HEAD_BYTES..end)) else {
        return Parsed::Short(end);
    };
    if checksum(head.length, covered) != head.crc {
        return Parsed::Damaged;
    }
    let record = Record {
        sequence: head.sequence,
        target: Spot(head.partition),
        received_at: head.received_at,
        payload: payload.to_vec(),
    };
    Parsed::Record(record, end)
}

/// Whether something that looks like a record after `after` stands anywhere in `bytes`: what may have been
/// acknowledged is then behind a damage, not only what was being written.
pub(super) fn holds_a_record(bytes: &[u8], after: u64) -> bool {
    (0..bytes.len()).any(|at| {
        let rest = bytes.get(at..).unwrap_or_default();
        // The cheap look first: nearly every place is ruled out by its sequence.
        Head::of(rest).is_some_and(|head| head.is_plausible(after) && head.sequence - after <= 1 << 32)
            && matches!(parse(rest, after), Parsed::Record(..))
    })
}

#[derive(Clone, Copy)]
struct Head {
    length: u32,
    crc: u32,
    sequence: u64,
    partition: i32,
    received_at: i64,
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            length: u32::from_le_bytes(array_at(bytes, 0)?),
            crc: u32::from_le_bytes(array_at(bytes, 4)?),
            sequence: u64_at(bytes, 8)?,
            partition: i32::from_le_bytes(array_at(bytes, 16)?),
            received_at: i64::from_le_bytes(array_at(bytes, 20)?),
        })
    }

    fn is_plausible(self, after: u64) -> bool {
        self.sequence > after && self.length as usize <= PAYLOAD_MAX_BYTES && self.partition >= SPREAD
    }
}

fn checksum(length: u32, covered: &[u8]) -> u32 {
    // The length is covered too: a changed one must not lead to a record inside of a payload.
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), covered)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(array_at(bytes, at)?))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
