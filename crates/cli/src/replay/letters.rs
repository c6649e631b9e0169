//! Which dead letters are replayed, and what each becomes: a raw record like the one it came of. Pure.
//!
//! # Invariants
//! The events of a replayed record have the identities that those of its original would have had: the request's id, its
//! `Idempotency-Key`, the indexes of its records and the time of receipt stay. So whatever was stored before is
//! recognised as a retry (INV-5), however often a letter is replayed, and wherever a run was interrupted.

use std::fmt;
use std::ops::Range;

use fleetlog_schemas::avro::Blob;
use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::{DeadLetter, DeadReason, Envelope, RawBatch, Route};

/// Which letters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Any of these reasons; all when empty.
    pub(crate) reasons: Vec<DeadReason>,
    /// Only this project.
    pub(crate) project_id: Option<String>,
    /// When they were given up, nanoseconds.
    pub(crate) failed: Range<i64>,
    /// Also those that came of a replay.
    pub(crate) replays: bool,
}

/// What is to become of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// It is replayed.
    Selected,
    /// It came of a replay: its first letter is still there, and repeating both would double them with every run.
    Replay,
    /// It was not asked for.
    Other,
}

impl Selection {
    pub(crate) fn choose(&self, letter: &DeadLetter) -> Choice {
        let wanted = (self.reasons.is_empty() || self.reasons.contains(&letter.reason))
            && self.project_id.as_ref().is_none_or(|project| *project == letter.project_id)
            && self.failed.contains(&letter.failed_at);
        match wanted {
            false => Choice::Other,
            true if !self.replays && !letter.replay_of().is_empty() => Choice::Replay,
            true => Choice::Selected,
        }
    }

    /// The same, once its raw record is known: the aggregator's letters do not say that they came of a replay.
    pub(crate) fn choose_knowing(
        &self,
        choice: Choice,
        letter: &DeadLetter,
        original: Option<&RawBatch>,
    ) -> Choice {
        let is_replay = |raw: &RawBatch| is_its_record(letter, raw) && !raw.replay_of.is_empty();
        match choice {
            Choice::Selected if !self.replays && original.is_some_and(is_replay) => Choice::Replay,
            choice => choice,
        }
    }
}

/// Why a letter cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// Not even the envelope could be read: whose it is and what it held is unknown.
    Unreadable,
    /// The letter itself cannot be read.
    UnreadableLetter,
    /// The letter holds what its record became, or a part that means nothing alone, and the raw record is gone.
    RawGone,
    /// The raw record at its position is not the one it came of.
    OtherRaw,
    /// The raw topic does not take a message of its size.
    TooLarge,
}

impl Refusal {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "bad_envelope",
            Self::UnreadableLetter => "unreadable_letter",
            Self::RawGone => "raw_record_gone",
            Self::OtherRaw => "other_raw_record",
            Self::TooLarge => "too_large",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "its envelope is not readable: whose it is and what it held is unknown",
            Self::UnreadableLetter => "the letter itself is not readable: perhaps a newer version wrote it",
            Self::RawGone => {
                "the raw topic no longer has its raw record, and the letter alone does not say enough"
            }
            Self::OtherRaw => "the raw topic has another record at its position",
            Self::TooLarge => "it exceeds what the raw topic takes as one message",
        })
    }
}

/// The raw record that is needed beside the letter, if any.
pub(crate) fn raw_needed(letter: &DeadLetter) -> Option<Position> {
    let sufficient = letter.raw_index < 0 && letter.envelope.is_some() && !letter.payload.0.is_empty();
    let at = Position { partition: letter.raw_partition, offset: letter.raw_offset };
    (!sufficient && !has_no_envelope(letter)).then_some(at)
}

/// Whether nobody knows which raw record it was: the aggregator's letters of records that it cannot decode have none.
fn has_no_envelope(letter: &DeadLetter) -> bool {
    letter.reason == DeadReason::BadEnvelope || letter.raw_partition < 0
}

/// Whether a raw record is the one that a letter is about. A letter of a stored event does not know its request.
fn is_its_record(letter: &DeadLetter, original: &RawBatch) -> bool {
    if letter.stage == "aggregator" {
        return original.project_id == letter.project_id && original.received_at == letter.received_at;
    }
    original.request_id == letter.request_id
}

/// A raw record to publish, which may repeat several letters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Repeat {
    /// The record.
    pub(crate) batch: RawBatch,
    /// Where the original is.
    pub(crate) raw: Position,
    /// Letters it repeats.
    pub(crate) letters: u64,
    /// Indexes of the only records of `batch` that are meant; empty when all of them are.
    only: Vec<u32>,
}

