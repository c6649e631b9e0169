//! Qwen Code's chat files: `projects/<folder>/chats/<session>.jsonl`, and `subagents/<session>/agent-<id>.jsonl` of its
//! sub-agents, which carry the same session.
//!
//! A resumed session goes on in its file and repeats nothing; a branched one copies lines, and says of each where it is
//! from. The program's record of a call (`ui_telemetry`) stands in the session's file for every call, also of
//! sub-agents and of its own errands. So the lines of a call carry no turn: by that the derivation knows that the
//! records of calls precede the answers' usage (see [`super`]). A tool call is one by its id; early records of tools
//! have none and repeat what the results say.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status};
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use super::super::{Counts, FAMILY, decide};
use super::{ANSWERED, ASKED, RECORDED, SOURCE};
use crate::claude::message::{key_of, of_block};
use crate::moment::Moment;
use crate::records::{
    Object, Record, RecordFormat, Records, copy, count, identify, number, object, said, set_time, text,
};
use crate::tokens::Stated;
use crate::unknown;

/// Chat files.
pub(crate) const FORMAT: RecordFormat =
    RecordFormat { name: "qwen.chat", aliases: &["qwen"], members: &[], recognises, follow, decode };

/// What all lines have in common with Claude Code's; those that could be either follow their stream.
fn recognises(line: &Object) -> bool {
    !text(line, "sessionId").is_empty()
        && !text(line, "uuid").is_empty()
        && matches!(text(line, "type"), "user" | "assistant" | "tool_result" | "system")
        && object(line, "message").is_none_or(|message| message.contains_key("parts"))
}

fn follow(context: &mut StreamContext, line: &Object) {
    SOURCE.clone_into(&mut context.source);
    for (column, name) in
        [(&mut context.session_id, "sessionId"), (&mut context.cwd, "cwd"), (&mut context.version, "version")]
    {
        copy(column, line, name);
    }
    text(line, "agentId").clone_into(&mut context.agent_id);
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    let line = record.object;
    let mut event = base(records, record);
    if line.contains_key("forkedFrom") {
        event.event_type = EventType::Log;
        return records.emit(event);
    }
    match (text(line, "type"), object(line, "message")) {
        ("user", Some(_)) => {
            event.event_type = prompt(line);
            records.emit(event);
        }
        ("assistant", message) => assistant(records, line, event, message),
        ("tool_result", Some(message)) => results(records, line, event, message),
        ("system", _) => {
            system(&mut event, line);
            records.emit(event);
        }
        _ => records.keep(record, &FORMAT, unknown::BAD_SHAPE),
    }
}

/// The event of a line, whatever it will say.
fn base(records: &Records<'_>, record: &Record<'_>) -> AgentEvent {
    let line = record.object;
    let mut event = records.event(record, &FORMAT, Channel::Transcript);
    let name = [text(line, "subtype"), text(line, "type")].into_iter().find(|name| !name.is_empty());
    name.unwrap_or_default().clone_into(&mut event.name);
    text(line, "parentUuid").clone_into(&mut event.parent_id);
    text(line, "agentName").clone_into(&mut event.agent_name);
    set_time(&mut event, Moment::of_text(text(line, "timestamp")));
    event.context = said(line, &["cwd", "gitBranch"]);
    identify(&mut event, key_of(records, record, &FORMAT));
    event
}

/// A line in the user's role: an instruction, or what the program says in the user's place.
fn prompt(line: &Object) -> EventType {
    let of_sub_agent = line.get("isSidechain").and_then(Value::as_bool) == Some(true);
    let by_user = match text(line, "provenance") {
        "" => !matches!(text(line, "subtype"), "cron" | "notification"),
        provenance => provenance == "real_user",
    };
    match () {
        () if of_sub_agent && text(line, "parentUuid").is_empty() => EventType::AgentStart,
        () if of_sub_agent || !by_user => EventType::Log,
        () => EventType::UserPrompt,
    }
}

/// The parts of a message that have this member.
fn parts<'o>(message: Option<&'o Object>, name: &'static str) -> impl Iterator<Item = &'o Object> {
    let parts = message.and_then(|message| message.get("parts")?.as_array());
    let parts = parts.map(Vec::as_slice).unwrap_or_default();
    parts.iter().filter_map(Value::as_object).filter_map(move |part| object(part, name))
}

/// What the model said, and the tools it asks for.
fn assistant(records: &mut Records<'_>, line: &Object, mut event: AgentEvent, message: Option<&Object>) {
    text(line, "model").clone_into(&mut event.model);
    event.status = Status::Ok;
    let usage = object(line, "usageMetadata").map(|usage| Counts {
        stated: Stated {
            input: count(usage, "promptTokenCount"),
            output: count(usage, "candidatesTokenCount"),
            cache_read: count(usage, "cachedContentTokenCount"),
            cache_write: None,
            reasoning: count(usage, "thoughtsTokenCount"),
        },
        tool: count(usage, "toolUsePromptTokenCount"),
        total: count(usage, "totalTokenCount"),
    });
    super::answer(&mut event, usage.unwrap_or_default());
    let asked = (1..).zip(parts(message, "functionCall")).map(|(nth, call)| {
        let mut tool = of_block(&event, nth, call);
        tool.parent_id = text(line, "uuid").to_owned();
        super::tool(&mut tool, text(call, "name"), text(call, "id"), object(call, "args"), ASKED);
        tool
    });
    let asked: Vec<AgentEvent> = asked.collect();
    records.emit(event);
    asked.into_iter().for_each(|tool| records.emit(tool));
}

