//! How `fleetlog up` ends: when it is asked to, and when an engine dies under it, but not when one stands still.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetlog_tests::{SOON, System, command_line, descendants, eventually, is_alive, signal_process};
use rustix::process::Signal;

/// How long everything together may take to end.
const STOP: Duration = Duration::from_secs(90);

/// Longer than a group waits for a silent member by default.
const STILL: Duration = Duration::from_secs(14);

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

/// A process of the system that runs this program.
fn engine(system: &System, program: &str) -> Result<u32> {
    let front = system.process().pid();
    let is_it = |pid: &u32| *pid != front && command_line(*pid).contains(program);
    descendants(front).into_iter().find(is_it).with_context(|| format!("no {program}"))
}

/// The first stop takes the members' sessions, the second finds what joined again since.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stands_still_for_a_while_costs_nothing_but_time() -> Result<()> {
    let system = System::ephemeral().await?;
    let key = system.addresses().key.clone().context("a first start creates a key")?;
    let (client, kafka) = (system.client(&key), engine(&system, "kafka.Kafka")?);
    for id in ["e1", "e2"] {
        signal_process(kafka, Signal::STOP)?;
        tokio::time::sleep(STILL).await;
        signal_process(kafka, Signal::CONT)?;
        let event = format!(r#"{{"type":"log","id":"{id}","sessionId":"s"}}"#);
        eventually("an event is accepted", SOON, || async {
            client.post_json("/v1/events", event.clone()).await?.expect_status(202).map(drop)
        })
        .await?;
        eventually("it is stored", SOON, || async {
            ensure!(system.process().ended()?.is_none(), "ended:\n{}", system.process().stderr_tail());
            client.read(&format!("/v1/events/{id}"), &[]).await.map(drop)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_ends_the_system_and_is_named() -> Result<()> {
    for (program, name) in [("kafka.Kafka", "Kafka"), ("clickhouse", "ClickHouse")] {
        let system = System::ephemeral().await?;
        let processes = descendants(system.process().pid());
        signal_process(engine(&system, program)?, Signal::KILL)?;
        let status = system.process().wait(STOP)?;
        let said = system.process().stderr_tail();
        ensure!(status.code() == Some(1), "{name} died and the system ended with {status}:\n{said}");
        let last = said.lines().find(|line| line.starts_with("fleetlog: ")).context("no last word")?;
        ensure!(last.contains(name) && last.contains("ended unasked"), "{last}");
        all_dead(&processes).await?;
    }
    Ok(())
}
