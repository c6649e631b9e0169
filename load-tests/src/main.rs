//! The load generator: sends a known load, waits until it is queryable, and compares.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use fleetlog_load_tests::mix::{Expected, Shape};
use fleetlog_load_tests::process::{Usage, usage_of_tree};
use fleetlog_load_tests::sender::{Plan, send};
use fleetlog_runtime::Clock;

/// Sends generated events to a running Fleetlog and checks that all of them arrive.
#[derive(Debug, Parser)]
#[command(name = "fleetlog-load", version)]
struct Args {
    /// Base URL of the gateway.
    #[arg(long, default_value = "http://127.0.0.1:4318")]
    url: String,
    /// Base URL of the query API.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    query_url: String,
    /// An API key that may send and read (role admin).
    #[arg(long, env = "FLEETLOG_KEY", hide_env_values = true)]
    key: String,
    /// Events to send.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Events in one request.
    #[arg(long, default_value_t = 500)]
    per_request: u64,
    /// Requests under way at once.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Events per second; 0 for as fast as they are accepted.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Mean size of an event's free text, bytes.
    #[arg(long, default_value_t = 900)]
    text_bytes: usize,
    /// Events of one session.
    #[arg(long, default_value_t = 200)]
    session_events: u64,
    /// Seed; part of every id. By default the time.
    #[arg(long)]
    seed: Option<u64>,
    /// Process whose tree's CPU time is reported, for instance that of `fleetlog up`.
    #[arg(long)]
    pid: Option<u32>,
    /// How long to wait until everything sent is queryable, seconds.
    #[arg(long, default_value_t = 300)]
    wait_s: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let now_ms = Clock::system().now_ms();
    let seed = args.seed.unwrap_or(now_ms as u64);
    let shape = Shape {
        seed,
        session_events: args.session_events,
        text_bytes: args.text_bytes,
        start_ms: now_ms,
        step_us: 20,
    };
    let before = args.pid.map(usage_of_tree).unwrap_or_default();
    let plan = Plan {
        url: args.url.clone(),
        key: args.key.clone(),
        shape,
        events: args.events,
        per_request: args.per_request,
        connections: args.connections,
        rate: args.rate,
        patience: Duration::from_secs(120),
    };
    let sent = send(plan).await.context("sending")?;
    let rate = sent.expected.events as f64 / sent.elapsed.as_secs_f64();
    say(&format!("seed {seed}"));
    say(&format!(
        "sent {} events in {:.1?}: {rate:.0} events/s, {} retries",
        args.events, sent.elapsed, sent.retries
    ));
    let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|q| sent.quantile(q));
    say(&format!("request latency p50 {p50:.1?} p95 {p95:.1?} p99 {p99:.1?} (from when it was due)"));
    say(&format!("expected {}", serde_json::to_string(&sent.expected)?));
    let waited = wait_until_stored(&args, now_ms, &sent.expected).await?;
    say(&format!("all of it queryable {waited:.1?} after the last acknowledgement"));
    if let Some(pid) = args.pid {
        report_cpu(&before, &usage_of_tree(pid), args.events);
    }
    Ok(())
}

/// Polls the usage of the time range until calls, tokens and cost are what was sent.
async fn wait_until_stored(args: &Args, from_ms: i64, expected: &Expected) -> anyhow::Result<Duration> {
    let client = reqwest::Client::new();
    let started = Instant::now();
    let to_ms = from_ms + 24 * 3_600_000;
    loop {
        let url = format!("{}/v1/usage?from={from_ms}&to={to_ms}&step=1h", args.query_url);
        let answer = client.get(url).bearer_auth(&args.key).send().await.context("asking for the usage")?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("the query API answered {status}: {text}");
        }
        let usage: serde_json::Value = serde_json::from_str(&text)?;
        let calls = usage["totals"]["calls"].as_u64().unwrap_or_default();
        if calls >= expected.llm_calls {
            say(&format!("totals {}", usage["totals"]));
            return Ok(started.elapsed());
        }
        if started.elapsed() > Duration::from_secs(args.wait_s) {
            bail!("after {:?} only {calls} of {} calls are derived", started.elapsed(), expected.llm_calls);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn report_cpu(before: &[Usage], after: &[Usage], events: u64) {
    for usage in after {
        let earlier =
            before.iter().find(|earlier| earlier.name == usage.name).map_or(Duration::ZERO, |u| u.cpu);
        let cpu = usage.cpu.saturating_sub(earlier).as_secs_f64();
        let per_million = cpu * 1e6 / events as f64;
        let mib = usage.peak_rss / (1024 * 1024);
        say(&format!(
            "{:<20} {cpu:8.2} CPU-s, {per_million:6.2} CPU-s per million events, peak {mib} MiB",
            usage.name
        ));
    }
}

#[expect(clippy::print_stdout, reason = "a report on stdout is what this program is for")]
fn say(line: &str) {
    println!("{line}");
}
