//! OpenHands' events: V0's of the application (`id` a number, `action` or `observation`) and V1's of the agent SDK (`id`
//! a UUID, `kind`). Times have no zone; they are UTC.
//!
//! Usage is only ever stated as totals so far: V0 repeats `llm_metrics` on events, V1 sends `stats` of each use of a
//! model when they change and keeps them in `base_state.json` (OpenHands, `openhands/events/serialization`,
//! software-agent-sdk, `conversation_stats.py`, `llm/utils/metrics.py`). Events name no session: the stream does, or
//! the state.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use super::{copy, ended, exit_code, fits, further, known_by, session_of_stream, stated, tool, truth};
use crate::moment::Moment;
use crate::records::{Object, Record, RecordFormat, Records, number, object, set_time, text};

/// Events of both generations, and the state of a conversation.
pub(crate) const FORMAT: RecordFormat = RecordFormat {
    name: "openhands.events",
    aliases: &["openhands"],
    members: &[],
    recognises,
    follow,
    decode,
};

fn recognises(event: &Object) -> bool {
    let says = ["action", "observation", "kind"].iter().any(|name| !text(event, name).is_empty());
    let sent = !text(event, "source").is_empty() && !text(event, "timestamp").is_empty();
    let numbered = event.get("id").is_some_and(|id| id.is_number() || id.is_string());
    says && sent && numbered || state_stats(event).is_some()
}

/// The totals in the state of a V1 conversation, `base_state.json`.
fn state_stats(state: &Object) -> Option<&Object> {
    let stats = object(state, "stats").and_then(|stats| object(stats, "usage_to_metrics"))?;
    state.contains_key("agent").then_some(stats)
}

/// The totals that an event of the state's changes carries.
fn changed_stats(event: &Object) -> Option<&Object> {
    let value = object(event, "value")?;
    let stats = match text(event, "key") {
        "stats" => value,
        "full_state" => object(value, "stats")?,
        _ => return None,
    };
    object(stats, "usage_to_metrics")
}

fn follow(context: &mut StreamContext, event: &Object) {
    "openhands".clone_into(&mut context.source);
    let state = match state_stats(event) {
        Some(_) => Some(event),
        None => object(event, "value").filter(|_| text(event, "key") == "full_state"),
    };
    if let Some(state) = state {
        copy(&mut context.session_id, state, "id");
    }
    session_of_stream(context);
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    if !fits(records, record, &FORMAT) {
        return;
    }
    let said = record.object;
    let mut event = records.event(record, &FORMAT, Channel::Transcript);
    let id = said.get("id").map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
    let id = id.unwrap_or_default();
    set_time(&mut event, Moment::of_text(text(said, "timestamp")));
    event.event_type = EventType::Log;
    if let Some(stats) = state_stats(said) {
        // A state is rewritten in place, so its content is a part of what it is.
        "state".clone_into(&mut event.name);
        return with_totals(records, event, stats);
    }
    if !event.session_id.is_empty() {
        known_by(records, &mut event, &FORMAT, &[&records.stream.session_id, &id, text(said, "timestamp")]);
    }
    if text(said, "kind").is_empty() {
        application(&mut event, said, &id);
    } else {
        sdk(&mut event, said);
    }
    match (changed_stats(said), object(said, "llm_metrics")) {
        (Some(stats), _) => with_totals(records, event, stats),
        (None, Some(metrics)) => {
            let total = total(records, &event, "agent", metrics);
            records.emit(event);
            total.into_iter().for_each(|total| records.emit(total));
        }
        (None, None) => records.emit(event),
    }
}

/// Emits an event and the totals that it states, one series for each use of a model.
fn with_totals(records: &mut Records<'_>, event: AgentEvent, stats: &Object) {
    let of_use = |(usage, metrics): (&String, &Value)| total(records, &event, usage, metrics.as_object()?);
    let totals: Vec<AgentEvent> = stats.iter().filter_map(of_use).collect();
    records.emit(event);
    totals.into_iter().for_each(|total| records.emit(total));
}

fn total(records: &Records<'_>, event: &AgentEvent, usage: &str, metrics: &Object) -> Option<AgentEvent> {
    let tokens = object(metrics, "accumulated_token_usage")?;
    let names =
        ["prompt_tokens", "completion_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"];
    let counts = stated(tokens, names);
    let mut total = further(records, event, usage);
    total.event_type = EventType::LlmRequest;
    "llm_metrics".clone_into(&mut total.name);
    usage.clone_into(&mut total.llm_call_key);
    total.usage_role = UsageRole::Cumulative;
    copy(&mut total.model, metrics, "model_name");
    copy(&mut total.model, tokens, "model");
    counts.apply(TokenBasis::Inclusive, &mut total);
    total.cost_reported = number(metrics, "accumulated_cost").and_then(NanoUsd::from_usd);
    Some(total)
}

