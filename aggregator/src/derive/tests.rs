use std::sync::LazyLock;

use fleetlog_pricing::PriceTable;
use fleetlog_store::derived::{GroupKey, Sighting, Summary};
use fleetlog_store::{Call, GroupKind, Tool};
use proptest::prelude::*;

use super::carry::Past;
use super::cover::Starts;
use super::{Prices, derive, merge};

mod carry;
mod channels;
mod pieces;
mod price;

fn prices() -> &'static Prices {
    static PRICES: LazyLock<Prices> = LazyLock::new(|| Prices::new(PriceTable::built_in().unwrap()));
    &PRICES
}

fn calls(sightings: &[Sighting]) -> Vec<Call> {
    super::calls::calls(
        &prices().of_project("p"),
        &merge::distinct(sightings),
        &Starts::default(),
        &Past::default(),
    )
}

fn tools(sightings: &[Sighting]) -> Vec<Tool> {
    super::tools::tools(&merge::distinct(sightings), &Starts::default(), &Past::default())
}

fn contributions(sightings: &[Sighting]) -> Vec<fleetlog_store::Contribution> {
    super::usage::contributions(&calls(sightings), &merge::distinct(sightings))
}

/// 2026-03-01 12:00:00 UTC, nanoseconds.
const NOON: i64 = 1_772_366_400 * 1_000_000_000;
const SECOND: i64 = 1_000_000_000;

fn sighting(n: u32, channel: &str, kind: &str) -> Sighting {
    Sighting {
        event_id: format!("e{n}"),
        dedup_key: u128::from(n),
        channel: channel.to_owned(),
        event_type: kind.to_owned(),
        timestamp: NOON + i64::from(n) * SECOND,
        received_at: NOON,
        status: "ok".to_owned(),
        raw_offset: i64::from(n),
        ..Sighting::default()
    }
}

fn call_of(n: u32, channel: &str, key: &str, tokens: u64) -> Sighting {
    Sighting {
        llm_call_key: key.to_owned(),
        usage_role: "call".to_owned(),
        token_basis: "anthropic_raw".to_owned(),
        in_uncached: tokens,
        out_visible: 1,
        ..sighting(n, channel, "llm.request")
    }
}

fn tool_of(n: u32, kind: &str, id: &str, status: &str) -> Sighting {
    Sighting { tool_call_id: id.to_owned(), status: status.to_owned(), ..sighting(n, "agent_log", kind) }
}

#[test]
fn a_call_seen_by_three_channels_counts_once_by_the_most_authoritative() {
    let mut log = call_of(3, "agent_log", "req", 21);
    log.cost_reported = Some(5);
    let mut span = call_of(1, "span", "req", 21);
    span.ttft_ms = Some(7.0);
    span.finish_reason = "end_turn".to_owned();
    span.cost_computed = Some(6);
    let transcript = call_of(2, "transcript", "req", 900);
    let content = Sighting { llm_call_key: "req".to_owned(), ..sighting(4, "agent_log", "llm.response") };
    let seen = calls(&[span, transcript, content, log]);
    assert_eq!(seen.len(), 1);
    let call = &seen[0];
    assert_eq!((call.in_uncached, call.channel, call.sightings), (21, "agent_log", 4));
    assert_eq!((call.cost_reported, call.cost_computed), (Some(5), Some(6)));
    assert_eq!((call.ttft_ms, call.finish_reason.as_str()), (Some(7.0), "end_turn"));
    assert_eq!(call.channels, "agent_log,span,transcript");
    assert_eq!(call.event_id, "e3");
}

#[test]
fn rows_of_one_request_repeat_and_the_last_wins() {
    let mut partial = call_of(1, "transcript", "req", 100);
    partial.out_visible = 1;
    let mut last = call_of(2, "transcript", "req", 100);
    last.out_visible = 17;
    let seen = calls(&[last.clone(), partial.clone(), last]);
    assert_eq!((seen.len(), seen[0].out_visible, seen[0].sightings), (1, 17, 2));
}

#[test]
fn what_only_gives_content_or_sums_is_no_call() {
    let content = sighting(1, "agent_log", "llm.response");
    let rollup = Sighting { usage_role: "rollup".to_owned(), ..call_of(2, "agent_log", "", 1000) };
    let keyless = call_of(3, "api", "", 5);
    let failed = Sighting { status: "error".to_owned(), ..sighting(4, "agent_log", "llm.request") };
    let seen = calls(&[content, rollup, keyless, failed]);
    assert_eq!(seen.iter().map(|call| call.call_key.as_str()).collect::<Vec<_>>(), ["e3", "e4"]);
    assert_eq!((seen[1].status, seen[1].in_uncached), ("error", 0));
}

