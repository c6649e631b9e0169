//! OpenCode's `run --format json`: one event a line, each with its session and a part of a message.
//!
//! A `step_finish` part states the tokens of one call in disjoint counts, and its cost in dollars (opencode,
//! `packages/opencode/src/cli/cmd/run.ts`). The model is not said. OpenCode's spans tell the same calls without a shared
//! id.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use super::{copy, exit_code, fits, known_by, moment, tool};
use crate::records::{Object, Record, RecordFormat, Records, count, number, object, set_time, text};
use crate::tokens::Stated;

/// Lines of a run.
pub(crate) const FORMAT: RecordFormat =
    RecordFormat { name: "opencode.run", aliases: &["opencode"], members: &[], recognises, follow, decode };

fn recognises(line: &Object) -> bool {
    let kind = text(line, "type");
    !kind.is_empty()
        && !text(line, "sessionID").is_empty()
        && (object(line, "part").is_some() || matches!(kind, "error" | "done"))
}

fn follow(context: &mut StreamContext, line: &Object) {
    "opencode".clone_into(&mut context.source);
    copy(&mut context.session_id, line, "sessionID");
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    if !fits(records, record, &FORMAT) {
        return;
    }
    let line = record.object;
    let empty = Object::new();
    let part = object(line, "part").unwrap_or(&empty);
    let mut event = records.event(record, &FORMAT, Channel::Transcript);
    text(line, "type").clone_into(&mut event.name);
    "opencode".clone_into(&mut event.call_family);
    copy(&mut event.turn_id, part, "messageID");
    known_by(records, &mut event, &FORMAT, &[text(line, "sessionID"), text(part, "id"), text(line, "type")]);
    set_time(&mut event, moment(line, "timestamp"));
    event.event_type = EventType::Log;
    match event.name.as_str() {
        "step_finish" => step(&mut event, part),
        "tool_use" => call(&mut event, part),
        "text" => event.event_type = EventType::LlmResponse,
        "done" => event.event_type = EventType::AgentEnd,
        "error" => failure(&mut event, line),
        _ => {}
    }
    records.emit(event);
}

fn step(event: &mut AgentEvent, part: &Object) {
    event.event_type = EventType::LlmRequest;
    event.status = Status::Ok;
    event.usage_role = UsageRole::Call;
    copy(&mut event.llm_call_key, part, "id");
    copy(&mut event.finish_reason, part, "reason");
    event.cost_reported = number(part, "cost").and_then(NanoUsd::from_usd);
    if let Some(tokens) = object(part, "tokens") {
        let cached = |name| object(tokens, "cache").and_then(|cache| count(cache, name));
        let counts = Stated {
            input: count(tokens, "input"),
            output: count(tokens, "output"),
            cache_read: cached("read"),
            cache_write: cached("write"),
            reasoning: count(tokens, "reasoning"),
        };
        counts.apply(TokenBasis::Disjoint, event);
    }
}

fn call(event: &mut AgentEvent, part: &Object) {
    copy(&mut event.tool_call_id, part, "callID");
    let Some(state) = object(part, "state") else { return tool(event, text(part, "tool"), None) };
    tool(event, text(part, "tool"), object(state, "input"));
    super::ended(event, Some(text(state, "status") == "completed"));
    copy(&mut event.error_message, state, "error");
    event.exit_code = object(state, "metadata").and_then(|metadata| exit_code(metadata, "exit"));
    if let Some(time) = object(state, "time") {
        let (start, end) = (moment(time, "start"), moment(time, "end"));
        set_time(event, start);
        event.end_timestamp = end.map(|end| end.nanos);
        let lasted = start.zip(end).map(|(start, end)| end.nanos.saturating_sub(start.nanos));
        event.duration_ms = lasted.filter(|lasted| *lasted >= 0).map(|lasted| lasted as f64 / 1e6);
    }
}

fn failure(event: &mut AgentEvent, line: &Object) {
    event.event_type = EventType::Error;
    event.status = Status::Error;
    match line.get("error") {
        Some(Value::Object(error)) => {
            copy(&mut event.error_type, error, "name");
            copy(&mut event.error_message, object(error, "data").unwrap_or(error), "message");
        }
        Some(Value::String(message)) => event.error_message.clone_from(message),
        _ => {}
    }
}
