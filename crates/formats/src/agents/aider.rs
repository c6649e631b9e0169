//! Aider's analytics log (`--analytics-log`): one event a line, times in whole seconds.
//!
//! Lines name no session. A run begins with `launched`; until the next one all of its user's events belong to it. Each
//! `message_send` states the tokens and the cost of its own call, `total_cost` is the run's (aider, `aider/analytics.py`
//! and `aider/website/assets/sample-analytics.jsonl`).

use fleetlog_schemas::event::{Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use fleetlog_schemas::record::StreamContext;

use super::{copy, fits, moment, stated};
use crate::records::{Object, Record, RecordFormat, Records, number, object, set_time, text};

/// Analytics lines.
pub(crate) const FORMAT: RecordFormat =
    RecordFormat { name: "aider.analytics", aliases: &["aider"], members: &[], recognises, follow, decode };

fn recognises(line: &Object) -> bool {
    !text(line, "event").is_empty()
        && object(line, "properties").is_some()
        && number(line, "time").is_some()
        && !text(line, "user_id").is_empty()
}

fn follow(context: &mut StreamContext, line: &Object) {
    "aider".clone_into(&mut context.source);
    let user = text(line, "user_id");
    // A file may begin in the middle of a run, and hold more than one user's.
    let own = context.session_id.strip_prefix(user).is_some_and(|rest| rest.starts_with(':'));
    if !own || text(line, "event") == "launched" {
        context.session_id = format!("{user}:{}", number(line, "time").unwrap_or_default());
        context.model.clear();
    }
    if let Some(properties) = object(line, "properties") {
        copy(&mut context.version, properties, "aider_version");
        copy(&mut context.model, properties, "main_model");
    }
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    if !fits(records, record, &FORMAT) {
        return;
    }
    let line = record.object;
    let mut event = records.event(record, &FORMAT, Channel::Transcript);
    text(line, "event").clone_into(&mut event.name);
    text(line, "user_id").clone_into(&mut event.user_id);
    set_time(&mut event, moment(line, "time"));
    event.event_type = match event.name.as_str() {
        "launched" => EventType::SessionStart,
        "exit" => EventType::SessionEnd,
        "message_send" => EventType::LlmRequest,
        "message_send_exception" => EventType::Error,
        _ => EventType::Log,
    };
    if let Some(properties) = object(line, "properties") {
        if event.event_type == EventType::LlmRequest {
            copy(&mut event.model, properties, "main_model");
            let counts = stated(properties, ["prompt_tokens", "completion_tokens", "", "", ""]);
            counts.apply(TokenBasis::Inclusive, &mut event);
            event.cost_reported = number(properties, "cost").and_then(NanoUsd::from_usd);
            event.usage_role = UsageRole::Call;
            event.status = Status::Ok;
        }
        if event.event_type == EventType::Error {
            event.status = Status::Error;
            copy(&mut event.error_message, properties, "exception");
        }
    }
    records.emit(event);
}
