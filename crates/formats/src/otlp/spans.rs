//! OTLP spans.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status};

use super::frames::Group;
use super::model::Span;
use super::origin::Origin;
use super::{Decoder, Encoding, json, proto};
use crate::detect::{self, Emitter};
use crate::genai;
use crate::input::Eventless;
use crate::json::ObjectWriter;
use crate::moment::Moment;

/// The generic format's name in `source_format`.
pub(crate) const FORMAT: &str = "otlp.spans";

/// Decodes the spans of one group.
pub(super) fn decode<'a>(decoder: &mut Decoder<'_>, group: &Group<'a>, origin: &Origin<'a>) {
    let before = decoder.out.events.len();
    for record in &group.records {
        let Some(index) = decoder.next_index(record) else { continue };
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
            Ok(span) => match detect::emitter(origin) {
                Emitter::ClaudeCode => {
                    let event = crate::claude::spans::event(decoder, origin, index, span);
                    decoder.out.events.push(event);
                }
                Emitter::Codex => {
                    let event = crate::codex::spans::event(decoder, origin, index, span);
                    decoder.out.events.push(event);
                }
                Emitter::Gemini => {
                    let event = crate::gemini::spans::event(decoder, origin, index, span);
                    decoder.out.events.push(event);
                }
                Emitter::Other => match genai::spans::events(decoder, origin, index, span) {
                    Ok(events) => decoder.out.events.extend(events),
                    Err(fate) => decoder.out.eventless.push(Eventless { index, fate }),
                },
            },
        }
    }
    if detect::emitter(origin) == Emitter::Codex {
        crate::codex::spans::inherit(decoder.out.events.get_mut(before..).unwrap_or_default());
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
        event.timestamp_source = start.source();
        if start.clamped {
            data.field("timestamp_original", &span.start.to_string());
        }
    }
    if span.end != 0 {
        let end = Moment::of_nanos(i128::from(span.end));
        event.end_timestamp = Some(end.nanos);
        if end.clamped {
            data.field("end_timestamp_original", &span.end.to_string());
        }
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
