//! How `fleetlog up` ends: when it is asked to, and when an engine dies under it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetlog_tests::{SOON, System, command_line, descendants, eventually, is_alive, signal_process};
use rustix::process::Signal;

/// How long everything together may take to end.
const STOP: Duration = Duration::from_secs(90);

async fn all_dead(processes: &[u32]) -> Result<()> {
    eventually("every process has ended", SOON, || async {
        let alive: Vec<_> =
            processes.iter().filter(|pid| is_alive(**pid)).map(|pid| command_line(*pid)).collect();
        ensure!(alive.is_empty(), "still running: {alive:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_system_that_is_asked_to_end_leaves_nothing_behind() -> Result<()> {
    let system = System::ephemeral().await?;
    let key = system.addresses().key.clone().context("a first start creates a key")?;
    system.client(&key).post_json("/v1/events", r#"{"type":"log"}"#).await?.expect_status(202)?;
    let (processes, data) = (descendants(system.process().pid()), system.addresses().data.clone());
    ensure!(processes.len() >= 3 && data.exists(), "{processes:?} in {}", data.display());

    // As Ctrl-C does.
    system.process().signal(Signal::INT);
    let status = system.process().wait(STOP)?;
    ensure!(status.code() == Some(0), "{status}:\n{}", system.process().stderr_tail());
    all_dead(&processes).await?;
    ensure!(!data.exists(), "{} is still there", data.display());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_ends_the_system_and_is_named() -> Result<()> {
    for (program, name) in [("kafka.Kafka", "Kafka"), ("clickhouse", "ClickHouse")] {
        let system = System::ephemeral().await?;
        let processes = descendants(system.process().pid());
        let is_it = |pid: &&u32| **pid != system.process().pid() && command_line(**pid).contains(program);
        let engine = processes.iter().find(is_it).with_context(|| format!("no {program}"))?;
        signal_process(*engine, Signal::KILL)?;
        let status = system.process().wait(STOP)?;
        let said = system.process().stderr_tail();
        ensure!(status.code() == Some(1), "{name} died and the system ended with {status}:\n{said}");
        let last = said.lines().find(|line| line.starts_with("fleetlog: ")).context("no last word")?;
        ensure!(last.contains(name) && last.contains("ended unasked"), "{last}");
        all_dead(&processes).await?;
    }
    Ok(())
}
