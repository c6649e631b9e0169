//! Codex's OTLP log events.
//!
//! Of the records of a call only the `response.completed` that states token counts is counted; another of the same kind
//! states its duration alone. `tool_token_count` is a misnomer for the total and stays in `data`. The records have no
//! time of their own but `event.timestamp`, and their `eventName` is a place in the source code.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TimestampSource, UsageRole};
use fleetlog_schemas::id::NanoUsd;

use super::{FAMILY, exit_code, state_usage};
use crate::json::ObjectWriter;
use crate::moment::Moment;
use crate::otlp::Decoder;
use crate::otlp::frames::Group;
use crate::otlp::logs::{finish_data, identify, level, set_time};
use crate::otlp::model::{AnyValue, Log};
use crate::otlp::origin::Origin;
use crate::tokens::Stated;
use crate::tools;

/// The format's name in `source_format`.
pub(crate) const FORMAT: &str = "codex.otlp.logs";

/// Attributes that are not columns but decide something.
#[derive(Default)]
struct Signs {
    kind: String,
    timestamp: String,
    decision: String,
    success: Option<bool>,
    http_status: Option<u64>,
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
    let mut data = ObjectWriter::new();
    let (mut usage, mut signs) = (Stated::default(), Signs::default());
    event.channel = Channel::AgentLog;
    event.level = level(&log);
    set_time(&mut event, &mut data, &log);
    for (name, value) in &log.attributes {
        if !take(&mut event, &mut usage, &mut signs, name, value) {
            data.field(name, value);
        }
    }
    event.trace_id.clone_from(&log.trace_id);
    event.span_id.clone_from(&log.span_id);
    identity(decoder, &mut event, &signs, index, group, record);
    classify(&mut event, &usage, &signs);
    if !log.event_name.is_empty() {
        data.field("event_name", &log.event_name);
    }
    if let Some(body) = &log.body {
        data.field("body", body);
    }
    finish_data(&mut event, data, log.dropped_attributes);
    event
}

/// Takes an attribute in; false when it has no column, or says more than its column.
fn take(
    event: &mut AgentEvent,
    usage: &mut Stated,
    signs: &mut Signs,
    name: &str,
    value: &AnyValue<'_>,
) -> bool {
    let column = match name {
        "event.name" => {
            event.name = value.text().unwrap_or_default().trim_start_matches("codex.").to_owned();
            return true;
        }
        "event.timestamp" => return signs.note_time(event, value),
        "conversation.id" => &mut event.session_id,
        "user.email" => &mut event.user_id,
        "model" => &mut event.model,
        "slug" => &mut event.model_requested,
        "provider_name" => &mut event.provider,
        "app.version" => &mut event.source_version,
        "turn.id" => &mut event.turn_id,
        "call_id" => &mut event.tool_call_id,
        "tool_name" => &mut event.tool_name,
        "mcp_server" => &mut event.mcp_server,
        "agent_name" => &mut event.agent_name,
        "error.message" => &mut event.error_message,
        _ => return take_other(event, usage, signs, name, value),
    };
    value.fill(column)
}

fn take_other(
    event: &mut AgentEvent,
    usage: &mut Stated,
    signs: &mut Signs,
    name: &str,
    value: &AnyValue<'_>,
) -> bool {
    match name {
        "duration_ms" => event.duration_ms = value.number(),
        "ttft_ms" => event.ttft_ms = value.number(),
        "usage.estimated_usd" => event.cost_reported = value.number().and_then(NanoUsd::from_usd),
        "success" => signs.success = value.truth(),
        "input_token_count" => usage.input = value.count(),
        "output_token_count" => usage.output = value.count(),
        "cached_token_count" => usage.cache_read = value.count(),
        "cache_write_token_count" => usage.cache_write = value.count(),
        "reasoning_token_count" => usage.reasoning = value.count(),
        _ => {
            match name {
                "event.kind" => signs.kind = value.text().unwrap_or_default(),
                "decision" => signs.decision = value.text().unwrap_or_default(),
                "http.response.status_code" => signs.http_status = value.count(),
                // Codex counts attempts from 0.
                "attempt" => {
                    event.attempt = value.count().and_then(|nth| u32::try_from(nth.saturating_add(1)).ok());
                }
                "output" => event.exit_code = value.as_str().and_then(exit_code),
                _ => {}
            }
            return false;
        }
    }
    match name {
        "duration_ms" => event.duration_ms.is_some(),
        "ttft_ms" => event.ttft_ms.is_some(),
        "usage.estimated_usd" => event.cost_reported.is_some(),
        "success" => signs.success.is_some(),
        _ => value.count().is_some(),
    }
}

