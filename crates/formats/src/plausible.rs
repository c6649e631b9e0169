//! What nobody can have used, paid or waited for: one such number would make a project's sums, means and bills worthless,
//! and no later correction takes it out of them again.
//!
//! The columns are cleared, as if nothing had been said; what was said stays in `data` under `implausible`, and is counted.

use std::collections::BTreeMap;

use fleetlog_schemas::event::{AgentEvent, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use serde_json::{Map, Value, json};

use crate::confine::with_raw_member;

/// Most tokens in one bucket of one call: a thousand of the largest contexts there are. A rollup is never added up.
const MOST_TOKENS: u64 = 1_000_000_000;
/// Highest cost of one event, dollars: ten times what so many of the dearest tokens cost.
const MOST_USD: i64 = 1_000_000;
/// Longest duration, milliseconds: a year.
const LONGEST_MS: f64 = 366.0 * 86_400_000.0;

/// Events with an implausible number, by what it is of: `tokens`, `cost` or `duration`.
pub type Implausible = BTreeMap<&'static str, u64>;

/// Clears what is implausible of an event.
pub(crate) fn check(event: &mut AgentEvent, counts: &mut Implausible) {
    let mut kept = Map::new();
    tokens(event, &mut kept, counts);
    let cost = event.cost_reported.filter(|cost| *cost > NanoUsd(MOST_USD * 1_000_000_000));
    if let Some(cost) = cost {
        event.cost_reported = None;
        kept.insert("costReported".to_owned(), json!(cost.as_usd()));
        *counts.entry("cost").or_default() += 1;
    }
    let times = [("durationMs", &mut event.duration_ms), ("ttftMs", &mut event.ttft_ms)];
    let mut long = false;
    for (name, time) in times {
        if let Some(value) = time.take_if(|time| !(0.0..=LONGEST_MS).contains(time)) {
            kept.insert(name.to_owned(), json!(value));
            long = true;
        }
    }
    if long {
        *counts.entry("duration").or_default() += 1;
    }
    if event.token_basis == TokenBasis::None && event.cost_reported.is_none() && !kept.is_empty() {
        event.usage_role = UsageRole::None;
    }
    if !kept.is_empty() {
        event.data = with_raw_member(&event.data, "implausible", &Value::Object(kept).to_string());
    }
}

fn tokens(event: &mut AgentEvent, kept: &mut Map<String, Value>, counts: &mut Implausible) {
    let buckets = [
        ("inUncached", &mut event.in_uncached),
        ("cacheRead", &mut event.cache_read),
        ("cacheWrite5m", &mut event.cache_write_5m),
        ("cacheWrite1h", &mut event.cache_write_1h),
        ("outVisible", &mut event.out_visible),
        ("outReasoning", &mut event.out_reasoning),
    ];
    if event.usage_role == UsageRole::Rollup || buckets.iter().all(|(_, count)| **count <= MOST_TOKENS) {
        return;
    }
    // One absurd bucket says that none of them can be believed.
    for (name, count) in buckets {
        if *count > 0 {
            kept.insert(name.to_owned(), json!(std::mem::take(count)));
        }
    }
    event.token_basis = TokenBasis::None;
    *counts.entry("tokens").or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> AgentEvent {
        AgentEvent {
            in_uncached: 12,
            out_visible: MOST_TOKENS,
            token_basis: TokenBasis::Disjoint,
            usage_role: UsageRole::Call,
            cost_reported: Some(NanoUsd(1)),
            duration_ms: Some(LONGEST_MS),
            data: r#"{"a":1}"#.to_owned(),
            ..AgentEvent::default()
        }
    }

    fn checked(mut event: AgentEvent) -> (AgentEvent, Implausible) {
        let mut counts = Implausible::new();
        check(&mut event, &mut counts);
        (event, counts)
    }

    #[test]
    fn what_can_be_is_left_as_it_is() {
        assert_eq!(checked(call()), (call(), Implausible::new()));
        let rollup = AgentEvent { in_uncached: 1 << 50, usage_role: UsageRole::Rollup, ..call() };
        assert_eq!(checked(rollup.clone()), (rollup, Implausible::new()));
    }

    #[test]
    fn what_cannot_be_is_cleared_counted_and_kept_in_data() {
        let absurd = AgentEvent {
            cache_read: 1_000_000_000_000,
            cost_reported: NanoUsd::from_usd(2e6),
            duration_ms: Some(-1.0),
            ttft_ms: Some(1e300),
            ..call()
        };
        let (event, counts) = checked(absurd);
        assert_eq!((event.in_total() + event.out_total(), event.token_basis), (0, TokenBasis::None));
        assert_eq!((event.cost_reported, event.duration_ms, event.ttft_ms), (None, None, None));
        assert_eq!(event.usage_role, UsageRole::None);
        assert_eq!(counts, Implausible::from([("tokens", 1), ("cost", 1), ("duration", 1)]));
        let data: Value = serde_json::from_str(&event.data).unwrap();
        let kept = json!({"inUncached": 12, "cacheRead": 1_000_000_000_000_u64, "outVisible": MOST_TOKENS,
            "costReported": 2e6, "durationMs": -1.0, "ttftMs": 1e300});
        assert_eq!(data, json!({"a": 1, "implausible": kept}));
    }

    #[test]
    fn a_cost_without_plausible_tokens_still_counts() {
        let (event, _) = checked(AgentEvent { cache_read: MOST_TOKENS + 1, ..call() });
        assert_eq!((event.usage_role, event.cost_reported), (UsageRole::Call, Some(NanoUsd(1))));
    }
}
