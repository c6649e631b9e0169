//! OTLP spans.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TimestampSource, UsageRole};

use super::frames::Group;
use super::model::Span;
use super::origin::Origin;
use super::{Decoder, Encoding, json, proto};
use crate::detect::{self, Emitter};
use crate::genai::{Gathered, Operation, Slot};
use crate::json::ObjectWriter;
use crate::moment::Moment;

/// The generic format's name in `source_format`.
pub(crate) const FORMAT: &str = "otlp.spans";

/// Decodes the spans of one group.
pub(super) fn decode(decoder: &mut Decoder<'_>, group: &Group<'_>) {
    let origin = Origin::of(decoder.encoding, group);
    for record in &group.records {
        let Some(index) = decoder.next_index() else { continue };
        let span = match decoder.encoding {
            Encoding::Json => json::span(record).map_err(|fault| fault.message()),
            Encoding::Protobuf => proto::span(record).map_err(|error| error.to_string()),
        };
        let span = match span {
            Ok(span) if span.trace_id.is_empty() || span.span_id.is_empty() => {
                Err("a span needs a trace id of 16 bytes and a span id of 8".to_owned())
            }
            span => span,
        };
        match span {
            Err(fault) => decoder.misshapen(index, record, &fault),
            Ok(span) => {
                let event = match detect::emitter(&origin) {
                    Emitter::ClaudeCode => crate::claude::spans::event(decoder, &origin, index, span),
                    Emitter::Other => generic(decoder, &origin, index, span),
                };
                decoder.out.events.push(event);
            }
        }
    }
}

/// What every span says, whoever emitted it: times, ids, status, identity.
///
/// A start and an end of one span are two sightings, so the end time is part of the identity (MAPPING §9).
pub(crate) fn envelope(
    decoder: &Decoder<'_>,
    origin: &Origin<'_>,
    index: u32,
    format: &str,
    span: &Span<'_>,
    data: &mut ObjectWriter,
) -> AgentEvent {
    let mut event = origin.event(decoder, index, format);
    event.channel = Channel::Span;
    event.event_type = EventType::Span;
    event.name.clone_from(&span.name);
    event.trace_id.clone_from(&span.trace_id);
    event.span_id.clone_from(&span.span_id);
    event.parent_id.clone_from(&span.parent_id);
    let parts = [event.trace_id.as_bytes(), event.span_id.as_bytes(), &span.end.to_le_bytes()];
    event.dedup_key = decoder.identities.stated(FORMAT, &parts);
    event.event_id = event.dedup_key.to_string();
    if span.start != 0 {
        let start = Moment::of_nanos(i128::from(span.start));
        event.timestamp = start.nanos;
        event.timestamp_source = TimestampSource::Event;
        if start.clamped {
            data.field("timestamp_original", &span.start.to_string());
        }
    }
    if span.end != 0 {
        event.end_timestamp = Some(Moment::of_nanos(i128::from(span.end)).nanos);
        if span.end >= span.start && span.start != 0 {
            event.duration_ms = Some((span.end - span.start) as f64 / 1e6);
        }
    }
    event.status = match span.status {
        1 => Status::Ok,
        2 => Status::Error,
        _ => Status::Unset,
    };
    event.error_message.clone_from(&span.status_message);
    event
}

/// Adds what a span says beside its attributes.
pub(crate) fn finish_data(event: &mut AgentEvent, mut data: ObjectWriter, span: &Span<'_>) {
    const KINDS: [&str; 6] = ["", "internal", "server", "client", "producer", "consumer"];
    let kind = usize::try_from(span.kind).ok().and_then(|kind| KINDS.get(kind)).unwrap_or(&"");
    if !kind.is_empty() {
        data.field("span_kind", kind);
    }
    if !span.events.is_empty() {
        data.field("events", &span.events);
    }
    if !span.links.is_empty() {
        data.field("links", &span.links);
    }
    if span.dropped > 0 {
        data.field("dropped", &span.dropped);
    }
    event.data = data.finish();
}

fn generic<'a>(decoder: &Decoder<'_>, origin: &Origin<'a>, index: u32, mut span: Span<'a>) -> AgentEvent {
    let mut data = ObjectWriter::new();
    let mut event = envelope(decoder, origin, index, FORMAT, &span, &mut data);
    let mut gathered = Gathered::of(std::mem::take(&mut span.attributes));
    let operation = gathered.operation();
    gathered.identity_into(&mut event, origin);
    gathered.content_into(&mut event);
    gathered.usage_into(&mut event);
    let has_usage = event.token_basis != Default::default() || event.cost_reported.is_some();
    let operation = match operation {
        // No operation is named, but who counts tokens talks to a model.
        Operation::Unsaid if has_usage && !event.model.is_empty() => Operation::ModelCall,
        operation => operation,
    };
    event.event_type = match operation {
        Operation::ModelCall => EventType::LlmRequest,
        Operation::Agent => EventType::AgentStep,
        Operation::Tool => EventType::ToolCall,
        Operation::Other | Operation::Unsaid => EventType::Span,
    };
    match operation {
        Operation::ModelCall => {
            // A response id need not be unique within its trace, and only the trace as a whole could tell.
            event.llm_call_key = format!("{}:{}", event.trace_id, event.span_id);
            event.usage_role = if has_usage { UsageRole::Call } else { UsageRole::None };
        }
        _ if has_usage => event.usage_role = UsageRole::Rollup,
        _ => {}
    }
    failure(&mut event, &mut gathered, &span);
    gathered.rest_into(&mut data);
    finish_data(&mut event, data, &span);
    event
}

/// The error of a span: its attributes, else the exception it recorded.
fn failure(event: &mut AgentEvent, gathered: &mut Gathered<'_>, span: &Span<'_>) {
    event.error_type = gathered.take_text(Slot::ErrorType);
    let message = gathered.take_text(Slot::ErrorMessage);
    if event.error_message.is_empty() {
        event.error_message = message;
    }
    let exception = span.events.iter().rev().find(|entry| entry.name == "exception");
    for (name, value) in exception.into_iter().flat_map(|entry| &entry.attributes) {
        let column = match &**name {
            "exception.type" => &mut event.error_type,
            "exception.message" => &mut event.error_message,
            _ => continue,
        };
        if column.is_empty() {
            *column = value.text().unwrap_or_default();
        }
    }
    if event.status == Status::Unset && !event.error_type.is_empty() {
        event.status = Status::Error;
    }
}
