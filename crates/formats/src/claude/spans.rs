//! Claude Code's spans.

use fleetlog_schemas::event::{AgentEvent, EventType, Status, UsageRole};

use super::{apply_usage, take};
use crate::json::ObjectWriter;
use crate::otlp::Decoder;
use crate::otlp::model::{AnyValue, Span};
use crate::otlp::origin::Origin;
use crate::otlp::spans::{envelope, finish_data};
use crate::tokens::Stated;
use crate::tools;

/// The format's name in `source_format`.
pub(crate) const FORMAT: &str = "claude.otlp.spans";

/// Maps one span.
pub(crate) fn event<'a>(
    decoder: &Decoder<'_>,
    origin: &Origin<'a>,
    index: u32,
    span: Span<'a>,
) -> AgentEvent {
    let mut data = ObjectWriter::new();
    let mut event = envelope(decoder, origin, index, FORMAT, &span, &mut data);
    let (mut usage, mut success) = (Stated::default(), None);
    for (name, value) in &span.attributes {
        let kept = match &**name {
            // The span's own times are finer.
            "duration_ms" => event.duration_ms.is_some(),
            "success" => {
                success = value.truth();
                success.is_none()
            }
            "gen_ai.system" => {
                event.provider = value.text().unwrap_or_default();
                event.provider.is_empty()
            }
            "gen_ai.request.model" => {
                event.model_requested = value.text().unwrap_or_default();
                event.model_requested.is_empty()
            }
            "gen_ai.response.id" => !fill(&mut event.request_id, value),
            "gen_ai.tool.call.id" => !fill(&mut event.tool_call_id, value),
            other => !take(&mut event, &mut usage, other, value),
        };
        if kept {
            data.field(name, value);
        }
    }
    match (success, event.status) {
        (Some(true), Status::Unset) => event.status = Status::Ok,
        (Some(false), _) => event.status = Status::Error,
        _ => {}
    }
    match span.name.as_str() {
        "claude_code.interaction" => event.event_type = EventType::AgentStep,
        "claude_code.llm_request" => call(&mut event, &usage),
        "claude_code.tool" | "claude_code.tool.execution" => tools::refine_claude(&mut event),
        // The wait for a permission names no tool call; it is a part of its parent span.
        _ => event.event_type = EventType::Span,
    }
    finish_data(&mut event, data, &span);
    event
}

/// Fills a column from its second name; true when nothing is lost by leaving the attribute out.
fn fill(column: &mut String, value: &AnyValue<'_>) -> bool {
    let text = value.text().unwrap_or_default();
    if column.is_empty() {
        column.clone_from(&text);
    }
    *column == text
}

fn call(event: &mut AgentEvent, usage: &Stated) {
    event.event_type = EventType::LlmResponse;
    event.llm_call_key = match event.request_id.as_str() {
        "" => format!("{}:{}", event.trace_id, event.span_id),
        request_id => request_id.to_owned(),
    };
    if usage.any() {
        event.usage_role = UsageRole::Call;
        apply_usage(event, usage);
    }
}