/// An event of V0. An observation names the action that caused it by number.
fn application(event: &mut AgentEvent, said: &Object, id: &str) {
    let action = text(said, "action");
    let word = if action.is_empty() { text(said, "observation") } else { action };
    word.clone_into(&mut event.name);
    let empty = Object::new();
    let of_action = object(said, "args").unwrap_or(&empty);
    let result = object(said, "extras").unwrap_or(&empty);
    match (action.is_empty(), word) {
        (false, "message") if text(said, "source") == "user" => event.event_type = EventType::UserPrompt,
        (false, "message") => event.event_type = EventType::LlmResponse,
        (false, "finish" | "reject") => event.event_type = EventType::AgentEnd,
        (false, "delegate") => event.event_type = EventType::AgentStart,
        (false, "condensation") => event.event_type = EventType::AgentCompaction,
        (
            _,
            "run" | "run_ipython" | "read" | "write" | "edit" | "browse" | "browse_interactive"
            | "call_tool_mcp" | "mcp" | "delete",
        ) => {
            tool(event, word, Some(if action.is_empty() { result } else { of_action }));
            name_call(event, said, id);
            if word == "call_tool_mcp" {
                copy(&mut event.tool_name, of_action, "name");
            }
            if action.is_empty() {
                let metadata = object(result, "metadata").unwrap_or(result);
                event.exit_code = exit_code(metadata, "exit_code");
                ended(event, Some(event.exit_code.unwrap_or(0) == 0));
            }
        }
        (true, "error") => {
            event.event_type = EventType::Error;
            event.status = Status::Error;
            copy(&mut event.error_type, result, "error_id");
            copy(&mut event.error_message, said, "content");
        }
        _ => {}
    }
}

/// The model's id of the tool call, else the number of the action, which its observation names too.
fn name_call(event: &mut AgentEvent, said: &Object, id: &str) {
    let cause = said.get("cause").and_then(Value::as_i64).filter(|cause| *cause >= 0);
    event.tool_call_id = cause.map_or_else(|| format!("action:{id}"), |cause| format!("action:{cause}"));
    if let Some(call) = object(said, "tool_call_metadata") {
        copy(&mut event.tool_call_id, call, "tool_call_id");
    }
}

/// An event of V1.
fn sdk(event: &mut AgentEvent, said: &Object) {
    text(said, "kind").clone_into(&mut event.name);
    copy(&mut event.tool_call_id, said, "tool_call_id");
    copy(&mut event.request_id, said, "llm_response_id");
    let name = text(said, "tool_name");
    match text(said, "kind") {
        "MessageEvent" if text(said, "source") == "user" => event.event_type = EventType::UserPrompt,
        "MessageEvent" => event.event_type = EventType::LlmResponse,
        "ActionEvent" if name == "finish" => event.event_type = EventType::AgentEnd,
        "ActionEvent" => tool(event, name, object(said, "action")),
        "ObservationEvent" if name == "finish" => {}
        "ObservationEvent" => {
            let observation = object(said, "observation");
            tool(event, name, observation);
            event.exit_code = observation.and_then(|observation| {
                let within = object(observation, "metadata").unwrap_or(observation);
                exit_code(observation, "exit_code").or_else(|| exit_code(within, "exit_code"))
            });
            let failed = observation.and_then(|observation| truth(observation, "is_error")) == Some(true);
            ended(event, Some(!failed && event.exit_code.unwrap_or(0) == 0));
        }
        "AgentErrorEvent" => {
            tool(event, name, None);
            event.status = Status::Error;
            copy(&mut event.error_message, said, "error");
        }
        "UserRejectObservation" => {
            tool(event, name, None);
            event.status = Status::Denied;
            copy(&mut event.error_message, said, "rejection_reason");
        }
        "Condensation" => event.event_type = EventType::AgentCompaction,
        "ConversationErrorEvent" => {
            event.event_type = EventType::Error;
            event.status = Status::Error;
            copy(&mut event.error_type, said, "code");
            copy(&mut event.error_message, said, "detail");
        }
        _ => {}
    }
}
