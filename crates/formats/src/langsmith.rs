//! LangSmith's API: runs, created (`POST`) and completed (`PATCH`) piece by piece, and feedback on them.
//!
//! A run comes alone (`/runs`, `/runs/{id}`), in a batch (`/runs/batch`: `{"post":[…],"patch":[…]}`), or in the parts of a
//! form (`/runs/multipart`, [`multipart`]). Its pieces share the run's id, which one client may write in two ways, and
//! so do the traces of runs sent without one ([`trace`]). `session_name` is the name of a project, and `session_id` at
//! the top its id: the conversation is in `extra.metadata`. Made from langsmith-python 0.15 and langsmith-js 0.12
//! (captures and sources), and from the REST example of the server's documentation.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status};
use fleetlog_schemas::id::NanoUsd;
use serde_json::Value;

use crate::api::{self, first_text, set_span};
use crate::hint::Hint;
use crate::records::{Object, Record, RecordFormat, Records, identify, number, object, text};
use crate::{tools, unknown, usage};

pub(crate) mod multipart;

/// Runs, alone or in a batch.
pub(crate) const RUNS: RecordFormat = RecordFormat {
    name: Hint::LANGSMITH_RUNS.as_str(),
    aliases: &["langsmith", Hint::LANGSMITH_RUN_PATCH.as_str(), multipart::HINT],
    members: &["post", "patch"],
    recognises: |object| {
        ["run_type", "dotted_order"].iter().any(|name| object.contains_key(*name))
            && object.contains_key("trace_id")
    },
    follow: |_, _| {},
    decode: run,
};

/// Feedback, one judgement a request; that of a change has its id in the path.
pub(crate) const FEEDBACK: RecordFormat = RecordFormat {
    name: Hint::LANGSMITH_FEEDBACK.as_str(),
    aliases: &[Hint::LANGSMITH_FEEDBACK_PATCH.as_str()],
    members: &[],
    recognises: |object| {
        object.contains_key("run_id") && object.contains_key("key") && object.contains_key("score")
    },
    follow: |_, _| {},
    decode: feedback,
};

/// The id of a run: its own, that of the path, or the last of its dotted order (`<start>Z<id>.<start>Z<id>`), which
/// older JavaScript clients send alone.
fn id<'r>(run: &'r Object, of_path: &'r str) -> &'r str {
    let ordered = || text(run, "dotted_order").rsplit('.').next().and_then(ordered_id);
    [text(run, "id"), of_path].into_iter().find(|id| !id.is_empty()).or_else(ordered).unwrap_or_default()
}

/// The trace of a run: as stated, or the first of its dotted order. Else the run's own id, which is right for a root. Of
/// a run below another it is the only name that all pieces know, so it keeps them together, apart from the run above.
fn trace<'r>(run: &'r Object, id: &'r str) -> &'r str {
    let ordered = || text(run, "dotted_order").split('.').next().and_then(ordered_id);
    let stated = Some(text(run, "trace_id")).filter(|stated| !stated.is_empty());
    stated.or_else(ordered).unwrap_or(id)
}

/// The id of one part of a dotted order.
fn ordered_id(part: &str) -> Option<&str> {
    part.split_once('Z').map(|(_, id)| id).filter(|id| !id.is_empty())
}

/// Where the dashes of a UUID stand.
const DASHES: [usize; 4] = [8, 13, 18, 23];

/// An id as all pieces have it. The server's ids are UUIDs, which clients write with dashes or as bare digits; whatever
/// is none stays as it is.
fn one_spelling(id: &str) -> String {
    let mut uuid = id.to_ascii_lowercase();
    if DASHES.iter().all(|at| uuid.as_bytes().get(*at) == Some(&b'-')) {
        uuid.retain(|c| c != '-');
    }
    if uuid.len() != 32 || !uuid.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return id.to_owned();
    }
    for at in DASHES {
        uuid.insert(at, '-');
    }
    uuid
}

