//! A simulation: processes that crash at every point or wake as zombies, requests that are lost or arrive late, answers
//! that nobody hears, and a coordinator that gives up. Whatever happens, what each record became is visible once; and
//! every shortcut is shown to break that.
//!
//! `FLEETLOG_SIM_RUNS` and `FLEETLOG_SIM_SEED` make it longer and repeat it.

use fleetlog_chance::{Chance, seeds};

use super::*;

/// Records of the partition, and most of one unit.
const LOG: usize = 8;
const UNIT: u64 = 3;
/// Transactional ids; a process takes one, new or that of an earlier process.
const IDS: usize = 3;
/// Runs of the tests, of about 80 steps each.
const RUNS: u64 = 20_000;
const CATCH_WITHIN: u64 = 20_000;

/// What a process could be tempted to leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortcut {
    Nothing,
    /// Take a failed commit for one that did not happen.
    RepeatBlindly,
    /// Look up the outcome while the transaction in doubt may still be open.
    LookUpTooEarly,
    /// Take a failed commit for one that happened.
    AssumeCommitted,
    /// Settle the offset apart from what was written, before it.
    OffsetBefore,
    /// Settle the offset apart from what was written, after it.
    OffsetAfter,
    /// Settle offsets without saying in which generation of the group.
    NoGeneration,
    /// Begin where the committed offset stands while a transaction over it is open.
    UnstableOffset,
}

const SHORTCUTS: [Shortcut; 7] = [
    Shortcut::RepeatBlindly,
    Shortcut::LookUpTooEarly,
    Shortcut::AssumeCommitted,
    Shortcut::OffsetBefore,
    Shortcut::OffsetAfter,
    Shortcut::NoGeneration,
    Shortcut::UnstableOffset,
];

/// What Kafka knows of one transactional id.
#[derive(Default)]
struct Id {
    epoch: u32,
    open: bool,
    writes: Vec<usize>,
    offset: Option<usize>,
}

#[derive(Clone)]
enum Ask {
    Write(Vec<usize>),
    Offset { next: usize, generation: u32 },
    End { commit: bool },
}

#[derive(Clone)]
struct Request {
    id: usize,
    epoch: u32,
    ask: Ask,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Done,
    /// Another client of the id, or the coordinator, has ended its transaction.
    Fenced,
    /// The group has gone on without the member.
    Stale,
    /// Nothing was heard.
    Silence,
}

struct World {
    chance: Chance,
    shortcut: Shortcut,
    steps: u64,
    generation: u32,
    committed: usize,
    visible: [u32; LOG],
    ids: [Id; IDS],
    on_its_way: Vec<Request>,
}

impl World {
    /// Something happens that no process asked for.
    fn happen(&mut self) {
        self.steps += 1;
        match self.chance.below(16) {
            0 => {
                let id = &mut self.ids[self.chance.place(IDS)];
                // The coordinator gives up on it.
                if id.open {
                    *id = Id { epoch: id.epoch + 1, ..Id::default() };
                }
            }
            1..=4 if !self.on_its_way.is_empty() => {
                let late = self.chance.place(self.on_its_way.len());
                let request = self.on_its_way.swap_remove(late);
                if self.chance.below(4) > 0 {
                    let _nobody_hears = self.carry_out(request);
                }
            }
            _ => {}
        }
    }

    fn carry_out(&mut self, request: Request) -> Answer {
        let id = &mut self.ids[request.id];
        if request.epoch != id.epoch {
            return Answer::Fenced;
        }
        match request.ask {
            Ask::Write(records) => {
                id.open = true;
                id.writes.extend(records);
            }
            Ask::Offset { next, generation } => {
                if generation != self.generation && self.shortcut != Shortcut::NoGeneration {
                    return Answer::Stale;
                }
                (id.open, id.offset) = (true, Some(next));
            }
            Ask::End { commit } => {
                let ended = std::mem::replace(id, Id { epoch: id.epoch, ..Id::default() });
                if commit {
                    ended.writes.iter().for_each(|record| self.visible[*record] += 1);
                    self.committed = ended.offset.unwrap_or(self.committed);
                }
            }
        }
        Answer::Done
    }

