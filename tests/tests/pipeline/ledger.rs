//! What the system says of its own completeness.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use fleetlog_tests::{Project, System, recording};
use serde_json::{Value, json};

fn receipt(answer: &Value) -> Result<&str> {
    answer["receipt"].as_str().with_context(|| format!("no receipt: {answer}"))
}

pub(crate) async fn an_event_is_there_for_whoever_presents_its_receipt(system: Arc<System>) -> Result<()> {
    let project = Project::create(&system, "receipts").await?;
    let viewer = project.with_role("viewer").await?;
    for number in 0..10 {
        let (id, session) = (format!("event-{number}"), format!("session-{number}"));
        let event = json!({"id": id, "type": "log", "sessionId": session}).to_string();
        let answer = project.admin.post_json("/v1/events", event).await?.expect_status(202)?.json()?;
        // One question each, not repeated: the wait is the server's.
        let wait = [("wait_for", receipt(&answer)?), ("wait_timeout_ms", "60000")];
        let (path, first) = match number % 2 {
            0 => (format!("/v1/events/{id}"), "id"),
            // Rests on derivations, which come after the facts.
            _ => (format!("/v1/sessions/{session}"), "session_id"),
        };
        let answer = project.admin.read(&path, &wait).await?;
        ensure!(answer["data"][first].is_string(), "{answer}");
    }
    let far = viewer.get("/v1/events", &[("wait_for", "0:99999999")]).await?.expect_status(400)?;
    ensure!(far.json()?["error"]["code"] == "unknown_receipt", "{}", far.text);
    Ok(())
}

/// A well-framed span with ids, and an attribute whose bytes end in the middle of its key: no structure that the gateway
/// checks, but nothing that the processor can read.
const BROKEN_SPAN: [u8; 39] = [
    0x0A, 37, 0x12, 35, 0x12, 33, 0x0A, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0x12, 8,
    3, 4, 5, 6, 7, 8, 9, 10, 0x4A, 3, 0x0A, 0x7F, 1,
];

pub(crate) async fn every_record_that_was_acknowledged_is_accounted_for(system: Arc<System>) -> Result<()> {
    let project = Project::create(&system, "accounts").await?;
    let events: Vec<Value> =
        (0..7).map(|number| json!({"id": number.to_string(), "type": "log", "sessionId": "s"})).collect();
    let events = Value::from(events).to_string();
    for _ in 0..3 {
        project.admin.post_json("/v1/events", events.clone()).await?.expect_status(202)?;
    }
    // One line that is refused counts for nobody.
    let lines = "{\"type\":\"log\",\"id\":\"a\"}\n{\"type\":\n{\"type\":\"log\",\"id\":\"b\"}";
    let headers = [("content-type", "application/x-ndjson")];
    project.admin.post("/v1/events", &headers, lines).await?.expect_status(202)?;
    let headers = [("content-type", "application/x-protobuf")];
    project.admin.post("/v1/traces", &headers, BROKEN_SPAN.to_vec()).await?.expect_status(200)?;
    project.admin.post_json("/v1/traces", recording("codex-0.169/spans.json")?).await?.expect_status(200)?;

    let answer = project.admin.settled(system.clickhouse(), &[]).await?;
    let totals = &answer["totals"];
    let of = |fate: &str| totals[fate].as_u64().with_context(|| format!("no {fate}: {answer}"));
    ensure!((of("duplicate")?, of("dead")?) == (14, 1), "{totals}");
    ensure!(of("filtered")? > 0 && of("stored")? >= 7 + 2, "{totals}");
    ensure!((of("in_flight")?, of("lost")?, of("excess")?) == (0, 0, 0), "{totals}");
    let fates = ["stored", "duplicate", "filtered", "dead", "context"];
    let sum = fates.iter().map(|fate| of(fate)).sum::<Result<u64>>()?;
    ensure!(of("records")? == sum, "{totals}");
    let windows = answer["data"].as_array().context("no windows")?;
    ensure!(!windows.is_empty() && windows.iter().all(|window| window["balanced"] == true), "{answer}");
    // The same from the tables.
    let counted = "SELECT sum(records) FROM settlements WHERE project_id = {project:String}";
    let [records] = system.clickhouse().select_one::<[u64; 1]>(counted, &[("project", &project.id)]).await?;
    ensure!(of("records")? == records, "{totals}, in the settlements {records}");
    ensure!(project.admin.read("/v1/dead-letters", &[]).await?["data"][0]["records"] == 1, "the dead letter");
    Ok(())
}
