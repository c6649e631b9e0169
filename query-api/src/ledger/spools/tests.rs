//! The rule, and a simulation: gateways that accept, spool, drain, tell, are killed, start and end, beside a Kafka that
//! comes and goes, and a reader, with the world going on between any two of their steps. Every shortcut that gateway or
//! reader could take is shown to be caught.

use std::collections::{BTreeMap, VecDeque};

use fleetlog_chance::{Chance, seeds};
use fleetlog_schemas::record::SpoolStanding;

use super::*;

fn told(as_of: i64, oldest: Option<i64>) -> SpoolStanding {
    SpoolStanding { as_of, oldest, records: u64::from(oldest.is_some()), ..SpoolStanding::default() }
}

#[test]
fn nothing_is_complete_beyond_what_waits_in_a_spool_or_beyond_a_gateways_last_word() {
    assert_eq!(logged_through(100, &[]), 100);
    assert_eq!(logged_through(100, &[told(90, None)]), 90, "what it accepted since is not known");
    assert_eq!(logged_through(100, &[told(90, Some(40)), told(95, None)]), 40);
    assert_eq!(logged_through(100, &[told(90, Some(95))]), 90, "the earlier of the two");
    assert_eq!(logged_through(100, &[told(130, None)]), 100, "a clock that is ahead lets nothing more pass");
}

const GATEWAYS: usize = 3;

/// What gateway or reader could do to save work, each of which makes `complete_through` a false promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortcut {
    Nothing,
    /// The gateway accepts before its first word is in Kafka.
    AnswersBeforeKnown,
    /// It looks at what it holds before it reads the clock.
    ClockAfterSpool,
    /// It does not regard requests that are on their way to the spool.
    UnderWayForgotten,
    /// It takes its word back although it holds something.
    ForgottenWhileFull,
    /// The reader reads the clock after the words.
    ReaderClockLast,
    /// It reads the log's ends before the words.
    EndsFirst,
    /// It takes the words that it happens to have.
    WordsNotToTheEnd,
    /// It regards what is held, and not how long ago that was said.
    OldestAlone,
}

const SHORTCUTS: [Shortcut; 8] = [
    Shortcut::AnswersBeforeKnown,
    Shortcut::ClockAfterSpool,
    Shortcut::UnderWayForgotten,
    Shortcut::ForgottenWhileFull,
    Shortcut::ReaderClockLast,
    Shortcut::EndsFirst,
    Shortcut::WordsNotToTheEnd,
    Shortcut::OldestAlone,
];

/// A request.
struct Request {
    received: i64,
    /// Its place in the raw log.
    logged: Option<usize>,
    acknowledged: Option<i64>,
    spooled: bool,
}

/// A word on its way: what has been read for it.
#[derive(Clone, Copy, Default)]
struct Draft {
    clock: Option<i64>,
    under_way: Option<Option<i64>>,
    held: Option<Option<i64>>,
}

type Word = Option<(i64, Option<i64>)>;

#[derive(Default)]
struct Gateway {
    runs: bool,
    /// Its first word of this life is in Kafka.
    known: bool,
    /// Accepted and not answered; whether it is on disk.
    under_way: Vec<(usize, bool)>,
    disk: VecDeque<usize>,
    draft: Draft,
    unsent: VecDeque<Word>,
}

struct World {
    chance: Chance,
    shortcut: Shortcut,
    now: i64,
    kafka: bool,
    requests: Vec<Request>,
    log_end: usize,
    topic: Vec<(usize, Word)>,
    gateways: Vec<Gateway>,
    /// The latest that was promised.
    complete: i64,
    /// Nothing happens by itself any more.
    calm: bool,
}

impl World {
    fn new(seed: u64, shortcut: Shortcut) -> Self {
        Self {
            chance: Chance::new(seed),
            shortcut,
            now: 1_000,
            kafka: true,
            requests: Vec::new(),
            log_end: 0,
            topic: Vec::new(),
            gateways: (0..GATEWAYS).map(|_| Gateway::default()).collect(),
            complete: 0,
            calm: false,
        }
    }

