//! Which groups are to be recomputed, and how far each partition is reflected in them. Pure: time is passed in.
//!
//! Everything is bounded. Touches that do not fit are forgotten, and the offsets they came from stay uncovered: they
//! are found again in the store, as after a crash.
//!
//! A group that cannot be recomputed must not keep the others from it. After a failure half as many groups are taken,
//! until one fails alone; that one is set aside, for longer each time, and tried again alone. It holds back nothing but
//! its own project's progress, which has to say that something is not reflected: the project is behind the others.
//!
//! # Invariants
//! For every partition and project, each event beyond the project's progress and up to `covered` has its group in
//! `pending` or `running`, and those with `covered < offset ≤ stored` are still to be found in the store. So everything
//! up to [`Touched::derived`] is reflected in the groups. No project's progress ever goes back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use fleetlog_store::derived::{GroupHour, GroupKey, Reflected};

/// A group of this many events may be recomputed once a second; one of ten times as many, every ten seconds.
const EVENTS_PER_SECOND: u64 = 2000;
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Failures of a group alone from which on it is set aside, and for how long at first and at most.
const FAILURES: u32 = 5;
const ASIDE_MIN: Duration = Duration::from_secs(10);
const ASIDE_MAX: Duration = Duration::from_secs(300);
/// Projects that can be behind in a partition. The broken groups of one more hold back all the others, as if they only
/// waited.
const BEHIND_MAX: usize = 1000;

/// What waits to be recomputed.
#[derive(Debug)]
pub(crate) struct Touched {
    limit: usize,
    pending: HashMap<GroupKey, Pending>,
    running: HashMap<GroupKey, Pending>,
    partitions: BTreeMap<i32, Coverage>,
    /// When groups that are costly to recompute may be recomputed again.
    resting: HashMap<GroupKey, Instant>,
    /// Most groups to take at once.
    at_once: usize,
    /// Groups that failed alone since they last succeeded, and how often.
    failures: HashMap<GroupKey, u32>,
    /// Whether the group taken last was one that is set aside.
    tried_broken: bool,
}

/// What a failed recomputation says about its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The store refuses what it was asked or given: the same again cannot help.
    Refused,
    /// It may have been the moment: a lack of memory or of time, which may be the groups' doing.
    Passing,
    /// The store was not there, which is nobody's doing.
    Outage,
}

/// A touched group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Hours of its new events, with the day of their receipt.
    pub(crate) hours: BTreeSet<(i32, u32)>,
    since: Instant,
    /// Lowest offset, by partition, of the events that touched it.
    lowest: BTreeMap<i32, i64>,
}

impl Pending {
    /// A group that is known to have events in these hours, whichever they are.
    pub(crate) fn in_hours(hours: BTreeSet<(i32, u32)>) -> Self {
        Self { hours, since: Instant::now(), lowest: BTreeMap::new() }
    }
}

#[derive(Clone, Debug)]
struct Coverage {
    covered: i64,
    stored: i64,
    /// How far this had come when it was last asked for.
    reflected: Reflected,
}

/// Offsets of a partition whose groups have to be looked up in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) partition: i32,
    /// The groups of events up to here are known.
    pub(crate) beyond: i64,
    /// Events up to here are stored.
    pub(crate) stored: i64,
    /// The projects that are behind there: the events of all others are reflected. Empty where those of none are.
    pub(crate) projects: Vec<String>,
}

