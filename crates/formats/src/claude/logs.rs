//! Claude Code's OTLP log events.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TimestampSource, UsageRole};

use super::{apply_usage, embedded_texts, take};
use crate::json::ObjectWriter;
use crate::moment::Moment;
use crate::otlp::Decoder;
use crate::otlp::frames::Group;
use crate::otlp::logs::{event_name, finish_data, identify, level, set_time};
use crate::otlp::model::{AnyValue, Log};
use crate::otlp::origin::Origin;
use crate::tokens::Stated;
use crate::tools;

/// The format's name in `source_format`.
pub(crate) const FORMAT: &str = "claude.otlp.logs";

/// Attributes that are not columns but decide something.
#[derive(Default)]
struct Signs {
    sequence: String,
    timestamp: String,
    success: Option<bool>,
    agent_type: String,
    status_code: String,
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
    event.name = event_name(&log).trim_start_matches("claude_code.").to_owned();
    event.level = level(&log);
    set_time(&mut event, &mut data, &log);
    let counts = event.name == "api_request";
    for (name, value) in &log.attributes {
        let kept = match &**name {
            "event.name" => false,
            "event.timestamp" => !signs.note_time(&mut event, value),
            "event.sequence" => {
                signs.sequence = value.text().unwrap_or_default();
                true
            }
            "success" => {
                signs.success = value.truth();
                signs.success.is_none()
            }
            "agent_type" => {
                signs.agent_type = value.text().unwrap_or_default();
                signs.agent_type.is_empty()
            }
            "decision" if event.name == "tool_decision" => {
                event.decision = value.text().unwrap_or_default();
                event.decision.is_empty()
            }
            // Elsewhere such a count is a footprint or a sum, not a call.
            "input_tokens" | "output_tokens" | "cache_read_tokens" | "cache_creation_tokens" | "cost_usd"
                if !counts =>
            {
                true
            }
            "status_code" => {
                signs.status_code = value.text().unwrap_or_default();
                true
            }
            "tool_input" | "tool_parameters" => {
                look_into(&mut event, value);
                true
            }
            other => !take(&mut event, &mut usage, other, value),
        };
        if kept {
            data.field(name, value);
        }
    }
    event.trace_id = log.trace_id.clone();
    event.span_id = log.span_id.clone();
    identity(decoder, &mut event, &signs, index, group, record);
    classify(&mut event, &usage, &signs);
    if let Some(body) = log.body.as_ref().filter(|body| !repeats_name(body, &event.name)) {
        data.field("body", body);
    }
    finish_data(&mut event, data, log.dropped_attributes);
    event
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

fn repeats_name(body: &AnyValue<'_>, name: &str) -> bool {
    body.as_str().is_some_and(|body| body.trim_start_matches("claude_code.") == name)
}

/// Finds columns in the JSON text that describes a tool's input.
fn look_into(event: &mut AgentEvent, value: &AnyValue<'_>) {
    embedded_texts(value.as_str().unwrap_or_default(), |name, text| match name {
        "file_path" | "notebook_path" if event.file_path.is_empty() => event.file_path = text,
        "mcp_server_name" => event.mcp_server = text,
        _ => {}
    });
}

/// Session, sequence, name and time are the record's own identity (MAPPING §9).
fn identity(
    decoder: &mut Decoder<'_>,
    event: &mut AgentEvent,
    signs: &Signs,
    index: u32,
    group: &Group<'_>,
    record: &[u8],
) {
    if event.session_id.is_empty() || signs.sequence.is_empty() || signs.timestamp.is_empty() {
        return identify(decoder, event, index, group, record);
    }
    let parts = [&event.session_id, &signs.sequence, &event.name, &signs.timestamp];
    event.dedup_key = decoder.identities.stated(FORMAT, &parts.map(|part| part.as_bytes()));
    event.event_id = event.dedup_key.to_string();
}

fn classify(event: &mut AgentEvent, usage: &Stated, signs: &Signs) {
    event.event_type = match event.name.as_str() {
        "user_prompt" => EventType::UserPrompt,
        "api_request" | "api_error" | "api_retries_exhausted" | "api_refusal" => EventType::LlmRequest,
        "assistant_response" => EventType::LlmResponse,
        "tool_decision" => EventType::ToolDecision,
        "tool_result" => EventType::ToolCall,
        "subagent_completed" => EventType::AgentEnd,
        "compaction" => EventType::AgentCompaction,
        "internal_error" => EventType::Error,
        _ => EventType::Log,
    };
    event.status = match signs.success {
        Some(true) => Status::Ok,
        Some(false) => Status::Error,
        None => Status::Unset,
    };
    match event.event_type {
        EventType::ToolCall => tools::refine_claude(event),
        EventType::LlmRequest | EventType::LlmResponse => call(event, usage, signs),
        EventType::ToolDecision if event.decision == "reject" => event.status = Status::Denied,
        EventType::Error => event.status = Status::Error,
        _ => {}
    }
    if event.agent_name.is_empty() {
        event.agent_name.clone_from(&signs.agent_type);
    }
}

fn call(event: &mut AgentEvent, usage: &Stated, signs: &Signs) {
    event.provider = "anthropic".to_owned();
    event.llm_call_key = match event.request_id.as_str() {
        // A failed attempt may have no id; it is then a call of its own.
        "" => event.event_id.clone(),
        request_id => request_id.to_owned(),
    };
    match event.name.as_str() {
        "api_request" => {
            event.status = Status::Ok;
            event.usage_role = UsageRole::Call;
            apply_usage(event, usage);
        }
        "assistant_response" => {}
        _ => event.status = Status::Error,
    }
    if event.status == Status::Error && event.error_type.is_empty() {
        event.error_type.clone_from(&signs.status_code);
    }
}
