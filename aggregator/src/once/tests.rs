//! A simulation of everything that decides what is stored: the offset up to which a partition is settled, the range that
//! is noted and replayed, the insert's proof, and the recognition of repeats. Owners crash at every point, the engine is
//! slow, forgets and crashes, and the network delivers late. Whatever happens, each event is stored exactly once, and no
//! row twice; and every shortcut that an owner could take is shown to break that, so the simulation is known to look.
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

/// What the engine remembers an insert by: first and last record of its range, and the attempt.
type Token = (i64, i64, u32);

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
    /// The events: some are a sender's retry of an earlier one.
    log: Vec<AgentEvent>,
    committed: usize,
    note: Option<Note>,
    /// How often each event's row is stored.
    stored: [u32; LOG],
    /// Tokens that the engine has recorded.
    tokens: BTreeSet<Token>,
    on_its_way: Vec<Insert>,
    /// Keys that were marked as stored, where the shortcut is to trust such marks.
    marks: BTreeSet<u128>,
}

impl World {
    fn new(seed: u64, shortcut: Shortcut) -> Self {
        let mut chance = Chance::new(seed);
        let now_ms = 1_000_000_000;
        let event = |n: usize, chance: &mut Chance| {
            let identity = chance.below(LOG as u64 * 3 / 4);
            AgentEvent {
                dedup_key: Key128::of([&identity.to_le_bytes()[..]]),
                // Before and after the time from which an owner remembers what is stored.
                timestamp: (now_ms + (identity as i64 - 3) * 20_000) * MS,
                received_at: (now_ms + n as i64) * MS,
                ..AgentEvent::default()
            }
        };
        let log = (0..LOG).map(|n| event(n, &mut chance)).collect();
        Self {
            chance,
            shortcut,
            steps: 0,
            now_ms,
            log,
            committed: 0,
            note: None,
            stored: [0; LOG],
            tokens: BTreeSet::new(),
            on_its_way: Vec::new(),
            marks: BTreeSet::new(),
        }
    }

    /// Something happens that no owner asked for; and this is where an owner may crash.
    fn turn(&mut self) -> Result<(), Crash> {
        self.happen();
        if self.chance.one_in(24) { Err(Crash) } else { Ok(()) }
    }

    fn happen(&mut self) {
        self.steps += 1;
        self.now_ms += self.chance.below(4_000) as i64;
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

    fn missing(&self, rows: &[usize]) -> Vec<usize> {
        rows.iter().copied().filter(|row| self.stored[*row] == 0).collect()
    }

    fn runs(&self, range: &Range) -> bool {
        self.on_its_way
            .iter()
            .any(|insert| insert.started && (insert.token.0, insert.token.1) == (range.first, range.last))
    }

    /// The stored rows that pass a filter of events.
    fn rows(&self, wanted: impl Fn(&AgentEvent) -> bool) -> impl Iterator<Item = (usize, &AgentEvent)> {
        self.log.iter().enumerate().filter(move |(n, event)| self.stored[*n] > 0 && wanted(event))
    }

    fn write_note(&mut self, range: &Range, attempt: u32, insert_before_ms: i64) {
        let note = Note { first: range.first, last: range.last, table: 0, attempt, insert_before_ms };
        // It travels as text.
        self.note = Note::parse(&note.text()).unwrap();
    }
}

/// The owner is gone, and all that it knew.
struct Crash;

/// The records from `first` to `last`, and which of them are no repeats.
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
    /// Mark keys as stored before their rows are written, and trust the marks.
    MarkBeforeWrite,
    /// Take the filter's word for a repeat, without looking up the stored rows.
    TrustTheFilter,
}

const SHORTCUTS: [Shortcut; 11] = [
    Shortcut::SendBeforeNote,
    Shortcut::TrustTheToken,
    Shortcut::TokenWithoutRange,
    Shortcut::DoNotWaitForInsertBefore,
    Shortcut::DoNotAskWhatRuns,
    Shortcut::SendAllAgain,
    Shortcut::CommitBeforeInsert,
    Shortcut::CommitBeforeProof,
    Shortcut::ForgetTheNote,
    Shortcut::MarkBeforeWrite,
    Shortcut::TrustTheFilter,
];

