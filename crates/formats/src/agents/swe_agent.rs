//! SWE-agent's trajectories: one `.traj` document a run, with its steps and totals and no times.
//!
//! What the calls used is known as a whole only, `info.model_stats`: it is a running total, counted where nothing else
//! states usage (swe-agent.com, "Output files"; `sweagent/agent/models.py`, `InstanceStats`). A run is known by its
//! stream, else by its content.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::id::{Key128, NanoUsd};
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use super::{embedded, fits, further, session_of_stream, stated, tool};
use crate::records::{Object, Record, RecordFormat, Records, identify, number, object, text};

/// Trajectories.
pub(crate) const FORMAT: RecordFormat = RecordFormat {
    name: "swe_agent.trajectory",
    aliases: &["swe-agent", "swe_agent"],
    members: &[],
    recognises,
    follow,
    decode,
};

fn recognises(document: &Object) -> bool {
    let list = |name: &str| document.get(name).is_some_and(Value::is_array);
    list("trajectory") && (list("history") || object(document, "info").is_some())
}

fn follow(context: &mut StreamContext, _: &Object) {
    "swe-agent".clone_into(&mut context.source);
    session_of_stream(context);
}

fn decode(records: &mut Records<'_>, record: &Record<'_>) {
    if !fits(records, record, &FORMAT) {
        return;
    }
    let document = record.object;
    let content = Key128::of([record.text]);
    let mut run = records.event(record, &FORMAT, Channel::Transcript);
    if run.session_id.is_empty() {
        run.session_id = content.to_string();
    }
    let key = records.identities.stated(FORMAT.name, &[run.session_id.as_bytes(), &content.0]);
    identify(&mut run, key);
    let info = object(document, "info");
    let exit = info.map(|info| text(info, "exit_status")).unwrap_or_default();
    run.event_type = EventType::SessionEnd;
    "run".clone_into(&mut run.name);
    exit.clone_into(&mut run.finish_reason);
    run.status = match exit {
        "" => Status::Unset,
        exit if exit.starts_with("submitted") => Status::Ok,
        _ => Status::Error,
    };
    run.model = model(document);
    let totals = info.and_then(|info| object(info, "model_stats")).map(|stats| totals(records, &run, stats));
    let steps: Vec<AgentEvent> = document
        .get("trajectory")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
        .filter_map(|(number, step)| Some(self::step(records, &run, number, step.as_object()?)))
        .collect();
    records.emit(run);
    steps.into_iter().chain(totals).for_each(|event| records.emit(event));
}

/// The model of the run, which only its replay configuration, JSON in text, names.
fn model(document: &Object) -> String {
    let config = embedded(document, "replay_config").unwrap_or_default();
    let model = object(&config, "agent").and_then(|agent| object(agent, "model"));
    model.map(|model| text(model, "name")).unwrap_or_default().to_owned()
}

fn totals(records: &Records<'_>, run: &AgentEvent, stats: &Object) -> AgentEvent {
    let mut event = further(records, run, "model_stats");
    event.event_type = EventType::LlmRequest;
    "model_stats".clone_into(&mut event.name);
    "model_stats".clone_into(&mut event.llm_call_key);
    event.usage_role = UsageRole::Cumulative;
    stated(stats, ["tokens_sent", "tokens_received", "", "", ""]).apply(TokenBasis::Inclusive, &mut event);
    event.cost_reported = number(stats, "instance_cost").and_then(NanoUsd::from_usd);
    event
}

fn step(records: &Records<'_>, run: &AgentEvent, number: usize, step: &Object) -> AgentEvent {
    let number = number.to_string();
    let mut event = further(records, run, &number);
    "step".clone_into(&mut event.name);
    event.data = Value::Object(step.clone()).to_string();
    event.duration_ms = self::number(step, "execution_time").map(|seconds| seconds * 1e3);
    // A step without an action is only a thought.
    if text(step, "action").trim().is_empty() {
        event.event_type = EventType::AgentStep;
    } else {
        event.tool_call_id = number;
        tool(&mut event, "bash", None);
    }
    event
}
