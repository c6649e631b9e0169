//! The load generator: sends a known load, waits until it is queryable, and compares; measures how soon an event is
//! visible; sends more than can be taken; or attacks every listener with garbage.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use fleetlog_load_tests::garbage::{self, Listener};
use fleetlog_load_tests::mix::{Expected, Shape};
use fleetlog_load_tests::overload::{self, Bodies, Load, Outcome, Store};
use fleetlog_load_tests::process::{Usage, usage_of_tree};
use fleetlog_load_tests::sender::{Plan, quantile, send};
use fleetlog_load_tests::visibility::Probe;
use fleetlog_runtime::Clock;

const HOUR_MS: i64 = 3_600_000;
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Puts load on a running Fleetlog and measures it.
#[derive(Debug, Parser)]
#[command(name = "fleetlog-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send generated events and wait until calls, tokens and cost are what was sent
    Mix(Mix),
    /// Measure, one event after the other, how soon an accepted event answers a query
    Visibility(Visibility),
    /// Make requests that no client would make, against every listener
    Garbage(Garbage),
    /// Send three times what can be taken, and compare the times of what is accepted with those at 80%
    Overload(Overload),
}

/// Where to send and ask.
#[derive(Debug, Args)]
struct Target {
    /// Base URL of the gateway
    #[arg(long, default_value = "http://127.0.0.1:4318")]
    url: String,
    /// Base URL of the query API
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    query_url: String,
    /// An API key that may send and read (role admin)
    #[arg(long, env = "FLEETLOG_KEY", hide_env_values = true)]
    key: String,
    /// Seed; part of every id. By default the time
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Debug, Args)]
struct Mix {
    #[command(flatten)]
    target: Target,
    /// Events to send
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Events in one request
    #[arg(long, default_value_t = 500)]
    per_request: u64,
    /// Requests under way at once
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Events per second; 0 for as fast as they are accepted
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Mean size of an event's free text, bytes
    #[arg(long, default_value_t = 900)]
    text_bytes: usize,
    /// Events of one session
    #[arg(long, default_value_t = 200)]
    session_events: u64,
    /// Process whose tree's CPU time is reported, for instance that of `fleetlog up`
    #[arg(long)]
    pid: Option<u32>,
    /// How long to wait until everything sent is queryable, seconds
    #[arg(long, default_value_t = 300)]
    wait_s: u64,
    /// Write the sums that the tables must say to this file, for `verify.py`
    #[arg(long, value_name = "FILE")]
    expected_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Overload {
    #[command(flatten)]
    target: Target,
    /// A second key, of another project, that sends little all the time
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    polite_key: Option<String>,
    /// Requests a second with the second key
    #[arg(long, default_value_t = 10.0)]
    polite_rate: f64,
    /// Events in one request
    #[arg(long, default_value_t = 50)]
    per_request: u64,
    /// Size of an event's text, bytes
    #[arg(long, default_value_t = 300)]
    text_bytes: usize,
    /// Requests a second that can be taken; 0 to find out
    #[arg(long, default_value_t = 0.0)]
    capacity: f64,
    /// How long to find out, seconds, after as long again that does not count
    #[arg(long, default_value_t = 30)]
    capacity_s: u64,
    /// Requests under way while finding out
    #[arg(long, default_value_t = 16)]
    capacity_connections: usize,
    /// Pause after each phase once what it sent is stored, seconds
    #[arg(long, default_value_t = 5)]
    pause_s: u64,
    /// How long to send 80% of it, seconds
    #[arg(long, default_value_t = 60)]
    steady_s: u64,
    /// How long to send more than it, seconds
    #[arg(long, default_value_t = 60)]
    overload_s: u64,
    /// How many times as much
    #[arg(long, default_value_t = 3.0)]
    factor: f64,
    /// Most requests under way at once
    #[arg(long, default_value_t = 1_000)]
    workers: usize,
    /// Process whose tree's memory is reported; can be repeated
    #[arg(long)]
    pid: Vec<u32>,
    /// ClickHouse's HTTP interface, to look for what was acknowledged; empty to leave it out
    #[arg(long, default_value = "http://127.0.0.1:8123")]
    clickhouse_url: String,
    /// Its database
    #[arg(long, default_value = "fleetlog")]
    database: String,
    /// How long to wait until everything acknowledged is stored, seconds
    #[arg(long, default_value_t = 300)]
    wait_s: u64,
}

#[derive(Debug, Args)]
struct Visibility {
    #[command(flatten)]
    target: Target,
    /// Events to measure
    #[arg(long, default_value_t = 100)]
    events: u64,
    /// Pause after each, milliseconds
    #[arg(long, default_value_t = 100)]
    pause_ms: u64,
}

#[derive(Debug, Args)]
struct Garbage {
    #[command(flatten)]
    target: Target,
    /// Address of the gateway's listener for gRPC; empty for none
    #[arg(long, default_value = "127.0.0.1:4317")]
    grpc: String,
    /// Address of ClickHouse's HTTP interface; empty for none
    #[arg(long, default_value = "127.0.0.1:8123")]
    clickhouse: String,
    /// Leave the query API out: its questions take most of the time
    #[arg(long)]
    no_questions: bool,
    /// Addresses of services' listeners for health and metrics
    #[arg(long, value_delimiter = ',')]
    admin: Vec<String>,
    /// Folder of recordings to change
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/formats/tests/fixtures"))]
    seeds: PathBuf,
    /// Requests to make
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// Connections to work on at once
    #[arg(long, default_value_t = 16)]
    connections: u64,
    /// Process whose tree's memory is watched, for instance that of `fleetlog up`
    #[arg(long)]
    pid: Option<u32>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let now_ms = Clock::system().now_ms();
    match Cli::parse().command {
        Command::Mix(mix) => mix.run(now_ms).await,
        Command::Visibility(visibility) => visibility.run(now_ms).await,
        Command::Garbage(garbage) => garbage.run(now_ms).await,
        Command::Overload(overload) => overload.run(now_ms).await,
    }
}

impl Visibility {
    async fn run(self, now_ms: i64) -> anyhow::Result<()> {
        let probe = Probe {
            ingest: self.target.url.clone(),
            query: self.target.query_url.clone(),
            key: self.target.key.clone(),
            pause: Duration::from_millis(self.pause_ms),
            patience: Duration::from_secs(60),
        };
        let times = probe.run(self.target.seed.unwrap_or(now_ms as u64), self.events).await?;
        let [p50, p95, p99, most] = [0.5, 0.95, 0.99, 1.0].map(|q| quantile(&times, q));
        say(&format!("accepted to visible: p50 {p50:.1?} p95 {p95:.1?} p99 {p99:.1?} most {most:.1?}"));
        Ok(())
    }
}

impl Garbage {
    async fn run(self, now_ms: i64) -> anyhow::Result<()> {
        let address = |url: &str| url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let query = if self.no_questions { String::new() } else { address(&self.target.query_url) };
        let mut listeners = vec![
            (Listener::Ingest, address(&self.target.url)),
            (Listener::Query, query),
            (Listener::Grpc, self.grpc),
            (Listener::Store, self.clickhouse),
        ];
        listeners.extend(self.admin.into_iter().map(|address| (Listener::Admin, address)));
        listeners.retain(|(_, address)| !address.is_empty());
        let seed = self.target.seed.unwrap_or(now_ms as u64);
        say(&format!("seed {seed}, {} requests against {listeners:?}", self.requests));
        let plan = garbage::Plan {
            listeners,
            key: self.target.key.clone(),
            seeds: self.seeds,
            requests: self.requests,
            connections: self.connections,
            seed,
            pid: self.pid,
        };
        let report = garbage::attack(plan, say).await?;
        let made: u64 = report.tally.answers.values().sum();
        say(&format!("{made} requests in {:.0?}", report.elapsed));
        for ((listener, status), count) in &report.tally.answers {
            let status = if *status == 0 { "closed".to_owned() } else { status.to_string() };
            say(&format!("{listener:?} {status}: {count}"));
        }
        for (made, usages) in &report.memory {
            say(&format!("memory after {made}: {}", garbage::resident(usages)));
        }
        for request in &report.tally.hung {
            say(&format!("no answer: {request}"));
        }
        for request in &report.tally.broke {
            say(&format!("500: {request}"));
        }
        // Whatever was thrown at it, it must still do its work.
        let probe = Probe {
            ingest: self.target.url,
            query: self.target.query_url,
            key: self.target.key,
            pause: Duration::ZERO,
            patience: Duration::from_secs(600),
        };
        let times = probe.run(seed, 1).await.context("sending an event after the attack")?;
        say(&format!("an event sent afterwards is visible after {:.1?}", quantile(&times, 1.0)));
        if !report.tally.hung.is_empty() || !report.tally.broke.is_empty() {
            bail!("{} requests got no answer, {} a 500", report.tally.hung.len(), report.tally.broke.len());
        }
        Ok(())
    }
}

impl Overload {
    async fn run(self, now_ms: i64) -> anyhow::Result<()> {
        let seed = self.target.seed.unwrap_or(now_ms as u64);
        say(&format!("seed {seed}"));
        let bodies = Bodies::new(seed, self.per_request, self.text_bytes);
        let next = Arc::new(AtomicU64::new(0));
        let mut accepted = Vec::new();
        let capacity = if self.capacity > 0.0 {
            self.capacity
        } else {
            let load = self.load(&bodies, 0.0, self.capacity_s);
            let load = Load { workers: self.capacity_connections, ..load };
            // What the first seconds can take, while those behind the gateway have not begun, is not what can be kept up.
            let mut rate = 0.0;
            for name in ["warm-up", "capacity"] {
                let found = overload::run(load.clone(), &next).await?;
                found.lines(name).iter().for_each(|line| say(line));
                accepted.extend_from_slice(&found.accepted);
                rate = found.accepted_rate();
            }
            rate
        };
        if capacity < 1.0 {
            bail!("not one request a second was accepted");
        }
        let steady =
            self.phase("80%", &bodies, (capacity * 0.8, self.steady_s), &next, &mut accepted).await?;
        let name = format!("{}x", self.factor);
        let flood = (capacity * self.factor, self.overload_s);
        let over = self.phase(&name, &bodies, flood, &next, &mut accepted).await?;
        let ratio =
            |q: f64| over.accepted_quantile(q).as_secs_f64() / steady.accepted_quantile(q).as_secs_f64();
        say(&format!("accepted, {name} over 80%: p50 {:.2} p99 {:.2}", ratio(0.5), ratio(0.99)));
        self.settle(&bodies, &accepted).await
    }

