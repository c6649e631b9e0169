//! Gemini CLI's spans.
//!
//! They repeat what the logs say and state less: of a call's tokens neither those from the cache nor the thoughts. Their
//! `gen_ai.operation.name` is not one of the conventions'.

use fleetlog_schemas::event::{AgentEvent, EventType};

use super::{Counts, FAMILY};
use crate::json::ObjectWriter;
use crate::otlp::Decoder;
use crate::otlp::model::{AnyValue, Span};
use crate::otlp::origin::Origin;
use crate::otlp::spans::{envelope, finish_data};
use crate::tools;

/// The format's name in `source_format`.
pub(crate) const FORMAT: &str = "gemini.otlp.spans";

/// Maps one span.
pub(crate) fn event<'a>(
    decoder: &Decoder<'_>,
    origin: &Origin<'a>,
    index: u32,
    span: Span<'a>,
) -> AgentEvent {
    let mut data = ObjectWriter::new();
    let mut event = envelope(decoder, origin, index, FORMAT, &span, &mut data);
    super::logs::settle(&mut event, origin);
    let mut counts = Counts::default();
    for (name, value) in &span.attributes {
        if !take(&mut event, &mut counts, name, value) {
            data.field(name, value);
        }
    }
    match span.name.as_str() {
        "llm_call" => {
            event.event_type = EventType::LlmResponse;
            event.llm_call_key = format!("{}:{}", event.trace_id, event.span_id);
            // Also where it states no usage: the logs tell of the same call.
            event.call_family = FAMILY.to_owned();
            counts.state(&mut event);
        }
        "tool_call" => {
            tools::refine_gemini(&mut event);
            event.call_family = FAMILY.to_owned();
        }
        "agent_call" => event.event_type = EventType::AgentStep,
        _ => {}
    }
    finish_data(&mut event, data, &span);
    event
}

/// Takes an attribute in; false when it has no column or does not fit.
fn take(event: &mut AgentEvent, counts: &mut Counts, name: &str, value: &AnyValue<'_>) -> bool {
    let column = match name {
        "gen_ai.conversation.id" | "session.id" => &mut event.session_id,
        "gen_ai.prompt.name" => &mut event.turn_id,
        "gen_ai.response.model" => &mut event.model,
        "gen_ai.request.model" => {
            if event.model.is_empty() {
                event.model = value.text().unwrap_or_default();
            }
            &mut event.model_requested
        }
        "gen_ai.agent.name" => &mut event.agent_name,
        "gen_ai.tool.name" => &mut event.tool_name,
        "gen_ai.tool.call_id" | "gen_ai.tool.call.id" => &mut event.tool_call_id,
        _ => {
            let count = match name {
                "gen_ai.usage.input_tokens" => &mut counts.stated.input,
                "gen_ai.usage.output_tokens" => &mut counts.stated.output,
                "gen_ai.usage.cache_read.input_tokens" => &mut counts.stated.cache_read,
                "gen_ai.usage.reasoning.output_tokens" => &mut counts.stated.reasoning,
                _ => return false,
            };
            *count = value.count();
            return count.is_some();
        }
    };
    value.fill(column)
}