/// One owner, from its assignment until the whole log is settled, or a crash at any point.
fn own(world: &mut World) -> Result<(), Crash> {
    let assigned_ns = world.now_ms * MS;
    let budget = 400 + world.chance.place(2_000);
    let mut recent = Recent::since(assigned_ns, budget);
    let later: Vec<(u128, i64)> = world
        .rows(|event| event.timestamp >= assigned_ns)
        .map(|(_, event)| (event.dedup_key.as_u128(), event.timestamp))
        .collect();
    recent.load(later, i64::MAX, assigned_ns);
    let mut inherited = world.note.filter(|note| note.last >= world.committed as i64);
    while world.committed < LOG {
        world.turn()?;
        if world.shortcut == Shortcut::ForgetTheNote {
            inherited = None;
        }
        let first = world.committed as i64;
        let chosen = (first + world.chance.below(RANGE) as i64).min(LOG as i64 - 1);
        let last = inherited.map_or(chosen, |note| note.last);
        let rows = judge(world, &mut recent, first, last)?;
        let range = Range { first, last, rows };
        if world.shortcut == Shortcut::CommitBeforeInsert {
            commit(world, &range)?;
        }
        if !range.rows.is_empty() {
            prove(world, &range, inherited)?;
        }
        world.turn()?;
        if world.shortcut != Shortcut::CommitBeforeInsert {
            commit(world, &range)?;
        }
        inherited = None;
    }
    Ok(())
}

fn commit(world: &mut World, range: &Range) -> Result<(), Crash> {
    (world.committed, world.note) = (range.last as usize + 1, None);
    world.turn()
}

/// Which records of a range are no repeats.
fn judge(world: &mut World, recent: &mut Recent, first: i64, last: i64) -> Result<Vec<usize>, Crash> {
    let located = |offset: i64| Located { partition: 0, offset, index: 0 };
    let events: Vec<(Located, AgentEvent)> =
        (first..=last).map(|offset| (located(offset), world.log[offset as usize].clone())).collect();
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
    let new = (0..events.len()).filter(|place| !repeats.contains(place));
    Ok(new.map(|place| first as usize + place).collect())
}

/// Stores a range's rows exactly once.
fn prove(world: &mut World, range: &Range, inherited: Option<Note>) -> Result<(), Crash> {
    let shortcut = world.shortcut;
    let mut only: Option<Vec<usize>> = None;
    let mut proof =
        inherited.map_or(Proof::unsent(), |note| Proof::inherited(note.attempt, note.insert_before_ms));
    loop {
        // The crash points: before and after each effect.
        world.turn()?;
        let step = match proof.next(world.now_ms) {
            Step::ReadBack if shortcut == Shortcut::DoNotWaitForInsertBefore => Step::Settle,
            step => step,
        };
        match step {
            Step::Done => return Ok(()),
            Step::Begin(attempt) => begin(world, range, &mut proof, attempt),
            Step::Send => {
                let rows = only.as_ref().unwrap_or(&range.rows).clone();
                let token = match shortcut {
                    Shortcut::TokenWithoutRange => (0, 0, proof.attempt()),
                    _ => (range.first, range.last, proof.attempt()),
                };
                let sent = world.send(token, &rows, proof.insert_before_ms());
                if shortcut == Shortcut::SendBeforeNote {
                    world.turn()?;
                    world.write_note(range, proof.attempt(), proof.insert_before_ms());
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
                if world.runs(range) && shortcut != Shortcut::DoNotAskWhatRuns {
                    continue;
                }
                world.turn()?;
                let missing = world.missing(&range.rows);
                if let Some(Step::Begin(attempt)) = proof.read_back(missing.len(), true) {
                    let all = shortcut == Shortcut::SendAllAgain;
                    only = Some(if all { range.rows.clone() } else { missing });
                    begin(world, range, &mut proof, attempt);
                }
            }
        }
    }
}

fn begin(world: &mut World, range: &Range, proof: &mut Proof, attempt: u32) {
    let insert_before_ms = world.now_ms + INSERT_WINDOW_MS;
    if world.shortcut != Shortcut::SendBeforeNote {
        world.write_note(range, attempt, insert_before_ms);
    }
    proof.begun(attempt, insert_before_ms);
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
        owners += 1;
        assert!(owners < 10_000, "seed {seed}: the log is never settled");
    }
    while !world.on_its_way.is_empty() {
        world.happen();
    }
    let mut by_key: BTreeMap<u128, u32> = BTreeMap::new();
    for (event, times) in world.log.iter().zip(world.stored) {
        *by_key.entry(event.dedup_key.as_u128()).or_default() += times;
    }
    let wrong = by_key.values().any(|times| *times != 1).then(|| {
        let keys: Vec<u128> = world.log.iter().map(|event| event.dedup_key.as_u128() % 1000).collect();
        format!("the events {keys:?} are stored {:?} times", world.stored)
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
    assert_eq!(proof.read_back(2, true), Some(Step::Begin(2)));
    assert_eq!(Proof::inherited(2, 5).next(4), Step::ReadBack);
}

#[test]
fn a_note_is_read_as_it_was_written_and_nothing_else_is_taken_for_one() {
    let note = Note { first: 1, last: 2, table: 1, attempt: 3, insert_before_ms: 4 };
    assert_eq!(Note::parse(&note.text()).unwrap(), Some(note));
    assert_eq!(Note::parse("").unwrap(), None);
    assert!(Note::parse("{\"attempt\":1}").is_err());
    assert!(note.text().len() < 200);
}
