//! Langfuse's ingestion API, as its SDKs before OpenTelemetry, its score clients and Goose speak it.
//!
//! `POST /api/public/ingestion` carries `{"batch":[{id, type, timestamp, body}], metadata}`: traces, observations and
//! scores, created and updated piece by piece. Pieces of one thing share `body.id`; an update may stand before its
//! creation in one batch. `POST /api/public/scores` carries one score without an envelope. Shapes: Langfuse's
//! `packages/shared/src/server/ingestion/types.ts`, and captures of langfuse-python 2.60 and 3.15, langfuse-js 3.39.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status};
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use crate::api::{self, first_text, set_span};
use crate::hint::Hint;
use crate::json::{Cursor, Fault};
use crate::records::{Object, Record, RecordFormat, Records, identify, object, text};
use crate::{tools, unknown};

mod batch;
mod usage;

pub(crate) use batch::inspect;
pub use batch::{Entry, ids};

/// Batches of envelopes.
pub(crate) const INGESTION: RecordFormat = RecordFormat {
    name: Hint::LANGFUSE_INGESTION.as_str(),
    aliases: &["langfuse"],
    members: &["batch"],
    recognises: |object| {
        object.contains_key("id")
            && !text(object, "type").is_empty()
            && object.get("body").is_some_and(Value::is_object)
    },
    follow: |_, _| {},
    decode: envelope,
};

/// Whether a hint is that of batches.
pub(crate) fn is_batch(hint: &str) -> bool {
    hint == INGESTION.name || INGESTION.aliases.contains(&hint)
}

/// Single scores.
pub(crate) const SCORES: RecordFormat = RecordFormat {
    name: Hint::LANGFUSE_SCORES.as_str(),
    aliases: &[],
    members: &[],
    recognises: |_| false,
    follow: |_, _| {},
    decode: bare_score,
};

/// What an envelope is about, by its type without `-create` or `-update`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Trace,
    Observation(EventType),
    Score,
    /// The SDK's own words, and links to data sets: not observations.
    Note,
}

impl Thing {
    fn of(kind: &str, body: &Object) -> Option<Self> {
        Some(match kind {
            "trace" => Self::Trace,
            "score" => Self::Score,
            "dataset-run-item" | "sdk-log" => Self::Note,
            // The legacy type says in the body what it is.
            "observation" => Self::Observation(observation(&text(body, "type").to_ascii_lowercase())?),
            kind => Self::Observation(observation(kind)?),
        })
    }
}

fn observation(kind: &str) -> Option<EventType> {
    Some(match kind {
        "generation" | "embedding" => EventType::LlmRequest,
        "tool" => EventType::ToolCall,
        "agent" => EventType::AgentStep,
        "event" => EventType::Log,
        "span" | "chain" | "retriever" | "evaluator" | "guardrail" => EventType::Span,
        _ => return None,
    })
}

fn envelope(records: &mut Records<'_>, record: &Record<'_>) {
    let (id, kind) = (text(record.object, "id"), text(record.object, "type"));
    let Some(body) = object(record.object, "body") else {
        return records.keep(record, &INGESTION, unknown::BAD_SHAPE);
    };
    let (kind, update) = match kind.strip_suffix("-update") {
        Some(kind) => (kind, true),
        None => (kind.strip_suffix("-create").unwrap_or(kind), false),
    };
    let Some(thing) = Thing::of(kind, body) else {
        return records.keep(record, &INGESTION, unknown::UNKNOWN_TYPE);
    };
    let written = api::time(record.object, "timestamp");
    let mut event = records.event(record, &INGESTION, Channel::Api);
    if !id.is_empty() {
        let key = records.identities.stated(INGESTION.name, &[id.as_bytes()]);
        identify(&mut event, key);
        id.clone_into(&mut event.event_id);
    }
    event.revision = written.map_or(event.received_at, |written| api::revision(written, update));
    let begins = match thing {
        // Said once, when it happened.
        Thing::Score | Thing::Note => written,
        Thing::Trace => api::time(body, "timestamp"),
        Thing::Observation(_) => api::time(body, "startTime"),
    };
    set_span(&mut event, begins, api::time(body, "endTime"), written);
    describe(&mut event, body);
    match thing {
        Thing::Trace => {
            event.event_type = EventType::Span;
            text(body, "id").clone_into(&mut event.trace_id);
        }
        Thing::Observation(kind) => observe(&mut event, kind, body),
        Thing::Score => score(&mut event, body),
        Thing::Note => event.event_type = EventType::Log,
    }
    records.emit(event);
}

