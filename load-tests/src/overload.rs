//! Overload: what a gateway does with more than it can take, and what it had said yes to.
//!
//! Requests are sent when they are due, whatever happened to those before (open loop), and an answer's time counts from
//! then, so that a stalled gateway is not flattered by the requests it kept from being sent (coordinated omission).
//! Nothing is sent twice: what is refused stays refused, so that afterwards each acknowledged event must be stored
//! exactly once, and no other one twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fleetlog_runtime::{Shutdown, Supervisor};
use tokio::sync::Mutex;

use crate::sender::quantile;

/// Digits of an event's number in its id: fixed, so that a body is made by writing over another one's.
const DIGITS: usize = 12;

/// Bodies that differ in their ids only, so that making them costs next to nothing beside sending them.
#[derive(Clone, Debug)]
pub struct Bodies {
    prefix: String,
    template: String,
    /// Where the numbers of the template's events stand.
    numbers: Vec<usize>,
}

impl Bodies {
    /// Bodies of so many events with texts of about so many bytes; the seed is part of every id.
    pub fn new(seed: u64, per_request: u64, text_bytes: usize) -> Self {
        let prefix = format!("over-{seed:x}-");
        let text = "lorem ipsum dolor sit amet ".repeat(text_bytes.div_ceil(27));
        let text = text.get(..text_bytes).unwrap_or(&text);
        let (mut template, mut numbers) = (String::new(), Vec::new());
        for _ in 0..per_request.max(1) {
            template.push_str(r#"{"id":""#);
            template.push_str(&prefix);
            numbers.push(template.len());
            template.push_str(&"0".repeat(DIGITS));
            template.push_str(r#"","type":"log","level":"info","agentId":"load","data":{"text":""#);
            template.push_str(text);
            template.push_str("\"}}\n");
        }
        Self { prefix, template, numbers }
    }

    /// The body of a request, with the events from `request * per_request` on.
    pub fn body(&self, request: u64) -> Vec<u8> {
        let mut body = self.template.clone().into_bytes();
        for (number, at) in (request * self.per_request()..).zip(&self.numbers) {
            let digits = format!("{number:0width$}", width = DIGITS);
            body[*at..at + DIGITS].copy_from_slice(digits.as_bytes());
        }
        body
    }

    /// Events of one request.
    pub fn per_request(&self) -> u64 {
        self.numbers.len() as u64
    }
}

/// A sender within a phase.
#[derive(Clone, Debug)]
pub struct Load {
    /// Base URL of the gateway.
    pub url: String,
    /// API key.
    pub key: String,
    /// What is sent.
    pub bodies: Bodies,
    /// Requests a second; 0 for as many as `workers` get answered (closed loop).
    pub rate: f64,
    /// How long.
    pub lasts: Duration,
    /// Most requests under way; more of them start late, which their times show.
    pub workers: usize,
}

/// What a phase brought.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests sent.
    pub sent: u64,
    /// Their numbers, of the accepted ones.
    pub accepted: Vec<u64>,
    /// Times of the accepted ones from when they were due, sorted.
    pub accepted_times: Vec<Duration>,
    /// Times of the refused ones from when they were due, sorted.
    pub refused_times: Vec<Duration>,
    /// Answers by status and code.
    pub answers: BTreeMap<(u16, String), u64>,
    /// Requests that were not answered, by reason.
    pub failures: BTreeMap<String, u64>,
    /// Answers of 429 and 503 without `Retry-After`.
    pub without_retry_after: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.accepted.extend(other.accepted);
        self.accepted_times.extend(other.accepted_times);
        self.refused_times.extend(other.refused_times);
        for (answer, count) in other.answers {
            *self.answers.entry(answer).or_default() += count;
        }
        for (why, count) in other.failures {
            *self.failures.entry(why).or_default() += count;
        }
        self.without_retry_after += other.without_retry_after;
    }

