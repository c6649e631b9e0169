//! What `qwen -p … --output-format stream-json` prints: rows as Claude Code's, without a time.
//!
//! The last row of an answer states its usage, those before it zeros, and a sub-agent's rows nothing. The `result` row
//! states the session's total, sub-agents and the program's own errands included. It goes on over resumed sessions, so
//! it is one series of running totals for the session, whichever process prints it; only where a process ended without
//! one do its answers count. Without times all of it counts only where no other channel states usage. What a user said
//! is not printed: what stands in the user's role is a result, or the program's.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use super::super::Counts;
use super::{ANSWERED, ASKED, SOURCE};
use crate::claude::message::{bare, blocks, key_of, name_row, of_block, part, words};
use crate::records::{Object, Record, RecordFormat, Records, count, identify, number, object, text};
use crate::tokens::Stated;

/// The rows of a run.
pub(crate) const FORMAT: RecordFormat = RecordFormat {
    name: "qwen.stream",
    aliases: &["qwen-stream", "qwen.stream-json"],
    members: &[],
    recognises,
    follow,
    decode,
};

/// What all rows have in common with Claude Code's; those that could be either follow their stream.
fn recognises(row: &Object) -> bool {
    let own = ["claude_code_version", "modelUsage", "hook_event_name"];
    matches!(text(row, "type"), "system" | "assistant" | "user" | "result" | "stream_event")
        && !text(row, "session_id").is_empty()
        && !own.iter().any(|name| row.contains_key(*name))
}

fn follow(context: &mut StreamContext, row: &Object) {
    SOURCE.clone_into(&mut context.source);
    text(row, "session_id").clone_into(&mut context.session_id);
    if text(row, "subtype") == "init" {
        text(row, "cwd").clone_into(&mut context.cwd);
        text(row, "model").clone_into(&mut context.model);
        text(row, "qwen_code_version").clone_into(&mut context.version);
    }
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    let row = record.object;
    let mut event = records.event(record, &FORMAT, Channel::Other);
    let (kind, subtype) = (text(row, "type"), text(row, "subtype"));
    name_row(&mut event, row);
    // Its `uuid` is the session's id, in every process that goes on with the session; so its place and text tell it.
    if subtype != "init" {
        identify(&mut event, key_of(records, record, &FORMAT));
    }
    match (kind, object(row, "message")) {
        ("assistant", Some(message)) => return assistant(records, event, message),
        ("user", Some(message)) => return user(records, event, message),
        ("result", _) => return result(records, row, event),
        ("system", _) => system(&mut event, row, subtype),
        _ => event.event_type = EventType::Log,
    }
    records.emit(event);
}

fn system(event: &mut AgentEvent, row: &Object, subtype: &str) {
    event.event_type = match subtype {
        "init" => EventType::SessionStart,
        "task_started" => EventType::AgentStart,
        "task_notification" => EventType::AgentEnd,
        _ => EventType::Log,
    };
    text(row, "model").clone_into(&mut event.model);
    let Some(task) = object(row, "data") else { return };
    for (column, name) in [
        (&mut event.agent_id, "task_id"),
        (&mut event.agent_name, "subagent_type"),
        (&mut event.parent_id, "tool_use_id"),
    ] {
        text(task, name).clone_into(column);
    }
    event.status = match text(task, "status") {
        "completed" => Status::Ok,
        "failed" => Status::Error,
        "cancelled" => Status::Cancelled,
        _ => Status::Unset,
    };
}

fn usage(usage: &Object) -> Counts {
    let mut stated = Stated {
        input: count(usage, "input_tokens"),
        output: count(usage, "output_tokens"),
        cache_read: count(usage, "cache_read_input_tokens"),
        cache_write: None,
        reasoning: None,
    };
    let total = count(usage, "total_tokens");
    let answered = stated.input.unwrap_or(0).saturating_add(stated.output.unwrap_or(0));
    // Of makers who state thoughts beside the output, they are what the total has more.
    stated.reasoning = total.map(|total| total.saturating_sub(answered)).filter(|rest| *rest > 0);
    Counts { stated, tool: None, total }
}

/// Content of the model, and the tools it asks for.
fn assistant(records: &mut Records<'_>, mut event: AgentEvent, message: &Object) {
    text(message, "model").clone_into(&mut event.model);
    text(message, "stop_reason").clone_into(&mut event.finish_reason);
    event.status = Status::Ok;
    super::answer(&mut event, object(message, "usage").map(usage).unwrap_or_default());
    let asked = (1..).zip(blocks(message, "tool_use")).map(|(nth, block)| {
        let mut tool = of_block(&event, nth, block);
        super::tool(&mut tool, text(block, "name"), text(block, "id"), object(block, "input"), ASKED);
        tool
    });
    let asked: Vec<AgentEvent> = asked.collect();
    records.emit(event);
    asked.into_iter().for_each(|tool| records.emit(tool));
}

fn user(records: &mut Records<'_>, mut event: AgentEvent, message: &Object) {
    let results: Vec<&Object> = blocks(message, "tool_result").collect();
    if results.is_empty() {
        event.event_type = EventType::Log;
        return records.emit(event);
    }
    for (nth, block) in (0..).zip(results) {
        let mut tool = of_block(&event, nth, block);
        super::tool(&mut tool, "", text(block, "tool_use_id"), None, ANSWERED);
        tool.status = Status::Ok;
        if block.get("is_error").and_then(Value::as_bool) == Some(true) {
            tool.status = Status::Error;
            words(block.get("content")).clone_into(&mut tool.error_message);
        }
        records.emit(tool);
    }
}

/// The end of a run: how it went, and the total of the session.
fn result(records: &mut Records<'_>, row: &Object, mut event: AgentEvent) {
    event.event_type = EventType::SessionEnd;
    event.duration_ms = number(row, "duration_ms");
    event.status = Status::Ok;
    if row.get("is_error").and_then(Value::as_bool) == Some(true) {
        event.status = Status::Error;
        text(row, "subtype").clone_into(&mut event.error_type);
        let error = object(row, "error").map_or("", |error| text(error, "message"));
        error.clone_into(&mut event.error_message);
    }
    let total = object(row, "usage").and_then(|stated| total(records, &event, usage(stated)));
    records.emit(event);
    total.into_iter().for_each(|total| records.emit(total));
}

fn total(records: &Records<'_>, end: &AgentEvent, counts: Counts) -> Option<AgentEvent> {
    let mut total = AgentEvent {
        event_type: EventType::LlmRequest,
        status: Status::Ok,
        model: records.stream.model.clone(),
        llm_call_key: end.session_id.clone(),
        ..part(bare(end), 1)
    };
    let guessed = counts.stated.reasoning.is_some();
    counts.state(&mut total);
    if total.in_total() + total.out_total() == 0 {
        return None;
    }
    if guessed {
        total.token_basis = TokenBasis::Guessed;
    }
    total.usage_role = UsageRole::Cumulative;
    // Orders totals of which no time is known: they only grow.
    total.revision = i64::try_from(total.in_total() + total.out_total()).unwrap_or(i64::MAX);
    Some(total)
}