#[test]
fn a_keyed_rollup_never_gives_its_sums_to_the_call() {
    let rollup = Sighting { usage_role: "rollup".to_owned(), ..call_of(1, "agent_log", "req", 1000) };
    let span = call_of(2, "span", "req", 7);
    assert_eq!(calls(&[rollup.clone(), span])[0].in_uncached, 7);
    let alone = &calls(&[rollup])[0];
    assert_eq!((alone.in_uncached, alone.token_basis.as_str()), (0, "none"));
}

#[test]
fn a_decision_is_no_call_and_a_refusal_is_a_denied_one() {
    let mut accept = tool_of(1, "tool.decision", "t1", "unset");
    accept.decision = "accept".to_owned();
    let ran = Sighting { exit_code: Some(2), ..tool_of(2, "command.run", "t1", "error") };
    let generic = Sighting { channel: "span".to_owned(), ..tool_of(3, "tool.call", "t1", "ok") };
    let mut pending = tool_of(4, "tool.decision", "t2", "unset");
    pending.decision = "accept".to_owned();
    let mut refused = tool_of(5, "tool.decision", "t3", "unset");
    refused.decision = "reject".to_owned();
    let unnamed = tool_of(6, "file.read", "", "ok");
    let seen = tools(&[accept, pending, refused, generic, ran, unnamed]);
    let short: Vec<_> =
        seen.iter().map(|t| (t.call_key.as_str(), t.status, t.event_type, t.sightings)).collect();
    assert_eq!(
        short,
        [("t1", "error", "command.run", 3), ("t3", "denied", "tool.call", 1), ("e6", "ok", "file.read", 1),]
    );
    assert_eq!((seen[0].exit_code, seen[0].decision.as_str()), (Some(2), "accept"));
}

#[test]
fn a_minute_from_which_a_better_sighting_took_the_call_is_contributed_empty() {
    let transcript = call_of(1, "transcript", "req", 21);
    let log = Sighting { timestamp: NOON + 90 * SECOND, ..call_of(2, "agent_log", "req", 21) };
    let sightings = [transcript, log];
    let minutes: Vec<_> = contributions(&sightings)
        .iter()
        .map(|contribution| {
            (contribution.minute, contribution.usage.iter().map(|row| row.calls).sum::<u64>())
        })
        .collect();
    assert_eq!(minutes, [(1_772_366_400, 0), (1_772_366_460, 1)]);
}

fn any_sighting() -> impl Strategy<Value = Sighting> {
    let kinds = prop::sample::select(vec![
        "llm.request",
        "llm.response",
        "tool.call",
        "command.run",
        "tool.decision",
    ]);
    let channels = prop::sample::select(vec!["agent_log", "span", "transcript", "hook", "api", "other"]);
    let keys = prop::sample::select(vec!["", "a", "b", "c"]);
    let roles = prop::sample::select(vec!["none", "call", "rollup", "cumulative"]);
    let statuses = prop::sample::select(vec!["unset", "ok", "error"]);
    let decisions = prop::sample::select(vec!["", "accept", "reject"]);
    let families = prop::sample::select(vec!["", "codex", "gemini"]);
    let answers = prop::sample::select(vec!["", "r1", "r2"]);
    let words = (kinds, channels, keys, roles, statuses, decisions, families, answers);
    (words, 0u32..40, 0i64..8).prop_map(
        |((kind, channel, key, role, status, decision, family, answer), n, raw)| Sighting {
            // Everything but the place in the raw log follows from the identity: same event, same content.
            dedup_key: u128::from(n) << 64
                | u128::from(seed(&[kind, channel, key, role, status, decision, family, answer])),
            event_id: format!("{n}-{kind}-{channel}-{key}-{role}-{status}-{decision}-{family}-{answer}"),
            llm_call_key: key.to_owned(),
            tool_call_id: key.to_owned(),
            usage_role: role.to_owned(),
            status: status.to_owned(),
            decision: decision.to_owned(),
            call_family: family.to_owned(),
            request_id: answer.to_owned(),
            source: if n % 2 == 0 { "claude-code" } else { "sdk" }.to_owned(),
            agent_id: if n % 5 == 0 { "sub" } else { "" }.to_owned(),
            span_id: if n % 3 == 0 { "" } else { "message" }.to_owned(),
            trace_id: if n % 4 == 0 { "" } else { "trace" }.to_owned(),
            turn_id: if n % 7 < 3 { "" } else { "turn" }.to_owned(),
            precedence: n % 2,
            revision: i64::from(n % 4),
            duration_ms: (n % 5 == 0).then_some(1500.0),
            in_uncached: u64::from(n) % 3 * u64::from(n),
            out_visible: u64::from(n) % 4,
            cost_reported: (n % 2 == 0).then_some(i64::from(n)),
            cost_computed: (n % 3 == 0).then_some(i64::from(n)),
            raw_offset: raw,
            ..sighting(n, channel, kind)
        },
    )
}

