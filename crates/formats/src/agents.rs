//! Agents whose sessions come as lines or documents and that need no more than one module each (MAPPING §6).
//!
//! Their shapes were taken from their sources and documents, not from captures; each module names its source. Records
//! that carry no session id of their own get it from their stream's head, else from the stream itself.

use fleetlog_schemas::event::{AgentEvent, EventType, Status};
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use crate::moment::Moment;
use crate::records::{Object, Record, RecordFormat, Records, copy, count, identify, text};
use crate::tokens::Stated;
use crate::tools;
use crate::unknown;

pub(crate) mod aider;
pub(crate) mod cline;
pub(crate) mod copilot;
pub(crate) mod cursor;
pub(crate) mod goose;
pub(crate) mod managed_agents;
pub(crate) mod opencode;
pub(crate) mod openhands;
pub(crate) mod swe_agent;

/// The counts of a usage object by their names: input, output, cache read, cache written, reasoning.
fn stated(usage: &Object, names: [&str; 5]) -> Stated {
    let [input, output, cache_read, cache_write, reasoning] = names.map(|name| count(usage, name));
    Stated { input, output, cache_read, cache_write, reasoning }
}

/// Gives an event the identity that its sender's id of the record makes; without one its place stays.
fn known_by(records: &Records<'_>, event: &mut AgentEvent, format: &RecordFormat, parts: &[&str]) {
    if parts.iter().all(|part| !part.is_empty()) {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        identify(event, records.identities.stated(format.name, &parts));
    }
}

/// The session of a stream whose records do not name one: the stream itself.
fn session_of_stream(context: &mut StreamContext) {
    if context.session_id.is_empty() {
        context.session_id.clone_from(&context.stream_id);
    }
}

/// A further event of the same record, known apart by `part`: who, where and when, and nothing else that the first
/// says.
fn further(records: &Records<'_>, first: &AgentEvent, part: &str) -> AgentEvent {
    let mut event = AgentEvent {
        name: first.name.clone(),
        source: first.source.clone(),
        source_format: first.source_format.clone(),
        source_version: first.source_version.clone(),
        channel: first.channel,
        timestamp: first.timestamp,
        timestamp_source: first.timestamp_source,
        session_id: first.session_id.clone(),
        turn_id: first.turn_id.clone(),
        agent_id: first.agent_id.clone(),
        parent_id: first.parent_id.clone(),
        model: first.model.clone(),
        context: first.context.clone(),
        data: "{}".to_owned(),
        raw_index: first.raw_index,
        ..records.input.blank_event(0)
    };
    identify(&mut event, records.identities.stated("further", &[&first.dedup_key.0, part.as_bytes()]));
    event
}

/// The moment that a member states as a number, to the last digit.
fn moment(object: &Object, name: &str) -> Option<Moment> {
    Moment::of_text(&object.get(name).filter(|value| value.is_number())?.to_string())
}

/// Makes a call of one of a coding agent's own tools of an event.
fn tool(event: &mut AgentEvent, name: &str, arguments: Option<&Object>) {
    event.event_type = EventType::ToolCall;
    name.clone_into(&mut event.tool_name);
    tools::refine(event);
    if event.tool_kind.is_empty() && !name.is_empty() {
        "builtin".clone_into(&mut event.tool_kind);
    }
    if let Some(arguments) = arguments {
        tools::note_arguments(event, arguments);
    }
}

/// Says how it ended.
fn ended(event: &mut AgentEvent, ok: Option<bool>) {
    event.status = match ok {
        Some(true) => Status::Ok,
        Some(false) => Status::Error,
        None => event.status,
    };
}

/// The truth that a member states.
fn truth(object: &Object, name: &str) -> Option<bool> {
    object.get(name).and_then(Value::as_bool)
}

/// The exit code that a member states.
fn exit_code(object: &Object, name: &str) -> Option<i32> {
    object.get(name).and_then(Value::as_i64).and_then(|code| code.try_into().ok())
}

/// The object that a member holds as JSON text.
fn embedded(object: &Object, name: &str) -> Option<Object> {
    serde_json::from_str(text(object, name)).ok()
}

/// The lines of a text, as an editor counts them.
fn lines(text: &str) -> u64 {
    text.lines().count().try_into().unwrap_or(u64::MAX)
}

/// Whether a record bears its format's marks; else it is kept as not understood.
fn fits(records: &mut Records<'_>, record: &Record<'_>, format: &RecordFormat) -> bool {
    let fits = (format.recognises)(record.object);
    if !fits {
        records.keep(record, format, unknown::BAD_SHAPE);
    }
    fits
}
