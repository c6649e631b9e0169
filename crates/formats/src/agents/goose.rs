//! Goose: a session as `goose session export --format json` writes it, the lines of its older session files and of
//! `goose run --output-format stream-json`, and the payloads of its hooks.
//!
//! An export is one document, written anew each time; its messages have ids, so what was sent before is known again.
//! Usage is stated as totals of the session so far and of nothing smaller. Shapes: goose 1.37, `crates/goose/src/session`,
//! `conversation/message.rs` and `hooks/mod.rs`, and notes of others on real exports. Goose's Langfuse batches are
//! [`crate::langfuse`]'s, its spans those of the attribute conventions.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use super::{copy, ended, fits, further, known_by, moment, session_of_stream, stated, tool, truth};
use crate::api;
use crate::hint::Hint;
use crate::records::{Object, Record, RecordFormat, Records, identify, number, object, set_time, text};
use crate::unknown;

/// Most events that one record may become, as many as a request has records by default: an export is a single record,
/// and whoever counts records does not count its messages.
const EVENTS_MOST: usize = 50_000;

/// Exports and lines of sessions.
pub(crate) const FORMAT: RecordFormat =
    RecordFormat { name: "goose.session", aliases: &["goose"], members: &[], recognises, follow, decode };

/// Payloads of hooks.
pub(crate) const HOOKS: RecordFormat = RecordFormat {
    name: Hint::GOOSE_HOOKS.as_str(),
    aliases: &[],
    members: &[],
    recognises: is_hook,
    follow: |context, hook| {
        "goose".clone_into(&mut context.source);
        copy(&mut context.session_id, hook, "session_id");
    },
    decode: hook,
};

/// The head of a session: all of an export, or the first line of a file.
fn is_head(said: &Object) -> bool {
    said.contains_key("working_dir")
        && (said.contains_key("message_count") || said.get("conversation").is_some_and(Value::is_array))
}

fn is_message(said: &Object) -> bool {
    !text(said, "role").is_empty()
        && said.get("created").is_some_and(Value::is_number)
        && said.get("content").is_some_and(Value::is_array)
}

/// The message of a printed line.
fn printed(said: &Object) -> Option<&Object> {
    object(said, "message").filter(|message| text(said, "type") == "message" && is_message(message))
}

fn recognises(said: &Object) -> bool {
    is_head(said) || is_message(said) || printed(said).is_some()
}

fn is_hook(said: &Object) -> bool {
    let begins = text(said, "event").starts_with(|first: char| first.is_ascii_uppercase());
    begins && !text(said, "session_id").is_empty() && said.contains_key("matcher_context")
}

fn follow(context: &mut StreamContext, said: &Object) {
    "goose".clone_into(&mut context.source);
    if is_head(said) {
        copy(&mut context.session_id, said, "id");
        copy(&mut context.cwd, said, "working_dir");
        copy(&mut context.provider, said, "provider_name");
        if let Some(model) = object(said, "model_config") {
            copy(&mut context.model, model, "model_name");
        }
    }
    session_of_stream(context);
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    if !fits(records, record, &FORMAT) {
        return;
    }
    let said = record.object;
    if most_events(said) > EVENTS_MOST {
        return records.keep(record, &FORMAT, unknown::TOO_MANY);
    }
    // By the identity that its events have in common, the last one that was given for it, and how many were.
    let mut told = HashMap::new();
    for mut event in events(records, record, said) {
        // What is told twice in one record keeps two identities.
        match told.entry(event.dedup_key) {
            Entry::Vacant(first) => {
                first.insert((event.dedup_key, 0_u64));
            }
            Entry::Occupied(mut again) => {
                let (last, nth) = again.get_mut();
                let key = records.identities.stated("again", &[last.0.as_slice(), &nth.to_le_bytes()]);
                (*last, *nth) = (key, *nth + 1);
                identify(&mut event, key);
            }
        }
        records.emit(event);
    }
}