impl Touched {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            pending: HashMap::new(),
            running: HashMap::new(),
            partitions: BTreeMap::new(),
            resting: HashMap::new(),
            at_once: usize::MAX,
            failures: HashMap::new(),
            tried_broken: false,
        }
    }

    /// A partition is ours: this much of it is reflected, events up to `stored` are stored.
    pub(crate) fn assigned(&mut self, partition: i32, reflected: Reflected, stored: i64) {
        let reflected = Reflected { others: reflected.others.min(stored), ..reflected };
        self.partitions
            .insert(partition, Coverage { covered: reflected.all().min(stored), stored, reflected });
    }

    /// A partition is ours no longer; what it touched is recomputed all the same.
    pub(crate) fn gone(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// A range is stored. Returns false when its touches did not fit, or have to wait for earlier ones to be found.
    pub(crate) fn stored(
        &mut self,
        now: Instant,
        partition: i32,
        (first, last): (i64, i64),
        touches: Vec<GroupHour>,
    ) -> bool {
        let room = self.pending.len() + touches.len() <= self.limit;
        let Some(coverage) = self.partitions.get_mut(&partition) else { return true };
        let fits = room && coverage.covered == coverage.stored;
        coverage.stored = coverage.stored.max(last);
        if fits {
            coverage.covered = coverage.stored;
            for touch in touches {
                self.touch(now, touch, partition, first);
            }
        }
        fits
    }

    fn touch(&mut self, now: Instant, touch: GroupHour, partition: i32, offset: i64) {
        let pending = self.pending.entry(touch.key).or_insert_with(|| Pending {
            hours: BTreeSet::new(),
            since: now,
            lowest: BTreeMap::new(),
        });
        pending.hours.insert((touch.hour, touch.received_day));
        pending.lowest.entry(partition).and_modify(|lowest| *lowest = offset.min(*lowest)).or_insert(offset);
    }

    /// A group that is being recomputed makes it necessary to recompute another one. Until that is done the events that
    /// touched the first are not reflected everywhere, so they count as touching the other one too.
    pub(crate) fn touch_next(&mut self, now: Instant, cause: &GroupKey, key: GroupKey) {
        let Some(lowest) = self.running.get(cause).map(|cause| cause.lowest.clone()) else { return };
        let pending = self.pending.entry(key).or_insert_with(|| Pending {
            hours: BTreeSet::new(),
            since: now,
            lowest: BTreeMap::new(),
        });
        for (partition, offset) in lowest {
            let lowest = pending.lowest.entry(partition).or_insert(offset);
            *lowest = offset.min(*lowest);
        }
    }

    /// A partition whose uncovered events have to be found in the store, once there is room for what they touch.
    pub(crate) fn gap(&self) -> Option<Gap> {
        if self.pending.len() > self.limit / 2 {
            return None;
        }
        let (partition, coverage) =
            self.partitions.iter().find(|(_, coverage)| coverage.covered < coverage.stored)?;
        let Coverage { covered, stored, reflected } = coverage;
        // Where others are reflected already, only the projects behind have anything to be found.
        let some = *covered < reflected.others;
        Some(Gap {
            partition: *partition,
            beyond: *covered,
            stored: if some { reflected.others.min(*stored) } else { *stored },
            projects: if some { reflected.behind.keys().cloned().collect() } else { Vec::new() },
        })
    }

    /// What was found for a gap: touches with the lowest offset of each, complete up to `covered`.
    pub(crate) fn found(
        &mut self,
        now: Instant,
        partition: i32,
        covered: i64,
        touches: impl IntoIterator<Item = (GroupHour, i64)>,
    ) {
        let Some(coverage) = self.partitions.get_mut(&partition) else { return };
        coverage.covered = coverage.covered.max(covered.min(coverage.stored));
        for (touch, lowest) in touches {
            self.touch(now, touch, partition, lowest);
        }
    }

    /// Takes groups to recompute, those first that have waited longest. One that was set aside is taken alone: it may fail
    /// again, and the others need not. Then it is the others' turn.
    pub(crate) fn take(&mut self, now: Instant, most: usize) -> Vec<(GroupKey, Pending)> {
        self.resting.retain(|_, until| *until > now);
        let mut due: Vec<(Instant, &GroupKey)> = self
            .pending
            .iter()
            .filter(|(key, _)| !self.resting.contains_key(*key))
            .map(|(key, pending)| (pending.since, key))
            .collect();
        due.sort_unstable();
        let (broken, sound): (Vec<&GroupKey>, Vec<&GroupKey>) =
            due.into_iter().map(|(_, key)| key).partition(|key| self.is_aside(key));
        let alone = !broken.is_empty() && (sound.is_empty() || !self.tried_broken);
        let keys: Vec<GroupKey> = if alone {
            broken.into_iter().take(1).cloned().collect()
        } else {
            sound.into_iter().take(most.min(self.at_once)).cloned().collect()
        };
        self.tried_broken = alone;
        keys.into_iter()
            .filter_map(|key| {
                let pending = self.pending.remove(&key)?;
                self.running.insert(key.clone(), pending.clone());
                Some((key, pending))
            })
            .collect()
    }

    /// The groups taken are written, but for those that are too large: these are set aside. `sizes` says how many events
    /// each of the others has.
    pub(crate) fn done(
        &mut self,
        now: Instant,
        sizes: impl IntoIterator<Item = (GroupKey, u64)>,
        too_large: &[GroupKey],
    ) {
        let refused: Vec<(GroupKey, Pending)> =
            too_large.iter().filter_map(|key| self.running.remove_entry(key)).collect();
        for (key, _) in self.running.drain() {
            self.failures.remove(&key);
        }
        self.running.extend(refused);
        self.wait_again();
        for key in too_large {
            self.fails(now, key, Failure::Refused);
        }
        self.at_once = self.at_once.saturating_mul(2);
        for (key, events) in sizes {
            let interval = Duration::from_secs(events / EVENTS_PER_SECOND).min(INTERVAL_MAX);
            if !interval.is_zero() {
                self.resting.insert(key, now + interval);
            }
        }
    }

    /// The groups taken are not written: they wait again, as long as before. Returns the one that is set aside.
    pub(crate) fn failed(&mut self, now: Instant, failure: Failure) -> Option<GroupKey> {
        let taken = self.running.len();
        let alone = self.running.keys().next().filter(|_| taken == 1).cloned();
        self.wait_again();
        if taken == 0 || failure == Failure::Outage {
            return None;
        }
        let alone = match alone {
            // It says nothing new about the others.
            Some(alone) if self.is_aside(&alone) => alone,
            alone => {
                self.at_once = (taken / 2).max(1);
                alone?
            }
        };
        if !self.fails(now, &alone, failure) {
            return None;
        }
        // The next one may be sound, and so may all the others.
        self.at_once = self.at_once.max(2);
        Some(alone)
    }

    /// A group fails by itself. Returns whether it is set aside.
    fn fails(&mut self, now: Instant, key: &GroupKey, failure: Failure) -> bool {
        let failures = self.failures.entry(key.clone()).or_default();
        *failures += 1;
        if failure == Failure::Refused {
            *failures = FAILURES.max(*failures);
        }
        let Some(times) = failures.checked_sub(FAILURES) else { return false };
        let rest = ASIDE_MIN.saturating_mul(1 << times.min(10)).min(ASIDE_MAX);
        self.resting.insert(key.clone(), now + rest);
        true
    }

    fn is_aside(&self, key: &GroupKey) -> bool {
        self.failures.get(key).is_some_and(|failures| *failures >= FAILURES)
    }

    fn wait_again(&mut self) {
        for (key, taken) in std::mem::take(&mut self.running) {
            match self.pending.get_mut(&key) {
                None => {
                    self.pending.insert(key, taken);
                }
                Some(pending) => {
                    pending.hours.extend(taken.hours);
                    pending.since = pending.since.min(taken.since);
                    for (partition, offset) in taken.lowest {
                        let lowest = pending.lowest.entry(partition).or_insert(offset);
                        *lowest = offset.min(*lowest);
                    }
                }
            }
        }
    }

    /// Up to where each partition is reflected in the groups.
    pub(crate) fn derived(&mut self) -> BTreeMap<i32, Reflected> {
        let broken = self.fall_behind();
        let mut through: BTreeMap<i32, Reflected> = BTreeMap::new();
        for (partition, Coverage { covered, reflected, .. }) in &self.partitions {
            let behind = reflected.behind.keys().map(|project| (project.clone(), *covered)).collect();
            through.insert(*partition, Reflected { others: *covered, behind });
        }
        for (key, waiting) in self.pending.iter().chain(&self.running) {
            for (partition, lowest) in &waiting.lowest {
                let Some(reflected) = through.get_mut(partition) else { continue };
                let of = reflected.behind.get_mut(&key.project_id).unwrap_or(&mut reflected.others);
                *of = (*of).min(lowest - 1);
            }
        }
        for (partition, Coverage { reflected, .. }) in &mut self.partitions {
            let Some(through) = through.get_mut(partition) else { continue };
            // What is looked for again is below what was known before.
            let others = reflected.others.max(through.others);
            reflected.others = others;
            for (project, offset) in &mut reflected.behind {
                *offset = (*offset).max(through.of(project));
            }
            reflected.behind.retain(|project, offset| *offset < others || broken.contains(project));
            through.clone_from(reflected);
            through.behind.retain(|_, offset| *offset < others);
        }
        through
    }

    /// Tells the projects of groups that are set aside apart from the others, and returns them.
    fn fall_behind(&mut self) -> BTreeSet<String> {
        let mut broken = BTreeSet::new();
        for (key, _) in self.failures.iter().filter(|(_, failures)| **failures >= FAILURES) {
            broken.insert(key.project_id.clone());
            let waiting = self.pending.get(key).or_else(|| self.running.get(key));
            for partition in waiting.into_iter().flat_map(|waiting| waiting.lowest.keys()) {
                let Some(Coverage { reflected, .. }) = self.partitions.get_mut(partition) else { continue };
                if reflected.behind.len() < BEHIND_MAX {
                    // Until now it was as far as all were.
                    reflected.behind.entry(key.project_id.clone()).or_insert(reflected.others);
                }
            }
        }
        broken
    }

    /// Groups that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Groups that wait although they were tried, because they failed alone too often.
    pub(crate) fn set_aside(&self) -> usize {
        self.failures.keys().filter(|key| self.is_aside(key)).count()
    }

    /// Since when the one that waits longest does.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.since).min()
    }

    /// Whether anything is to be done now.
    pub(crate) fn has_work(&self) -> bool {
        !self.pending.is_empty() || self.gap().is_some()
    }
}

