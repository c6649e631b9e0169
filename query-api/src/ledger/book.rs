//! All partitions of the raw log together: up to which time everything acknowledged is stored.
//!
//! A sample is taken by reading the clock and then the end of each partition: whatever was acknowledged before that time
//! lies below those ends, but for what gateways hold in their spools, which makes it an earlier time
//! ([`super::spools`]). Once everything below them is stored, the sample's time is proved.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::SpoolStanding;
use fleetlog_store::RawRun;

use crate::ledger::partition::{Fate, Partition};
use crate::ledger::watermark::Pipeline;

/// Samples that wait for their proof. When there are more, every second one is dropped and fewer are kept from then on:
/// what is proved of a backlog comes in larger steps, and in the end as much.
const SAMPLES_MAX: usize = 512;

/// The end of each partition, and up to when everything acknowledged lies below them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    number: u64,
    through_ns: i64,
    ends: Vec<i64>,
}

/// What is known of the raw log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Book {
    partitions: Arc<Vec<Partition>>,
    samples: VecDeque<Sample>,
    /// Samples taken.
    taken: u64,
    /// Beside the last sample, those are kept whose number is a multiple of two to this power.
    coarseness: u32,
    complete_ns: Option<i64>,
    settled_ns: Option<i64>,
}

impl Book {
    /// Nothing is known; each partition is looked at from its start on.
    pub(crate) fn new(logs: &[Range<i64>], starts: &[i64]) -> Self {
        let partition = |(log, start): (&Range<i64>, &i64)| Partition::new(*start, log.clone());
        Self { partitions: Arc::new(logs.iter().zip(starts).map(partition).collect()), ..Self::default() }
    }

    /// Takes a sample: the clock, read first, up to when everything acknowledged is in the logs, and where each stands.
    /// Returns the partitions that were made anew.
    pub(crate) fn sampled(&mut self, at_ns: i64, through_ns: i64, logs: &[Range<i64>]) -> Vec<usize> {
        let mut anew = Vec::new();
        let partitions = Arc::make_mut(&mut self.partitions);
        for (number, log) in logs.iter().enumerate() {
            match partitions.get_mut(number) {
                Some(partition) => {
                    if !partition.reaches(log.clone(), at_ns) {
                        anew.push(number);
                    }
                }
                None => partitions.push(Partition::new(log.start, log.clone())),
            }
        }
        if !anew.is_empty() {
            // Their ends are of another log.
            self.samples.clear();
        }
        // One that proves no more than the last, with no less to be stored, is of no use: a spool may hold time back for
        // days.
        if self.samples.back().is_none_or(|last| last.through_ns < through_ns) {
            let ends = logs.iter().map(|log| log.end).collect();
            self.keep(Sample { number: self.taken, through_ns, ends });
            self.taken += 1;
        }
        self.prove();
        anew
    }

    /// The next offsets to look up, at most so many of each partition.
    pub(crate) fn unsettled(&self, most: i64) -> Vec<(i32, Range<i64>)> {
        let of = |(number, partition): (i32, &Partition)| (number, partition.unsettled(most));
        (0..).zip(self.partitions.iter()).map(of).filter(|(_, offsets)| !offsets.is_empty()).collect()
    }

    /// Takes what was found to be settled. Returns whether any partition came further.
    pub(crate) fn found(&mut self, runs: &[RawRun], now_ns: i64) -> bool {
        let mut risen = false;
        for (number, partition) in (0_i32..).zip(Arc::make_mut(&mut self.partitions)) {
            let own = runs.iter().filter(|run| run.raw_partition == number);
            let own: Vec<Range<i64>> = own.map(|run| run.first..run.last.saturating_add(1)).collect();
            risen |= partition.found(&own, now_ns);
        }
        self.prove();
        risen
    }

    /// Whether a partition has not come further since a time although its log has.
    pub(crate) fn stands_since(&self, time_ns: i64) -> bool {
        self.partitions.iter().any(|partition| partition.stands_since(time_ns))
    }

    /// Decides what is lost of the offsets looked up last, given what the pipeline said before that look: `passed` is
    /// where it says that everything is stored ([`super::watermark`]). Returns how many offsets of which partition.
    pub(crate) fn conclude(
        &mut self,
        looked: &[(i32, Range<i64>)],
        seen: &Pipeline,
        passed: Option<&[i64]>,
        now_ns: i64,
    ) -> Vec<(i32, u64)> {
        let mut lost = Vec::new();
        let partitions = Arc::make_mut(&mut self.partitions);
        for (number, offsets) in looked {
            let Ok(place) = usize::try_from(*number) else { continue };
            let Some(partition) = partitions.get_mut(place) else { continue };
            let committed = seen.raw.get(place).copied().flatten().unwrap_or(0);
            let mut until = passed.and_then(|passed| passed.get(place)).copied().unwrap_or(0);
            // Nobody has settled these, and they are no longer there to be read.
            if committed <= partition.settled_below() {
                until = until.max(partition.log().start);
            }
            let count = partition.lost_below(until.min(offsets.end), now_ns);
            if count > 0 {
                lost.push((*number, count));
            }
        }
        self.prove();
        lost
    }

