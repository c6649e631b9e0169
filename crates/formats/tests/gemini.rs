//! Gemini CLI 0.61: one session of two calls and one tool call, as each of its channels reports it.

#![cfg(test)]

#[path = "gemini/qwen.rs"]
mod qwen;
#[path = "support/streams.rs"]
mod streams;
mod support;

use std::path::Path;

use fleetlog_formats::{Input, decode, place as place_of};
use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::record::{Route, StreamContext};
use streams::Stream;
use support::{decoded, input, view};

const SESSION: &str = "2184ea55-fb33-4574-b6ca-07938e95f6d2";
const CALL_ID: &str = "run_shell_command__run_shell_command_1795263423589_0";
const CHAT: Stream<'_> = Stream { hint: "", name: "gemini-cli-0.61/chat.jsonl" };

fn calls(events: &[AgentEvent]) -> Vec<&AgentEvent> {
    events.iter().filter(|event| event.usage_role == UsageRole::Call).collect()
}

/// Uncached, cached, visible and reasoning tokens.
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

fn tools(events: &[AgentEvent]) -> Vec<&AgentEvent> {
    events.iter().filter(|event| event.event_type.is_tool()).collect()
}

fn of(events: &[AgentEvent], kind: EventType) -> usize {
    events.iter().filter(|event| event.event_type == kind).count()
}

fn assert_calls(calls: &[&AgentEvent], channel: Channel) {
    for call in calls {
        assert_eq!((call.call_family.as_str(), call.channel), ("gemini", channel));
        assert_eq!((call.token_basis, call.event_type.is_llm()), (TokenBasis::Gemini, true));
        assert_eq!((call.session_id.as_str(), call.model.as_str()), (SESSION, "gemini-2.5-pro"));
    }
}

#[test]
fn logs() {
    insta::assert_json_snapshot!(view(&decoded(Route::OtlpLogs, "gemini-cli-0.61/logs.json")));
}

#[test]
fn spans() {
    insta::assert_json_snapshot!(view(&decoded(Route::OtlpTraces, "gemini-cli-0.61/spans.json")));
}

#[test]
fn chat() {
    insta::assert_json_snapshot!(view(&streams::whole(CHAT)));
}

#[test]
fn metric_points_are_points_and_no_usage() {
    let points = decoded(Route::OtlpMetrics, "gemini-cli-0.61/metrics.json");
    assert!(points.iter().all(|point| point.event_type == EventType::MetricPoint));
    assert!(points.iter().all(|point| point.usage_role == UsageRole::None && point.session_id == SESSION));
    assert!(points.iter().any(|point| point.name == "gemini_cli.token.usage"));
}

#[test]
fn logs_alone_tell_of_two_calls_and_one_tool_call() {
    let events = decoded(Route::OtlpLogs, "gemini-cli-0.61/logs.json");
    let calls = calls(&events);
    // 200 tokens in, 120 of them cached; 20 out, and 20 of thoughts beside them.
    assert_eq!((calls.len(), sum(calls.iter().copied())), (2, [80, 120, 20, 20]));
    assert_calls(&calls, Channel::AgentLog);
    assert_ne!(calls[0].llm_call_key, calls[1].llm_call_key);
    let [tool] = tools(&events)[..] else { panic!("not one tool call") };
    assert_eq!(
        (tool.event_type, tool.status, tool.decision.as_str()),
        (EventType::CommandRun, Status::Ok, "accept")
    );
    // The logs do not name the call, so the session and the channel have to.
    assert_eq!((tool.tool_call_id.as_str(), tool.call_family.as_str()), ("", "gemini"));
    assert_eq!((of(&events, EventType::UserPrompt), of(&events, EventType::SessionStart)), (1, 1));
    assert!(events.iter().all(|event| event.session_id == SESSION && event.source_version.is_empty()));
}

#[test]
fn spans_alone_tell_of_two_calls_and_one_tool_call_without_what_they_do_not_state() {
    let events = decoded(Route::OtlpTraces, "gemini-cli-0.61/spans.json");
    let calls = calls(&events);
    assert_eq!((calls.len(), sum(calls.iter().copied())), (2, [200, 0, 20, 0]));
    assert_calls(&calls, Channel::Span);
    let [tool] = tools(&events)[..] else { panic!("not one tool call") };
    assert_eq!((tool.tool_call_id.as_str(), tool.event_type), (CALL_ID, EventType::CommandRun));
}

