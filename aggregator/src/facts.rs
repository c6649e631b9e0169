//! What a range of a topic holds, and how it is stored.

use std::collections::HashSet;
use std::future::Future;

use fleetlog_schemas::avro::{DecodeError, from_single_object};
use fleetlog_schemas::id::Position;
use fleetlog_schemas::{AgentEvent, DeadLetter, EventBatch, Settlement, topic};
use fleetlog_store::derived::{GroupHour, GroupKey, hour_of, loose_id_of};
use fleetlog_store::{
    Attempt, FactRange, FactTable, GroupKind, Located, PieceRow, Positions, Store, StoreError,
};

use crate::dedup::{Dedup, duplicates};
use crate::metrics;

const DAY_SECONDS: i64 = 24 * 3600;

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

    /// Sends the rows of a table: all of them, or only those of some places.
    fn send(
        &self,
        table: FactTable,
        store: &Store,
        range: &FactRange,
        attempt: &Attempt,
        only: Option<&Positions>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The groups that are to be recomputed once it is stored.
    fn touched(&self) -> Vec<GroupHour>;
}

/// A range of the events topic.
#[derive(Default)]
pub(crate) struct EventFacts {
    events: Vec<(Located, AgentEvent)>,
    settlements: Vec<(Located, Settlement)>,
    pieces: Vec<(Located, PieceRow)>,
}

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
            (!dedup.recent.take(event, now)).then_some(place)
        };
        let doubtful: Vec<usize> = self.events.iter().enumerate().filter_map(in_doubt).collect();
        metrics::LOOKUPS.add(doubtful.len() as u64);
        let asked: Vec<&AgentEvent> =
            doubtful.iter().filter_map(|place| self.events.get(*place)).map(|(_, event)| event).collect();
        let known = store.known_events(&asked).await?;
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

    async fn send(
        &self,
        table: FactTable,
        store: &Store,
        range: &FactRange,
        attempt: &Attempt,
        only: Option<&Positions>,
    ) -> Result<(), StoreError> {
        match table {
            FactTable::Events => store.insert_events(range, attempt, chosen(&self.events, only)).await,
            FactTable::Pieces => store.insert_pieces(range, attempt, chosen(&self.pieces, only)).await,
            FactTable::Settlements => {
                store.insert_settlements(range, attempt, chosen(&self.settlements, only)).await
            }
            FactTable::DeadLetters => Ok(()),
        }
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
pub(crate) struct DeadFacts(Vec<(Located, DeadLetter)>);

impl Facts for DeadFacts {
    const TOPIC: &'static str = topic::DEAD;

    fn add(&mut self, at: Position, payload: &[u8]) -> Result<usize, DecodeError> {
        self.0.extend(located(at, vec![from_single_object(payload)?]));
        Ok(1)
    }

    async fn judge(&mut self, _: &Store, _: &mut Dedup, _: i64) -> Result<usize, StoreError> {
        // What the processor's transactions brought is in its topic once.
        Ok(0)
    }

    const TABLES: &'static [FactTable] = &[FactTable::DeadLetters];

    fn positions(&self, table: FactTable) -> Positions {
        if table == FactTable::DeadLetters { places(&self.0) } else { Positions::new() }
    }

    async fn send(
        &self,
        _table: FactTable,
        store: &Store,
        range: &FactRange,
        attempt: &Attempt,
        only: Option<&Positions>,
    ) -> Result<(), StoreError> {
        store.insert_dead_letters(range, attempt, chosen(&self.0, only)).await
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

/// All facts, or those of some places.
fn chosen<'a, T: Sync>(
    facts: &'a [(Located, T)],
    only: Option<&'a Positions>,
) -> impl Iterator<Item = (Located, &'a T)> + Send {
    let wanted = move |at: &Located| only.is_none_or(|only| only.contains(&(at.offset, at.index)));
    facts.iter().filter(move |(at, _)| wanted(at)).map(|(at, fact)| (*at, fact))
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
