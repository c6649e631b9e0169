//! INV-10: a project's key reads and writes that project only.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use fleetlog_tests::{Project, SOON, System, eventually};
use serde_json::Value;

pub(crate) async fn a_projects_key_reads_and_writes_that_project_only(system: Arc<System>) -> Result<()> {
    let mine = Project::create(&system, "isolation-mine").await?;
    let theirs = Project::create(&system, "isolation-theirs").await?;
    let event = r#"{"id":"secret","type":"llm.request","sessionId":"theirs","model":"gpt-5","inUncached":7,"data":{"text":"whisper"}}"#;
    theirs.admin.post_json("/v1/events", event).await?.expect_status(202)?;
    let paths = [
        "/v1/sessions/theirs",
        "/v1/sessions/theirs/timeline",
        "/v1/sessions/theirs/calls",
        "/v1/events/secret",
    ];
    eventually("its owner sees all of it", SOON, || async {
        for path in paths {
            theirs.admin.read(path, &[]).await?;
        }
        let usage = theirs.admin.read("/v1/usage", &[]).await?;
        ensure!(usage["totals"]["in_uncached"] == 7, "{usage}");
        Ok(())
    })
    .await?;

    for path in paths {
        let answer = mine.admin.get(path, &[]).await?;
        let empty = answer.status == 404 || answer.json()?["data"].as_array().is_some_and(Vec::is_empty);
        ensure!(empty, "{path} answers another project's key: {} {}", answer.status, answer.text);
    }
    for (path, parameters) in [
        ("/v1/events", vec![]),
        ("/v1/events", vec![("session", "theirs")]),
        ("/v1/events", vec![("search", "whisper")]),
        ("/v1/sessions", vec![]),
    ] {
        let answer = mine.admin.read(path, &parameters).await?;
        let rows = answer["data"].as_array().context("no data")?;
        ensure!(rows.is_empty(), "{path} {parameters:?} shows another project's rows: {rows:?}");
    }
    let usage: Value = mine.admin.read("/v1/usage", &[]).await?;
    ensure!(usage["totals"]["calls"] == 0, "usage of another project: {usage}");

    // Nor does it write into another project.
    let foreign = r#"{"type":"log","projectId":"isolation-theirs"}"#;
    let answer = mine.admin.post_json("/v1/events", foreign).await?;
    let rejected =
        answer.status == 400 || answer.json()?["rejected"].as_array().is_some_and(|r| r.len() == 1);
    ensure!(rejected, "written into another project: {} {}", answer.status, answer.text);
    Ok(())
}
