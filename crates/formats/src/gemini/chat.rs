//! Gemini CLI's chat file: a log of patches, and before that a document.
//!
//! The log begins with a header that names the session; a row is a message, written again whenever it has changed, so its
//! line is its revision; `$set` changes what the header said, or replaces the messages by what the conversation has
//! become. The document is header and messages in one, and is written again as a whole: as many messages as it has, so
//! far has it come, which also orders it against the log that continues it. What a message of the model used is a call of
//! its own, named by the message's id.
//!
//! A sub-agent's file has a session id of its own and does not say whose sub-agent it is; the folder in which it lies
//! does. Its doings belong to that session, as in the telemetry, which knows no other.

use std::collections::HashSet;
use std::path::Path;

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status};
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use super::{Counts, FAMILY};
use crate::moment::Moment;
use crate::records::{Object, Record, RecordFormat, Records, count, identify, object, set_time, text};
use crate::tokens::Stated;
use crate::tools::refine_gemini;

/// The format of chat files.
pub(crate) const FORMAT: RecordFormat =
    RecordFormat { name: "gemini.chat", aliases: &["gemini"], members: &[], recognises, follow, decode };

/// The program that writes it, as it names itself on its other channels.
pub(super) const SOURCE: &str = "gemini-cli";

fn recognises(record: &Object) -> bool {
    is_header(record)
        || object(record, "$set").is_some()
        || record.contains_key("$rewindTo")
        || text(record, "type") == "gemini" && record.contains_key("id")
}

fn is_header(record: &Object) -> bool {
    record.contains_key("sessionId") && record.contains_key("projectHash")
}

fn follow(stream: &mut StreamContext, record: &Object) {
    SOURCE.clone_into(&mut stream.source);
    let stated = object(record, "$set").unwrap_or(record);
    let session = text(stated, "sessionId");
    if text(stated, "kind") == "subagent" {
        session.clone_into(&mut stream.agent_id);
    }
    let is_agents = session == stream.agent_id && !stream.session_id.is_empty();
    if !session.is_empty() && !is_agents {
        session.clone_into(&mut stream.session_id);
    }
}

/// The session that a file's place names, if it is a sub-agent's: `chats/<session>/<sub-agent>.jsonl`.
pub(crate) fn session_of_place(path: &Path) -> Option<&str> {
    let folder = path.parent()?;
    let session = folder.file_name()?.to_str()?;
    let is_id = session.len() == 36 && session.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (is_id && folder.parent()?.file_name()? == "chats").then_some(session)
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    if let Some(set) = object(record.object, "$set") {
        return patch(records, record, set);
    }
    let mut event = records.event(record, &FORMAT, Channel::Transcript);
    if is_header(record.object) {
        header(&mut event, record.object);
        records.emit(event);
        let messages = messages(record.object);
        let revision = i64::try_from(messages.len()).unwrap_or(i64::MAX);
        return rows(records, record, objects(messages), revision, Place::Document);
    }
    if text(record.object, "id").is_empty() {
        event.event_type = EventType::Log;
        event.name = if record.object.contains_key("$rewindTo") { "rewind" } else { "record" }.to_owned();
        return records.emit(event);
    }
    rows(records, record, [record.object], record.line, Place::Row);
}

fn header(event: &mut AgentEvent, header: &Object) {
    event.event_type = EventType::SessionStart;
    event.name = "header".to_owned();
    set_time(event, Moment::of_text(text(header, "startTime")));
}

fn messages(holder: &Object) -> &[Value] {
    holder.get("messages").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A change to the header or to all messages.
fn patch(records: &mut Records<'_>, record: &Record<'_>, set: &Object) {
    let messages = messages(set);
    // That something has been written is nothing that the lines written do not say themselves.
    if messages.is_empty() && set.keys().all(|name| name == "lastUpdated") {
        return records.context(record);
    }
    let mut event = records.event(record, &FORMAT, Channel::Transcript);
    event.event_type = EventType::Log;
    event.name = "set".to_owned();
    set_time(&mut event, Moment::of_text(text(set, "lastUpdated")));
    records.emit(event);
    rows(records, record, objects(messages), record.line, Place::Patch);
}

/// Where a message stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is a line.
    Row,
    /// In a document with all messages.
    Document,
    /// In a change to all messages, most of which have been written before.
    Patch,
}

fn objects(values: &[Value]) -> impl Iterator<Item = &Object> {
    values.iter().filter_map(Value::as_object)
}

fn rows<'o>(
    records: &mut Records<'_>,
    record: &Record<'_>,
    messages: impl IntoIterator<Item = &'o Object>,
    revision: i64,
    place: Place,
) {
    // What a record says twice in the same words it says once.
    let mut said = HashSet::new();
    for message in messages {
        for event in row(records, record, message, revision, place) {
            if said.insert(event.dedup_key) {
                records.emit(event);
            }
        }
    }
}

