//! What the transformations of a cycle did, added to the metrics.
//!
//! Every label comes from a closed vocabulary or from a list of bounded length, whatever is sent.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use fleetlog_schemas::event::EventType;

use crate::drift::{Counts, OTHER};
use crate::metrics;
use crate::transform::{Transform, Transformed};

/// Adds the results of a cycle to the metrics.
#[derive(Default)]
pub(crate) struct Tally {
    raw_records: u64,
    events: u64,
    stored: u64,
    filtered: u64,
    dead: u64,
    context: u64,
}

impl Tally {
    /// Adds what one record became.
    pub(crate) fn add(&mut self, transform: &Transform, done: &Transformed) {
        let settlement = &done.settlement;
        self.raw_records += 1;
        self.events += u64::from(settlement.events);
        self.filtered += u64::from(settlement.filtered);
        self.dead += u64::from(settlement.dead);
        self.context += u64::from(settlement.context);
        self.stored += settlement.pieces.iter().map(|piece| u64::from(piece.records)).sum::<u64>();
        for event in done.events.values().flatten() {
            if event.event_type == EventType::RawUnknown {
                metrics::UNKNOWN_EVENTS.add_for("reason", &event.unknown_reason, 1);
            }
        }
        for (why, calls) in &done.unpriced {
            metrics::UNPRICED_CALLS.add_for("reason", why.as_str(), *calls);
        }
        for (what, events) in &done.implausible {
            metrics::IMPLAUSIBLE.add_for("what", *what, *events);
        }
        for (rule, count) in transform.redactor.by_name(&done.redactions) {
            metrics::REDACTIONS.add_for("rule", rule, count);
        }
        for (rule, records) in &done.filtered {
            metrics::FILTERED_RECORDS.add_for("rule", rule, *records);
        }
        for (format, version, counts) in done.drift.iter() {
            tally_drift(format, version, counts);
        }
        for letter in &done.dead {
            metrics::DEAD_LETTERS.add_for("reason", letter.reason.as_str(), 1);
        }
    }

    /// Adds the sums.
    pub(crate) fn finish(self) {
        metrics::RAW_RECORDS.add(self.raw_records);
        metrics::EVENTS.add(self.events);
        let fates = [
            ("event", self.stored),
            ("filtered", self.filtered),
            ("dead", self.dead),
            ("context", self.context),
        ];
        for (fate, records) in fates {
            if records > 0 {
                metrics::RECORDS.add_for("fate", fate, records);
            }
        }
    }
}

/// Most pairs of format and version that have labels of their own; a sender can make up versions.
const MOST_VERSIONS: usize = 500;
static VERSIONS: Mutex<BTreeSet<(&'static str, String)>> = Mutex::new(BTreeSet::new());

fn tally_drift(format: &'static str, version: &str, counts: &Counts) {
    let version = {
        let mut versions = VERSIONS.lock().unwrap_or_else(PoisonError::into_inner);
        labelled(&mut versions, format, version).to_owned()
    };
    let all = [
        (metrics::FORMAT_EVENTS, counts.events),
        (metrics::FORMAT_UNKNOWN, counts.unknown),
        (metrics::FORMAT_NEW_FIELDS, counts.new_fields),
        (metrics::FORMAT_CALLS, counts.calls),
        (metrics::FORMAT_ZERO_TOKEN_CALLS, counts.zero_token_calls),
    ];
    for (metric, count) in all {
        if count > 0 {
            metric.add_for_both([("format", format.to_owned()), ("version", version.clone())], count);
        }
    }
}

/// The version as a label, or the common one when too many were seen.
fn labelled<'v>(
    versions: &mut BTreeSet<(&'static str, String)>,
    format: &'static str,
    version: &'v str,
) -> &'v str {
    let pair = (format, version.to_owned());
    if !versions.contains(&pair) {
        if versions.len() >= MOST_VERSIONS {
            return OTHER;
        }
        versions.insert(pair);
    }
    version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_versions_share_a_label_once_there_are_many() {
        let mut versions = BTreeSet::new();
        let label = |versions: &mut _, n: usize| labelled(versions, "f", &n.to_string()).to_owned();
        for n in 0..MOST_VERSIONS {
            assert_eq!(label(&mut versions, n), n.to_string());
        }
        assert_eq!(label(&mut versions, MOST_VERSIONS), OTHER);
        assert_eq!(label(&mut versions, 7), "7");
    }
}