/// How many events a record becomes at the most: one of each message and of each of its parts.
fn most_events(said: &Object) -> usize {
    let parts = |message: &Object| message.get("content").and_then(Value::as_array).map_or(0, Vec::len);
    match said.get("conversation").and_then(Value::as_array).filter(|_| is_head(said)) {
        Some(messages) => messages.iter().map(|message| 1 + message.as_object().map_or(0, parts)).sum(),
        None => 1 + parts(printed(said).unwrap_or(said)),
    }
}

fn events(records: &Records<'_>, record: &Record<'_>, said: &Object) -> Vec<AgentEvent> {
    let mut head = records.events_of(record);
    if !is_head(said) {
        return message(records, head, printed(said).unwrap_or(said), None);
    }
    // Each message begins as this: what it has to copy does not grow with the export.
    let blank = AgentEvent { data: "{}".to_owned(), ..head.clone() };
    "session".clone_into(&mut head.name);
    head.event_type = EventType::SessionStart;
    set_time(&mut head, api::time(said, "created_at"));
    let totals = totals(records, &head, said);
    // The messages have events of their own.
    let rest: Object = said.iter().filter(|(name, _)| *name != "conversation").map(owned).collect();
    head.data = Value::Object(rest).to_string();
    known_by(records, &mut head, &FORMAT, &[text(said, "id"), text(said, "created_at")]);
    let messages = said.get("conversation").and_then(Value::as_array).into_iter().flatten();
    let messages = messages.filter_map(Value::as_object).enumerate();
    let messages =
        messages.flat_map(|(place, written)| message(records, blank.clone(), written, Some(place)));
    [head].into_iter().chain(messages).chain(totals).collect()
}

