//! Gemini CLI's OTLP log events, and those of its descendant Qwen Code, which differ by a prefix.
//!
//! Of the records of a call only `api_response` is counted; the two `gen_ai.client.inference.operation.details` beside it
//! repeat its content. A `file_operation` is a part of the tool call that is reported as `tool_call`. An attribute that
//! is undefined arrives as an empty value and says nothing.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status};

use super::{Counts, FAMILY, decide};
use crate::json::ObjectWriter;
use crate::moment::Moment;
use crate::otlp::Decoder;
use crate::otlp::frames::Group;
use crate::otlp::logs::{finish_data, identify, level, set_time};
use crate::otlp::model::{AnyValue, Log};
use crate::otlp::origin::Origin;
use crate::records::count;
use crate::tools;

/// The format's name in `source_format`.
pub(crate) const FORMAT: &str = "gemini.otlp.logs";

/// Attributes that are not columns but decide something.
#[derive(Default)]
struct Signs {
    timestamp: String,
    decision: String,
    success: Option<bool>,
    counts: Counts,
}

/// Maps one log record.
pub(crate) fn event<'a>(
    decoder: &mut Decoder<'_>,
    origin: &Origin<'a>,
    index: u32,
    group: &Group<'_>,
    record: &[u8],
    log: Log<'a>,
) -> AgentEvent {
    let mut event = origin.event(decoder, index, FORMAT);
    settle(&mut event, origin);
    let mut data = ObjectWriter::new();
    let mut signs = Signs::default();
    event.channel = Channel::AgentLog;
    event.level = level(&log);
    set_time(&mut event, &mut data, &log);
    for (name, value) in &log.attributes {
        if *value != AnyValue::Null && !signs.take(&mut event, name, value) {
            data.field(name, value);
        }
    }
    event.trace_id.clone_from(&log.trace_id);
    event.span_id.clone_from(&log.span_id);
    identity(decoder, &mut event, &signs, index, group, record);
    classify(&mut event, &signs);
    if let Some(body) = &log.body {
        data.field("body", body);
    }
    finish_data(&mut event, data, log.dropped_attributes);
    event
}

/// What the resource says and does not say: it names the session, and its version is that of the JavaScript engine.
pub(super) fn settle(event: &mut AgentEvent, origin: &Origin<'_>) {
    event.session_id = origin.resource_text("session.id").unwrap_or_default().to_owned();
    event.source_version.clear();
}

impl Signs {
    /// Takes an attribute in; false when it has no column, or says more than its column.
    fn take(&mut self, event: &mut AgentEvent, name: &str, value: &AnyValue<'_>) -> bool {
        let column = match name {
            "event.name" => {
                let name = value.text().unwrap_or_default();
                let own =
                    ["gemini_cli.", "qwen-code."].into_iter().find_map(|prefix| name.strip_prefix(prefix));
                event.name = own.unwrap_or(&name).to_owned();
                return true;
            }
            "event.timestamp" => return self.note_time(event, value),
            "session.id" => {
                // The record's own session is more to the point than the resource's.
                let Some(session) = value.text() else { return false };
                event.session_id = session;
                return true;
            }
            "user.email" => &mut event.user_id,
            "prompt_id" => &mut event.turn_id,
            "model" | "gen_ai.response.model" => &mut event.model,
            "gen_ai.request.model" => &mut event.model_requested,
            "gen_ai.provider.name" => &mut event.provider,
            "gen_ai.response.id" | "response_id" => &mut event.request_id,
            "function_name" | "tool_name" => &mut event.tool_name,
            "mcp_server_name" => &mut event.mcp_server,
            "agent_name" | "subagent_name" => &mut event.agent_name,
            "agent_id" => &mut event.agent_id,
            "error" | "error.message" => &mut event.error_message,
            "error_type" | "error.type" => &mut event.error_type,
            "finish_reasons" | "gen_ai.response.finish_reasons" => {
                event.finish_reason = value.first_text().unwrap_or_default();
                return !event.finish_reason.is_empty();
            }
            _ => return self.take_other(event, name, value),
        };
        value.fill(column)
    }

