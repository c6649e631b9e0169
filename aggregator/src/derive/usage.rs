//! What a group's calls contribute to each minute of usage.

use std::collections::BTreeMap;

use fleetlog_schemas::event::Status;
use fleetlog_store::derived::{Sighting, minute_of};
use fleetlog_store::{Call, Contribution, UsageRow};

use super::calls;

type Dimensions<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);

/// One contribution for every minute in which the group has a sighting of a call.
///
/// A minute to which no call counts is contributed empty: it may have held one before a better sighting moved the
/// call elsewhere. A call's minute is that of its winning sighting, so it is always among them.
pub(super) fn contributions(calls: &[Call], sightings: &[&Sighting]) -> Vec<Contribution> {
    let mut minutes: BTreeMap<u32, BTreeMap<Dimensions<'_>, UsageRow>> = sightings
        .iter()
        .filter(|sighting| calls::may_count(sighting))
        .map(|sighting| (minute_of(sighting.timestamp), BTreeMap::new()))
        .collect();
    for call in calls {
        let dimensions = (
            call.source.as_str(),
            call.provider.as_str(),
            call.model.as_str(),
            call.agent_name.as_str(),
            call.user_id.as_str(),
        );
        let minute = minutes.entry(minute_of(call.timestamp)).or_default();
        add(minute.entry(dimensions).or_insert_with(|| of(dimensions)), call);
    }
    minutes
        .into_iter()
        .map(|(minute, usage)| Contribution { minute, usage: usage.into_values().collect() })
        .collect()
}

fn of((source, provider, model, agent_name, user_id): Dimensions<'_>) -> UsageRow {
    UsageRow {
        source: source.to_owned(),
        provider: provider.to_owned(),
        model: model.to_owned(),
        agent_name: agent_name.to_owned(),
        user_id: user_id.to_owned(),
        ..UsageRow::default()
    }
}

/// Sums saturate: a sender's absurd count must not make a sum of others wrong by wrapping.
fn add(row: &mut UsageRow, call: &Call) {
    let sum = |into: &mut u64, n: u64| *into = into.saturating_add(n);
    sum(&mut row.calls, 1);
    sum(&mut row.errors, u64::from(call.status == Status::Error.as_str()));
    sum(&mut row.in_uncached, call.in_uncached);
    sum(&mut row.cache_read, call.cache_read);
    sum(&mut row.cache_write_5m, call.cache_write_5m);
    sum(&mut row.cache_write_1h, call.cache_write_1h);
    sum(&mut row.out_visible, call.out_visible);
    sum(&mut row.out_reasoning, call.out_reasoning);
    row.cost_reported = row.cost_reported.saturating_add(call.cost_reported.unwrap_or(0));
    sum(&mut row.cost_reported_calls, u64::from(call.cost_reported.is_some()));
    row.cost_computed = row.cost_computed.saturating_add(call.cost_computed.unwrap_or(0));
    sum(&mut row.cost_computed_calls, u64::from(call.cost_computed.is_some()));
    if let Some(duration_ms) = call.duration_ms {
        // Whole microseconds: `as` saturates, and turns NaN and negative durations into 0.
        sum(&mut row.duration_us, (duration_ms * 1000.0).round() as u64);
        sum(&mut row.duration_calls, 1);
    }
    sum(&mut row.guessed_calls, u64::from(call.guessed));
}
