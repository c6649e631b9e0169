//! Channels that share no id of a call: families, running totals, covered time.

use fleetlog_schemas::event::Channel;
use fleetlog_store::derived::Sighting;
use fleetlog_store::{Call, Tool};
use proptest::prelude::*;

use super::{NOON, SECOND, calls, merge, sighting, tool_of, tools};
use crate::derive::carry::Past;
use crate::derive::cover::Starts;

/// A call of a family as a channel tells of it, `at_ms` after noon.
fn told(n: u32, channel: &str, at_ms: i64, tokens: u64) -> Sighting {
    Sighting {
        call_family: "codex".to_owned(),
        usage_role: "call".to_owned(),
        token_basis: "inclusive".to_owned(),
        timestamp: NOON + at_ms * 1_000_000,
        in_uncached: tokens,
        ..sighting(n, channel, "llm.request")
    }
}

fn total(n: u32, at_ms: i64, tokens: u64, precedence: u32) -> Sighting {
    Sighting {
        usage_role: "cumulative".to_owned(),
        llm_call_key: "thread".to_owned(),
        precedence,
        ..told(n, "transcript", at_ms, tokens)
    }
}

fn short(calls: &[Call]) -> Vec<(&str, &str, u64, bool)> {
    calls.iter().map(|call| (call.call_key.as_str(), call.channel, call.in_uncached, call.guessed)).collect()
}

/// As captured of Codex 0.169: of each call the log is first, the rollout a few milliseconds later, and the span of
/// the second call begins after its log.
fn captured() -> Vec<Sighting> {
    let mut spans = [told(5, "span", 1006, 200), told(6, "span", 1110, 200)];
    spans[0].end_timestamp = Some(spans[0].timestamp + 6_000_000);
    spans[1].end_timestamp = Some(spans[1].timestamp + 500_000);
    let [one, two] = spans;
    vec![
        told(1, "agent_log", 1005, 200),
        told(2, "agent_log", 1107, 200),
        told(3, "transcript", 1008, 200),
        told(4, "transcript", 1111, 200),
        one,
        two,
    ]
}

fn of(all: &[Sighting], channels: &[&str]) -> Vec<Sighting> {
    all.iter().filter(|sighting| channels.contains(&sighting.channel.as_str())).cloned().collect()
}

proptest! {
    #[test]
    fn each_channel_alone_and_all_in_any_order_and_twice_over_give_the_same_calls(
        order in Just((0..12usize).collect::<Vec<_>>()).prop_shuffle(),
        missing in 0usize..4,
    ) {
        let all = captured();
        let channels = ["agent_log", "span", "transcript"];
        let kept: Vec<&str> = channels.iter().copied().filter(|c| channels.get(missing) != Some(c)).collect();
        let some = of(&all, &kept);
        let seen: Vec<Sighting> = order.iter().filter_map(|n| some.get(n % 6).cloned()).collect();
        let found = calls(&seen);
        prop_assert_eq!(found.len(), 2);
        prop_assert!(found.iter().all(|call| call.in_uncached == 200 && call.channel == kept[0] && !call.guessed));
        for channel in channels {
            prop_assert_eq!(calls(&of(&all, &[channel])).len(), 2);
        }
    }
}

/// A span of a call to a model, within another or not.
fn layer(n: u32, parent: u32, tokens: u64) -> Sighting {
    let span = |n: u32| if n == 0 { String::new() } else { format!("s{n}") };
    Sighting {
        trace_id: "t".to_owned(),
        span_id: span(n),
        parent_id: span(parent),
        llm_call_key: format!("t:{}", span(n)),
        usage_role: "call".to_owned(),
        token_basis: "inclusive".to_owned(),
        in_uncached: tokens,
        ..sighting(n, "span", "llm.request")
    }
}

