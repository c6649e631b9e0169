//! A simulation of everything that decides what is stored: the offset up to which a partition is settled, the range that
//! is noted and replayed, the insert's proof, and the recognition of repeats. Owners crash at every point, the engine is
//! slow, forgets and crashes, and the network delivers late; offsets are lost and set back, and the log is cut off or made
//! anew. Whatever happens, each event is stored exactly once, and no row twice; and every shortcut that an owner could take
//! is shown to break that, so the simulation is known to look.
//!
//! `FLEETLOG_SIM_RUNS` and `FLEETLOG_SIM_SEED` make it longer and repeat it; both are printed, and the seed of a run that
//! fails is part of the failure.

use std::collections::{BTreeMap, BTreeSet};

use fleetlog_chance::{Chance, seeds};
use fleetlog_schemas::AgentEvent;
use fleetlog_schemas::id::Key128;
use fleetlog_store::{KnownRow, Located};

use super::*;
use crate::dedup::{Recent, duplicates};

/// Events of the partition, one a record.
const LOG: usize = 10;
/// Most records of a range.
const RANGE: u64 = 4;
const MS: i64 = 1_000_000;
const WINDOW_NS: i64 = 24 * 3_600_000 * MS;
/// Runs of the tests, of about 50 steps each; 200,000 and more are for a release build.
const RUNS: u64 = 30_000;
/// Runs in which a shortcut must be caught.
const CATCH_WITHIN: u64 = 20_000;

/// What the engine remembers an insert by: first and last record of its range, the attempt, and its time.
type Token = (i64, i64, u32, i64);

/// An insert that ClickHouse may still carry out.
struct Insert {
    token: Token,
    rows: Vec<usize>,
    insert_before_ms: i64,
    started: bool,
}

/// What is outside of any owner: the log, Kafka's offset and note, the engine, the network.
struct World {
    chance: Chance,
    shortcut: Shortcut,
    steps: u64,
    now_ms: i64,
    /// Every event that was ever in the log, with its offset; some are a sender's retry of an earlier one.
    events: Vec<(usize, AgentEvent)>,
    /// The log: the number of the event at each offset.
    log: Vec<usize>,
    /// `None`: never, or lost.
    committed: Option<usize>,
    note: Option<Note>,
    /// The committed offset is beyond the log's end, and the present owner has seen that.
    beyond: bool,
    /// Events that were stored when the present owner came.
    stored_before: Vec<usize>,
    /// How often each event's row is stored.
    stored: Vec<u32>,
    /// Tokens that the engine has recorded.
    tokens: BTreeSet<Token>,
    on_its_way: Vec<Insert>,
    /// Keys that were marked as stored, where the shortcut is to trust such marks.
    marks: BTreeSet<u128>,
}

impl World {
    fn new(seed: u64, shortcut: Shortcut) -> Self {
        let mut world = Self {
            chance: Chance::new(seed),
            shortcut,
            steps: 0,
            now_ms: 1_000_000_000,
            events: Vec::new(),
            log: Vec::new(),
            committed: None,
            note: None,
            beyond: false,
            stored_before: Vec::new(),
            stored: Vec::new(),
            tokens: BTreeSet::new(),
            on_its_way: Vec::new(),
            marks: BTreeSet::new(),
        };
        for n in 0..LOG as i64 {
            let identity = world.chance.below(LOG as u64 * 3 / 4);
            let event = world.event(identity);
            world.append(AgentEvent { received_at: (world.now_ms + n) * MS, ..event });
        }
        world
    }

    /// An event of now, of a time before or after the one from which an owner remembers what is stored.
    fn event(&self, identity: u64) -> AgentEvent {
        AgentEvent {
            dedup_key: Key128::of([&identity.to_le_bytes()[..]]),
            timestamp: (self.now_ms + (identity as i64 % 8 - 3) * 20_000) * MS,
            received_at: self.now_ms * MS,
            ..AgentEvent::default()
        }
    }

    fn append(&mut self, event: AgentEvent) {
        self.events.push((self.log.len(), event));
        self.stored.push(0);
        self.log.push(self.events.len() - 1);
    }