impl Repeat {
    /// What a letter at a position of the dead-letter topic becomes, given its raw record where that was needed and is
    /// still there.
    ///
    /// # Errors
    /// Why it cannot be replayed.
    pub(crate) fn of(letter: DeadLetter, at: Position, original: Option<RawBatch>) -> Result<Self, Refusal> {
        if has_no_envelope(&letter) {
            return Err(Refusal::Unreadable);
        }
        let raw = Position { partition: letter.raw_partition, offset: letter.raw_offset };
        let (batch, only) = match (original, u32::try_from(letter.raw_index)) {
            (Some(original), _) if !is_its_record(&letter, &original) => return Err(Refusal::OtherRaw),
            (Some(original), Err(_)) => (original, Vec::new()),
            (Some(original), Ok(index)) => {
                let within = index.checked_sub(original.first_record);
                let index = within.filter(|index| *index < original.record_count).ok_or(Refusal::OtherRaw)?;
                (only_records(original, &[index]), vec![index])
            }
            // Its bytes were more than the dead-letter topic takes.
            (None, _) if letter.payload.0.is_empty() => return Err(Refusal::RawGone),
            (None, Err(_)) => (whole(letter, at), Vec::new()),
            (None, Ok(index)) => (single(letter, index)?, Vec::new()),
        };
        let replay_of = format!("{}/{}", at.partition, at.offset);
        Ok(Self { batch: RawBatch { replay_of, ..batch }, raw, letters: 1, only })
    }

    /// Takes a further letter of the same raw record, so that its bytes travel once; gives it back when it is of
    /// another.
    pub(crate) fn join(&mut self, other: Self) -> Option<Self> {
        let same = self.raw == other.raw
            && !self.only.is_empty()
            && !other.only.is_empty()
            && self.batch.payload == other.batch.payload;
        if !same {
            return Some(other);
        }
        self.only.extend(other.only);
        self.letters += other.letters;
        let rejected = |index: &u32| self.batch.rejected.binary_search(index).is_ok();
        let kept: Vec<u32> = self.only.iter().copied().filter(rejected).collect();
        self.batch.rejected.retain(|index| !kept.contains(index));
        None
    }
}

/// The record with everything rejected but some of its records, which keep their indexes that way.
fn only_records(batch: RawBatch, only: &[u32]) -> RawBatch {
    RawBatch { rejected: (0..batch.record_count).filter(|index| !only.contains(index)).collect(), ..batch }
}

/// All of a raw record, of what its letter kept of it.
fn whole(letter: DeadLetter, at: Position) -> RawBatch {
    let accepted = letter.records;
    let envelope = letter.envelope.clone().unwrap_or_else(|| Envelope {
        // A letter of an earlier version does not say which piece of its request it was: a name of its own keeps records
        // with neither id nor time from being taken for those of another piece.
        idempotency_key: format!("replay-dead-{}-{}", at.partition, at.offset),
        record_count: accepted,
        pieces: 1,
        ..Envelope::default()
    });
    of_envelope(letter, envelope)
}

/// A single record of a request, alone.
fn single(letter: DeadLetter, index: u32) -> Result<RawBatch, Refusal> {
    // Only a universal event means the same alone: lines need their stream, and spans their resource.
    let alone = letter.route == Route::Events && letter.reason != DeadReason::EventTooLarge;
    let envelope = letter.envelope.clone().filter(|_| alone).ok_or(Refusal::RawGone)?;
    let envelope = Envelope { record_count: 1, first_record: index, rejected: Vec::new(), ..envelope };
    Ok(RawBatch { content_type: "application/json".to_owned(), ..of_envelope(letter, envelope) })
}