#[test]
fn chat_alone_tells_of_two_calls_and_one_tool_call() {
    let events = streams::whole(CHAT);
    let calls = calls(&events);
    assert_calls(&calls, Channel::Transcript);
    let versions: Vec<_> = calls.iter().map(|call| (call.llm_call_key.as_str(), call.revision)).collect();
    let (first, second) = ("2974e48d-188e-4fb9-8b7b-e13529d39d5a", "938f68f9-1266-4949-a011-8875459a1afc");
    assert_eq!(versions, [(first, 4), (first, 6), (second, 9)], "the first was written twice");
    assert_eq!(sum(calls[1..].iter().copied()), [80, 120, 20, 20]);
    let [tool] = tools(&events)[..] else { panic!("not one tool call") };
    assert_eq!((tool.tool_call_id.as_str(), tool.event_type), (CALL_ID, EventType::CommandRun));
    assert_eq!((tool.status, tool.revision), (Status::Ok, 6));
    // What a tool returned is in the user's role, and so is what describes the session.
    assert_eq!((of(&events, EventType::UserPrompt), of(&events, EventType::SessionStart)), (1, 1));
    assert!(events.iter().all(|event| event.session_id == SESSION));
}

#[test]
fn chat_cut_at_any_line_gives_the_same_events() {
    streams::assert_cuts_change_nothing(CHAT);
}

/// What a document with the chat's messages of these ids would hold.
fn document(ids: &[&str]) -> String {
    let message = |id: &&str| {
        serde_json::json!({"id": id, "timestamp": "2026-11-21T12:17:03Z", "type": "gemini", "content": "ok",
            "tokens": {"input": 10, "output": 2, "cached": 0, "thoughts": 1, "tool": 0, "total": 13},
            "model": "gemini-2.5-pro"})
    };
    let messages: Vec<_> = ids.iter().map(message).collect();
    serde_json::json!({"sessionId": "s1", "projectHash": "p", "startTime": "2026-11-21T12:17:00Z",
        "lastUpdated": "2026-11-21T12:17:09Z", "messages": messages})
    .to_string()
}

#[test]
fn a_document_that_has_grown_repeats_its_messages_as_the_same_events() {
    let keys = |ids: &[&str]| -> Vec<_> {
        let events = streams::of_text("", &document(ids)).events;
        calls(&events).iter().map(|call| (call.dedup_key, call.llm_call_key.clone())).collect()
    };
    let (before, after) = (keys(&["a"]), keys(&["a", "b"]));
    assert_eq!((before.len(), after.len()), (1, 2));
    assert_eq!(before[0], after[0]);
}

#[test]
fn messages_that_a_patch_repeats_are_the_calls_they_were() {
    let line = |value: serde_json::Value| format!("{value}\n");
    let row: serde_json::Value = serde_json::from_str(&document(&["a"])).unwrap();
    let row = &row["messages"][0];
    let mut masked = row.clone();
    masked["content"] = serde_json::json!([{"text": "masked"}]);
    let text = [
        line(serde_json::json!({"sessionId": "s1", "projectHash": "p", "startTime": "2026-11-21T12:17:00Z"})),
        line(row.clone()),
        line(serde_json::json!({"$set": {"messages": [masked]}})),
        line(serde_json::json!({"$rewindTo": "a"})),
        line(serde_json::json!({"$set": {"summary": "short"}})),
        line(serde_json::json!({"$set": {"lastUpdated": "2026-11-21T12:18:00Z"}})),
    ]
    .concat();
    let decoded = streams::of_text("", &text);
    let seen: Vec<_> =
        calls(&decoded.events).iter().map(|call| (call.llm_call_key.clone(), call.revision)).collect();
    assert_eq!(seen, [("a".to_owned(), 1), ("a".to_owned(), 2)]);
    assert_eq!(decoded.eventless.len(), 1, "that something was written is no event");
    streams::assert_text_cuts_change_nothing("", &text);
}

