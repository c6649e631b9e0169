//! GitHub Copilot CLI's session log: `~/.copilot/session-state/<id>/events.jsonl`.
//!
//! The head names the session. Each `session.usage_record` is one call; its input counts the cached tokens too, and its
//! `cost` is premium requests, not money. Older versions wrote only the totals of `session.shutdown`: they are a running
//! total, counted where nothing else states usage. Copilot's spans tell the same calls without a shared id (shape: the
//! Copilot SDK's session events, and logs of 1.0.78 to 1.0.95 as read by public parsers).

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use super::{copy, ended, fits, further, known_by, stated, tool, truth};
use crate::moment::Moment;
use crate::records::{Object, Record, RecordFormat, Records, count, number, object, set_time, text};
use crate::unknown;

/// Session logs.
pub(crate) const FORMAT: RecordFormat =
    RecordFormat { name: "copilot.session", aliases: &["copilot"], members: &[], recognises, follow, decode };

const TYPES: [&str; 11] = [
    "session",
    "user",
    "assistant",
    "tool",
    "system",
    "subagent",
    "hook",
    "permission",
    "skill",
    "model",
    "external_tool",
];
const COUNTS: [&str; 5] =
    ["inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens", "reasoningTokens"];

fn recognises(line: &Object) -> bool {
    let kind = text(line, "type");
    let known = kind == "abort" || kind.split_once('.').is_some_and(|(kind, _)| TYPES.contains(&kind));
    known && line.contains_key("parentId") && !text(line, "id").is_empty() && object(line, "data").is_some()
}

fn follow(context: &mut StreamContext, line: &Object) {
    "github-copilot".clone_into(&mut context.source);
    let Some(data) = object(line, "data") else { return };
    if matches!(text(line, "type"), "session.start" | "session.resume") {
        copy(&mut context.session_id, data, "sessionId");
        copy(&mut context.version, data, "copilotVersion");
        copy(&mut context.model, data, "selectedModel");
        if let Some(place) = object(data, "context") {
            copy(&mut context.cwd, place, "cwd");
        }
    }
    if text(line, "type") == "session.model_change" {
        copy(&mut context.model, data, "newModel");
    }
    // All that a prompt sets off shares its interaction.
    copy(&mut context.turn_id, data, "interactionId");
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    if !fits(records, record, &FORMAT) {
        return;
    }
    if records.stream.session_id.is_empty() {
        return records.keep(record, &FORMAT, unknown::NO_CONTEXT);
    }
    let line = record.object;
    let empty = Object::new();
    let data = object(line, "data").unwrap_or(&empty);
    let mut event = records.event(record, &FORMAT, Channel::Transcript);
    text(line, "type").clone_into(&mut event.name);
    known_by(records, &mut event, &FORMAT, &[&records.stream.session_id, text(line, "id")]);
    copy(&mut event.parent_id, line, "parentId");
    copy(&mut event.agent_id, line, "agentId");
    copy(&mut event.agent_id, data, "parentToolCallId");
    set_time(&mut event, Moment::of_text(text(line, "timestamp")));
    event.event_type = EventType::Log;
    match text(line, "type") {
        "session.start" | "session.resume" => event.event_type = EventType::SessionStart,
        "session.shutdown" => return shutdown(records, event, data),
        "session.compaction_complete" => event.event_type = EventType::AgentCompaction,
        "session.error" => {
            event.event_type = EventType::Error;
            event.status = Status::Error;
            copy(&mut event.error_type, data, "errorType");
            copy(&mut event.error_message, data, "message");
        }
        // Skills, nudges and sub-agents' prompts are written as the user's too.
        "user.message" if matches!(text(data, "source"), "" | "user") => {
            event.event_type = EventType::UserPrompt;
        }
        "assistant.message" => {
            event.event_type = EventType::LlmResponse;
            copy(&mut event.model, data, "model");
        }
        "assistant.turn_start" => event.event_type = EventType::AgentStep,
        "session.usage_record" | "assistant.usage" => {
            call(&mut event, object(data, "usage").unwrap_or(data));
        }
        "tool.execution_start" | "tool.execution_complete" => tool_call(&mut event, data),
        "subagent.started" => event.event_type = EventType::AgentStart,
        "subagent.completed" | "subagent.failed" => {
            event.event_type = EventType::AgentEnd;
            ended(&mut event, Some(text(line, "type") == "subagent.completed"));
            copy(&mut event.error_message, data, "error");
        }
        "abort" => event.status = Status::Cancelled,
        _ => {}
    }
    copy(&mut event.agent_name, data, "agentName");
    records.emit(event);
}

fn call(event: &mut AgentEvent, usage: &Object) {
    event.event_type = EventType::LlmRequest;
    event.status = Status::Ok;
    "copilot".clone_into(&mut event.call_family);
    event.usage_role = UsageRole::Call;
    copy(&mut event.model, usage, "model");
    let accounting = object(usage, "accounting").map(|accounting| text(accounting, "usageId"));
    let key = Some(text(usage, "apiCallId")).filter(|key| !key.is_empty()).or(accounting);
    event.llm_call_key = key.filter(|key| !key.is_empty()).unwrap_or(&event.event_id).to_owned();
    copy(&mut event.request_id, usage, "providerCallId");
    copy(&mut event.finish_reason, usage, "finishReason");
    event.duration_ms = number(usage, "duration");
    event.ttft_ms = number(usage, "ttftMs");
    stated(usage, COUNTS).apply(TokenBasis::Inclusive, event);
    if count(usage, "cacheTtlSeconds").is_some_and(|seconds| seconds >= 3600) {
        event.cache_write_1h = std::mem::take(&mut event.cache_write_5m);
    }
}

/// The totals of a session, one series for each model.
fn shutdown(records: &mut Records<'_>, mut event: AgentEvent, data: &Object) {
    event.event_type = EventType::SessionEnd;
    ended(&mut event, Some(text(data, "shutdownType") != "error"));
    copy(&mut event.error_message, data, "errorReason");
    let models = object(data, "modelMetrics").into_iter().flatten();
    let totals: Vec<AgentEvent> = models
        .filter_map(|(model, metrics)| {
            let usage = metrics.get("usage").and_then(Value::as_object)?;
            let mut total = further(records, &event, model);
            total.event_type = EventType::LlmRequest;
            total.model.clone_from(model);
            total.llm_call_key = format!("session:{model}");
            total.usage_role = UsageRole::Cumulative;
            stated(usage, COUNTS).apply(TokenBasis::Inclusive, &mut total);
            Some(total)
        })
        .collect();
    records.emit(event);
    totals.into_iter().for_each(|total| records.emit(total));
}

fn tool_call(event: &mut AgentEvent, data: &Object) {
    copy(&mut event.tool_call_id, data, "toolCallId");
    copy(&mut event.mcp_server, data, "mcpServerName");
    tool(event, text(data, "toolName"), object(data, "arguments"));
    ended(event, truth(data, "success"));
    if let Some(error) = object(data, "error") {
        copy(&mut event.error_type, error, "code");
        copy(&mut event.error_message, error, "message");
    }
    // The shell tool ends its output with the words `<exited with exit code 0>`.
    let content = object(data, "result").map(|result| text(result, "content")).unwrap_or_default();
    if let Some((_, after)) = content.rsplit_once("exited with exit code ") {
        let digits = after.find(|end: char| end != '-' && !end.is_ascii_digit()).unwrap_or(after.len());
        event.exit_code = after.get(..digits).and_then(|code| code.parse().ok());
    }
}
