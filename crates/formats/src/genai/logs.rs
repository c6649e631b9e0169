//! Log records of instrumented programs, and the judgements among them.
//!
//! | event | becomes |
//! |---|---|
//! | `gen_ai.client.inference.operation.details` | a sighting of the call whose span it was written in |
//! | `gen_ai.choice` | the content of that call's answer |
//! | `gen_ai.evaluation.result` | a score of the span it was written in |
//! | `gen_ai.system.message`, `.user.message`, … | a log: every call repeats the messages before it |
//! | any other | a log, or an error when it says its type |

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};

use super::{Gathered, Slot};
use crate::json::ObjectWriter;
use crate::moment::Moment;
use crate::otlp::Decoder;
use crate::otlp::frames::Group;
use crate::otlp::logs::{FORMAT, finish_data, identify, level, set_time};
use crate::otlp::model::{AnyValue, Attributes, Log, Span, SpanEvent};
use crate::otlp::origin::Origin;

/// A call to a model with everything that went in and came out.
const DETAILS: &str = "gen_ai.client.inference.operation.details";
/// One answer of a call to a model (until 1.36 of the conventions).
const CHOICE: &str = "gen_ai.choice";
/// A judgement (since 1.38).
const EVALUATION: &str = "gen_ai.evaluation.result";

/// Maps one log record.
pub(crate) fn event<'a>(
    decoder: &mut Decoder<'_>,
    origin: &Origin<'a>,
    index: u32,
    group: &Group<'_>,
    record: &[u8],
    mut log: Log<'a>,
) -> AgentEvent {
    let mut event = origin.event(decoder, index, FORMAT);
    let mut data = ObjectWriter::new();
    set_time(&mut event, &mut data, &log);
    event.channel = Channel::AgentLog;
    event.event_type = EventType::Log;
    event.level = level(&log);
    let mut gathered = Gathered::of(std::mem::take(&mut log.attributes));
    gathered.identity_into(&mut event, origin);
    event.name = log.event_name;
    if event.name.is_empty() {
        event.name = gathered.take_text(Slot::EventName);
    }
    gathered.content_into(&mut event);
    gathered.outcome_into(&mut event);
    event.trace_id = log.trace_id;
    event.span_id = log.span_id;
    let stated = gathered.take_text(Slot::RecordId);
    if stated.is_empty() {
        identify(decoder, &mut event, index, group, record);
    } else {
        event.dedup_key = decoder.identities.stated(FORMAT, &[stated.as_bytes()]);
        event.event_id = stated;
    }
    match event.name.as_str() {
        DETAILS => call(&mut event, &mut gathered, origin),
        CHOICE => {
            event.event_type = EventType::LlmResponse;
            event.llm_call_key = call_key(&event);
        }
        EVALUATION => gathered.rest = score(&mut event, std::mem::take(&mut gathered.rest)),
        // Usage in any other log repeats what the span of the same call says; it stays in data and is not counted.
        _ if event.status == Status::Error && !event.error_type.is_empty() => {
            event.event_type = EventType::Error;
        }
        _ => {}
    }
    gathered.rest_into(&mut data);
    if let Some(body) = &log.body {
        data.field("body", body);
    }
    finish_data(&mut event, data, log.dropped_attributes);
    event
}

/// A call as a log record tells it. It is written within the call's span, so both name the same call.
///
/// Copilot writes it within the span around the call, and the call's own span has the usage.
fn call(event: &mut AgentEvent, gathered: &mut Gathered<'_>, origin: &Origin<'_>) {
    event.event_type = EventType::LlmResponse;
    if origin.scope.name.contains("copilot") || origin.resource_text("service.name") == Some("copilot-chat") {
        return;
    }
    gathered.usage_into(event, &origin.scope.name);
    gathered.http_error_into(event);
    event.llm_call_key = call_key(event);
    if event.token_basis != TokenBasis::None || event.cost_reported.is_some() {
        event.usage_role = UsageRole::Call;
    }
}

/// The key of the call whose span the record was written in; empty outside any.
fn call_key(event: &AgentEvent) -> String {
    if event.trace_id.is_empty() || event.span_id.is_empty() {
        return String::new();
    }
    format!("{}:{}", event.trace_id, event.span_id)
}

/// The judgements among the events of a span; they stay visible in its data too.
pub(super) fn scores_of_span(
    decoder: &Decoder<'_>,
    origin: &Origin<'_>,
    index: u32,
    judged: &AgentEvent,
    span: &Span<'_>,
) -> Vec<AgentEvent> {
    let entries = span.events.iter().enumerate().filter(|(_, entry)| entry.name == EVALUATION);
    let event = |(nth, entry): (usize, &SpanEvent<'_>)| {
        let mut event = AgentEvent {
            channel: Channel::Span,
            timestamp: judged.timestamp,
            timestamp_source: judged.timestamp_source,
            session_id: judged.session_id.clone(),
            user_id: judged.user_id.clone(),
            agent_id: judged.agent_id.clone(),
            trace_id: judged.trace_id.clone(),
            span_id: judged.span_id.clone(),
            ..origin.event(decoder, index, FORMAT)
        };
        if entry.time != 0 {
            let moment = Moment::of_nanos(i128::from(entry.time));
            (event.timestamp, event.timestamp_source) = (moment.nanos, moment.source());
        }
        let parts = [event.trace_id.as_bytes(), event.span_id.as_bytes(), &nth.to_le_bytes()];
        event.dedup_key = decoder.identities.stated(EVALUATION, &parts);
        event.event_id = event.dedup_key.to_string();
        let mut data = ObjectWriter::new();
        let mut gathered = Gathered::of(entry.attributes.clone());
        event.request_id = gathered.take_text(Slot::ResponseId);
        gathered.rest = score(&mut event, gathered.rest);
        gathered.rest_into(&mut data);
        event.data = data.finish();
        event
    };
    entries.map(event).collect()
}

/// Makes a score of a judgement: its value, data type and comment get the names that every score has.
fn score<'a>(event: &mut AgentEvent, attributes: Attributes<'a>) -> Attributes<'a> {
    event.event_type = EventType::Score;
    let numeric = attributes.iter().any(|(name, _)| name == "gen_ai.evaluation.score.value");
    let mut said = Attributes::new();
    for (name, value) in attributes {
        match &*name {
            "gen_ai.evaluation.name" => event.name = value.text().unwrap_or_default(),
            "gen_ai.evaluation.score.value" => said.push(("value".into(), value)),
            "gen_ai.evaluation.score.label" if numeric => said.push(("label".into(), value)),
            "gen_ai.evaluation.score.label" => said.push(("value".into(), value)),
            "gen_ai.evaluation.explanation" => said.push(("comment".into(), value)),
            _ => said.push((name, value)),
        }
    }
    let data_type = if numeric { "NUMERIC" } else { "CATEGORICAL" };
    said.push(("dataType".into(), AnyValue::Text(data_type.into())));
    said
}
