//! Up to where the pipeline itself says that everything is stored: what is missing below that is lost (INV-6).
//!
//! The processor commits a raw offset in the transaction that writes what became of the records below it, and the
//! aggregator commits an offset of a topic once everything below it is stored (INV-2, INV-3). So everything below the
//! raw offsets committed at one moment is stored as soon as the aggregator has committed beyond everything that was in
//! its topics at a later one.
//!
//! A topic written in transactions ends with a marker that no reader is given, so a committed offset stays one below
//! the end of a log that is read to its end. That is told from a record that is still to be stored by looking twice:
//!
//! | the log's end | its last stable offset, looked up before | committed | everything before the claim is stored |
//! |---|---|---|---|
//! | at most its first offset | any | any | yes: nothing was ever written |
//! | any | below the claim | any | no: a transaction is open, what it settles may come before the claim |
//! | any | S, at or beyond the claim | S or more | yes |
//! | S | S | S - 1 | yes: no transaction was open, so the last record is a marker |
//! | beyond S | S | S - 1 | no: the record before S may be one that is still to be stored |
//!
//! Aborted transactions leave more than one offset behind that nobody reads; then this says nothing until something is
//! written behind them. It never says too much.

use std::ops::Range;

/// A partition of a topic that the processor writes and the aggregator reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlet {
    /// First offset, and the next one: the log's end. Looked up last.
    pub log: Range<i64>,
    /// The offset before which no transaction is open.
    pub stable: i64,
    /// What the aggregator has committed. Looked up at any time.
    pub committed: Option<i64>,
}

/// Where processor and aggregator stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipeline {
    /// What the processor has committed of each partition of the raw topic. Looked up first.
    pub raw: Vec<Option<i64>>,
    /// The partitions of the topics it writes.
    pub outlets: Vec<Outlet>,
}

/// What is to be stored, and how far that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    raw: Vec<i64>,
    outlets: Vec<Goal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// No transaction may be open before this offset.
    Closed(i64),
    /// Everything before this offset must be committed.
    Stored(i64),
}

/// Follows the pipeline, look by look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watermark(Option<Claim>);

impl Watermark {
    /// Takes what one look saw. Returns the raw offset of each partition below which the pipeline says that everything is
    /// stored, once it does; what is looked up in the store from then on shows it.
    pub(crate) fn observe(&mut self, seen: &Pipeline) -> Option<Vec<i64>> {
        let fits = |claim: &Claim| claim.outlets.len() == seen.outlets.len();
        let claim = match self.0.take().filter(fits) {
            Some(claim) => self.0.insert(claim),
            None => self.0.insert(Claim {
                raw: seen.raw.iter().map(|committed| committed.unwrap_or(0)).collect(),
                outlets: seen.outlets.iter().map(|outlet| Goal::Closed(outlet.log.end)).collect(),
            }),
        };
        let mut all = true;
        for (goal, outlet) in claim.outlets.iter_mut().zip(&seen.outlets) {
            all &= reached(goal, outlet);
        }
        if all { self.0.take().map(|claim| claim.raw) } else { None }
    }
}

fn reached(goal: &mut Goal, outlet: &Outlet) -> bool {
    if let Goal::Closed(claimed) = *goal {
        if claimed <= outlet.log.start {
            return true;
        }
        if outlet.stable < claimed {
            return false;
        }
        let marker = i64::from(outlet.stable == outlet.log.end);
        *goal = Goal::Stored(outlet.stable - marker);
    }
    match *goal {
        Goal::Stored(offset) => outlet.committed.is_some_and(|committed| committed >= offset),
        Goal::Closed(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(raw: i64, end: i64, stable: i64, committed: i64) -> Pipeline {
        let outlet = Outlet { log: 0..end, stable, committed: Some(committed) };
        Pipeline { raw: vec![Some(raw)], outlets: vec![outlet] }
    }

    #[test]
    fn a_log_read_to_its_marker_says_that_everything_is_stored() {
        let mut watermark = Watermark::default();
        assert_eq!(watermark.observe(&pipeline(7, 10, 10, 8)), None);
        assert_eq!(
            watermark.observe(&pipeline(9, 12, 12, 9)),
            Some(vec![7]),
            "of the first look, not of this one"
        );
        assert_eq!(watermark.observe(&pipeline(9, 12, 12, 11)), Some(vec![9]));
    }

    #[test]
    fn an_open_transaction_is_waited_for() {
        let mut watermark = Watermark::default();
        // The processor's commit is seen, its records are still hidden behind the stable offset.
        assert_eq!(watermark.observe(&pipeline(7, 10, 8, 8)), None);
        assert_eq!(watermark.observe(&pipeline(7, 11, 11, 8)), None);
        assert_eq!(watermark.observe(&pipeline(7, 11, 11, 10)), Some(vec![7]));
    }

    #[test]
    fn under_load_a_record_at_the_stable_offset_is_not_taken_for_a_marker() {
        let mut watermark = Watermark::default();
        assert_eq!(watermark.observe(&pipeline(7, 20, 10, 5)), None);
        assert_eq!(watermark.observe(&pipeline(8, 30, 20, 19)), None);
        assert_eq!(watermark.observe(&pipeline(9, 40, 30, 20)), Some(vec![7]));
    }

    #[test]
    fn a_topic_that_nobody_wrote_holds_nothing_back() {
        let empty = |start: i64| Outlet { log: start..start, stable: start, committed: None };
        let mut seen = pipeline(7, 10, 10, 9);
        seen.outlets.extend([empty(0), empty(33)]);
        assert_eq!(Watermark::default().observe(&seen), Some(vec![7]));
        seen.outlets.push(Outlet { log: 0..2, stable: 2, committed: None });
        assert_eq!(
            Watermark::default().observe(&seen),
            None,
            "written, and the aggregator has stored nothing"
        );
    }
}
