//! Calls to models, each counted once.
//!
//! A call is named by `llm_call_key` where its source has one, else it is the event itself. Its most authoritative
//! sighting with usage gives the whole usage vector, never a mixture: agent log, span, transcript, hook, the rest;
//! among equals the more complete, then the earlier in the raw log (design: truth of the numbers).
//!
//! | type | key | usage_role | is |
//! |---|---|---|---|
//! | llm.request, llm.response | yes | any | a sighting of that call; only `call` can give its usage |
//! | llm.request | no | none, call | a call of its own |
//! | llm.response | no | call | a call of its own |
//! | llm.response | no | none | content only: no call |
//! | either | no | rollup, cumulative | a sum over other calls: no call |

use std::cmp::Reverse;

use fleetlog_schemas::event::{EventType, Status, TokenBasis, UsageRole};
use fleetlog_store::Call;
use fleetlog_store::derived::Sighting;

use super::merge::{self, Identity};

/// All calls of a group, by time.
pub(super) fn calls(sightings: &[Sighting]) -> Vec<Call> {
    let mut calls: Vec<Call> =
        merge::gather(sightings, identity, rank).iter().filter_map(|(_, seen)| call(seen)).collect();
    calls.sort_by(|a, b| (a.timestamp, &a.call_key).cmp(&(b.timestamp, &b.call_key)));
    calls
}

/// The call that an event reports, if any.
pub(super) fn identity(sighting: &Sighting) -> Option<Identity<'_>> {
    let kind = EventType::parse(&sighting.event_type).filter(|kind| kind.is_llm())?;
    if !sighting.llm_call_key.is_empty() {
        return Some(Identity::Key(&sighting.llm_call_key));
    }
    match (role(sighting), kind) {
        (UsageRole::Call, _) | (UsageRole::None, EventType::LlmRequest) => {
            Some(Identity::Event(sighting.dedup_key))
        }
        (UsageRole::None | UsageRole::Rollup | UsageRole::Cumulative, _) => None,
    }
}

fn role(sighting: &Sighting) -> UsageRole {
    UsageRole::parse(&sighting.usage_role).unwrap_or_default()
}

/// Tokens that the sighting states for this call.
fn tokens(sighting: &Sighting) -> u64 {
    if role(sighting) != UsageRole::Call {
        return 0;
    }
    [
        sighting.in_uncached,
        sighting.cache_read,
        sighting.cache_write_5m,
        sighting.cache_write_1h,
        sighting.out_visible,
        sighting.out_reasoning,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

fn rank(sighting: &Sighting) -> impl Ord + use<> {
    let tokens = tokens(sighting);
    let finished = !sighting.finish_reason.is_empty();
    (Reverse(tokens > 0), merge::channel(sighting), Reverse(tokens), Reverse(finished))
}

fn call(seen: &[&Sighting]) -> Option<Call> {
    let best = *seen.first()?;
    let states_usage = role(best) == UsageRole::Call;
    let bucket = |tokens: u64| if states_usage { tokens } else { 0 };
    let priced = seen.iter().find(|sighting| sighting.cost_computed.is_some());
    let status = seen.iter().map(|sighting| merge::status(sighting)).find(|status| *status != Status::Unset);
    let text = |field: fn(&Sighting) -> &String| merge::text(seen, field);
    Some(Call {
        call_key: if best.llm_call_key.is_empty() {
            best.event_id.clone()
        } else {
            best.llm_call_key.clone()
        },
        event_id: best.event_id.clone(),
        timestamp: best.timestamp,
        end_timestamp: merge::value(seen, |sighting| sighting.end_timestamp),
        received_at: merge::first_received(seen),
        trace_id: text(|sighting| &sighting.trace_id),
        span_id: text(|sighting| &sighting.span_id),
        turn_id: text(|sighting| &sighting.turn_id),
        request_id: text(|sighting| &sighting.request_id),
        agent_id: text(|sighting| &sighting.agent_id),
        agent_name: text(|sighting| &sighting.agent_name),
        user_id: text(|sighting| &sighting.user_id),
        source: best.source.clone(),
        provider: text(|sighting| &sighting.provider),
        model: text(|sighting| &sighting.model),
        model_requested: text(|sighting| &sighting.model_requested),
        finish_reason: text(|sighting| &sighting.finish_reason),
        status: status.unwrap_or_default().as_str(),
        error_type: text(|sighting| &sighting.error_type),
        error_message: text(|sighting| &sighting.error_message),
        attempt: merge::value(seen, |sighting| sighting.attempt),
        duration_ms: merge::value(seen, |sighting| sighting.duration_ms),
        ttft_ms: merge::value(seen, |sighting| sighting.ttft_ms),
        in_uncached: bucket(best.in_uncached),
        cache_read: bucket(best.cache_read),
        cache_write_5m: bucket(best.cache_write_5m),
        cache_write_1h: bucket(best.cache_write_1h),
        out_visible: bucket(best.out_visible),
        out_reasoning: bucket(best.out_reasoning),
        token_basis: if states_usage {
            best.token_basis.clone()
        } else {
            TokenBasis::None.as_str().to_owned()
        },
        cost_reported: merge::value(seen, |sighting| sighting.cost_reported),
        cost_computed: priced.and_then(|sighting| sighting.cost_computed),
        price_version: priced.map(|sighting| sighting.price_version.clone()).unwrap_or_default(),
        channel: merge::channel(best).as_str(),
        source_format: best.source_format.clone(),
        sightings: merge::count(seen),
        channels: merge::channels(seen),
        guessed: states_usage && best.token_basis == TokenBasis::Guessed.as_str(),
        raw_partition: best.raw_partition,
        raw_offset: best.raw_offset,
        raw_index: best.raw_index,
    })
}