    /// The log grows by a new event, by a retry of a stored one, or by a stored one that was cut off before.
    fn grow(&mut self) {
        let event = match self.chance.below(4) {
            kind @ 0..=1 if !self.stored_before.is_empty() => {
                let chosen = self.chance.place(self.stored_before.len());
                let (_, event) = &self.events[self.stored_before[chosen]];
                let received_at = if kind == 0 { event.received_at } else { self.now_ms * MS };
                AgentEvent { received_at, ..event.clone() }
            }
            _ => self.event(1_000 + self.events.len() as u64),
        };
        self.append(event);
    }

    /// Something befalls the log, or the offset, while nobody owns the partition.
    fn between_owners(&mut self) {
        // A log that has grown beyond the committed offset looks whole to the next owner: nobody could tell.
        let unseen = self.beyond && self.committed.is_some_and(|committed| committed <= self.log.len());
        // What may be on its way is told by the note, or else by that anything is stored at all.
        let told = self.on_its_way.is_empty() || self.stored_end(0) > 0;
        match self.chance.below(16) {
            _ if unseen => (self.committed, self.note) = (None, None),
            0 if told => (self.committed, self.note) = (None, None),
            // An offset beyond the log's end is of another log: whoever sets it back within this one skips what nobody read.
            1 if self.on_its_way.is_empty() && !self.beyond => {
                let back = |chance: &mut Chance, committed: usize| chance.place(committed + 1);
                self.committed = self.committed.map(|committed| back(&mut self.chance, committed));
                self.note = None;
            }
            2 => self.log.truncate(self.chance.place(LOG)),
            3 => {
                self.log.clear();
                (self.committed, self.note) = (None, None);
            }
            _ => {}
        }
        self.beyond = false;
    }

    /// Where reading starts, and why.
    fn start(&self) -> (usize, Start) {
        let end = self.log.len();
        match self.committed {
            None => (0, Start::Fresh),
            Some(offset) if offset > end => (0, Start::Ahead { committed: offset as i64, end: end as i64 }),
            Some(offset) => (offset, Start::Resumed),
        }
    }

    /// The offset behind all that is stored from this one on.
    fn stored_end(&self, from: usize) -> usize {
        self.rows(|_| true).map(|(offset, _)| offset + 1).fold(from, usize::max)
    }

    /// Something happens that no owner asked for; and this is where an owner may crash.
    fn turn(&mut self) -> Result<(), Crash> {
        self.happen();
        if self.chance.one_in(24) { Err(Crash) } else { Ok(()) }
    }

    fn happen(&mut self) {
        self.steps += 1;
        self.now_ms += self.chance.below(4_000) as i64;
        if self.log.len() < LOG && self.chance.one_in(3) {
            self.grow();
        }
        if self.on_its_way.is_empty() {
            return;
        }
        let chosen = self.chance.place(self.on_its_way.len());
        match self.chance.below(8) {
            // The engine crashes: what ran is gone, of some the token is already recorded, of some the first part stored.
            0 => {
                let (running, waiting): (Vec<_>, Vec<_>) =
                    self.on_its_way.drain(..).partition(|insert| insert.started);
                self.on_its_way = waiting;
                for insert in running {
                    if self.tokens.contains(&insert.token) {
                        continue;
                    }
                    match self.chance.below(3) {
                        0 => drop(self.tokens.insert(insert.token)),
                        1 => self.carry_out(insert.token, &insert.rows[..insert.rows.len() / 2]),
                        _ => {}
                    }
                }
            }
            // Lost on the way.
            1 if !self.on_its_way[chosen].started => drop(self.on_its_way.swap_remove(chosen)),
            2..=4 if !self.on_its_way[chosen].started => {
                if self.on_its_way[chosen].insert_before_ms > self.now_ms {
                    self.on_its_way[chosen].started = true;
                } else {
                    self.on_its_way.swap_remove(chosen);
                }
            }
            5 | 6 if self.on_its_way[chosen].started => {
                let insert = self.on_its_way.swap_remove(chosen);
                self.carry_out(insert.token, &insert.rows);
            }
            _ => {}
        }
    }

    fn carry_out(&mut self, token: Token, rows: &[usize]) {
        if self.tokens.insert(token) {
            rows.iter().for_each(|row| self.stored[*row] += 1);
        }
    }

    fn send(&mut self, token: Token, rows: &[usize], insert_before_ms: i64) -> Sent {
        match self.chance.below(3) {
            0 if insert_before_ms > self.now_ms => {
                self.carry_out(token, rows);
                Sent::Acknowledged
            }
            0 => Sent::Unknown,
            _ => {
                self.on_its_way.push(Insert { token, rows: rows.to_vec(), insert_before_ms, started: false });
                Sent::Unknown
            }
        }
    }

