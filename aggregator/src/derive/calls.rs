//! Calls to models, each counted once.
//!
//! A call is named by `llm_call_key` where its source has one, else it is the event itself; [`same`] joins names. Its
//! most authoritative account with usage gives the whole usage vector, never a mixture: agent log, span, transcript,
//! hook, the rest; among equals the more complete, then the earlier in the raw log (design: truth of the numbers). Only how
//! long cache writes are kept may another account say of the same number of them.
//! Sources whose channels share no id have rules of their own: [`family`].
//!
//! | type | key | usage_role | is |
//! |---|---|---|---|
//! | llm.request, llm.response | yes | none, call, rollup | a sighting of that call; only `call` can give its usage |
//! | llm.request | no | none, call | a call of its own |
//! | llm.response | no | call | a call of its own |
//! | llm.response | no | none | content only: no call |
//! | either | no | rollup, cumulative | a sum over other calls: no call |
//! | either | yes | cumulative | a point of that series of running totals: [`series`](super::series) |

use std::cmp::Reverse;
use std::collections::HashSet;

use fleetlog_schemas::event::{EventType, Status, TokenBasis, UsageRole};
use fleetlog_store::Call;
use fleetlog_store::derived::Sighting;

use super::carry::Past;
use super::cover::Starts;
use super::merge::{self, Gathered, Identity};
use super::prices::ProjectPrices;
use super::{family, price, same, tokens};

/// What is guessed about a call whose counts could mean two things.
const BASIS: &str = "the convention of its token counts is guessed";

/// All calls that a group's facts tell of, by time. `past` is what calls tell of families that stand as they are stored.
pub(super) fn calls(
    prices: &ProjectPrices<'_>,
    sightings: &[&Sighting],
    starts: &Starts,
    past: &Past,
) -> Vec<Call> {
    let mut named: Vec<_> = sightings
        .iter()
        .filter(|sighting| sighting.call_family.is_empty())
        .filter_map(|sighting| identity(sighting).map(|identity| (identity, *sighting)))
        .collect();
    same::join_messages(&mut named);
    same::join_layers(&mut named);
    let same = same::Same::by_answer(&named);
    let mut calls: Vec<Call> = merge::gather(named, |name| same.root(name), rank)
        .into_iter()
        .map(tell_writes_apart)
        .filter_map(|gathered| call(prices, &gathered, false))
        .collect();
    calls.extend(family::calls(prices, sightings, starts, past));
    distinguish(&mut calls);
    calls.sort_by(|a, b| (a.timestamp, &a.call_key).cmp(&(b.timestamp, &b.call_key)));
    calls
}

/// The call that an event reports by itself, if any.
pub(super) fn identity(sighting: &Sighting) -> Option<Identity<'_>> {
    if merge::is_untyped(sighting) && !sighting.llm_call_key.is_empty() {
        return Some(Identity::Key(&sighting.llm_call_key));
    }
    let kind = EventType::parse(&sighting.event_type).filter(|kind| kind.is_llm())?;
    match (tokens::role(sighting), kind, sighting.llm_call_key.is_empty()) {
        (UsageRole::Cumulative, _, _) => None,
        (_, _, false) => Some(Identity::Key(&sighting.llm_call_key)),
        (UsageRole::Call, _, true) | (UsageRole::None, EventType::LlmRequest, true) => {
            Some(Identity::Event(sighting.dedup_key))
        }
        (UsageRole::None | UsageRole::Rollup, _, true) => None,
    }
}

/// Whether a call can lie at an event's time: the call itself, or an increase of a running total.
pub(super) fn may_count(sighting: &Sighting) -> bool {
    identity(sighting).is_some() || family::names_series(sighting)
}

/// Some accounts state what was written to the cache as one number, others by how long it is kept, which decides the
/// price. Where all else that went in is the same, those are two views of one number, and the finer one holds.
fn tell_writes_apart(mut gathered: Gathered<'_>) -> Gathered<'_> {
    let went_in = |account: &Sighting| {
        let written = account.cache_write_5m.saturating_add(account.cache_write_1h);
        (account.in_uncached, account.cache_read, written)
    };
    let finer =
        gathered.best().filter(|best| best.cache_write_1h == 0 && best.cache_write_5m > 0).and_then(|best| {
            let mut others = gathered.says().filter(|account| tokens::role(account) == UsageRole::Call);
            let other = others.find(|other| other.cache_write_1h > 0 && went_in(other) == went_in(best))?;
            Some((other.cache_write_5m, other.cache_write_1h))
        });
    if let (Some((short, long)), Some(best)) = (finer, gathered.accounts.first_mut()) {
        let best = best.says.to_mut();
        (best.cache_write_5m, best.cache_write_1h) = (short, long);
        // It was computed for the other view.
        best.cost_computed = None;
    }
    gathered
}

/// Order of authority among the accounts of a call; the first gives its usage.
pub(super) fn rank(sighting: &Sighting) -> impl Ord + use<> {
    let tokens = tokens::stated(sighting);
    let finished = !sighting.finish_reason.is_empty();
    (Reverse(tokens > 0), merge::channel(sighting), Reverse(tokens), Reverse(finished))
}

/// A name within the group may be given by two families: the later in their order says whose it is as well.
fn distinguish(calls: &mut [Call]) {
    let mut taken: HashSet<String> = HashSet::with_capacity(calls.len());
    for call in calls {
        while !taken.insert(call.call_key.clone()) {
            call.call_key = format!("{}@{}", call.call_key, call.channel);
        }
    }
}

/// The call that accounts make together. `is_sum` tells that it may be several calls of its model.
pub(super) fn call(prices: &ProjectPrices<'_>, gathered: &Gathered<'_>, is_sum: bool) -> Option<Call> {
    let best = gathered.best()?;
    // Nothing but pieces that do not say what they are of.
    EventType::parse(&best.event_type).filter(|kind| kind.is_llm())?;
    let states_usage = tokens::role(best) == UsageRole::Call;
    let bucket = |tokens: u64| if states_usage { tokens } else { 0 };
    let (cost_computed, price_version) = price::cost(prices, gathered, is_sum).unzip();
    let status = gathered.says().map(merge::status).find(|status| *status != Status::Unset);
    let text = |field: fn(&Sighting) -> &String| gathered.text(field);
    let guessed = states_usage && best.token_basis == TokenBasis::Guessed.as_str();
    Some(Call {
        call_key: gathered.key(),
        event_id: best.event_id.clone(),
        timestamp: best.timestamp,
        end_timestamp: gathered.value(|sighting| sighting.end_timestamp),
        received_at: gathered.first_received(),
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
        attempt: gathered.value(|sighting| sighting.attempt),
        duration_ms: gathered.value(|sighting| sighting.duration_ms),
        ttft_ms: gathered.value(|sighting| sighting.ttft_ms),
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
        cost_reported: gathered.value(|sighting| sighting.cost_reported),
        cost_computed,
        price_version: price_version.unwrap_or_default(),
        channel: merge::channel(best).as_str(),
        source_format: best.source_format.clone(),
        sightings: gathered.count(),
        channels: gathered.channels(),
        guessed,
        guess: if guessed { BASIS.to_owned() } else { String::new() },
        event_ids: gathered.event_ids(),
        raw_partition: best.raw_partition,
        raw_offset: best.raw_offset,
        raw_index: best.raw_index,
    })
}
