//! What a group shares in each trace: what its events say of it, and the sums over the group's calls there.

use std::collections::HashMap;

use fleetlog_schemas::event::Status;
use fleetlog_store::derived::TraceShare;
use fleetlog_store::{Call, Tool, Trace};

/// One entry for each trace of the group's events. Calls whose trace none of them names belong to no trace.
pub(super) fn traces(shares: &[TraceShare], calls: &[Call], tools: &[Tool]) -> Vec<Trace> {
    let mut traces: HashMap<&str, Trace> =
        shares.iter().map(|share| (share.trace_id.as_str(), of(share))).collect();
    let failed = |status: &str| u64::from(status == Status::Error.as_str());
    for call in calls {
        let Some(trace) = traces.get_mut(call.trace_id.as_str()) else { continue };
        trace.llm_call_count += 1;
        trace.llm_error_count += failed(call.status);
        add(&mut trace.in_uncached, call.in_uncached);
        add(&mut trace.cache_read, call.cache_read);
        add(&mut trace.cache_write_5m, call.cache_write_5m);
        add(&mut trace.cache_write_1h, call.cache_write_1h);
        add(&mut trace.out_visible, call.out_visible);
        add(&mut trace.out_reasoning, call.out_reasoning);
        trace.cost_reported = trace.cost_reported.saturating_add(call.cost_reported.unwrap_or(0));
        trace.cost_reported_calls += u64::from(call.cost_reported.is_some());
        trace.cost_computed = trace.cost_computed.saturating_add(call.cost_computed.unwrap_or(0));
        trace.cost_computed_calls += u64::from(call.cost_computed.is_some());
        trace.guessed_calls += u64::from(call.guessed);
    }
    for tool in tools {
        let Some(trace) = traces.get_mut(tool.trace_id.as_str()) else { continue };
        trace.tool_call_count += 1;
        trace.tool_error_count += failed(tool.status);
    }
    let mut traces: Vec<Trace> = traces.into_values().collect();
    traces.sort_by(|a, b| a.trace_id.cmp(&b.trace_id));
    traces
}

/// Sums saturate: a sender's absurd count must not make a sum of others wrong by wrapping.
fn add(sum: &mut u64, n: u64) {
    *sum = sum.saturating_add(n);
}

fn of(share: &TraceShare) -> Trace {
    let name = [&share.record_name, &share.root_name].into_iter().find(|name| !name.is_empty());
    Trace {
        trace_id: share.trace_id.clone(),
        name: name.cloned().unwrap_or_default(),
        user_id: share.last_user.clone(),
        started_at: share.started_at,
        ended_at: share.ended_at,
        first_received_at: share.first_received_at,
        last_received_at: share.last_received_at,
        event_count: share.event_count,
        observation_count: share.observation_count,
        error_count: share.error_count,
        score_count: share.score_count,
        ..Trace::default()
    }
}
