//! From facts to what is derived from them: pure functions of a group's events.
//!
//! Nothing here knows when or in what order events arrived, so neither can matter: the same set of events gives the
//! same calls, session and usage, whatever the order, the repetition or the interleaving (property-tested below).
//! Metric points never reach this code: they are not sightings of calls (design: truth of the numbers).
//!
//! Their places are taken for the rules of sources whose channels share no id (session × channel), and for events
//! whose session is known through their trace alone.

mod calls;
mod merge;
mod session;
mod tools;
mod usage;

use fleetlog_store::derived::{DerivedGroup, GroupKey, Sighting, Summary};

/// Derives a group from all of its facts.
pub fn derive(key: GroupKey, summary: &Summary, sightings: &[Sighting]) -> DerivedGroup {
    let calls = calls::calls(sightings);
    let tools = tools::tools(sightings);
    let session = session::session(summary, &calls);
    let contributions = usage::contributions(&calls, sightings);
    DerivedGroup { key, session, calls, tools, contributions }
}

#[cfg(test)]
mod tests;
