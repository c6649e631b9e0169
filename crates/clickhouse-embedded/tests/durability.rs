//! What was acknowledged stays: over an orderly stop, and over SIGKILL in the middle of inserts.

#![expect(clippy::unwrap_used, reason = "the load's helper fails by panicking, as the tests do")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clickhouse::Row;
use serde::Serialize;
use support::Bridge;

#[derive(Row, Serialize)]
struct Cell {
    batch: u64,
    row: u64,
    text: String,
}

const ROWS: u64 = 2_000;

async fn insert(client: &clickhouse::Client, batch: u64) -> clickhouse::error::Result<()> {
    let token = format!("batch {batch}");
    let mut insert = client.insert::<Cell>("cells").await?.with_setting("insert_deduplication_token", token);
    for row in 0..ROWS {
        insert.write(&Cell { batch, row, text: format!("{batch} {row} {}", "x".repeat(200)) }).await?;
    }
    insert.end().await
}

#[tokio::test]
async fn orderly_stop_exits_with_zero_and_keeps_the_data() {
    let data = tempfile::tempdir().unwrap();
    let Some(bridge) = Bridge::start(data.path(), &[]) else { return };
    bridge.run("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a").await;
    bridge.run("INSERT INTO t SELECT number FROM numbers(1000)").await;
    // A query on its way is drained, not cut.
    let (url, http) = (bridge.url.clone(), bridge.http.clone());
    let mut slow = tokio::task::JoinSet::new();
    slow.spawn(async move {
        let request =
            http.post(url).query(&[("query_id", "slow")]).body("SELECT sleepEachRow(0.5) FROM numbers(4)");
        request.send().await.unwrap().text().await.unwrap()
    });
    support::eventually("the query runs", async || !bridge.running("slow").await.is_empty()).await;
    let stopped = tokio::task::spawn_blocking(move || bridge.stop()).await.unwrap();
    assert!(stopped.success(), "{stopped}");
    assert_eq!(slow.join_next().await.unwrap().unwrap(), "0\n0\n0\n0\n");
    let bridge = Bridge::start(data.path(), &[]).unwrap();
    assert_eq!(bridge.run("SELECT count(), sum(a) FROM t").await, "1000\t499500\n");
}

#[tokio::test]
async fn statement_that_outlives_the_budget_does_not_hold_the_stop_up() {
    let data = tempfile::tempdir().unwrap();
    let Some(bridge) = Bridge::start(data.path(), &["--drain-s", "1"]) else { return };
    let mut slow = tokio::task::JoinSet::new();
    let request = bridge.http.post(&bridge.url).query(&[("query_id", "slow")]);
    slow.spawn(request.body("SELECT sum(sipHash64(number)) FROM numbers(1000000000000)").send());
    support::eventually("the query runs", async || !bridge.running("slow").await.is_empty()).await;
    let began = std::time::Instant::now();
    let stopped = tokio::task::spawn_blocking(move || bridge.stop()).await.unwrap();
    assert!(stopped.success(), "{stopped}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(slow.join_next().await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn process_ends_with_a_parent_that_is_killed() {
    let Some(library) = support::library() else { return };
    let data = tempfile::tempdir().unwrap();
    let bridge = support::command(&library, data.path());
    let mut shell = std::process::Command::new("sh")
        .args(["-c", "\"$@\" & wait", "sh"])
        .arg(bridge.get_program())
        .args(bridge.get_args())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address: std::net::SocketAddr = ready["http"].as_str().unwrap().parse().unwrap();
    assert!(std::net::TcpStream::connect(address).is_ok());
    shell.kill().unwrap();
    shell.wait().unwrap();
    support::eventually("it is gone", async || std::net::TcpStream::connect(address).is_err()).await;
}

#[tokio::test]
async fn acknowledged_batches_survive_a_kill_and_none_is_partial() {
    let data = tempfile::tempdir().unwrap();
    let Some(bridge) = Bridge::start(data.path(), &[]) else { return };
    bridge
        .run(
            "CREATE TABLE cells (batch UInt64, row UInt64, text String) ENGINE = MergeTree ORDER BY (batch, row) \
             SETTINGS non_replicated_deduplication_window = 10000",
        )
        .await;
    bridge.kill();
    let next = AtomicU64::new(0);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        acknowledged.extend(load_until_killed(data.path(), &next, 12 + round * 5).await);
    }
    let bridge = Bridge::start(data.path(), &[]).unwrap();
    let text = bridge.run("SELECT batch, count(), uniqExact(row) FROM cells GROUP BY batch").await;
    let stored: std::collections::HashMap<u64, (u64, u64)> = text
        .lines()
        .map(|line| {
            let numbers: Vec<u64> = line.split('\t').map(|number| number.parse().unwrap()).collect();
            (numbers[0], (numbers[1], numbers[2]))
        })
        .collect();
    assert!(stored.values().all(|counts| *counts == (ROWS, ROWS)), "a batch is stored in part: {stored:?}");
    let lost: Vec<&u64> = acknowledged.iter().filter(|batch| !stored.contains_key(batch)).collect();
    assert!(lost.is_empty(), "acknowledged but not stored: {lost:?}");
    assert!(acknowledged.len() >= 30, "{}", acknowledged.len());
}

/// Inserts from three clients at once until so many batches are acknowledged, then kills the process under them.
async fn load_until_killed(data: &Path, next: &AtomicU64, enough: usize) -> Vec<u64> {
    let bridge = Bridge::start(data, &[]).unwrap();
    let client = bridge.client();
    let (done, mut batches) = tokio::sync::mpsc::channel(1000);
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (client, done) = (client.clone(), done.clone());
            async move {
                loop {
                    let batch = next.fetch_add(1, Ordering::Relaxed);
                    match insert(&client, batch).await {
                        Ok(()) => done.send(batch).await.unwrap(),
                        Err(_) => return,
                    }
                }
            }
        })
        .collect();
    drop(done);
    let mut bridge = Some(bridge);
    let collect = async {
        let mut acknowledged = Vec::new();
        while let Some(batch) = batches.recv().await {
            acknowledged.push(batch);
            if acknowledged.len() == enough
                && let Some(bridge) = bridge.take()
            {
                bridge.kill();
            }
        }
        acknowledged
    };
    let (_, acknowledged) = tokio::time::timeout(
        Duration::from_secs(60),
        futures::future::join(futures::future::join_all(clients), collect),
    )
    .await
    .unwrap();
    acknowledged
}
