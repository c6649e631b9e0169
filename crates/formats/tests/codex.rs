//! Codex CLI 0.169: one session of two calls and one tool call, as each of its channels reports it.

#![cfg(test)]

#[path = "support/streams.rs"]
mod streams;
mod support;

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use fleetlog_schemas::record::Route;
use proptest::prelude::*;
use streams::Stream;
use support::{decoded, view};

const SESSION: &str = "01a1fe08-c838-7360-910a-2042e11dd7b1";
const TURN: &str = "01a1fe08-c87d-7791-8c08-71315f024878";
const ROLLOUT: Stream<'_> = Stream { hint: "", name: "codex-0.169/rollout.jsonl" };

/// The sum of what these events state: uncached, cached, visible and reasoning tokens.
fn sum<'e>(events: impl IntoIterator<Item = &'e AgentEvent>) -> [u64; 4] {
    events.into_iter().fold([0; 4], |[uncached, cached, visible, reasoning], event| {
        [
            uncached + event.in_uncached,
            cached + event.cache_read,
            visible + event.out_visible,
            reasoning + event.out_reasoning,
        ]
    })
}

/// 2,400 tokens in, 2,000 of them cached, and 100 out, 40 of them reasoning.
const TOTAL: [u64; 4] = [400, 2000, 60, 40];

fn calls(events: &[AgentEvent]) -> Vec<&AgentEvent> {
    events.iter().filter(|event| event.usage_role == UsageRole::Call).collect()
}

fn assert_two_calls(calls: &[&AgentEvent], channel: Channel) {
    assert_eq!((calls.len(), sum(calls.iter().copied())), (2, TOTAL));
    for call in calls {
        assert_eq!((call.call_family.as_str(), call.channel), ("codex", channel));
        assert_eq!((call.token_basis, call.event_type.is_llm()), (TokenBasis::Inclusive, true));
    }
    assert_ne!(calls[0].llm_call_key, calls[1].llm_call_key);
}

#[test]
fn logs() {
    insta::assert_json_snapshot!(view(&decoded(Route::OtlpLogs, "codex-0.169/logs.json")));
}

#[test]
fn spans() {
    insta::assert_json_snapshot!(view(&decoded(Route::OtlpTraces, "codex-0.169/spans.json")));
}

#[test]
fn rollout() {
    insta::assert_json_snapshot!(view(&streams::whole(ROLLOUT)));
}

#[test]
fn metric_points_are_points_and_no_usage() {
    let points = decoded(Route::OtlpMetrics, "codex-0.169/metrics.json");
    assert!(points.iter().all(|point| point.event_type == EventType::MetricPoint));
    assert!(points.iter().all(|point| point.usage_role == UsageRole::None && point.source == "codex_exec"));
    assert!(points.iter().any(|point| point.name == "codex.turn.token_usage"));
}

#[test]
fn logs_alone_tell_of_two_calls_and_one_tool_call() {
    let events = decoded(Route::OtlpLogs, "codex-0.169/logs.json");
    assert_two_calls(&calls(&events), Channel::AgentLog);
    let of_session = events.iter().filter(|event| event.session_id == SESSION).count();
    assert_eq!(of_session, 17, "all but the record about the exporter itself");
    let tools: Vec<_> = events.iter().filter(|event| event.event_type.is_tool()).collect();
    let [tool] = tools.as_slice() else { panic!("{tools:?}") };
    assert_eq!((tool.tool_call_id.as_str(), tool.event_type), ("call_1", EventType::CommandRun));
    assert_eq!((tool.status, tool.exit_code, tool.duration_ms), (Status::Ok, Some(0), Some(77.0)));
    assert_eq!(events.iter().filter(|event| event.event_type == EventType::UserPrompt).count(), 1);
}

