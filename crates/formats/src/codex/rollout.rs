//! Codex's rollout file: one line a record, `{timestamp, type, payload}`; before September 2025 the payload alone.
//!
//! The header names the session, later lines the turn and its model; [`memory`] keeps what else must be known of earlier
//! lines. Usage is stated up to three times: by `token_usage_record` with its response, again by `token_count` as the
//! last call's, and as running totals; `precedence` orders them. What a person said and what the agent answered are
//! taken from `response_item`, since every version writes those; the events that repeat them are kept as `log`. So are
//! the lines that a fork or a sub-agent copied from the session it came from: they are no doings of its own.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, UsageRole};
use serde_json::Value;

use super::{OF_A_RESPONSE, OF_A_TOTAL, OF_THE_LAST_CALL, message, state_usage, stated, tools};
use crate::json::ObjectWriter;
use crate::moment::Moment;
use crate::records::{Object, Record, RecordFormat, Records, number, object, set_time, text};
use crate::tokens::Stated;
use memory::Memory;

mod memory;

/// The format of rollout files.
pub(crate) const FORMAT: RecordFormat = RecordFormat {
    name: "codex.rollout",
    aliases: &["codex"],
    members: &[],
    recognises,
    follow: memory::follow,
    decode,
};

/// The kinds of lines.
const KINDS: [&str; 12] = [
    "session_meta",
    "turn_context",
    "response_item",
    "event_msg",
    "token_usage_record",
    "compacted",
    "world_state",
    "inter_agent_communication",
    "inter_agent_communication_metadata",
    "retained_context",
    "realtime_item",
    "security_risk_score",
];

/// The items of the conversation with the model that were lines of their own before lines had kinds.
const ITEMS: [&str; 5] =
    ["message", "reasoning", "function_call", "function_call_output", "local_shell_call"];

fn recognises(line: &Object) -> bool {
    match parts(line) {
        Some((kind, _)) if line.contains_key("payload") => KINDS.contains(&kind),
        // Other lines without a kind could be anybody's.
        Some((kind, _)) => matches!(kind, "session_meta" | "state"),
        None => false,
    }
}

/// The kind of a line, and what it is of.
fn parts(line: &Object) -> Option<(&str, &Object)> {
    if let Some(payload) = object(line, "payload") {
        return Some((text(line, "type"), payload));
    }
    let bare_header = ["id", "timestamp", "instructions"].iter().all(|name| line.contains_key(*name));
    match text(line, "type") {
        "" if text(line, "record_type") == "state" => Some(("state", line)),
        "" if bare_header => Some(("session_meta", line)),
        kind if ITEMS.contains(&kind) => Some(("response_item", line)),
        _ => None,
    }
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    let Some((kind, payload)) = parts(record.object) else {
        return records.keep(record, &FORMAT, crate::unknown::BAD_SHAPE);
    };
    let memory = Memory::of(&records.stream);
    let mut event = records.event(record, &FORMAT, Channel::Transcript);
    set_time(&mut event, Moment::of_text(text(record.object, "timestamp")));
    event.event_type = EventType::Log;
    event.context = context(&records.stream.cwd, memory.replayed);
    let inner = text(payload, "type");
    event.name = if inner.is_empty() { kind } else { inner }.to_owned();
    if !memory.replayed {
        own_turn(&mut event, payload);
        match kind {
            "session_meta" => header(&mut event, records, payload),
            "response_item" => response_item(&mut event, payload, record.line),
            "event_msg" => happening(&mut event, records, &memory, payload, record.line),
            "token_usage_record" => response_usage(&mut event, records, payload),
            "compacted" => event.event_type = EventType::AgentCompaction,
            _ => {}
        }
    }
    records.emit(event);
}

fn context(cwd: &str, replayed: bool) -> String {
    let mut context = ObjectWriter::new();
    if !cwd.is_empty() {
        context.field("cwd", cwd);
    }
    if replayed {
        context.field("replayed", &true);
    }
    context.finish()
}

/// The turn that the line itself names is more to the point than the stream's.
fn own_turn(event: &mut AgentEvent, payload: &Object) {
    let passed = object(payload, "internal_chat_message_metadata_passthrough");
    let named = [text(payload, "turn_id"), passed.map_or("", |passed| text(passed, "turn_id"))];
    if let Some(turn) = named.into_iter().find(|turn| !turn.is_empty()) {
        turn.clone_into(&mut event.turn_id);
    }
}

fn header(event: &mut AgentEvent, records: &Records<'_>, meta: &Object) {
    event.event_type = EventType::SessionStart;
    event.provider.clone_from(&records.stream.provider);
    memory::parent(meta).clone_into(&mut event.parent_agent_id);
    let spawn = object(meta, "source").and_then(|source| object(source, "subagent"));
    let spawn = spawn.and_then(|subagent| object(subagent, "thread_spawn"));
    let named = |holder: &Object| {
        let names = ["agent_path", "agent_nickname", "agent_role"].map(|name| text(holder, name).to_owned());
        names.into_iter().find(|name| !name.is_empty())
    };
    event.agent_name = named(meta).or_else(|| spawn.and_then(named)).unwrap_or_default();
}

/// An item of the conversation with the model.
fn response_item(event: &mut AgentEvent, item: &Object, line: i64) {
    if tools::response_item(event, item) {
        // The call and its output are pieces of one.
        event.revision = line;
        return;
    }
    event.event_type = match (text(item, "type"), text(item, "role")) {
        // Some writers leave the type of a message out.
        ("message" | "", "user") if is_prompt(item) => EventType::UserPrompt,
        ("message" | "", "assistant") => EventType::LlmResponse,
        _ => EventType::Log,
    };
}

