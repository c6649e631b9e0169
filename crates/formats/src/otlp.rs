//! OTLP: logs, spans and metric points, in protobuf and JSON (opentelemetry-proto 1.x).
//!
//! A body is split into its records together with the resource and scope they belong to ([`frames`]); each record is
//! then decoded by itself into one shape for both encodings ([`model`]), so a bad record costs only itself. What a
//! record means is decided by its format ([`crate::detect`]): a known agent's own, else the attribute conventions.

use crate::confine::Budget;
use crate::identity::Identities;
use crate::input::{Decoded, Input, Undecodable};
use crate::inspect::{BadBody, Body, Inspection};
use crate::json::Cursor;
use crate::media::{Media, media};

mod depth;
pub(crate) mod frames;
mod json;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod model;
pub(crate) mod origin;
mod proto;
pub(crate) mod spans;
mod wire;

use origin::Origins;

/// The three signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Logs,
    Traces,
    Metrics,
}

/// The two encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Protobuf,
}

impl Signal {
    /// The signal of a format's name, `otlp.logs` and so on.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            logs::FORMAT => Some(Self::Logs),
            spans::FORMAT | "otlp.traces" => Some(Self::Traces),
            metrics::FORMAT => Some(Self::Metrics),
            _ => None,
        }
    }

    /// The signal whose request has this member.
    pub(crate) fn of_key(key: &str) -> Option<Self> {
        [Self::Logs, Self::Traces, Self::Metrics].into_iter().find(|signal| signal.resources_key(key))
    }
}

impl Encoding {
    /// The encoding a body claims, else the one it looks like.
    fn of(body: &Body<'_>) -> Result<Self, BadBody> {
        match media(body.content_type)? {
            Media::Json | Media::Lines => Ok(Self::Json),
            Media::Protobuf => Ok(Self::Protobuf),
            // Every OTLP request starts with field 1, a message: the byte 0x0A, which is white space in JSON.
            Media::Unsaid if body.bytes.trim_ascii().first() == Some(&b'{') => Ok(Self::Json),
            Media::Unsaid => Ok(Self::Protobuf),
        }
    }
}

/// Counts the records of a body and finds those that cannot be accepted.
pub(crate) fn inspect(signal: Signal, body: &Body<'_>) -> Result<Inspection, BadBody> {
    let encoding = Encoding::of(body)?;
    let groups = frames::groups(signal, encoding, body.bytes)?;
    let mut found = Inspection::default();
    for group in &groups {
        let mut broken = group.broken.iter().peekable();
        for (place, record) in group.records.iter().enumerate() {
            if let Some((_, fault)) = broken.next_if(|(other, _)| *other == place) {
                found.reject(found.records, fault.code(), fault.message());
            } else if encoding == Encoding::Protobuf
                && signal != Signal::Metrics
                && frames::is_foreign(signal, record)
            {
                found.reject(found.records, "wrong_signal", "the record belongs to another OTLP signal");
            } else if signal == Signal::Traces && !frames::has_span_ids(encoding, record) {
                // Logs sent to the path of traces decode as spans of nonsense; a span's ids tell.
                let message = "a span needs a trace id of 16 bytes and a span id of 8";
                found.reject(found.records, "bad_ids", message);
            } else if encoding == Encoding::Protobuf && depth::is_too_deep(signal, record) {
                found.reject(found.records, "too_deep", depth::message());
            }
            found.records += 1;
        }
    }
    Ok(found)
}

/// Decodes a body of any encoding.
pub(crate) fn decode(signal: Signal, input: &Input<'_>) -> Result<Decoded, Undecodable> {
    let encoding = Encoding::of(&input.as_body())?;
    let groups = frames::groups(signal, encoding, input.body)?;
    let mut decoder = Decoder {
        input,
        encoding,
        identities: Identities::new(input),
        rejected: input.rejected,
        index: 0,
        budget: Budget::of(input.body.len()),
        out: Decoded::default(),
    };
    let mut origins = Origins::new(encoding);
    for mut group in groups.into_iter().filter(|group| !group.records.is_empty()) {
        let origin = origins.of(&mut group);
        match signal {
            Signal::Logs => logs::decode(&mut decoder, &group, &origin),
            Signal::Traces => spans::decode(&mut decoder, &group, &origin),
            Signal::Metrics => metrics::decode(&mut decoder, &group, &origin),
        }
    }
    Ok(decoder.out)
}

/// What the decoders of the three signals share while they go through one body.
pub(crate) struct Decoder<'i> {
    pub(crate) input: &'i Input<'i>,
    pub(crate) encoding: Encoding,
    pub(crate) identities: Identities<'i>,
    rejected: &'i [u32],
    index: u32,
    budget: Budget,
    pub(crate) out: Decoded,
}

impl Decoder<'_> {
    /// The index of the next record, or `None` when the gateway has rejected it or there is no room for its events.
    pub(crate) fn next_index(&mut self, record: &[u8]) -> Option<u32> {
        let index = self.index;
        self.index += 1;
        if let Some((&next, later)) = self.rejected.split_first()
            && next == index
        {
            self.rejected = later;
            return None;
        }
        if !self.budget.allows(&mut self.out) {
            self.out.beyond_budget(index, record);
            return None;
        }
        Some(index)
    }

    /// Keeps a record that is not shaped as its signal says.
    pub(crate) fn misshapen(&mut self, index: u32, record: &[u8], fault: &str) {
        if self.encoding == Encoding::Protobuf {
            return self.out.dead(index, fault, record);
        }
        let mut event = self.input.blank_event(index);
        let json = Cursor::new(record).skip_value().is_ok();
        // Whatever id or time it has, it could not be read.
        event.dedup_key = self.identities.arrival(index);
        event.event_id = event.dedup_key.to_string();
        crate::unknown::keep(&mut event, crate::unknown::BAD_SHAPE, record, json);
        self.out.events.push(event);
    }
}
