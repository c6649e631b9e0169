//! Codex's spans.
//!
//! They trace the program itself: hundreds a turn, nearly all of them kept as plain spans of level `trace`, told by the
//! scope `codex_*` and by `code.module.name`. A few say more: one a call states its usage, one a turn their sum, and one
//! a tool call its duration. Most name neither session nor model: a call's are those of the nearest span around it that
//! came in the same request, which is how Codex sends them.

use std::collections::HashMap;

use fleetlog_schemas::event::{AgentEvent, EventType, Status, UsageRole};

use super::{FAMILY, state_usage};
use crate::confine::brief;
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

/// Longest way from a call's span up to one that names its model and session; the captured one has 6 steps.
const STEPS: usize = 32;

/// Gives each call the model, session and turn of the nearest span around it among these.
pub(crate) fn inherit(events: &mut [AgentEvent]) {
    let needy = |event: &AgentEvent| event.usage_role == UsageRole::Call;
    if !events.iter().any(needy) {
        return;
    }
    let around: HashMap<_, _> = events.iter().map(|event| (place(event, &event.span_id), event)).collect();
    let inherited: Vec<_> = events
        .iter()
        .enumerate()
        .filter(|(_, event)| needy(event))
        .map(|(at, event)| {
            let parent = |inner: &&AgentEvent| around.get(&place(inner, &inner.parent_id)).copied();
            let ancestors = || std::iter::successors(Some(event), parent).take(STEPS);
            let nearest = |column: fn(&AgentEvent) -> &String| {
                let text = ancestors().map(column).find(|text| !text.is_empty());
                // Many may inherit one long text.
                text.map(|text| brief(text).unwrap_or_else(|| text.clone())).unwrap_or_default()
            };
            (at, nearest(|span| &span.model), nearest(|span| &span.session_id), nearest(|span| &span.turn_id))
        })
        .collect();
    for (at, model, session_id, turn_id) in inherited {
        if let Some(event) = events.get_mut(at) {
            (event.model, event.session_id, event.turn_id) = (model, session_id, turn_id);
        }
    }
}

fn place<'e>(event: &'e AgentEvent, span_id: &'e str) -> (&'e str, &'e str) {
    (&event.trace_id, span_id)
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
