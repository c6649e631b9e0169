//! From facts to what is derived from them: pure functions of a group's events.
//!
//! Nothing here knows when or in what order events arrived, so neither can matter: the same set of events gives the
//! same calls, session and usage, whatever the order, the repetition or the interleaving (property-tested below).
//! Metric points never reach this code: they are not sightings of calls (design: truth of the numbers).

mod calls;
mod carry;
mod cover;
mod family;
mod merge;
mod pieces;
mod price;
mod prices;
mod same;
mod series;
mod session;
mod tokens;
mod tools;
mod traces;
mod usage;

use carry::Carried;
use cover::Starts;
use fleetlog_store::Session;
use fleetlog_store::derived::{DerivedGroup, GroupKey, Sighting, Summary, TraceShare};

pub use carry::Stored;
pub use prices::Prices;

/// Derives a group from all of its facts, and prices the calls that no single fact has priced. Where some of its facts
/// may have expired, what is stored of it stands for them ([`Stored`]).
pub fn derive(
    prices: &Prices,
    key: GroupKey,
    summary: &Summary,
    sightings: &[Sighting],
    shares: &[TraceShare],
    stored: Option<&Stored>,
) -> DerivedGroup {
    let starts = Starts::new(&summary.channel_starts);
    let seen = merge::distinct(sightings);
    let prices = prices.of_project(&key.project_id);
    let edge = stored.map_or(i64::MIN, |stored| stored.edge);
    let held: Vec<&Sighting> = seen.iter().copied().filter(|sighting| sighting.received_at >= edge).collect();
    let carried = stored.map(|stored| Carried::of(stored, &held)).unwrap_or_default();
    let calls = carried.with_calls(calls::calls(&prices, &held, &starts, &carried.past_calls));
    let tools = carried.with_tools(tools::tools(&held, &starts, &carried.past_tools));
    let mut session = session::session(summary, &calls);
    let mut traces = traces::traces(shares, &calls, &tools);
    if let Some(stored) = stored {
        session = carry::session(stored, session);
        carry::traces(stored, shares, &mut traces);
    }
    let contributions = usage::contributions(&calls, &seen);
    DerivedGroup { key, session, calls, tools, contributions, traces }
}

/// The group of a trace whose events have become a session's: nothing of it counts here any more, but the calls some of
/// whose facts have expired. These stay, for nobody can find them elsewhere.
pub fn vacated(
    key: GroupKey,
    summary: &Summary,
    sightings: &[Sighting],
    stored: Option<&Stored>,
) -> DerivedGroup {
    let seen = merge::distinct(sightings);
    let Carried { calls, tools, .. } = stored.map(|stored| Carried::of(stored, &[])).unwrap_or_default();
    let sightings = calls.iter().map(|call| call.sightings).chain(tools.iter().map(|tool| tool.sightings));
    let event_count = sightings.map(u64::from).sum();
    let times = session::session(summary, &[]);
    let session = Session {
        started_at: times.started_at,
        ended_at: times.ended_at,
        first_received_at: stored.map_or(times.first_received_at, |stored| {
            stored.group.session.first_received_at.min(times.first_received_at)
        }),
        last_received_at: times.last_received_at,
        event_count,
        ..Session::default()
    };
    let share = TraceShare {
        trace_id: key.id.clone(),
        started_at: session.started_at,
        ended_at: session.ended_at,
        first_received_at: session.first_received_at,
        last_received_at: session.last_received_at,
        event_count,
        ..TraceShare::default()
    };
    let contributions = usage::contributions(&calls, &seen);
    let traces = traces::traces(&[share], &calls, &tools);
    DerivedGroup { key, session, calls, tools, contributions, traces }
}

#[cfg(test)]
mod tests;
