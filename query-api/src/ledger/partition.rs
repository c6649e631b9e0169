//! One partition of the raw log: up to where everything is settled, and what is settled beyond.

use std::ops::Range;

/// Losses told apart, of one partition; what is lost beyond is counted, and where it lies only about known.
const LOSSES_MAX: usize = 1_000;

/// What is known of one place of the raw log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Everything that the record became is stored.
    Stored,
    /// It is on its way.
    InFlight,
    /// It is acknowledged, and neither stored nor on its way.
    Lost,
    /// The log has no such place yet.
    Beyond,
    /// It is older than what is looked at, or among losses that are not told apart: only the store knows.
    Before,
}

/// Neighbouring offsets that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) offsets: Range<i64>,
    /// When it was found, nanoseconds.
    pub(crate) found_ns: i64,
}

/// Losses beyond the number that is told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Untold {
    /// From the first to the last of them; stored offsets may lie in between.
    within: Range<i64>,
    /// Offsets that are lost.
    count: u64,
    /// When the last of them was found, nanoseconds.
    found_ns: i64,
}

/// A partition as far as it has been looked at.
///
/// # Invariants
/// `start <= floor`, and each offset from `start` up to `floor` is stored, in `losses`, or within `untold`. `beyond` holds
/// runs of stored offsets above `floor`, in order, with gaps between them and before the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    start: i64,
    floor: i64,
    /// First offset and next offset of the log.
    log: Range<i64>,
    beyond: Vec<Range<i64>>,
    losses: Vec<Loss>,
    untold: Option<Untold>,
    /// Since when `floor` has stood where it is although the log goes on, nanoseconds.
    standing_since_ns: Option<i64>,
}

impl Partition {
    /// Nothing is known yet; what lies below `start` is not looked at.
    pub(crate) fn new(start: i64, log: Range<i64>) -> Self {
        let start = start.clamp(log.start, log.end);
        Self {
            start,
            floor: start,
            log,
            beyond: Vec::new(),
            losses: Vec::new(),
            untold: None,
            standing_since_ns: None,
        }
    }

    /// The log reaches so far now. Returns false when it ends before what was settled: it was made anew, and so is this.
    pub(crate) fn reaches(&mut self, log: Range<i64>, now_ns: i64) -> bool {
        if log.end < self.floor {
            *self = Self::new(log.start, log);
            return false;
        }
        self.log = log;
        self.stands(now_ns);
        true
    }

    /// The next offsets to look up, at most so many.
    pub(crate) fn unsettled(&self, most: i64) -> Range<i64> {
        self.floor..self.log.end.min(self.floor.saturating_add(most))
    }

    /// Takes what was found to be settled. Returns whether the floor has risen.
    pub(crate) fn found(&mut self, runs: &[Range<i64>], now_ns: i64) -> bool {
        let before = self.floor;
        // Stored facts stay stored, so what an earlier look found counts too, whatever this one asked for.
        self.beyond.extend(runs.iter().cloned());
        self.beyond = union(std::mem::take(&mut self.beyond));
        self.rise();
        if self.floor > before {
            self.standing_since_ns = None;
        }
        self.stands(now_ns);
        self.floor > before
    }

    /// Everything that is not settled below `offset` will never be. Returns how many offsets that are.
    ///
    /// To be called only with what has been looked up ([`Self::found`]) after it was true.
    pub(crate) fn lost_below(&mut self, offset: i64, now_ns: i64) -> u64 {
        let until = offset.min(self.log.end);
        let mut lost = 0;
        while self.floor < until {
            let gap = self.floor..self.beyond.first().map_or(until, |run| run.start.min(until));
            lost += u64::try_from(gap.end - gap.start).unwrap_or(0);
            self.floor = gap.end;
            self.lose(gap, now_ns);
            self.rise();
        }
        if lost > 0 {
            self.standing_since_ns = None;
            self.stands(now_ns);
        }
        lost
    }

    /// Forgets losses found before a time.
    pub(crate) fn expire(&mut self, found_before_ns: i64) {
        self.losses.retain(|loss| loss.found_ns >= found_before_ns);
        self.untold.take_if(|untold| untold.found_ns < found_before_ns);
    }