/// One message, and the tool calls that it lists.
fn row(
    records: &Records<'_>,
    record: &Record<'_>,
    message: &Object,
    revision: i64,
    place: Place,
) -> Vec<AgentEvent> {
    let mut event = records.event(record, &FORMAT, Channel::Transcript);
    let id = text(message, "id");
    event.event_type = match text(message, "type") {
        "gemini" => EventType::LlmResponse,
        "user" if place != Place::Patch && is_prompt(message) => EventType::UserPrompt,
        "error" => EventType::Error,
        _ => EventType::Log,
    };
    text(message, "type").clone_into(&mut event.name);
    event.revision = revision;
    set_time(&mut event, Moment::of_text(text(message, "timestamp")));
    if place != Place::Row {
        // The record as a whole is the data of its first event.
        event.data = serde_json::to_string(message).unwrap_or_default();
    }
    // A prompt counts where it was written, not where it is repeated: whichever is read first, they are two things.
    let kind = if place == Place::Patch && text(message, "type") == "user" { "restated" } else { "message" };
    version(records, &mut event, kind, id, message);
    match event.event_type {
        EventType::LlmResponse => call(&mut event, id, message),
        EventType::Error => {
            event.status = Status::Error;
            text(message, "content").clone_into(&mut event.error_message);
        }
        _ => {}
    }
    let model = event.model.clone();
    let mut events = vec![event];
    let calls = message.get("toolCalls").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for (nth, call) in objects(calls).enumerate() {
        let mut event = records.event(record, &FORMAT, Channel::Transcript);
        event.revision = revision;
        event.data = serde_json::to_string(call).unwrap_or_default();
        set_time(&mut event, Moment::of_text(text(message, "timestamp")));
        tool(&mut event, &format!("{id}:{nth}"), call);
        let id = event.tool_call_id.clone();
        version(records, &mut event, "tool", &id, call);
        event.model.clone_from(&model);
        events.push(event);
    }
    events
}

/// What makes two writings the same: the thing's id, and that it has not changed (MAPPING §9).
fn version(records: &Records<'_>, event: &mut AgentEvent, kind: &str, id: &str, content: &Object) {
    if records.stream.session_id.is_empty() || id.is_empty() {
        let within = records.identities.arrival(event.raw_index.saturating_sub(records.input.first_record));
        let content = serde_json::to_vec(content).unwrap_or_default();
        return identify(
            event,
            records.identities.stated(FORMAT.name, &[&within.0, kind.as_bytes(), &content]),
        );
    }
    let content = serde_json::to_vec(content).unwrap_or_default();
    let parts = [records.stream.session_id.as_bytes(), kind.as_bytes(), id.as_bytes(), &content];
    identify(event, records.identities.stated(FORMAT.name, &parts));
}

/// A message of the model: a sighting of the call that gave it.
fn call(event: &mut AgentEvent, id: &str, message: &Object) {
    text(message, "model").clone_into(&mut event.model);
    event.call_family = FAMILY.to_owned();
    event.status = Status::Ok;
    let Some(tokens) = object(message, "tokens") else { return };
    let stated = Stated {
        input: count(tokens, "input"),
        output: count(tokens, "output"),
        cache_read: count(tokens, "cached"),
        cache_write: None,
        reasoning: count(tokens, "thoughts"),
    };
    event.llm_call_key = if id.is_empty() { event.event_id.clone() } else { id.to_owned() };
    Counts { stated, tool: count(tokens, "tool"), total: count(tokens, "total") }.state(event);
}

/// A tool call that a message lists; one without an id is known by its place in the message.
fn tool(event: &mut AgentEvent, place: &str, call: &Object) {
    let id = text(call, "id");
    event.tool_call_id = if id.is_empty() { place } else { id }.to_owned();
    event.name = "tool_call".to_owned();
    text(call, "name").clone_into(&mut event.tool_name);
    text(call, "agentId").clone_into(&mut event.agent_id);
    event.call_family = FAMILY.to_owned();
    refine_gemini(event);
    event.status = match text(call, "status") {
        "success" => Status::Ok,
        "error" => Status::Error,
        "cancelled" => Status::Cancelled,
        _ => Status::Unset,
    };
    set_time(event, Moment::of_text(text(call, "timestamp")));
    note_path(event, object(call, "args"));
    if let Some(changed) = object(call, "resultDisplay").and_then(|display| object(display, "diffStat")) {
        event.lines_added = count(changed, "model_added_lines");
        event.lines_removed = count(changed, "model_removed_lines");
    }
}

/// Finds the file that a tool's arguments name.
pub(super) fn note_path(event: &mut AgentEvent, arguments: Option<&Object>) {
    let Some(arguments) = arguments else { return };
    let paths = ["file_path", "absolute_path"].map(|name| text(arguments, name));
    paths.into_iter().find(|path| !path.is_empty()).unwrap_or_default().clone_into(&mut event.file_path);
}

/// Whether a message in the user's role is a person's, and not the results of tools or the surroundings of the session.
fn is_prompt(message: &Object) -> bool {
    /// How the text begins that Gemini CLI itself puts before the conversation.
    const SURROUNDINGS: [&str; 2] =
        ["<session_context>", "This is the Gemini CLI. We are setting up the context"];
    let surroundings = |text: &str| SURROUNDINGS.iter().any(|begin| text.trim_start().starts_with(begin));
    match message.get("content") {
        Some(Value::String(text)) => !surroundings(text),
        Some(Value::Array(parts)) => {
            parts.iter().any(|part| match part.get("text").and_then(Value::as_str) {
                Some(text) => !surroundings(text),
                None => part.get("functionResponse").is_none(),
            })
        }
        Some(part) => part.get("functionResponse").is_none(),
        None => false,
    }
}