impl Signs {
    /// Notes the event's own time; true when it is one.
    fn note_time(&mut self, event: &mut AgentEvent, value: &AnyValue<'_>) -> bool {
        self.timestamp = value.text().unwrap_or_default();
        let moment = Moment::of_text(&self.timestamp);
        if let (Some(moment), false) = (moment, event.timestamp_source == TimestampSource::Event) {
            event.timestamp = moment.nanos;
            event.timestamp_source = moment.source();
        }
        moment.is_some_and(|moment| !moment.clamped)
    }
}

/// Conversation, time, name and the whole record are the identity (MAPPING §9).
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

fn classify(event: &mut AgentEvent, usage: &Stated, signs: &Signs) {
    let completed = signs.kind == "response.completed" && usage.input.is_some();
    event.event_type = match event.name.as_str() {
        "conversation_starts" => EventType::SessionStart,
        "user_prompt" => EventType::UserPrompt,
        "sse_event" if completed => EventType::LlmRequest,
        "tool_decision" => EventType::ToolDecision,
        "tool_result" => EventType::ToolCall,
        "turn_ttft" => EventType::MetricPoint,
        _ => EventType::Log,
    };
    event.status = match signs.success {
        Some(true) => Status::Ok,
        Some(false) => Status::Error,
        None => Status::Unset,
    };
    match event.event_type {
        EventType::LlmRequest => {
            event.status = Status::Ok;
            event.llm_call_key.clone_from(&event.event_id);
            state_usage(event, usage, UsageRole::Call);
        }
        EventType::ToolDecision => decide(event, &signs.decision),
        EventType::ToolCall => {
            // Codex says that the tool itself succeeded, whatever became of the command that it ran.
            if event.exit_code.is_some_and(|code| code != 0) && event.status == Status::Ok {
                event.status = Status::Error;
            }
            tools::refine_codex(event);
            event.call_family = FAMILY.to_owned();
        }
        EventType::MetricPoint => event.ttft_ms = event.duration_ms,
        // What the provider estimates a turn to have cost, minutes after its calls have been reported.
        EventType::Log if event.cost_reported.is_some() => {
            event.usage_role = UsageRole::Rollup;
            event.call_family = FAMILY.to_owned();
        }
        EventType::Log => fail(event, signs),
        _ => {}
    }
}

/// A decision in the event model's words; Codex's own stays in `data`.
fn decide(event: &mut AgentEvent, decision: &str) {
    if decision.starts_with("approved") {
        event.decision = "accept".to_owned();
    } else if matches!(decision, "denied" | "abort" | "timed_out") {
        event.decision = "reject".to_owned();
        event.status = Status::Denied;
    }
}

/// A request that failed is an error; it used no tokens, so it is no call.
fn fail(event: &mut AgentEvent, signs: &Signs) {
    let refused = signs.http_status.filter(|status| *status >= 400);
    if event.error_message.is_empty() && refused.is_none() {
        return;
    }
    event.event_type = EventType::Error;
    event.status = Status::Error;
    event.error_type = refused.map(|status| status.to_string()).unwrap_or_default();
}
