//! What the transformations of a cycle did, added to the metrics.
//!
//! Every label comes from a closed vocabulary or from a list of bounded length, whatever is sent.

use fleetlog_schemas::event::EventType;

use crate::metrics;
use crate::transform::{Transform, Transformed};

/// Adds the results of a cycle to the metrics.
pub(crate) fn tally(transform: &Transform, done: &[Transformed]) {
    let (mut events, mut filtered, mut dead, mut context, mut stored) = (0_u64, 0, 0, 0, 0);
    for one in done {
        let settlement = &one.settlement;
        events += u64::from(settlement.events);
        filtered += u64::from(settlement.filtered);
        dead += u64::from(settlement.dead);
        context += u64::from(settlement.context);
        stored += settlement.pieces.iter().map(|piece| u64::from(piece.records)).sum::<u64>();
        for event in one.events.values().flatten() {
            if event.event_type == EventType::RawUnknown {
                metrics::UNKNOWN_EVENTS.add_for("reason", &event.unknown_reason, 1);
            }
        }
        for (why, calls) in &one.unpriced {
            metrics::UNPRICED_CALLS.add_for("reason", why.as_str(), *calls);
        }
        for (rule, count) in transform.redactor.by_name(&one.redactions) {
            metrics::REDACTIONS.add_for("rule", rule, count);
        }
        for (rule, records) in &one.filtered {
            metrics::FILTERED_RECORDS.add_for("rule", rule, *records);
        }
        for letter in &one.dead {
            metrics::DEAD_LETTERS.add_for("reason", letter.reason.as_str(), 1);
        }
    }
    metrics::RAW_RECORDS.add(done.len() as u64);
    metrics::EVENTS.add(events);
    for (fate, records) in [("event", stored), ("filtered", filtered), ("dead", dead), ("context", context)] {
        if records > 0 {
            metrics::RECORDS.add_for("fate", fate, records);
        }
    }
}
