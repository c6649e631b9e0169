//! Posts events as a real SDK would: several connections, retries of what is retryable, nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fleetlog_runtime::{Shutdown, Supervisor};
use tokio::sync::Mutex;

use crate::mix::{Expected, Shape, write_events};

/// Where and how to send.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Base URL of the gateway.
    pub url: String,
    /// API key.
    pub key: String,
    /// The events.
    pub shape: Shape,
    /// How many of them.
    pub events: u64,
    /// Events in one request.
    pub per_request: u64,
    /// Requests under way at once.
    pub connections: usize,
    /// Events per second over all connections; 0 for as fast as they are accepted.
    pub rate: u64,
    /// How long a request that cannot be delivered is tried again before the run fails.
    pub patience: Duration,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Sums of everything that was acknowledged.
    pub expected: Expected,
    /// Requests that were tried again.
    pub retries: u64,
    /// Wall time.
    pub elapsed: Duration,
    /// Time from the moment a request was due to its answer, sorted; due, so that a stalled server is not
    /// flattered by the requests it kept from being sent (coordinated omission).
    pub latencies: Vec<Duration>,
}

/// The value that a share `q` of sorted values does not exceed.
pub fn quantile(sorted: &[Duration], q: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * q).round() as usize).copied().unwrap_or_default()
}

/// Sends all of it, and returns when every event is acknowledged.
///
/// # Errors
/// When a request is refused for good, or cannot be delivered within the plan's patience.
pub async fn send(plan: Plan) -> anyhow::Result<Sent> {
    let plan = Arc::new(plan);
    let next = Arc::new(AtomicU64::new(0));
    let total = Arc::new(Mutex::new(Sent::default()));
    let started = Instant::now();
    let mut workers = Supervisor::new(Shutdown::new());
    for _ in 0..plan.connections.max(1) {
        let (plan, next, total) = (plan.clone(), next.clone(), total.clone());
        workers.spawn("sender", async move {
            let sent = worker(&plan, &next, started).await?;
            let mut total = total.lock().await;
            total.expected += sent.expected;
            total.retries += sent.retries;
            total.latencies.extend(sent.latencies);
            Ok::<_, anyhow::Error>(())
        });
    }
    workers.join(Duration::from_secs(1)).await?;
    let mut sent = std::mem::take(&mut *total.lock().await);
    sent.elapsed = started.elapsed();
    sent.latencies.sort_unstable();
    Ok(sent)
}

async fn worker(plan: &Plan, next: &AtomicU64, started: Instant) -> anyhow::Result<Sent> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
    let url = format!("{}/v1/events", plan.url);
    let mut sent = Sent::default();
    loop {
        let first = next.fetch_add(plan.per_request, Ordering::Relaxed);
        if first >= plan.events {
            return Ok(sent);
        }
        let count = plan.per_request.min(plan.events - first);
        let mut body = String::with_capacity(count as usize * (plan.shape.text_bytes + 400));
        let expected = write_events(&plan.shape, first, count, &mut body);
        let due = match plan.rate {
            0 => Instant::now(),
            rate => started + Duration::from_secs_f64(first as f64 / rate as f64),
        };
        tokio::time::sleep_until(due.into()).await;
        sent.retries += deliver(&client, &url, plan, body.into()).await?;
        sent.latencies.push(due.elapsed());
        sent.expected += expected;
    }
}

/// Posts one request until it is acknowledged; returns how often it was tried again.
async fn deliver(client: &reqwest::Client, url: &str, plan: &Plan, body: Arc<str>) -> anyhow::Result<u64> {
    let give_up = Instant::now() + plan.patience;
    let mut pause = Duration::from_millis(50);
    let mut retries = 0;
    loop {
        let request = client
            .post(url)
            .bearer_auth(&plan.key)
            .header("content-type", "application/x-ndjson")
            .body(body.to_string());
        let why = match request.send().await {
            Ok(answer) if answer.status().is_success() => {
                let answer: serde_json::Value = answer.json().await.context("reading an acknowledgement")?;
                if answer["rejected"].as_array().is_some_and(|rejected| !rejected.is_empty()) {
                    bail!("generated events were rejected: {}", answer["rejected"]);
                }
                return Ok(retries);
            }
            Ok(answer) if matches!(answer.status().as_u16(), 429 | 502..=504) => answer.status().to_string(),
            Ok(answer) => bail!("refused: {} {}", answer.status(), answer.text().await.unwrap_or_default()),
            Err(e) => e.to_string(),
        };
        if Instant::now() > give_up {
            bail!("not delivered within {:?}: {why}", plan.patience);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
        retries += 1;
    }
}