    /// Forgets losses that are stored after all.
    pub(crate) fn forgive(&mut self, stored: &[Range<i64>]) {
        let whole = |loss: &Loss| {
            stored.iter().any(|run| run.start <= loss.offsets.start && loss.offsets.end <= run.end)
        };
        self.losses.retain(|loss| !whole(loss));
    }

    /// What is known of an offset.
    pub(crate) fn fate(&self, offset: i64) -> Fate {
        if offset >= self.log.end {
            Fate::Beyond
        } else if self.losses.iter().any(|loss| loss.offsets.contains(&offset)) {
            Fate::Lost
        } else if offset < self.start
            || self.untold.as_ref().is_some_and(|untold| untold.within.contains(&offset))
        {
            Fate::Before
        } else if offset < self.floor || self.beyond.iter().any(|run| run.contains(&offset)) {
            Fate::Stored
        } else {
            Fate::InFlight
        }
    }

    /// Each offset below it, as far back as is looked at, is stored or known to be lost.
    pub(crate) fn settled_below(&self) -> i64 {
        self.floor
    }

    /// Each offset below it, as far back as is looked at, is stored.
    pub(crate) fn stored_below(&self) -> i64 {
        let told = self.losses.iter().map(|loss| loss.offsets.start);
        told.chain(self.untold.as_ref().map(|untold| untold.within.start)).min().unwrap_or(self.floor)
    }

    /// First offset and next offset of the log.
    pub(crate) fn log(&self) -> Range<i64> {
        self.log.clone()
    }

    /// Offsets of the log whose fate is open.
    pub(crate) fn in_flight(&self) -> u64 {
        let known: i64 = self.beyond.iter().map(|run| run.end - run.start).sum();
        u64::try_from(self.log.end - self.floor - known).unwrap_or(0)
    }

    /// Offsets known to be lost.
    pub(crate) fn lost(&self) -> u64 {
        let lost: i64 = self.losses.iter().map(|loss| loss.offsets.end - loss.offsets.start).sum();
        u64::try_from(lost).unwrap_or(0) + self.untold.as_ref().map_or(0, |untold| untold.count)
    }

    /// The losses that are told apart.
    pub(crate) fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// Whether the first open offset has been open for so long.
    pub(crate) fn stands_since(&self, time_ns: i64) -> bool {
        self.standing_since_ns.is_some_and(|since| since <= time_ns)
    }

    fn stands(&mut self, now_ns: i64) {
        if self.floor >= self.log.end {
            self.standing_since_ns = None;
        } else if self.standing_since_ns.is_none() {
            self.standing_since_ns = Some(now_ns);
        }
    }

    /// Takes up the runs that begin at the floor.
    fn rise(&mut self) {
        let floor = &mut self.floor;
        let mut risen = 0;
        for run in &self.beyond {
            if run.start > *floor {
                break;
            }
            *floor = run.end.max(*floor);
            risen += 1;
        }
        self.beyond.drain(..risen);
    }

    fn lose(&mut self, offsets: Range<i64>, found_ns: i64) {
        if let Some(last) = self.losses.last_mut().filter(|last| last.offsets.end == offsets.start) {
            last.offsets.end = offsets.end;
            last.found_ns = found_ns;
        } else if self.losses.len() < LOSSES_MAX {
            self.losses.push(Loss { offsets, found_ns });
        } else {
            let count = u64::try_from(offsets.end - offsets.start).unwrap_or(0);
            let untold = self.untold.get_or_insert(Untold { within: offsets.clone(), count: 0, found_ns });
            untold.within.end = offsets.end;
            untold.count += count;
            untold.found_ns = found_ns;
        }
    }
}

/// The same offsets as runs in order that neither overlap nor touch.
fn union(mut runs: Vec<Range<i64>>) -> Vec<Range<i64>> {
    runs.retain(|run| !run.is_empty());
    runs.sort_unstable_by_key(|run| run.start);
    let mut union: Vec<Range<i64>> = Vec::with_capacity(runs.len());
    for run in runs {
        match union.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => union.push(run),
        }
    }
    union
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "logs of one partition, runs of one")]
mod tests {
    use super::*;