#[cfg(test)]
mod tests {
    use fleetlog_store::GroupKind;
    use proptest::prelude::*;

    use super::*;

    fn touch(id: u32) -> GroupHour {
        let key = GroupKey { project_id: "p".to_owned(), kind: GroupKind::Session, id: id.to_string() };
        GroupHour { key, hour: 0, received_day: 0 }
    }

    fn gap(partition: i32, beyond: i64, stored: i64) -> Gap {
        Gap { partition, beyond, stored, projects: Vec::new() }
    }

    /// A touch of another project's group.
    fn other(id: u32) -> GroupHour {
        let key = GroupKey { project_id: "q".to_owned(), ..touch(id).key };
        GroupHour { key, ..touch(id) }
    }

    #[test]
    fn progress_stays_behind_the_oldest_group_that_is_not_written() {
        let now = Instant::now();
        let mut touched = Touched::new(10);
        touched.assigned(0, Reflected::up_to(-1), -1);
        assert!(touched.stored(now, 0, (0, 4), vec![touch(1)]));
        let taken = touched.take(now, 10);
        assert!(touched.stored(now, 0, (5, 9), vec![touch(1), touch(2)]));
        assert_eq!((taken.len(), touched.derived()[&0].all()), (1, -1));
        touched.failed(now, Failure::Passing);
        assert_eq!(touched.derived()[&0].all(), -1);
        assert_eq!(touched.take(now, 1)[0].0, touch(1).key);
        touched.done(now, [], &[]);
        assert_eq!(touched.derived()[&0].all(), 4);
        assert_eq!(touched.take(now, 10).len(), 1);
        touched.done(now, [], &[]);
        assert_eq!((touched.derived()[&0].all(), touched.has_work()), (9, false));
    }

