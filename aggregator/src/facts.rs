//! What a range of a topic holds, and how it is stored.

use std::collections::{HashMap, HashSet};
use std::future::Future;

use fleetlog_schemas::api::ApiEvent;
use fleetlog_schemas::avro::{Blob, DecodeError, from_single_object};
use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::DeadReason;
use fleetlog_schemas::{AgentEvent, DeadLetter, EventBatch, EventType, Settlement, topic};
use fleetlog_store::derived::{GroupHour, GroupKey, hour_of, loose_id_of};
use fleetlog_store::{
    Attempt, Fact, FactRange, FactTable, GroupKind, Located, PieceRow, Positions, Store, StoreError, Stored,
};

use crate::dedup::{Dedup, duplicates};
use crate::metrics;

const DAY_SECONDS: i64 = 24 * 3600;

/// Where rows are sent.
#[derive(Clone, Copy)]
pub(crate) enum To<'a> {
    /// Into the table, as an attempt of a range.
    Table(&'a FactRange, &'a Attempt),
    /// To the table's probe, which says whether it would take them.
    Probe,
}

/// How much is left of a row that ClickHouse refuses ([`crate::settle`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// All of it, as text.
    Whole,
    /// What makes it the row of its position, and nothing else.
    Bare,
}

/// The facts of one range of one topic.
pub(crate) trait Facts: Default + Send + Sync {
    /// The topic.
    const TOPIC: &'static str;

    /// Takes a record's facts and returns how many rows they are; on an error nothing of the record is taken.
    fn add(&mut self, at: Position, payload: &[u8]) -> Result<usize, DecodeError>;

