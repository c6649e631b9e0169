//! Agents whose sessions are lines or documents.
//!
//! The fixtures were written after the documented shapes (each module in `src/agents` names its source); none is a
//! capture.

#![cfg(test)]

mod support;

use fleetlog_formats::catalogue::CATALOGUE;
use fleetlog_formats::{Body, Decoded, Input, decode, follow, inspect};
use fleetlog_schemas::event::{AgentEvent, EventType, Status, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use fleetlog_schemas::record::{Route, StreamContext};
use support::{decoded, fixture, input, view};

/// Every fixture and the format it must be recognised as.
const FIXTURES: [(&str, &str); 13] = [
    ("agents/copilot.jsonl", "copilot.session"),
    ("agents/opencode.jsonl", "opencode.run"),
    ("agents/aider.jsonl", "aider.analytics"),
    ("agents/cursor.jsonl", "cursor.hooks"),
    ("agents/cline_ui.json", "cline.ui"),
    ("agents/cline_history.json", "cline.history"),
    ("agents/openhands_v0.json", "openhands.events"),
    ("agents/openhands_v1.jsonl", "openhands.events"),
    ("agents/swe_agent.traj", "swe_agent.trajectory"),
    ("agents/managed_agents.jsonl", "anthropic.managed_agents"),
    ("agents/goose_session.json", "goose.session"),
    ("agents/goose_lines.jsonl", "goose.session"),
    ("agents/goose_hooks.jsonl", "goose.hooks"),
];

fn decoded_as(hint: &str, body: &[u8], stream: Option<&StreamContext>) -> Decoded {
    let input = Input { content_type: "", format_hint: hint, stream, ..input(Route::Raw, "", body) };
    decode(&input).unwrap()
}

/// The events of a fixture of which nothing is said beforehand.
fn events(name: &str) -> Vec<AgentEvent> {
    decoded_as("", &fixture(name), None).events
}

fn sum(events: &[AgentEvent], role: UsageRole) -> [u64; 6] {
    let counted = events.iter().filter(|event| event.usage_role == role);
    counted.fold([0; 6], |sum, event| {
        let AgentEvent { in_uncached, cache_read, cache_write_5m, cache_write_1h, .. } = event;
        let own = [
            *in_uncached,
            *cache_read,
            *cache_write_5m,
            *cache_write_1h,
            event.out_visible,
            event.out_reasoning,
        ];
        std::array::from_fn(|place| sum[place] + own[place])
    })
}

fn reported(events: &[AgentEvent], role: UsageRole) -> NanoUsd {
    let counted = events.iter().filter(|event| event.usage_role == role);
    NanoUsd(counted.filter_map(|event| event.cost_reported).map(|cost| cost.0).sum())
}

macro_rules! golden {
    ($($test:ident: $name:literal),+ $(,)?) => {$(
        #[test]
        fn $test() {
            insta::assert_json_snapshot!(view(&events($name)));
        }
    )+};
}

golden! {
    copilot_session_log: "agents/copilot.jsonl",
    opencode_run: "agents/opencode.jsonl",
    aider_analytics: "agents/aider.jsonl",
    cursor_hooks: "agents/cursor.jsonl",
    cline_messages: "agents/cline_ui.json",
    cline_history: "agents/cline_history.json",
    openhands_events_of_the_application: "agents/openhands_v0.json",
    openhands_events_of_the_sdk: "agents/openhands_v1.jsonl",
    swe_agent_trajectory: "agents/swe_agent.traj",
    anthropic_managed_agents: "agents/managed_agents.jsonl",
    goose_session_export: "agents/goose_session.json",
    goose_session_lines: "agents/goose_lines.jsonl",
    goose_hooks: "agents/goose_hooks.jsonl",
}

#[test]
fn every_format_is_recognised_by_its_marks_and_by_its_name_and_is_in_the_catalogue() {
    for (name, format) in FIXTURES {
        for hint in ["", format] {
            let events = decoded_as(hint, &fixture(name), None).events;
            assert!(!events.is_empty());
            for event in &events {
                assert_eq!(event.source_format, format, "{name}");
                assert_ne!(event.event_type, EventType::RawUnknown, "{name}: {}", event.data);
            }
        }
        assert!(CATALOGUE.iter().any(|listed| listed.name == format), "{format}");
    }
}

#[test]
fn gateway_and_processor_count_the_same_records() {
    for (name, _) in FIXTURES {
        let bytes = fixture(name);
        let body = Body { route: Route::Raw, content_type: "", format_hint: "", bytes: &bytes };
        let decoded = decoded_as("", &bytes, None);
        let mut seen: Vec<u32> = decoded.events.iter().map(|event| event.raw_index).collect();
        seen.extend(decoded.eventless.iter().map(|entry| entry.index));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(inspect::inspect(&body, "p1").unwrap().records as usize, seen.len(), "{name}");
    }
}

#[test]
fn file_cut_at_any_line_gives_the_same_events() {
    for (name, _) in FIXTURES.iter().filter(|(name, _)| name.ends_with(".jsonl")) {
        let text = String::from_utf8(fixture(name)).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let start = StreamContext { stream_id: "stream-1".into(), ..StreamContext::default() };
        let whole = decoded_as("", text.as_bytes(), Some(&start)).events;
        let mut context = start.clone();
        for cut in 1..lines.len() {
            follow(&mut context, lines[cut - 1].as_bytes());
            let mut events = decoded_as("", lines[..cut].concat().as_bytes(), Some(&start)).events;
            let rest = StreamContext { first_line: cut as i64, ..context.clone() };
            let tail = lines[cut..].concat();
            let input = Input {
                content_type: "application/x-ndjson",
                stream: Some(&rest),
                first_record: cut as u32,
                ..input(Route::Raw, "", tail.as_bytes())
            };
            events.extend(decode(&input).unwrap().events);
            similar_asserts::assert_eq!(view(&events), view(&whole), "{name} cut at {cut}");
        }
    }
}

#[test]
fn same_file_sent_again_is_the_same_events() {
    for (name, _) in FIXTURES.iter().filter(|(name, _)| !name.contains("cursor") && !name.contains("hooks")) {
        let keys = |request: &str| -> Vec<_> {
            let bytes = fixture(name);
            let stream = StreamContext { stream_id: "stream-1".into(), ..StreamContext::default() };
            let input = Input {
                content_type: "",
                request_id: request,
                stream: Some(&stream),
                ..input(Route::Raw, "", &bytes)
            };
            decode(&input).unwrap().events.into_iter().map(|event| event.dedup_key).collect()
        };
        let (first, again) = (keys("a"), keys("b"));
        assert_eq!(first, again, "{name}");
        let distinct: std::collections::BTreeSet<_> = first.iter().map(ToString::to_string).collect();
        assert_eq!(distinct.len(), first.len(), "{name}");
    }
}

#[test]
fn array_declared_as_json_is_the_same_as_undeclared() {
    let name = "agents/cline_ui.json";
    similar_asserts::assert_eq!(view(&decoded(Route::Raw, name)), view(&events(name)));
}

#[test]
fn equal_hooks_of_two_requests_both_happened() {
    let hook = br#"{"hook_event_name":"afterShellExecution","conversation_id":"c","generation_id":"g","command":"ls"}"#;
    let key = |request: &str| {
        let input = Input { content_type: "", request_id: request, ..input(Route::Raw, "", hook) };
        decode(&input).unwrap().events.remove(0).dedup_key
    };
    assert_ne!(key("a"), key("b"));
    assert_eq!(key("a"), key("a"));
}

#[test]
fn copilot_counts_each_call_and_not_the_totals() {
    let events = events("agents/copilot.jsonl");
    assert_eq!(sum(&events, UsageRole::Call), [1100, 10_000, 8000, 2900, 80, 40]);
    assert_eq!(sum(&events, UsageRole::Cumulative), [1100, 10_000, 10_900, 0, 120, 0]);
    assert_eq!(reported(&events, UsageRole::Call), NanoUsd(0));
    let prompts = events.iter().filter(|event| event.event_type == EventType::UserPrompt);
    assert_eq!(prompts.count(), 1);
    assert!(events.iter().all(|event| event.session_id == "cop-1" && event.source_version == "1.0.95"));
}

#[test]
fn copilot_lines_without_their_head_are_kept_as_not_understood() {
    let text = String::from_utf8(fixture("agents/copilot.jsonl")).unwrap();
    let line = text.lines().nth(5).unwrap();
    let events = decoded_as("", line.as_bytes(), None).events;
    assert_eq!(
        (events[0].event_type, events[0].unknown_reason.as_str()),
        (EventType::RawUnknown, "no_context")
    );
}

#[test]
fn opencode_buckets_and_cost_are_taken_as_they_are() {
    let events = events("agents/opencode.jsonl");
    assert_eq!(sum(&events, UsageRole::Call), [200, 1000, 0, 0, 25, 5]);
    assert_eq!(reported(&events, UsageRole::Call), NanoUsd(1_250_000));
}

#[test]
fn aider_runs_are_sessions_and_each_message_a_call() {
    let events = events("agents/aider.jsonl");
    assert_eq!(sum(&events, UsageRole::Call), [14_496, 0, 0, 0, 396, 0]);
    assert_eq!(reported(&events, UsageRole::Call), NanoUsd(49_428_000));
    let sessions: Vec<_> = events.iter().map(|event| event.session_id.as_str()).collect();
    let (first, second, third) = ("7f6c:1795264600", "7f6c:1795264656", "7f6c:1795264680");
    assert_eq!(sessions, [first, second, second, second, second, second, third]);
}

#[test]
fn cursor_tools_with_a_hook_of_their_own_are_counted_once() {
    let events = events("agents/cursor.jsonl");
    let tools: Vec<_> = events.iter().filter(|event| event.event_type.is_tool()).collect();
    let names: Vec<_> = tools.iter().map(|event| event.tool_name.as_str()).collect();
    assert_eq!(names, ["Shell", "issues", "Edit", "Read", "Grep"]);
    assert_eq!((tools[2].lines_added, tools[2].lines_removed), (Some(3), Some(2)));
}

#[test]
fn cline_message_rewritten_in_place_is_a_later_sighting_of_its_call() {
    let begun =
        br#"{"ts":1795264656010,"type":"say","say":"api_req_started","text":"{\"request\":\"...\"}"}"#;
    let stream = StreamContext { session_id: "task-1".into(), ..StreamContext::default() };
    let begun = decoded_as("", begun, Some(&stream)).events.remove(0);
    let told = decoded_as("", &fixture("agents/cline_ui.json"), Some(&stream)).events.remove(1);
    assert_eq!((begun.llm_call_key.as_str(), begun.usage_role), ("1795264656010", UsageRole::None));
    assert_eq!((&told.llm_call_key, told.usage_role), (&begun.llm_call_key, UsageRole::Call));
    assert!(told.revision > begun.revision && told.dedup_key != begun.dedup_key);
    assert_eq!(sum(&[told], UsageRole::Call), [21, 4000, 300, 0, 17, 0]);
}

#[test]
fn openhands_states_only_totals_and_times_in_utc() {
    let v0 = events("agents/openhands_v0.json");
    let totals: Vec<_> = v0.iter().filter(|event| event.usage_role == UsageRole::Cumulative).collect();
    let inputs: Vec<_> = totals.iter().map(|event| event.in_total()).collect();
    assert_eq!(inputs, [1000, 2200]);
    assert!(totals.iter().all(|event| event.llm_call_key == "agent"));
    assert_eq!(v0[0].timestamp, 1_795_262_400_000_001_000);
    let tools: std::collections::BTreeSet<_> = v0
        .iter()
        .filter(|event| event.event_type.is_tool())
        .map(|event| event.tool_call_id.as_str())
        .collect();
    assert_eq!(tools.into_iter().collect::<Vec<_>>(), ["action:3", "toolu_1"]);
    let v1 = events("agents/openhands_v1.jsonl");
    let uses: Vec<_> = v1
        .iter()
        .filter(|event| event.usage_role == UsageRole::Cumulative)
        .map(|event| (event.llm_call_key.as_str(), event.model.as_str(), event.in_uncached))
        .collect();
    assert_eq!(uses, [("agent", "claude-sonnet-4-6", 300), ("condenser", "gpt-5-mini", 100)]);
}

#[test]
fn swe_agent_gives_its_steps_and_totals() {
    let events = events("agents/swe_agent.traj");
    assert_eq!(sum(&events, UsageRole::Cumulative), [52_000, 0, 0, 0, 1200, 0]);
    assert_eq!(reported(&events, UsageRole::Cumulative), NanoUsd(125_000_000));
    assert_eq!(events.iter().filter(|event| event.event_type == EventType::CommandRun).count(), 2);
    assert_eq!((events[0].status, events[0].model.as_str()), (Status::Ok, "claude-sonnet-4-20250514"));
}

#[test]
fn managed_agents_call_is_told_twice_under_one_key() {
    let events = events("agents/managed_agents.jsonl");
    let calls: Vec<_> = events.iter().filter(|event| event.event_type == EventType::LlmRequest).collect();
    assert!(calls.iter().all(|call| call.llm_call_key == "sevt_2" && call.model == "claude-sonnet-4-6"));
    assert_eq!(sum(&events, UsageRole::Call), [3571, 6656, 300, 0, 727, 0]);
    assert!(events.iter().all(|event| event.session_id == "sesn_1"));
}

#[test]
fn goose_tells_its_tools_and_the_totals_of_a_session() {
    let events = events("agents/goose_session.json");
    assert_eq!(sum(&events, UsageRole::Cumulative), [9680, 0, 0, 0, 210, 0]);
    assert_eq!(reported(&events, UsageRole::Cumulative), NanoUsd(31_200_000));
    assert!(events.iter().all(|event| event.session_id == "20260611_1" && event.source == "goose"));
    let tools: Vec<_> = events
        .iter()
        .filter(|event| event.event_type.is_tool())
        .map(|event| (event.tool_call_id.as_str(), event.event_type, event.status))
        .collect();
    let expected = [
        ("toolu_1", EventType::CommandRun, Status::Unset),
        ("toolu_2", EventType::McpCall, Status::Unset),
        ("toolu_1", EventType::ToolCall, Status::Error),
        ("toolu_2", EventType::ToolCall, Status::Error),
        ("toolu_3", EventType::FileEdit, Status::Unset),
        ("toolu_3", EventType::ToolCall, Status::Ok),
    ];
    assert_eq!(tools, expected);
}

#[test]
fn goose_export_written_anew_adds_only_what_is_new() {
    let text = String::from_utf8(fixture("agents/goose_session.json")).unwrap();
    let grown = text.replace("9680", "9999").replace("10:23:05Z", "10:30:00Z");
    let keys = |text: &str| -> std::collections::BTreeSet<String> {
        let events = decoded_as("", text.as_bytes(), None).events;
        events.iter().map(|event| event.dedup_key.to_string()).collect()
    };
    let (before, after) = (keys(&text), keys(&grown));
    assert_eq!(after.difference(&before).count(), 1, "the totals");
}

/// A session's export with so many messages of one id.
fn goose_export(messages: usize) -> String {
    let messages = vec![r#"{"id":"aa"}"#; messages].join(",");
    format!(r#"{{"id":"s1","working_dir":"/w","message_count":1,"conversation":[{messages}]}}"#)
}

#[test]
fn goose_messages_of_one_id_are_events_of_their_own_however_many_they_are() {
    let events = decoded_as("", goose_export(20_000).as_bytes(), None).events;
    let keys: std::collections::BTreeSet<String> =
        events.iter().map(|event| event.dedup_key.to_string()).collect();
    assert_eq!((events.len(), keys.len()), (20_001, 20_001));
    // The first ones are what they are in a short export.
    let few = decoded_as("", goose_export(3).as_bytes(), None).events;
    assert!(few[1..].iter().zip(&events[1..]).all(|(one, other)| one.dedup_key == other.dedup_key));
}

/// INV-9: an export is one record, and no budget between records holds its messages.
#[test]
fn goose_export_of_too_many_messages_is_kept_whole() {
    let export = goose_export(50_001);
    let events = decoded_as("", export.as_bytes(), None).events;
    assert_eq!((events.len(), events[0].unknown_reason.as_str()), (1, "too_many_events"));
    assert_eq!(events[0].event_type, EventType::RawUnknown);
    assert!(events[0].data.len() >= export.len());
}