/// The results of tools as they go back to the model, with the program's own account of the one it is of.
fn results(records: &mut Records<'_>, line: &Object, mut event: AgentEvent, message: &Object) {
    let outcome = object(line, "toolCallResult");
    let answers: Vec<&Object> = parts(Some(message), "functionResponse").collect();
    if answers.is_empty() {
        event.event_type = EventType::Log;
        return records.emit(event);
    }
    for (nth, answer) in (0..).zip(answers) {
        let mut tool = of_block(&event, nth, answer);
        let id = text(answer, "id");
        super::tool(&mut tool, text(answer, "name"), id, None, ANSWERED);
        tool.end_timestamp = Some(tool.timestamp);
        let error = object(answer, "response").map_or("", |response| text(response, "error"));
        tool.status = if error.is_empty() { Status::Ok } else { Status::Error };
        error.clone_into(&mut tool.error_message);
        if let Some(outcome) = outcome.filter(|outcome| text(outcome, "callId") == id) {
            take_outcome(&mut tool, outcome);
        }
        records.emit(tool);
    }
}

fn take_outcome(event: &mut AgentEvent, outcome: &Object) {
    match text(outcome, "status") {
        "success" => event.status = Status::Ok,
        "error" => event.status = Status::Error,
        "cancelled" => event.status = Status::Cancelled,
        _ => {}
    }
    text(outcome, "errorType").clone_into(&mut event.error_type);
    event.duration_ms = number(outcome, "durationMs");
    let Some(display) = object(outcome, "resultDisplay") else { return };
    text(display, "filePath").clone_into(&mut event.file_path);
    event.exit_code = display.get("exitCode").and_then(Value::as_i64).and_then(|code| code.try_into().ok());
    super::note_lines(event, object(display, "diffStat"));
}

/// What the program notes of itself.
fn system(event: &mut AgentEvent, line: &Object) {
    event.event_type = EventType::Log;
    match text(line, "subtype") {
        "chat_compression" => event.event_type = EventType::AgentCompaction,
        "ui_telemetry" => {
            if let Some(told) = object(line, "systemPayload").and_then(|payload| object(payload, "uiEvent")) {
                recorded(event, told);
            }
        }
        _ => {}
    }
}

/// The program's record of a call, as its telemetry has it too.
fn recorded(event: &mut AgentEvent, told: &Object) {
    let name = text(told, "event.name");
    name.strip_prefix("qwen-code.").unwrap_or(name).clone_into(&mut event.name);
    set_time(event, Moment::of_text(text(told, "event.timestamp")));
    event.duration_ms = number(told, "duration_ms");
    for (column, name) in [
        (&mut event.agent_id, "subagent_id"),
        (&mut event.agent_name, "subagent_name"),
        (&mut event.model, "model"),
        (&mut event.error_type, "error_type"),
        (&mut event.request_id, "response_id"),
    ] {
        copy(column, told, name);
    }
    let errors = [text(told, "error_message"), text(told, "error")];
    errors
        .into_iter()
        .find(|error| !error.is_empty())
        .unwrap_or_default()
        .clone_into(&mut event.error_message);
    match event.name.as_str() {
        "api_response" | "api_error" => call(event, told),
        "tool_call" if !text(told, "call_id").is_empty() => tool(event, told),
        _ => {}
    }
}

fn call(event: &mut AgentEvent, told: &Object) {
    event.event_type = EventType::LlmRequest;
    event.status = if event.name == "api_error" { Status::Error } else { Status::Ok };
    event.ttft_ms = number(told, "ttft_ms");
    event.llm_call_key.clone_from(&event.event_id);
    event.call_family = FAMILY.to_owned();
    let stated = Stated {
        input: count(told, "input_token_count"),
        output: count(told, "output_token_count"),
        cache_read: count(told, "cached_content_token_count"),
        cache_write: None,
        reasoning: count(told, "thoughts_token_count"),
    };
    Counts { stated, tool: count(told, "tool_token_count"), total: count(told, "total_token_count") }
        .state(event);
}

fn tool(event: &mut AgentEvent, told: &Object) {
    let (name, id) = (text(told, "function_name"), text(told, "call_id"));
    super::tool(event, name, id, object(told, "function_args"), RECORDED);
    let success = told.get("success").and_then(Value::as_bool);
    event.status = match (text(told, "status"), success) {
        ("cancelled", _) => Status::Cancelled,
        (_, Some(true)) => Status::Ok,
        (_, Some(false)) => Status::Error,
        (_, None) => Status::Unset,
    };
    decide(event, text(told, "decision"));
    super::note_lines(event, object(told, "metadata"));
}