    #[test]
    fn progress_waits_for_what_a_recomputation_makes_necessary() {
        let now = Instant::now();
        let mut touched = Touched::new(10);
        touched.assigned(0, Reflected::up_to(-1), -1);
        touched.stored(now, 0, (0, 4), vec![touch(1)]);
        touched.take(now, 10);
        touched.touch_next(now, &touch(1).key, touch(2).key);
        touched.done(now, [], &[]);
        assert_eq!((touched.derived()[&0].all(), touched.has_work()), (-1, true));
        assert_eq!(touched.take(now, 10)[0].0, touch(2).key);
        touched.done(now, [], &[]);
        assert_eq!(touched.derived()[&0].all(), 4);
    }

    #[test]
    fn what_does_not_fit_is_found_again_in_the_store() {
        let now = Instant::now();
        let mut touched = Touched::new(2);
        touched.assigned(3, Reflected::up_to(-1), -1);
        assert!(!touched.stored(now, 3, (0, 4), vec![touch(1), touch(2), touch(3)]));
        assert!(!touched.stored(now, 3, (5, 9), vec![touch(4)]));
        assert_eq!(touched.gap(), Some(gap(3, -1, 9)));
        assert_eq!(touched.derived()[&3].all(), -1);
        touched.found(now, 3, 4, [(touch(1), 0), (touch(2), 1), (touch(3), 2)]);
        assert_eq!((touched.gap(), touched.derived()[&3].all()), (None, -1));
        assert_eq!(touched.take(now, 10).len(), 3);
        touched.done(now, [], &[]);
        assert_eq!(touched.derived()[&3].all(), 4);
        assert_eq!(touched.gap(), Some(gap(3, 4, 9)));
    }