    /// The rows that are not stored: there may be other events at their places.
    fn missing(&self, rows: &[usize]) -> Vec<usize> {
        let id = |event: &AgentEvent| (event.dedup_key, event.received_at);
        let is_stored = |row: &usize| {
            let (place, wanted) = &self.events[*row];
            self.rows(|event| self.shortcut == Shortcut::PlacesAlone || id(event) == id(wanted))
                .any(|(offset, _)| offset == *place)
        };
        rows.iter().copied().filter(|row| !is_stored(row)).collect()
    }

    fn runs(&self) -> bool {
        self.on_its_way.iter().any(|insert| insert.started)
    }

    /// The stored rows that pass a filter of events, with their offsets.
    fn rows(&self, wanted: impl Fn(&AgentEvent) -> bool) -> impl Iterator<Item = (usize, &AgentEvent)> {
        let stored = self.events.iter().zip(&self.stored).filter(|(_, times)| **times > 0);
        stored.map(|((offset, event), _)| (*offset, event)).filter(move |(_, event)| wanted(event))
    }

    fn write_note(&mut self, range: &Range, attempt: u32, insert_before_ms: i64) {
        let note = Note { first: range.first, last: range.last, table: 0, attempt, insert_before_ms };
        // It travels as text.
        self.note = Note::parse(&note.text()).unwrap();
        self.committed = Some(range.first as usize);
        self.beyond = false;
    }
}

/// The owner is gone, and all that it knew.
struct Crash;

/// The records from `first` to `last`, and the events among them that are no repeats.
struct Range {
    first: i64,
    last: i64,
    rows: Vec<usize>,
}

/// What an owner could be tempted to leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shortcut {
    Nothing,
    /// Send before the attempt is noted.
    SendBeforeNote,
    /// Take an acknowledged repeat for proof: the token without the positions.
    TrustTheToken,
    /// Make the token of the attempt alone.
    TokenWithoutRange,
    /// Make the token without the attempt's time.
    TokenWithoutTime,
    /// Judge rows as missing while `insert_before` is still ahead.
    DoNotWaitForInsertBefore,
    /// Judge rows as missing without asking what still runs.
    DoNotAskWhatRuns,
    /// Send everything again under a fresh token instead of the missing rows.
    SendAllAgain,
    /// Commit the range before it is sent.
    CommitBeforeInsert,
    /// Commit the range before it is proved.
    CommitBeforeProof,
    /// Forget the noted range, and gather one of the owner's own choice.
    ForgetTheNote,
    /// Take the committed offset for the end of what is stored.
    TrustTheOffset,
    /// Take any row at a position for the fact that belongs there.
    PlacesAlone,
    /// Commit all of a noted range, though the log ends before it does.
    CommitBeyondTheLog,
    /// Ask what is stored at once where nothing is committed.
    DoNotWaitForStrangers,
    /// Mark keys as stored before their rows are written, and trust the marks.
    MarkBeforeWrite,
    /// Take the filter's word for a repeat, without looking up the stored rows.
    TrustTheFilter,
}

const SHORTCUTS: [Shortcut; 16] = [
    Shortcut::SendBeforeNote,
    Shortcut::TrustTheToken,
    Shortcut::TokenWithoutRange,
    Shortcut::TokenWithoutTime,
    Shortcut::DoNotWaitForInsertBefore,
    Shortcut::DoNotAskWhatRuns,
    Shortcut::SendAllAgain,
    Shortcut::CommitBeforeInsert,
    Shortcut::CommitBeforeProof,
    Shortcut::ForgetTheNote,
    Shortcut::TrustTheOffset,
    Shortcut::PlacesAlone,
    Shortcut::CommitBeyondTheLog,
    Shortcut::DoNotWaitForStrangers,
    Shortcut::MarkBeforeWrite,
    Shortcut::TrustTheFilter,
];

