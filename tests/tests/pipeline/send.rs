//! `fleetlog send`, interrupted and continued.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetlog_load_tests::mix::{Shape, write_events};
use fleetlog_tests::{Process, Project, SOON, System, eventually};
use rustix::process::Signal;
use serde_json::Value;

const EVENTS: u64 = 20_000;
const STOP: Duration = Duration::from_secs(30);

/// How far the checkpoint in this folder says that the file was acknowledged, bytes.
fn acknowledged(state: &Path) -> Result<u64> {
    let entries = fs::read_dir(state)?.collect::<Result<Vec<_>, _>>()?;
    let checkpoint =
        entries.iter().map(fs::DirEntry::path).find(|path| path.extension().is_some_and(|e| e == "json"));
    let checkpoint: Value = serde_json::from_slice(&fs::read(checkpoint.context("no checkpoint yet")?)?)?;
    checkpoint["offset"].as_u64().context("no offset")
}

pub(crate) async fn an_interrupted_send_continues_and_sends_each_event_once(
    system: Arc<System>,
) -> Result<()> {
    let project = Project::create(&system, "send").await?;
    let folder = tempfile::tempdir()?;
    let (file, state) = (folder.path().join("events.ndjson"), folder.path().join("state"));
    let shape = Shape {
        seed: 0x5E4D,
        session_events: 500,
        text_bytes: 60,
        start_ms: 1_795_000_000_000,
        step_us: 1_000,
    };
    let mut lines = String::new();
    write_events(&shape, 0, EVENTS, &mut lines);
    fs::write(&file, &lines)?;
    let configure = |command: &mut Command| {
        command.arg("send").arg(&file).arg("--state").arg(&state);
        command.args(["--url", project.admin.ingest_url(), "--chunk-lines", "50"]);
        command.env("FLEETLOG_KEY", project.admin.key());
    };

    let first = Process::start("fleetlog", configure)?;
    eventually("a part is acknowledged", SOON, || async {
        ensure!(acknowledged(&state)? > 0, "nothing yet");
        Ok(())
    })
    .await?;
    first.signal(Signal::INT);
    let status = first.wait(STOP)?;
    ensure!(status.code() == Some(1), "an interrupted send ended with {status}: {}", first.stderr_tail());
    let before = acknowledged(&state)?;
    ensure!(before < lines.len() as u64, "it was through before it could be interrupted");

    let second = Process::start("fleetlog", configure)?;
    let status = second.wait(SOON)?;
    ensure!(status.success(), "the continued send: {status}: {}", second.stderr_tail());
    let said = second.stdout().join("\n");
    ensure!(said.contains("earlier run"), "it does not say that it continued: {said}");
    eventually("each event is there once", SOON, || async {
        let sql = "SELECT count(), uniqExact(event_id) FROM events WHERE project_id = {project:String}";
        let found: (u64, u64) = system.clickhouse().select_one(sql, &[("project", &project.id)]).await?;
        ensure!(found == (EVENTS, EVENTS), "{} rows of {} events", found.0, found.1);
        Ok(())
    })
    .await?;

    // Once more: there is nothing left to send.
    let third = Process::start("fleetlog", configure)?;
    ensure!(third.wait(SOON)?.success(), "{}", third.stderr_tail());
    ensure!(third.stdout().join("\n").contains(" 0 accepted"), "{:?}", third.stdout());
    Ok(())
}
