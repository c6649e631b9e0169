//! What `codex exec --json` prints: one event a line, without times.
//!
//! The first line names the thread. Usage is stated at the end of each turn, as the thread's running total, turns of
//! earlier processes included where it was resumed. Items are numbered within the process and
//! not by the model's call ids, so a tool call is taken from the line that completes it, and told from those of the other
//! channels by the derivation.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::record::StreamContext;

use super::{OF_A_TOTAL, message, stated, tools};
use crate::records::{Object, Record, RecordFormat, Records, object, text};
use crate::tokens::Stated;

/// The format of the output of `codex exec --json`.
pub(crate) const FORMAT: RecordFormat =
    RecordFormat { name: "codex.exec", aliases: &[], members: &[], recognises, follow, decode };

/// The program that prints it, as it names itself on its other channels.
const SOURCE: &str = "codex_exec";

fn recognises(line: &Object) -> bool {
    matches!(text(line, "type").split_once('.'), Some(("thread" | "turn" | "item", _)))
}

fn follow(stream: &mut StreamContext, line: &Object) {
    SOURCE.clone_into(&mut stream.source);
    if text(line, "type") == "thread.started" {
        text(line, "thread_id").clone_into(&mut stream.session_id);
    }
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    let line = record.object;
    let mut event = records.event(record, &FORMAT, Channel::Other);
    event.event_type = EventType::Log;
    text(line, "type").clone_into(&mut event.name);
    match text(line, "type") {
        "thread.started" => event.event_type = EventType::SessionStart,
        "turn.started" => event.event_type = EventType::AgentStep,
        "turn.completed" => turn(&mut event, line, record.line),
        "turn.failed" | "error" => {
            event.event_type = EventType::Error;
            event.status = Status::Error;
            let failed = message(line, "error");
            let failed = if failed.is_empty() { text(line, "message") } else { failed };
            failed.clone_into(&mut event.error_message);
        }
        "item.completed" => item(&mut event, line),
        _ => {}
    }
    records.emit(event);
}

/// The thread's running total. It is of no family: it has neither time nor turn by which it could be told from what the
/// other channels count, so it counts only where they say nothing.
fn turn(event: &mut AgentEvent, line: &Object, number: i64) {
    let Some(usage) = object(line, "usage").map(stated).filter(Stated::any) else {
        event.event_type = EventType::AgentStep;
        return;
    };
    event.event_type = EventType::LlmRequest;
    event.status = Status::Ok;
    event.llm_call_key = "thread".to_owned();
    usage.apply(TokenBasis::Inclusive, event);
    event.usage_role = UsageRole::Cumulative;
    event.precedence = OF_A_TOTAL;
    event.revision = number;
}

fn item(event: &mut AgentEvent, line: &Object) {
    let Some(item) = object(line, "item") else { return };
    let kind = [text(item, "type"), text(item, "item_type")].into_iter().find(|kind| !kind.is_empty());
    let kind = kind.unwrap_or_default();
    event.name = format!("item.completed.{kind}");
    match kind {
        "agent_message" | "assistant_message" => event.event_type = EventType::LlmResponse,
        "error" => {
            event.event_type = EventType::Error;
            event.status = Status::Error;
            text(item, "message").clone_into(&mut event.error_message);
        }
        kind => {
            if tools::ran(event, kind, item) && event.tool_name.is_empty() {
                kind.clone_into(&mut event.tool_name);
            }
        }
    }
}