#[test]
fn spans_alone_tell_of_two_calls_and_one_tool_call() {
    let events = decoded(Route::OtlpTraces, "codex-0.169/spans.json");
    assert_two_calls(&calls(&events), Channel::Span);
    let turn: Vec<_> = events.iter().filter(|event| event.usage_role == UsageRole::Rollup).collect();
    assert_eq!((turn.len(), sum(turn.iter().copied())), (1, TOTAL));
    assert_eq!((turn[0].session_id.as_str(), turn[0].turn_id.as_str()), (SESSION, TURN));
    let tools: Vec<_> = events.iter().filter(|event| event.event_type.is_tool()).collect();
    assert_eq!((tools.len(), tools[0].tool_call_id.as_str()), (1, "call_1"));
    // What the spans of the calls do not name, those around them do.
    for call in calls(&events) {
        assert_eq!((call.trace_id.as_str(), call.model.as_str()), (turn[0].trace_id.as_str(), "gpt-5"));
        assert_eq!((call.session_id.as_str(), call.turn_id.as_str()), (SESSION, TURN));
    }
}

#[test]
fn spans_of_the_program_itself_are_marked_as_such() {
    let events = decoded(Route::OtlpTraces, "codex-0.169/spans.json");
    let traced: Vec<_> = events.iter().filter(|event| event.level == "trace").collect();
    assert!(traced.len() > 10 && traced.iter().all(|event| event.event_type == EventType::Span));
    for event in traced {
        let context: serde_json::Value = serde_json::from_str(&event.context).unwrap();
        let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(context["scope"]["name"], "codex_exec");
        assert!(data["code.module.name"].as_str().unwrap().starts_with("codex_"), "{}", event.data);
    }
}

#[test]
fn rollout_alone_tells_of_two_calls_each_by_two_records_of_one_key() {
    let events = streams::whole(ROLLOUT);
    let of = |precedence: u32| -> Vec<&AgentEvent> {
        calls(&events).into_iter().filter(|call| call.precedence == precedence).collect()
    };
    let (recorded, told) = (of(0), of(1));
    assert_two_calls(&recorded, Channel::Transcript);
    assert_two_calls(&told, Channel::Transcript);
    assert_eq!(calls(&events).len(), 4);
    for (recorded, told) in recorded.iter().zip(&told) {
        assert_eq!(recorded.llm_call_key, told.llm_call_key);
        assert_eq!(recorded.request_id, recorded.llm_call_key);
        assert_eq!((recorded.model.as_str(), told.model.as_str()), ("gpt-5", "gpt-5"));
        assert_eq!((recorded.turn_id.as_str(), told.turn_id.as_str()), (TURN, TURN));
    }
    assert_eq!((recorded[0].request_id.as_str(), recorded[1].request_id.as_str()), ("resp_2", "resp_3"));
}

#[test]
fn rollout_tells_of_one_prompt_one_answer_and_one_tool_call_in_three_pieces() {
    let events = streams::whole(ROLLOUT);
    let of = |kind: EventType| events.iter().filter(|event| event.event_type == kind).count();
    assert_eq!(
        (of(EventType::UserPrompt), of(EventType::LlmResponse), of(EventType::SessionStart)),
        (1, 1, 1)
    );
    let tools: Vec<_> = events.iter().filter(|event| event.event_type.is_tool()).collect();
    let pieces: Vec<_> = tools.iter().map(|tool| (tool.revision, tool.event_type, tool.status)).collect();
    let expected = [
        (9, EventType::CommandRun, Status::Unset),
        (11, EventType::CommandRun, Status::Ok),
        (12, EventType::ToolCall, Status::Unset),
    ];
    assert_eq!(pieces, expected);
    assert!(tools.iter().all(|tool| tool.tool_call_id == "call_1"));
    assert!(events.iter().all(|event| event.session_id == SESSION && event.source == "codex_exec"));
}

#[test]
fn rollout_cut_at_any_line_gives_the_same_events() {
    streams::assert_cuts_change_nothing(ROLLOUT);
}

