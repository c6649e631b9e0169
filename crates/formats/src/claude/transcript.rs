//! Claude Code's transcripts: `projects/<folder>/<session>.jsonl`, and `<session>/subagents/agent-<id>.jsonl` of its
//! sub-agents, which carry the same session.
//!
//! An answer of the model is written as one line for each block of its content, and each line repeats the usage as it
//! is known by then. So the lines of one request are revisions of one call: the last counts, and they are never summed.
//! The call's key is `requestId`, as in the OTLP channels. A sub-agent's file may repeat its parent's messages under
//! request ids of its own; `message.id`, which stays the same, is therefore the event's `span_id`, by which the
//! derivation joins the lines of a session.
//!
//! What a forked session copied from another is its history, not its doing. An interactive fork marks the copies; one
//! that a program asked for (`--fork-session`) gives them its own session and changes nothing else. Its file begins with
//! the prompt being queued, so the copies that follow it are older than what the file begins with ([`is_copied`]).

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TimestampSource, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use super::message::{self, SOURCE, SYNTHETIC, words};
use crate::moment::Moment;
use crate::records::{
    Object, Record, RecordFormat, Records, copy, count, identify, number, object, said, set_time, text,
};
use crate::unknown;

/// Transcripts.
pub(crate) const FORMAT: RecordFormat = RecordFormat {
    name: "claude.transcript",
    aliases: &["claude-transcript"],
    members: &[],
    recognises,
    follow,
    decode,
};

/// Types of lines that carry a session.
const TYPES: &[&str] = &[
    "user",
    "assistant",
    "system",
    "summary",
    "attachment",
    "progress",
    "queue-operation",
    "file-history-snapshot",
    "last-prompt",
    "custom-title",
    "ai-title",
    "agent-name",
    "permission-mode",
    "mode",
    "pr-link",
];

/// Type of the line that tells of a prompt being queued.
const QUEUED: &str = "queue-operation";

/// What is noted of a stream once its own lines have begun; else the time at which the file began, where it says so.
const OWN: &str = "own";

/// Beginnings of a user's line that no user wrote.
const NOT_PROMPTS: &[&str] = &[
    "<local-command-",
    "<bash-stdout>",
    "<bash-stderr>",
    "<task-notification>",
    "<system-reminder>",
    INTERRUPTED,
];

const INTERRUPTED: &str = "[Request interrupted by user";

fn recognises(line: &Object) -> bool {
    let kind = text(line, "type");
    let has = |name: &str| line.contains_key(name);
    // Qwen Code's chat files have the same frame around what Gemini's models say.
    if has("systemPayload") || object(line, "message").is_some_and(|message| message.contains_key("parts")) {
        return false;
    }
    if !text(line, "sessionId").is_empty() && !has("projectHash") {
        return TYPES.contains(&kind)
            || !kind.is_empty() && !kind.contains('.') && has("uuid")
            || is_old_answer(line);
    }
    match kind {
        "summary" => has("leafUuid"),
        "file-history-snapshot" => has("snapshot"),
        "user" | "assistant" => has("uuid") && has("message") && !has("session_id"),
        _ => is_old_answer(line),
    }
}

/// Early versions wrote answers without a type.
fn is_old_answer(line: &Object) -> bool {
    let usage = || object(line, "message").and_then(|message| object(message, "usage"));
    !line.contains_key("type") && line.contains_key("timestamp") && usage().is_some()
}

fn follow(context: &mut StreamContext, line: &Object) {
    SOURCE.clone_into(&mut context.source);
    let session = text(line, "sessionId");
    if !session.is_empty() && session != context.session_id {
        session.clone_into(&mut context.session_id);
        context.turn_id.clear();
        context.noted.clear();
    }
    if context.noted.is_empty() && text(line, "type") == QUEUED {
        text(line, "timestamp").clone_into(&mut context.noted);
    } else if line.contains_key("uuid") && !is_copied(context, line) {
        OWN.clone_into(&mut context.noted);
    }
    for (column, name) in
        [(&mut context.cwd, "cwd"), (&mut context.version, "version"), (&mut context.turn_id, "promptId")]
    {
        copy(column, line, name);
    }
    if line.contains_key("isSidechain") {
        text(line, "agentId").clone_into(&mut context.agent_id);
    }
}

/// Whether a line is older than the beginning of its file, which is known until the file's first own line was read.
fn is_copied(context: &StreamContext, line: &Object) -> bool {
    let time = |text: &str| Moment::of_text(text).map(|moment| moment.nanos);
    // Of nearly every line only this is looked at.
    let Some(begun) = time(&context.noted) else { return false };
    line.contains_key("uuid") && time(text(line, "timestamp")).is_some_and(|written| written < begun)
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    let line = record.object;
    let mut event = base(records, record);
    if line.contains_key("forkedFrom") || is_copied(&records.stream, line) {
        event.event_type = EventType::Log;
        return records.emit(event);
    }
    match (text(line, "type"), object(line, "message")) {
        ("user", Some(message)) if message.get("content").is_some_and(is_content) => {
            user(records, record, event, message)
        }
        ("assistant", Some(message)) => assistant(records, record, event, message),
        ("", Some(message)) if is_old_answer(line) => assistant(records, record, event, message),
        ("system", _) => {
            system(&mut event, line);
            records.emit(event);
        }
        ("user" | "assistant", _) => records.keep(record, &FORMAT, unknown::BAD_SHAPE),
        _ if recognises(line) => {
            event.event_type = EventType::Log;
            records.emit(event);
        }
        _ => records.keep(record, &FORMAT, unknown::BAD_SHAPE),
    }
}

