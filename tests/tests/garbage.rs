//! Garbage at every listener: each request is answered or its connection closed, and the system goes on with its work.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetlog_load_tests::garbage::{Listener, Plan, attack};
use fleetlog_tests::{System, eventually, say};

/// Enough for every kind of request at every listener; `fleetlog-load garbage` makes millions.
const REQUESTS: u64 = 3_200;
const SEED: u64 = 0x6A4B;
/// What was accepted of the garbage is processed first.
const CAUGHT_UP: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_answered_and_what_comes_after_it_is_stored_and_derived() -> Result<()> {
    let system = System::ephemeral().await?;
    let addresses = system.addresses();
    let key = addresses.key.clone().context("a new system prints its first key")?;
    let at = |url: &str| url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let plan = Plan {
        listeners: vec![
            (Listener::Ingest, at(&addresses.ingest)),
            (Listener::Grpc, at(&addresses.grpc)),
            (Listener::Query, at(&addresses.query)),
            (Listener::Admin, at(&addresses.query)),
            (Listener::Store, at(&addresses.clickhouse)),
        ],
        key: key.clone(),
        seeds: Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/formats/tests/fixtures"),
        requests: REQUESTS,
        connections: 8,
        seed: SEED,
        pid: None,
    };
    let report = attack(plan, say).await?;
    ensure!(report.tally.hung.is_empty(), "not answered: {:#?}", report.tally.hung);
    ensure!(report.tally.broke.is_empty(), "answered with 500: {:#?}", report.tally.broke);
    let answered: u64 = report.tally.answers.values().sum();
    ensure!(answered >= REQUESTS, "only {answered} requests were made");
    let said = |listener: Listener| {
        report.tally.answers.iter().any(|((of, status), _)| *of == listener && *status == 200)
    };
    ensure!(
        said(Listener::Ingest) && said(Listener::Query),
        "nothing right was among it: {:?}",
        report.tally
    );

    // One group that cannot be recomputed would keep all of them from it, for ever.
    let client = system.client(&key);
    let event =
        r#"{"id":"after","type":"llm.request","sessionId":"after-garbage","model":"gpt-5","inUncached":5}"#;
    client.post_json("/v1/events", event).await?.expect_status(202)?;
    eventually("what came afterwards is derived", CAUGHT_UP, || async {
        let session = client.read("/v1/sessions/after-garbage", &[]).await?;
        ensure!(session["data"]["in_uncached"] == 5, "{session}");
        let usage = client.read("/v1/usage", &[("model", "gpt-5")]).await?;
        ensure!(usage["totals"]["calls"].as_u64().is_some_and(|calls| calls > 0), "{usage}");
        Ok(())
    })
    .await
    .with_context(|| system.process().stderr_tail())
}
