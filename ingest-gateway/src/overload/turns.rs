//! Whose turn it is: a bounded queue in front of the work, fair between projects.
//!
//! Each project has a line of its own. When there is room, the project whose turn is due goes first (start-time fair
//! queueing; Goyal, Vin, Cheng 1996): over any time in which two projects both have someone waiting, what they got
//! differs by at most one request of each. One that sends little finds its turn due at once, however long another's
//! line is. When the queue is full, the last one of the longest line makes room, so the flood refuses itself.
//!
//! A line that does not empty is overload, not a burst: then nobody waits in it longer than a moment, because a request
//! that waits and is answered late helps no one, and one that is refused can be sent elsewhere (CoDel's insight; Nichols,
//! Jacobson 2012). That is each line's own matter: one that sends little may wait for its turn beside a flood. Nothing
//! here knows a clock; times are nanoseconds of one steady clock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// So long a line must not have been empty to be overload.
const STANDING_AFTER_NS: i64 = 100_000_000;
/// So long nobody must have been refused for it to be over.
const CALM_AFTER_NS: i64 = 1_000_000_000;

/// The bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueBounds {
    /// Most requests that wait.
    pub(crate) waiting: usize,
    /// Longest that a request waits.
    pub(crate) wait_ns: i64,
    /// Longest that a request waits under overload.
    pub(crate) standing_wait_ns: i64,
}

/// Names a request that waits.
pub(super) type Ticket = u64;

/// Why a request gets no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTurn {
    /// Its project waits for more than its share.
    Share,
    /// There are more than can be worked on, and its project is the only one.
    Busy,
}

/// What becomes of a request that arrives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is its turn.
    Go,
    /// It waits, at most until then; for it another one may have had to leave.
    Wait { ticket: Ticket, until: i64, evicted: Option<Ticket> },
    /// There is no room.
    Refused(NoTurn),
}

/// What becomes of those that waited.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Called {
    /// Their turn has come, on their project's account.
    pub(super) go: Vec<(Ticket, Arc<str>)>,
    /// They have waited too long.
    pub(super) late: Vec<(Ticket, NoTurn)>,
}

#[derive(Debug)]
pub(super) struct Turns {
    bounds: QueueBounds,
    serving: usize,
    waiting: usize,
    /// The due time of whoever went last, in cost served.
    due: u64,
    lines: HashMap<Arc<str>, Line>,
    next_ticket: Ticket,
}

#[derive(Debug)]
struct Line {
    serving: usize,
    waiting: VecDeque<Waiter>,
    /// When this line's next turn is due, in cost served.
    due: u64,
    is_standing: bool,
    /// When nobody was waiting last.
    empty_at: i64,
    refused_at: i64,
}

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    cost: u64,
    since: i64,
}

impl Line {
    /// How long who stands in this line may wait.
    fn longest_wait(&mut self, bounds: QueueBounds, now: i64) -> i64 {
        if self.is_standing {
            self.is_standing = now.saturating_sub(self.refused_at) < CALM_AFTER_NS;
        } else {
            self.is_standing = now.saturating_sub(self.empty_at) > STANDING_AFTER_NS;
            if self.is_standing {
                self.refused_at = now;
            }
        }
        if self.is_standing { bounds.standing_wait_ns } else { bounds.wait_ns }
    }
}

impl Turns {
    pub(super) fn new(bounds: QueueBounds) -> Self {
        Self { bounds, serving: 0, waiting: 0, due: 0, lines: HashMap::new(), next_ticket: 0 }
    }

