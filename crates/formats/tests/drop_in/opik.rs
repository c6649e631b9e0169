//! Opik.

use fleetlog_schemas::event::{AgentEvent, EventType, Status, TokenBasis, UsageRole};
use serde_json::{Value, json};

use crate::Request;
use crate::support::{fixture, view};

fn spans(list: Value) -> Vec<AgentEvent> {
    Request::json("opik.spans", json!({"spans": list}).to_string().as_bytes()).events()
}

fn start() -> Value {
    json!({"id": "s1", "project_name": "p", "trace_id": "t1", "name": "chat", "type": "llm", "model": "gpt-4o",
        "provider": "openai", "start_time": "2026-11-21T12:00:00.123456Z", "last_updated_at": "2026-11-21T12:00:00.2Z"})
}

fn finished(usage: Value) -> Value {
    let mut span = start();
    span["end_time"] = json!("2026-11-21T12:00:01.123456Z");
    span["last_updated_at"] = json!("2026-11-21T12:00:01.2Z");
    span["usage"] = usage;
    span
}

#[test]
fn python_sdk() {
    let sent = [
        ("opik.traces", "traces", ""),
        ("opik.spans", "spans", ""),
        ("opik.feedback", "trace-scores", ""),
        ("opik.span.feedback", "span-scores", ""),
        ("opik.spans", "span-begun", ""),
        ("opik.span.patch", "span-ended", "01a1ffaa-de14-7acd-960f-2fd9f79e3ebb"),
    ];
    let events = sent.map(|(hint, name, id)| {
        Request { id, ..Request::json(hint, &fixture(&format!("opik-2.2/{name}.json"))) }.events()
    });
    insta::assert_json_snapshot!(view(&events.concat()));
}

#[test]
fn beginning_and_end_of_a_span_name_one_call() {
    let usage = json!({"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17,
        "original_usage.prompt_tokens": 12, "original_usage.completion_tokens": 5,
        "original_usage.prompt_tokens_details.cached_tokens": 4,
        "original_usage.completion_tokens_details.reasoning_tokens": 2});
    let mut end = finished(usage);
    end["total_estimated_cost"] = json!(0.25);
    let events = spans(json!([end, start()]));
    let [end, start] = &events[..] else { panic!("{events:?}") };
    assert_eq!((end.llm_call_key.as_str(), start.llm_call_key.as_str()), ("s1", "s1"));
    assert!(end.revision > start.revision && end.dedup_key != start.dedup_key);
    assert_eq!((end.in_uncached, end.cache_read, end.out_visible, end.out_reasoning), (8, 4, 3, 2));
    assert_eq!((end.usage_role, start.usage_role), (UsageRole::Call, UsageRole::None));
    assert_eq!((end.cost_reported.map(|cost| cost.0), end.duration_ms), (Some(250_000_000), Some(1000.0)));
    assert_eq!((end.status, start.status), (Status::Ok, Status::Unset));
}

