//! What `claude -p --output-format stream-json` prints: one JSON object a line, without times and request ids.
//!
//! The usage of an answer's row is what was known when its first tokens came (`output_tokens` 1), and no id joins a row
//! to the OTLP channels. So the rows are content and tool calls, and state no usage. The `result` row states the run's
//! totals by model; they are running totals (several turns of one process add up), one series for each run and model,
//! which the derivation counts only where nothing else of Claude Code states usage in the session.
//!
//! A run begins with the first `system/init` row; its id is the turn of all that follows in the stream.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use super::message::{self, SOURCE, SYNTHETIC, words};
use crate::moment::Moment;
use crate::records::{
    Object, Record, RecordFormat, Records, count, identify, number, object, set_time, text,
};
use crate::tokens::Stated;

/// The rows of a run.
pub(crate) const FORMAT: RecordFormat = RecordFormat {
    name: "claude.stream",
    aliases: &["claude-stream", "claude.stream-json", "claude-stream-json"],
    members: &[],
    recognises,
    follow,
    decode,
};

const TYPES: &[&str] = &[
    "system",
    "assistant",
    "user",
    "result",
    "stream_event",
    "tool_progress",
    "tool_use_summary",
    "rate_limit_event",
    "auth_status",
];

fn recognises(row: &Object) -> bool {
    TYPES.contains(&text(row, "type"))
        && !text(row, "session_id").is_empty()
        && !row.contains_key("hook_event_name")
}

fn is_init(row: &Object) -> bool {
    text(row, "type") == "system" && text(row, "subtype") == "init"
}

fn follow(context: &mut StreamContext, row: &Object) {
    SOURCE.clone_into(&mut context.source);
    let session = text(row, "session_id");
    if !session.is_empty() && session != context.session_id {
        session.clone_into(&mut context.session_id);
        context.turn_id.clear();
    }
    if !is_init(row) {
        return;
    }
    text(row, "cwd").clone_into(&mut context.cwd);
    text(row, "model").clone_into(&mut context.model);
    text(row, "claude_code_version").clone_into(&mut context.version);
    // Each turn of a process prints the row again.
    if context.turn_id.is_empty() {
        text(row, "uuid").clone_into(&mut context.turn_id);
    }
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    let row = record.object;
    let mut event = records.event(record, &FORMAT, Channel::Other);
    let (kind, subtype) = (text(row, "type"), text(row, "subtype"));
    let name = if kind == "system" && !subtype.is_empty() { subtype } else { kind };
    name.clone_into(&mut event.name);
    text(row, "parent_tool_use_id").clone_into(&mut event.parent_id);
    set_time(&mut event, Moment::of_text(text(row, "timestamp")));
    identify(&mut event, message::key_of(records, record, &FORMAT));
    match (kind, object(row, "message")) {
        ("assistant", Some(message)) => return assistant(records, record, event, message),
        ("user", Some(message)) => return user(records, record, event, message),
        ("result", _) => return result(records, record, event),
        ("system", _) if subtype == "init" => {
            event.event_type = EventType::SessionStart;
            text(row, "model").clone_into(&mut event.model);
        }
        ("system", _) if subtype == "compact_boundary" => event.event_type = EventType::AgentCompaction,
        _ => event.event_type = EventType::Log,
    }
    records.emit(event);
}

/// Content of the model, and the tools it asks for.
fn assistant(records: &mut Records<'_>, record: &Record<'_>, mut event: AgentEvent, message: &Object) {
    let row = record.object;
    let asked = message::tools_asked(&event, message);
    if !text(row, "error").is_empty() {
        message::failure(&mut event, row, words(message.get("content")));
    } else if text(message, "model") == SYNTHETIC {
        event.event_type = EventType::Log;
    } else {
        event.event_type = EventType::LlmResponse;
        event.status = Status::Ok;
        message::answer(&mut event, message);
    }
    records.emit(event);
    asked.into_iter().for_each(|tool| records.emit(tool));
}

fn user(records: &mut Records<'_>, record: &Record<'_>, mut event: AgentEvent, message: &Object) {
    let row = record.object;
    let outcome = row.get("tool_use_result").or_else(|| row.get("toolUseResult"));
    let results = message::tools_answered(&event, message, outcome);
    if results.is_empty() {
        let is = |name: &str| row.get(name).and_then(Value::as_bool) == Some(true);
        // Within a tool call it is the program that instructs a sub-agent.
        let by_program = is("isSynthetic") || is("isReplay") || !event.parent_id.is_empty();
        event.event_type = if by_program { EventType::Log } else { EventType::UserPrompt };
        return records.emit(event);
    }
    results.into_iter().for_each(|tool| records.emit(tool));
}

