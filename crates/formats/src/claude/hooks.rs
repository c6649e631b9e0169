//! What Claude Code gives its hooks: one JSON object a hook event, posted by a hook of type `http` or piped through by
//! a command.
//!
//! Hooks carry neither time nor id nor usage. A tool's hooks are known by session, event and `tool_use_id`, so the same
//! event told by two hooks is one; anything else is known by its arrival, or by its place where hooks were written to a
//! file that is sent as a stream.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status};
use fleetlog_schemas::record::StreamContext;

use super::message::{self, SOURCE};
use crate::hint::Hint;
use crate::records::{Object, Record, RecordFormat, Records, identify, number, object, said, text};

/// Hook payloads.
pub(crate) const FORMAT: RecordFormat = RecordFormat {
    name: Hint::CLAUDE_HOOKS.as_str(),
    aliases: &["claude", "claude-code", "claude-hooks"],
    members: &[],
    recognises,
    follow,
    decode,
};

fn recognises(hook: &Object) -> bool {
    let event = text(hook, "hook_event_name");
    // Gemini CLI's hooks are named alike.
    let foreign = event.starts_with("Before") || event.starts_with("After") || event == "PreCompress";
    event.starts_with(|first: char| first.is_ascii_uppercase())
        && !foreign
        && !text(hook, "session_id").is_empty()
}

/// A hook says everything itself; nothing of one goes over to the next.
fn follow(context: &mut StreamContext, hook: &Object) {
    SOURCE.clone_into(&mut context.source);
    text(hook, "session_id").clone_into(&mut context.session_id);
    text(hook, "prompt_id").clone_into(&mut context.turn_id);
    text(hook, "agent_id").clone_into(&mut context.agent_id);
    text(hook, "cwd").clone_into(&mut context.cwd);
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    let hook = record.object;
    let mut event = records.event(record, &FORMAT, Channel::Hook);
    text(hook, "hook_event_name").clone_into(&mut event.name);
    text(hook, "agent_type").clone_into(&mut event.agent_name);
    text(hook, "model").clone_into(&mut event.model);
    event.context = said(hook, &["cwd", "permission_mode"]);
    classify(&mut event, hook);
    if !event.tool_call_id.is_empty() && !event.session_id.is_empty() {
        let parts = [&event.session_id, &event.name, &event.tool_call_id].map(|part| part.as_bytes());
        let key = records.identities.stated(FORMAT.name, &parts);
        identify(&mut event, key);
    } else if records.stream.stream_id.is_empty() {
        identify(&mut event, records.identities.arrival(record.index));
    }
    records.emit(event);
}

fn classify(event: &mut AgentEvent, hook: &Object) {
    event.event_type = match event.name.as_str() {
        "SessionStart" => EventType::SessionStart,
        "SessionEnd" => EventType::SessionEnd,
        "UserPromptSubmit" => EventType::UserPrompt,
        "PreToolUse" | "PostToolUse" | "PostToolUseFailure" => return tool(event, hook),
        "PermissionDenied" => {
            message::asked(event, text(hook, "tool_name"), text(hook, "tool_use_id"), None);
            event.revision = 0;
            event.status = Status::Denied;
            "reject".clone_into(&mut event.decision);
            EventType::ToolDecision
        }
        "SubagentStart" => EventType::AgentStart,
        "SubagentStop" => EventType::AgentEnd,
        // Its counterpart `PostCompact` would tell of the same compaction again.
        "PreCompact" => EventType::AgentCompaction,
        "StopFailure" => {
            event.status = Status::Error;
            text(hook, "error").clone_into(&mut event.error_type);
            text(hook, "error_details").clone_into(&mut event.error_message);
            EventType::Error
        }
        _ => EventType::Log,
    };
}

fn tool(event: &mut AgentEvent, hook: &Object) {
    message::asked(event, text(hook, "tool_name"), text(hook, "tool_use_id"), object(hook, "tool_input"));
    if event.name == "PreToolUse" {
        return;
    }
    event.revision = message::ANSWERED;
    event.status = Status::Ok;
    if let Some(outcome) = hook.get("tool_response") {
        message::take_outcome(event, outcome);
    }
    event.duration_ms = number(hook, "duration_ms").or(event.duration_ms);
    if event.name == "PostToolUseFailure" {
        event.status = Status::Error;
        message::take_failure(event, text(hook, "error"));
        if hook.get("is_interrupt").and_then(serde_json::Value::as_bool) == Some(true) {
            event.status = Status::Cancelled;
        }
    }
}