    fn ask(&mut self, id: usize, epoch: u32, ask: Ask) -> Answer {
        let request = Request { id, epoch, ask };
        match self.chance.below(8) {
            0 => Answer::Silence,
            1 => {
                self.on_its_way.push(request);
                Answer::Silence
            }
            2 => {
                let _unheard = self.carry_out(request);
                Answer::Silence
            }
            _ => self.carry_out(request),
        }
    }

    /// The committed offset, once no open transaction is over it.
    fn stable(&self) -> Option<usize> {
        let pending = self.ids.iter().any(|id| id.offset.is_some());
        (!pending || self.shortcut == Shortcut::UnstableOffset).then_some(self.committed)
    }
}

/// Where a process is in its transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Write,
    Offset,
    Commit,
}

struct Process {
    id: usize,
    epoch: u32,
    generation: u32,
    course: Course,
    stage: Stage,
    /// Everything below is settled, as far as it knows; unknown before it has looked.
    settled: Option<usize>,
    /// The unit at hand ends before this record.
    next: usize,
}

impl Process {
    /// Takes the partition from whoever has it.
    fn assigned(world: &mut World) -> Self {
        world.generation += 1;
        Self {
            id: world.chance.place(IDS),
            epoch: 0,
            generation: world.generation,
            course: Course::default(),
            stage: Stage::Write,
            settled: None,
            next: 0,
        }
    }

    /// One step; false when it has to stop, as its partition is somebody else's.
    fn step(&mut self, world: &mut World) -> bool {
        let Some(settled) = self.settled else {
            self.settled = world.stable();
            self.take(world);
            return true;
        };
        if settled >= LOG {
            return self.generation == world.generation;
        }
        let step = match self.course.next() {
            Step::Start if self.course.in_doubt && world.shortcut == Shortcut::LookUpTooEarly => Step::LookUp,
            step => step,
        };
        match step {
            Step::Start => {
                let id = &mut world.ids[self.id];
                *id = Id { epoch: id.epoch + 1, ..Id::default() };
                if world.chance.below(4) > 0 {
                    self.epoch = world.ids[self.id].epoch;
                    self.course.started();
                }
                true
            }
            Step::LookUp => {
                let seen = if world.shortcut == Shortcut::LookUpTooEarly {
                    Some(world.committed)
                } else {
                    world.stable()
                };
                if let Some(committed) = seen {
                    self.course.looked_up();
                    if committed >= self.next {
                        self.settle(world);
                    }
                }
                true
            }
            Step::Transact => self.transact(settled, world),
        }
    }

    fn transact(&mut self, settled: usize, world: &mut World) -> bool {
        let apart = matches!(world.shortcut, Shortcut::OffsetBefore | Shortcut::OffsetAfter);
        match self.stage {
            Stage::Write => {
                if world.shortcut == Shortcut::OffsetBefore && self.generation == world.generation {
                    world.committed = self.next;
                }
                let records = (settled..self.next).collect();
                match world.ask(self.id, self.epoch, Ask::Write(records)) {
                    Answer::Done => self.stage = if apart { Stage::Commit } else { Stage::Offset },
                    answer => self.give_up(answer, world),
                }
                true
            }
            Stage::Offset => {
                let offset = Ask::Offset { next: self.next, generation: self.generation };
                let answer = world.ask(self.id, self.epoch, offset);
                if answer == Answer::Done {
                    self.stage = Stage::Commit;
                } else {
                    self.give_up(answer, world);
                }
                answer != Answer::Stale
            }
            Stage::Commit => {
                let answer = world.ask(self.id, self.epoch, Ask::End { commit: true });
                if answer == Answer::Done {
                    world.happen();
                    if world.shortcut == Shortcut::OffsetAfter {
                        if world.chance.below(8) == 0 {
                            return false;
                        }
                        if self.generation == world.generation {
                            world.committed = self.next;
                        }
                    }
                    self.settle(world);
                    return true;
                }
                self.stage = Stage::Write;
                self.course
                    .failed(if answer == Answer::Fenced { State::Fenced } else { State::Unknown }, true);
                match world.shortcut {
                    Shortcut::RepeatBlindly => self.course.looked_up(),
                    Shortcut::AssumeCommitted => {
                        self.course.looked_up();
                        self.settle(world);
                    }
                    _ => {}
                }
                true
            }
        }
    }

