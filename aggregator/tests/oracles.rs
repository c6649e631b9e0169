//! What real sessions come to, from their captures: decoded, told apart by session, and derived.
//!
//! Every channel that states usage gives the same calls alone, and all channels together do in any order and twice over.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use fleetlog_schemas::AgentEvent;
use fleetlog_store::derived::DerivedGroup;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{PRICES, Source, channel, derived, events, posted};

const CLAUDE: &[Source] = &[
    Source::logs("claude-code-2.1/logs.json"),
    Source::spans("claude-code-2.1/spans.json"),
    Source::lines("claude-code-2.1/transcripts/session.jsonl"),
    Source::lines("claude-code-2.1/transcripts/subagent.jsonl"),
    Source::metrics("claude-code-2.1/metrics.json"),
];
const CODEX: &[Source] = &[
    Source::logs("codex-0.169/logs.json"),
    Source::spans("codex-0.169/spans.json"),
    Source::lines("codex-0.169/rollout.jsonl"),
    Source::metrics("codex-0.169/metrics.json"),
];
const GEMINI: &[Source] = &[
    Source::logs("gemini-cli-0.61/logs.json"),
    Source::spans("gemini-cli-0.61/spans.json"),
    Source::lines("gemini-cli-0.61/chat.jsonl"),
    Source::metrics("gemini-cli-0.61/metrics.json"),
];

/// What a session comes to.
#[derive(Debug, PartialEq, Eq)]
struct Sums {
    calls: usize,
    /// Uncached, read from a cache, written to one, visible, reasoning.
    tokens: [u64; 5],
    tools: usize,
    failed_tools: usize,
    guessed: usize,
}

fn sums(group: &DerivedGroup) -> Sums {
    let sum = |of: fn(&fleetlog_store::Call) -> u64| group.calls.iter().map(of).sum();
    Sums {
        calls: group.calls.len(),
        tokens: [
            sum(|call| call.in_uncached),
            sum(|call| call.cache_read),
            sum(|call| call.cache_write_5m + call.cache_write_1h),
            sum(|call| call.out_visible),
            sum(|call| call.out_reasoning),
        ],
        tools: group.tools.len(),
        failed_tools: group.tools.iter().filter(|tool| tool.status == "error").count(),
        guessed: group.calls.iter().filter(|call| call.guessed).count()
            + group.tools.iter().filter(|tool| tool.guessed).count(),
    }
}

/// The one session or trace that these events are.
fn session(events: &[AgentEvent]) -> DerivedGroup {
    let mut groups = derived(events);
    assert_eq!(groups.len(), 1, "{:?}", groups.iter().map(|group| &group.key).collect::<Vec<_>>());
    groups.remove(0)
}

fn claude() -> Sums {
    Sums { calls: 8, tokens: [168, 32_000, 2_400, 136, 0], tools: 6, failed_tools: 2, guessed: 0 }
}

fn codex() -> Sums {
    Sums { calls: 2, tokens: [400, 2_000, 0, 60, 40], tools: 1, failed_tools: 0, guessed: 0 }
}

fn gemini() -> Sums {
    Sums { calls: 2, tokens: [80, 120, 0, 20, 20], tools: 1, failed_tools: 0, guessed: 0 }
}

#[test]
fn a_claude_session_is_the_same_by_every_channel() {
    let all = events(CLAUDE);
    for name in ["agent_log", "span", "transcript"] {
        let group = session(&channel(&all, name));
        assert_eq!(sums(&group), claude(), "{name}");
    }
    let group = session(&all);
    assert_eq!(sums(&group), claude());
    let reported: i64 = group.calls.iter().filter_map(|call| call.cost_reported).sum();
    assert_eq!(reported, 21_144_000, "billionths of a dollar");
    assert!(
        group
            .calls
            .iter()
            .all(|call| call.channel == "agent_log" && call.channels == "agent_log,span,transcript")
    );
}

#[test]
fn a_codex_session_is_the_same_by_every_channel() {
    let all = events(CODEX);
    for name in ["agent_log", "span", "transcript"] {
        assert_eq!(sums(&session(&channel(&all, name))), codex(), "{name}");
    }
    // What `codex exec --json` printed of the same thread is its running total.
    let printed = events(&[Source::lines("codex-exec/printed.jsonl")]);
    let totals = sums(&session(&printed));
    assert_eq!((totals.calls, totals.tokens), (1, codex().tokens));
    assert_eq!(session(&[all.clone(), printed].concat()).calls.len(), 2);
    let group = session(&all);
    assert_eq!(sums(&group), codex());
    assert!(group.calls.iter().all(|call| call.channel == "agent_log"));
}

