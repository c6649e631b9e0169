//! A simulation: a log, a processor that commits and aborts transactions, an aggregator that stores what it reads in
//! pieces and out of order, crashes and retention; beside it a ledger that looks at all of it at arbitrary moments, with
//! the world going on between any two of its reads. A model that remembers everything knows what is stored and what never
//! will be. Every shortcut that the ledger could take is shown to be caught.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use fleetlog_chance::{Chance, seeds};
use fleetlog_schemas::id::Position;
use fleetlog_store::RawRun;

use super::book::Book;
use super::partition::Fate;
use super::watermark::{Outlet, Pipeline, Watermark};

const RAW: usize = 2;
const OUTLETS: usize = 3;
/// Offsets looked up at once: few, so that logs are longer.
const WINDOW: i64 = 6;
/// How long a partition stands still before the pipeline is asked.
const SUSPECT_AFTER: i64 = 10;

/// A place of the raw log.
type Place = (usize, i64);

/// Pieces with the number of their records, and settlements.
type Facts = (Vec<(Place, u32)>, Vec<Place>);

/// A raw record: how many of its records go to which outlet, and when it was acknowledged.
struct Raw {
    pieces: BTreeMap<usize, u32>,
    acknowledged: i64,
}

/// A record of an outlet's log.
enum Entry {
    Data { transaction: u64, pieces: Vec<(Place, u32)>, settlements: Vec<Place>, unreadable: bool },
    Marker { transaction: u64, commits: bool },
}

/// A transaction of the processor, step by step.
enum Act {
    Write(usize, Entry),
    Mark(usize, bool),
    /// The committed offset becomes visible, at any moment while the markers are written.
    Commit(i64),
}

/// What an aggregator has read and stores.
struct Batch {
    last: i64,
    facts: Vec<(i64, Facts)>,
    steps: usize,
}