    #[test]
    fn a_new_owner_begins_where_the_last_one_had_come_to() {
        let mut touched = Touched::new(10);
        touched.assigned(0, Reflected::up_to(41), 99);
        assert_eq!(touched.gap(), Some(gap(0, 41, 99)));
        touched.assigned(1, Reflected::up_to(120), 99);
        touched.gone(0);
        assert_eq!((touched.gap(), touched.derived()[&1].all()), (None, 99));
    }

    #[test]
    fn a_large_group_rests_between_recomputations() {
        let now = Instant::now();
        let mut touched = Touched::new(10);
        touched.assigned(0, Reflected::up_to(-1), -1);
        touched.stored(now, 0, (0, 0), vec![touch(1), touch(2)]);
        touched.take(now, 10);
        touched.done(now, [(touch(1).key, 20_000), (touch(2).key, 1999)], &[]);
        touched.stored(now, 0, (1, 1), vec![touch(1), touch(2)]);
        assert_eq!(touched.take(now, 10).len(), 1);
        touched.done(now, [], &[]);
        assert_eq!(touched.take(now + Duration::from_secs(9), 10).len(), 0);
        assert_eq!(touched.derived()[&0].all(), 0);
        assert_eq!(touched.take(now + Duration::from_secs(10), 10).len(), 1);
    }

    /// Recomputes until nothing is due, failing whenever `bad` is among what is taken; returns what was written.
    fn recompute(touched: &mut Touched, now: Instant, failure: Failure, bad: u32) -> BTreeSet<String> {
        let mut written = BTreeSet::new();
        for _ in 0..100 {
            let taken = touched.take(now, 10);
            if taken.iter().any(|(key, _)| *key == touch(bad).key) {
                touched.failed(now, failure);
            } else {
                written.extend(taken.into_iter().map(|(key, _)| key.id));
                touched.done(now, [], &[]);
            }
        }
        written
    }

    #[test]
    fn a_group_that_always_fails_is_set_aside_and_the_others_go_on() {
        for failure in [Failure::Refused, Failure::Passing] {
            let now = Instant::now();
            let mut touched = Touched::new(20);
            touched.assigned(0, Reflected::up_to(-1), -1);
            touched.stored(now, 0, (0, 9), (0..10).map(touch).collect());
            let written = recompute(&mut touched, now, failure, 6);
            assert_eq!((written.len(), written.contains("6")), (9, false), "{failure:?}");
            assert_eq!((touched.set_aside(), touched.waiting(), touched.derived()[&0].all()), (1, 1, -1));
            // It is tried again, and for longer each time it is not.
            assert_eq!(recompute(&mut touched, now + ASIDE_MIN, failure, 6).len(), 0);
            assert_eq!(touched.take(now + ASIDE_MIN * 2, 10).len(), 0);
            assert_eq!(recompute(&mut touched, now + ASIDE_MIN * 3, failure, 7).len(), 1);
            assert_eq!((touched.set_aside(), touched.waiting(), touched.derived()[&0].all()), (0, 0, 9));
        }
    }

