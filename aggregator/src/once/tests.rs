//! A simulation: owners that crash at every point, an engine that is slow, forgets, and crashes, and a network that
//! delivers late. Whatever happens, each row is stored exactly once; and every shortcut that an owner could take is
//! shown to break that, so the simulation is known to look.

use super::*;

/// Rows of the range.
const ROWS: usize = 4;
const TABLE: usize = 0;

/// The generator of a run; its seed is printed with every failure (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// An insert that ClickHouse may still carry out.
struct Insert {
    attempt: u32,
    rows: Vec<usize>,
    insert_before_ms: i64,
    started: bool,
}

/// What is outside of any owner: Kafka's note, the engine, the network.
struct World {
    chance: Chance,
    now_ms: i64,
    note: Option<Note>,
    /// How often each row is stored.
    stored: [u32; ROWS],
    /// Attempts whose token the engine has recorded.
    tokens: Vec<u32>,
    on_its_way: Vec<Insert>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            chance: Chance(seed),
            now_ms: 1_000_000,
            note: None,
            stored: [0; ROWS],
            tokens: Vec::new(),
            on_its_way: Vec::new(),
        }
    }

    fn missing(&self) -> Vec<usize> {
        (0..ROWS).filter(|row| self.stored[*row] == 0).collect()
    }

    /// Something happens that no owner asked for.
    fn turn(&mut self) {
        self.now_ms += (self.chance.next() % 4_000) as i64;
        if self.on_its_way.is_empty() {
            return;
        }
        let chosen = (self.chance.next() % self.on_its_way.len() as u64) as usize;
        match self.chance.next() % 8 {
            // The engine crashes: what ran is gone, of some the token is already recorded, of some the first part stored.
            0 => {
                let (running, waiting): (Vec<_>, Vec<_>) =
                    self.on_its_way.drain(..).partition(|insert| insert.started);
                self.on_its_way = waiting;
                for insert in running {
                    if self.tokens.contains(&insert.attempt) {
                        continue;
                    }
                    match self.chance.next() % 3 {
                        0 => self.tokens.push(insert.attempt),
                        1 => self.carry_out(insert.attempt, &insert.rows[..insert.rows.len() / 2]),
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
                self.carry_out(insert.attempt, &insert.rows);
            }
            _ => {}
        }
    }

    fn carry_out(&mut self, attempt: u32, rows: &[usize]) {
        if !self.tokens.contains(&attempt) {
            self.tokens.push(attempt);
            rows.iter().for_each(|row| self.stored[*row] += 1);
        }
    }

    fn send(&mut self, attempt: u32, rows: &[usize], insert_before_ms: i64) -> Sent {
        match self.chance.next() % 3 {
            0 if insert_before_ms > self.now_ms => {
                self.carry_out(attempt, rows);
                Sent::Acknowledged
            }
            0 => Sent::Unknown,
            _ => {
                self.on_its_way.push(Insert {
                    attempt,
                    rows: rows.to_vec(),
                    insert_before_ms,
                    started: false,
                });
                Sent::Unknown
            }
        }
    }
}

/// What an owner could be tempted to leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortcut {
    Nothing,
    /// Send before the attempt is recorded.
    SendBeforeNote,
    /// Take an acknowledged repeat for proof: the token without the positions.
    TrustTheToken,
    /// Judge rows as missing while `insert_before` is still ahead.
    DoNotWaitForInsertBefore,
    /// Judge rows as missing without asking what still runs.
    DoNotAskWhatRuns,
    /// Send everything again under a fresh token instead of the missing rows.
    SendAllAgain,
    /// Commit the range before it is proved.
    CommitBeforeProof,
}