    /// Takes out what is stored already (INV-5), and returns how much that was. To be repeated after an error.
    fn judge(
        &mut self,
        store: &Store,
        dedup: &mut Dedup,
        now: i64,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// The tables that its facts go to, in the order in which they are stored.
    const TABLES: &'static [FactTable];

    /// The places of the facts that go to a table.
    fn positions(&self, table: FactTable) -> Positions;

    /// The places of the facts that go to a table and are not stored. A row of another fact at the same place proves nothing:
    /// the log was another one then.
    fn missing(&self, table: FactTable, stored: &Stored) -> Positions;

    /// Sends the rows of a table: all of them, or only those of some places; stand-ins where there are any.
    fn send(
        &self,
        table: FactTable,
        store: &Store,
        to: To<'_>,
        only: Option<&Positions>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Has a row of this form sent in place of one; false where a table has none.
    fn stand_in(&mut self, table: FactTable, place: (i64, u32), form: Form) -> bool;

    /// Has these rows sent as they came again.
    fn restore(&mut self, table: FactTable, places: &Positions);

    /// The dead letter that keeps what the barest form of a row cannot; `None` where its topic keeps it.
    fn letter(&self, place: (i64, u32), now: i64) -> Option<DeadLetter>;

    /// The groups that are to be recomputed once it is stored.
    fn touched(&self) -> Vec<GroupHour>;
}

/// A range of the events topic.
#[derive(Default)]
pub(crate) struct EventFacts {
    events: Vec<(Located, AgentEvent)>,
    settlements: Vec<(Located, Settlement)>,
    pieces: Vec<(Located, PieceRow)>,
    event_stand_ins: StandIns<AgentEvent>,
    settlement_stand_ins: StandIns<Settlement>,
}

/// Rows that are sent in place of those of the same places.
type StandIns<T> = HashMap<(i64, u32), T>;

impl Facts for EventFacts {
    const TOPIC: &'static str = topic::EVENTS;

    fn add(&mut self, at: Position, payload: &[u8]) -> Result<usize, DecodeError> {
        let EventBatch { events, settlements } = from_single_object(payload)?;
        let rows = events.len() + settlements.len();
        self.events.extend(located(at, events));
        self.settlements.extend(located(at, settlements));
        Ok(rows)
    }

    async fn judge(&mut self, store: &Store, dedup: &mut Dedup, now: i64) -> Result<usize, StoreError> {
        let in_doubt = |(place, (_, event)): (usize, &(Located, AgentEvent))| {
            (!dedup.recent.take(event, now, dedup.window_ns)).then_some(place)
        };
        let doubtful: Vec<usize> = self.events.iter().enumerate().filter_map(in_doubt).collect();
        metrics::LOOKUPS.add(doubtful.len() as u64);
        let asked: Vec<&AgentEvent> =
            doubtful.iter().filter_map(|place| self.events.get(*place)).map(|(_, event)| event).collect();
        let known = store.known_events(&asked, dedup.window_ns).await?;
        let duplicates = duplicates(&self.events, &doubtful, &known, dedup.window_ns);
        self.pieces = pieces(&self.events, &duplicates);
        let mut place = 0..;
        self.events.retain(|_| place.next().is_none_or(|place| !duplicates.contains(&place)));
        Ok(duplicates.len())
    }

    /// Events first; what says that they are stored comes after they are (INV-6).
    const TABLES: &'static [FactTable] = &[FactTable::Events, FactTable::Pieces, FactTable::Settlements];

    fn positions(&self, table: FactTable) -> Positions {
        match table {
            FactTable::Events => places(&self.events),
            FactTable::Pieces => places(&self.pieces),
            FactTable::Settlements => places(&self.settlements),
            FactTable::DeadLetters => Positions::new(),
        }
    }

    fn missing(&self, table: FactTable, stored: &Stored) -> Positions {
        match table {
            FactTable::Events => missing(&self.events, stored),
            FactTable::Pieces => missing(&self.pieces, stored),
            FactTable::Settlements => missing(&self.settlements, stored),
            FactTable::DeadLetters => Positions::new(),
        }
    }

    async fn send(
        &self,
        table: FactTable,
        store: &Store,
        to: To<'_>,
        only: Option<&Positions>,
    ) -> Result<(), StoreError> {
        let events = chosen(&self.events, &self.event_stand_ins, only);
        let settlements = chosen(&self.settlements, &self.settlement_stand_ins, only);
        let none = StandIns::new();
        let pieces = chosen(&self.pieces, &none, only);
        match (table, to) {
            (FactTable::Events, To::Table(range, attempt)) => {
                store.insert_events(range, attempt, events).await
            }
            (FactTable::Events, To::Probe) => store.probe_events(events).await,
            (FactTable::Pieces, To::Table(range, attempt)) => {
                store.insert_pieces(range, attempt, pieces).await
            }
            (FactTable::Pieces, To::Probe) => store.probe_pieces(pieces).await,
            (FactTable::Settlements, To::Table(range, attempt)) => {
                store.insert_settlements(range, attempt, settlements).await
            }
            (FactTable::Settlements, To::Probe) => store.probe_settlements(settlements).await,
            (FactTable::DeadLetters, _) => Ok(()),
        }
    }

    fn stand_in(&mut self, table: FactTable, place: (i64, u32), form: Form) -> bool {
        match table {
            FactTable::Events => {
                stand_in(&self.events, &mut self.event_stand_ins, place, |event| refused_event(event, form))
            }
            FactTable::Settlements => {
                stand_in(&self.settlements, &mut self.settlement_stand_ins, place, |settlement| Settlement {
                    request_id: String::new(),
                    ..settlement.clone()
                })
            }
            FactTable::Pieces | FactTable::DeadLetters => false,
        }
    }

    fn restore(&mut self, table: FactTable, places: &Positions) {
        match table {
            FactTable::Events => self.event_stand_ins.retain(|place, _| !places.contains(place)),
            FactTable::Settlements => self.settlement_stand_ins.retain(|place, _| !places.contains(place)),
            FactTable::Pieces | FactTable::DeadLetters => {}
        }
    }

    fn letter(&self, place: (i64, u32), now: i64) -> Option<DeadLetter> {
        let (at, event) = at_place(&self.events, place)?;
        Some(DeadLetter {
            project_id: event.project_id.clone(),
            reason: DeadReason::Poison,
            message: format!(
                "refused by the store; stored without its contents at {}:{}:{}",
                at.partition, at.offset, at.index
            ),
            stage: "aggregator".to_owned(),
            raw_partition: event.raw_partition,
            raw_offset: event.raw_offset,
            raw_index: i32::try_from(event.raw_index).unwrap_or(-1),
            // Its record counts as stored, not as lost.
            records: 0,
            received_at: event.received_at,
            failed_at: now,
            content_type: "application/json".to_owned(),
            payload: Blob(json(event)),
            ..DeadLetter::default()
        })
    }

    fn touched(&self) -> Vec<GroupHour> {
        let mut seen: HashSet<Named<'_>> = HashSet::new();
        self.events.iter().filter_map(|(_, event)| named(event)).for_each(|group| {
            seen.insert(group);
        });
        seen.into_iter().map(Named::owned).collect()
    }
}

/// A range of the dead-letter topic.
#[derive(Default)]
pub(crate) struct DeadFacts {
    letters: Vec<(Located, DeadLetter)>,
    stand_ins: StandIns<DeadLetter>,
}

impl Facts for DeadFacts {
    const TOPIC: &'static str = topic::DEAD;

    fn add(&mut self, at: Position, payload: &[u8]) -> Result<usize, DecodeError> {
        self.letters.extend(located(at, vec![from_single_object(payload)?]));
        Ok(1)
    }

    async fn judge(&mut self, _: &Store, _: &mut Dedup, _: i64) -> Result<usize, StoreError> {
        // What the processor's transactions brought is in its topic once.
        Ok(0)
    }

    const TABLES: &'static [FactTable] = &[FactTable::DeadLetters];

    fn positions(&self, table: FactTable) -> Positions {
        if table == FactTable::DeadLetters { places(&self.letters) } else { Positions::new() }
    }

    fn missing(&self, table: FactTable, stored: &Stored) -> Positions {
        if table == FactTable::DeadLetters { missing(&self.letters, stored) } else { Positions::new() }
    }

    async fn send(
        &self,
        _table: FactTable,
        store: &Store,
        to: To<'_>,
        only: Option<&Positions>,
    ) -> Result<(), StoreError> {
        let letters = chosen(&self.letters, &self.stand_ins, only);
        match to {
            To::Table(range, attempt) => store.insert_dead_letters(range, attempt, letters).await,
            To::Probe => store.probe_dead_letters(letters).await,
        }
    }

    fn stand_in(&mut self, _table: FactTable, place: (i64, u32), form: Form) -> bool {
        stand_in(&self.letters, &mut self.stand_ins, place, |letter| refused_letter(letter, form))
    }

    fn restore(&mut self, _table: FactTable, places: &Positions) {
        self.stand_ins.retain(|place, _| !places.contains(place));
    }

    fn letter(&self, _: (i64, u32), _: i64) -> Option<DeadLetter> {
        None
    }

    fn touched(&self) -> Vec<GroupHour> {
        Vec::new()
    }
}

fn located<T>(at: Position, facts: Vec<T>) -> impl Iterator<Item = (Located, T)> {
    (0..)
        .zip(facts)
        .map(move |(index, fact)| (Located { partition: at.partition, offset: at.offset, index }, fact))
}

fn places<T>(facts: &[(Located, T)]) -> Positions {
    facts.iter().map(|(at, _)| (at.offset, at.index)).collect()
}

fn missing<T: Fact>(facts: &[(Located, T)], stored: &Stored) -> Positions {
    facts.iter().filter(|(at, fact)| !stored.has(at, fact)).map(|(at, _)| (at.offset, at.index)).collect()
}

/// All facts, or those of some places; what stands in for a fact goes in its place.
fn chosen<'a, T: Sync>(
    facts: &'a [(Located, T)],
    stand_ins: &'a StandIns<T>,
    only: Option<&'a Positions>,
) -> impl Iterator<Item = (Located, &'a T)> + Send {
    let wanted = move |at: &Located| only.is_none_or(|only| only.contains(&(at.offset, at.index)));
    let sent = move |(at, fact): &'a (Located, T)| {
        let stand_in = if stand_ins.is_empty() { None } else { stand_ins.get(&(at.offset, at.index)) };
        (*at, stand_in.unwrap_or(fact))
    };
    facts.iter().filter(move |(at, _)| wanted(at)).map(sent)
}