/// One owner, from its assignment until the whole log is settled, or a crash at any point.
fn own(world: &mut World) -> Result<(), Crash> {
    let (mut settled, start) = world.start();
    world.beyond = matches!(start, Start::Ahead { .. });
    let inherited = inherit(world, settled, start)?;
    let assigned_ns = world.now_ms * MS;
    world.stored_before = (0..world.events.len()).filter(|number| world.stored[*number] > 0).collect();
    let budget = 400 + world.chance.place(2_000);
    let mut recent = Recent::since(assigned_ns, budget);
    let later: Vec<(u128, i64)> = world
        .rows(|event| event.timestamp >= assigned_ns)
        .map(|(_, event)| (event.dedup_key.as_u128(), event.timestamp))
        .collect();
    recent.load(later, i64::MAX, assigned_ns);
    let mut noted = inherited.noted;
    while settled < LOG {
        world.turn()?;
        let end = world.log.len();
        let replayed = noted.take();
        if settled >= end {
            continue;
        }
        let first = settled as i64;
        let most = replayed.map_or(first + world.chance.below(RANGE) as i64, |note| note.last);
        let last = most.min(end as i64 - 1);
        let before = match replayed {
            Some(_) => inherited.before_noted(first, last),
            None => inherited.before(first),
        };
        let rows = judge(world, &mut recent, first, last)?;
        let range = Range { first, last, rows };
        let whole = world.shortcut == Shortcut::CommitBeyondTheLog;
        let next = replayed.filter(|_| whole).map_or(last, |note| note.last) as usize + 1;
        if world.shortcut == Shortcut::CommitBeforeInsert {
            commit(world, next)?;
        }
        if !range.rows.is_empty() {
            prove(world, &range, before)?;
        }
        world.turn()?;
        if world.shortcut != Shortcut::CommitBeforeInsert {
            commit(world, next)?;
        }
        settled = next;
    }
    Ok(())
}

/// What an owner takes over.
fn inherit(world: &mut World, settled: usize, start: Start) -> Result<Inherited, Crash> {
    let note = world.note.filter(|_| world.shortcut != Shortcut::ForgetTheNote);
    let until = world.now_ms + INSERT_WINDOW_MS;
    let strangers = start == Start::Fresh && world.shortcut != Shortcut::DoNotWaitForStrangers;
    while strangers && world.stored_end(0) > 0 && (world.now_ms <= until || world.runs()) {
        world.turn()?;
    }
    let stored_end = match world.shortcut {
        Shortcut::TrustTheOffset => settled,
        _ => world.stored_end(settled),
    };
    Ok(Inherited::new(settled as i64, start, note, stored_end as i64))
}

fn commit(world: &mut World, next: usize) -> Result<(), Crash> {
    (world.committed, world.note, world.beyond) = (Some(next), None, false);
    world.turn()
}

/// The events of a range that are no repeats.
fn judge(world: &mut World, recent: &mut Recent, first: i64, last: i64) -> Result<Vec<usize>, Crash> {
    let numbers: Vec<usize> = world.log[first as usize..=last as usize].to_vec();
    let located = |offset: usize| Located { partition: 0, offset: offset as i64, index: 0 };
    let events: Vec<(Located, AgentEvent)> = numbers
        .iter()
        .map(|number| {
            let (offset, event) = &world.events[*number];
            (located(*offset), event.clone())
        })
        .collect();
    let now_ns = world.now_ms * MS;
    let doubtful: Vec<usize> =
        (0..events.len()).filter(|place| !recent.take(&events[*place].1, now_ns, WINDOW_NS)).collect();
    world.turn()?;
    let asked: BTreeSet<Key128> = doubtful.iter().map(|place| events[*place].1.dedup_key).collect();
    let known: Vec<KnownRow> = world
        .rows(|event| asked.contains(&event.dedup_key))
        .map(|(offset, event)| KnownRow {
            dedup_key: event.dedup_key.as_u128(),
            received_at: event.received_at,
            log_partition: 0,
            log_offset: offset as i64,
            log_index: 0,
        })
        .collect();
    let repeats = match world.shortcut {
        Shortcut::TrustTheFilter => doubtful.iter().copied().collect(),
        Shortcut::MarkBeforeWrite => {
            let marked = |place: &usize| !world.marks.insert(events[*place].1.dedup_key.as_u128());
            (0..events.len()).filter(marked).collect()
        }
        _ => duplicates(&events, &doubtful, &known, WINDOW_NS),
    };
    world.turn()?;
    Ok((0..events.len()).filter(|place| !repeats.contains(place)).map(|place| numbers[place]).collect())
}

