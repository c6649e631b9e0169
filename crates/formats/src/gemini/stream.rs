//! What `gemini -p … --output-format stream-json` prints: one event a line.
//!
//! The first line names session and model. Usage is stated once, at the end, as the total of the process: input with
//! what was read from the cache, output without the thoughts, and a grand total whose rest must be the thoughts.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use super::chat::{SOURCE, note_path};
use super::{Counts, FAMILY};
use crate::moment::Moment;
use crate::records::{
    Object, Record, RecordFormat, Records, count, identify, number, object, set_time, text,
};
use crate::tokens::Stated;
use crate::tools::refine_gemini;

/// The format of printed events.
pub(crate) const FORMAT: RecordFormat = RecordFormat {
    name: "gemini.stream",
    aliases: &["gemini-stream"],
    members: &[],
    recognises,
    follow,
    decode,
};

fn recognises(line: &Object) -> bool {
    line.contains_key("timestamp")
        && match text(line, "type") {
            "init" => line.contains_key("session_id") && line.contains_key("model"),
            "tool_use" | "tool_result" => line.contains_key("tool_id"),
            _ => false,
        }
}

fn follow(stream: &mut StreamContext, line: &Object) {
    SOURCE.clone_into(&mut stream.source);
    if text(line, "type") == "init" {
        text(line, "session_id").clone_into(&mut stream.session_id);
        text(line, "model").clone_into(&mut stream.model);
    }
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    let line = record.object;
    let mut event = records.event(record, &FORMAT, Channel::Other);
    set_time(&mut event, Moment::of_text(text(line, "timestamp")));
    text(line, "type").clone_into(&mut event.name);
    event.event_type = match (text(line, "type"), text(line, "role")) {
        ("init", _) => EventType::SessionStart,
        ("message", "user") => EventType::UserPrompt,
        ("message", "assistant") => EventType::LlmResponse,
        ("error", _) if text(line, "severity") != "warning" => EventType::Error,
        ("result", _) => EventType::SessionEnd,
        _ => EventType::Log,
    };
    match event.event_type {
        EventType::SessionStart | EventType::LlmResponse => event.model.clone_from(&records.stream.model),
        EventType::Error => {
            event.status = Status::Error;
            text(line, "message").clone_into(&mut event.error_message);
        }
        EventType::SessionEnd => outcome(&mut event, line),
        _ => tool(&mut event, line, record.line),
    }
    let total = total(records, &event, line);
    records.emit(event);
    total.into_iter().for_each(|total| records.emit(total));
}

fn outcome(event: &mut AgentEvent, line: &Object) {
    event.status = match text(line, "status") {
        "success" => Status::Ok,
        "error" => Status::Error,
        _ => Status::Unset,
    };
    if let Some(error) = object(line, "error") {
        text(error, "type").clone_into(&mut event.error_type);
        text(error, "message").clone_into(&mut event.error_message);
    }
}

/// A tool's use and its result are pieces of one call.
fn tool(event: &mut AgentEvent, line: &Object, number: i64) {
    if !matches!(text(line, "type"), "tool_use" | "tool_result") {
        return;
    }
    text(line, "tool_id").clone_into(&mut event.tool_call_id);
    text(line, "tool_name").clone_into(&mut event.tool_name);
    event.call_family = FAMILY.to_owned();
    event.revision = number;
    refine_gemini(event);
    note_path(event, object(line, "parameters"));
    outcome(event, line);
    event.bytes_out = line.get("output").and_then(Value::as_str).map(|output| output.len() as u64);
}

/// The total of the process, where the line states one. It is of no family, so it counts only where no other channel of
/// this program says anything.
fn total(records: &Records<'_>, end: &AgentEvent, line: &Object) -> Option<AgentEvent> {
    let stats = object(line, "stats").filter(|_| end.event_type == EventType::SessionEnd)?;
    let of = |name: &str| count(stats, name).unwrap_or(0);
    let rest = of("total_tokens").saturating_sub(of("input_tokens")).saturating_sub(of("output_tokens"));
    let stated = Stated {
        input: count(stats, "input_tokens"),
        output: count(stats, "output_tokens"),
        cache_read: count(stats, "cached"),
        cache_write: None,
        reasoning: (rest > 0).then_some(rest),
    };
    let mut event = AgentEvent {
        name: "stats".to_owned(),
        event_type: EventType::LlmRequest,
        model: records.stream.model.clone(),
        duration_ms: number(stats, "duration_ms"),
        data: serde_json::to_string(stats).unwrap_or_default(),
        ..end.clone()
    };
    Counts { stated, ..Counts::default() }.state(&mut event);
    if event.usage_role == UsageRole::None {
        return None;
    }
    if rest > 0 {
        event.token_basis = TokenBasis::Guessed;
    }
    event.usage_role = UsageRole::Cumulative;
    event.call_family.clear();
    identify(&mut event, records.identities.stated(FORMAT.name, &[&end.dedup_key.0, b"stats"]));
    event.llm_call_key.clone_from(&event.event_id);
    Some(event)
}