/// The end of a turn of the run: how it went, its totals by model, and the tools that were not allowed.
fn result(records: &mut Records<'_>, record: &Record<'_>, mut event: AgentEvent) {
    let row = record.object;
    event.event_type = EventType::SessionEnd;
    event.duration_ms = number(row, "duration_ms");
    event.cost_reported = number(row, "total_cost_usd").and_then(NanoUsd::from_usd);
    event.status = Status::Ok;
    if row.get("is_error").and_then(Value::as_bool) == Some(true) {
        event.status = Status::Error;
        text(row, "subtype").clone_into(&mut event.error_type);
        let told = row.get("errors").and_then(|errors| errors.get(0)).and_then(Value::as_str);
        told.unwrap_or_else(|| text(row, "result")).clone_into(&mut event.error_message);
    }
    if let Some(usage) = object(row, "usage") {
        message::apply_usage(&mut event, usage, UsageRole::Rollup);
    }
    let parts = totals(records, record, &event).into_iter().chain(denials(record, &event));
    let parts: Vec<AgentEvent> = (1..).zip(parts).map(|(nth, part)| message::part(part, nth)).collect();
    records.emit(event);
    parts.into_iter().for_each(|part| records.emit(part));
}

/// The run's totals so far: one for each model, else one for the model that the run began with.
fn totals(records: &Records<'_>, record: &Record<'_>, result: &AgentEvent) -> Vec<AgentEvent> {
    let stream = &records.stream;
    let run = if stream.turn_id.is_empty() { &stream.stream_id } else { &stream.turn_id };
    let total = |model: &str| AgentEvent {
        event_type: EventType::LlmRequest,
        status: Status::Ok,
        provider: "anthropic".to_owned(),
        model: model.to_owned(),
        usage_role: UsageRole::Cumulative,
        llm_call_key: format!("{run}:{model}"),
        revision: record.line.saturating_add(1),
        ..message::bare(result)
    };
    let models = object(record.object, "modelUsage").filter(|models| !models.is_empty());
    let Some(models) = models else {
        // Before there were totals by model.
        let states = result.usage_role == UsageRole::Rollup;
        let whole = AgentEvent { cost_reported: result.cost_reported, ..total(&stream.model) };
        return states.then_some(with_buckets(whole, result)).into_iter().collect();
    };
    let alone = models.len() == 1;
    let of_model = |(model, usage): (&String, &Value)| {
        let usage = usage.as_object()?;
        let stated = Stated {
            input: count(usage, "inputTokens"),
            output: count(usage, "outputTokens"),
            cache_read: count(usage, "cacheReadInputTokens"),
            cache_write: count(usage, "cacheCreationInputTokens"),
            reasoning: None,
        };
        let mut total = total(model);
        stated.apply(TokenBasis::AnthropicRaw, &mut total);
        total.cost_reported = number(usage, "costUSD").and_then(NanoUsd::from_usd);
        if alone && result.cache_write_5m + result.cache_write_1h == total.cache_write_5m {
            // Only the sum over all models knows how long what was written to caches lives.
            message::split_cache_writes(&mut total, result.cache_write_5m, result.cache_write_1h);
        }
        stated.any().then_some(total)
    };
    models.iter().filter_map(of_model).collect()
}

fn with_buckets(event: AgentEvent, of: &AgentEvent) -> AgentEvent {
    AgentEvent {
        in_uncached: of.in_uncached,
        cache_read: of.cache_read,
        cache_write_5m: of.cache_write_5m,
        cache_write_1h: of.cache_write_1h,
        out_visible: of.out_visible,
        token_basis: of.token_basis,
        ..event
    }
}

/// The tool calls of the run that were not allowed.
fn denials<'r>(record: &'r Record<'_>, result: &'r AgentEvent) -> impl Iterator<Item = AgentEvent> + 'r {
    let denials = record.object.get("permission_denials").and_then(Value::as_array);
    denials.map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_object).map(|denial| {
        let mut decision = message::bare(result);
        message::asked(&mut decision, text(denial, "tool_name"), text(denial, "tool_use_id"), None);
        decision.event_type = EventType::ToolDecision;
        decision.revision = 0;
        decision.status = Status::Denied;
        "reject".clone_into(&mut decision.decision);
        decision
    })
}
