//! Cursor's hooks: one payload a hook, with neither time nor usage (cursor.com/docs/agent/hooks).
//!
//! A tool that has a hook of its own (`afterShellExecution`, `afterMCPExecution`, `afterFileEdit`, `beforeReadFile`) is
//! reported by it; `postToolUse` reports it once more under an id that the other hook has not, so there it counts only
//! for the rest of the tools. What is asked before a tool runs is a log.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status};
use fleetlog_schemas::record::StreamContext;

use super::{copy, fits, known_by, lines, tool};
use crate::hint::Hint;
use crate::records::{Object, Record, RecordFormat, Records, identify, number, object, text};

/// Hook payloads.
pub(crate) const FORMAT: RecordFormat = RecordFormat {
    name: Hint::CURSOR_HOOKS.as_str(),
    aliases: &["cursor"],
    members: &[],
    recognises,
    follow,
    decode,
};

fn recognises(hook: &Object) -> bool {
    text(hook, "hook_event_name").starts_with(|first: char| first.is_ascii_lowercase())
        && ["conversation_id", "session_id"].iter().any(|name| !text(hook, name).is_empty())
}

fn follow(context: &mut StreamContext, hook: &Object) {
    "cursor".clone_into(&mut context.source);
    // The session hooks name it `session_id`; it is the same.
    copy(&mut context.session_id, hook, "session_id");
    copy(&mut context.session_id, hook, "conversation_id");
    text(hook, "generation_id").clone_into(&mut context.turn_id);
    copy(&mut context.version, hook, "cursor_version");
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    if !fits(records, record, &FORMAT) {
        return;
    }
    let hook = record.object;
    let mut event = records.event(record, &FORMAT, Channel::Hook);
    text(hook, "hook_event_name").clone_into(&mut event.name);
    copy(&mut event.tool_call_id, hook, "tool_use_id");
    if records.stream.stream_id.is_empty() {
        // Nothing in a payload tells two equal ones apart.
        identify(&mut event, records.identities.arrival(record.index));
    }
    known_by(
        records,
        &mut event,
        &FORMAT,
        &[&records.stream.session_id, text(hook, "hook_event_name"), text(hook, "tool_use_id")],
    );
    copy(&mut event.user_id, hook, "user_email");
    copy(&mut event.model, hook, "model");
    event.duration_ms = number(hook, "duration").or_else(|| number(hook, "duration_ms"));
    event.event_type = EventType::Log;
    classify(&mut event, hook);
    records.emit(event);
}

fn classify(event: &mut AgentEvent, hook: &Object) {
    match text(hook, "hook_event_name") {
        "sessionStart" => event.event_type = EventType::SessionStart,
        "sessionEnd" => event.event_type = EventType::SessionEnd,
        "beforeSubmitPrompt" => event.event_type = EventType::UserPrompt,
        "afterAgentResponse" => event.event_type = EventType::LlmResponse,
        "subagentStart" => event.event_type = EventType::AgentStart,
        "preCompact" => event.event_type = EventType::AgentCompaction,
        "stop" | "subagentStop" => {
            event.event_type = EventType::AgentEnd;
            event.status = match text(hook, "status") {
                "completed" => Status::Ok,
                "aborted" => Status::Cancelled,
                "error" => Status::Error,
                _ => Status::Unset,
            };
        }
        "afterShellExecution" => tool(event, "Shell", None),
        "afterMCPExecution" => {
            "mcp".clone_into(&mut event.tool_kind);
            tool(event, text(hook, "tool_name"), None);
        }
        "beforeReadFile" | "beforeTabFileRead" => tool(event, "Read", Some(hook)),
        "afterFileEdit" | "afterTabFileEdit" => edit(event, hook),
        "postToolUse" if !has_own_hook(hook) => {
            tool(event, text(hook, "tool_name"), object(hook, "tool_input"));
            event.status = Status::Ok;
        }
        "postToolUseFailure" if !has_own_hook(hook) => {
            tool(event, text(hook, "tool_name"), object(hook, "tool_input"));
            event.status = Status::Error;
            copy(&mut event.error_message, hook, "error_message");
            copy(&mut event.error_type, hook, "failure_type");
        }
        _ => {}
    }
}

fn has_own_hook(hook: &Object) -> bool {
    let name = text(hook, "tool_name");
    matches!(name, "Shell" | "Read" | "Write" | "Edit" | "StrReplace") || name.starts_with("MCP:")
}

fn edit(event: &mut AgentEvent, hook: &Object) {
    tool(event, "Edit", Some(hook));
    let edits = hook.get("edits").and_then(|edits| edits.as_array());
    let sum = |name: &str| -> Option<u64> {
        let edits = edits?.iter().filter_map(|edit| edit.as_object());
        Some(edits.map(|edit| lines(text(edit, name))).fold(0, u64::saturating_add))
    };
    event.lines_removed = sum("old_string");
    event.lines_added = sum("new_string");
}