    #[test]
    fn a_group_that_is_set_aside_holds_back_its_own_project_alone() {
        let now = Instant::now();
        let mut touched = Touched::new(20);
        touched.assigned(0, Reflected::up_to(-1), -1);
        touched.assigned(1, Reflected::up_to(-1), -1);
        touched.stored(now, 0, (0, 4), vec![other(7)]);
        touched.stored(now, 0, (5, 9), vec![touch(6), touch(1)]);
        touched.stored(now, 1, (0, 4), vec![other(7)]);
        assert_eq!(recompute(&mut touched, now, Failure::Refused, 6).len(), 2);
        let behind = Reflected { others: 9, behind: [("p".to_owned(), 4)].into() };
        assert_eq!((&touched.derived()[&0], touched.set_aside()), (&behind, 1));
        assert_eq!(touched.derived()[&1], Reflected::up_to(4));
        // The project's other groups go on; they are behind with it.
        touched.stored(now, 0, (10, 14), vec![touch(1), other(7)]);
        // The broken one is touched through another partition too.
        touched.stored(now, 1, (5, 9), vec![touch(6)]);
        assert_eq!(recompute(&mut touched, now, Failure::Refused, 6).len(), 2);
        assert_eq!((touched.derived()[&0].others, touched.derived()[&0].of("p")), (14, 4));
        assert_eq!((touched.derived()[&1].others, touched.derived()[&1].of("p")), (9, 4));
        // Once it can be recomputed, nobody is behind.
        assert_eq!(recompute(&mut touched, now + ASIDE_MAX, Failure::Refused, 99).len(), 1);
        let derived = touched.derived();
        assert_eq!((&derived[&0], &derived[&1]), (&Reflected::up_to(14), &Reflected::up_to(9)));
    }

    #[test]
    fn a_new_owner_looks_for_the_groups_of_those_that_are_behind_and_nobody_goes_back() {
        let now = Instant::now();
        let mut touched = Touched::new(20);
        let behind = Reflected { others: 50, behind: [("p".to_owned(), 10)].into() };
        touched.assigned(0, behind.clone(), 99);
        let of_p =
            |beyond: i64, stored: i64| Gap { projects: vec!["p".to_owned()], ..gap(0, beyond, stored) };
        assert_eq!(touched.gap(), Some(of_p(10, 50)));
        assert_eq!(touched.derived()[&0], behind);
        touched.found(now, 0, 30, [(touch(6), 20), (touch(1), 25)]);
        assert_eq!(touched.derived()[&0].of("p"), 19);
        // Not set aside by this process yet, and still nothing is said to be reflected that is not.
        touched.found(now, 0, 50, []);
        assert_eq!((touched.derived()[&0].others, touched.derived()[&0].of("p")), (50, 19));
        assert_eq!(touched.gap(), Some(gap(0, 50, 99)));
        touched.found(now, 0, 99, [(other(7), 60)]);
        assert_eq!((touched.derived()[&0].others, touched.derived()[&0].of("p")), (59, 19));
        assert_eq!(recompute(&mut touched, now, Failure::Refused, 6).len(), 2);
        assert_eq!((touched.derived()[&0].others, touched.derived()[&0].of("p")), (99, 19));
    }

    #[test]
    fn a_group_that_is_too_large_is_set_aside_at_once_and_those_beside_it_are_done() {
        let now = Instant::now();
        let mut touched = Touched::new(20);
        touched.assigned(0, Reflected::up_to(-1), -1);
        touched.stored(now, 0, (0, 9), (0..10).map(touch).collect());
        assert_eq!(touched.take(now, 10).len(), 10);
        touched.done(now, [], &[touch(6).key]);
        assert_eq!((touched.set_aside(), touched.waiting(), touched.take(now, 10).len()), (1, 1, 0));
        // It is tried alone, and does not keep the others from their turn.
        touched.stored(now, 0, (10, 10), vec![touch(1), touch(2)]);
        let later = now + ASIDE_MIN;
        assert_eq!(
            touched.take(later, 10).into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
            [touch(6).key]
        );
        touched.done(later, [], &[touch(6).key]);
        assert_eq!((touched.set_aside(), touched.take(later, 10).len()), (1, 2));
        touched.done(later, [], &[]);
        assert_eq!(touched.take(later + ASIDE_MAX, 10).len(), 1);
        touched.done(later, [], &[]);
        assert_eq!((touched.set_aside(), touched.waiting()), (0, 0));
    }

    #[test]
    fn an_outage_says_nothing_about_the_groups() {
        let now = Instant::now();
        let mut touched = Touched::new(20);
        touched.assigned(0, Reflected::up_to(-1), -1);
        touched.stored(now, 0, (0, 0), vec![touch(1)]);
        for _ in 0..100 {
            assert_eq!(touched.take(now, 10).len(), 1);
            assert_eq!(touched.failed(now, Failure::Outage), None);
        }
        touched.stored(now, 0, (1, 1), vec![touch(2)]);
        assert_eq!(touched.take(now, 10).len(), 2);
        touched.done(now, [], &[]);
        assert_eq!((touched.set_aside(), touched.derived()[&0].all()), (0, 1));
    }