    /// The places that are lost, to be looked up again.
    pub(crate) fn losses(&self) -> Vec<(i32, Range<i64>)> {
        let of = |(number, partition): (i32, &Partition)| -> Vec<_> {
            partition.losses().iter().map(|loss| (number, loss.offsets.clone())).collect()
        };
        (0..).zip(self.partitions.iter()).flat_map(of).collect()
    }

    /// Forgets losses found before a time.
    pub(crate) fn expire(&mut self, found_before_ns: i64) {
        Arc::make_mut(&mut self.partitions)
            .iter_mut()
            .for_each(|partition| partition.expire(found_before_ns));
        self.prove();
    }

    /// Forgets losses that are stored after all.
    pub(crate) fn forgive(&mut self, stored: &[RawRun]) {
        for (number, partition) in (0_i32..).zip(Arc::make_mut(&mut self.partitions)) {
            let own = stored.iter().filter(|run| run.raw_partition == number);
            let own: Vec<Range<i64>> = own.map(|run| run.first..run.last.saturating_add(1)).collect();
            partition.forgive(&own);
        }
        self.prove();
    }

    /// What a reader needs of it; cheap.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            partitions: Arc::clone(&self.partitions),
            complete_ns: self.complete_ns,
            settled_ns: self.settled_ns,
            spools: Arc::default(),
        }
    }

    fn keep(&mut self, sample: Sample) {
        let kept = |sample: &Sample, coarseness: u32| sample.number.trailing_zeros() >= coarseness;
        if self.samples.back().is_some_and(|last| !kept(last, self.coarseness)) {
            self.samples.pop_back();
        }
        if self.samples.len() >= SAMPLES_MAX {
            self.coarseness += 1;
            self.samples.retain(|sample| kept(sample, self.coarseness));
        }
        self.samples.push_back(sample);
    }

    /// Proves samples. Times are never taken back, not even where something is lost: what was stored stays so.
    fn prove(&mut self) {
        let reached = |sample: &Sample, below: fn(&Partition) -> i64| {
            let partitions = self.partitions.iter();
            sample.ends.iter().zip(partitions).all(|(end, partition)| below(partition) >= *end)
        };
        let latest = |below: fn(&Partition) -> i64| {
            self.samples.iter().rev().find(|sample| reached(sample, below)).map(|sample| sample.through_ns)
        };
        let (complete, settled) = (latest(Partition::stored_below), latest(Partition::settled_below));
        self.complete_ns = self.complete_ns.max(complete);
        self.settled_ns = self.settled_ns.max(settled).max(complete);
        // A sample that is settled and not complete waits for a loss to be made good or to be forgotten; one will do.
        let (complete_ns, settled_ns) = (self.complete_ns, self.settled_ns);
        let open =
            |sample: &Sample| Some(sample.through_ns) > complete_ns && Some(sample.through_ns) >= settled_ns;
        self.samples.retain(open);
        if self.samples.len() <= 1 {
            self.coarseness = 0;
        }
    }
}

/// What is known, as of one look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) partitions: Arc<Vec<Partition>>,
    /// Everything acknowledged before this time is stored, nanoseconds.
    pub(crate) complete_ns: Option<i64>,
    /// Everything acknowledged before this time is stored or known to be lost, nanoseconds.
    pub(crate) settled_ns: Option<i64>,
    /// What the gateways hold in their spools.
    pub(crate) spools: Arc<Vec<SpoolStanding>>,
}

impl Standing {
    /// What is known of a place.
    pub(crate) fn fate(&self, at: Position) -> Fate {
        let partition = usize::try_from(at.partition).ok().and_then(|number| self.partitions.get(number));
        partition.map_or(Fate::Beyond, |partition| partition.fate(at.offset))
    }

    /// Raw records whose fate is open.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> u64 {
        self.partitions.iter().map(Partition::in_flight).sum()
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "logs of one partition, runs of one")]
mod tests {
    use super::*;

    fn run(raw_partition: i32, offsets: Range<i64>) -> RawRun {
        RawRun { raw_partition, first: offsets.start, last: offsets.end - 1 }
    }

