//! Codex's spans.
//!
//! They trace the program itself: hundreds a turn, nearly all of them kept as plain spans of level `trace`, told by the
//! scope `codex_*` and by `code.module.name`. A few say more: one a call states its usage, one a turn their sum, and one
//! a tool call its duration. Most name neither session nor model; their trace does.

use fleetlog_schemas::event::{AgentEvent, EventType, Status, UsageRole};

use super::{FAMILY, state_usage};
use crate::json::ObjectWriter;
use crate::otlp::Decoder;
use crate::otlp::model::{AnyValue, Span};
use crate::otlp::origin::Origin;
use crate::otlp::spans::{envelope, finish_data};
use crate::tokens::Stated;
use crate::tools;

/// The format's name in `source_format`.
pub(crate) const FORMAT: &str = "codex.otlp.spans";

/// Maps one span.
pub(crate) fn event<'a>(
    decoder: &Decoder<'_>,
    origin: &Origin<'a>,
    index: u32,
    span: Span<'a>,
) -> AgentEvent {
    let mut data = ObjectWriter::new();
    let mut event = envelope(decoder, origin, index, FORMAT, &span, &mut data);
    let (mut call, mut turn) = (Stated::default(), Stated::default());
    for (name, value) in &span.attributes {
        if !take(&mut event, &mut call, &mut turn, name, value) {
            data.field(name, value);
        }
        if name == "aborted" && value.truth() == Some(true) {
            event.status = Status::Cancelled;
        }
    }
    if call.any() {
        event.event_type = EventType::LlmResponse;
        event.llm_call_key = format!("{}:{}", event.trace_id, event.span_id);
        state_usage(&mut event, &call, UsageRole::Call);
    } else if turn.any() {
        event.event_type = EventType::AgentStep;
        state_usage(&mut event, &turn, UsageRole::Rollup);
    } else if !event.tool_call_id.is_empty() && event.tool_name == event.name {
        // Other spans of the call are parts of this one, which bears the tool's name.
        tools::refine_codex(&mut event);
        event.call_family = FAMILY.to_owned();
    } else {
        event.level = "trace".to_owned();
    }
    finish_data(&mut event, data, &span);
    event
}

/// Takes an attribute in; false when it has no column or does not fit.
fn take(
    event: &mut AgentEvent,
    call: &mut Stated,
    turn: &mut Stated,
    name: &str,
    value: &AnyValue<'_>,
) -> bool {
    let column = match name {
        "conversation.id" => &mut event.session_id,
        // A number under the same name is the thread of the operating system.
        "thread.id" | "thread_id" if value.as_str().is_some() => &mut event.session_id,
        "turn.id" | "turn_id" => &mut event.turn_id,
        "model" => &mut event.model,
        "call_id" => &mut event.tool_call_id,
        "tool_name" => &mut event.tool_name,
        _ => return take_count(call, turn, name, value),
    };
    value.fill(column)
}

fn take_count(call: &mut Stated, turn: &mut Stated, name: &str, value: &AnyValue<'_>) -> bool {
    let count = match name {
        "gen_ai.usage.input_tokens" => &mut call.input,
        "gen_ai.usage.cache_read.input_tokens" => &mut call.cache_read,
        "gen_ai.usage.cache_write.input_tokens" => &mut call.cache_write,
        "gen_ai.usage.output_tokens" => &mut call.output,
        "codex.usage.reasoning_output_tokens" => &mut call.reasoning,
        "codex.turn.token_usage.input_tokens" => &mut turn.input,
        "codex.turn.token_usage.cached_input_tokens" => &mut turn.cache_read,
        "codex.turn.token_usage.cache_write_input_tokens" => &mut turn.cache_write,
        "codex.turn.token_usage.output_tokens" => &mut turn.output,
        "codex.turn.token_usage.reasoning_output_tokens" => &mut turn.reasoning,
        _ => return false,
    };
    *count = value.count();
    count.is_some()
}