fn of_envelope(letter: DeadLetter, envelope: Envelope) -> RawBatch {
    RawBatch {
        project_id: letter.project_id,
        key_id: letter.key_id,
        request_id: letter.request_id,
        idempotency_key: envelope.idempotency_key,
        received_at: letter.received_at,
        gateway_id: envelope.gateway_id,
        spool_sequence: envelope.spool_sequence,
        route: letter.route,
        format_hint: letter.format_hint,
        content_type: letter.content_type,
        content_encoding: letter.content_encoding,
        user_agent: envelope.user_agent,
        record_count: envelope.record_count,
        first_record: envelope.first_record,
        rejected: envelope.rejected,
        piece: envelope.piece,
        pieces: envelope.pieces,
        stream: envelope.stream,
        payload: Blob(letter.payload.0),
        replay_of: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { partition: 1, offset: 7 };

    fn letter(raw_index: i32) -> DeadLetter {
        DeadLetter {
            project_id: "p".into(),
            reason: DeadReason::TooLarge,
            raw_partition: 2,
            raw_offset: 9,
            raw_index,
            records: 3,
            received_at: 5,
            failed_at: 50,
            request_id: "r".into(),
            key_id: "k".into(),
            route: Route::Events,
            content_type: "application/x-ndjson".into(),
            content_encoding: "gzip".into(),
            payload: Blob(b"bytes".to_vec()),
            envelope: Some(Envelope {
                idempotency_key: "i".into(),
                record_count: 4,
                first_record: 40,
                rejected: vec![1],
                piece: 2,
                pieces: 3,
                ..Envelope::default()
            }),
            ..DeadLetter::default()
        }
    }

    fn original() -> RawBatch {
        RawBatch {
            request_id: "r".into(),
            record_count: 4,
            first_record: 40,
            rejected: vec![1],
            ..RawBatch::default()
        }
    }

    #[test]
    fn a_letter_is_chosen_by_reason_project_and_time_and_a_replays_only_on_demand() {
        let all = Selection { failed: i64::MIN..i64::MAX, ..Selection::default() };
        assert_eq!(all.choose(&letter(-1)), Choice::Selected);
        let other = |selection: Selection| selection.choose(&letter(-1));
        assert_eq!(other(Selection { reasons: vec![DeadReason::Poison], ..all.clone() }), Choice::Other);
        assert_eq!(other(Selection { project_id: Some("q".into()), ..all.clone() }), Choice::Other);
        assert_eq!(other(Selection { failed: 51..60, ..all.clone() }), Choice::Other);
        assert_eq!(other(Selection { failed: 50..51, ..all.clone() }), Choice::Selected);
        let mut again = letter(-1);
        again.envelope.as_mut().unwrap().replay_of = "0/1".into();
        assert_eq!(all.choose(&again), Choice::Replay);
        assert_eq!(Selection { replays: true, ..all }.choose(&again), Choice::Selected);
    }

    #[test]
    fn a_whole_record_is_repeated_with_its_own_identity_and_names_its_letter() {
        assert_eq!(raw_needed(&letter(-1)), None);
        let repeat = Repeat::of(letter(-1), AT, None).unwrap();
        let batch = repeat.batch;
        assert_eq!(
            (batch.request_id.as_str(), batch.idempotency_key.as_str(), batch.received_at),
            ("r", "i", 5)
        );
        assert_eq!((batch.first_record, batch.record_count, batch.piece, batch.pieces), (40, 4, 2, 3));
        assert_eq!((batch.rejected, batch.content_encoding.as_str()), (vec![1], "gzip"));
        assert_eq!((batch.replay_of.as_str(), batch.payload.0.as_slice()), ("1/7", b"bytes".as_slice()));
    }

    #[test]
    fn a_letter_that_does_not_say_that_it_came_of_a_replay_is_known_by_its_raw_record() {
        let all = Selection { failed: i64::MIN..i64::MAX, ..Selection::default() };
        let refused = DeadLetter { stage: "aggregator".into(), envelope: None, ..letter(42) };
        let raw = |project: &str, replay_of: &str| RawBatch {
            project_id: project.into(),
            received_at: 5,
            replay_of: replay_of.into(),
            ..original()
        };
        let choose = |selection: &Selection, raw: Option<RawBatch>| {
            selection.choose_knowing(selection.choose(&refused), &refused, raw.as_ref())
        };
        assert_eq!(choose(&all, Some(raw("p", "0/1"))), Choice::Replay);
        assert_eq!(choose(&all, Some(raw("p", ""))), Choice::Selected);
        assert_eq!(choose(&all, Some(raw("another", "0/1"))), Choice::Selected);
        assert_eq!(choose(&all, None), Choice::Selected);
        assert_eq!(choose(&Selection { replays: true, ..all }, Some(raw("p", "0/1"))), Choice::Selected);
    }

    #[test]
    fn a_letter_that_was_too_large_for_its_bytes_needs_its_raw_record() {
        for index in [-1, 42] {
            let bare = DeadLetter { payload: Blob::default(), ..letter(index) };
            assert_eq!(raw_needed(&bare), Some(Position { partition: 2, offset: 9 }), "{index}");
            assert_eq!(Repeat::of(bare.clone(), AT, None), Err(Refusal::RawGone), "{index}");
            let repeat = Repeat::of(bare, AT, Some(original())).unwrap();
            assert_eq!((repeat.raw, repeat.batch.record_count), (Position { partition: 2, offset: 9 }, 4));
        }
    }

    #[test]
    fn a_letter_without_an_envelope_needs_its_raw_record_or_gets_a_name_of_its_own() {
        let old = DeadLetter { envelope: None, ..letter(-1) };
        assert_eq!(raw_needed(&old), Some(Position { partition: 2, offset: 9 }));
        let batch = Repeat::of(old.clone(), AT, Some(original())).unwrap().batch;
        assert_eq!((batch.first_record, batch.idempotency_key.as_str()), (40, ""));
        let batch = Repeat::of(old, AT, None).unwrap().batch;
        assert_eq!((batch.record_count, batch.idempotency_key.as_str()), (3, "replay-dead-1-7"));
    }

    #[test]
    fn a_single_record_keeps_its_index_in_its_raw_record() {
        assert!(raw_needed(&letter(42)).is_some());
        let mut repeat = Repeat::of(letter(42), AT, Some(original())).unwrap();
        assert_eq!(repeat.batch.rejected, [0, 1, 3]);
        // Further letters of the same record join it, those of others do not.
        assert_eq!(repeat.join(Repeat::of(letter(43), AT, Some(original())).unwrap()), None);
        assert_eq!((repeat.batch.rejected.as_slice(), repeat.letters), ([0, 1].as_slice(), 2));
        let other = Repeat::of(DeadLetter { raw_offset: 8, ..letter(43) }, AT, Some(original())).unwrap();
        assert_eq!(repeat.join(other.clone()), Some(other));
        assert_eq!(Repeat::of(letter(39), AT, Some(original())), Err(Refusal::OtherRaw));
        assert_eq!(Repeat::of(letter(44), AT, Some(original())), Err(Refusal::OtherRaw));
        let someone_elses = RawBatch { request_id: "other".into(), ..original() };
        assert_eq!(Repeat::of(letter(42), AT, Some(someone_elses)), Err(Refusal::OtherRaw));
    }

    #[test]
    fn without_its_raw_record_only_a_universal_event_is_replayed_alone() {
        let batch = Repeat::of(letter(42), AT, None).unwrap().batch;
        assert_eq!((batch.first_record, batch.record_count, batch.rejected.len()), (42, 1, 0));
        assert_eq!(batch.content_type, "application/json");
        // Two equal records of one request are two.
        let mut repeat = Repeat::of(letter(42), AT, None).unwrap();
        let equal = Repeat::of(letter(43), AT, None).unwrap();
        assert_eq!(repeat.join(equal.clone()), Some(equal));
        let span = DeadLetter { route: Route::OtlpTraces, ..letter(42) };
        assert_eq!(Repeat::of(span, AT, None), Err(Refusal::RawGone));
        let made = DeadLetter { reason: DeadReason::EventTooLarge, ..letter(42) };
        assert_eq!(Repeat::of(made, AT, None), Err(Refusal::RawGone));
    }

    #[test]
    fn a_stored_events_letter_is_replayed_from_its_raw_record() {
        let refused = DeadLetter {
            stage: "aggregator".into(),
            reason: DeadReason::Poison,
            request_id: String::new(),
            envelope: None,
            ..letter(42)
        };
        assert!(raw_needed(&refused).is_some());
        let its_own = RawBatch { project_id: "p".into(), received_at: 5, ..original() };
        assert_eq!(Repeat::of(refused.clone(), AT, Some(its_own)).unwrap().batch.rejected, [0, 1, 3]);
        let of_another_log = RawBatch { project_id: "p".into(), received_at: 6, ..original() };
        assert_eq!(Repeat::of(refused, AT, Some(of_another_log)), Err(Refusal::OtherRaw));
    }

    #[test]
    fn what_is_of_no_raw_record_is_refused() {
        let undecodable = DeadLetter {
            stage: "aggregator".into(),
            reason: DeadReason::Undecodable,
            raw_partition: -1,
            raw_offset: -1,
            envelope: None,
            ..letter(-1)
        };
        assert_eq!(raw_needed(&undecodable), None);
        assert_eq!(Repeat::of(undecodable, AT, None), Err(Refusal::Unreadable));
    }

    #[test]
    fn what_has_no_readable_envelope_is_refused() {
        let unreadable = DeadLetter { reason: DeadReason::BadEnvelope, ..letter(-1) };
        assert_eq!(raw_needed(&unreadable), None);
        assert_eq!(Repeat::of(unreadable, AT, None), Err(Refusal::Unreadable));
    }
}