struct World {
    chance: Chance,
    now: i64,
    raw: Vec<Vec<Raw>>,
    log_start: Vec<i64>,
    committed: Vec<i64>,
    transactions: u64,
    acts: Vec<Vec<Act>>,
    outlets: Vec<Vec<Entry>>,
    stored_to: Vec<Option<i64>>,
    batches: Vec<Option<Batch>>,
    pieces: BTreeMap<(Place, usize, i64), u32>,
    settlements: BTreeSet<Place>,
    /// What will never be stored.
    doomed: BTreeSet<Place>,
    /// Nothing breaks any more.
    calm: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            chance: Chance::new(seed),
            now: 1_000,
            raw: (0..RAW).map(|_| Vec::new()).collect(),
            log_start: vec![0; RAW],
            committed: vec![0; RAW],
            transactions: 0,
            acts: (0..RAW).map(|_| Vec::new()).collect(),
            outlets: (0..OUTLETS).map(|_| Vec::new()).collect(),
            stored_to: vec![None; OUTLETS],
            batches: (0..OUTLETS).map(|_| None).collect(),
            pieces: BTreeMap::new(),
            settlements: BTreeSet::new(),
            doomed: BTreeSet::new(),
            calm: false,
        }
    }

    /// A few steps that somebody else takes meanwhile.
    fn drift(&mut self) {
        for _ in 0..self.chance.place(4) {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += 1;
        match self.chance.place(8) {
            0 if self.calm => {}
            0 => self.receive(),
            1..=3 => self.process(),
            4..=6 => self.store(),
            _ => self.trim(),
        }
    }

    fn receive(&mut self) {
        let partition = self.chance.place(RAW);
        let pieces =
            (0..self.chance.place(3)).map(|_| (self.chance.place(OUTLETS), 1 + self.chance.place(3) as u32));
        let pieces = pieces.collect();
        self.raw[partition].push(Raw { pieces, acknowledged: self.now });
    }

    fn process(&mut self) {
        let partition = self.chance.place(RAW);
        if let Some(act) = self.acts[partition].pop() {
            match act {
                Act::Write(outlet, entry) => self.outlets[outlet].push(entry),
                Act::Mark(outlet, commits) => {
                    let transaction = self.transaction_of(partition);
                    self.outlets[outlet].push(Entry::Marker { transaction, commits });
                }
                Act::Commit(offset) => self.committed[partition] = offset,
            }
            return;
        }
        // What is no longer there cannot be read.
        let first = self.committed[partition].max(self.log_start[partition]);
        let records = (self.raw[partition].len() as i64 - first).min(1 + self.chance.place(3) as i64);
        if records > 0 {
            self.begin(partition, first..first + records);
        }
    }

    /// Transactions of a partition are told apart by its number.
    fn transaction_of(&self, partition: usize) -> u64 {
        self.transactions * RAW as u64 + partition as u64
    }

    fn begin(&mut self, partition: usize, offsets: Range<i64>) {
        // One at a time over all partitions would be too tame, so the number is fixed for as long as any is open.
        if self.acts.iter().all(Vec::is_empty) {
            self.transactions += 1;
        } else if self.outlets.iter().flatten().any(|entry| self.is_of(entry, partition)) {
            return;
        }
        let transaction = self.transaction_of(partition);
        let mut parts: BTreeMap<usize, Facts> = BTreeMap::new();
        for offset in offsets.clone() {
            let place = (partition, offset);
            let pieces = &self.raw[partition][offset as usize].pieces;
            for (outlet, records) in pieces {
                parts.entry(*outlet).or_default().0.push((place, *records));
            }
            let home = pieces.keys().next().copied().unwrap_or(0);
            parts.entry(home).or_default().1.push(place);
        }
        let commits = self.calm || !self.chance.one_in(5);
        let (mut acts, mut ends) = (Vec::new(), Vec::new());
        for (outlet, (pieces, settlements)) in parts {
            let unreadable = !self.calm && self.chance.one_in(40);
            if unreadable && commits {
                let places = pieces.iter().map(|(place, _)| *place).chain(settlements.iter().copied());
                self.doomed.extend(places);
            }
            acts.push(Act::Write(outlet, Entry::Data { transaction, pieces, settlements, unreadable }));
            ends.push(Act::Mark(outlet, commits));
        }
        if commits {
            let place = self.chance.place(ends.len() + 1);
            ends.insert(place, Act::Commit(offsets.end));
        }
        acts.extend(ends);
        acts.reverse();
        self.acts[partition] = acts;
    }

    fn is_of(&self, entry: &Entry, partition: usize) -> bool {
        let (Entry::Data { transaction, .. } | Entry::Marker { transaction, .. }) = entry;
        *transaction == self.transaction_of(partition)
    }

    /// How a transaction ended in an outlet, if it did.
    fn ended(&self, outlet: usize, wanted: u64) -> Option<bool> {
        self.outlets[outlet].iter().find_map(|entry| match entry {
            Entry::Marker { transaction, commits } if *transaction == wanted => Some(*commits),
            _ => None,
        })
    }

    fn stable(&self, outlet: usize) -> i64 {
        let open = self.outlets[outlet].iter().position(
            |entry| matches!(entry, Entry::Data { transaction, .. } if self.ended(outlet, *transaction).is_none()),
        );
        open.unwrap_or(self.outlets[outlet].len()) as i64
    }

    /// Whether a reader is given any of these records.
    fn is_given(&self, outlet: usize, offsets: Range<i64>) -> bool {
        offsets.into_iter().any(|offset| match &self.outlets[outlet][offset as usize] {
            Entry::Data { transaction, .. } => self.ended(outlet, *transaction) == Some(true),
            Entry::Marker { .. } => false,
        })
    }

    fn store(&mut self) {
        let outlet = self.chance.place(OUTLETS);
        if !self.calm && self.chance.one_in(12) {
            // A crash: what is stored stays, what is not is read again.
            self.batches[outlet] = None;
        }
        let Some(mut batch) = self.batches[outlet].take() else {
            self.batches[outlet] = self.gather(outlet);
            return;
        };
        match batch.steps {
            0 => {
                for (offset, (pieces, _)) in &batch.facts {
                    for (place, records) in pieces {
                        self.pieces.insert((*place, outlet, *offset), *records);
                    }
                }
            }
            1 => self.settlements.extend(batch.facts.iter().flat_map(|(_, (_, settled))| settled)),
            _ => {
                self.stored_to[outlet] = Some(batch.last + 1);
                return;
            }
        }
        batch.steps += 1;
        self.batches[outlet] = Some(batch);
    }

    fn gather(&mut self, outlet: usize) -> Option<Batch> {
        let from = self.stored_to[outlet].unwrap_or(0);
        let most = 1 + self.chance.place(3);
        let mut batch = Batch { last: -1, facts: Vec::new(), steps: 0 };
        for offset in from..self.stable(outlet) {
            let Entry::Data { transaction, pieces, settlements, unreadable } =
                &self.outlets[outlet][offset as usize]
            else {
                continue;
            };
            if self.ended(outlet, *transaction) == Some(true) && batch.facts.len() < most {
                let facts =
                    if *unreadable { Default::default() } else { (pieces.clone(), settlements.clone()) };
                batch.facts.push((offset, facts));
                batch.last = offset;
            }
        }
        (batch.last >= 0).then_some(batch)
    }

    fn trim(&mut self) {
        if !self.chance.one_in(10) {
            return;
        }
        let partition = self.chance.place(RAW);
        let end = self.raw[partition].len() as i64;
        let mut until = self.committed[partition].min(end - 3);
        if !self.calm && self.chance.one_in(8) && self.acts[partition].is_empty() {
            // Somebody else's retention, which asks nobody.
            until = (until + 2).min(end);
            self.doomed.extend((self.committed[partition]..until).map(|offset| (partition, offset)));
        }
        self.log_start[partition] = self.log_start[partition].max(until);
    }

    fn logs(&self) -> Vec<Range<i64>> {
        self.log_start.iter().zip(&self.raw).map(|(start, log)| *start..log.len() as i64).collect()
    }

    fn is_stored(&self, place: Place, whole: bool) -> bool {
        let record = &self.raw[place.0][place.1 as usize];
        let found = |outlet: usize| -> u32 {
            self.pieces.range((place, outlet, i64::MIN)..=(place, outlet, i64::MAX)).map(|(_, n)| *n).sum()
        };
        self.settlements.contains(&place)
            && (!whole || record.pieces.iter().all(|(outlet, records)| found(*outlet) >= *records))
    }

    fn settled_runs(&self, asked: &[(i32, Range<i64>)], whole: bool) -> Vec<RawRun> {
        let stored = asked.iter().flat_map(|(partition, offsets)| {
            offsets.clone().filter_map(move |offset| {
                let run = RawRun { raw_partition: *partition, first: offset, last: offset };
                self.is_stored((*partition as usize, offset), whole).then_some(run)
            })
        });
        stored.collect()
    }
}

