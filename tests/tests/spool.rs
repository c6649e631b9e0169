//! The gateway's spool through everything behind it: killed with it full, killed while it drains, and drained twice.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleetlog_tests::{ClickHouse, Deployment, Engines, Process, SOON, eventually, say};
use rustix::process::Signal;

const GATEWAY: usize = 0;
const STOP: Duration = Duration::from_secs(45);
const REQUESTS: u64 = 60;
/// Two events with an id, one with neither id nor time.
const PER_REQUEST: u64 = 3;

fn body(n: u64) -> String {
    let filler = "x".repeat(3_000);
    [
        format!(r#"{{"id":"a{n}","type":"log","sessionId":"s{}","data":{{"text":"{filler}"}}}}"#, n % 7),
        format!(r#"{{"id":"b{n}","type":"user.prompt","timestamp":{}}}"#, 1_790_000_000_000_u64 + n),
        format!(r#"{{"type":"log","name":"nameless-{n}"}}"#),
    ]
    .join("\n")
}

/// A copy of a folder's files.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The value of a metric; 0 before it is first said.
fn value(metrics: &str, name: &str) -> Result<f64> {
    let found = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.map_or(Ok(0.0), |text| text.parse().context("no number"))
}

/// Waits until something is drained, or nothing is left; looks often, because draining does not take long.
async fn drain_begins(deployment: &Deployment) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let metrics = deployment.metrics(GATEWAY).await.unwrap_or_default();
        let left = value(&metrics, "fleetlog_gateway_spool_records")?;
        if !metrics.is_empty()
            && (value(&metrics, "fleetlog_gateway_spool_drained_total")? > 0.0 || left == 0.0)
        {
            say(&format!("killed with {left} records left"));
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the drain does not begin");
        tokio::task::yield_now().await;
    }
}

async fn drained(deployment: &Deployment, gateway: &Process) -> Result<()> {
    deployment.ready(GATEWAY, gateway).await?;
    eventually("the spool is drained", SOON, || async {
        let left = value(&deployment.metrics(GATEWAY).await?, "fleetlog_gateway_spool_records")?;
        ensure!(left == 0.0, "{left} records are left");
        Ok(())
    })
    .await
}

fn kill(process: &Process) -> Result<()> {
    process.signal(Signal::KILL);
    process.wait(STOP)?;
    Ok(())
}

/// INV-1 and INV-5: what was acknowledged from the spool is stored once, whatever is killed and however often it is
/// drained, events with neither id nor time included.
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_outlives_kill_9_and_what_is_drained_twice_is_stored_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (spool, backup) = (folder.path().join("spool"), folder.path().join("backup"));
    let engines = Engines::start(folder.path()).await?;
    let deployment = Deployment::write(folder.path(), &engines)?;
    deployment.configure_gateway(&format!(
        "spool_path = \"{}\"\nspool_after_ms = 300\nspool_min_free_bytes = 0\nspool_drain_max_bytes = 4000",
        spool.display()
    ))?;
    let client = deployment.prepare(&engines).await?;
    let mut services = deployment.start().await?;

    engines.kafka.pause();
    let (mut sent, mut spooled) = (Ok(()), 0);
    for n in 0..REQUESTS {
        let answer = client.post("/v1/events", &[("content-type", "application/x-ndjson")], body(n)).await;
        sent = answer.and_then(|answer| answer.expect_status(202)).and_then(|answer| {
            spooled += u64::from(answer.json()?["durability"] == "spooled");
            Ok(())
        });
        if sent.is_err() {
            break;
        }
    }
    kill(&services[GATEWAY])?;
    copy(&spool, &backup)?;
    engines.kafka.resume();
    sent?;
    // The broker may have taken something while it stopped.
    ensure!(spooled + 5 >= REQUESTS, "{spooled} are spooled");

    // Killed again and again while it drains.
    for _ in 0..3 {
        services[GATEWAY] = deployment.launch(GATEWAY)?;
        drain_begins(&deployment).await?;
        kill(&services[GATEWAY])?;
    }
    services[GATEWAY] = deployment.launch(GATEWAY)?;
    drained(&deployment, &services[GATEWAY]).await?;
    stored_once(&engines, REQUESTS).await?;

    // The whole spool once more, as after a crash before anything of the drain was noted.
    kill(&services[GATEWAY])?;
    std::fs::remove_dir_all(&spool)?;
    copy(&backup, &spool)?;
    services[GATEWAY] = deployment.launch(GATEWAY)?;
    drained(&deployment, &services[GATEWAY]).await?;
    stored_once(&engines, REQUESTS + spooled).await
}

/// Waits until so many raw records are settled, and looks what became of them.
async fn stored_once(engines: &Engines, at_least: u64) -> Result<()> {
    let clickhouse = ClickHouse::at(&engines.clickhouse.url());
    let ledger = "SELECT (SELECT count() FROM settlements), (SELECT sum(records) FROM settlements),
        (SELECT sum(stored + duplicate) FROM piece_settlements), (SELECT sum(stored) FROM piece_settlements)";
    let rows =
        "SELECT count(), uniqExact(event_id), uniqExactIf(name, startsWith(name, 'nameless-')) FROM events";
    eventually("every drained record is settled, and stored once", SOON, || async {
        let [batches, records, accounted, stored]: [u64; 4] = clickhouse.select_one(ledger, &[]).await?;
        let [count, ids, nameless]: [u64; 3] = clickhouse.select_one(rows, &[]).await?;
        let seen = format!(
            "{batches} raw records with {records} events, {accounted} accounted for, {stored} stored; {count} rows, \
             {ids} ids, {nameless} with neither id nor time"
        );
        ensure!(batches >= at_least && records == accounted, "{seen}");
        ensure!(count == REQUESTS * PER_REQUEST && stored == count && nameless == REQUESTS, "{seen}");
        say(&seen);
        Ok(())
    })
    .await
}
