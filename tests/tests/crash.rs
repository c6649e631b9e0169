//! kill -9 of everything, under load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use fleetlog_load_tests::mix::{Shape, write_events};
use fleetlog_tests::{
    Client, Ports, SOON, System, descendants, eventually, is_alive, rederives_to_the_same, say,
};
use rustix::process::Signal;
use tokio::task::JoinSet;

/// Events in one request, and how many must be acknowledged before the kill.
const PER_REQUEST: u64 = 50;
const ACKNOWLEDGED: u64 = 5_000;
const CONNECTIONS: usize = 4;

fn shape() -> Shape {
    Shape { seed: 0xC4A5, session_events: 100, text_bytes: 300, start_ms: 1_790_000_000_000, step_us: 500 }
}

fn id_of(number: u64) -> String {
    format!("{:x}-{number}", shape().seed)
}

/// Sends until the gateway is gone; returns the numbers of the events that were acknowledged.
async fn send_until_killed(client: Client, next: Arc<AtomicU64>, count: Arc<AtomicU64>) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    loop {
        let first = next.fetch_add(PER_REQUEST, Ordering::Relaxed);
        let mut body = String::new();
        write_events(&shape(), first, PER_REQUEST, &mut body);
        match client.post("/v1/events", &[("content-type", "application/x-ndjson")], body).await {
            Ok(answer) if answer.status == 202 => {
                acknowledged.extend(first..first + PER_REQUEST);
                count.fetch_add(PER_REQUEST, Ordering::Relaxed);
            }
            // Refused for now: not acknowledged, so nothing is promised about it.
            Ok(_) => {}
            Err(_) => return acknowledged,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_event_survives_kill_9_of_everything_under_load() -> Result<()> {
    let data = tempfile::tempdir()?;
    let ports = Ports::free()?;
    let system = System::on(data.path(), ports).await?;
    let key = system.addresses().key.clone().context("a first start creates a key")?;
    let client = system.client(&key);

    let (next, count) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut senders = JoinSet::new();
    for _ in 0..CONNECTIONS {
        senders.spawn(send_until_killed(client.clone(), Arc::clone(&next), Arc::clone(&count)));
    }
    eventually("enough is acknowledged", SOON, || async {
        let count = count.load(Ordering::Relaxed);
        ensure!(count >= ACKNOWLEDGED, "{count} events are acknowledged");
        Ok(())
    })
    .await?;
    let processes = descendants(system.process().pid());
    ensure!(processes.len() >= 3, "the engines are children of the front process: {processes:?}");
    system.process().signal(Signal::KILL);
    system.process().wait(SOON)?;
    let acknowledged: BTreeSet<String> = senders.join_all().await.into_iter().flatten().map(id_of).collect();
    drop(system);

    // At once, as whoever sees it die would: the engines may still be on their way out.
    let system = System::on(data.path(), ports).await?;
    let alive: Vec<_> = processes.iter().filter(|pid| is_alive(**pid)).collect();
    ensure!(alive.is_empty(), "of the killed run still alive: {alive:?}");
    ensure!(system.addresses().key.is_none(), "a later start creates no key");
    let rows: Vec<(String,)> = eventually("every acknowledged event is stored", SOON, || async {
        let rows: Vec<(String,)> = system.clickhouse().select("SELECT event_id FROM events", &[]).await?;
        let stored: BTreeSet<&String> = rows.iter().map(|(id,)| id).collect();
        let missing: Vec<_> = acknowledged.iter().filter(|id| !stored.contains(id)).take(5).collect();
        let lacking = acknowledged.iter().filter(|id| !stored.contains(id)).count();
        ensure!(missing.is_empty(), "{lacking} of {} are missing, such as {missing:?}", acknowledged.len());
        Ok(rows)
    })
    .await?;
    let stored: BTreeSet<&String> = rows.iter().map(|(id,)| id).collect();
    // No sender repeated itself, so every repeat would be ours (INV-3, INV-4).
    ensure!(rows.len() == stored.len(), "{} events in {} rows", stored.len(), rows.len());
    say(&format!("acknowledged {}, missing 0, repeated 0, stored {}", acknowledged.len(), stored.len()));

    // The old key is still good, and the pipeline goes on.
    let sent = client.post_json("/v1/events", r#"{"id":"afterwards","type":"log"}"#).await?;
    sent.expect_status(202)?;
    eventually("an event sent afterwards is stored", SOON, || async {
        let sql = "SELECT count() FROM events WHERE event_id = 'afterwards'";
        let (count,): (u64,) = system.clickhouse().select_one(sql, &[]).await?;
        ensure!(count == 1, "{count} rows");
        Ok(())
    })
    .await?;
    derivations_agree(&system).await
}

/// What is derived must have caught up with the facts, whatever the crash interrupted: each call once.
async fn derivations_agree(system: &System) -> Result<()> {
    let facts = "SELECT uniqExact(event_id) FROM events WHERE type = 'llm.request'";
    let derived = "SELECT (SELECT count() FROM llm_calls), (SELECT sum(llm_call_count) FROM sessions),
                          (SELECT sum(calls) FROM usage_1m), (SELECT sum(calls) FROM usage_1h)";
    eventually("calls, sessions and usage agree with the events", SOON, || async {
        let (facts,): (u64,) = system.clickhouse().select_one(facts, &[]).await?;
        let derived: [u64; 4] = system.clickhouse().select_one(derived, &[]).await?;
        ensure!(derived == [facts; 4], "{facts} calls in events; calls, sessions, usage: {derived:?}");
        Ok(())
    })
    .await?;
    // Every column of every group, not the sums alone.
    rederives_to_the_same(&system.addresses().clickhouse).await
}