/// What a ledger could do to save work, each of which makes it say what is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortcut {
    Nothing,
    /// Reads the clock after the ends.
    ClockAfterEnds,
    /// Takes a settlement for all that it names.
    SettlementAlone,
    /// Looks at the store before it asks the pipeline.
    StoreBeforePipeline,
    /// Takes everything that a reader is given now for all that was written, open transactions or not.
    OpenTransactions,
    /// Takes whatever lies behind the committed offset for a marker.
    MarkerAnyway,
    /// Takes what stands still for lost.
    ImpatientWithGaps,
}

const SHORTCUTS: [Shortcut; 6] = [
    Shortcut::ClockAfterEnds,
    Shortcut::SettlementAlone,
    Shortcut::StoreBeforePipeline,
    Shortcut::OpenTransactions,
    Shortcut::MarkerAnyway,
    Shortcut::ImpatientWithGaps,
];

struct Keeper {
    world: World,
    shortcut: Shortcut,
    book: Book,
    watermark: Watermark,
}

impl Keeper {
    fn new(seed: u64, shortcut: Shortcut) -> Self {
        let world = World::new(seed);
        let book = Book::new(&world.logs(), &world.log_start);
        Self { world, shortcut, book, watermark: Watermark::default() }
    }

    fn runs(&self, asked: &[(i32, Range<i64>)]) -> Vec<RawRun> {
        self.world.settled_runs(asked, self.shortcut != Shortcut::SettlementAlone)
    }

    /// What the pipeline says, with the world going on between any two reads of it.
    fn pipeline(&mut self) -> Pipeline {
        let raw = self.world.committed.iter().map(|offset| Some(*offset)).collect();
        let mut outlets = Vec::new();
        for outlet in 0..OUTLETS {
            self.world.drift();
            let end = self.world.outlets[outlet].len() as i64;
            self.world.drift();
            let mut stable = self.world.stable(outlet);
            if self.shortcut == Shortcut::OpenTransactions {
                stable = end;
            }
            self.world.drift();
            let mut stored = self.world.stored_to[outlet].unwrap_or(0);
            self.world.drift();
            if !self.world.is_given(outlet, stored..stable) {
                stored = stored.max(stable);
            } else if self.shortcut == Shortcut::MarkerAnyway {
                stored += 1;
            }
            outlets.push(Outlet { log: 0..end, stored });
        }
        Pipeline { raw, outlets }
    }

    fn look(&mut self) -> Result<(), String> {
        let before = self.world.now;
        self.world.drift();
        let logs = self.world.logs();
        self.world.drift();
        let at = if self.shortcut == Shortcut::ClockAfterEnds { self.world.now } else { before };
        self.book.sampled(at, at, &logs);
        let asked = self.book.unsettled(WINDOW);
        let runs = self.runs(&asked);
        self.world.drift();
        self.book.found(&runs, at);
        self.check()?;
        if self.book.stands_since(at - SUSPECT_AFTER) {
            let asked = self.book.unsettled(WINDOW);
            let early = self.runs(&asked);
            let seen = self.pipeline();
            let mut passed = self.watermark.observe(&seen);
            if self.shortcut == Shortcut::ImpatientWithGaps {
                passed = Some(self.world.committed.clone());
            }
            self.world.drift();
            let late = self.runs(&asked);
            let runs = if self.shortcut == Shortcut::StoreBeforePipeline { early } else { late };
            self.book.found(&runs, at);
            self.book.conclude(&asked, &seen, passed.as_deref(), at);
        }
        self.check()
    }

