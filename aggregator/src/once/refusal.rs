//! A simulation of refusals: the engine refuses one row of the range for its data at times, its stand-in never; owners
//! crash while they look for it; earlier sends arrive late. Each position is stored once, by the row or its stand-in.

use fleetlog_chance::{Chance, seeds};

use super::*;

const ROWS: usize = 3;
/// The row that is refused while a constraint of the operator's stands.
const POISON: usize = 1;

struct Insert {
    attempt: u32,
    rows: Vec<usize>,
    as_it_came: bool,
    insert_before_ms: i64,
    started: bool,
}

struct World {
    chance: Chance,
    now_ms: i64,
    note: Option<Note>,
    stored: [u32; ROWS],
    tokens: Vec<u32>,
    on_its_way: Vec<Insert>,
    refuses: bool,
    refusals: u32,
}

impl World {
    fn missing(&self) -> Vec<usize> {
        (0..ROWS).filter(|row| self.stored[*row] == 0).collect()
    }

    /// Whether ClickHouse refuses the insert; otherwise it is stored, unless its token was seen.
    fn refuses(&mut self, insert: &Insert) -> bool {
        if self.refuses && insert.as_it_came && insert.rows.contains(&POISON) {
            self.refusals += 1;
            return true;
        }
        if !self.tokens.contains(&insert.attempt) {
            self.tokens.push(insert.attempt);
            insert.rows.iter().for_each(|row| self.stored[*row] += 1);
        }
        false
    }

    fn turn(&mut self) {
        self.now_ms += self.chance.below(4_000) as i64;
        // Somebody alters the table.
        if self.chance.below(8) == 0 {
            self.refuses = !self.refuses;
        }
        if self.on_its_way.is_empty() {
            return;
        }
        let chosen = self.chance.place(self.on_its_way.len());
        match (self.on_its_way[chosen].started, self.chance.below(4)) {
            (true, 0..=1) => {
                let insert = self.on_its_way.swap_remove(chosen);
                let _nobody_hears = self.refuses(&insert);
            }
            (false, 0) => self.on_its_way[chosen].started = true,
            (false, 1) => drop(self.on_its_way.swap_remove(chosen)),
            _ => {}
        }
        let now = self.now_ms;
        self.on_its_way.retain(|insert| insert.started || insert.insert_before_ms > now);
    }

    /// What the sender hears; `None` when nothing.
    fn send(&mut self, insert: Insert) -> Option<bool> {
        if self.chance.below(2) == 0 && insert.insert_before_ms > self.now_ms {
            return Some(self.refuses(&insert));
        }
        self.on_its_way.push(insert);
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortcut {
    Nothing,
    /// Take the refusal of a later send for the end of the earlier ones.
    ForgetEarlierSends,
}

fn own(world: &mut World, shortcut: Shortcut) -> bool {
    let mut rows: Vec<usize> = (0..ROWS).collect();
    let mut stands_in = false;
    let mut proof = match world.note {
        None => Proof::recorded(record(world, 1)),
        Some(note) => Proof::inherited(note.attempt, note.insert_before_ms),
    };
    loop {
        world.turn();
        if world.chance.below(12) == 0 {
            return false;
        }
        match proof.next(world.now_ms) {
            Step::Done => return true,
            Step::Send => {
                let insert = Insert {
                    attempt: proof.attempt(),
                    rows: rows.clone(),
                    as_it_came: !stands_in,
                    insert_before_ms: proof.insert_before_ms(),
                    started: false,
                };
                match world.send(insert) {
                    None => proof.sent(Sent::Unknown),
                    Some(false) => proof.sent(Sent::Acknowledged),
                    Some(true) => {
                        // Looking for the row takes long, and may find that nothing is refused any more.
                        (0..world.chance.below(6)).for_each(|_| world.turn());
                        if world.chance.below(6) == 0 {
                            return false;
                        }
                        stands_in = world.refuses;
                        if stands_in && shortcut == Shortcut::ForgetEarlierSends {
                            proof.begun(proof.attempt(), proof.insert_before_ms());
                        }
                        proof.sent(if stands_in { Sent::Refused } else { Sent::Unknown });
                    }
                }
            }
            Step::ReadBack => {
                let _not_yet = proof.read_back(world.missing().len(), false);
            }
            Step::Settle => {
                if world.on_its_way.iter().any(|insert| insert.started) {
                    continue;
                }
                let missing = world.missing();
                if let Some(attempt) = proof.read_back(missing.len(), true) {
                    rows = missing;
                    proof.begun(attempt, record(world, attempt));
                }
            }
        }
    }
}

fn record(world: &mut World, attempt: u32) -> i64 {
    let insert_before_ms = world.now_ms + INSERT_WINDOW_MS;
    world.note = Some(Note { first: 0, last: 9, table: 0, attempt, insert_before_ms });
    insert_before_ms
}

/// Owners come and go until one settles the range. Returns how often something was refused.
fn stored_once(seed: u64, shortcut: Shortcut) -> Result<u32, [u32; ROWS]> {
    let mut world = World {
        chance: Chance::new(seed),
        now_ms: 1_000_000,
        note: None,
        stored: [0; ROWS],
        tokens: Vec::new(),
        on_its_way: Vec::new(),
        refuses: true,
        refusals: 0,
    };
    let mut owners = 0;
    while !own(&mut world, shortcut) {
        owners += 1;
        assert!(owners < 10_000, "seed {seed}: the range is never settled");
    }
    (0..200).for_each(|_| world.turn());
    if world.stored == [1; ROWS] { Ok(world.refusals) } else { Err(world.stored) }
}

#[test]
fn each_position_is_stored_once_whatever_is_refused_and_whenever() {
    let (mut refusals, mut runs) = (0, 0);
    for seed in seeds(50_000) {
        runs += 1;
        match stored_once(seed, Shortcut::Nothing) {
            Ok(count) => refusals += u64::from(count),
            Err(stored) => panic!("seed {seed}: rows stored {stored:?} times"),
        }
    }
    assert!(refusals > runs / 2, "{refusals} refusals in {runs} runs");
}

#[test]
fn a_refusal_taken_for_the_end_of_earlier_sends_is_caught() {
    assert!((0..50_000).any(|seed| stored_once(seed, Shortcut::ForgetEarlierSends).is_err()));
}

#[test]
fn a_first_send_that_is_refused_is_over_at_once_and_a_later_one_is_not() {
    let mut proof = Proof::recorded(5);
    proof.sent(Sent::Refused);
    assert_eq!(proof.next(4), Step::Settle);
    assert_eq!(proof.read_back(3, true), Some(2));
    let mut proof = Proof::recorded(5);
    proof.sent(Sent::Unknown);
    proof.sent(Sent::Refused);
    assert_eq!((proof.next(4), proof.next(6)), (Step::ReadBack, Step::Settle));
}