/// Makes what stands in for the fact of a place.
fn stand_in<T>(
    facts: &[(Located, T)],
    stand_ins: &mut StandIns<T>,
    place: (i64, u32),
    make: impl FnOnce(&T) -> T,
) -> bool {
    let Some((_, fact)) = at_place(facts, place) else { return false };
    stand_ins.insert(place, make(fact));
    true
}

/// The fact of a place; they are in the order of their places.
fn at_place<T>(facts: &[(Located, T)], place: (i64, u32)) -> Option<&(Located, T)> {
    let found = facts.binary_search_by_key(&place, |(at, _)| (at.offset, at.index)).ok()?;
    facts.get(found)
}

/// Why a refused event is a `raw.unknown`.
const REFUSED_BY_STORE: &str = "refused_by_store";

/// What is stored of an event that ClickHouse refuses. Its identity and times stay, so that a sender's retry is
/// recognised and its record counts as stored.
fn refused_event(event: &AgentEvent, form: Form) -> AgentEvent {
    let kept = AgentEvent {
        event_type: EventType::RawUnknown,
        unknown_reason: REFUSED_BY_STORE.to_owned(),
        event_id: event.dedup_key.to_string(),
        dedup_key: event.dedup_key,
        project_id: event.project_id.clone(),
        timestamp: event.timestamp,
        timestamp_source: event.timestamp_source,
        received_at: event.received_at,
        channel: event.channel,
        raw_partition: event.raw_partition,
        raw_offset: event.raw_offset,
        raw_index: event.raw_index,
        context: "{}".to_owned(),
        data: "{}".to_owned(),
        ..AgentEvent::default()
    };
    match form {
        Form::Bare => kept,
        Form::Whole => AgentEvent {
            event_id: event.event_id.clone(),
            source: event.source.clone(),
            source_format: event.source_format.clone(),
            session_id: event.session_id.clone(),
            trace_id: event.trace_id.clone(),
            // As text within text: whatever is wrong with its structure is no structure of this row.
            data: serde_json::json!({ "event": String::from_utf8_lossy(&json(event)) }).to_string(),
            ..kept
        },
    }
}