/// A rollout of these lines, a second apart.
fn rollout_of(lines: &[(&str, serde_json::Value)]) -> String {
    let line = |(second, (kind, payload)): (usize, &(&str, serde_json::Value))| {
        let timestamp = format!("2026-11-21T13:{:02}:{:02}.000Z", second / 60, second % 60);
        format!("{}\n", serde_json::json!({"timestamp": timestamp, "type": kind, "payload": payload}))
    };
    lines.iter().enumerate().map(line).collect()
}

fn usage(input: u64, output: u64) -> serde_json::Value {
    serde_json::json!({"input_tokens": input, "cached_input_tokens": 0, "output_tokens": output,
        "reasoning_output_tokens": 0, "total_tokens": input + output})
}

fn told(last: (u64, u64), total: (u64, u64)) -> (&'static str, serde_json::Value) {
    let info = serde_json::json!({"last_token_usage": usage(last.0, last.1),
        "total_token_usage": usage(total.0, total.1)});
    ("event_msg", serde_json::json!({"type": "token_count", "info": info}))
}

#[test]
fn a_call_that_is_told_of_again_is_not_a_second_call() {
    let turn = |id: &str| ("turn_context", serde_json::json!({"turn_id": id, "model": "gpt-5"}));
    let text = rollout_of(&[
        ("session_meta", serde_json::json!({"id": "s1"})),
        turn("t1"),
        told((100, 10), (100, 10)),
        told((100, 10), (100, 10)),
        turn("t2"),
        // Limits of the account are told with the usage of the last call, before the next has used anything.
        told((100, 10), (100, 10)),
        told((100, 10), (200, 20)),
        // The context is estimated after a compaction: a total alone.
        told((0, 0), (200, 20)),
        ("event_msg", serde_json::json!({"type": "token_count", "info": null})),
    ]);
    let events = streams::of_text("", &text).events;
    assert_eq!(calls(&events).len(), 2);
    assert_eq!(sum(calls(&events)), [200, 0, 20, 0]);
    streams::assert_text_cuts_change_nothing("", &text);
}

