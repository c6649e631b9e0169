//! Claude Code (MAPPING §3): its OTLP log events and spans, its transcripts, what it prints as stream-json, its hooks.
//!
//! Logs, spans and transcripts name a call to the model by its request id, and every channel names a tool call by
//! `tool_use_id`, so the same call seen on several is known as one. Token counts are Anthropic's raw ones: input
//! excludes what was read from or written to a cache.

use fleetlog_schemas::event::{AgentEvent, TokenBasis};
use fleetlog_schemas::id::NanoUsd;

use crate::json::{Cursor, Fault, Scalar};
use crate::otlp::model::AnyValue;
use crate::tokens::Stated;

pub(crate) mod hooks;
pub(crate) mod logs;
pub(crate) mod message;
pub(crate) mod spans;
pub(crate) mod stream_json;
pub(crate) mod transcript;

/// Puts an attribute that logs and spans have in common into its column; false when it has none or does not fit.
fn take(event: &mut AgentEvent, usage: &mut Stated, name: &str, value: &AnyValue<'_>) -> bool {
    let text = match name {
        "session.id" => &mut event.session_id,
        "prompt.id" => &mut event.turn_id,
        "user.id" => &mut event.user_id,
        "model" => &mut event.model,
        "request_id" => &mut event.request_id,
        "tool_name" => &mut event.tool_name,
        "tool_use_id" => &mut event.tool_call_id,
        "error" => &mut event.error_message,
        "error_type" => &mut event.error_type,
        "stop_reason" => &mut event.finish_reason,
        "file_path" => &mut event.file_path,
        "agent_id" => &mut event.agent_id,
        "parent_agent_id" => &mut event.parent_agent_id,
        "agent.name" => &mut event.agent_name,
        _ => return take_number(event, usage, name, value),
    };
    match value.text() {
        Some(value) => {
            *text = value;
            true
        }
        None => false,
    }
}

fn take_number(event: &mut AgentEvent, usage: &mut Stated, name: &str, value: &AnyValue<'_>) -> bool {
    let count = match name {
        "input_tokens" => &mut usage.input,
        "output_tokens" => &mut usage.output,
        "cache_read_tokens" => &mut usage.cache_read,
        "cache_creation_tokens" => &mut usage.cache_write,
        "tool_input_size_bytes" => &mut event.bytes_in,
        "tool_result_size_bytes" => &mut event.bytes_out,
        "duration_ms" => return set(&mut event.duration_ms, value.number()),
        "ttft_ms" => return set(&mut event.ttft_ms, value.number()),
        "attempt" => return set(&mut event.attempt, value.count().and_then(|count| count.try_into().ok())),
        "cost_usd" => return set(&mut event.cost_reported, value.number().and_then(NanoUsd::from_usd)),
        _ => return false,
    };
    set(count, value.count())
}

fn set<T>(column: &mut Option<T>, value: Option<T>) -> bool {
    let fits = value.is_some();
    *column = value.or(column.take());
    fits
}

/// Writes the buckets of one call to the model.
fn apply_usage(event: &mut AgentEvent, usage: &Stated) {
    if usage.any() {
        usage.apply(TokenBasis::AnthropicRaw, event);
    }
}

/// The text members of a JSON object that arrived inside a string, cut off or not.
fn embedded_texts(text: &str, mut each: impl FnMut(&str, String)) {
    // A cut-off end is a fault after the members that were whole; those are kept.
    let read = Cursor::new(text.as_bytes()).object(|cursor, key| {
        if let Scalar::Text(value) = cursor.scalar()? {
            each(&key.text(), value.text().into_owned());
        }
        Ok::<(), Fault>(())
    });
    read.unwrap_or_default();
}