fn seed(words: &[&str]) -> u64 {
    words
        .iter()
        .flat_map(|word| word.bytes())
        .fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
}

fn summary() -> Summary {
    Summary {
        project_id: "p".to_owned(),
        group_id: "s".to_owned(),
        started_at: NOON,
        ended_at: NOON,
        first_received_at: NOON,
        last_received_at: NOON,
        last_end_at: 0,
        last_begin_at: 0,
        channel_starts: Vec::new(),
        event_count: 1,
        error_count: 0,
        prompt_count: 0,
        sighting_count: 0,
        traced: false,
        agents: Vec::new(),
        users: Vec::new(),
        hosts: Vec::new(),
        sources: Vec::new(),
    }
}

/// All that is derived.
fn derived(sightings: &[Sighting]) -> (Vec<Call>, Vec<Tool>, Vec<fleetlog_store::Contribution>) {
    let key = GroupKey { project_id: "p".to_owned(), kind: GroupKind::Session, id: "s".to_owned() };
    let group = derive(prices(), key, &summary(), sightings, &[], None);
    (group.calls, group.tools, group.contributions)
}

proptest! {
    #[test]
    fn neither_order_nor_repetition_of_sightings_changes_anything(
        sightings in prop::collection::vec(any_sighting(), 0..40),
        order in any::<prop::sample::Index>(),
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let expected = derived(&sightings);
        let mut shuffled = sightings.clone();
        for repeat in repeats {
            if !sightings.is_empty() {
                shuffled.push(sightings[repeat.index(sightings.len())].clone());
            }
        }
        let turn = order.index(shuffled.len() + 1).min(shuffled.len());
        shuffled.rotate_left(turn);
        shuffled.reverse();
        prop_assert_eq!(derived(&shuffled), expected);
    }

    #[test]
    fn usage_is_the_sum_over_the_calls(sightings in prop::collection::vec(any_sighting(), 0..40)) {
        let (calls, _, contributions) = derived(&sightings);
        let rows = contributions.iter().flat_map(|contribution| &contribution.usage);
        let sums = rows.fold((0, 0, 0), |sums, row| {
            (sums.0 + row.calls, sums.1 + row.in_uncached, sums.2 + row.cost_reported)
        });
        prop_assert_eq!(sums.0, calls.len() as u64);
        prop_assert_eq!(sums.1, calls.iter().map(|call| call.in_uncached).sum::<u64>());
        prop_assert_eq!(sums.2, calls.iter().filter_map(|call| call.cost_reported).sum::<i64>());
    }

    #[test]
    fn a_key_is_one_call_however_many_report_it(sightings in prop::collection::vec(any_sighting(), 0..40)) {
        let mut keys: Vec<String> = derived(&sightings).0.into_iter().map(|call| call.call_key).collect();
        let before = keys.len();
        keys.sort();
        keys.dedup();
        prop_assert_eq!(keys.len(), before);
    }

    /// Whatever is merged, a call's counts are those of one event, or one increase of a running total.
    #[test]
    fn a_usage_vector_is_never_a_mixture(sightings in prop::collection::vec(any_sighting(), 0..40)) {
        for call in derived(&sightings).0.iter().filter(|call| call.token_basis != "none") {
            let event = sightings.iter().find(|sighting| sighting.event_id == call.event_id).unwrap();
            if event.usage_role == "call" {
                prop_assert_eq!(
                    (call.in_uncached, call.out_visible),
                    (event.in_uncached, event.out_visible)
                );
            }
            prop_assert_eq!(call.channel, &event.channel);
        }
    }

    /// Every minute of a counted call is one that the group contributes to, whatever moved there.
    #[test]
    fn a_call_counts_in_a_minute_of_its_sightings(sightings in prop::collection::vec(any_sighting(), 0..40)) {
        let (calls, _, contributions) = derived(&sightings);
        let sighted: Vec<u32> =
            sightings.iter().map(|sighting| fleetlog_store::derived::minute_of(sighting.timestamp)).collect();
        prop_assert!(calls.iter().all(|call| sighted.contains(&fleetlog_store::derived::minute_of(call.timestamp))));
        prop_assert!(contributions.iter().all(|contribution| sighted.contains(&contribution.minute)));
    }
}
