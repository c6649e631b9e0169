//! Running totals: what each record of a series adds to the one before it.
//!
//! A series is named by `llm_call_key` and ordered by (time, revision, identity). Each increase is a call of its own,
//! named `series#n`. A bucket that falls (a reset after a fork or a compaction) adds nothing, and the next record counts
//! from the lower total; a record that repeats the total before it adds nothing either. Where increases of a series stand
//! as they are stored, the first record after them counts from the last one that is held before it, else from their sum.

use std::collections::BTreeMap;

use fleetlog_schemas::event::UsageRole;
use fleetlog_store::derived::Sighting;

use super::carry::Past;
use super::tokens;

/// One increase: the record as it would read if it had reported it alone.
pub(super) fn increases(records: &[&Sighting], past: &Past) -> Vec<Sighting> {
    let mut series: BTreeMap<&str, Vec<&Sighting>> = BTreeMap::new();
    for record in records {
        series.entry(&record.llm_call_key).or_default().push(record);
    }
    let mut increases = Vec::new();
    for (name, mut records) in series {
        records.sort_unstable_by_key(|record| (record.timestamp, record.revision, record.dedup_key));
        let (mut number, mut before) = past.total(name).map_or((0, None), |(last, sum)| (last, Some(sum)));
        for record in records {
            if past.has(record.timestamp, record.end_timestamp) {
                before = Some(record);
                continue;
            }
            let mut increase = increase(before.replace(record), record);
            if tokens::stated(&increase) > 0 || increase.cost_reported.is_some_and(|cost| cost > 0) {
                number += 1;
                increase.llm_call_key = format!("{name}#{number}");
                increases.push(increase);
            }
        }
    }
    increases
}

fn increase(before: Option<&Sighting>, record: &Sighting) -> Sighting {
    let mut increase = record.clone();
    let mut counts = tokens::vector(record);
    if let Some(before) = before {
        for (count, earlier) in counts.iter_mut().zip(tokens::vector(before)) {
            *count = count.saturating_sub(earlier);
        }
        let beyond =
            |now: Option<i64>, then: Option<i64>| now.map(|now| now.saturating_sub(then.unwrap_or(0)).max(0));
        increase.cost_reported = beyond(record.cost_reported, before.cost_reported);
        increase.cost_computed = beyond(record.cost_computed, before.cost_computed);
    }
    tokens::set(&mut increase, counts);
    increase.usage_role = UsageRole::Call.as_str().to_owned();
    // Durations of a running total are the total's; the increase is no piece of another record.
    (increase.duration_ms, increase.ttft_ms, increase.revision) = (None, None, 0);
    increase
}
