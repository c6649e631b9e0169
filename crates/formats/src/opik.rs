//! Opik's API: traces and spans, sent whole when they begin and again when they end, or patched, and scores of both.
//!
//! Batches are `{"traces":[…]}`, `{"spans":[…]}` and `{"scores":[…]}`; single ones come bare. All pieces of a thing carry
//! its id, a patch in its path; `last_updated_at` orders them where it is given. Usage holds OpenAI's three counts and,
//! under `original_usage.`, the provider's own, flattened. Made from opik 2.2.122 (`rest_api/types`, `llm_usage`).

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status};
use serde_json::Value;

use crate::api::{self, set_span};
use crate::hint::Hint;
use crate::json::ObjectWriter;
use crate::records::{Object, Record, RecordFormat, Records, identify, number, object, text};
use crate::{tools, unknown, usage};

/// Traces.
pub(crate) const TRACES: RecordFormat = RecordFormat {
    name: Hint::OPIK_TRACES.as_str(),
    aliases: &[Hint::OPIK_TRACE_PATCH.as_str()],
    members: &["traces"],
    recognises: |object| object.contains_key("project_name") && object.contains_key("start_time"),
    follow: |_, _| {},
    decode: |records, record| decode(records, record, &TRACES, trace),
};

/// Spans.
pub(crate) const SPANS: RecordFormat = RecordFormat {
    name: Hint::OPIK_SPANS.as_str(),
    aliases: &[Hint::OPIK_SPAN_PATCH.as_str()],
    members: &["spans"],
    recognises: |object| object.contains_key("project_name") && object.contains_key("trace_id"),
    follow: |_, _| {},
    decode: |records, record| decode(records, record, &SPANS, span),
};

/// Scores of traces, spans and threads; the path alone says of which.
pub(crate) const FEEDBACK: RecordFormat = RecordFormat {
    name: Hint::OPIK_FEEDBACK.as_str(),
    aliases: &[Hint::OPIK_SPAN_FEEDBACK.as_str(), Hint::OPIK_THREAD_FEEDBACK.as_str()],
    members: &["scores"],
    // Too common a shape to be known without its path.
    recognises: |_| false,
    follow: |_, _| {},
    decode: feedback,
};

/// The id of a piece: its own, or that of its path.
fn id<'r>(records: &'r Records<'_>, piece: &'r Object) -> &'r str {
    match text(piece, "id") {
        "" => &records.stream.stream_id,
        id => id,
    }
}

/// The ids and the piece of a record: `{"ids":[…],"update":{…}}` is one change of many things.
fn pieces<'r>(records: &Records<'_>, record: &Record<'r>) -> (Vec<String>, &'r Object) {
    match (record.object.get("ids").and_then(Value::as_array), object(record.object, "update")) {
        (Some(ids), Some(update)) => {
            (ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(), update)
        }
        _ => {
            let id = id(records, record.object);
            ((!id.is_empty()).then(|| id.to_owned()).into_iter().collect(), record.object)
        }
    }
}

/// Decodes a record of a format whose single pieces `describe` completes.
fn decode(
    records: &mut Records<'_>,
    record: &Record<'_>,
    format: &RecordFormat,
    describe: fn(&mut AgentEvent, String, &Object),
) {
    let (ids, piece) = pieces(records, record);
    if ids.is_empty() {
        return records.keep(record, format, unknown::BAD_SHAPE);
    }
    let mut whole: Option<String> = None;
    for id in ids {
        let mut event = envelope(records, record, format, &id, piece);
        match &whole {
            None => whole = Some(event.event_id.clone()),
            // One event keeps the record; the others name it, so that their number does not multiply its size.
            Some(whole) => {
                let mut data = ObjectWriter::new();
                data.field("id", &id);
                data.field("change_of", whole);
                event.data = data.finish();
            }
        }
        describe(&mut event, id, piece);
        records.emit(event);
    }
}

