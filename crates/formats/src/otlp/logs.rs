//! OTLP log records.

use fleetlog_schemas::event::{AgentEvent, TimestampSource};

use super::frames::Group;
use super::model::{AnyValue, Log};
use super::origin::Origin;
use super::{Decoder, Encoding, json, proto};
use crate::detect::{self, Emitter};
use crate::genai;
use crate::json::ObjectWriter;
use crate::moment::Moment;

/// The generic format's name in `source_format`.
pub(crate) const FORMAT: &str = "otlp.logs";

/// Decodes the log records of one group.
pub(super) fn decode<'a>(decoder: &mut Decoder<'_>, group: &Group<'a>, origin: &Origin<'a>) {
    for record in &group.records {
        let Some(index) = decoder.next_index(record) else { continue };
        let log = match decoder.encoding {
            Encoding::Json => json::log(record).map_err(|fault| fault.message()),
            Encoding::Protobuf => proto::log(record).map_err(|error| error.to_string()),
        };
        match log {
            Err(fault) => decoder.misshapen(index, record, &fault),
            Ok(log) => {
                let event = match detect::emitter_of_log(origin, &log) {
                    Emitter::ClaudeCode => {
                        crate::claude::logs::event(decoder, origin, index, group, record, log)
                    }
                    Emitter::Codex => crate::codex::logs::event(decoder, origin, index, group, record, log),
                    Emitter::Gemini => crate::gemini::logs::event(decoder, origin, index, group, record, log),
                    Emitter::Other => genai::logs::event(decoder, origin, index, group, record, log),
                };
                decoder.out.events.push(event);
            }
        }
    }
}

/// The time of a log record: its own, else when it was observed, else when it was received.
pub(crate) fn set_time(event: &mut AgentEvent, data: &mut ObjectWriter, log: &Log<'_>) {
    let (nanos, own) = match (log.time, log.observed) {
        (0, 0) => return,
        (0, observed) => (observed, false),
        (time, _) => (time, true),
    };
    let moment = Moment::of_nanos(i128::from(nanos));
    event.timestamp = moment.nanos;
    event.timestamp_source = if own || moment.clamped { moment.source() } else { TimestampSource::Observed };
    if moment.clamped {
        data.field("timestamp_original", &nanos.to_string());
    }
}

/// The identity of a log record whose source has none of its own (MAPPING §9, "other OTLP logs").
pub(crate) fn identify(
    decoder: &mut Decoder<'_>,
    event: &mut AgentEvent,
    index: u32,
    group: &Group<'_>,
    record: &[u8],
) {
    event.dedup_key = if event.timestamp_source == TimestampSource::Ingest {
        decoder.identities.arrival(index)
    } else {
        let [resource, scope] = group.identity();
        decoder.identities.content(FORMAT, &[resource, scope, record])
    };
    event.event_id = event.dedup_key.to_string();
}

/// The severity as one of six words (opentelemetry logs data model, "Severity fields").
pub(crate) fn level(log: &Log<'_>) -> String {
    let word = match log.severity {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        21..=24 => "fatal",
        _ => return log.severity_text.to_ascii_lowercase(),
    };
    word.to_owned()
}

/// Writes the data of a log record, with the number of attributes that its sender left out.
pub(crate) fn finish_data(event: &mut AgentEvent, mut data: ObjectWriter, dropped: u64) {
    if dropped > 0 {
        data.field("dropped_attributes", &dropped);
    }
    event.data = data.finish();
}

/// The name of the event that a log record is: its attribute, else its field, else its body up to a known prefix.
///
/// The attribute comes first because some loggers put a place in their source code into the field.
pub(crate) fn event_name<'l>(log: &'l Log<'_>) -> &'l str {
    let attribute = log.attributes.iter().find(|(key, _)| key == "event.name");
    match (attribute.and_then(|(_, value)| value.as_str()), log.event_name.as_str()) {
        (Some(name), _) => name,
        (None, "") => log.body.as_ref().and_then(AnyValue::as_str).unwrap_or_default(),
        (None, name) => name,
    }
}