    /// The time that a share `q` of the accepted requests did not exceed.
    pub fn accepted_quantile(&self, q: f64) -> Duration {
        quantile(&self.accepted_times, q)
    }

    /// Accepted requests a second.
    pub fn accepted_rate(&self) -> f64 {
        self.accepted.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// What happened, in a few lines.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let [p50, p99] = [0.5, 0.99].map(|q| self.accepted_quantile(q));
        let [r50, r99] = [0.5, 0.99].map(|q| quantile(&self.refused_times, q));
        let answers: Vec<String> =
            self.answers.iter().map(|((status, code), count)| format!("{status} {code} {count}")).collect();
        let mut lines = vec![
            format!(
                "{name}: {} requests in {:.1?}, {:.0}/s accepted: p50 {p50:.1?} p99 {p99:.1?}; refused: p50 {r50:.1?} p99 {r99:.1?}",
                self.sent,
                self.elapsed,
                self.accepted_rate()
            ),
            format!("{name}: {}; without Retry-After {}", answers.join(", "), self.without_retry_after),
        ];
        if !self.failures.is_empty() {
            lines.push(format!("{name}: not answered: {:?}", self.failures));
        }
        lines
    }
}

/// Sends a load; request numbers come from `next`, which phases share.
///
/// # Errors
/// When the client cannot be made.
pub async fn run(load: Load, next: &Arc<AtomicU64>) -> anyhow::Result<Outcome> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
    let total = Arc::new(Mutex::new(Outcome::default()));
    let slot = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let load = Arc::new(load);
    let mut workers = Supervisor::new(Shutdown::new());
    for _ in 0..load.workers.max(1) {
        let (load, client, total) = (Arc::clone(&load), client.clone(), Arc::clone(&total));
        let (next, slot) = (Arc::clone(next), Arc::clone(&slot));
        workers.spawn("sender", async move {
            let outcome = worker(&load, &client, &next, &slot, began).await;
            total.lock().await.add(outcome);
            anyhow::Ok(())
        });
    }
    workers.join(Duration::from_secs(60)).await?;
    let mut outcome = std::mem::take(&mut *total.lock().await);
    outcome.elapsed = began.elapsed();
    outcome.accepted_times.sort_unstable();
    outcome.refused_times.sort_unstable();
    Ok(outcome)
}

async fn worker(
    load: &Load,
    client: &reqwest::Client,
    next: &AtomicU64,
    slot: &AtomicU64,
    began: Instant,
) -> Outcome {
    let url = format!("{}/v1/events", load.url);
    let mut outcome = Outcome::default();
    loop {
        let due = if load.rate > 0.0 {
            began + Duration::from_secs_f64(slot.fetch_add(1, Ordering::Relaxed) as f64 / load.rate)
        } else {
            Instant::now()
        };
        if due.duration_since(began) >= load.lasts {
            return outcome;
        }
        tokio::time::sleep_until(due.into()).await;
        let number = next.fetch_add(1, Ordering::Relaxed);
        let request = client
            .post(&url)
            .bearer_auth(&load.key)
            .header("content-type", "application/x-ndjson")
            .body(load.bodies.body(number));
        outcome.sent += 1;
        match request.send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                let says_when = answer.headers().contains_key("retry-after");
                let text = answer.text().await.unwrap_or_default();
                let took = due.elapsed();
                if (200..300).contains(&status) {
                    outcome.accepted.push(number);
                    outcome.accepted_times.push(took);
                } else {
                    outcome.refused_times.push(took);
                    outcome.without_retry_after += u64::from(matches!(status, 429 | 503) && !says_when);
                }
                *outcome.answers.entry((status, code(&text))).or_default() += 1;
            }
            Err(error) => *outcome.failures.entry(cause(&error)).or_default() += 1,
        }
    }
}

/// The code of a refusal.
fn code(text: &str) -> String {
    let said: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    said["error"]["code"].as_str().unwrap_or("accepted").to_owned()
}

