//! What a group says as a whole.

use std::collections::BTreeSet;

use fleetlog_store::derived::Summary;
use fleetlog_store::{Call, Session};

/// Most names a session lists, as in its summary.
pub(super) const NAMES: usize = 100;

/// The session of a group's summary and calls. It ended when an end was reported and nothing began after it.
pub(super) fn session(summary: &Summary, calls: &[Call]) -> Session {
    let models: BTreeSet<&str> =
        calls.iter().map(|call| call.model.as_str()).filter(|model| !model.is_empty()).collect();
    Session {
        started_at: summary.started_at,
        ended_at: summary.ended_at,
        first_received_at: summary.first_received_at,
        last_received_at: summary.last_received_at,
        ended: summary.last_end_at > 0 && summary.last_end_at >= summary.last_begin_at,
        event_count: summary.event_count,
        error_count: summary.error_count,
        prompt_count: summary.prompt_count,
        agents: summary.agents.clone(),
        models: models.into_iter().take(NAMES).map(str::to_owned).collect(),
        users: summary.users.clone(),
        hosts: summary.hosts.clone(),
        sources: summary.sources.clone(),
    }
}