fn run(records: &mut Records<'_>, record: &Record<'_>) {
    let run = record.object;
    let patch =
        record.member == "patch" || Hint::of(records.input.format_hint) == Some(Hint::LANGSMITH_RUN_PATCH);
    let id = id(run, &records.stream.stream_id).to_owned();
    if id.is_empty() {
        return records.keep(record, &RUNS, unknown::BAD_SHAPE);
    }
    let mut event = records.event(record, &RUNS, Channel::Api);
    let verb: &[u8] = if patch { b"patch" } else { b"post" };
    identify(&mut event, records.identities.stated(RUNS.name, &[id.as_bytes(), verb, record.text]));
    let (start, end) = (api::time(run, "start_time"), api::time(run, "end_time"));
    // A piece without any time can only be ordered by when it came.
    event.revision = end.or(start).map_or(event.received_at, |written| api::revision(written, patch));
    set_span(&mut event, start, end, None);
    event.trace_id = one_spelling(trace(run, &id));
    event.span_id = one_spelling(&id);
    event.parent_id = one_spelling(text(run, "parent_run_id"));
    text(run, "name").clone_into(&mut event.name);
    let none = Object::new();
    let extra = object(run, "extra").unwrap_or(&none);
    let metadata = object(extra, "metadata").unwrap_or(&none);
    event.session_id = one_spelling(first_text(metadata, &["session_id", "thread_id", "conversation_id"]));
    text(metadata, "user_id").clone_into(&mut event.user_id);
    if let Some(runtime) = object(extra, "runtime") {
        text(runtime, "sdk").clone_into(&mut event.source);
        text(runtime, "sdk_version").clone_into(&mut event.source_version);
    }
    outcome(&mut event, run);
    match text(run, "run_type") {
        "llm" | "embedding" => model_call(&mut event, run, extra, metadata),
        // Pieces without a type that speak of a model are its.
        "" if !text(metadata, "ls_model_type").is_empty() || stated_usage(run, metadata).is_some() => {
            model_call(&mut event, run, extra, metadata);
        }
        "tool" => {
            event.event_type = EventType::ToolCall;
            event.tool_call_id.clone_from(&event.span_id);
            event.tool_name.clone_from(&event.name);
            tools::refine(&mut event);
        }
        "" => api::untyped(&mut event),
        _ => event.event_type = EventType::Span,
    }
    records.emit(event);
}

/// How a run ended. It succeeded when it ended without an error.
fn outcome(event: &mut AgentEvent, run: &Object) {
    let error = text(run, "error");
    if !error.is_empty() {
        event.status = Status::Error;
        error.clone_into(&mut event.error_message);
        // Clients write the exception as Python shows it: `ValueError('boom')` and then the stack.
        let class = error.split(['(', ':', '\n']).next().unwrap_or_default();
        if class.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')) {
            class.clone_into(&mut event.error_type);
        }
    } else if event.end_timestamp.is_some() {
        event.status = Status::Ok;
    }
}

fn model_call(event: &mut AgentEvent, run: &Object, extra: &Object, metadata: &Object) {
    event.event_type = EventType::LlmRequest;
    event.llm_call_key.clone_from(&event.span_id);
    text(metadata, "ls_provider").clone_into(&mut event.provider);
    let none = Object::new();
    let member = |of: &'_ Object, name: &str| object(of, name).cloned().unwrap_or_default();
    let (inputs, outputs) = (object(run, "inputs").unwrap_or(&none), object(run, "outputs").unwrap_or(&none));
    let (parameters, llm_output) = (member(extra, "invocation_params"), member(outputs, "llm_output"));
    let said = [
        text(metadata, "ls_model_name"),
        first_text(&parameters, &["model", "model_name"]),
        text(inputs, "model"),
    ];
    let requested = said.into_iter().find(|model| !model.is_empty()).unwrap_or_default();
    let answered = [text(outputs, "model"), first_text(&llm_output, &["model_name", "model"])];
    let answered = answered.into_iter().find(|model| !model.is_empty()).unwrap_or(requested);
    requested.clone_into(&mut event.model_requested);
    answered.clone_into(&mut event.model);
    let choice = outputs.get("choices").and_then(|choices| choices.get(0)).and_then(Value::as_object);
    event.finish_reason = choice.map(|choice| text(choice, "finish_reason").to_owned()).unwrap_or_default();
    event.ttft_ms = api::milliseconds(api::time(run, "start_time"), first_token(run));
    if let Some(stated) = stated_usage(run, metadata) {
        usage::apply(stated, event);
    }
    event.cost_reported = usages(run, metadata).find_map(cost);
}

