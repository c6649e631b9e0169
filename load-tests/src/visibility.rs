//! How long it takes until an accepted event answers a query.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// The pause between two looks; part of what is measured, so small.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A measurement at light load: one event after the other.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Base URL of the gateway.
    pub ingest: String,
    /// Base URL of the query API.
    pub query: String,
    /// A key that may send and read.
    pub key: String,
    /// Between the end of one measurement and the next event.
    pub pause: Duration,
    /// How long an event may stay invisible before the measurement fails.
    pub patience: Duration,
}

impl Probe {
    /// Sends `count` events and returns, sorted, how long after its acknowledgement each was in the list of events.
    ///
    /// # Errors
    /// When an event is refused or stays invisible.
    pub async fn run(&self, seed: u64, count: u64) -> anyhow::Result<Vec<Duration>> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
        let mut times = Vec::new();
        for number in 0..count {
            let session = format!("visible-{seed:x}-{number}");
            let event = format!(r#"{{"type":"user.prompt","sessionId":"{session}"}}"#);
            let sent = client.post(format!("{}/v1/events", self.ingest)).bearer_auth(&self.key);
            let sent = sent.header("content-type", "application/json").body(event).send().await?;
            ensure!(sent.status().is_success(), "refused: {}", sent.status());
            let accepted = Instant::now();
            while !self.is_visible(&client, &session).await? {
                if accepted.elapsed() > self.patience {
                    bail!("an event is still invisible {:?} after its acknowledgement", self.patience);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            times.push(accepted.elapsed());
            tokio::time::sleep(self.pause).await;
        }
        times.sort_unstable();
        Ok(times)
    }

    async fn is_visible(&self, client: &reqwest::Client, session: &str) -> anyhow::Result<bool> {
        let url = format!("{}/v1/events?session={session}&limit=1", self.query);
        let answer = client.get(url).bearer_auth(&self.key).send().await.context("asking for the event")?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "the query API answered {status}: {text}");
        let page: serde_json::Value = serde_json::from_str(&text)?;
        Ok(page["data"].as_array().is_some_and(|rows| !rows.is_empty()))
    }
}