/// Stores a range's rows exactly once.
fn prove(world: &mut World, range: &Range, before: Before) -> Result<(), Crash> {
    let shortcut = world.shortcut;
    let mut only: Option<Vec<usize>> = None;
    let mut proof = match before {
        Before::Nothing => Proof::recorded(record(world, range, 1)?),
        Before::Noted(note) => Proof::inherited(note.attempt, note.insert_before_ms),
        Before::ReadAgain { insert_before_ms } => Proof::read_again(insert_before_ms),
    };
    loop {
        // The crash points: before and after each effect.
        world.turn()?;
        let step = match proof.next(world.now_ms) {
            Step::ReadBack if shortcut == Shortcut::DoNotWaitForInsertBefore => Step::Settle,
            step => step,
        };
        match step {
            Step::Done => return Ok(()),
            Step::Send => {
                let rows = only.as_ref().unwrap_or(&range.rows).clone();
                let time = proof.insert_before_ms();
                let token = match shortcut {
                    Shortcut::TokenWithoutRange => (0, 0, proof.attempt(), 0),
                    Shortcut::TokenWithoutTime => (range.first, range.last, proof.attempt(), 0),
                    _ => (range.first, range.last, proof.attempt(), time),
                };
                let sent = world.send(token, &rows, time);
                if shortcut == Shortcut::SendBeforeNote {
                    world.turn()?;
                    world.write_note(range, proof.attempt(), time);
                }
                proof.sent(sent);
                match (shortcut, sent) {
                    (Shortcut::TrustTheToken, Sent::Acknowledged) | (Shortcut::CommitBeforeProof, _) => {
                        return Ok(());
                    }
                    _ => {}
                }
            }
            Step::ReadBack => {
                let _not_yet = proof.read_back(world.missing(&range.rows).len(), false);
            }
            Step::Settle => {
                if world.runs() && shortcut != Shortcut::DoNotAskWhatRuns {
                    continue;
                }
                world.turn()?;
                let missing = world.missing(&range.rows);
                if let Some(attempt) = proof.read_back(missing.len(), true) {
                    let all = shortcut == Shortcut::SendAllAgain;
                    only = Some(if all { range.rows.clone() } else { missing });
                    proof.begun(attempt, record(world, range, attempt)?);
                }
            }
        }
    }
}

/// Notes an attempt; returns its `insert_before`.
fn record(world: &mut World, range: &Range, attempt: u32) -> Result<i64, Crash> {
    world.turn()?;
    let insert_before_ms = world.now_ms + INSERT_WINDOW_MS;
    if world.shortcut != Shortcut::SendBeforeNote {
        world.write_note(range, attempt, insert_before_ms);
    }
    Ok(insert_before_ms)
}

/// What a run came to.
struct Outcome {
    steps: u64,
    owners: u32,
    /// Why it is wrong.
    wrong: Option<String>,
}

/// Owners come and go until one has settled the log; then everything that is still on its way arrives.
fn run(seed: u64, shortcut: Shortcut) -> Outcome {
    let mut world = World::new(seed, shortcut);
    let mut owners = 1;
    while own(&mut world).is_err() {
        world.between_owners();
        owners += 1;
        assert!(owners < 10_000, "seed {seed}: the log is never settled");
    }
    while !world.on_its_way.is_empty() {
        world.happen();
    }
    // Of what was cut off nobody knows whether it was stored before.
    let mut by_key: BTreeMap<u128, (bool, u32)> = BTreeMap::new();
    for (number, (_, event)) in world.events.iter().enumerate() {
        let (is_there, times) = by_key.entry(event.dedup_key.as_u128()).or_default();
        *is_there |= world.log.contains(&number);
        *times += world.stored[number];
    }
    let wrong =
        by_key.values().any(|(is_there, times)| *times > 1 || (*is_there && *times == 0)).then(|| {
            let key = |event: &AgentEvent| event.dedup_key.as_u128() % 1000;
            let events: Vec<_> = world.events.iter().map(|(offset, event)| (*offset, key(event))).collect();
            format!("of the events {events:?} the log has {:?}, stored {:?} times", world.log, world.stored)
        });
    Outcome { steps: world.steps, owners, wrong }
}

