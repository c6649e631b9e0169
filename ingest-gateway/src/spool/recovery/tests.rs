//! Whatever happens to a segment's bytes: never a wrong record, never a panic, and everything before the damage is kept.

use fleetlog_log::Target;
use proptest::prelude::*;

use super::super::format::{HEAD_BYTES, Record, Spot, header, write};
use super::*;

const FIRST: u64 = 40;

/// A segment, and where each of its records ends.
fn segment(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = header(FIRST).to_vec();
    let mut ends = Vec::new();
    for (sequence, payload) in (FIRST..).step_by(2).zip(payloads) {
        let target = Spot::of(if sequence % 3 == 0 { Target::Spread } else { Target::Partition(3) });
        write(&mut bytes, &Record { sequence, target, received_at: 7, payload: payload.clone() });
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// How many records end at or before a place.
fn whole(ends: &[usize], place: usize) -> usize {
    ends.iter().filter(|end| **end <= place).count()
}

#[test]
fn a_sound_segment_is_read_as_it_was_written() {
    let (bytes, ends) = segment(&[b"one".to_vec(), Vec::new(), b"three".to_vec()]);
    let found = scan(&bytes, FIRST, false);
    assert_eq!((found.tail, found.end), (Tail::Clean, *ends.last().unwrap()));
    assert_eq!(found.records.iter().map(|record| record.sequence).collect::<Vec<_>>(), [40, 42, 44]);
    assert_eq!(found.records[1].bytes, HEAD_BYTES);
    assert_eq!(scan(&bytes, FIRST + 1, false).tail, Tail::Corrupt, "another segment's bytes");
}

#[test]
fn a_payload_that_holds_a_record_is_never_taken_for_one() {
    let mut inner = Vec::new();
    let forged =
        Record { sequence: 41, target: Spot::of(Target::Spread), received_at: 0, payload: b"forged".into() };
    write(&mut inner, &forged);
    let (mut bytes, _) = segment(&[inner, b"next".to_vec()]);
    // The length of the first record now ends right where the forged one begins.
    bytes[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&0_u32.to_le_bytes());
    let found = scan(&bytes, FIRST, true);
    assert_eq!((found.records.len(), found.tail), (0, Tail::Corrupt));
}

proptest! {
    #[test]
    fn a_tail_that_was_not_written_to_its_end_is_torn(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let (bytes, ends) = segment(&payloads);
        let cut = cut.index(bytes.len());
        let found = scan(&bytes[..cut], FIRST, true);
        let kept = whole(&ends, cut);
        prop_assert_eq!(found.records.len(), kept);
        let is_boundary = cut == HEADER_BYTES || ends.contains(&cut);
        prop_assert_eq!(found.tail, if is_boundary { Tail::Clean } else { Tail::Torn });
    }

    #[test]
    fn a_changed_byte_costs_what_stands_behind_it_and_is_not_taken_for_a_torn_tail(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 2..12),
        place in any::<prop::sample::Index>(),
        change in 1..=u8::MAX,
        is_newest in any::<bool>(),
    ) {
        let (mut bytes, ends) = segment(&payloads);
        let before = scan(&bytes, FIRST, true).records;
        let place = place.index(bytes.len());
        bytes[place] ^= change;
        let found = scan(&bytes, FIRST, is_newest);
        let sound = if place < HEADER_BYTES { 0 } else { whole(&ends, place) };
        prop_assert_eq!(&found.records[..], &before[..sound]);
        let has_more = place < HEADER_BYTES || sound + 1 < ends.len();
        prop_assert_eq!(found.tail, if has_more || !is_newest { Tail::Corrupt } else { Tail::Torn });
    }

    #[test]
    fn garbage_is_no_record(bytes in prop::collection::vec(any::<u8>(), 0..200), is_newest in any::<bool>()) {
        let mut garbled = header(FIRST).to_vec();
        garbled.extend_from_slice(&bytes);
        prop_assert!(scan(&garbled, FIRST, is_newest).records.is_empty());
        prop_assert!(scan(&bytes, FIRST, is_newest).records.is_empty());
    }
}