/// Whether a message in the user's role is a person's: Codex puts instructions and surroundings into that role too.
///
/// Recent versions say of each part what it is. Before them, what Codex adds is wrapped in a tag of its own.
fn is_prompt(message: &Object) -> bool {
    let parts = message.get("content").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let passed = object(message, "internal_chat_message_metadata_passthrough");
    let kinds = passed.and_then(|passed| passed.get("content_item_kinds")).and_then(Value::as_array);
    if let Some(kinds) = kinds.filter(|kinds| kinds.len() == parts.len()) {
        let by_person = |kind: &Value| kind.as_str().is_some_and(|kind| kind.starts_with("user."));
        return kinds.iter().any(by_person);
    }
    let added = |part: &Value| part.get("text").and_then(Value::as_str).is_some_and(is_added);
    parts.is_empty() || !parts.iter().all(added)
}

/// Whether a text is one that Codex adds: `<tag>…</tag>`, or the project's own instructions.
fn is_added(text: &str) -> bool {
    let text = text.trim();
    let tag = text.strip_prefix('<').and_then(|rest| rest.split_once('>')).map(|(tag, _)| tag);
    let wrapped = tag.is_some_and(|tag| {
        let name = tag.split_ascii_whitespace().next().unwrap_or_default();
        !name.is_empty() && text.ends_with(&format!("</{name}>"))
    });
    wrapped || text.starts_with("# AGENTS.md instructions")
}

/// Something that happened, as the user's screen was told.
fn happening(event: &mut AgentEvent, records: &Records<'_>, memory: &Memory, payload: &Object, line: i64) {
    match text(payload, "type") {
        "token_count" => last_call(event, records, memory, payload, line),
        "task_started" | "turn_started" => event.event_type = EventType::AgentStep,
        "task_complete" | "turn_complete" => ended(event, payload, Status::Ok),
        "turn_aborted" => ended(event, payload, Status::Cancelled),
        "error" | "stream_error" => {
            event.event_type = EventType::Error;
            event.status = Status::Error;
            message(payload, "message").clone_into(&mut event.error_message);
            text(payload, "codex_error_info").clone_into(&mut event.error_type);
        }
        "item_completed" => {
            let Some(item) = object(payload, "item") else { return };
            let kind = text(item, "type");
            event.name = format!("item_completed.{kind}");
            tool(event, kind, item, text(item, "id"), line);
        }
        kind => tool(event, kind, payload, text(payload, "call_id"), line),
    }
}

fn tool(event: &mut AgentEvent, kind: &str, item: &Object, id: &str, line: i64) {
    if tools::ran(event, kind, item) {
        tools::called(event, id);
        event.revision = line;
    }
}

fn ended(event: &mut AgentEvent, payload: &Object, status: Status) {
    event.event_type = EventType::AgentStep;
    event.status = status;
    event.duration_ms = number(payload, "duration_ms");
    event.ttft_ms = number(payload, "time_to_first_token_ms");
    text(payload, "reason").clone_into(&mut event.finish_reason);
}

/// The usage of one response, named by its id.
fn response_usage(event: &mut AgentEvent, records: &Records<'_>, payload: &Object) {
    let Some(usage) = object(payload, "usage").map(stated).filter(Stated::any) else { return };
    text(payload, "response_id").clone_into(&mut event.request_id);
    let key = text(payload, "response_id");
    called(event, records, &usage, if key.is_empty() { None } else { Some(key) });
    event.precedence = OF_A_RESPONSE;
}

/// The usage of the last call, as the user's screen was told; the same call may be told of again.
fn last_call(event: &mut AgentEvent, records: &Records<'_>, memory: &Memory, payload: &Object, line: i64) {
    let info = object(payload, "info").unwrap_or(payload);
    // An estimate of the context after a compaction has a total alone; nothing was called.
    let used = |usage: &Stated| usage.input.unwrap_or(0) > 0 || usage.output.unwrap_or(0) > 0;
    if let Some(last) = object(info, "last_token_usage") {
        let usage = stated(last);
        if used(&usage) && !memory.known {
            called(
                event,
                records,
                &usage,
                Some(&memory.call).filter(|key| !key.is_empty()).map(String::as_str),
            );
            event.precedence = OF_THE_LAST_CALL;
        }
    } else {
        let total = stated(object(info, "total_token_usage").unwrap_or(payload));
        if used(&total) {
            called(event, records, &total, Some("total"));
            event.usage_role = UsageRole::Cumulative;
            event.precedence = OF_A_TOTAL;
            event.revision = line;
        }
    }
    // Some writers name the model beside the counts, which is more to the point than the turn's.
    if event.event_type == EventType::LlmRequest && !text(info, "model").is_empty() {
        text(info, "model").clone_into(&mut event.model);
    }
}

/// Makes an event a sighting of the call of this key; without one, of a call of its own.
fn called(event: &mut AgentEvent, records: &Records<'_>, usage: &Stated, key: Option<&str>) {
    event.event_type = EventType::LlmRequest;
    event.status = Status::Ok;
    event.provider.clone_from(&records.stream.provider);
    event.model.clone_from(&records.stream.model);
    event.llm_call_key = key.map_or_else(|| event.event_id.clone(), str::to_owned);
    state_usage(event, usage, UsageRole::Call);
}