#[test]
fn what_fails_or_is_refused_says_so_and_a_part_of_a_tool_call_is_no_other() {
    let log = |name: &str, attributes: serde_json::Value| {
        let mut all = serde_json::json!({"event.name": format!("gemini_cli.{name}"), "session.id": "s1",
            "event.timestamp": "2026-11-21T12:17:03.543Z"});
        all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
        streams::log("gemini-cli", &all)
    };
    let failed = log(
        "api_error",
        serde_json::json!({"model": "gemini-2.5-pro", "error": "quota", "error_type":
        "ApiError", "status_code": 429, "duration_ms": 12}),
    );
    assert_eq!((failed.event_type, failed.status), (EventType::LlmRequest, Status::Error));
    assert_eq!((failed.error_message.as_str(), failed.error_type.as_str()), ("quota", "ApiError"));
    assert_eq!((failed.usage_role, failed.call_family.as_str()), (UsageRole::None, "gemini"));
    let refused = log(
        "tool_call",
        serde_json::json!({"function_name": "replace", "decision": "reject",
        "success": false, "metadata": r#"{"model_added_lines":3,"model_removed_lines":1}"#}),
    );
    assert_eq!((refused.event_type, refused.status), (EventType::FileEdit, Status::Denied));
    assert_eq!((refused.decision.as_str(), refused.lines_added), ("reject", Some(3)));
    let part =
        log("file_operation", serde_json::json!({"tool_name": "replace", "operation": "update", "lines": 9}));
    assert!(!part.event_type.is_tool());
    let kinds: Vec<_> = ["agent.start", "agent.finish", "chat_compression", "conversation_finished"]
        .into_iter()
        .map(|name| log(name, serde_json::json!({})).event_type)
        .collect();
    let expected = [EventType::AgentStart, EventType::AgentEnd, EventType::AgentCompaction, EventType::Log];
    assert_eq!(kinds, expected);
}

/// Written after the program's own types: they were not captured.
#[test]
fn qwen_codes_logs_are_its_ancestors_with_the_thoughts_in_the_output() {
    let log = |name: &str, attributes: serde_json::Value| {
        let mut all = serde_json::json!({"event.name": format!("qwen-code.{name}"), "session.id": "s1",
            "event.timestamp": "2026-11-30T01:34:18.284Z"});
        all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
        streams::log("qwen-code", &all)
    };
    let call = log(
        "api_response",
        serde_json::json!({"model": "qwen3-coder-plus", "response_id": "chatcmpl-1", "input_token_count": 1150,
            "output_token_count": 51, "cached_content_token_count": 1015, "thoughts_token_count": 16,
            "total_token_count": 1201, "subagent_name": "memory"}),
    );
    assert_eq!((call.source.as_str(), call.event_type), ("qwen-code", EventType::LlmRequest));
    assert_eq!((call.request_id.as_str(), call.agent_name.as_str()), ("chatcmpl-1", "memory"));
    let counts = [call.in_uncached, call.cache_read, call.out_visible, call.out_reasoning];
    assert_eq!(counts, [135, 1015, 35, 16]);
    let tool = log("tool_call", serde_json::json!({"function_name": "run_shell_command", "success": false}));
    assert_eq!((tool.event_type, tool.status), (EventType::CommandRun, Status::Error));
}

#[test]
fn a_span_of_a_call_without_usage_is_of_the_family_too() {
    let mut body: serde_json::Value =
        serde_json::from_slice(&support::fixture("gemini-cli-0.61/spans.json")).unwrap();
    let mut stripped = 0;
    for span in body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array_mut().unwrap() {
        let attributes = span["attributes"].as_array_mut().unwrap();
        let before = attributes.len();
        attributes.retain(|attribute| !attribute["key"].as_str().unwrap().starts_with("gen_ai.usage."));
        stripped += before - attributes.len();
    }
    assert!(stripped > 0);
    let body = serde_json::to_vec(&body).unwrap();
    let events =
        fleetlog_formats::decode(&support::input(Route::OtlpTraces, "spans.json", &body)).unwrap().events;
    let spans: Vec<_> = events.iter().filter(|event| !event.llm_call_key.is_empty()).collect();
    assert!(!spans.is_empty() && spans.iter().all(|span| span.call_family == "gemini"));
}

const PRINTED: Stream<'_> = Stream { hint: "", name: "gemini-cli-printed/stream.jsonl" };
const HOOKS: Stream<'_> = Stream { hint: "", name: "gemini-cli-printed/hooks.jsonl" };

#[test]
fn printed_events_tell_of_the_tool_call_and_of_the_processs_total() {
    let events = streams::whole(PRINTED);
    assert!(events.iter().all(|event| event.session_id == SESSION && event.source == "gemini-cli"));
    let pieces: Vec<_> =
        tools(&events).iter().map(|tool| (tool.tool_call_id.as_str(), tool.status)).collect();
    assert_eq!(pieces, [(CALL_ID, Status::Unset), (CALL_ID, Status::Ok)]);
    let totals: Vec<_> = events.iter().filter(|event| event.usage_role == UsageRole::Cumulative).collect();
    let [total] = totals[..] else { panic!("not one total") };
    assert_eq!((sum([total]), total.token_basis), ([80, 120, 20, 20], TokenBasis::Guessed));
    assert_eq!((total.call_family.as_str(), total.model.as_str()), ("", "gemini-2.5-pro"));
    assert_eq!((of(&events, EventType::UserPrompt), of(&events, EventType::SessionEnd)), (1, 1));
    streams::assert_cuts_change_nothing(PRINTED);
}

#[test]
fn hooks_tell_of_a_tool_call_once_and_of_no_usage() {
    let events = streams::whole(HOOKS);
    assert!(
        events.iter().all(|event| event.channel == Channel::Hook && event.source_format == "gemini.hooks")
    );
    assert!(events.iter().all(|event| event.usage_role == UsageRole::None && event.session_id == SESSION));
    let [tool] = tools(&events)[..] else { panic!("not one tool call") };
    assert_eq!((tool.event_type, tool.status), (EventType::FileCreate, Status::Error));
    assert_eq!((tool.error_message.as_str(), tool.file_path.as_str()), ("read-only", "/home/dev/w/out.txt"));
    assert_eq!((of(&events, EventType::SessionStart), of(&events, EventType::SessionEnd)), (1, 1));
}

#[test]
fn documents_of_others_are_read() {
    let Some(folder) = streams::samples("gemini-cli-chats") else { return };
    let read = |name: &str| {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let decoded = streams::of_text("", &text);
        assert!(decoded.eventless.is_empty());
        decoded.events
    };
    let events = read("gemini__tool_calls.json");
    let [tool] = tools(&events)[..] else { panic!("not one tool call") };
    assert_eq!(
        (tool.event_type, tool.file_path.as_str(), tool.status),
        (EventType::FileRead, "main.go", Status::Ok)
    );
    let events = read("gemini__standard_session.json");
    assert_eq!((of(&events, EventType::UserPrompt), of(&events, EventType::LlmResponse)), (2, 2));
    assert!(events.iter().all(|event| event.session_id == "sess-uuid-1"));
    assert_eq!(of(&read("gemini__thinking_only.json"), EventType::LlmResponse), 1);
}

/// Gemini CLI 0.61 puts it into a folder named after the session, and says nowhere else whose it is.
#[test]
fn a_sub_agents_file_belongs_to_the_session_that_its_folder_names() {
    let folder = Path::new("tmp/app/chats").join(SESSION);
    let file = br#"{"sessionId":"19dbbf90-f3ad-4451-b698-b1869c4dcb97","projectHash":"2159","startTime":"2026-11-30T01:20:18.511Z","kind":"subagent"}
{"id":"d1989541","timestamp":"2026-11-30T01:20:18.678Z","type":"gemini","content":"done","tokens":{"input":1180,"output":38,"cached":1024,"thoughts":0,"tool":0,"total":1218},"model":"gemini-2.5-pro"}
{"$set":{"sessionId":"19dbbf90-f3ad-4451-b698-b1869c4dcb97","lastUpdated":"2026-11-30T01:20:19Z"}}
"#;
    let sent_from = |place: &Path| {
        let stream = StreamContext { stream_id: "f".to_owned(), ..place_of(place) };
        let input = Input { stream: Some(&stream), ..input(Route::Raw, "", file) };
        decode(&input).unwrap().events
    };
    let agent = "19dbbf90-f3ad-4451-b698-b1869c4dcb97";
    for (place, session) in [
        (folder.join(format!("{agent}.jsonl")), SESSION),
        (Path::new("tmp/app/chats").join(format!("{agent}.jsonl")), agent),
        (Path::new("chats/2026/x.jsonl").to_owned(), agent),
    ] {
        let events = sent_from(&place);
        assert_eq!(sum(calls(&events)), [156, 1_024, 38, 0]);
        for event in events {
            assert_eq!((event.session_id.as_str(), event.agent_id.as_str()), (session, agent), "{place:?}");
        }
    }
}