    pub(super) fn serving(&self) -> usize {
        self.serving
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether a request of this project would be refused now, for who wants to know before the body is read.
    ///
    /// # Errors
    /// Why.
    pub(super) fn expect(&self, project: &str, limit: usize) -> Result<(), NoTurn> {
        if self.waiting < self.bounds.waiting || (self.waiting == 0 && self.serving < limit) {
            return Ok(());
        }
        let own = self.lines.get(project).map_or(0, |line| line.waiting.len());
        if self.waiting > 0 && own + 1 < self.longest() { Ok(()) } else { Err(self.why(project)) }
    }

    /// Takes a request in. `cost` is what its project's share is measured in.
    pub(super) fn arrive(&mut self, project: &Arc<str>, cost: u64, limit: usize, now: i64) -> Arrival {
        if self.waiting == 0 && self.serving < limit {
            let line = self.line(project, now);
            line.serving += 1;
            let due = line.due;
            line.due = due.saturating_add(cost.max(1));
            self.due = due;
            self.serving += 1;
            return Arrival::Go;
        }
        let mut evicted = None;
        if self.waiting >= self.bounds.waiting {
            if let Err(why) = self.expect(project, limit) {
                if let Some(line) = self.lines.get_mut(project) {
                    line.refused_at = now;
                }
                return Arrival::Refused(why);
            }
            evicted = self.evict(now);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let bounds = self.bounds;
        let line = self.line(project, now);
        line.waiting.push_back(Waiter { ticket, cost: cost.max(1), since: now });
        let until = now.saturating_add(line.longest_wait(bounds, now));
        self.waiting += 1;
        Arrival::Wait { ticket, until, evicted }
    }

    /// A request that has its turn costs more than it seemed to when it came.
    pub(super) fn cost_more(&mut self, project: &str, more: u64) {
        if let Some(line) = self.lines.get_mut(project) {
            line.due = line.due.saturating_add(more);
        }
    }

    /// A request that had its turn has ended.
    pub(super) fn end(&mut self, project: &str) {
        self.serving = self.serving.saturating_sub(1);
        if let Some(line) = self.lines.get_mut(project) {
            line.serving = line.serving.saturating_sub(1);
        }
        self.tidy(project);
    }

    /// Calls those whose turn it is, and sends away who has waited too long.
    pub(super) fn call(&mut self, limit: usize, now: i64) -> Called {
        let mut called = Called::default();
        while self.serving < limit
            && let Some(project) = self.next()
        {
            let Some(line) = self.lines.get_mut(&project) else { break };
            let Some(waiter) = line.waiting.pop_front() else { break };
            self.waiting -= 1;
            let longest = line.longest_wait(self.bounds, now);
            if line.waiting.is_empty() {
                line.empty_at = now;
            }
            if now.saturating_sub(waiter.since) > longest {
                line.refused_at = now;
                called.late.push((waiter.ticket, self.why(&project)));
                self.tidy(&project);
                continue;
            }
            line.serving += 1;
            self.due = line.due;
            line.due = line.due.saturating_add(waiter.cost);
            self.serving += 1;
            called.go.push((waiter.ticket, project));
        }
        called
    }

    /// Lets a request leave that waits no more; says why it had no turn, or nothing if it is not waiting.
    pub(super) fn leave(&mut self, project: &str, ticket: Ticket, now: i64) -> Option<NoTurn> {
        let why = self.why(project);
        let line = self.lines.get_mut(project)?;
        let at = line.waiting.iter().position(|waiter| waiter.ticket == ticket)?;
        line.waiting.remove(at);
        line.refused_at = now;
        if line.waiting.is_empty() {
            line.empty_at = now;
        }
        self.waiting -= 1;
        self.tidy(project);
        Some(why)
    }

    /// The line of a project; one that begins to wait now is due now, not earlier.
    fn line(&mut self, project: &Arc<str>, now: i64) -> &mut Line {
        let due = self.due;
        let line = self.lines.entry(Arc::clone(project)).or_insert_with(|| Line {
            serving: 0,
            waiting: VecDeque::new(),
            due,
            is_standing: false,
            empty_at: now,
            refused_at: now,
        });
        if line.waiting.is_empty() {
            line.due = line.due.max(due);
            line.empty_at = now;
        }
        line
    }

    /// The project whose turn is due first; of several, who has waited longest.
    fn next(&self) -> Option<Arc<str>> {
        let first = |line: &Line| line.waiting.front().map(|waiter| (line.due, waiter.ticket));
        let due = self.lines.iter().filter_map(|(project, line)| Some((first(line)?, project)));
        due.min_by_key(|(due, _)| *due).map(|(_, project)| Arc::clone(project))
    }

    fn longest(&self) -> usize {
        self.lines.values().map(|line| line.waiting.len()).max().unwrap_or(0)
    }

    /// Sends the last one of the longest line away.
    fn evict(&mut self, now: i64) -> Option<Ticket> {
        let (project, line) = self.lines.iter_mut().max_by_key(|(_, line)| line.waiting.len())?;
        let project = Arc::clone(project);
        let ticket = line.waiting.pop_back()?.ticket;
        line.refused_at = now;
        self.waiting -= 1;
        self.tidy(&project);
        Some(ticket)
    }

    fn why(&self, project: &str) -> NoTurn {
        let others = self
            .lines
            .iter()
            .any(|(other, line)| &**other != project && (line.serving > 0 || !line.waiting.is_empty()));
        if others { NoTurn::Share } else { NoTurn::Busy }
    }

    /// Forgets a line that has nothing and owes nothing. One that owes is kept, or whoever leaves and comes back would be
    /// let in ahead of those who stayed; at the latest all are forgotten when nobody is here. So memory is bounded by the
    /// projects that came since.
    fn tidy(&mut self, project: &str) {
        if self.serving == 0 && self.waiting == 0 {
            self.lines.clear();
            self.due = 0;
        } else if self
            .lines
            .get(project)
            .is_some_and(|line| line.serving == 0 && line.waiting.is_empty() && line.due <= self.due)
        {
            self.lines.remove(project);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const MS: i64 = 1_000_000;
    const BOUNDS: QueueBounds = QueueBounds { waiting: 10, wait_ns: 100 * MS, standing_wait_ns: 5 * MS };

    fn project(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    fn wait(arrival: &Arrival) -> Ticket {
        let Arrival::Wait { ticket, .. } = arrival else { panic!("it waits: {arrival:?}") };
        *ticket
    }

    #[test]
    fn who_sends_little_does_not_stand_behind_a_flood() {
        let mut turns = Turns::new(BOUNDS);
        let (flood, polite) = (project("flood"), project("polite"));
        assert_eq!(turns.arrive(&flood, 1, 1, 0), Arrival::Go);
        for _ in 0..5 {
            wait(&turns.arrive(&flood, 1, 1, 0));
        }
        let first = wait(&turns.arrive(&polite, 1, 1, 0));
        turns.end("flood");
        let mut called = turns.call(1, 1).go;
        turns.end(&called[0].1);
        called.extend(turns.call(1, 2).go);
        assert!(called.contains(&(first, polite)), "the second turn at the latest: {called:?}");
    }

    #[test]
    fn what_a_request_turns_out_to_cost_is_held_against_its_project() {
        let mut turns = Turns::new(BOUNDS);
        let (dense, plain) = (project("dense"), project("plain"));
        assert_eq!(turns.arrive(&dense, 1, 1, 0), Arrival::Go);
        turns.cost_more("dense", 3);
        wait(&turns.arrive(&dense, 1, 1, 0));
        for _ in 0..3 {
            wait(&turns.arrive(&plain, 1, 1, 0));
        }
        let mut order = Vec::new();
        turns.end("dense");
        while let Some((_, project)) = turns.call(1, 1).go.pop() {
            turns.end(&project);
            order.push(project);
        }
        assert_eq!(order, [plain.clone(), plain.clone(), plain, dense]);
    }

    #[test]
    fn a_full_queue_sends_the_flood_away_and_lets_others_in() {
        let mut turns = Turns::new(BOUNDS);
        let (flood, polite) = (project("flood"), project("polite"));
        turns.arrive(&flood, 1, 1, 0);
        let tickets: Vec<Ticket> = (0..10).map(|_| wait(&turns.arrive(&flood, 1, 1, 0))).collect();
        assert_eq!(turns.expect("flood", 1), Err(NoTurn::Busy), "it is alone");
        assert_eq!(turns.expect("polite", 1), Ok(()));
        for taken in 0..5 {
            let Arrival::Wait { evicted, .. } = turns.arrive(&polite, 1, 1, 0) else { panic!("it waits") };
            assert_eq!(evicted, Some(tickets[9 - taken]), "the last one of the longest line");
        }
        assert_eq!(turns.arrive(&polite, 1, 1, 0), Arrival::Refused(NoTurn::Share), "both have half");
        assert_eq!(turns.arrive(&flood, 1, 1, 0), Arrival::Refused(NoTurn::Share));
        assert_eq!(turns.waiting(), 10);
    }

    #[test]
    fn a_burst_may_wait_and_overload_may_not() {
        let mut turns = Turns::new(BOUNDS);
        let a = project("a");
        turns.arrive(&a, 1, 1, 0);
        let Arrival::Wait { until, ticket, .. } = turns.arrive(&a, 1, 1, 0) else { panic!("it waits") };
        assert_eq!(until, 100 * MS);
        let Arrival::Wait { until, .. } = turns.arrive(&a, 1, 1, 101 * MS) else { panic!("it waits") };
        assert_eq!(until, 106 * MS, "the queue has not been empty for too long");
        turns.end("a");
        let called = turns.call(1, 104 * MS);
        assert_eq!((called.late, called.go.len()), (vec![(ticket, NoTurn::Busy)], 1));
        turns.end("a");
        assert_eq!(turns.call(1, 110 * MS), Called::default());
        // Calm for long enough.
        turns.arrive(&a, 1, 1, 2_000 * MS);
        let Arrival::Wait { until, .. } = turns.arrive(&a, 1, 1, 2_000 * MS) else { panic!("it waits") };
        assert_eq!(until, 2_100 * MS);
    }

    #[test]
    fn who_sends_little_may_wait_while_a_flood_may_not() {
        let mut turns = Turns::new(BOUNDS);
        let (flood, polite) = (project("flood"), project("polite"));
        turns.arrive(&flood, 1, 1, 0);
        turns.arrive(&flood, 1, 1, 0);
        let Arrival::Wait { until, .. } = turns.arrive(&flood, 1, 1, 200 * MS) else { panic!("it waits") };
        assert_eq!(until, 205 * MS);
        let Arrival::Wait { until, ticket, .. } = turns.arrive(&polite, 1, 1, 200 * MS) else {
            panic!("it waits")
        };
        assert_eq!(until, 300 * MS);
        turns.end("flood");
        let called = turns.call(1, 290 * MS);
        assert_eq!((called.go, called.late), (vec![(ticket, polite)], vec![]));
    }

    #[test]
    fn who_leaves_makes_room_and_nothing_is_kept_of_who_is_gone() {
        let mut turns = Turns::new(BOUNDS);
        let (a, b) = (project("a"), project("b"));
        turns.arrive(&a, 1, 1, 0);
        let ticket = wait(&turns.arrive(&b, 1, 1, 0));
        assert_eq!(turns.leave("b", ticket, 1), Some(NoTurn::Share));
        assert_eq!(turns.leave("b", ticket, 1), None);
        turns.end("a");
        assert!(turns.lines.is_empty() && turns.serving() == 0 && turns.waiting() == 0);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Arrive(usize, u64),
        End(usize),
        Leave(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..4usize, 1..10u64).prop_map(|(who, cost)| Step::Arrive(who, cost)),
            2 => (0..100usize).prop_map(Step::End),
            1 => (0..100usize).prop_map(Step::Leave),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        /// Against the simplest bookkeeping: bounds hold, nobody is lost or called twice, and nobody waits while there
        /// is room (work-conserving).
        #[test]
        fn bounds_hold_nobody_is_lost_and_no_room_stays_empty(steps in steps(), limit in 1usize..6) {
            let names: Vec<Arc<str>> = (0..4).map(|n| project(&format!("p{n}"))).collect();
            let mut turns = Turns::new(BOUNDS);
            let mut serving: Vec<usize> = Vec::new();
            let mut waiting: BTreeMap<Ticket, usize> = BTreeMap::new();
            for (now, step) in (0i64..).zip(steps) {
                match step {
                    Step::Arrive(who, cost) => match turns.arrive(&names[who], cost, limit, now) {
                        Arrival::Go => serving.push(who),
                        Arrival::Refused(_) => prop_assert_eq!(waiting.len(), BOUNDS.waiting),
                        Arrival::Wait { ticket, evicted, .. } => {
                            if let Some(evicted) = evicted {
                                prop_assert!(waiting.remove(&evicted).is_some());
                            }
                            waiting.insert(ticket, who);
                        }
                    },
                    Step::End(which) if !serving.is_empty() => {
                        let which = which % serving.len();
                        turns.end(&names[serving.swap_remove(which)]);
                    }
                    Step::Leave(which) if !waiting.is_empty() => {
                        let (ticket, who) = waiting.iter().nth(which % waiting.len()).map(|(t, w)| (*t, *w)).unwrap();
                        prop_assert!(turns.leave(&names[who], ticket, now).is_some());
                        waiting.remove(&ticket);
                    }
                    Step::End(_) | Step::Leave(_) => {}
                }
                for (ticket, project) in turns.call(limit, now).go {
                    let who = waiting.remove(&ticket).unwrap();
                    prop_assert_eq!(&project, &names[who]);
                    serving.push(who);
                }
                prop_assert_eq!((turns.serving(), turns.waiting()), (serving.len(), waiting.len()));
                prop_assert!(serving.len() <= limit && waiting.len() <= BOUNDS.waiting);
                prop_assert!(waiting.is_empty() || serving.len() == limit, "someone waits and there is room");
                prop_assert!(turns.lines.len() <= 4);
            }
        }

        /// Max-min fair: of projects that always have someone waiting, none gets more than another by more than one
        /// request of each, and whoever wants less than its share gets all it wants.
        #[test]
        fn waiting_projects_get_the_same_and_a_modest_one_all_it_wants(
            costs in prop::collection::vec(1u64..20, 3),
            modest_every in 6usize..20,
            limit in 1usize..5,
        ) {
            let bounds = QueueBounds { waiting: 1_000, ..BOUNDS };
            let greedy: Vec<Arc<str>> = (0..3).map(|n| project(&format!("greedy{n}"))).collect();
            let modest = project("modest");
            let mut turns = Turns::new(bounds);
            let mut owners: BTreeMap<Ticket, (Arc<str>, u64, usize)> = BTreeMap::new();
            let mut serving: VecDeque<Arc<str>> = VecDeque::new();
            let mut got: BTreeMap<Arc<str>, u64> = BTreeMap::new();
            let mut modest_waited = 0;
            for round in 0..2_000usize {
                for (name, cost) in greedy.iter().zip(&costs) {
                    while turns.lines.get(name).is_none_or(|line| line.waiting.len() < 3) {
                        match turns.arrive(name, *cost, limit, 0) {
                            Arrival::Go => serving.push_back(Arc::clone(name)),
                            arrival => {
                                owners.insert(wait(&arrival), (Arc::clone(name), *cost, round));
                            }
                        }
                    }
                }
                if round.is_multiple_of(modest_every) {
                    let ticket = wait(&turns.arrive(&modest, 1, limit, 0));
                    owners.insert(ticket, (Arc::clone(&modest), 1, round));
                }
                if let Some(ended) = serving.pop_front() {
                    turns.end(&ended);
                }
                for (ticket, _) in turns.call(limit, 0).go {
                    let (name, cost, since) = owners.remove(&ticket).unwrap();
                    if name == modest {
                        modest_waited = modest_waited.max(round - since);
                    }
                    *got.entry(Arc::clone(&name)).or_default() += cost;
                    serving.push_back(name);
                }
                let most = costs.iter().max().unwrap() * (limit as u64 + 2);
                let of = |name: &Arc<str>| got.get(name).copied().unwrap_or(0);
                let totals: Vec<u64> = greedy.iter().map(of).collect();
                let spread = totals.iter().max().unwrap() - totals.iter().min().unwrap();
                prop_assert!(spread <= most, "{totals:?}");
            }
            // One turn ends each round; before it are at most one of each other project and ties.
            prop_assert!(modest_waited <= 4, "a modest project waited {modest_waited} turns");
        }
    }
}