    /// A failure before the commit: the transaction is aborted, if that is answered.
    fn give_up(&mut self, answer: Answer, world: &mut World) {
        self.stage = Stage::Write;
        let client = match answer {
            Answer::Fenced => State::Fenced,
            Answer::Stale | Answer::Silence | Answer::Done => {
                match world.ask(self.id, self.epoch, Ask::End { commit: false }) {
                    // A request that was not answered may still be on its way: only a new epoch keeps it out.
                    Answer::Done if answer == Answer::Stale => State::Usable,
                    _ => State::Unknown,
                }
            }
        };
        self.course.failed(client, false);
    }

    fn settle(&mut self, world: &mut World) {
        self.settled = Some(self.next);
        self.take(world);
    }

    fn take(&mut self, world: &mut World) {
        self.stage = Stage::Write;
        self.next =
            self.settled.map_or(0, |settled| (settled + 1 + world.chance.below(UNIT) as usize).min(LOG));
    }
}

struct Outcome {
    steps: u64,
    processes: u32,
    wrong: Option<String>,
}

fn run(seed: u64, shortcut: Shortcut) -> Outcome {
    let mut world = World {
        chance: Chance::new(seed),
        shortcut,
        steps: 0,
        generation: 0,
        committed: 0,
        visible: [0; LOG],
        ids: Default::default(),
        on_its_way: Vec::new(),
    };
    let mut processes = vec![Process::assigned(&mut world)];
    let mut started = 1;
    loop {
        world.happen();
        assert!(world.steps < 1_000_000, "seed {seed}: the log is never settled");
        match world.chance.below(40) {
            // The partition moves: whoever had it does not know yet, and goes on as a zombie.
            0 => {
                processes.push(Process::assigned(&mut world));
                started += 1;
            }
            // Killed.
            1 if processes.len() > 1 => {
                let dead = world.chance.place(processes.len());
                processes.swap_remove(dead);
            }
            _ => {}
        }
        let running = world.chance.place(processes.len());
        if !processes[running].step(&mut world) {
            processes.swap_remove(running);
        }
        if !processes.iter().any(|process| process.generation == world.generation) {
            processes.push(Process::assigned(&mut world));
            started += 1;
        }
        let owner = processes.iter().find(|process| process.generation == world.generation);
        if owner.is_some_and(|owner| owner.settled == Some(LOG)) {
            break;
        }
    }
    while !world.on_its_way.is_empty() || world.ids.iter().any(|id| id.open) {
        world.happen();
    }
    let wrong = (world.visible != [1; LOG]).then(|| format!("visible {:?} times", world.visible));
    Outcome { steps: world.steps, processes: started, wrong }
}

#[test]
fn what_each_record_became_is_visible_once_whatever_crashes_and_whoever_wakes() {
    let (mut steps, mut processes, mut runs) = (0, 0, 0);
    for seed in seeds(RUNS) {
        let outcome = run(seed, Shortcut::Nothing);
        assert_eq!(outcome.wrong, None, "seed {seed}");
        runs += 1;
        steps += outcome.steps;
        processes += u64::from(outcome.processes);
    }
    println!("{steps} steps in {runs} runs of {processes} processes");
    assert!(processes > runs * 2, "the partition rarely moves: {processes} processes in {runs} runs");
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