#[test]
fn a_gemini_session_is_the_same_by_every_channel() {
    let all = events(GEMINI);
    for name in ["agent_log", "span", "transcript"] {
        let found = sums(&session(&channel(&all, name)));
        // Spans state neither cached tokens nor thoughts.
        let expected = if name == "span" { Sums { tokens: found.tokens, ..gemini() } } else { gemini() };
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(sums(&session(&all)), gemini());
}

fn computed(group: &DerivedGroup) -> i64 {
    group.calls.iter().filter_map(|call| call.cost_computed).sum()
}

#[test]
fn a_session_costs_the_same_by_every_channel_that_states_all_its_usage() {
    let codex_printed = [Source::lines("codex-exec/printed.jsonl")];
    for (sources, cost) in [(CLAUDE, 21_144_000), (CODEX, 1_750_000)] {
        let all = events(sources);
        for name in ["agent_log", "span", "transcript"] {
            assert_eq!(computed(&session(&channel(&all, name))), cost, "{name}");
        }
        assert_eq!(computed(&session(&all)), cost);
    }
    // Printed events name no model.
    let printed = session(&events(&codex_printed));
    assert_eq!((printed.calls.len(), printed.calls[0].cost_computed), (1, None));
}

/// What a generation says, as a Langfuse client would write it: in one piece, or each member in a piece of its own.
fn generation(pieces: &[Value]) -> Vec<Value> {
    let piece = |(number, said): (usize, &Value)| {
        let mut body = said.clone();
        (body["id"], body["traceId"]) = ("g1".into(), "t1".into());
        let kind = if number == 0 { "generation-create" } else { "generation-update" };
        json!({"id": format!("piece-{number}"), "type": kind, "timestamp": format!("2026-11-21T12:24:0{number}.000Z"), "body": body})
    };
    pieces.iter().enumerate().map(piece).collect()
}

fn posted_in_order(pieces: &[Value], order: &[usize]) -> Vec<AgentEvent> {
    let each = |(offset, piece): (usize, &usize)| {
        posted("langfuse.ingestion", &json!({"batch": [pieces[*piece]]}), offset as i64)
    };
    order.iter().enumerate().flat_map(each).collect()
}

/// The events in another order, some of them again from another place in the raw log.
fn disturbed(all: &[AgentEvent], seed: u64, repeats: usize) -> Vec<AgentEvent> {
    let mut state = seed | 1;
    let mut next = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let mut seen = all.to_vec();
    for round in 0..repeats {
        seen.extend(all.iter().cloned().map(|mut event| {
            event.raw_offset += 1 + round as i64;
            event.received_at += 1;
            event
        }));
    }
    for place in (1..seen.len()).rev() {
        seen.swap(place, next(place + 1));
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_channels_in_any_order_and_twice_over_come_to_the_same(seed in any::<u64>(), repeats in 0usize..3) {
        for (sources, expected) in [(CLAUDE, claude()), (CODEX, codex()), (GEMINI, gemini())] {
            let all = events(sources);
            let group = session(&disturbed(&all, seed, repeats));
            prop_assert_eq!(&group.calls, &session(&all).calls);
            prop_assert_eq!(&group.tools, &session(&all).tools);
            prop_assert_eq!(sums(&group), expected);
        }
    }

    /// The model, the tokens and the service tier in different pieces, in any order and some again: the cost is that of the
    /// same call in one piece, and its table is named.
    #[test]
    fn a_call_in_pieces_costs_what_it_costs_in_one(
        order in Just(vec![0, 1, 2, 3]).prop_shuffle(),
        again in prop::collection::vec(0usize..4, 0..4),
        tier in prop::sample::select(vec!["default", "batch", "priority"]),
        tokens in (1u64..400_000, 0u64..10_000),
    ) {
        let start = json!({"startTime": "2026-11-21T12:24:00.000Z", "name": "llm"});
        let model = json!({"model": "gpt-5"});
        let terms = json!({"modelParameters": {"service_tier": tier}});
        let usage = json!({"usage": {"promptTokens": tokens.0, "completionTokens": tokens.1}});
        let mut whole = start.clone();
        for said in [&model, &terms, &usage] {
            whole.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        }
        let whole = session(&posted_in_order(&generation(&[whole]), &[0]));
        let pieces = generation(&[start, model, usage, terms]);
        let found = session(&posted_in_order(&pieces, &[order, again].concat()));
        prop_assert_eq!(found.calls.len(), 1);
        prop_assert!(whole.calls[0].cost_computed.is_some_and(|cost| cost > 0));
        prop_assert_eq!(found.calls[0].cost_computed, whole.calls[0].cost_computed);
        prop_assert_eq!(Some(found.calls[0].price_version.as_str()), PRICES.versions().next());
        prop_assert_eq!(found.contributions[0].usage[0].cost_computed, computed(&whole));
    }

    /// Whatever has arrived so far, what is counted beyond the whole is at least marked as a guess.
    #[test]
    fn a_part_of_a_session_counts_no_more_than_the_whole_without_saying_that_it_guesses(
        seed in any::<u64>(),
        share in 1usize..20,
    ) {
        for (sources, expected) in [(CLAUDE, claude()), (CODEX, codex()), (GEMINI, gemini())] {
            let all = disturbed(&events(sources), seed, 0);
            let some = &all[..all.len() * share / 20];
            let groups = derived(some);
            let sure = groups.iter().flat_map(|group| &group.calls).filter(|call| !call.guessed).count();
            prop_assert!(sure <= expected.calls, "{} of {}", sure, expected.calls);
        }
    }
}