    /// Settles offsets of a partition whose log has 0..20.
    fn with(settled: &[Range<i64>]) -> Partition {
        let mut partition = Partition::new(0, 0..20);
        partition.found(settled, 0);
        partition
    }

    #[test]
    fn only_what_has_no_gap_below_it_raises_the_floor() {
        let mut partition = with(&[3..5, 0..2]);
        assert_eq!((partition.settled_below(), partition.in_flight()), (2, 16));
        let fates: Vec<Fate> = [1, 2, 4, 5, 20].map(|offset| partition.fate(offset)).to_vec();
        assert_eq!(fates, [Fate::Stored, Fate::InFlight, Fate::Stored, Fate::InFlight, Fate::Beyond]);
        assert!(partition.found(&[2..5, 9..10], 1));
        assert_eq!((partition.settled_below(), partition.unsettled(3)), (5, 5..8));
        assert!(!partition.found(&[], 2), "it stands");
        assert_eq!(partition.fate(9), Fate::Stored, "what was not asked for again stays known");
    }

    #[test]
    fn a_loss_is_stepped_over_and_ends_what_is_stored_in_full() {
        let mut partition = with(&[0..2, 3..5, 8..9]);
        assert_eq!(partition.lost_below(7, 50), 1 + 2);
        assert_eq!((partition.settled_below(), partition.stored_below(), partition.lost()), (7, 2, 3));
        assert_eq!(
            (partition.fate(2), partition.fate(6), partition.fate(7)),
            (Fate::Lost, Fate::Lost, Fate::InFlight)
        );
        // One is found stored after all, the other is old.
        partition.forgive(&[2..3]);
        assert_eq!((partition.stored_below(), partition.fate(2)), (5, Fate::Stored));
        partition.expire(51);
        assert_eq!((partition.stored_below(), partition.lost()), (7, 0));
    }

    #[test]
    fn a_partition_begins_where_its_log_does_and_anew_when_the_log_does() {
        let mut partition = Partition::new(3, 10..20);
        assert_eq!((partition.settled_below(), partition.fate(9)), (10, Fate::Before));
        assert_eq!(Partition::new(99, 10..20).settled_below(), 20);
        partition.found(&[10..20], 0);
        assert!(partition.reaches(15..25, 1));
        assert_eq!(partition.unsettled(100), 20..25);
        assert!(!partition.reaches(0..4, 2), "the log was made anew");
        assert_eq!(partition.unsettled(100), 0..4);
    }

    #[test]
    fn how_long_the_floor_stands_is_counted_from_when_it_stopped() {
        let mut partition = Partition::new(0, 0..0);
        assert!(partition.reaches(0..5, 10));
        assert!(!partition.stands_since(9) && partition.stands_since(10));
        partition.found(&[0..3], 20);
        assert!(!partition.stands_since(19) && partition.stands_since(20));
        partition.found(&[3..5], 30);
        assert!(!partition.stands_since(1_000), "nothing is open");
    }

    #[test]
    fn of_losses_beyond_number_nothing_stored_is_said_to_be_lost() {
        let mut partition = Partition::new(0, 0..10_000);
        let every_other: Vec<Range<i64>> = (0..5_000).map(|n| 2 * n..2 * n + 1).collect();
        partition.found(&every_other, 0);
        assert_eq!(partition.lost_below(10_000, 1), 5_000);
        assert_eq!((partition.losses().len(), partition.lost()), (LOSSES_MAX, 5_000));
        let said =
            |offsets: Range<i64>, fate| offsets.step_by(2).all(|offset| partition.fate(offset) == fate);
        assert!(said(0..2_000, Fate::Stored) && said(1..2_000, Fate::Lost));
        assert!(said(2_000..2_001, Fate::Stored) && said(2_001..10_000, Fate::Before));
        assert!(said(2_002..10_000, Fate::Before), "only the store knows");
        // They hold back what is stored in full until they are old.
        partition.forgive(&(0..1_000).map(|n| 2 * n..2 * n + 2).collect::<Vec<_>>());
        assert_eq!((partition.losses().len(), partition.stored_below()), (0, 2_001));
        partition.expire(2);
        assert_eq!((partition.stored_below(), partition.lost()), (10_000, 0));
        assert_eq!(partition.fate(9_998), Fate::Stored);
    }
}