#[test]
fn each_event_is_stored_exactly_once_whatever_crashes_and_whenever() {
    let (mut steps, mut owners, mut runs) = (0, 0, 0);
    for seed in seeds(RUNS) {
        let outcome = run(seed, Shortcut::Nothing);
        assert_eq!(outcome.wrong, None, "seed {seed}");
        runs += 1;
        steps += outcome.steps;
        owners += u64::from(outcome.owners);
    }
    println!("{steps} steps in {runs} runs; {owners} owners, all but the last of each run crashed");
    assert!(owners > runs * 2, "crashes are rare: {owners} owners in {runs} runs");
}

#[test]
fn every_shortcut_is_caught() {
    for shortcut in SHORTCUTS {
        let caught = (0..CATCH_WITHIN).find_map(|seed| Some((seed, run(seed, shortcut).wrong?)));
        let Some((seed, wrong)) = caught else {
            panic!("{shortcut:?} breaks nothing that the simulation sees");
        };
        println!("{shortcut:?} is caught by run {seed}: {wrong}");
    }
}

#[test]
fn a_first_acknowledgement_needs_no_proof_and_a_repeated_one_does() {
    let mut proof = Proof::recorded(5);
    assert_eq!(proof.next(4), Step::Send);
    proof.sent(Sent::Acknowledged);
    assert_eq!(proof.next(4), Step::Done);
    let mut proof = Proof::inherited(1, 5);
    assert_eq!(proof.next(4), Step::Send);
    proof.sent(Sent::Acknowledged);
    assert_eq!((proof.next(4), proof.next(6)), (Step::ReadBack, Step::Settle));
    assert_eq!(proof.read_back(2, false), None);
    assert_eq!(proof.read_back(2, true), Some(2));
    assert_eq!(Proof::inherited(2, 5).next(4), Step::ReadBack);
}

#[test]
fn what_is_read_again_is_read_back_first_and_only_what_is_missing_is_sent() {
    let mut proof = Proof::read_again(5);
    assert_eq!((proof.next(4), proof.next(6)), (Step::ReadBack, Step::Settle));
    assert_eq!((proof.read_back(1, false), proof.read_back(1, true)), (None, Some(2)));
    assert_eq!(proof.read_back(0, false), None);
    assert_eq!(proof.next(4), Step::Done);
}

#[test]
fn a_note_is_replayed_only_where_reading_goes_on_behind_it() {
    let note = Note { first: 7, last: 9, table: 0, attempt: 1, insert_before_ms: 4 };
    let resumed = Inherited::new(7, Start::Resumed, Some(note), 7);
    assert_eq!((resumed.noted, resumed.before_noted(7, 9)), (Some(note), Before::Noted(note)));
    assert_eq!(resumed.before(10), Before::Nothing);
    let again = Before::ReadAgain { insert_before_ms: 4 };
    // The log ends before the note does, or has other records now.
    assert_eq!((resumed.before_noted(7, 8), resumed.before(9)), (again, again));
    assert_eq!((resumed.before_noted(6, 9), resumed.before_noted(10, 10)), (again, Before::Nothing));
    let (lost, ahead) = (Start::Lost { from: 7, to: 8 }, Start::Ahead { committed: 7, end: 3 });
    for (offset, start) in [(8, lost), (0, ahead)] {
        let other = Inherited::new(offset, start, Some(note), offset);
        assert_eq!((other.noted, other.before(offset), other.before(10)), (None, again, Before::Nothing));
    }
    // A note of what is settled says nothing, whatever the start.
    assert_eq!(Inherited::new(10, Start::Resumed, Some(note), 10).noted, None);
}

#[test]
fn what_is_read_below_the_end_of_what_is_stored_may_be_stored() {
    for start in [Start::Fresh, Start::Resumed, Start::Ahead { committed: 30, end: 20 }] {
        let inherited = Inherited::new(2, start, None, 12);
        assert_eq!(inherited.before(11), Before::ReadAgain { insert_before_ms: 0 });
        assert_eq!((inherited.before(12), inherited.noted), (Before::Nothing, None));
        assert_eq!(Inherited::new(2, start, None, 2).before(2), Before::Nothing);
    }
}

#[test]
fn a_note_is_read_as_it_was_written_and_nothing_else_is_taken_for_one() {
    let note = Note { first: 1, last: 2, table: 1, attempt: 3, insert_before_ms: 4 };
    assert_eq!(Note::parse(&note.text()).unwrap(), Some(note));
    assert_eq!(Note::parse("").unwrap(), None);
    assert!(Note::parse("{\"attempt\":1}").is_err());
    assert!(note.text().len() < 200);
}