#[test]
fn a_fork_does_not_call_again_what_it_copied() {
    const PARENT: &str = "01a1fd00-0000-7000-8000-000000000001";
    const OLD_TURN: &str = "01a1fd01-0000-7000-8000-000000000002";
    const FORK: &str = "01a1fe00-0000-7000-8000-000000000003";
    const OWN_TURN: &str = "01a1fe01-0000-7000-8000-000000000004";
    let call = |thread: &str, turn: &str, response: &str, total: (u64, u64)| {
        let payload = serde_json::json!({"thread_id": thread, "turn_id": turn, "response_id": response,
            "usage": usage(100, 10), "thread_token_usage": usage(total.0, total.1)});
        ("token_usage_record", payload)
    };
    let tool = |id: &str| {
        let payload =
            serde_json::json!({"type": "function_call", "name": "shell", "call_id": id, "arguments": "{}"});
        ("response_item", payload)
    };
    let text = rollout_of(&[
        ("session_meta", serde_json::json!({"id": FORK, "forked_from_id": PARENT, "cwd": "/fork"})),
        ("session_meta", serde_json::json!({"id": PARENT, "cwd": "/parent"})),
        ("event_msg", serde_json::json!({"type": "task_started", "turn_id": OLD_TURN})),
        tool("old"),
        call(PARENT, OLD_TURN, "resp_old", (100, 10)),
        told((100, 10), (100, 10)),
        ("event_msg", serde_json::json!({"type": "task_started", "turn_id": OWN_TURN})),
        ("turn_context", serde_json::json!({"turn_id": OWN_TURN, "model": "gpt-5", "cwd": "/fork"})),
        tool("new"),
        told((100, 10), (100, 10)),
        call(FORK, OWN_TURN, "resp_new", (200, 20)),
        told((100, 10), (200, 20)),
    ]);
    let events = streams::of_text("", &text).events;
    assert!(events.iter().all(|event| event.session_id == FORK));
    let keys: Vec<_> =
        calls(&events).iter().map(|call| (call.precedence, call.llm_call_key.as_str())).collect();
    assert_eq!(keys, [(0, "resp_new"), (1, "resp_new")]);
    let tools: Vec<_> = events.iter().filter(|event| event.event_type.is_tool()).collect();
    assert_eq!((tools.len(), tools[0].tool_call_id.as_str()), (1, "new"));
    let copied = events.iter().filter(|event| event.context.contains(r#""replayed":true"#)).count();
    assert_eq!(copied, 5);
    streams::assert_text_cuts_change_nothing("", &text);
}

#[test]
fn a_copy_ends_where_the_header_says_or_when_the_copying_is_over() {
    let by_ordinal = r#"{"timestamp":"2026-11-21T13:00:00Z","ordinal":0,"type":"session_meta","payload":{"id":"child","source":{"subagent":{"thread_spawn":{"parent_thread_id":"parent","agent_nickname":"Ada"}}},"subagent_history_start_ordinal":2}}
{"timestamp":"2026-11-21T13:00:00Z","ordinal":1,"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"of the parent"}]}}
{"timestamp":"2026-11-21T13:00:00Z","ordinal":2,"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"of its own"}]}}
"#;
    let events = streams::of_text("", by_ordinal).events;
    let kinds: Vec<_> = events.iter().map(|event| event.event_type).collect();
    assert_eq!(kinds, [EventType::SessionStart, EventType::Log, EventType::UserPrompt]);
    let header = &events[0];
    assert_eq!((header.agent_id.as_str(), header.parent_agent_id.as_str()), ("child", "parent"));
    assert_eq!(header.agent_name, "Ada");
    streams::assert_text_cuts_change_nothing("", by_ordinal);
    // Neither ordinals nor turns are stated: what was written at the moment of the fork was copied.
    let at = |second: u32, line: (&str, serde_json::Value)| {
        let timestamp = format!("2026-11-21T13:00:{second:02}Z");
        format!("{}\n", serde_json::json!({"timestamp": timestamp, "type": line.0, "payload": line.1}))
    };
    let header = ("session_meta", serde_json::json!({"id": "fork", "forked_from_id": "parent"}));
    let by_time =
        [at(0, header), at(0, told((100, 10), (100, 10))), at(30, told((100, 10), (200, 20)))].concat();
    assert_eq!(sum(calls(&streams::of_text("", &by_time).events)), [100, 0, 10, 0]);
    streams::assert_text_cuts_change_nothing("", &by_time);
}

#[test]
fn running_totals_alone_are_a_series_in_the_order_of_their_lines() {
    let total = |input: u64| {
        let info = serde_json::json!({"total_token_usage": usage(input, 10)});
        ("event_msg", serde_json::json!({"type": "token_count", "info": info}))
    };
    let text = rollout_of(&[
        ("session_meta", serde_json::json!({"id": "s1", "model_provider": "openai"})),
        total(100),
        total(250),
    ]);
    let events = streams::of_text("", &text).events;
    let stated: Vec<_> = events
        .iter()
        .filter(|event| event.usage_role == UsageRole::Cumulative)
        .map(|event| (event.revision, event.in_uncached, event.precedence, event.llm_call_key.as_str()))
        .collect();
    assert_eq!(stated, [(1, 100, 2, "total"), (2, 250, 2, "total")]);
    streams::assert_text_cuts_change_nothing("", &text);
}

#[test]
fn what_codex_adds_in_the_users_role_is_no_prompt() {
    let said = |text: &str| {
        let content = serde_json::json!([{"type": "input_text", "text": text}]);
        ("response_item", serde_json::json!({"type": "message", "role": "user", "content": content}))
    };
    let text = rollout_of(&[
        said("<environment_context>\n  <cwd>/a</cwd>\n</environment_context>"),
        said("# AGENTS.md instructions for /a\n\nBe brief."),
        said("What does <b>bold</b> mean?"),
        ("event_msg", serde_json::json!({"type": "user_message", "message": "What does <b>bold</b> mean?"})),
    ]);
    let kinds: Vec<_> = streams::of_text("", &text).events.iter().map(|event| event.event_type).collect();
    assert_eq!(kinds, [EventType::Log, EventType::Log, EventType::UserPrompt, EventType::Log]);
}

/// Written after the program's own types: it was not captured.
const EXEC: Stream<'_> = Stream { hint: "", name: "codex-exec/printed.jsonl" };

#[test]
fn output_of_exec_tells_of_its_tools_and_of_the_turns_total() {
    let events = streams::whole(EXEC);
    assert!(events.iter().all(|event| event.session_id == SESSION && event.source_format == "codex.exec"));
    let tools: Vec<_> = events.iter().filter(|event| event.event_type.is_tool()).collect();
    let tools: Vec<_> =
        tools.iter().map(|tool| (tool.event_type, tool.tool_name.as_str(), tool.status)).collect();
    let expected = [
        (EventType::CommandRun, "command_execution", Status::Ok),
        (EventType::FileCreate, "file_change", Status::Ok),
        (EventType::McpCall, "search", Status::Error),
    ];
    assert_eq!(tools, expected);
    let totals: Vec<_> = events.iter().filter(|event| event.usage_role == UsageRole::Cumulative).collect();
    let [total] = totals.as_slice() else { panic!("{totals:?}") };
    assert_eq!((total.precedence, total.call_family.as_str(), sum([*total])), (2, "", TOTAL));
    // What it is the total of is told by others of the same source, where they tell of anything.
    assert_eq!((total.source.as_str(), total.channel), ("codex_exec", Channel::Other));
    streams::assert_cuts_change_nothing(EXEC);
}

#[test]
fn what_fails_is_no_call_and_what_is_refused_was_decided() {
    let log = |name: &str, attributes: serde_json::Value| {
        let mut all = serde_json::json!({"event.name": name, "conversation.id": "s1",
            "event.timestamp": "2026-11-21T12:15:51.005Z"});
        all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
        streams::log("codex-app-server", &all)
    };
    let refused =
        log("codex.api_request", serde_json::json!({"http.response.status_code": 429, "attempt": 1}));
    assert_eq!((refused.event_type, refused.status), (EventType::Error, Status::Error));
    assert_eq!((refused.error_type.as_str(), refused.attempt), ("429", Some(2)));
    let broken = log(
        "codex.sse_event",
        serde_json::json!({"event.kind": "response.failed",
        "error.message": "stream closed"}),
    );
    assert_eq!((broken.event_type, broken.error_message.as_str()), (EventType::Error, "stream closed"));
    for (word, decision, status) in [
        ("approved_for_session", "accept", Status::Unset),
        ("denied", "reject", Status::Denied),
        ("abort", "reject", Status::Denied),
    ] {
        let decided = log("codex.tool_decision", serde_json::json!({"decision": word, "call_id": "c1"}));
        assert_eq!((decided.decision.as_str(), decided.status), (decision, status), "{word}");
    }
    let failed = log(
        "codex.tool_result",
        serde_json::json!({"tool_name": "search", "mcp_server": "github",
        "success": "false", "call_id": "c1", "output": "Exit code: 1\nOutput:\n"}),
    );
    assert_eq!((failed.event_type, failed.status), (EventType::McpCall, Status::Error));
    assert_eq!((failed.exit_code, failed.session_id.as_str()), (Some(1), "s1"));
    // Since 0.171 the tool has succeeded whatever became of the command.
    let ran = |code: u8| {
        let output = format!("Wall time: 0.0000 seconds\nProcess exited with code {code}\nOutput:\n");
        let said = serde_json::json!({"tool_name": "exec_command", "success": "true", "call_id": "c2", "output": output});
        log("codex.tool_result", said)
    };
    assert_eq!((ran(1).status, ran(1).exit_code, ran(0).status), (Status::Error, Some(1), Status::Ok));
    let cost = log("codex.turn_cost", serde_json::json!({"turn.id": "t1", "usage.estimated_usd": "0.04"}));
    assert_eq!((cost.usage_role, cost.cost_reported), (UsageRole::Rollup, Some(NanoUsd(40_000_000))));
}

/// As Codex wrote them in the summer of 2025, after the program's own types.
const BARE: &str = r#"{"id":"5973b6c0-94b8-487b-a530-2aeb6098ae0e","timestamp":"2025-05-07T17:24:21.123Z","instructions":null,"git":{}}
{"type":"message","id":null,"role":"user","content":[{"type":"input_text","text":"<environment_context>\n</environment_context>"}]}
{"type":"message","id":null,"role":"user","content":[{"type":"input_text","text":"list"}]}
{"record_type":"state"}
{"type":"function_call","id":"fc","name":"shell","arguments":"{}","call_id":"call_1"}
{"type":"function_call_output","call_id":"call_1","output":"{\"output\":\"a\",\"metadata\":{\"exit_code\":2,\"duration_seconds\":0.1}}"}
{"type":"message","id":null,"role":"assistant","content":[{"type":"output_text","text":"Done."}]}
"#;

#[test]
fn lines_without_kinds_are_what_they_would_be_with_them() {
    let events = streams::of_text("", BARE).events;
    let kinds: Vec<_> = events.iter().map(|event| event.event_type).collect();
    let expected = [
        EventType::SessionStart,
        EventType::Log,
        EventType::UserPrompt,
        EventType::Log,
        EventType::CommandRun,
        EventType::ToolCall,
        EventType::LlmResponse,
    ];
    assert_eq!(kinds, expected);
    assert!(events.iter().all(|event| event.session_id == "5973b6c0-94b8-487b-a530-2aeb6098ae0e"));
    assert_eq!((events[4].tool_call_id.as_str(), events[5].exit_code), ("call_1", Some(2)));
    streams::assert_text_cuts_change_nothing("", BARE);
}

#[test]
fn rollouts_of_others_are_read() {
    let Some(folder) = streams::samples("codex-rollouts") else { return };
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let told = read("project-alpha__session-alpha.jsonl");
    let events = streams::of_text("", &told).events;
    assert_eq!((calls(&events).len(), sum(calls(&events))), (2, [2750, 750, 150, 275]));
    let models: Vec<_> = calls(&events).iter().map(|call| call.model.clone()).collect();
    assert_eq!(models, ["gpt-5.2-codex", "gpt-5.3-codex"]);
    streams::assert_text_cuts_change_nothing("", &told);
    let tools = read("codex__function_calls.jsonl");
    let events = streams::of_text("", &tools).events;
    let kinds: Vec<_> = events.iter().map(|event| event.event_type).collect();
    let expected =
        [EventType::SessionStart, EventType::UserPrompt, EventType::CommandRun, EventType::FileEdit];
    assert_eq!(kinds, expected);
    streams::assert_text_cuts_change_nothing("", &tools);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever lines follow each other, of whatever format.
    #[test]
    fn any_lines_cut_anywhere_give_the_same_events(
        lines in prop::collection::vec(prop::sample::select(lines_of_all()), 1..12),
    ) {
        streams::assert_cuts_of((streams::LINES, ""), &lines.concat());
    }
}

fn lines_of_all() -> Vec<String> {
    let lines = |name: &str| -> Vec<String> {
        let text = String::from_utf8(support::fixture(name)).unwrap();
        text.split_inclusive('\n').map(str::to_owned).collect()
    };
    let files = ["codex-0.169/rollout.jsonl", "codex-exec/printed.jsonl", "gemini-cli-0.61/chat.jsonl"];
    let broken = ["{\n", "[]\n", "{\"type\":\"message\"}\n"].map(str::to_owned);
    files.into_iter().flat_map(lines).chain(broken).collect()
}