    fn take_other(&mut self, event: &mut AgentEvent, name: &str, value: &AnyValue<'_>) -> bool {
        let count = match name {
            "duration_ms" => {
                event.duration_ms = value.number();
                return event.duration_ms.is_some();
            }
            "success" => {
                self.success = value.truth();
                return self.success.is_some();
            }
            "decision" => {
                self.decision = value.text().unwrap_or_default();
                return false;
            }
            "metadata" => {
                lines(event, value);
                return false;
            }
            "input_token_count" => &mut self.counts.stated.input,
            "output_token_count" => &mut self.counts.stated.output,
            "cached_content_token_count" => &mut self.counts.stated.cache_read,
            "thoughts_token_count" => &mut self.counts.stated.reasoning,
            "tool_token_count" => {
                self.counts.tool = value.count();
                return false;
            }
            "total_token_count" => {
                self.counts.total = value.count();
                return false;
            }
            _ => return false,
        };
        *count = value.count();
        count.is_some()
    }

    /// Notes the event's own time, which may be before the time at which it was logged; true when it is one.
    fn note_time(&mut self, event: &mut AgentEvent, value: &AnyValue<'_>) -> bool {
        self.timestamp = value.text().unwrap_or_default();
        let moment = Moment::of_text(&self.timestamp);
        if let Some(moment) = moment {
            event.timestamp = moment.nanos;
            event.timestamp_source = moment.source();
        }
        moment.is_some_and(|moment| !moment.clamped)
    }
}

/// Lines that the model's edit added and removed, from the object, or its JSON text, that describes a tool's effect.
fn lines(event: &mut AgentEvent, value: &AnyValue<'_>) {
    let described = match value {
        AnyValue::Text(text) => serde_json::from_str(text),
        value => serde_json::to_value(value),
    };
    if let Ok(serde_json::Value::Object(described)) = described {
        event.lines_added = count(&described, "model_added_lines");
        event.lines_removed = count(&described, "model_removed_lines");
    }
}

/// Session, time, name and the whole record are the identity (MAPPING §9).
fn identity(
    decoder: &mut Decoder<'_>,
    event: &mut AgentEvent,
    signs: &Signs,
    index: u32,
    group: &Group<'_>,
    record: &[u8],
) {
    if event.session_id.is_empty() || signs.timestamp.is_empty() {
        return identify(decoder, event, index, group, record);
    }
    let parts = [event.session_id.as_bytes(), signs.timestamp.as_bytes(), event.name.as_bytes(), record];
    event.dedup_key = decoder.identities.content(FORMAT, &parts);
    event.event_id = event.dedup_key.to_string();
}

fn classify(event: &mut AgentEvent, signs: &Signs) {
    event.event_type = match event.name.as_str() {
        "config" => EventType::SessionStart,
        "user_prompt" => EventType::UserPrompt,
        "api_response" | "api_error" => EventType::LlmRequest,
        "gen_ai.client.inference.operation.details" => EventType::LlmResponse,
        "tool_call" => EventType::ToolCall,
        "agent.start" => EventType::AgentStart,
        "agent.finish" => EventType::AgentEnd,
        "chat_compression" => EventType::AgentCompaction,
        _ => EventType::Log,
    };
    event.status = match signs.success {
        Some(true) => Status::Ok,
        Some(false) => Status::Error,
        None => Status::Unset,
    };
    match event.event_type {
        EventType::LlmRequest => {
            event.llm_call_key.clone_from(&event.event_id);
            event.call_family = FAMILY.to_owned();
            event.status = if event.name == "api_error" { Status::Error } else { Status::Ok };
            signs.counts.state(event);
        }
        EventType::ToolCall => {
            tools::refine_gemini(event);
            event.call_family = FAMILY.to_owned();
            decide(event, &signs.decision);
        }
        _ => {}
    }
}