fn is_content(content: &Value) -> bool {
    content.as_str().is_some() || content.as_array().is_some_and(|blocks| blocks.iter().all(Value::is_object))
}

/// The event of a line, whatever it will say.
fn base(records: &Records<'_>, record: &Record<'_>) -> AgentEvent {
    let line = record.object;
    let mut event = records.event(record, &FORMAT, Channel::Transcript);
    text(line, "type").clone_into(&mut event.name);
    text(line, "parentUuid").clone_into(&mut event.parent_id);
    text(line, "attributionAgent").clone_into(&mut event.agent_name);
    set_time(&mut event, Moment::of_text(text(line, "timestamp")));
    event.context = said(line, &["cwd", "gitBranch", "entrypoint"]);
    identify(&mut event, message::key_of(records, record, &FORMAT));
    event
}

fn user(records: &mut Records<'_>, record: &Record<'_>, mut event: AgentEvent, message: &Object) {
    let line = record.object;
    let results = message::tools_answered(&event, message, line.get("toolUseResult"));
    if results.is_empty() {
        prompt(&mut event, line, words(message.get("content")));
        return records.emit(event);
    }
    for mut tool in results {
        text(line, "sourceToolAssistantUUID").clone_into(&mut tool.parent_id);
        tool.end_timestamp = Some(tool.timestamp);
        records.emit(tool);
    }
}

/// A user's line without results: an instruction, or what the program says in the user's place.
fn prompt(event: &mut AgentEvent, line: &Object, words: &str) {
    let is = |name: &str| line.get(name).and_then(Value::as_bool) == Some(true);
    event.event_type = match () {
        () if is("isCompactSummary") => EventType::AgentCompaction,
        () if is("isMeta") || NOT_PROMPTS.iter().any(|beginning| words.starts_with(beginning)) => {
            EventType::Log
        }
        () if is("isSidechain") && event.parent_id.is_empty() => EventType::AgentStart,
        () if is("isSidechain") => EventType::Log,
        () => EventType::UserPrompt,
    };
    if words.starts_with(INTERRUPTED) {
        event.status = Status::Cancelled;
    }
}

fn assistant(records: &mut Records<'_>, record: &Record<'_>, mut event: AgentEvent, message: &Object) {
    let line = record.object;
    let asked = message::tools_asked(&event, message);
    if line.get("isApiErrorMessage").and_then(Value::as_bool) == Some(true) {
        message::failure(&mut event, line, words(message.get("content")));
    } else if text(message, "model") == SYNTHETIC {
        event.event_type = EventType::Log;
    } else {
        call(&mut event, record, message);
    }
    records.emit(event);
    asked.into_iter().for_each(|tool| records.emit(tool));
}

/// An answer of the model; as often repeated as it has blocks.
fn call(event: &mut AgentEvent, record: &Record<'_>, message: &Object) {
    let line = record.object;
    event.event_type = EventType::LlmRequest;
    event.status = Status::Ok;
    message::answer(event, message);
    text(line, "requestId").clone_into(&mut event.request_id);
    let key = if event.request_id.is_empty() { &event.span_id } else { &event.request_id };
    event.llm_call_key.clone_from(key);
    // Early versions say what it cost and how long it took.
    event.cost_reported = number(line, "costUSD").and_then(NanoUsd::from_usd);
    event.duration_ms = number(line, "durationMs");
    event.revision = if event.timestamp_source == TimestampSource::Event {
        event.timestamp
    } else {
        record.line.saturating_add(1)
    };
    let usage = object(message, "usage");
    let counts = usage.is_some_and(|usage| message::apply_usage(event, usage, UsageRole::Call));
    if !counts && event.llm_call_key.is_empty() {
        // Words of the model of which neither call nor usage is known: no call can be told from the next.
        event.event_type = EventType::LlmResponse;
        event.revision = 0;
    }
}

fn system(event: &mut AgentEvent, line: &Object) {
    let subtype = text(line, "subtype");
    if !subtype.is_empty() {
        subtype.clone_into(&mut event.name);
    }
    let level = text(line, "level");
    match level {
        "warning" => "warn",
        "suggestion" => "info",
        level => level,
    }
    .clone_into(&mut event.level);
    event.duration_ms = number(line, "durationMs");
    event.event_type = match subtype {
        "compact_boundary" => EventType::AgentCompaction,
        "api_error" => {
            let said = |of: Option<&Object>, name| of.map_or("", |of| text(of, name)).to_owned();
            let error = object(line, "error");
            event.status = Status::Error;
            event.error_message = said(error, "message");
            event.error_type = said(object(line, "cause"), "code");
            event.attempt = count(line, "retryAttempt").and_then(|attempt| attempt.try_into().ok());
            EventType::Error
        }
        _ => EventType::Log,
    };
}
