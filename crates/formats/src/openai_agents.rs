//! The traces of OpenAI's Agents SDK, as its exporter sends them to `/v1/traces/ingest`: `{"data":[…]}`.
//!
//! A `trace` is sent when it begins and has no times; a `trace.span` when it has ended. `group_id`, on the trace alone,
//! is the conversation. Spans named `task` and `turn` sum up the calls below them. Made from openai-agents 0.24.0
//! (`tracing/span_data.py`, `usage.py`).

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, UsageRole};

use crate::api::{self, set_span};
use crate::hint::Hint;
use crate::records::{Object, Record, RecordFormat, Records, identify, object, text};
use crate::{tools, unknown, usage};

/// Traces and spans.
pub(crate) const TRACES: RecordFormat = RecordFormat {
    name: Hint::OPENAI_TRACES.as_str(),
    aliases: &["openai", "openai-agents"],
    members: &["data"],
    recognises: |object| matches!(text(object, "object"), "trace" | "trace.span"),
    follow: |_, _| {},
    decode,
};

const SOURCE: &str = "openai-agents";

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    let item = record.object;
    let id = text(item, "id");
    let span = match text(item, "object") {
        _ if id.is_empty() => return records.keep(record, &TRACES, unknown::BAD_SHAPE),
        "trace" => false,
        "trace.span" => true,
        _ => return records.keep(record, &TRACES, unknown::UNKNOWN_TYPE),
    };
    let mut event = records.event(record, &TRACES, Channel::Api);
    let ended = text(item, "ended_at");
    identify(&mut event, records.identities.stated(TRACES.name, &[id.as_bytes(), ended.as_bytes()]));
    SOURCE.clone_into(&mut event.source);
    event.event_type = EventType::Span;
    if span {
        set_span(&mut event, api::time(item, "started_at"), api::time(item, "ended_at"), None);
        id.clone_into(&mut event.span_id);
        text(item, "trace_id").clone_into(&mut event.trace_id);
        text(item, "parent_id").clone_into(&mut event.parent_id);
        outcome(&mut event, item);
        if let Some(data) = object(item, "span_data") {
            describe(&mut event, data);
        }
    } else {
        id.clone_into(&mut event.trace_id);
        text(item, "workflow_name").clone_into(&mut event.name);
        text(item, "group_id").clone_into(&mut event.session_id);
    }
    records.emit(event);
}

fn outcome(event: &mut AgentEvent, span: &Object) {
    match object(span, "error") {
        Some(error) => {
            event.status = Status::Error;
            event.error_message = message(error);
        }
        None if event.end_timestamp.is_some() => event.status = Status::Ok,
        None => {}
    }
}

/// What is wrong, and the reason where the SDK adds one: its message alone says only in which part of the SDK.
fn message(error: &Object) -> String {
    let reason = object(error, "data").map_or("", |data| text(data, "error"));
    let said = [text(error, "message"), reason].into_iter().filter(|said| !said.is_empty());
    said.collect::<Vec<_>>().join(": ")
}

fn describe(event: &mut AgentEvent, data: &Object) {
    let kind = text(data, "type");
    let name = text(data, "name");
    if name.is_empty() { kind } else { name }.clone_into(&mut event.name);
    match kind {
        "response" | "generation" | "transcription" | "speech" => model_call(event, data),
        "function" => {
            event.tool_call_id.clone_from(&event.span_id);
            event.tool_name.clone_from(&event.name);
            if let Some(server) = object(data, "mcp_data").map(|mcp| text(mcp, "server")) {
                "mcp".clone_into(&mut event.tool_kind);
                server.clone_into(&mut event.mcp_server);
            }
            tools::refine(event);
        }
        "agent" => {
            event.event_type = EventType::AgentStep;
            event.agent_name.clone_from(&event.name);
        }
        "handoff" => text(data, "from_agent").clone_into(&mut event.agent_name),
        "custom" => {
            let Some(data) = object(data, "data") else { return };
            if matches!(text(data, "sdk_span_type"), "task" | "turn") {
                sum(event, data);
            }
        }
        _ => {}
    }
}

fn model_call(event: &mut AgentEvent, data: &Object) {
    event.event_type = EventType::LlmRequest;
    text(data, "response_id").clone_into(&mut event.request_id);
    event.llm_call_key.clone_from(if event.request_id.is_empty() {
        &event.span_id
    } else {
        &event.request_id
    });
    text(data, "model").clone_into(&mut event.model);
    if let Some(stated) = object(data, "usage") {
        usage::apply(stated, event);
    }
}

/// A run or one of its turns: what it states is the sum of the calls below it.
fn sum(event: &mut AgentEvent, data: &Object) {
    event.event_type = EventType::AgentStep;
    text(data, "agent_name").clone_into(&mut event.agent_name);
    if let Some(stated) = object(data, "usage") {
        usage::apply(stated, event);
    }
    if event.usage_role == UsageRole::Call {
        event.usage_role = UsageRole::Rollup;
    }
}