    #[test]
    fn after_a_lack_that_passes_nothing_is_set_aside_and_as_much_is_taken_as_before() {
        let now = Instant::now();
        let mut touched = Touched::new(20);
        touched.assigned(0, Reflected::up_to(-1), -1);
        touched.stored(now, 0, (0, 9), (0..10).map(touch).collect());
        for taken in [10, 5, 2, 1] {
            assert_eq!(touched.take(now, 10).len(), taken);
            assert_eq!(touched.failed(now, Failure::Passing), None);
        }
        for taken in [1, 2, 4, 3] {
            assert_eq!(touched.take(now, 10).len(), taken);
            touched.done(now, [], &[]);
        }
        assert_eq!((touched.set_aside(), touched.derived()[&0].all()), (0, 9));
    }

    proptest! {
        /// Whatever happens in whatever order, and however often the owner changes, nothing at or below a project's
        /// progress is waiting anywhere, and no progress goes back.
        #[test]
        fn progress_never_passes_a_touch_and_never_goes_back(
            steps in prop::collection::vec((0u8..9, 0u32..6), 1..80),
        ) {
            let now = Instant::now();
            let mut touched = Touched::new(4);
            // The truth: every stored event's offset with its group, and whether the group was written since.
            let mut events: Vec<(i64, GroupHour, bool)> = Vec::new();
            let mut taken: Vec<GroupKey> = Vec::new();
            let mut seen_by_run = 0;
            let mut next = 0;
            let mut before = Reflected::up_to(-1);
            touched.assigned(0, before.clone(), -1);
            for (step, group) in steps {
                match step {
                    0 | 1 => {
                        let touches = vec![touch(group), if group < 3 { touch(group + 1) } else { other(group) }];
                        events.extend(touches.iter().map(|touch| (next, touch.clone(), false)));
                        touched.stored(now, 0, (next, next), touches);
                        next += 1;
                    }
                    2 => {
                        if let Some(gap) = touched.gap() {
                            let covered = (gap.beyond + 2).min(gap.stored);
                            let asked = |touch: &GroupHour| {
                                gap.projects.is_empty() || gap.projects.contains(&touch.key.project_id)
                            };
                            let found: Vec<_> = events
                                .iter()
                                .filter(|(offset, touch, _)| {
                                    (gap.beyond + 1..=covered).contains(offset) && asked(touch)
                                })
                                .map(|(offset, touch, _)| (touch.clone(), *offset))
                                .collect();
                            touched.found(now, 0, covered, found);
                        }
                    }
                    3 if taken.is_empty() => {
                        let later = now + ASIDE_MAX * (group % 2);
                        taken = touched.take(later, 2).into_iter().map(|(key, _)| key).collect();
                        seen_by_run = events.len();
                    }
                    4 | 5 => {
                        let too_large: Vec<GroupKey> =
                            taken.iter().filter(|key| key.id == group.to_string()).cloned().collect();
                        for event in &mut events[..seen_by_run] {
                            event.2 |= taken.contains(&event.1.key) && !too_large.contains(&event.1.key);
                        }
                        taken.clear();
                        seen_by_run = 0;
                        touched.done(now, [], &too_large);
                    }
                    6 => {
                        // Killed: the next owner knows what was recorded.
                        taken.clear();
                        seen_by_run = 0;
                        touched = Touched::new(4);
                        touched.assigned(0, before.clone(), next - 1);
                    }
                    _ => {
                        taken.clear();
                        seen_by_run = 0;
                        touched.failed(now, if step == 7 { Failure::Refused } else { Failure::Passing });
                    }
                }
                let derived = touched.derived()[&0].clone();
                for project in ["p", "q"] {
                    prop_assert!(derived.of(project) >= before.of(project), "{project}: {before:?}, {derived:?}");
                }
                prop_assert!(events.iter().all(|(offset, touch, written)| {
                    *written || *offset > derived.of(&touch.key.project_id)
                }), "{derived:?}");
                before = derived;
            }
        }
    }
}
