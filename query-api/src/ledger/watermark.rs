//! Up to where the pipeline itself says that everything is stored: what is missing below that is lost (INV-6).
//!
//! The processor commits a raw offset in the transaction that writes what became of the records below it, and the
//! aggregator commits an offset of a topic once everything below it is stored (INV-2, INV-3). So everything below the
//! raw offsets committed at one moment is stored as soon as the aggregator is beyond everything that was in its topics at
//! a later one, open transactions included: one of them may be the one that was committed, with its last marker on the
//! way.
//!
//! What the aggregator has committed alone does not tell. A topic written in transactions ends with markers that no reader
//! is given, and aborted transactions leave records behind that nobody reads, so a committed offset stays below the end of
//! a log that is read to its end. Whoever looks therefore reads on from there: see [`Outlet::stored`].

use std::ops::Range;

/// A partition of a topic that the processor writes and the aggregator reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlet {
    /// First offset and next offset of the log, records of open transactions included.
    pub log: Range<i64>,
    /// Everything below it that a reader is given is stored: what the aggregator has committed, or, where a reader is given
    /// nothing from there on, the offset of the first open transaction.
    pub stored: i64,
}

/// Where processor and aggregator stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipeline {
    /// What the processor has committed of each partition of the raw topic. Looked up first.
    pub raw: Vec<Option<i64>>,
    /// The partitions of the topics it writes.
    pub outlets: Vec<Outlet>,
}

/// What is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    raw: Vec<i64>,
    ends: Vec<i64>,
}

/// Follows the pipeline, look by look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watermark(Option<Claim>);

impl Watermark {
    /// Takes what one look saw. Returns the raw offset of each partition below which the pipeline says that everything is
    /// stored, once it does; what is looked up in the store from then on shows it.
    pub(crate) fn observe(&mut self, seen: &Pipeline) -> Option<Vec<i64>> {
        let fits = |claim: &Claim| claim.ends.len() == seen.outlets.len();
        let claim = self.0.take().filter(fits).unwrap_or_else(|| Claim {
            raw: seen.raw.iter().map(|committed| committed.unwrap_or(0)).collect(),
            ends: seen.outlets.iter().map(|outlet| outlet.log.end).collect(),
        });
        // What retention took was stored; a topic that nobody ever wrote to begins where it ends.
        let reached = |(end, outlet): (&i64, &Outlet)| *end <= outlet.stored.max(outlet.log.start);
        if claim.ends.iter().zip(&seen.outlets).all(reached) {
            return Some(claim.raw);
        }
        self.0 = Some(claim);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(raw: i64, end: i64, stored: i64) -> Pipeline {
        Pipeline { raw: vec![Some(raw)], outlets: vec![Outlet { log: 0..end, stored }] }
    }

    #[test]
    fn what_was_committed_is_stored_once_everything_written_by_then_is() {
        let mut watermark = Watermark::default();
        assert_eq!(watermark.observe(&pipeline(7, 10, 8)), None);
        assert_eq!(watermark.observe(&pipeline(9, 14, 9)), None);
        assert_eq!(
            watermark.observe(&pipeline(11, 20, 10)),
            Some(vec![7]),
            "of the first look, not of this one"
        );
        assert_eq!(watermark.observe(&pipeline(11, 20, 20)), Some(vec![11]));
    }

    #[test]
    fn a_topic_that_nobody_wrote_holds_nothing_back() {
        let mut seen = pipeline(7, 10, 10);
        seen.outlets.extend([Outlet { log: 0..0, stored: 0 }, Outlet { log: 33..33, stored: 0 }]);
        assert_eq!(Watermark::default().observe(&seen), Some(vec![7]));
        seen.outlets.push(Outlet { log: 0..2, stored: 0 });
        assert_eq!(Watermark::default().observe(&seen), None, "written, and not stored");
    }
}