    /// Waits until everything acknowledged is stored.
    async fn settle(&self, bodies: &Bodies, accepted: &[u64]) -> anyhow::Result<()> {
        if self.clickhouse_url.is_empty() {
            return Ok(());
        }
        let store = Store {
            url: self.clickhouse_url.clone(),
            database: self.database.clone(),
            patience: Duration::from_secs(self.wait_s),
        };
        let stored = store.check(bodies, accepted).await?;
        let events = accepted.len() as u64 * bodies.per_request();
        say(&format!("stored: of {events} acknowledged events {stored:?}"));
        if stored.missing > 0 || stored.repeated > 0 {
            bail!("what was acknowledged is not stored exactly once");
        }
        Ok(())
    }

    fn load(&self, bodies: &Bodies, rate: f64, seconds: u64) -> Load {
        Load {
            url: self.target.url.clone(),
            key: self.target.key.clone(),
            bodies: bodies.clone(),
            rate,
            lasts: Duration::from_secs(seconds),
            workers: self.workers,
        }
    }

    /// One phase with its report, once everything before it is stored, and a pause; the second key sends along.
    async fn phase(
        &self,
        name: &str,
        bodies: &Bodies,
        (rate, seconds): (f64, u64),
        next: &Arc<AtomicU64>,
        accepted: &mut Vec<u64>,
    ) -> anyhow::Result<Outcome> {
        self.settle(bodies, accepted).await?;
        tokio::time::sleep(Duration::from_secs(self.pause_s)).await;
        say(&format!("{name}: {rate:.0} requests/s for {seconds} s"));
        let load = self.load(bodies, rate, seconds);
        let polite = async {
            let Some(key) = self.polite_key.clone() else { return Ok(None) };
            let load = Load { key, rate: self.polite_rate, ..load.clone() };
            overload::run(load, next).await.map(Some)
        };
        let (outcome, polite) = tokio::try_join!(overload::run(load.clone(), next), polite)?;
        outcome.lines(name).iter().for_each(|line| say(line));
        accepted.extend_from_slice(&outcome.accepted);
        if let Some(polite) = polite {
            polite.lines(&format!("{name}, polite")).iter().for_each(|line| say(line));
            accepted.extend_from_slice(&polite.accepted);
        }
        for usage in self.pid.iter().flat_map(|pid| usage_of_tree(*pid)) {
            say(&format!("{name}: {} peak {} MiB", usage.name, usage.peak_rss / (1024 * 1024)));
        }
        Ok(outcome)
    }
}

impl Mix {
    async fn run(self, now_ms: i64) -> anyhow::Result<()> {
        let seed = self.target.seed.unwrap_or(now_ms as u64);
        let before = self.pid.map(usage_of_tree).unwrap_or_default();
        let plan = Plan {
            url: self.target.url.clone(),
            key: self.target.key.clone(),
            shape: Shape {
                seed,
                session_events: self.session_events,
                text_bytes: self.text_bytes,
                start_ms: now_ms,
                step_us: 20,
            },
            events: self.events,
            per_request: self.per_request,
            connections: self.connections,
            rate: self.rate,
            patience: Duration::from_secs(120),
        };
        let sent = send(plan).await.context("sending")?;
        let rate = sent.expected.events as f64 / sent.elapsed.as_secs_f64();
        let expected = serde_json::to_string(&sent.expected)?;
        say(&format!("seed {seed}"));
        say(&format!(
            "sent {} events in {:.1?}: {rate:.0} events/s, {} retries",
            self.events, sent.elapsed, sent.retries
        ));
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|q| quantile(&sent.latencies, q));
        say(&format!("request latency p50 {p50:.1?} p95 {p95:.1?} p99 {p99:.1?} (from when it was due)"));
        say(&format!("expected {expected}"));
        if let Some(file) = &self.expected_file {
            std::fs::write(file, &expected).with_context(|| format!("writing {}", file.display()))?;
        }
        let waited = wait_until_stored(&self, now_ms, &sent.expected).await?;
        say(&format!("all of it queryable {waited:.1?} after the last acknowledgement"));
        if let Some(pid) = self.pid {
            report_cpu(&before, &usage_of_tree(pid), self.events);
        }
        Ok(())
    }
}

