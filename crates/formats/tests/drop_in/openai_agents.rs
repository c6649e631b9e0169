//! OpenAI's Agents SDK.

use fleetlog_schemas::event::{AgentEvent, EventType, Status, TokenBasis, UsageRole};
use serde_json::{Value, json};

use crate::Request;
use crate::support::{fixture, view};

fn ingested(data: Value) -> Vec<AgentEvent> {
    Request::json("openai.traces", json!({"data": data}).to_string().as_bytes()).events()
}

fn span(id: &str, data: Value, error: Value) -> Value {
    json!({"object": "trace.span", "id": id, "trace_id": "trace_1", "parent_id": "span_0",
        "started_at": "2026-11-21T12:00:00.000000+00:00", "ended_at": "2026-11-21T12:00:01.500000+00:00",
        "span_data": data, "error": error})
}

fn usage() -> Value {
    json!({"requests": 1, "input_tokens": 12, "output_tokens": 5, "total_tokens": 17,
        "input_tokens_details": {"cached_tokens": 4}, "output_tokens_details": {"reasoning_tokens": 2}})
}

#[test]
fn python_sdk() {
    let events = Request::json("openai.traces", &fixture("openai-agents-0.24/traces.json")).events();
    insta::assert_json_snapshot!(view(&events));
}

#[test]
fn trace_names_the_conversation_and_its_spans_the_trace() {
    let events = ingested(json!([
        {"object": "trace", "id": "trace_1", "workflow_name": "Agent workflow", "group_id": "s1", "metadata": {"k": 1}},
        span("span_1", json!({"type": "agent", "name": "helper", "tools": ["add"]}), Value::Null),
    ]));
    let [trace, agent] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (trace.session_id.as_str(), trace.trace_id.as_str(), trace.span_id.as_str()),
        ("s1", "trace_1", "")
    );
    assert_eq!(
        (agent.trace_id.as_str(), agent.span_id.as_str(), agent.parent_id.as_str()),
        ("trace_1", "span_1", "span_0")
    );
    assert_eq!((agent.event_type, agent.agent_name.as_str()), (EventType::AgentStep, "helper"));
    assert_eq!((agent.duration_ms, agent.status), (Some(1500.0), Status::Ok));
}

#[test]
fn calls_are_keyed_by_their_response_where_there_is_one() {
    let events = ingested(json!([
        span("span_1", json!({"type": "response", "response_id": "resp_1", "usage": usage()}), Value::Null),
        span("span_2", json!({"type": "generation", "model": "gpt-5", "usage": usage()}), Value::Null),
        span("span_3", json!({"type": "response", "response_id": "resp_3"}), Value::Null),
    ]));
    let keys: Vec<&str> = events.iter().map(|event| event.llm_call_key.as_str()).collect();
    assert_eq!(keys, ["resp_1", "span_2", "resp_3"]);
    for call in &events[..2] {
        assert_eq!((call.in_uncached, call.cache_read, call.out_visible, call.out_reasoning), (8, 4, 3, 2));
        assert_eq!((call.token_basis, call.usage_role), (TokenBasis::Inclusive, UsageRole::Call));
    }
    assert_eq!((events[2].event_type, events[2].usage_role), (EventType::LlmRequest, UsageRole::None));
}

#[test]
fn tools_fail_with_their_message_and_mcp_tools_name_their_server() {
    let error = json!({"message": "Error running tool", "data": {"tool_name": "add", "error": "boom"}});
    let events = ingested(json!([
        span("span_1", json!({"type": "function", "name": "add", "input": "{}", "output": null}), error),
        span(
            "span_2",
            json!({"type": "function", "name": "find", "mcp_data": {"server": "files"}}),
            Value::Null
        ),
    ]));
    assert_eq!((events[0].event_type, events[0].tool_call_id.as_str()), (EventType::ToolCall, "span_1"));
    assert_eq!(
        (events[0].status, events[0].error_message.as_str()),
        (Status::Error, "Error running tool: boom")
    );
    assert_eq!((events[1].event_type, events[1].mcp_server.as_str()), (EventType::McpCall, "files"));
}

#[test]
fn error_is_its_message_and_its_reason_where_that_is_a_text() {
    let function = json!({"type": "function", "name": "add"});
    let spoken =
        |error: Value| ingested(json!([span("span_1", function.clone(), error)]))[0].error_message.clone();
    assert_eq!(spoken(json!({"message": "Error", "data": {"error": {"code": 1}}})), "Error");
    assert_eq!(spoken(json!({"message": "Error", "data": null})), "Error");
    assert_eq!(spoken(json!({"message": "", "data": {"error": "boom"}})), "boom");
}

#[test]
fn turns_and_tasks_sum_up_and_other_spans_are_spans() {
    let sum = json!({"input_tokens": 24, "output_tokens": 10, "cached_input_tokens": 8, "cache_write_input_tokens": 0});
    let events = ingested(json!([
        span("span_1", json!({"type": "custom", "name": "turn", "data": {"sdk_span_type": "turn", "turn": 1, "agent_name": "helper", "usage": sum}}), Value::Null),
        span("span_2", json!({"type": "custom", "name": "task", "data": {"sdk_span_type": "task", "name": "w"}}), Value::Null),
        span("span_3", json!({"type": "custom", "name": "mine", "data": {}}), Value::Null),
        span("span_4", json!({"type": "handoff", "from_agent": "a", "to_agent": "b"}), Value::Null),
        span("span_5", json!({"type": "guardrail", "name": "g", "triggered": true}), Value::Null),
        {"object": "trace.else", "id": "x"},
        {"object": "trace"},
    ]));
    assert_eq!((events[0].event_type, events[0].usage_role), (EventType::AgentStep, UsageRole::Rollup));
    assert_eq!((events[0].in_uncached, events[0].cache_read), (16, 8));
    let rest: Vec<_> = events[1..].iter().map(|event| (event.event_type, event.name.as_str())).collect();
    let expected = [
        (EventType::AgentStep, "task"),
        (EventType::Span, "mine"),
        (EventType::Span, "handoff"),
        (EventType::Span, "g"),
        (EventType::RawUnknown, ""),
        (EventType::RawUnknown, ""),
    ];
    assert_eq!(rest, expected);
}

#[test]
fn data_is_recognised_without_its_path() {
    let body = json!({"data": [{"object": "trace", "id": "trace_1"}]}).to_string();
    let events = Request::json("", body.as_bytes()).events();
    assert_eq!(events[0].source_format, "openai.traces");
}
