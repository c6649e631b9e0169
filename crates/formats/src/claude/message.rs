//! What Claude Code's files, streams and hooks have in common: the API's messages and the outcomes of tools.
//!
//! A tool call shows twice: as the model asks for it, and as its result comes back. Neither says what the other does,
//! so both are sightings of one call, in this order ([`ASKED`], [`ANSWERED`]).

use fleetlog_schemas::event::{AgentEvent, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::id::Key128;
use serde_json::Value;

use crate::records::{Object, Record, RecordFormat, Records, count, identify, number, object, text};
use crate::tokens::Stated;
use crate::{tools, usage};

/// The name in `source`.
pub(super) const SOURCE: &str = "claude-code";
/// Model of messages that the program wrote itself, without a call.
pub(super) const SYNTHETIC: &str = "<synthetic>";
/// Revision of the sighting in which a tool call is asked for.
pub(super) const ASKED: i64 = 1;
/// Revision of the sighting in which its result comes back.
pub(super) const ANSWERED: i64 = 2;

/// How the program tells the model that a tool was not allowed to run.
const REFUSALS: &[&str] =
    &["The user doesn't want to ", "Permission to use ", "Claude requested permissions to use "];

/// The identity of a line: session and its own `uuid`, else its place.
pub(crate) fn key_of(records: &Records<'_>, record: &Record<'_>, format: &RecordFormat) -> Key128 {
    let (session, uuid) = (records.stream.session_id.as_str(), text(record.object, "uuid"));
    if session.is_empty() || uuid.is_empty() {
        return records.place(record, format);
    }
    records.identities.stated(format.name, &[session.as_bytes(), uuid.as_bytes()])
}

/// The event as the `nth` part of its line, from 1, with an identity of its own.
pub(crate) fn part(mut event: AgentEvent, nth: u64) -> AgentEvent {
    let key = Key128::of([event.dedup_key.0.as_slice(), &nth.to_le_bytes()]);
    identify(&mut event, key);
    event
}

/// The event of the `nth` block of a line's message: the line's own for 0, else a part of it that says the block alone.
pub(crate) fn of_block(line: &AgentEvent, nth: u64, block: &Object) -> AgentEvent {
    match nth {
        0 => line.clone(),
        nth => AgentEvent { data: json(block), ..part(bare(line), nth) },
    }
}

/// Names the event of a printed row by its type, or what a `system` row tells of, and the tool call that it is below.
pub(crate) fn name_row(event: &mut AgentEvent, row: &Object) {
    let (kind, subtype) = (text(row, "type"), text(row, "subtype"));
    let name = if kind == "system" && !subtype.is_empty() { subtype } else { kind };
    name.clone_into(&mut event.name);
    text(row, "parent_tool_use_id").clone_into(&mut event.parent_id);
}

/// Where and when a line's event happened, without what it says.
pub(crate) fn bare(line: &AgentEvent) -> AgentEvent {
    AgentEvent {
        event_id: line.event_id.clone(),
        dedup_key: line.dedup_key,
        project_id: line.project_id.clone(),
        source: line.source.clone(),
        source_format: line.source_format.clone(),
        source_version: line.source_version.clone(),
        channel: line.channel,
        timestamp: line.timestamp,
        timestamp_source: line.timestamp_source,
        received_at: line.received_at,
        name: line.name.clone(),
        session_id: line.session_id.clone(),
        parent_id: line.parent_id.clone(),
        turn_id: line.turn_id.clone(),
        agent_id: line.agent_id.clone(),
        agent_name: line.agent_name.clone(),
        context: line.context.clone(),
        data: "{}".to_owned(),
        raw_partition: line.raw_partition,
        raw_offset: line.raw_offset,
        raw_index: line.raw_index,
        ..AgentEvent::default()
    }
}

/// The tools that an assistant's message asks for, as events of their own beside the line's.
pub(super) fn tools_asked(line: &AgentEvent, message: &Object) -> Vec<AgentEvent> {
    let asked = (1..).zip(blocks(message, "tool_use")).map(|(nth, block)| {
        let mut tool = of_block(line, nth, block);
        text(message, "id").clone_into(&mut tool.parent_id);
        asked(&mut tool, text(block, "name"), text(block, "id"), object(block, "input"));
        tool
    });
    asked.collect()
}

/// The results of tools that a user's message brings back, the line's own event first; none when it brings none.
///
/// `outcome` is the program's own account. It does not say which of several results it belongs to.
pub(super) fn tools_answered(
    line: &AgentEvent,
    message: &Object,
    outcome: Option<&Value>,
) -> Vec<AgentEvent> {
    let results: Vec<&Object> = blocks(message, "tool_result").collect();
    let outcome = outcome.filter(|_| results.len() == 1);
    let answered = (0..).zip(results).map(|(nth, block)| {
        let mut tool = of_block(line, nth, block);
        answered(&mut tool, block, outcome);
        tool
    });
    answered.collect()
}

/// What the program writes in the model's place when a call failed for good.
pub(super) fn failure(event: &mut AgentEvent, line: &Object, words: &str) {
    event.event_type = EventType::Error;
    event.status = Status::Error;
    "error".clone_into(&mut event.level);
    text(line, "error").clone_into(&mut event.error_type);
    words.clone_into(&mut event.error_message);
}

fn json(block: &Object) -> String {
    // Writing a value that was read does not fail.
    serde_json::to_string(block).unwrap_or_default()
}

/// The blocks of one type within a message's content.
pub(crate) fn blocks<'o>(message: &'o Object, kind: &'static str) -> impl Iterator<Item = &'o Object> {
    let content = message.get("content").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    content.iter().filter_map(Value::as_object).filter(move |block| text(block, "type") == kind)
}

/// The first text of a content, be it a string or blocks.
pub(crate) fn words(content: Option<&Value>) -> &str {
    match content {
        Some(Value::String(words)) => words,
        Some(Value::Array(blocks)) => {
            let mut texts = blocks.iter().filter_map(Value::as_object).map(|block| text(block, "text"));
            texts.find(|words| !words.is_empty()).unwrap_or_default()
        }
        _ => "",
    }
}

/// What a message says of the answer: model, reason of its end, and the API's id of the message, which is the
/// observation's (`span_id`).
pub(super) fn answer(event: &mut AgentEvent, message: &Object) {
    text(message, "model").clone_into(&mut event.model);
    text(message, "stop_reason").clone_into(&mut event.finish_reason);
    text(message, "id").clone_into(&mut event.span_id);
    "anthropic".clone_into(&mut event.provider);
}

/// Writes the buckets that a message's `usage` states; false when it states none.
pub(super) fn apply_usage(event: &mut AgentEvent, usage: &Object, role: UsageRole) -> bool {
    let stated = Stated {
        input: count(usage, "input_tokens"),
        output: count(usage, "output_tokens"),
        cache_read: count(usage, "cache_read_input_tokens"),
        cache_write: count(usage, "cache_creation_input_tokens"),
        reasoning: None,
    };
    if !stated.any() {
        return false;
    }
    stated.apply(TokenBasis::AnthropicRaw, event);
    event.usage_role = role;
    usage::writes([object(usage, "cache_creation")]).apply(event);
    true
}

/// A tool call as it is asked for, with its input.
pub(super) fn asked(event: &mut AgentEvent, name: &str, id: &str, input: Option<&Object>) {
    name.clone_into(&mut event.tool_name);
    id.clone_into(&mut event.tool_call_id);
    tools::refine_claude(event);
    event.revision = ASKED;
    if let Some(input) = input {
        let path = [text(input, "file_path"), text(input, "notebook_path")]
            .into_iter()
            .find(|path| !path.is_empty());
        path.unwrap_or_default().clone_into(&mut event.file_path);
    }
}

/// A `tool_result` block, and what the program adds to it about the outcome.
fn answered(event: &mut AgentEvent, block: &Object, outcome: Option<&Value>) {
    text(block, "tool_use_id").clone_into(&mut event.tool_call_id);
    tools::refine_claude(event);
    event.revision = ANSWERED;
    let failed = block.get("is_error").and_then(Value::as_bool) == Some(true);
    event.status = if failed { Status::Error } else { Status::Ok };
    if let Some(outcome) = outcome {
        take_outcome(event, outcome);
    }
    if failed {
        take_failure(event, words(block.get("content")));
    }
}

/// Why a call failed, in the words given to the model.
pub(super) fn take_failure(event: &mut AgentEvent, words: &str) {
    words.clone_into(&mut event.error_message);
    if REFUSALS.iter().any(|refusal| words.starts_with(refusal)) {
        event.status = Status::Denied;
    }
    let first = words.lines().next().unwrap_or_default().trim_start_matches("Error: ");
    if let Some(code) = first.strip_prefix("Exit code ") {
        event.exit_code = code.trim().parse().ok();
    }
}

/// What a tool's own account of its outcome says: text when it failed, else an object whose members differ by tool.
pub(super) fn take_outcome(event: &mut AgentEvent, outcome: &Value) {
    let Some(outcome) = outcome.as_object() else { return };
    if outcome.get("interrupted").and_then(Value::as_bool) == Some(true) {
        event.status = Status::Cancelled;
    }
    let file = object(outcome, "file");
    let path = file.map_or("", |file| text(file, "filePath"));
    let path = if path.is_empty() { text(outcome, "filePath") } else { path };
    if !path.is_empty() {
        path.clone_into(&mut event.file_path);
    }
    if let Some(code) = outcome.get("exitCode").or_else(|| outcome.get("code")).and_then(Value::as_i64) {
        event.exit_code = code.try_into().ok();
    }
    let seconds = || number(outcome, "durationSeconds").map(|seconds| seconds * 1000.0);
    let spent = number(outcome, "durationMs").or_else(|| number(outcome, "totalDurationMs")).or_else(seconds);
    event.duration_ms = spent.or(event.duration_ms);
    take_lines(event, outcome);
}

/// Lines added and removed: counted in the patch; those of a new file are all added.
fn take_lines(event: &mut AgentEvent, outcome: &Object) {
    let Some(hunks) = outcome.get("structuredPatch").and_then(Value::as_array) else { return };
    let (mut added, mut removed) = (0, 0);
    for line in
        hunks.iter().filter_map(|hunk| hunk.get("lines")?.as_array()).flatten().filter_map(Value::as_str)
    {
        added += u64::from(line.starts_with('+'));
        removed += u64::from(line.starts_with('-'));
    }
    if hunks.is_empty() && text(outcome, "type") == "create" {
        added = text(outcome, "content").lines().count() as u64;
    }
    event.lines_added = Some(added);
    event.lines_removed = Some(removed);
}