/// The event as people and tools see it.
fn json(event: &AgentEvent) -> Vec<u8> {
    // INVARIANT: its fields are text, numbers and JSON kept as text; there is nothing that has no JSON form.
    serde_json::to_vec(&ApiEvent(event.clone())).unwrap_or_default()
}

/// What is stored of a dead letter that ClickHouse refuses; the topic keeps the rest.
fn refused_letter(letter: &DeadLetter, form: Form) -> DeadLetter {
    let project_id = if form == Form::Whole { letter.project_id.clone() } else { String::new() };
    DeadLetter {
        project_id,
        message: REFUSED_BY_STORE.to_owned(),
        request_id: String::new(),
        key_id: String::new(),
        format_hint: String::new(),
        content_type: String::new(),
        content_encoding: String::new(),
        ..letter.clone()
    }
}

/// What became of each raw record's events in one record of the events topic, given the places of those that are
/// duplicates.
fn pieces(events: &[(Located, AgentEvent)], duplicates: &HashSet<usize>) -> Vec<(Located, PieceRow)> {
    let judged: Vec<(usize, &Located, &AgentEvent)> =
        events.iter().enumerate().map(|(place, (at, event))| (place, at, event)).collect();
    let mut pieces: Vec<(Located, PieceRow)> = Vec::new();
    // Events come in raw order, so those of one raw record are neighbours, and so are those of one index.
    for piece in judged.chunk_by(|(_, at, a), (_, other, b)| {
        (at.offset, a.raw_partition, a.raw_offset) == (other.offset, b.raw_partition, b.raw_offset)
    }) {
        let (Some((_, at, first)), Some((_, _, last))) = (piece.first(), piece.last()) else { continue };
        let is_new = |(place, _, _): &&(usize, &Located, &AgentEvent)| !duplicates.contains(place);
        let records = piece.chunk_by(|(_, _, a), (_, _, b)| a.raw_index == b.raw_index);
        let (stored, duplicate): (Vec<_>, Vec<_>) =
            records.partition(|record| record.iter().any(|one| is_new(&one)));
        let index = match pieces.last() {
            Some((before, _)) if before.offset == at.offset => before.index + 1,
            _ => 0,
        };
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        pieces.push((
            Located { index, ..**at },
            PieceRow {
                project_id: first.project_id.clone(),
                raw_partition: first.raw_partition,
                raw_offset: first.raw_offset,
                received_at: first.received_at,
                first_index: first.raw_index,
                last_index: last.raw_index,
                stored: count(stored.len()),
                duplicate: count(duplicate.len()),
                events: count(piece.iter().filter(is_new).count()),
            },
        ));
    }
    pieces
}

/// A group and hour that an event touches, borrowed: most events of a range touch the same few.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Named<'a> {
    project_id: &'a str,
    kind: GroupKind,
    id: &'a str,
    /// Names a loose group.
    minute: i64,
    hour: i32,
    received_day: u32,
}

