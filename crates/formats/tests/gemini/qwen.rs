//! Qwen Code 0.24: chat files of sessions and sub-agents, and what runs print; recorded against a server that counts.

use std::collections::{BTreeMap, BTreeSet};

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TimestampSource, UsageRole};

use crate::streams::{self, Stream};
use crate::support::view;

const CHAT: Stream<'_> = fixture("qwen-code-0.24/chat.jsonl");
const DELEGATING: Stream<'_> = fixture("qwen-code-0.24/delegating.jsonl");
const BACKGROUND: Stream<'_> = fixture("qwen-code-0.24/background.jsonl");
const SUBAGENT: Stream<'_> = fixture("qwen-code-0.24/subagent.jsonl");
const FAILED: Stream<'_> = fixture("qwen-code-0.24/failed.jsonl");
const PRINTED: Stream<'_> = fixture("qwen-code-0.24/printed.jsonl");
const PRINTED_RESUMED: Stream<'_> = fixture("qwen-code-0.24/printed-resumed.jsonl");
const PRINTED_DELEGATING: Stream<'_> = fixture("qwen-code-0.24/printed-delegating.jsonl");
const PRINTED_BACKGROUND: Stream<'_> = fixture("qwen-code-0.24/printed-background.jsonl");
const PRINTED_FAILED: Stream<'_> = fixture("qwen-code-0.24/printed-failed.jsonl");
const ALL: [Stream<'_>; 10] = [
    CHAT,
    DELEGATING,
    BACKGROUND,
    SUBAGENT,
    FAILED,
    PRINTED,
    PRINTED_RESUMED,
    PRINTED_DELEGATING,
    PRINTED_BACKGROUND,
    PRINTED_FAILED,
];

const fn fixture(name: &str) -> Stream<'_> {
    Stream { hint: "", name }
}

/// The records that count where all of them are there: those of the lowest precedence.
fn counting(events: &[AgentEvent]) -> Vec<&AgentEvent> {
    let stated = || events.iter().filter(|event| event.usage_role != UsageRole::None);
    let lowest = stated().map(|event| event.precedence).min();
    assert!(stated().all(|event| event.turn_id.is_empty() && event.call_family == "gemini"));
    stated().filter(|event| Some(event.precedence) == lowest).collect()
}

/// Uncached, cached, visible and reasoning tokens.
fn buckets(event: &AgentEvent) -> [u64; 4] {
    [event.in_uncached, event.cache_read, event.out_visible, event.out_reasoning]
}

fn sum(events: &[&AgentEvent]) -> [u64; 4] {
    events.iter().map(|event| buckets(event)).fold([0; 4], |mut sum, add| {
        sum.iter_mut().zip(add).for_each(|(sum, add)| *sum += add);
        sum
    })
}

/// What became of each tool call, by its id.
fn tools(events: &[AgentEvent]) -> BTreeMap<&str, (BTreeSet<&str>, Status)> {
    let mut tools: BTreeMap<&str, (BTreeSet<&str>, Status)> = BTreeMap::new();
    let mut last: Vec<&AgentEvent> = events.iter().filter(|event| event.event_type.is_tool()).collect();
    last.sort_by_key(|event| event.revision);
    for event in last {
        assert!(!event.tool_call_id.is_empty());
        let (names, status) = tools.entry(&event.tool_call_id).or_default();
        names.extend((!event.tool_name.is_empty()).then_some(event.tool_name.as_str()));
        *status = event.status;
    }
    tools
}

fn of(events: &[AgentEvent], kind: EventType) -> Vec<&AgentEvent> {
    events.iter().filter(|event| event.event_type == kind).collect()
}

#[test]
fn chat() {
    insta::assert_json_snapshot!(view(&streams::whole(CHAT)));
}

#[test]
fn chat_of_a_sub_agent() {
    insta::assert_json_snapshot!(view(&streams::whole(SUBAGENT)));
}

#[test]
fn printed() {
    insta::assert_json_snapshot!(view(&streams::whole(PRINTED)));
}

