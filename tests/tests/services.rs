//! Each service as a process of its own, as in production: its binary, one configuration file, and endpoints.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetlog_tests::{ClickHouse, Client, Deployment, Engines, SERVICES, SOON, eventually};

/// How long a service may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(45);

async fn send(client: &Client, id: &str) -> Result<()> {
    let body = format!(r#"{{"id":"{id}","type":"user.prompt","sessionId":"s1"}}"#);
    client.post_json("/v1/events", body).await?.expect_status(202)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn services_run_as_processes_of_their_own_and_lose_nothing_over_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let engines = Engines::start(folder.path()).await?;
    let deployment = Deployment::write(folder.path(), &engines)?;
    let client = deployment.prepare(&engines).await?;
    let services = deployment.start().await?;
    send(&client, "one").await?;
    eventually("the event has travelled through all of them", SOON, || async {
        let events = client.read("/v1/events", &[("session", "s1")]).await?;
        let events = events["data"].as_array().context("no data")?;
        ensure!(events.len() == 1 && events[0]["id"] == "one", "{events:?}");
        Ok(())
    })
    .await?;

    // Asked to end right after an acknowledgement: each ends cleanly, and what it held is not lost.
    send(&client, "two").await?;
    for (service, process) in SERVICES.into_iter().zip(&services) {
        let status = process.terminate(STOP)?;
        ensure!(status.code() == Some(0), "{service} ended with {status}:\n{}", process.stderr_tail());
    }
    let services = deployment.start().await?;
    stored(&engines, &["one", "two"]).await?;
    // The services first: they drain into the engines.
    drop(services);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_costs_nothing_that_was_acknowledged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut engines = Engines::start(folder.path()).await?;
    let deployment = Deployment::write(folder.path(), &engines)?;
    let client = deployment.prepare(&engines).await?;
    let services = deployment.start().await?;
    send(&client, "before").await?;
    stored(&engines, &["before"]).await?;

    // Without ClickHouse, events are accepted as ever, and questions are answered with "later".
    engines.clickhouse.kill().await;
    send(&client, "without-clickhouse").await?;
    let answer = client.get("/v1/events", &[]).await?.expect_status(503)?;
    ensure!(answer.headers.contains_key("retry-after"), "no Retry-After: {:?}", answer.headers);
    engines.clickhouse.restart().await?;
    stored(&engines, &["before", "without-clickhouse"]).await?;

    // Without Kafka, nothing is acknowledged, and senders are told to try again.
    engines.kafka.pause();
    let event = r#"{"id":"never-acknowledged","type":"log"}"#;
    let refused = client.post_json("/v1/events", event).await;
    engines.kafka.resume();
    let answer = refused?.expect_status(503)?;
    ensure!(answer.headers.contains_key("retry-after"), "no Retry-After: {:?}", answer.headers);
    eventually("events are accepted again", SOON, || send(&client, "after")).await?;
    stored(&engines, &["before", "without-clickhouse", "after"]).await?;
    drop(services);
    Ok(())
}

/// Waits until events with all these ids are rows in ClickHouse.
async fn stored(engines: &Engines, ids: &[&str]) -> Result<()> {
    let clickhouse = ClickHouse::at(&engines.clickhouse.url());
    let sql = "SELECT DISTINCT event_id FROM events";
    eventually("every acknowledged event is stored", SOON, || async {
        let rows: Vec<(String,)> = clickhouse.select(sql, &[]).await?;
        let missing: Vec<_> = ids.iter().filter(|id| !rows.iter().any(|(row,)| row == *id)).collect();
        ensure!(missing.is_empty(), "missing: {missing:?}");
        Ok(())
    })
    .await
}
