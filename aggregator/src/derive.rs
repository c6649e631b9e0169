//! From facts to what is derived from them: pure functions of a group's events.
//!
//! Nothing here knows when or in what order events arrived, so neither can matter: the same set of events gives the
//! same calls, session and usage, whatever the order, the repetition or the interleaving (property-tested below).
//! Metric points never reach this code: they are not sightings of calls (design: truth of the numbers).

mod calls;
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

use cover::Starts;
use fleetlog_store::derived::{DerivedGroup, GroupKey, Sighting, Summary, TraceShare};
use fleetlog_store::{Session, Trace};

pub use prices::Prices;

/// Derives a group from all of its facts, and prices the calls that no single fact has priced.
pub fn derive(
    prices: &Prices,
    key: GroupKey,
    summary: &Summary,
    sightings: &[Sighting],
    shares: &[TraceShare],
) -> DerivedGroup {
    let starts = Starts::new(&summary.channel_starts);
    let seen = merge::distinct(sightings);
    let prices = prices.of_project(&key.project_id);
    let calls = calls::calls(&prices, &seen, &starts);
    let tools = tools::tools(&seen, &starts);
    let session = session::session(summary, &calls);
    let contributions = usage::contributions(&calls, &seen);
    let traces = traces::traces(shares, &calls, &tools);
    DerivedGroup { key, session, calls, tools, contributions, traces }
}

/// The empty group of a trace whose events have become a session's: nothing of it counts here any more.
pub fn vacated(key: GroupKey, summary: &Summary, sightings: &[Sighting]) -> DerivedGroup {
    let times = session::session(summary, &[]);
    let session = Session {
        started_at: times.started_at,
        ended_at: times.ended_at,
        first_received_at: times.first_received_at,
        last_received_at: times.last_received_at,
        ..Session::default()
    };
    let share = Trace {
        trace_id: key.id.clone(),
        started_at: times.started_at,
        ended_at: times.ended_at,
        first_received_at: times.first_received_at,
        last_received_at: times.last_received_at,
        ..Trace::default()
    };
    DerivedGroup {
        key,
        session,
        calls: Vec::new(),
        tools: Vec::new(),
        contributions: usage::contributions(&[], &merge::distinct(sightings)),
        traces: vec![share],
    }
}

#[cfg(test)]
mod tests;
