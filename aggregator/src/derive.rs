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
mod same;
mod series;
mod session;
mod tokens;
mod tools;
mod usage;

use cover::Starts;
use fleetlog_store::derived::{DerivedGroup, GroupKey, Sighting, Summary};

/// Derives a group from all of its facts.
pub fn derive(key: GroupKey, summary: &Summary, sightings: &[Sighting]) -> DerivedGroup {
    let starts = Starts::new(&summary.channel_starts);
    let seen = merge::distinct(sightings);
    let calls = calls::calls(&seen, &starts);
    let tools = tools::tools(&seen, &starts);
    let session = session::session(summary, &calls);
    let contributions = usage::contributions(&calls, &seen);
    DerivedGroup { key, session, calls, tools, contributions }
}

#[cfg(test)]
mod tests;