/// One owner, from its assignment to its end: a proof, or a crash at any point. Returns whether the range is settled.
fn own(world: &mut World, shortcut: Shortcut) -> bool {
    let all: Vec<usize> = (0..ROWS).collect();
    let mut only: Option<Vec<usize>> = None;
    let mut proof =
        world.note.map_or(Proof::unsent(), |note| Proof::inherited(note.attempt, note.insert_before_ms));
    loop {
        world.turn();
        // The crash points: before and after each effect.
        if world.chance.one_in(12) {
            return false;
        }
        let step = match proof.next(world.now_ms) {
            Step::ReadBack if shortcut == Shortcut::DoNotWaitForInsertBefore => Step::Settle,
            step => step,
        };
        match step {
            Step::Done => return true,
            Step::Begin(attempt) => begin(world, &mut proof, attempt, shortcut),
            Step::Send => {
                let rows = only.as_ref().unwrap_or(&all).clone();
                let sent = world.send(proof.attempt(), &rows, proof.insert_before_ms());
                if shortcut == Shortcut::SendBeforeNote {
                    if world.chance.one_in(3) {
                        return false;
                    }
                    note(world, proof.attempt(), proof.insert_before_ms());
                }
                proof.sent(sent);
                match (shortcut, sent) {
                    (Shortcut::TrustTheToken, Sent::Acknowledged) | (Shortcut::CommitBeforeProof, _) => {
                        return true;
                    }
                    _ => {}
                }
            }
            Step::ReadBack => {
                let _not_yet = proof.read_back(world.missing().len(), false);
            }
            Step::Settle => {
                let runs = world.on_its_way.iter().any(|insert| insert.started);
                if runs && shortcut != Shortcut::DoNotAskWhatRuns {
                    continue;
                }
                world.turn();
                let missing = world.missing();
                if let Some(Step::Begin(attempt)) = proof.read_back(missing.len(), true) {
                    only = Some(if shortcut == Shortcut::SendAllAgain { all.clone() } else { missing });
                    begin(world, &mut proof, attempt, shortcut);
                }
            }
        }
    }
}

fn begin(world: &mut World, proof: &mut Proof, attempt: u32, shortcut: Shortcut) {
    let insert_before_ms = world.now_ms + INSERT_WINDOW_MS;
    if shortcut != Shortcut::SendBeforeNote {
        note(world, attempt, insert_before_ms);
    }
    proof.begun(attempt, insert_before_ms);
}

fn note(world: &mut World, attempt: u32, insert_before_ms: i64) {
    let note = Note { first: 0, last: 9, table: TABLE, attempt, insert_before_ms };
    // It travels as text.
    world.note = Note::parse(&note.text()).unwrap();
}

/// Owners come and go until one settles the range; then everything that is still on its way arrives.
fn stored_once(seed: u64, shortcut: Shortcut) -> Result<u32, [u32; ROWS]> {
    let mut world = World::new(seed);
    let mut owners = 1;
    while !own(&mut world, shortcut) {
        owners += 1;
        assert!(owners < 10_000, "seed {seed}: the range is never settled");
    }
    for _ in 0..200 {
        world.turn();
    }
    if world.stored == [1; ROWS] { Ok(owners) } else { Err(world.stored) }
}

#[test]
fn each_row_is_stored_exactly_once_whatever_crashes_and_whenever() {
    let runs: u64 = std::env::var("FLEETLOG_SIMULATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(50_000);
    let mut owners = 0;
    for seed in 0..runs {
        match stored_once(seed, Shortcut::Nothing) {
            Ok(count) => owners += u64::from(count),
            Err(stored) => panic!("seed {seed}: rows stored {stored:?} times"),
        }
    }
    assert!(owners > runs + runs / 2, "crashes are rare: {owners} owners in {runs} runs");
}

#[test]
fn every_shortcut_is_caught() {
    for shortcut in [
        Shortcut::SendBeforeNote,
        Shortcut::TrustTheToken,
        Shortcut::DoNotWaitForInsertBefore,
        Shortcut::DoNotAskWhatRuns,
        Shortcut::SendAllAgain,
        Shortcut::CommitBeforeProof,
    ] {
        let caught = (0..20_000).any(|seed| stored_once(seed, shortcut).is_err());
        assert!(caught, "{shortcut:?} breaks nothing that the simulation sees");
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
