//! Cline's and Roo Code's files of a task: `ui_messages.json`, an array of what was shown, and
//! `api_conversation_history.json`, what was sent to the model and came back.
//!
//! A message is known by its time and is rewritten in place while it grows. `api_req_started` holds, as JSON text, the
//! tokens of one call in Anthropic's convention (cline, `src/shared/ExtensionMessage.ts`, `getApiMetrics.ts`); it has
//! none when the call begins. So a message sent again is another sighting of the same call or tool call, and the one that
//! states more tokens is the later. The history repeats those calls; it is content only. Neither names its task: the
//! stream does, else the time of its first message.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use fleetlog_schemas::record::StreamContext;

use super::{copy, embedded, fits, session_of_stream, stated, tool};
use crate::moment::Moment;
use crate::records::{
    Object, Record, RecordFormat, Records, count, identify, number, object, set_time, text,
};

/// What was shown.
pub(crate) const FORMAT: RecordFormat =
    RecordFormat { name: "cline.ui", aliases: &["cline", "roo"], members: &[], recognises, follow, decode };

/// What was sent to the model and came back.
pub(crate) const HISTORY: RecordFormat = RecordFormat {
    name: "cline.history",
    aliases: &["cline.api"],
    members: &[],
    recognises: is_history,
    follow,
    decode: decode_history,
};

fn recognises(message: &Object) -> bool {
    let kind = text(message, "type");
    number(message, "ts").is_some() && matches!(kind, "ask" | "say") && !text(message, kind).is_empty()
}

fn is_history(message: &Object) -> bool {
    matches!(text(message, "role"), "user" | "assistant")
        && message.contains_key("content")
        && !message.contains_key("type")
        && number(message, "ts").is_some()
}

fn follow(context: &mut StreamContext, message: &Object) {
    "cline".clone_into(&mut context.source);
    session_of_stream(context);
    if let (true, Some(ts)) = (context.session_id.is_empty(), count(message, "ts")) {
        context.session_id = ts.to_string();
    }
    if let Some(model) = object(message, "modelInfo") {
        copy(&mut context.provider, model, "providerId");
        copy(&mut context.model, model, "modelId");
    }
}

/// The event of a message, known by its session, its time and what it says by now.
fn base(records: &Records<'_>, record: &Record<'_>, format: &RecordFormat) -> AgentEvent {
    let mut event = records.event(record, format, Channel::Transcript);
    let ts = count(record.object, "ts").unwrap_or_default();
    let parts = [records.stream.session_id.as_bytes(), &ts.to_le_bytes(), record.text];
    identify(&mut event, records.identities.stated(format.name, &parts));
    set_time(&mut event, Some(Moment::of_nanos(i128::from(ts) * 1_000_000)));
    event.event_type = EventType::Log;
    event
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    if !fits(records, record, &FORMAT) {
        return;
    }
    let message = record.object;
    let mut event = base(records, record, &FORMAT);
    let kind = text(message, "type");
    text(message, kind).clone_into(&mut event.name);
    let ts = count(message, "ts").unwrap_or_default().to_string();
    // The first thing shown is the task, which older versions call a text like any other.
    let first = record.line == 0 || ts == event.session_id;
    match (kind, event.name.as_str()) {
        ("say", "task" | "user_feedback") => event.event_type = EventType::UserPrompt,
        ("say", "text") if first => event.event_type = EventType::UserPrompt,
        ("say", "text") => event.event_type = EventType::LlmResponse,
        ("say", "completion_result") => event.event_type = EventType::AgentEnd,
        ("say", "api_req_started" | "subagent_usage" | "deleted_api_reqs") => {
            call(&mut event, message, ts, records);
        }
        ("say", "condense_context") => event.event_type = EventType::AgentCompaction,
        (_, "tool" | "command" | "use_mcp_server" | "browser_action_launch") => {
            ts.clone_into(&mut event.tool_call_id);
            tool_call(&mut event, message);
        }
        (_, "error" | "diff_error" | "clineignore_error" | "api_req_failed") => {
            event.event_type = EventType::Error;
            event.status = Status::Error;
            copy(&mut event.error_message, message, "text");
        }
        _ => {}
    }
    records.emit(event);
}

fn call(event: &mut AgentEvent, message: &Object, ts: String, records: &Records<'_>) {
    event.event_type = EventType::LlmRequest;
    event.llm_call_key = ts;
    event.provider.clone_from(&records.stream.provider);
    event.model.clone_from(&records.stream.model);
    let Some(said) = embedded(message, "text") else { return };
    let counts = stated(&said, ["tokensIn", "tokensOut", "cacheReads", "cacheWrites", ""]);
    event.cost_reported = number(&said, "cost").and_then(NanoUsd::from_usd);
    if counts.any() || event.cost_reported.is_some() {
        counts.apply(TokenBasis::AnthropicRaw, event);
        event.usage_role = UsageRole::Call;
        event.status = Status::Ok;
    }
    let total = event.in_total().saturating_add(event.out_total());
    // Counts only grow while a message is rewritten.
    event.revision = i64::try_from(total).unwrap_or(i64::MAX).saturating_add(1);
    copy(&mut event.error_type, &said, "cancelReason");
    copy(&mut event.error_message, &said, "streamingFailedMessage");
    event.status = match event.error_type.as_str() {
        "" => event.status,
        "user_cancelled" => Status::Cancelled,
        _ => Status::Error,
    };
}

fn tool_call(event: &mut AgentEvent, message: &Object) {
    let said = embedded(message, "text").unwrap_or_default();
    match event.name.as_str() {
        "command" => tool(event, "execute_command", None),
        "browser_action_launch" => tool(event, "browser_action", None),
        "use_mcp_server" => {
            copy(&mut event.mcp_server, &said, "serverName");
            "mcp".clone_into(&mut event.tool_kind);
            tool(event, text(&said, "toolName"), None);
        }
        _ => tool(event, text(&said, "tool"), Some(&said)),
    }
}

fn decode_history(records: &mut Records<'_>, record: &Record<'_>) {
    if !fits(records, record, &HISTORY) {
        return;
    }
    let message = record.object;
    let mut event = base(records, record, &HISTORY);
    text(message, "role").clone_into(&mut event.name);
    if event.name == "assistant" {
        event.event_type = EventType::LlmResponse;
        event.provider.clone_from(&records.stream.provider);
        event.model.clone_from(&records.stream.model);
    }
    records.emit(event);
}