#[test]
fn a_chat_tells_of_every_call_once_also_after_it_was_resumed() {
    let events = streams::whole(CHAT);
    let calls = counting(&events);
    // Five answers, and two errands of the program itself of which no answer tells.
    // The server counted 8,190 in, 800 of them cached each time, and 399 out, 16 of them thoughts each time.
    assert_eq!((calls.len(), sum(&calls)), (7, [8190 - 5600, 5600, 399 - 112, 112]));
    assert!(calls.iter().all(|call| call.event_type == EventType::LlmRequest && call.status == Status::Ok));
    let ids: BTreeSet<&str> = calls.iter().map(|call| call.request_id.as_str()).collect();
    assert_eq!(ids.len(), 7);
    let errands: Vec<&str> = calls.iter().map(|call| call.agent_name.as_str()).skip(5).collect();
    assert_eq!(errands, ["managed-auto-memory-extractor", "managed-auto-memory-dreamer"]);
    assert_eq!(of(&events, EventType::UserPrompt).len(), 2);
    let keys: BTreeSet<_> = events.iter().map(|event| event.dedup_key).collect();
    assert_eq!(keys.len(), events.len());
    for event in &events {
        assert_eq!((event.source.as_str(), event.source_version.as_str()), ("qwen-code", "0.24.4"));
        assert_eq!((event.channel, event.timestamp_source), (Channel::Transcript, TimestampSource::Event));
        assert!(event.context.contains(r#""cwd":"/home/dev/app""#) && !event.session_id.is_empty());
    }
}

#[test]
fn a_tool_call_is_one_by_its_id_and_says_how_it_went() {
    let events = streams::whole(CHAT);
    let seen: Vec<_> = tools(&events).into_values().collect();
    let named = |name| BTreeSet::from([name]);
    assert_eq!(
        seen,
        [
            (named("write_file"), Status::Ok),
            (named("read_file"), Status::Error),
            (named("run_shell_command"), Status::Error)
        ]
    );
    let written = of(&events, EventType::FileCreate);
    assert!(written.iter().any(|event| event.lines_added == Some(2) && event.decision == "accept"));
    assert!(written.iter().all(|event| event.file_path == "/home/dev/app/hello.txt"));
    let read = of(&events, EventType::FileRead);
    assert!(read.iter().any(|event| event.error_type == "file_not_found"));
    assert!(of(&events, EventType::CommandRun).iter().any(|event| event.exit_code == Some(3)));
    let printed = streams::whole(PRINTED);
    assert_eq!(
        tools(&events).into_keys().collect::<Vec<_>>(),
        tools(&printed).into_keys().collect::<Vec<_>>()
    );
}

#[test]
fn a_sub_agents_file_repeats_calls_that_the_sessions_file_has() {
    let (main, own) = (streams::whole(DELEGATING), streams::whole(SUBAGENT));
    let agent = "general-purpose-call_10_0";
    assert!(own.iter().all(|event| event.agent_id == agent && event.session_id == main[0].session_id));
    let alone = counting(&own);
    assert_eq!((alone.len(), sum(&alone)), (2, [630, 1600, 71, 32]));
    let together = [main.clone(), own.clone()].concat();
    let calls = counting(&together);
    assert_eq!((calls.len(), sum(&calls)), (4, [4460 - 3200, 3200, 206 - 64, 64]));
    let of_agent: Vec<_> = calls.into_iter().filter(|call| call.agent_id == agent).collect();
    assert_eq!(sum(&of_agent), sum(&alone));
    assert_eq!((of(&own, EventType::AgentStart).len(), of(&own, EventType::UserPrompt).len()), (1, 0));
    assert!(tools(&own).into_iter().all(|tool| tools(&main).get(tool.0).is_some_and(|same| *same == tool.1)));
}

#[test]
fn what_the_program_says_in_the_users_place_is_no_prompt() {
    let events = streams::whole(BACKGROUND);
    assert_eq!(of(&events, EventType::UserPrompt).len(), 1);
    let line = |more: &str| {
        format!(
            r#"{{"type":"user","sessionId":"s","uuid":"u",{more}"message":{{"role":"user","parts":[{{"text":"a"}}]}}}}"#
        )
    };
    let kind = |more: &str| streams::of_text("", &line(more)).events[0].event_type;
    assert_eq!(kind(""), EventType::UserPrompt);
    assert_eq!(kind(r#""subtype":"notification","#), EventType::Log);
    assert_eq!(kind(r#""subtype":"mid_turn_user_message","provenance":"real_user","#), EventType::UserPrompt);
    assert_eq!(kind(r#""provenance":"goal_runtime","#), EventType::Log);
    assert_eq!(kind(r#""forkedFrom":{"sessionId":"other","messageUuid":"u"},"#), EventType::Log);
}

#[test]
fn a_call_that_failed_is_a_call_without_usage() {
    let events = streams::whole(FAILED);
    let [call] = of(&events, EventType::LlmRequest)[..] else { panic!("not one call") };
    assert_eq!((call.status, call.usage_role), (Status::Error, UsageRole::None));
    assert_eq!(
        (call.error_type.as_str(), call.error_message.as_str()),
        ("BadRequestError", "400 quota exceeded")
    );
    let printed = streams::whole(PRINTED_FAILED);
    let [end] = of(&printed, EventType::SessionEnd)[..] else { panic!("not one end") };
    assert_eq!((end.status, end.error_type.as_str()), (Status::Error, "error_during_execution"));
    assert_eq!(end.error_message, "[API Error: 400 quota exceeded]");
    assert!(printed.iter().all(|event| event.usage_role == UsageRole::None));
}

/// The thoughts are in the output and are not stated apart.
#[test]
fn a_run_counts_by_the_sessions_total_and_without_one_by_its_answers() {
    let (first, resumed) = (streams::whole(PRINTED), streams::whole(PRINTED_RESUMED));
    let total = |events: &[AgentEvent]| {
        let [total] = counting(events)[..] else { panic!("not one total") };
        assert_eq!((total.usage_role, total.model.as_str()), (UsageRole::Cumulative, "qwen3-coder-plus"));
        (total.llm_call_key.clone(), buckets(total), total.revision)
    };
    let (before, after) = (total(&first), total(&resumed));
    assert_eq!((before.1, after.1), ([1420, 3200, 222, 0], [2590, 5600, 399, 0]));
    assert!(before.0 == after.0 && before.2 < after.2, "one series, in order: {before:?} {after:?}");
    let cut: Vec<AgentEvent> =
        first.into_iter().filter(|event| event.usage_role != UsageRole::Cumulative).collect();
    let answers = counting(&cut);
    assert_eq!((answers.len(), sum(&answers)), (4, before.1));
    let delegated = streams::whole(PRINTED_DELEGATING);
    assert_eq!(total(&delegated).1, [4460 - 3200, 3200, 206, 0], "the sub-agent's calls too");
}

#[test]
fn a_run_tells_of_its_agents_and_of_no_prompt() {
    let events = streams::whole(PRINTED_BACKGROUND);
    let agents = [of(&events, EventType::AgentStart), of(&events, EventType::AgentEnd)].concat();
    let seen: Vec<_> = agents.iter().map(|agent| (agent.agent_id.as_str(), agent.status)).collect();
    let id = "general-purpose-call_5_0";
    assert_eq!(seen, [(id, Status::Unset), (id, Status::Ok)]);
    assert!(of(&events, EventType::UserPrompt).is_empty());
    assert!(
        events.iter().all(|event| event.source_format == "qwen.stream" && event.source_version == "0.24.4")
    );
}

#[test]
fn thoughts_beside_the_output_are_what_the_total_has_more() {
    let row = r#"{"type":"assistant","session_id":"s","uuid":"u","message":{"content":[],"usage":{"input_tokens":100,"output_tokens":20,"total_tokens":130}}}"#;
    let events = streams::of_text("", row).events;
    assert_eq!(buckets(&events[0]), [100, 0, 20, 10]);
}

#[test]
fn cut_at_any_line_nothing_changes_and_nothing_is_unknown() {
    for stream in ALL {
        streams::assert_cuts_change_nothing(stream);
        let events = streams::whole(stream);
        assert!(events.iter().all(|event| event.unknown_reason.is_empty()), "{stream:?}");
        assert!(events.iter().all(|event| event.source_format.starts_with("qwen.")), "{stream:?}");
    }
}