#[test]
fn usage_of_every_provider_keeps_its_own_convention() {
    let anthropic = json!({"prompt_tokens": 430, "completion_tokens": 5, "original_usage.input_tokens": 30,
        "original_usage.output_tokens": 5, "original_usage.cache_read_input_tokens": 400,
        "original_usage.cache_creation_input_tokens": 0});
    let call = &spans(json!([finished(anthropic)]))[0];
    assert_eq!((call.token_basis, call.in_uncached, call.cache_read), (TokenBasis::AnthropicRaw, 30, 400));
    let gemini = json!({"prompt_tokens": 100, "completion_tokens": 20, "original_usage.prompt_token_count": 100,
        "original_usage.candidates_token_count": 10, "original_usage.thoughts_token_count": 10,
        "original_usage.cached_content_token_count": 60});
    let call = &spans(json!([finished(gemini)]))[0];
    assert_eq!((call.token_basis, call.in_uncached, call.out_reasoning), (TokenBasis::Gemini, 40, 10));
    let plain = json!({"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12});
    assert_eq!(spans(json!([finished(plain)]))[0].in_uncached, 10);
}

#[test]
fn traces_carry_the_thread_and_their_errors() {
    let body = json!({"traces": [{"id": "t1", "project_name": "p", "name": "agent", "thread_id": "th",
        "start_time": "2026-11-21T12:00:00Z", "end_time": "2026-11-21T12:00:01Z",
        "error_info": {"exception_type": "ValueError", "message": "boom", "traceback": "..."}}]});
    for hint in ["opik.traces", ""] {
        let trace = &Request::json(hint, body.to_string().as_bytes()).events()[0];
        assert_eq!(
            (trace.session_id.as_str(), trace.trace_id.as_str(), trace.span_id.as_str()),
            ("th", "t1", "")
        );
        assert_eq!(
            (trace.status, trace.error_type.as_str(), trace.error_message.as_str()),
            (Status::Error, "ValueError", "boom")
        );
        assert_eq!(trace.source_format, "opik.traces");
    }
}

#[test]
fn patches_are_named_by_their_path_or_list_what_they_change() {
    let body = br#"{"trace_id":"t1","end_time":"2026-11-21T12:00:01Z","usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    let one = &Request { id: "s1", ..Request::json("opik.span.patch", body) }.events()[0];
    assert_eq!((one.span_id.as_str(), one.llm_call_key.as_str(), one.in_uncached), ("s1", "s1", 3));
    assert!(one.revision > spans(json!([start()]))[0].revision);
    let bare = &Request { id: "s1", ..Request::json("opik.span.patch", br#"{"output":{}}"#) }.events()[0];
    assert_eq!(
        (bare.event_type, bare.tool_call_id.as_str(), bare.llm_call_key.as_str()),
        (EventType::Span, "s1", "s1")
    );
    let body = br#"{"ids":["t1","t2"],"update":{"output":{"x":1}}}"#;
    let both = Request::json("opik.trace.patch", body).decoded();
    let ids: Vec<&str> = both.iter().map(|event| event.trace_id.as_str()).collect();
    assert_eq!(ids, ["t1", "t2"]);
    assert_ne!(both[0].dedup_key, both[1].dedup_key);
}

#[test]
fn tools_are_tool_calls_and_bare_ones_are_read() {
    let body = json!({"id": "s2", "project_name": "p", "trace_id": "t1", "type": "tool", "name": "add",
        "start_time": "2026-11-21T12:00:00Z"});
    let tool = &Request::json("opik.spans", body.to_string().as_bytes()).events()[0];
    assert_eq!(
        (tool.event_type, tool.tool_call_id.as_str(), tool.tool_name.as_str()),
        (EventType::ToolCall, "s2", "add")
    );
    assert_eq!(spans(json!([{"name": "x"}]))[0].event_type, EventType::RawUnknown);
}

#[test]
fn scores_judge_what_their_path_names() {
    let batch = br#"{"scores":[{"id":"x","name":"quality","value":0.5,"source":"sdk"}]}"#;
    let judged = |hint: &str| {
        let score = Request::json(hint, batch).events().remove(0);
        assert_eq!((score.event_type, score.name.as_str()), (EventType::Score, "quality"));
        (score.trace_id, score.span_id)
    };
    assert_eq!(judged("opik.feedback"), ("x".to_owned(), String::new()));
    assert_eq!(judged("opik.span.feedback"), (String::new(), "x".to_owned()));
    let thread = br#"{"scores":[{"thread_id":"th","name":"quality","value":0.5,"source":"sdk"}]}"#;
    assert_eq!(Request::json("opik.thread.feedback", thread).events()[0].session_id, "th");
    let one = br#"{"name":"quality","value":1,"source":"ui"}"#;
    let at = |hint: &'static str| Request { id: "x9", ..Request::json(hint, one) }.events().remove(0);
    assert_eq!(
        (at("opik.feedback").trace_id.as_str(), at("opik.span.feedback").span_id.as_str()),
        ("x9", "x9")
    );
}

#[test]
fn several_scores_of_a_trace_are_events_of_their_own() {
    let sent = br#"{"scores":[{"id":"t2","project_name":"p","name":"fluency","value":0.5,"source":"sdk","reason":"reads well"},
        {"id":"t2","project_name":"p","name":"relevance","value":0.9,"source":"sdk","category_name":"high"}]}"#;
    let events = Request::json("opik.feedback", sent).events();
    let [first, second] = &events[..] else { panic!("{events:?}") };
    assert_eq!((first.name.as_str(), second.name.as_str()), ("fluency", "relevance"));
    assert_eq!((first.trace_id.as_str(), second.trace_id.as_str()), ("t2", "t2"));
    assert!(first.event_id != second.event_id && first.dedup_key != second.dedup_key);
}
