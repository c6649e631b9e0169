//! Events of a session of Anthropic's managed agents, as the API lists and streams them; recordings of it put them
//! into `[method, event]`.
//!
//! A call is told twice, by `span.model_request_start` and `.._end`, which share the start's id; its tokens are
//! Anthropic's own (anthropic-sdk-python, `types/beta/sessions`). An event does not name its session: the session's own
//! record, where it was recorded too, or the stream does.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::record::StreamContext;

use super::{copy, ended, fits, known_by, session_of_stream, stated, tool, truth};
use crate::json::ObjectWriter;
use crate::moment::Moment;
use crate::records::{Object, Record, RecordFormat, Records, count, object, set_time, text};

/// Events of sessions.
pub(crate) const FORMAT: RecordFormat = RecordFormat {
    name: "anthropic.managed_agents",
    aliases: &["managed-agents", "anthropic-managed-agents"],
    members: &[],
    recognises,
    follow,
    decode,
};

fn recognises(event: &Object) -> bool {
    let kind = text(event, "type").split_once('.').map_or("", |(kind, _)| kind);
    let known = matches!(kind, "agent" | "user" | "session" | "span") && event.contains_key("processed_at");
    !text(event, "id").is_empty() && (known || is_session(event))
}

/// The record of a session itself.
fn is_session(event: &Object) -> bool {
    text(event, "type") == "session" && event.contains_key("agent") && event.contains_key("environment_id")
}

fn follow(context: &mut StreamContext, event: &Object) {
    "anthropic-managed-agents".clone_into(&mut context.source);
    if is_session(event) {
        copy(&mut context.session_id, event, "id");
        let model = object(event, "agent").and_then(|agent| object(agent, "model"));
        copy(&mut context.model, model.unwrap_or(event), "id");
        if model.is_none() {
            context.model.clear();
        }
    }
    copy(&mut context.session_id, event, "session_id");
    session_of_stream(context);
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    if !fits(records, record, &FORMAT) {
        return;
    }
    let said = record.object;
    if is_session(said) {
        return records.context(record);
    }
    let mut event = records.event(record, &FORMAT, Channel::AgentLog);
    if !record.member.is_empty() {
        let mut context = ObjectWriter::new();
        context.field("method", record.member);
        event.context = context.finish();
    }
    text(said, "type").clone_into(&mut event.name);
    known_by(records, &mut event, &FORMAT, &[text(said, "id")]);
    set_time(&mut event, Moment::of_text(text(said, "processed_at")));
    copy(&mut event.agent_id, said, "session_thread_id");
    event.event_type = EventType::Log;
    match text(said, "type") {
        "user.message" => event.event_type = EventType::UserPrompt,
        "user.tool_confirmation" => decision(&mut event, said),
        "agent.message" => event.event_type = EventType::LlmResponse,
        "agent.thread_context_compacted" => event.event_type = EventType::AgentCompaction,
        "agent.tool_use" | "agent.custom_tool_use" | "agent.mcp_tool_use" => {
            copy(&mut event.tool_call_id, said, "id");
            copy(&mut event.mcp_server, said, "mcp_server_name");
            tool(&mut event, text(said, "name"), object(said, "input"));
        }
        "agent.tool_result" | "agent.mcp_tool_result" | "user.custom_tool_result" => {
            let names = ["tool_use_id", "mcp_tool_use_id", "custom_tool_use_id"];
            names.iter().for_each(|name| copy(&mut event.tool_call_id, said, name));
            tool(&mut event, "", None);
            ended(&mut event, Some(truth(said, "is_error") != Some(true)));
        }
        "span.model_request_start" => call(&mut event, said, "id", records),
        "span.model_request_end" => {
            call(&mut event, said, "model_request_start_id", records);
            ended(&mut event, Some(truth(said, "is_error") != Some(true)));
            usage(&mut event, said);
        }
        "session.thread_created" => event.event_type = EventType::AgentStart,
        "session.status_running" => event.event_type = EventType::AgentStep,
        "session.status_terminated" | "session.deleted" => event.event_type = EventType::SessionEnd,
        "session.error" => {
            event.event_type = EventType::Error;
            event.status = Status::Error;
            if let Some(error) = object(said, "error") {
                copy(&mut event.error_type, error, "type");
                copy(&mut event.error_message, error, "message");
            }
        }
        _ => {}
    }
    records.emit(event);
}

fn call(event: &mut AgentEvent, said: &Object, key: &str, records: &Records<'_>) {
    event.event_type = EventType::LlmRequest;
    "anthropic".clone_into(&mut event.provider);
    event.model.clone_from(&records.stream.model);
    copy(&mut event.llm_call_key, said, key);
}

fn usage(event: &mut AgentEvent, said: &Object) {
    let Some(usage) = object(said, "model_usage") else { return };
    let names =
        ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", ""];
    let counts = stated(usage, names);
    if !counts.any() {
        return;
    }
    event.usage_role = UsageRole::Call;
    counts.apply(TokenBasis::AnthropicRaw, event);
    // The part written for an hour, where the lifetimes are told apart.
    if let Some(hour) =
        object(usage, "cache_creation").and_then(|split| count(split, "ephemeral_1h_input_tokens"))
    {
        event.cache_write_1h = hour;
        event.cache_write_5m = event.cache_write_5m.saturating_sub(hour);
    }
}

fn decision(event: &mut AgentEvent, said: &Object) {
    event.event_type = EventType::ToolDecision;
    copy(&mut event.tool_call_id, said, "tool_use_id");
    let allowed = text(said, "result") == "allow";
    event.decision = if allowed { "accept" } else { "reject" }.to_owned();
    if !allowed {
        event.status = Status::Denied;
    }
}