/// What the bodies of all types have in common.
fn describe(event: &mut AgentEvent, body: &Object) {
    text(body, "name").clone_into(&mut event.name);
    text(body, "traceId").clone_into(&mut event.trace_id);
    text(body, "sessionId").clone_into(&mut event.session_id);
    text(body, "userId").clone_into(&mut event.user_id);
    match text(body, "level") {
        "" => {}
        "WARNING" => event.level = "warn".to_owned(),
        "DEFAULT" => event.level = "info".to_owned(),
        "ERROR" => {
            event.level = "error".to_owned();
            event.status = Status::Error;
        }
        other => event.level = other.to_ascii_lowercase(),
    }
    // Without a level it may be the rest of a failure whose level another piece has said.
    if matches!(event.level.as_str(), "" | "error") {
        text(body, "statusMessage").clone_into(&mut event.error_message);
    }
}

fn observe(event: &mut AgentEvent, kind: EventType, body: &Object) {
    event.event_type = kind;
    let id = text(body, "id");
    id.clone_into(&mut event.span_id);
    text(body, "parentObservationId").clone_into(&mut event.parent_id);
    match kind {
        EventType::LlmRequest => {
            id.clone_into(&mut event.llm_call_key);
            first_text(body, &["model"]).clone_into(&mut event.model);
            event.ttft_ms =
                api::milliseconds(api::time(body, "startTime"), api::time(body, "completionStartTime"));
            usage::apply(body, event);
        }
        EventType::ToolCall => {
            id.clone_into(&mut event.tool_call_id);
            event.tool_name.clone_from(&event.name);
            tools::refine(event);
        }
        EventType::AgentStep => event.agent_name.clone_from(&event.name),
        _ => {}
    }
}

fn score(event: &mut AgentEvent, body: &Object) {
    event.event_type = EventType::Score;
    text(body, "observationId").clone_into(&mut event.span_id);
}

fn bare_score(records: &mut Records<'_>, record: &Record<'_>) {
    let body = record.object;
    if text(body, "name").is_empty() || !body.contains_key("value") {
        return records.keep(record, &SCORES, unknown::BAD_SHAPE);
    }
    let mut event = records.event(record, &SCORES, Channel::Api);
    let id = text(body, "id");
    if !id.is_empty() {
        // The same id with another value is a correction.
        let key = records.identities.stated(SCORES.name, &[id.as_bytes(), record.text]);
        identify(&mut event, key);
    }
    let written = api::time(body, "timestamp");
    event.revision = written.map_or(event.received_at, |written| api::revision(written, false));
    set_span(&mut event, written, None, None);
    describe(&mut event, body);
    score(&mut event, body);
    records.emit(event);
}

/// Takes the SDK's name and version from a batch's `metadata`.
pub(crate) fn introduce(stream: &mut StreamContext, body: &[u8]) {
    let mut metadata = None;
    // A fault in the batch is found again, and said, when its records are read.
    let _read: Result<(), Fault> = Cursor::new(body).object(|cursor, key| {
        let found = cursor.skip_loosely().ok_or_else(|| cursor.fault())?;
        if key.text() == "metadata" {
            metadata = serde_json::from_slice::<Object>(found).ok();
        }
        Ok(())
    });
    let Some(metadata) = metadata else { return };
    let name = text(&metadata, "sdk_name");
    stream.source = match name {
        "" => String::new(),
        name if name.starts_with("langfuse") => name.to_owned(),
        name => format!("langfuse-{name}"),
    };
    text(&metadata, "sdk_version").clone_into(&mut stream.version);
}
