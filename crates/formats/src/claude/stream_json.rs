//! What `claude -p --output-format stream-json` prints: one JSON object a line, few of them with a time.
//!
//! The usage of an answer's row is what was known when its first tokens came (`output_tokens` 1), and the answers of
//! sub-agents are not printed at all. So rows are content and tool calls, and state no usage. The `result` row, which
//! ends each turn of the process, states in `modelUsage` the process's totals so far, sub-agents included (its own
//! `usage` is the turn's alone). They are running totals, one series for each process and model, which the derivation
//! counts only where nothing else of Claude Code states usage in the session.
//!
//! A process begins with the first `system/init` row of a stream; each turn prints another. The first one's id is the
//! turn of all that follows, and names the series; a resumed session has a stream of its own.

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
        && !is_of_qwen(row)
}

/// Qwen Code prints the same rows with counts that mean something else: its input includes what came from the cache, and
/// the sums at the end go on over resumed sessions. What Claude Code states of answers and turns has no total.
fn is_of_qwen(row: &Object) -> bool {
    let usage = match text(row, "type") {
        "assistant" => object(row, "message").and_then(|message| object(message, "usage")),
        "result" => object(row, "usage"),
        _ => None,
    };
    row.contains_key("qwen_code_version") || usage.is_some_and(|usage| usage.contains_key("total_tokens"))
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
    message::name_row(&mut event, row);
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
        ("system", _) if subtype == "task_started" && text(row, "task_type") == "local_agent" => {
            event.event_type = EventType::AgentStart;
            text(row, "task_id").clone_into(&mut event.agent_id);
            text(row, "subagent_type").clone_into(&mut event.agent_name);
            text(row, "tool_use_id").clone_into(&mut event.parent_id);
        }
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
        text(row, "request_id").clone_into(&mut event.request_id);
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

/// The totals of the process so far by model; without them the turn's own, which add to nothing before them.
fn totals(records: &Records<'_>, record: &Record<'_>, result: &AgentEvent) -> Vec<AgentEvent> {
    let stream = &records.stream;
    let process = if stream.turn_id.is_empty() { &stream.stream_id } else { &stream.turn_id };
    let total = |series: &str, model: &str| AgentEvent {
        event_type: EventType::LlmRequest,
        status: Status::Ok,
        provider: "anthropic".to_owned(),
        model: model.to_owned(),
        usage_role: UsageRole::Cumulative,
        llm_call_key: format!("{series}:{model}"),
        revision: record.line.saturating_add(1),
        ..message::bare(result)
    };
    let models = object(record.object, "modelUsage").filter(|models| !models.is_empty());
    let Some(models) = models else {
        let states = result.usage_role == UsageRole::Rollup;
        return states
            .then(|| with_buckets(total(&result.event_id, &stream.model), result))
            .into_iter()
            .collect();
    };
    let of_model = |(model, usage): (&String, &Value)| {
        let usage = usage.as_object()?;
        let stated = Stated {
            input: count(usage, "inputTokens"),
            output: count(usage, "outputTokens"),
            cache_read: count(usage, "cacheReadInputTokens"),
            cache_write: count(usage, "cacheCreationInputTokens"),
            reasoning: None,
        };
        let mut total = total(process, model);
        // How long what was written to caches lives is not said of totals.
        stated.apply(TokenBasis::AnthropicRaw, &mut total);
        total.cost_reported = number(usage, "costUSD").and_then(NanoUsd::from_usd);
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
