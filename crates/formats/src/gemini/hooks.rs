//! What Gemini CLI gives its hooks: one JSON object a hook event, with a time but without an id.
//!
//! The events of a model's answer come once a piece of it, so they are content and no calls. A tool's call is taken from
//! the hook after it; the one before it would tell of it again.

use fleetlog_schemas::event::{Channel, EventType, Status};
use fleetlog_schemas::record::StreamContext;

use super::FAMILY;
use super::chat::{SOURCE, note_path};
use crate::hint::Hint;
use crate::json::ObjectWriter;
use crate::moment::Moment;
use crate::records::{Object, Record, RecordFormat, Records, identify, object, set_time, text};
use crate::tools::refine_gemini;

/// Hook payloads.
pub(crate) const FORMAT: RecordFormat = RecordFormat {
    name: Hint::GEMINI_HOOKS.as_str(),
    aliases: &["gemini-hooks", "gemini-cli"],
    members: &[],
    recognises,
    follow,
    decode,
};

/// The events whose names are Gemini CLI's alone.
const OWN: [&str; 8] = [
    "BeforeTool",
    "AfterTool",
    "BeforeAgent",
    "AfterAgent",
    "BeforeModel",
    "AfterModel",
    "BeforeToolSelection",
    "PreCompress",
];

fn recognises(hook: &Object) -> bool {
    let event = text(hook, "hook_event_name");
    // Claude Code's events of these names have no time.
    let shared = matches!(event, "SessionStart" | "SessionEnd" | "Notification");
    !text(hook, "session_id").is_empty() && (OWN.contains(&event) || shared && hook.contains_key("timestamp"))
}

/// A hook says everything itself; nothing of one goes over to the next.
fn follow(stream: &mut StreamContext, hook: &Object) {
    SOURCE.clone_into(&mut stream.source);
    text(hook, "session_id").clone_into(&mut stream.session_id);
    text(hook, "cwd").clone_into(&mut stream.cwd);
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    let hook = record.object;
    let mut event = records.event(record, &FORMAT, Channel::Hook);
    text(hook, "hook_event_name").clone_into(&mut event.name);
    set_time(&mut event, Moment::of_text(text(hook, "timestamp")));
    let mut context = ObjectWriter::new();
    if !text(hook, "cwd").is_empty() {
        context.field("cwd", text(hook, "cwd"));
    }
    event.context = context.finish();
    event.event_type = match event.name.as_str() {
        "SessionStart" => EventType::SessionStart,
        "SessionEnd" => EventType::SessionEnd,
        "BeforeAgent" => EventType::UserPrompt,
        "AfterAgent" => EventType::AgentStep,
        "AfterModel" => EventType::LlmResponse,
        "PreCompress" => EventType::AgentCompaction,
        _ => EventType::Log,
    };
    if let Some(request) = object(hook, "llm_request") {
        text(request, "model").clone_into(&mut event.model_requested);
    }
    if event.name == "AfterTool" {
        text(hook, "tool_name").clone_into(&mut event.tool_name);
        if let Some(server) = object(hook, "mcp_context") {
            text(server, "server_name").clone_into(&mut event.mcp_server);
        }
        event.call_family = FAMILY.to_owned();
        refine_gemini(&mut event);
        note_path(&mut event, object(hook, "tool_input"));
        let failed = object(hook, "tool_response").and_then(|response| response.get("error"));
        let failed = failed.filter(|error| !error.is_null());
        event.status = if failed.is_some() { Status::Error } else { Status::Ok };
        if let Some(error) = failed {
            let said = error.get("message").unwrap_or(error);
            event.error_message = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
        }
    }
    if !text(hook, "timestamp").is_empty() {
        // Two equal hooks of one millisecond may both have run.
        let key = records.identities.content(FORMAT.name, &[event.session_id.as_bytes(), record.text]);
        identify(&mut event, key);
    }
    records.emit(event);
}