    fn drift(&mut self) -> Result<(), String> {
        let most = match self.calm {
            true => 1,
            false if self.chance.one_in(4) => 40,
            false => 5,
        };
        for _ in 0..self.chance.place(most) {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += 1;
        let number = self.chance.place(GATEWAYS);
        if self.chance.one_in(25) {
            self.kafka = !self.kafka;
        }
        if !self.gateways[number].runs {
            if self.chance.one_in(4) {
                let disk = std::mem::take(&mut self.gateways[number].disk);
                self.gateways[number] = Gateway { runs: true, disk, ..Gateway::default() };
            }
            return Ok(());
        }
        match self.chance.place(16) {
            0..=2 => self.receive(number),
            3..=6 => self.go_on(number)?,
            7..=8 => self.drain(number),
            9..=12 => self.tell(number),
            13..=14 => self.send(number),
            _ if self.chance.one_in(6) => self.kill(number),
            _ => self.end(number),
        }
        Ok(())
    }

    fn receive(&mut self, number: usize) {
        let gateway = &mut self.gateways[number];
        if gateway.known || self.shortcut == Shortcut::AnswersBeforeKnown {
            gateway.under_way.push((self.requests.len(), false));
            let received = self.now;
            self.requests.push(Request { received, logged: None, acknowledged: None, spooled: false });
        }
    }

    /// Kafka takes it, or it goes to disk, or it is answered.
    fn go_on(&mut self, number: usize) -> Result<(), String> {
        let count = self.gateways[number].under_way.len();
        if count == 0 {
            return Ok(());
        }
        let place = self.chance.place(count);
        let (id, on_disk) = self.gateways[number].under_way[place];
        if !(on_disk || self.kafka && self.chance.one_in(2)) {
            self.gateways[number].under_way[place].1 = true;
            self.gateways[number].disk.push_back(id);
            self.requests[id].spooled = true;
            return Ok(());
        }
        if !on_disk {
            self.publish(id);
        }
        self.gateways[number].under_way.swap_remove(place);
        let request = &mut self.requests[id];
        request.acknowledged = Some(self.now);
        if request.logged.is_none() && request.received < self.complete {
            return Err(format!("{id} is acknowledged, not in the log, and was said to be complete"));
        }
        Ok(())
    }

    fn publish(&mut self, id: usize) {
        self.requests[id].logged.get_or_insert(self.log_end);
        self.log_end += 1;
    }

    fn drain(&mut self, number: usize) {
        // Longer in the log than it takes to be noted: what is published first and held a moment longer harms nobody.
        if self.kafka
            && let Some(id) = self.gateways[number].disk.front().copied()
        {
            self.publish(id);
            self.gateways[number].disk.pop_front();
        }
    }

    /// The next thing that a word takes, or the word.
    fn tell(&mut self, number: usize) {
        let received = |id: &usize| self.requests[*id].received;
        let gateway = &self.gateways[number];
        if !gateway.unsent.is_empty() {
            return;
        }
        let mut draft = gateway.draft;
        let held = gateway.disk.iter().map(received).min();
        let under_way = gateway.under_way.iter().map(|(id, _)| received(id)).min();
        match draft {
            Draft { held: None, .. } if self.shortcut == Shortcut::ClockAfterSpool => draft.held = Some(held),
            Draft { clock: None, .. } => draft.clock = Some(self.now),
            Draft { under_way: None, .. } => draft.under_way = Some(under_way),
            Draft { held: None, .. } => draft.held = Some(held),
            Draft { clock: Some(clock), under_way: Some(under_way), held: Some(held) } => {
                let under_way = under_way.filter(|_| self.shortcut != Shortcut::UnderWayForgotten);
                let word = (under_way.map_or(clock, |earliest| earliest.min(clock)), held);
                self.gateways[number].unsent.push_back(Some(word));
                draft = Draft::default();
            }
        }
        self.gateways[number].draft = draft;
    }

    fn send(&mut self, number: usize) {
        if self.kafka
            && let Some(word) = self.gateways[number].unsent.pop_front()
        {
            self.topic.push((number, word));
            self.gateways[number].known = true;
        }
    }

    fn kill(&mut self, number: usize) {
        let gateway = &mut self.gateways[number];
        gateway.runs = false;
        // Its last words may have been with Kafka already.
        let sent = self.chance.place(gateway.unsent.len() + 1);
        let words: Vec<Word> = gateway.unsent.drain(..).take(sent).collect();
        self.topic.extend(words.into_iter().map(|word| (number, word)));
    }

    /// An orderly end: nothing is under way any more.
    fn end(&mut self, number: usize) {
        let gateway = &mut self.gateways[number];
        let may = gateway.disk.is_empty() || self.shortcut == Shortcut::ForgottenWhileFull;
        if self.kafka && gateway.known && gateway.under_way.is_empty() && gateway.unsent.is_empty() && may {
            gateway.runs = false;
            self.topic.push((number, None));
        }
    }

    fn last_word(&self, number: usize) -> Word {
        self.topic.iter().rev().find(|(of, _)| *of == number).and_then(|(_, word)| *word)
    }

    fn words(&self, until: usize) -> Vec<SpoolStanding> {
        let mut words = BTreeMap::new();
        for (number, word) in &self.topic[..until] {
            words.insert(*number, *word);
        }
        let words = words.into_values().flatten();
        if self.shortcut == Shortcut::OldestAlone {
            return words.filter_map(|(_, oldest)| Some(told(oldest?, oldest))).collect();
        }
        words.map(|(as_of, oldest)| told(as_of, oldest)).collect()
    }

    /// A sample, and whether it says what is so.
    fn look(&mut self) -> Result<(), String> {
        let mut clock = self.now;
        let mut end = self.log_end;
        self.drift()?;
        if !self.kafka {
            return Ok(());
        }
        let mut until = self.topic.len();
        if self.shortcut == Shortcut::WordsNotToTheEnd {
            until -= self.chance.place(4).min(until);
        }
        let words = self.words(until);
        self.drift()?;
        if self.shortcut == Shortcut::ReaderClockLast {
            clock = self.now;
        }
        if self.shortcut != Shortcut::EndsFirst {
            end = self.log_end;
        }
        let through = logged_through(clock, &words);
        self.complete = self.complete.max(through);
        for (id, request) in self.requests.iter().enumerate() {
            let Some(acknowledged) = request.acknowledged else { continue };
            // What Kafka took directly counts from its acknowledgement, what was spooled from its acceptance.
            let counts_from = if request.spooled { request.received } else { acknowledged };
            if counts_from < through && request.logged.is_none_or(|place| place >= end) {
                return Err(format!("{id} is said to be complete at {through}, and is not below {end}"));
            }
        }
        Ok(())
    }

    /// Lets everything drain and tell.
    fn settle(&mut self) -> Result<(), String> {
        (self.calm, self.kafka) = (true, true);
        let settled = self.now;
        for number in 0..GATEWAYS {
            self.gateways[number].runs = true;
            while !self.gateways[number].under_way.is_empty() {
                self.go_on(number)?;
            }
            while !self.gateways[number].disk.is_empty() {
                self.drain(number);
            }
            while self.last_word(number).is_none_or(|(as_of, _)| as_of < settled) {
                self.send(number);
                self.tell(number);
            }
        }
        self.now += 1;
        self.look()?;
        if self.complete < settled {
            return Err(format!("everything is drained and told, and complete is {} only", self.complete));
        }
        Ok(())
    }
}

fn run(seed: u64, shortcut: Shortcut) -> Result<u64, String> {
    let mut world = World::new(seed, shortcut);
    for _ in 0..300 {
        world.drift()?;
        if world.chance.one_in(3) {
            world.look()?;
        }
    }
    if shortcut == Shortcut::Nothing {
        world.settle()?;
    }
    Ok(world.requests.iter().filter(|request| request.spooled).count() as u64)
}

/// Runs of the simulation; more with `FLEETLOG_SIM_RUNS`.
const RUNS: u64 = 100;

#[test]
fn whatever_happens_nothing_is_said_to_be_complete_that_waits_in_a_spool() {
    let (mut worlds, mut spooled) = (0, 0);
    for seed in seeds(RUNS) {
        match run(seed, Shortcut::Nothing) {
            Ok(count) => (worlds, spooled) = (worlds + 1, spooled + count),
            Err(said) => panic!("seed {seed}: {said}"),
        }
    }
    println!("{worlds} worlds, {spooled} requests spooled");
    assert!(spooled > worlds, "hardly anything was spooled");
}

#[test]
fn every_shortcut_is_caught() {
    for shortcut in SHORTCUTS {
        let caught = (0..2_000).find(|seed| run(*seed, shortcut).is_err());
        println!("{shortcut:?}: caught by seed {caught:?}");
        assert!(caught.is_some(), "{shortcut:?}");
    }
}