proptest! {
    #[test]
    fn a_call_that_is_reported_at_several_layers_counts_once_in_any_order(
        order in Just((0..5usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        // Three layers of one call, the outermost without usage; and a call of its own beside them.
        let layers = [layer(1, 0, 0), layer(2, 1, 200), layer(3, 2, 200), layer(4, 9, 70)];
        let seen: Vec<Sighting> = order.iter().filter_map(|n| layers.get(n % 4).cloned()).collect();
        let found = calls(&seen);
        let counted: Vec<_> = found.iter().map(|call| (call.in_uncached, call.sightings)).collect();
        prop_assert_eq!(counted, [(200, 3), (70, 1)]);
    }
}

#[test]
fn a_span_around_several_calls_is_their_sum_and_none_of_them() {
    let found = calls(&[layer(1, 0, 300), layer(2, 1, 100), layer(3, 1, 200)]);
    assert_eq!(found.iter().map(|call| call.in_uncached).collect::<Vec<_>>(), [100, 200]);
    // Where those within say nothing of usage, the sum is all there is.
    let found = calls(&[layer(1, 0, 300), layer(2, 1, 0), layer(3, 1, 0)]);
    assert_eq!(found.iter().map(|call| call.in_uncached).sum::<u64>(), 300);
}

#[test]
fn a_session_of_one_call_has_one() {
    let all = captured();
    let first = [all[0].clone(), all[2].clone(), all[4].clone()];
    let second = [all[1].clone(), all[3].clone(), all[5].clone()];
    assert_eq!(short(&calls(&first)), [("e1", "agent_log", 200, false)]);
    assert_eq!(short(&calls(&second)), [("e2", "agent_log", 200, false)]);
}

#[test]
fn what_a_lesser_channel_tells_of_outside_the_better_ones_time_counts_as_a_guess() {
    let seen = [
        told(1, "agent_log", 10_000, 1),
        told(2, "agent_log", 20_000, 2),
        told(3, "transcript", 1_000, 4),
        told(4, "transcript", 10_005, 8),
        told(5, "transcript", 20_005, 16),
        told(6, "transcript", 30_002, 32),
        told(7, "span", 30_001, 64),
        told(8, "span", 40_000, 128),
    ];
    // The first of the spans may be any call before it, also one of the log's: it is left to the transcript.
    let found = calls(&seen);
    assert_eq!(
        short(&found),
        [
            ("e3", "transcript", 4, true),
            ("e1", "agent_log", 1, false),
            ("e2", "agent_log", 2, false),
            ("e6", "transcript", 32, true),
            ("e8", "span", 128, true),
        ]
    );
    assert_eq!(
        found[4].guess,
        "no id joins it to what agent_log tells, and it lies outside the time told of"
    );
}

#[test]
fn a_file_that_begins_after_the_logs_have_ended_counts_from_its_first_call() {
    let seen = [told(1, "agent_log", 1_000, 1), told(2, "transcript", 9_000, 2)];
    let mut times = [0; Channel::ALL.len()];
    times[0] = NOON;
    let transcript = Channel::ALL.iter().position(|channel| *channel == Channel::Transcript).unwrap();
    times[transcript] = NOON + 8 * SECOND;
    let found = super::super::calls::calls(
        &super::prices().of_project("p"),
        &merge::distinct(&seen),
        &Starts::new(&times),
        &Past::default(),
    );
    assert_eq!(short(&found), [("e1", "agent_log", 1, false), ("e2", "transcript", 2, true)]);
    times[transcript] = NOON;
    let found = super::super::calls::calls(
        &super::prices().of_project("p"),
        &merge::distinct(&seen),
        &Starts::new(&times),
        &Past::default(),
    );
    assert_eq!(short(&found), [("e1", "agent_log", 1, false)]);
}

#[test]
fn a_record_without_a_time_of_its_own_proves_nothing_beside_better_channels() {
    let timeless = |mut sighting: Sighting| {
        sighting.timestamp_source = "ingest".to_owned();
        sighting
    };
    let printed = [timeless(told(2, "other", 90_000, 2)), timeless(told(3, "other", 90_000, 3))];
    let log = told(1, "agent_log", 1_000, 1);
    assert_eq!(calls(&printed).len(), 2);
    assert_eq!(short(&calls(&[&printed[..], &[log]].concat())), [("e1", "agent_log", 1, false)]);
    let tool_log = tool(4, "agent_log", 1_000, "");
    assert_eq!(tools(&[timeless(tool(5, "other", 90_000, "")), tool_log]).len(), 1);
}

#[test]
fn of_one_turn_only_the_preferred_records_count() {
    let turn = |mut sighting: Sighting, turn: &str, precedence: u32| {
        sighting.turn_id = turn.to_owned();
        sighting.precedence = precedence;
        sighting
    };
    let seen = [
        turn(told(1, "transcript", 1_000, 10), "t1", 0),
        turn(told(2, "transcript", 1_001, 10), "t1", 1),
        turn(told(3, "transcript", 2_000, 20), "t2", 1),
        turn(total(4, 1_002, 10, 2), "t1", 2),
        turn(total(5, 2_001, 30, 2), "t2", 2),
        // Of this turn there is nothing but the running total.
        turn(total(6, 3_000, 75, 2), "t3", 2),
    ];
    let found = calls(&seen);
    assert_eq!(found.iter().map(|call| call.in_uncached).collect::<Vec<_>>(), [10, 20, 45]);
    assert_eq!(found[2].call_key, "thread#3");
}

#[test]
fn a_running_total_counts_by_what_it_adds_and_a_reset_adds_nothing() {
    let totals = [
        total(1, 1_000, 100, 0),
        total(2, 2_000, 100, 0),
        total(3, 3_000, 250, 0),
        total(4, 4_000, 40, 0),
        total(5, 5_000, 60, 0),
    ];
    let found = calls(&totals);
    let counts: Vec<_> = found.iter().map(|call| (call.call_key.as_str(), call.in_uncached)).collect();
    assert_eq!(counts, [("thread#1", 100), ("thread#2", 150), ("thread#3", 20)]);
}

#[test]
fn totals_outside_a_family_count_only_where_their_source_says_nothing_else() {
    let outside = |mut sighting: Sighting| {
        sighting.call_family = String::new();
        sighting.source = "openhands".to_owned();
        sighting
    };
    let totals = [outside(total(1, 1_000, 10, 0)), outside(total(2, 2_000, 30, 0))];
    assert_eq!(calls(&totals).iter().map(|call| call.in_uncached).sum::<u64>(), 30);
    let call = outside(told(3, "span", 1_500, 7));
    let [one, two] = totals;
    assert_eq!(short(&calls(&[one, two, call])), [("e3", "span", 7, false)]);
}

#[test]
fn a_channel_without_usage_yields_to_one_with() {
    let mut failed = told(1, "agent_log", 5_000, 0);
    failed.usage_role = "none".to_owned();
    failed.status = "error".to_owned();
    let seen = [failed.clone(), told(2, "transcript", 1_000, 5), told(3, "transcript", 9_000, 6)];
    assert_eq!(calls(&seen).iter().map(|call| call.in_uncached).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(calls(&[failed]).len(), 1);
}

fn tool(n: u32, channel: &str, at_ms: i64, id: &str) -> Sighting {
    Sighting {
        call_family: "gemini".to_owned(),
        channel: channel.to_owned(),
        timestamp: NOON + at_ms * 1_000_000,
        ..tool_of(n, "tool.call", id, "ok")
    }
}

fn tools_short(tools: &[Tool]) -> Vec<(&str, &str, u32, bool)> {
    tools
        .iter()
        .map(|tool| (tool.call_key.as_str(), tool.channels.as_str(), tool.sightings, tool.guessed))
        .collect()
}

#[test]
fn tool_calls_of_a_family_are_joined_by_id_and_without_one_counted_in_one_channel() {
    // As captured of Gemini: the log has no id, span and chat file share one.
    let seen = [
        tool(1, "agent_log", 3_753, ""),
        tool(2, "span", 3_694, "shell_0"),
        tool(3, "transcript", 3_754, "shell_0"),
    ];
    assert_eq!(tools_short(&tools(&seen)), [("shell_0", "span,transcript", 2, false)]);
    // Logs alone, and logs of a time that no other channel tells of.
    assert_eq!(tools_short(&tools(&seen[..1])), [("e1", "agent_log", 1, false)]);
    let mut late = vec![tool(4, "agent_log", 9_000, ""), tool(5, "transcript", 9_001, "")];
    late.extend(seen);
    let found = tools(&late);
    assert_eq!(
        tools_short(&found),
        [("shell_0", "span,transcript", 2, false), ("e5", "transcript", 1, true)]
    );
}
