//! A recorded session of a real agent.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use fleetlog_tests::{Process, Project, SOON, System, eventually, fixture, recordings};
use serde_json::{Value, json};

const SESSION: &str = "ec31950f-465d-4586-9bf8-1990d065cae4";
/// Log records and spans of the recording.
const LOG_RECORDS: u64 = 30;
const SPANS: u64 = 27;

/// Lines of the transcripts of the session and of its sub-agent.
const LINES: u64 = 29;

/// What the client itself reported, added up by hand from the recording.
fn known_numbers() -> Value {
    json!({
        "llm_call_count": 8,
        "llm_error_count": 0,
        "tool_call_count": 6,
        "tool_error_count": 2,
        "prompt_count": 1,
        "in_uncached": 168,
        "cache_read": 32_000,
        "cache_write": 2_400,
        "out_total": 136,
        "cost_reported": 0.021_144,
        "cost_reported_calls": 8,
    })
}

/// The same numbers, as the query API tells them.
fn numbers_of(session: &Value) -> Result<Value> {
    let known = known_numbers();
    let names = known.as_object().context("an object")?.keys();
    let written = |name| session[name].as_u64().context("cache writes");
    let cache_write = written("cache_write_5m")? + written("cache_write_1h")?;
    Ok(names
        .map(|name| {
            let number = if name == "cache_write" { json!(cache_write) } else { session[name].clone() };
            (name.clone(), number)
        })
        .collect())
}

async fn has_known_numbers(project: &Project, rows: u64) -> Result<()> {
    has_numbers(project, rows, &known_numbers()).await
}

async fn has_numbers(project: &Project, rows: u64, known: &Value) -> Result<()> {
    eventually("the session has its known numbers", SOON, || async {
        let stored = project.count("events").await?;
        ensure!(stored >= rows, "{stored} of {rows} events are stored");
        let answer = project.admin.read(&format!("/v1/sessions/{SESSION}"), &[]).await?;
        let found = numbers_of(&answer["data"])?;
        ensure!(found == *known, "found {found}, known {known}");
        Ok(())
    })
    .await
}

/// The recording's usage, as charts ask for it: by model, over the hours around it.
async fn usage_has_known_numbers(project: &Project) -> Result<()> {
    eventually("the usage has the known numbers", SOON, || async {
        let range = [("from", "2026-11-21T12:00:00Z"), ("to", "2026-11-21T14:00:00Z"), ("step", "1h")];
        let answer = project.admin.read("/v1/usage", &range).await?;
        let totals = &answer["totals"];
        let found = [&totals["calls"], &totals["in_uncached"], &totals["cache_read"], &totals["out_visible"]];
        ensure!(found == [&json!(8), &json!(168), &json!(32_000), &json!(136)], "{totals}");
        ensure!(totals["cost_reported"] == json!(0.021_144), "{totals}");
        Ok(())
    })
    .await
}

pub(crate) async fn the_recorded_session_has_its_known_numbers_however_often_it_arrives(
    system: Arc<System>,
) -> Result<()> {
    let project = Project::create(&system, "recorded-session").await?;
    let logs = fixture("claude-code-2.1-session/logs.json")?;
    let traces = fixture("claude-code-2.1-session/traces.json")?;

    project.admin.post_json("/v1/logs", logs.clone()).await?.expect_status(200)?;
    has_known_numbers(&project, LOG_RECORDS).await?;
    usage_has_known_numbers(&project).await?;

    // The same calls again: as the same bytes, and through another channel that shares their request ids.
    project.admin.post_json("/v1/logs", logs).await?.expect_status(200)?;
    project.admin.post_json("/v1/traces", traces.clone()).await?.expect_status(200)?;
    project.admin.post_json("/v1/traces", traces).await?.expect_status(200)?;
    eventually("all of it is derived", SOON, || async {
        let sql = "SELECT min(sightings), max(sightings), any(channels) FROM llm_calls
                   WHERE project_id = {project:String}";
        let parameters = [("project", project.id.as_str())];
        let (least, most, channels): (u32, u32, String) =
            system.clickhouse().select_one(sql, &parameters).await?;
        // The record of the request, that of its response, and the span; a repeat of any is the same sighting.
        ensure!((least, most) == (3, 3), "sightings {least} to {most} over {channels}");
        ensure!(channels == "agent_log,span", "{channels}");
        Ok(())
    })
    .await?;
    has_known_numbers(&project, LOG_RECORDS + SPANS).await?;
    usage_has_known_numbers(&project).await?;

    let answer =
        project.admin.read(&format!("/v1/sessions/{SESSION}/timeline"), &[("limit", "1000")]).await?;
    let timeline = answer["data"].as_array().context("no data")?;
    let times: Vec<&str> = timeline.iter().filter_map(|event| event["timestamp"].as_str()).collect();
    ensure!(times.len() as u64 >= LOG_RECORDS + SPANS, "{} events in the timeline", times.len());
    ensure!(times.is_sorted(), "the timeline is not in the order of time: {times:?}");
    Ok(())
}

/// The session's files alone, sent in chunks of three lines; then everything at once.
pub(crate) async fn the_sessions_files_have_its_known_numbers_and_change_none_that_were_there(
    system: Arc<System>,
) -> Result<()> {
    let project = Project::create(&system, "recorded-files").await?;
    let folder = tempfile::tempdir()?;
    let send = |command: &mut Command| {
        command.arg("send").arg(recordings().join("claude-code-2.1/transcripts"));
        command.arg("--state").arg(folder.path());
        command.args(["--url", project.admin.ingest_url(), "--chunk-lines", "3"]);
        command.env("FLEETLOG_KEY", project.admin.key());
    };
    let sent = Process::start("fleetlog", send)?;
    let status = sent.wait(SOON)?;
    ensure!(status.success(), "the files were not sent: {status}: {}", sent.stderr_tail());

    let mut known = known_numbers();
    // Transcripts state no cost.
    (known["cost_reported"], known["cost_reported_calls"]) = (json!(0), json!(0));
    has_numbers(&project, LINES, &known).await?;
    let answer = project.admin.read(&format!("/v1/sessions/{SESSION}"), &[]).await?;
    ensure!(answer["data"]["cost_computed"] == json!(0.021_144), "{answer}");
    ensure!(answer["data"]["ended_at"].as_str().is_some_and(|ended| ended < "2026-11-21T12:38"), "{answer}");

    for (path, name) in [("/v1/logs", "logs"), ("/v1/traces", "traces")] {
        let body = fixture(&format!("claude-code-2.1-session/{name}.json"))?;
        project.admin.post_json(path, body).await?.expect_status(200)?;
    }
    has_known_numbers(&project, LINES + LOG_RECORDS + SPANS).await
}