/// The group that an event belongs to: its session, else its trace, else its minute.
///
/// Whom it concerns through its trace beside that is found when the group is recomputed ([`crate::ownership`]).
fn named(event: &AgentEvent) -> Option<Named<'_>> {
    let received = event.received_at.div_euclid(1_000_000_000);
    let mut group = Named {
        project_id: &event.project_id,
        kind: GroupKind::Session,
        id: &event.session_id,
        minute: 0,
        hour: hour_of(event.timestamp),
        received_day: u32::try_from(received - received.rem_euclid(DAY_SECONDS)).unwrap_or(0),
    };
    if !event.session_id.is_empty() {
        return Some(group);
    }
    if !event.trace_id.is_empty() {
        group.kind = GroupKind::Trace;
        group.id = &event.trace_id;
        return Some(group);
    }
    // Of events that belong to nothing, only those that report a call say anything about their minute.
    (event.event_type.is_llm() || event.event_type.is_tool()).then(|| {
        group.kind = GroupKind::Loose;
        group.minute = loose_id_of(event.timestamp);
        group
    })
}

impl Named<'_> {
    fn owned(self) -> GroupHour {
        let id = match self.kind {
            GroupKind::Session | GroupKind::Trace => self.id.to_owned(),
            GroupKind::Loose => self.minute.to_string(),
        };
        let key = GroupKey { project_id: self.project_id.to_owned(), kind: self.kind, id };
        GroupHour { key, hour: self.hour, received_day: self.received_day }
    }
}

#[cfg(test)]
mod tests {
    use fleetlog_schemas::EventType;
    use fleetlog_schemas::avro::to_single_object;

    use super::*;

    const HOUR: i64 = 3600 * 1_000_000_000;

    fn event(raw_offset: i64, raw_index: u32, session_id: &str) -> AgentEvent {
        AgentEvent {
            project_id: "p".to_owned(),
            session_id: session_id.to_owned(),
            timestamp: 5 * HOUR,
            raw_offset,
            raw_index,
            ..AgentEvent::default()
        }
    }

    #[test]
    fn a_piece_counts_records_and_not_their_events() {
        let events = [event(1, 4, "s"), event(1, 4, "s"), event(1, 6, "s"), event(2, 4, "s")];
        let at = Position { partition: 0, offset: 7 };
        let events: Vec<_> = located(at, events.to_vec()).collect();
        let counted = |duplicates: &[usize]| -> Vec<_> {
            let pieces = pieces(&events, &duplicates.iter().copied().collect());
            pieces.iter().map(|(at, p)| (at.index, p.raw_offset, p.stored, p.duplicate, p.events)).collect()
        };
        assert_eq!(counted(&[]), [(0, 1, 2, 0, 3), (1, 2, 1, 0, 1)]);
        // A record is a duplicate when all of its events are.
        assert_eq!(counted(&[0, 2, 3]), [(0, 1, 1, 1, 1), (1, 2, 0, 1, 0)]);
    }

    #[test]
    fn a_range_touches_each_group_and_hour_once() {
        let mut later = event(0, 2, "s");
        later.timestamp += HOUR;
        let mut trace = event(0, 3, "");
        trace.trace_id = "t".to_owned();
        let mut loose = event(0, 4, "");
        loose.event_type = EventType::LlmRequest;
        loose.timestamp += 90 * 1_000_000_000;
        let events = vec![event(0, 0, "s"), event(0, 1, "s"), later, trace, loose, event(0, 5, "")];
        let mut facts = EventFacts::default();
        let payload = to_single_object(&EventBatch { events, settlements: Vec::new() }).unwrap();
        assert_eq!(facts.add(Position { partition: 0, offset: 0 }, &payload).unwrap(), 6);
        let mut touched = facts.touched();
        touched.sort();
        let short: Vec<_> = touched.iter().map(|t| (t.key.kind, t.key.id.as_str(), t.hour)).collect();
        assert_eq!(
            short,
            [
                (GroupKind::Session, "s", 5),
                (GroupKind::Session, "s", 6),
                (GroupKind::Trace, "t", 5),
                (GroupKind::Loose, "18060", 5),
            ]
        );
    }

    #[test]
    fn a_record_that_does_not_decode_leaves_nothing_behind() {
        let mut facts = EventFacts::default();
        assert!(facts.add(Position { partition: 0, offset: 0 }, b"\xC3\x01nonsense").is_err());
        assert!(facts.events.is_empty() && facts.touched().is_empty());
    }
}