fn owned((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

impl Records<'_> {
    /// An event of a session's record, with the model that the session uses.
    fn events_of(&self, record: &Record<'_>) -> AgentEvent {
        let mut event = self.event(record, &FORMAT, Channel::Transcript);
        self.stream.model.clone_into(&mut event.model);
        self.stream.provider.clone_into(&mut event.provider);
        event
    }
}

/// The totals of a session so far; what they grew by since an earlier export is what was used in between.
fn totals(records: &Records<'_>, head: &AgentEvent, said: &Object) -> Option<AgentEvent> {
    let counts = stated(said, ["accumulated_input_tokens", "accumulated_output_tokens", "", "", ""]);
    if !counts.any() {
        return None;
    }
    let mut event = further(records, head, "totals");
    event.event_type = EventType::LlmRequest;
    "totals".clone_into(&mut event.name);
    "totals".clone_into(&mut event.llm_call_key);
    event.usage_role = UsageRole::Cumulative;
    event.provider.clone_from(&head.provider);
    set_time(&mut event, api::time(said, "updated_at").or(api::time(said, "created_at")));
    counts.apply(TokenBasis::Inclusive, &mut event);
    event.cost_reported = number(said, "accumulated_cost").and_then(NanoUsd::from_usd);
    Some(event)
}

/// What a message says, and each call of a tool that it asks for or answers. `event` is one of its record that says
/// nothing more yet; `place` is its place in an export.
fn message(
    records: &Records<'_>,
    mut event: AgentEvent,
    message: &Object,
    place: Option<usize>,
) -> Vec<AgentEvent> {
    let id = text(message, "id");
    if let Some(place) = place {
        event.data = Value::Object(message.clone()).to_string();
        let created = message.get("created").map(Value::to_string).unwrap_or_default();
        let placed = format!("{place}:{created}");
        let which = if id.is_empty() { &placed } else { id };
        // Without a session's id the document itself stands for it.
        let document = event.dedup_key.to_string();
        let session = if event.session_id.is_empty() { document } else { event.session_id.clone() };
        known_by(records, &mut event, &FORMAT, &[&session, "message", which]);
    } else if !event.session_id.is_empty() {
        let session = event.session_id.clone();
        known_by(records, &mut event, &FORMAT, &[&session, "message", id]);
    }
    set_time(&mut event, moment(message, "created"));
    let parts = || message.get("content").and_then(Value::as_array).into_iter().flatten();
    let parts = || parts().filter_map(Value::as_object);
    let is_of = |kind: &str| parts().any(|part| text(part, "type") == kind);
    (event.event_type, event.name) = match text(message, "role") {
        "assistant" => (EventType::LlmResponse, "assistant".to_owned()),
        "user" if is_of("text") => (EventType::UserPrompt, "user".to_owned()),
        role => (EventType::Log, role.to_owned()),
    };
    let calls: Vec<AgentEvent> = parts().filter_map(|part| call(records, &event, part)).collect();
    [event].into_iter().chain(calls).collect()
}

/// The sighting of a tool call that a part of a message is.
fn call(records: &Records<'_>, message: &AgentEvent, part: &Object) -> Option<AgentEvent> {
    let (name, result) = match text(part, "type") {
        name @ ("toolRequest" | "frontendToolRequest") => (name, object(part, "toolCall")),
        name @ "toolResponse" => (name, object(part, "toolResult")),
        _ => return None,
    };
    let id = text(part, "id");
    let mut event = further(records, message, &format!("{name} {id}"));
    name.clone_into(&mut event.name);
    id.clone_into(&mut event.tool_call_id);
    let value = result.and_then(|result| object(result, "value"));
    if name == "toolResponse" {
        event.event_type = EventType::ToolCall;
        let failed = value.and_then(|value| truth(value, "isError")) == Some(true);
        ended(&mut event, Some(!failed && result.is_some_and(|result| text(result, "status") == "success")));
    } else {
        let full = value.map(|value| text(value, "name")).unwrap_or_default();
        named(&mut event, full, value.and_then(|value| object(value, "arguments")));
    }
    if let Some(result) = result {
        copy(&mut event.error_message, result, "error");
    }
    if !event.error_message.is_empty() {
        event.status = Status::Error;
    }
    Some(event)
}

/// `developer__shell` is a tool of Goose's own extension, `github__search` one of an MCP server's.
fn named(event: &mut AgentEvent, full: &str, arguments: Option<&Object>) {
    let (extension, short) = full.split_once("__").unwrap_or(("", full));
    if !matches!(extension, "" | "developer") {
        extension.clone_into(&mut event.mcp_server);
    }
    tool(event, short, arguments);
    // One tool that views, creates and changes files, as its argument says.
    if short == "text_editor" {
        event.event_type = match arguments.map(|arguments| text(arguments, "command")).unwrap_or_default() {
            "view" => EventType::FileRead,
            "write" | "create" => EventType::FileCreate,
            _ => EventType::FileEdit,
        };
    }
    full.clone_into(&mut event.tool_name);
}

fn hook(records: &mut Records<'_>, record: &Record<'_>) {
    if !is_hook(record.object) {
        return records.keep(record, &HOOKS, unknown::BAD_SHAPE);
    }
    let said = record.object;
    let mut event = records.event(record, &HOOKS, Channel::Hook);
    text(said, "event").clone_into(&mut event.name);
    // A payload has neither a time nor an id: it is known by its arrival alone.
    let arrival = records.identities.arrival(record.index);
    identify(&mut event, arrival);
    event.event_type = match event.name.as_str() {
        "SessionStart" => EventType::SessionStart,
        "SessionEnd" => EventType::SessionEnd,
        "UserPromptSubmit" => EventType::UserPrompt,
        "Stop" => EventType::AgentStep,
        "SubagentStart" => EventType::AgentStart,
        "SubagentStop" => EventType::AgentEnd,
        _ => EventType::Log,
    };
    // Of the hooks around a tool those after it tell of the call; a call has no id here, so it is one of its own.
    let ok = match event.name.as_str() {
        "PostToolUse" => Some(true),
        "PostToolUseFailure" => Some(false),
        _ => None,
    };
    if ok.is_some() {
        named(&mut event, text(said, "tool_name"), object(said, "tool_input"));
        copy(&mut event.tool_call_id, said, "tool_use_id");
        ended(&mut event, ok);
    }
    records.emit(event);
}