/// The innermost reason: the outer ones name the URL only.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Where what was stored is looked up.
#[derive(Clone, Debug)]
pub struct Store {
    /// ClickHouse's HTTP interface.
    pub url: String,
    /// Database.
    pub database: String,
    /// How long to wait until everything is stored.
    pub patience: Duration,
}

/// What was found stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Acknowledged events that are not stored.
    pub missing: u64,
    /// Rows beyond the first of an event, acknowledged or not.
    pub repeated: u64,
    /// Events that are stored although their request was not acknowledged, as is allowed.
    pub unacknowledged: u64,
}

impl Store {
    /// Looks until every acknowledged event is stored, or patience ends.
    ///
    /// # Errors
    /// When ClickHouse does not answer.
    pub async fn check(&self, bodies: &Bodies, accepted: &[u64]) -> anyhow::Result<Stored> {
        let began = Instant::now();
        loop {
            let stored = judge(&self.requests(bodies).await?, accepted, bodies.per_request());
            if stored.missing == 0 || began.elapsed() > self.patience {
                return Ok(stored);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Rows and distinct events of each request.
    async fn requests(&self, bodies: &Bodies) -> anyhow::Result<HashMap<u64, (u64, u64)>> {
        let prefix = &bodies.prefix;
        let query = format!(
            "SELECT intDiv(toUInt64(substring(event_id, {})), {}) AS request, count(), uniqExact(event_id) \
             FROM {}.events WHERE startsWith(event_id, '{prefix}') GROUP BY request FORMAT TabSeparated",
            prefix.len() + 1,
            bodies.per_request(),
            self.database
        );
        let answer =
            reqwest::Client::new().post(&self.url).body(query).send().await.context("asking ClickHouse")?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "ClickHouse answered {status}: {text}");
        text.lines().map(parse).collect()
    }
}

fn parse(line: &str) -> anyhow::Result<(u64, (u64, u64))> {
    let numbers: Result<Vec<u64>, _> = line.split('\t').map(str::parse).collect();
    match numbers?[..] {
        [request, rows, events] => Ok((request, (rows, events))),
        _ => bail!("three numbers were expected: {line}"),
    }
}

fn judge(found: &HashMap<u64, (u64, u64)>, accepted: &[u64], per_request: u64) -> Stored {
    let of = |request: &u64| found.get(request).copied().unwrap_or_default();
    let missing = accepted.iter().map(|request| per_request.saturating_sub(of(request).1)).sum();
    let repeated = found.values().map(|(rows, events)| rows.saturating_sub(*events)).sum();
    let all: u64 = found.values().map(|(_, events)| events).sum();
    let acknowledged: u64 = accepted.iter().map(|request| of(request).1).sum();
    Stored { missing, repeated, unacknowledged: all.saturating_sub(acknowledged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_of_every_request_has_an_id_of_its_own() {
        let bodies = Bodies::new(0xabc, 3, 100);
        let ids = |request| {
            let body = String::from_utf8(bodies.body(request)).unwrap();
            let id = |line: &str| {
                let event: serde_json::Value = serde_json::from_str(line).unwrap();
                event["id"].as_str().unwrap().to_owned()
            };
            body.lines().map(id).collect::<Vec<_>>()
        };
        assert_eq!(ids(0), ["over-abc-000000000000", "over-abc-000000000001", "over-abc-000000000002"]);
        assert_eq!(ids(7)[0], "over-abc-000000000021");
        assert_eq!(bodies.body(7).len(), bodies.body(0).len());
    }

    #[test]
    fn what_is_missing_is_told_from_what_is_repeated_and_from_what_nobody_was_promised() {
        let found = HashMap::from([(0, (3, 3)), (1, (4, 3)), (2, (2, 2)), (9, (3, 3))]);
        let stored = judge(&found, &[0, 1, 2, 3], 3);
        assert_eq!(stored, Stored { missing: 4, repeated: 1, unacknowledged: 3 });
    }
}