/// What a usage object says that the call cost: the total, else the sum of its parts.
fn cost(usage: &Object) -> Option<NanoUsd> {
    let parts = || {
        let stated = ["input_cost", "output_cost"].into_iter().filter_map(|part| number(usage, part));
        stated.reduce(|sum, part| sum + part).and_then(NanoUsd::from_usd)
    };
    usage::dollars(usage, "total_cost").or_else(parts)
}

/// When the first token of a streamed answer came.
fn first_token(run: &Object) -> Option<crate::moment::Moment> {
    let events = run.get("events").and_then(Value::as_array)?;
    let tokens =
        events.iter().filter_map(Value::as_object).find(|event| text(event, "name") == "new_token")?;
    api::time(tokens, "time")
}

/// The first usage object of a run that states token counts.
fn stated_usage<'r>(run: &'r Object, metadata: &'r Object) -> Option<&'r Object> {
    usages(run, metadata).find(|usage| usage::stated(usage).is_some())
}

/// The usage objects of a run, wherever its client puts them; the normalised ones first.
fn usages<'r>(run: &'r Object, metadata: &'r Object) -> impl Iterator<Item = &'r Object> {
    let outputs = object(run, "outputs");
    let within = |path: &[&str]| {
        let (last, path) = path.split_last()?;
        let holder = path.iter().try_fold(outputs?, |holder, name| object(holder, name))?;
        object(holder, last)
    };
    let message = || {
        let first = outputs?.get("generations")?.get(0)?;
        let generation = first.get(0).unwrap_or(first);
        generation.get("message")?.get("kwargs")?.get("usage_metadata")?.as_object()
    };
    let candidates = [
        within(&["usage_metadata"]),
        object(metadata, "usage_metadata"),
        message(),
        within(&["llm_output", "token_usage"]),
        within(&["llm_output", "usage"]),
        within(&["usage"]),
    ];
    candidates.into_iter().flatten()
}

fn feedback(records: &mut Records<'_>, record: &Record<'_>) {
    let judgement = record.object;
    let patch = Hint::of(records.input.format_hint) == Some(Hint::LANGSMITH_FEEDBACK_PATCH);
    if text(judgement, "key").is_empty() && !patch {
        return records.keep(record, &FEEDBACK, unknown::BAD_SHAPE);
    }
    let mut event = records.event(record, &FEEDBACK, Channel::Api);
    let id = [text(judgement, "id"), &records.stream.stream_id].into_iter().find(|id| !id.is_empty());
    if let Some(id) = id {
        // The same id with another score is a correction.
        identify(&mut event, records.identities.stated(FEEDBACK.name, &[id.as_bytes(), record.text]));
        // A change says nowhere else which feedback it changes.
        id.clone_into(&mut event.event_id);
    }
    let created = api::time(judgement, "created_at");
    let written = api::time(judgement, "modified_at").or(created);
    event.revision = written.map_or(event.received_at, |written| api::revision(written, patch));
    set_span(&mut event, created, None, None);
    event.event_type = EventType::Score;
    text(judgement, "key").clone_into(&mut event.name);
    event.trace_id = one_spelling(text(judgement, "trace_id"));
    event.span_id = one_spelling(text(judgement, "run_id"));
    records.emit(event);
}