    /// What the ledger says against what the model knows.
    fn check(&self) -> Result<(), String> {
        let standing = self.book.standing();
        for (partition, log) in self.world.raw.iter().enumerate() {
            for (offset, record) in log.iter().enumerate() {
                let place = (partition, offset as i64);
                let fate = standing.fate(Position { partition: partition as i32, offset: place.1 });
                let (stored, doomed) =
                    (self.world.is_stored(place, true), self.world.doomed.contains(&place));
                let said = match fate {
                    Fate::Stored => stored,
                    Fate::Lost => doomed,
                    Fate::InFlight | Fate::Beyond | Fate::Before => true,
                };
                if !said {
                    return Err(format!("{place:?} is said to be {fate:?}"));
                }
                let complete = standing.complete_ns.is_some_and(|at| record.acknowledged < at);
                if complete && !stored && fate != Fate::Before {
                    return Err(format!("{place:?} is not stored, and said to be complete"));
                }
            }
        }
        Ok(())
    }

    /// Lets everything that is under way end, and looks until nothing can change.
    fn settle(&mut self) -> Result<(), String> {
        self.world.calm = true;
        for _ in 0..3_000 {
            self.world.now += 1;
            if self.world.chance.one_in(2) { self.world.process() } else { self.world.store() }
        }
        for _ in 0..500 {
            self.world.now += SUSPECT_AFTER;
            self.look()?;
            if self.book.standing().in_flight() == 0 {
                break;
            }
        }
        // And a last sample, for what is complete.
        self.look()?;
        Ok(())
    }
}

/// Runs a world and its ledger; an error is what the ledger said that is not so, or did not say.
fn run(seed: u64, shortcut: Shortcut, steps: usize) -> Result<(u64, usize), String> {
    let mut keeper = Keeper::new(seed, shortcut);
    for _ in 0..steps {
        keeper.world.drift();
        if keeper.world.chance.one_in(4) {
            keeper.look()?;
        }
        if keeper.world.chance.one_in(200) {
            // Begun anew, from what is still in the log.
            let logs = keeper.world.logs();
            keeper.book = Book::new(&logs, &keeper.world.log_start);
            keeper.watermark = Watermark::default();
        }
    }
    keeper.settle()?;
    let standing = keeper.book.standing();
    let mut lost = 0;
    for (number, log) in keeper.world.raw.iter().enumerate() {
        for offset in 0..log.len() as i64 {
            let place = (number, offset);
            let wanted = if keeper.world.doomed.contains(&place) { Fate::Lost } else { Fate::Stored };
            let fate = standing.fate(Position { partition: number as i32, offset });
            if fate != wanted && fate != Fate::Before {
                return Err(format!("in the end {place:?} is {wanted:?}, and said to be {fate:?}"));
            }
            lost += usize::from(fate == Fate::Lost);
        }
    }
    if standing.in_flight() != 0 || (lost == 0 && standing.complete_ns != standing.settled_ns) {
        return Err(format!("in the end {} are open", standing.in_flight()));
    }
    Ok((keeper.world.now as u64, lost))
}

/// Runs of the tests; more with `FLEETLOG_SIM_RUNS`.
const RUNS: u64 = 100;

#[test]
fn whatever_happens_the_ledger_says_of_each_record_what_is_so() {
    let (mut steps, mut lost) = (0, 0);
    for seed in seeds(RUNS) {
        match run(seed, Shortcut::Nothing, 300) {
            Ok((took, found)) => (steps, lost) = (steps + took, lost + found),
            Err(said) => panic!("seed {seed}: {said}"),
        }
    }
    println!("{steps} steps, {lost} losses found");
    assert!(lost > 0, "nothing was lost, so nothing was looked for");
}

#[test]
fn every_shortcut_is_caught() {
    for shortcut in SHORTCUTS {
        let caught = (0..5_000).find_map(|seed| run(seed, shortcut, 300).err().map(|said| (seed, said)));
        let (seed, said) = caught.unwrap_or_else(|| panic!("{shortcut:?} was not caught"));
        println!("{shortcut:?}: seed {seed}: {said}");
    }
}