/// Polls the usage of the time range until calls, tokens and cost are what was sent.
async fn wait_until_stored(args: &Mix, from_ms: i64, expected: &Expected) -> anyhow::Result<Duration> {
    let client = reqwest::Client::new();
    let started = Instant::now();
    // Whole hours around the run: they are added up from the hourly rollup.
    let from_ms = from_ms.div_euclid(HOUR_MS) * HOUR_MS;
    let to_ms = from_ms + 24 * HOUR_MS;
    loop {
        let url = format!("{}/v1/usage?from={from_ms}&to={to_ms}&step=1h", args.target.query_url);
        let answer =
            client.get(url).bearer_auth(&args.target.key).send().await.context("asking for the usage")?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("the query API answered {status}: {text}");
        }
        let usage: serde_json::Value = serde_json::from_str(&text)?;
        let calls = usage["totals"]["calls"].as_u64().unwrap_or_default();
        // At least: other senders may share the project. `verify.py` compares exactly, by the ids of this run.
        if calls >= expected.llm_calls {
            say(&format!("totals {}", usage["totals"]));
            return Ok(started.elapsed());
        }
        if started.elapsed() > Duration::from_secs(args.wait_s) {
            bail!("after {:?} only {calls} of {} calls are derived", started.elapsed(), expected.llm_calls);
        }
        tokio::time::sleep(LOOK_EVERY).await;
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