    #[test]
    fn a_time_is_proved_once_every_partition_has_reached_the_ends_it_had_then() {
        let mut book = Book::new(&[0..0, 0..0], &[0, 0]);
        book.sampled(10, 10, &[0..2, 0..1]);
        book.sampled(20, 20, &[0..3, 0..1]);
        assert_eq!(book.standing().complete_ns, None);
        assert!(book.found(&[run(0, 0..2)], 21));
        assert_eq!(book.standing().complete_ns, None, "the other partition is behind");
        book.found(&[run(1, 0..1)], 22);
        assert_eq!((book.standing().complete_ns, book.standing().in_flight()), (Some(10), 1));
        book.found(&[run(0, 2..3)], 23);
        assert_eq!(book.standing().complete_ns, Some(20));
        book.sampled(30, 30, &[0..3, 0..1]);
        assert_eq!(book.standing().complete_ns, Some(30), "nothing is on its way");
    }

    #[test]
    fn a_loss_holds_back_what_is_complete_until_it_is_made_good() {
        let mut book = Book::new(&[0..0], &[0]);
        book.sampled(10, 10, &[0..5]);
        book.found(&[run(0, 0..2), run(0, 3..5)], 11);
        let looked = book.unsettled(100);
        let seen = Pipeline { raw: vec![Some(5)], outlets: Vec::new() };
        assert_eq!(book.conclude(&looked, &seen, None, 12), []);
        assert_eq!(book.conclude(&looked, &seen, Some(&[5]), 12), [(0, 1)]);
        book.sampled(20, 20, &[0..5]);
        assert_eq!((book.standing().complete_ns, book.standing().settled_ns), (None, Some(20)));
        assert_eq!(book.losses(), [(0, 2..3)]);
        book.forgive(&[run(0, 2..3)]);
        assert_eq!(book.standing().complete_ns, Some(20));
    }

    #[test]
    fn what_is_deleted_before_anybody_settled_it_is_lost_without_a_word_of_the_pipeline() {
        let mut book = Book::new(&[0..10], &[0]);
        book.sampled(10, 10, &[6..10]);
        book.found(&[run(0, 0..2), run(0, 3..4)], 11);
        let looked = book.unsettled(100);
        let settled_beyond = Pipeline { raw: vec![Some(6)], outlets: Vec::new() };
        assert_eq!(
            book.conclude(&looked, &settled_beyond, None, 12),
            [],
            "it may be on its way to the store"
        );
        let behind = Pipeline { raw: vec![Some(2)], outlets: Vec::new() };
        assert_eq!(book.conclude(&looked, &behind, None, 12), [(0, 3)]);
        assert_eq!(book.standing().partitions[0].settled_below(), 6);
    }

    #[test]
    fn samples_are_bounded_and_what_is_proved_comes_closer_again() {
        let mut book = Book::new(&[0..0], &[0]);
        for at in 0..10_000_i64 {
            book.sampled(at, at, &[0..at + 1]);
        }
        assert!(book.samples.len() <= SAMPLES_MAX);
        book.found(&[run(0, 0..6_000)], 10_000);
        let complete = book.standing().complete_ns.unwrap();
        assert!((5_900..6_000).contains(&complete), "{complete}");
        book.found(&[run(0, 0..10_000)], 10_001);
        assert_eq!(book.standing().complete_ns, Some(9_999));
    }

    #[test]
    fn what_a_spool_holds_back_is_proved_once_and_piles_up_nothing() {
        let mut book = Book::new(&[0..0], &[0]);
        for at in 10..600 {
            book.sampled(at, 7, &[0..at]);
        }
        assert_eq!(book.samples.len(), 1);
        book.found(&[run(0, 0..10)], 600);
        assert_eq!(book.standing().complete_ns, Some(7), "as soon as what was there first is stored");
        book.sampled(600, 5, &[0..600]);
        book.found(&[run(0, 10..600)], 601);
        assert_eq!(book.standing().complete_ns, Some(7), "what was proved stays so");
        book.sampled(602, 602, &[0..600]);
        assert_eq!(book.standing().complete_ns, Some(602));
    }

    #[test]
    fn a_log_made_anew_proves_nothing_of_the_old_one() {
        let mut book = Book::new(&[0..9], &[0]);
        book.sampled(10, 10, &[0..9]);
        book.found(&[run(0, 0..9)], 11);
        assert_eq!(book.sampled(20, 20, &[0..3]), [0]);
        assert_eq!(book.standing().complete_ns, Some(10));
        assert_eq!(book.standing().fate(Position { partition: 0, offset: 1 }), Fate::InFlight);
        assert_eq!(book.standing().fate(Position { partition: 7, offset: 1 }), Fate::Beyond);
    }
}