/// The event of a piece of a trace or span, with what both say.
fn envelope(
    records: &Records<'_>,
    record: &Record<'_>,
    format: &RecordFormat,
    id: &str,
    piece: &Object,
) -> AgentEvent {
    let patch =
        matches!(Hint::of(records.input.format_hint), Some(Hint::OPIK_TRACE_PATCH | Hint::OPIK_SPAN_PATCH));
    let mut event = records.event(record, format, Channel::Api);
    let updated = text(piece, "last_updated_at");
    let sighting = if updated.is_empty() { record.text } else { updated.as_bytes() };
    identify(&mut event, records.identities.stated(format.name, &[id.as_bytes(), sighting]));
    "opik".clone_into(&mut event.source);
    let (start, end) = (api::time(piece, "start_time"), api::time(piece, "end_time"));
    // A patch need not say when it was written; then it can only be ordered by when it came.
    let written = api::time(piece, "last_updated_at").or(end).or(start);
    event.revision = written.map_or(event.received_at, |written| api::revision(written, patch));
    set_span(&mut event, start, end, None);
    event.event_type = EventType::Span;
    text(piece, "name").clone_into(&mut event.name);
    event.ttft_ms = number(piece, "ttft");
    match object(piece, "error_info") {
        Some(error) => {
            event.status = Status::Error;
            text(error, "exception_type").clone_into(&mut event.error_type);
            text(error, "message").clone_into(&mut event.error_message);
        }
        None if end.is_some() => event.status = Status::Ok,
        None => {}
    }
    event
}

fn trace(event: &mut AgentEvent, id: String, trace: &Object) {
    event.trace_id = id;
    text(trace, "thread_id").clone_into(&mut event.session_id);
}

fn span(event: &mut AgentEvent, id: String, span: &Object) {
    event.span_id = id;
    text(span, "trace_id").clone_into(&mut event.trace_id);
    text(span, "parent_span_id").clone_into(&mut event.parent_id);
    let stated = object(span, "usage").map(provider_usage);
    let kind = match text(span, "type") {
        // A patch need not repeat the type; who counts tokens talks to a model.
        "" if stated.as_ref().is_some_and(|usage| usage::stated(usage).is_some()) => "llm",
        kind => kind,
    };
    match kind {
        "llm" => {
            event.event_type = EventType::LlmRequest;
            event.llm_call_key.clone_from(&event.span_id);
            text(span, "model").clone_into(&mut event.model);
            text(span, "provider").clone_into(&mut event.provider);
            if let Some(stated) = &stated {
                usage::apply(stated, event);
            }
            event.cost_reported = usage::dollars(span, "total_estimated_cost");
        }
        "tool" => {
            event.event_type = EventType::ToolCall;
            event.tool_call_id.clone_from(&event.span_id);
            event.tool_name.clone_from(&event.name);
            tools::refine(event);
        }
        "" => api::untyped(event),
        _ => {}
    }
}

/// The provider's own usage, unflattened, where it is given; else the three counts.
fn provider_usage(usage: &Object) -> Object {
    let mut own = Object::new();
    for (path, count) in usage {
        let Some(path) = path.strip_prefix("original_usage.") else { continue };
        match path.split_once('.') {
            None => {
                own.insert(path.to_owned(), count.clone());
            }
            Some((group, name)) => {
                let group = own.entry(group).or_insert_with(|| Value::Object(Object::new()));
                if let Some(group) = group.as_object_mut() {
                    group.insert(name.to_owned(), count.clone());
                }
            }
        }
    }
    if usage::stated(&own).is_some() { own } else { usage.clone() }
}

fn feedback(records: &mut Records<'_>, record: &Record<'_>) {
    let score = record.object;
    if text(score, "name").is_empty() || !score.contains_key("value") {
        return records.keep(record, &FEEDBACK, unknown::BAD_SHAPE);
    }
    let judged = id(records, score).to_owned();
    let mut event = records.event(record, &FEEDBACK, Channel::Api);
    // No time is sent: the same score of the same thing again is a repetition.
    identify(&mut event, records.identities.stated(FEEDBACK.name, &[judged.as_bytes(), record.text]));
    "opik".clone_into(&mut event.source);
    event.event_type = EventType::Score;
    event.revision = event.received_at;
    text(score, "name").clone_into(&mut event.name);
    match Hint::of(records.input.format_hint) {
        Some(Hint::OPIK_SPAN_FEEDBACK) => event.span_id = judged,
        Some(Hint::OPIK_THREAD_FEEDBACK) => text(score, "thread_id").clone_into(&mut event.session_id),
        _ => event.trace_id = judged,
    }
    records.emit(event);
}
