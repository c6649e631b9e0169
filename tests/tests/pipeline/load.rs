//! A load whose sums are known.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetlog_load_tests::mix::{Expected, Shape};
use fleetlog_load_tests::sender::{Plan, send};
use fleetlog_tests::{Project, SOON, System, clickhouse_connect, eventually, say};
use serde_json::Value;

const EVENTS: u64 = 20_000;
const SEED: u64 = 0x5EED;
/// 2026-11-20T20:53:20Z; the events span minutes and cross an hour, so that rollups have several buckets.
const START_MS: i64 = 1_795_208_000_000;
const RANGE: [(&str, &str); 3] = [("from", "1795200000000"), ("to", "1795222800000"), ("step", "1h")];

pub(crate) async fn every_event_of_a_load_is_a_row_and_all_sums_agree(system: Arc<System>) -> Result<()> {
    let project = Project::create(&system, "load").await?;
    let shape =
        Shape { seed: SEED, session_events: 200, text_bytes: 400, start_ms: START_MS, step_us: 50_000 };
    let plan = Plan {
        url: project.admin.ingest_url().to_owned(),
        key: project.admin.key().to_owned(),
        shape,
        events: EVENTS,
        per_request: 250,
        connections: 4,
        rate: 0,
        patience: Duration::from_secs(60),
    };
    let sent = send(plan).await?;
    let rate = EVENTS as f64 / sent.elapsed.as_secs_f64();
    say(&format!("sent {EVENTS} events in {:.1?} ({rate:.0}/s, {} retries)", sent.elapsed, sent.retries));
    eventually("every event is a row", SOON, || async {
        let rows = project.count("events").await?;
        ensure!(rows == EVENTS, "{rows} rows");
        Ok(())
    })
    .await?;
    usage_agrees(&project, &sent.expected).await?;
    sessions_agree(&project, &sent.expected).await?;
    events_agree(&project).await?;
    python_agrees(&project, &sent.expected).await
}

/// The query API's totals of usage, and the sum of its series.
async fn usage_agrees(project: &Project, expected: &Expected) -> Result<()> {
    eventually("the usage is what was sent", SOON, || async {
        for step in ["1h", "5m"] {
            let range = [RANGE[0], RANGE[1], ("step", step)];
            let usage = project.admin.read("/v1/usage", &range).await?;
            compare_usage(&usage["totals"], expected).with_context(|| format!("totals by {step}"))?;
            let series = usage["data"].as_array().context("no data")?;
            let summed: u64 = series.iter().filter_map(|bucket| bucket["calls"].as_u64()).sum();
            ensure!(summed == expected.llm_calls, "{summed} calls in the buckets of {step}");
            ensure!(series.len() > 1, "{} bucket of {step}", series.len());
        }
        Ok(())
    })
    .await
}

fn compare_usage(totals: &Value, expected: &Expected) -> Result<()> {
    let counts = ["calls", "in_uncached", "cache_read", "out_visible"].map(|name| totals[name].as_u64());
    let known = [expected.llm_calls, expected.in_uncached, expected.cache_read, expected.out_visible];
    ensure!(counts == known.map(Some), "{totals} is not {expected:?}");
    ensure!(
        usd_nanos(&totals["cost_reported"]) == expected.cost_reported_nanos,
        "{totals} is not {expected:?}"
    );
    Ok(())
}

/// A JSON number of dollars in billionths. These sums are below 10,000 dollars, which a float holds exactly enough.
fn usd_nanos(usd: &Value) -> u64 {
    (usd.as_f64().unwrap_or(f64::NAN) * 1e9).round() as u64
}

/// All pages of the list of sessions, added up.
async fn sessions_agree(project: &Project, expected: &Expected) -> Result<()> {
    eventually("the sessions are what was sent", SOON, || async {
        let sessions = all_pages(project, "/v1/sessions", &[RANGE[0], RANGE[1], ("limit", "37")]).await?;
        let sum = |name: &str| sessions.iter().filter_map(|session| session[name].as_u64()).sum::<u64>();
        ensure!(sessions.len() as u64 == expected.sessions, "{} sessions", sessions.len());
        let found =
            ["event_count", "llm_call_count", "tool_call_count", "tool_error_count", "in_uncached"].map(sum);
        let known = [
            expected.events,
            expected.llm_calls,
            expected.tool_calls,
            expected.tool_errors,
            expected.in_uncached,
        ];
        ensure!(found == known, "{found:?} is not {known:?}");
        let cost: u64 = sessions.iter().map(|session| usd_nanos(&session["cost_reported"])).sum();
        ensure!(cost == expected.cost_reported_nanos, "{cost} is not {}", expected.cost_reported_nanos);
        Ok(())
    })
    .await
}

/// The query API pages through exactly the rows that there are, each once.
async fn events_agree(project: &Project) -> Result<()> {
    let events = all_pages(project, "/v1/events", &[RANGE[0], RANGE[1], ("limit", "1000")]).await?;
    let mut ids: Vec<&str> = events.iter().filter_map(|event| event["id"].as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    ensure!(
        (events.len(), ids.len()) == (EVENTS as usize, EVENTS as usize),
        "{} rows, {} ids",
        events.len(),
        ids.len()
    );
    Ok(())
}

async fn all_pages(project: &Project, path: &str, parameters: &[(&str, &str)]) -> Result<Vec<Value>> {
    let (mut rows, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut parameters = parameters.to_vec();
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let mut page = project.admin.read(path, &parameters).await?;
        rows.append(page["data"].as_array_mut().context("no data")?);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(rows),
        }
    }
}

/// `verify.py` counts the same rows with ClickHouse's own Python client.
async fn python_agrees(project: &Project, expected: &Expected) -> Result<()> {
    let python = match clickhouse_connect()? {
        Ok(python) => python,
        Err(why) => {
            say(&format!("SKIPPED the count by Python: {why}"));
            return Ok(());
        }
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../load-tests/verify.py");
    let run = |expected: &Expected| -> Result<(Option<i32>, String)> {
        let output = Command::new(&python)
            .arg(&script)
            .args(["--url", &project.system.addresses().clickhouse, "--project", &project.id])
            .args([
                "--seed",
                &SEED.to_string(),
                "--expected",
                &serde_json::to_string(expected)?,
                "--wait-s",
                "5",
            ])
            .output()?;
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        Ok((output.status.code(), said.concat()))
    };
    let (code, said) = run(expected)?;
    say(&said);
    ensure!(code == Some(0), "verify.py: {code:?}\n{said}");
    let wrong = Expected { tool_errors: expected.tool_errors + 1, ..*expected };
    let (code, said) = run(&wrong)?;
    ensure!(
        code == Some(1) && said.contains("tool_errors"),
        "verify.py overlooks a difference: {code:?}\n{said}"
    );
    Ok(())
}
