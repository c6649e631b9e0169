//! Requests that no client would make, against every listener, by the million: nothing may crash, hang or leak.
//!
//! ```text
//! seed ─▶ seeds (recordings, small) ─▶ mutate (structure, bytes, wire) ─▶ request ─▶ http1 or http2 ─▶ tally
//! ```
//!
//! Two thirds of the requests are something real made wrong, the rest is nonsense in the body, in the head, in the
//! framing, or in a question's parameters. Each must be answered, or its connection closed; an answer that does not
//! come within a minute, a 500 (but ClickHouse's, whose status for a wrong statement it is), and a listener that takes no
//! connections any more are failures. Refusals are not: they are what is asked for. Some of the mutated events are valid still, so that the stages behind the gateway are fed
//! too. The order of requests on one connection follows from the seed; which connection comes first does not.

mod http1;
mod http2;
mod mutate;
mod request;
mod seeds;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fleetlog_runtime::{Shutdown, Supervisor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Mutex;

use crate::process::{Usage, usage_of_tree};
use request::Target;
use seeds::Seeds;

/// Longest wait for an answer, or for a listener to take a connection.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Requests written before their answers are read.
const PIPELINED: u64 = 16;

/// What to attack, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `host:port` of every listener, with what is known to be behind it.
    pub listeners: Vec<(Listener, String)>,
    /// An API key that may send and read.
    pub key: String,
    /// Folder of recordings; every file in it is a seed.
    pub seeds: PathBuf,
    /// Requests to make.
    pub requests: u64,
    /// Connections to work on at once.
    pub connections: u64,
    /// Seed of all mutations.
    pub seed: u64,
    /// Process whose tree's memory is watched.
    pub pid: Option<u32>,
}

/// What is behind an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listener {
    /// The gateway's HTTP port.
    Ingest,
    /// The gateway's port for gRPC.
    Grpc,
    /// The query API.
    Query,
    /// A service's port for health and metrics.
    Admin,
    /// ClickHouse's HTTP interface.
    Store,
}

impl Listener {
    /// How many of a hundred requests go there, if everything is attacked: a question or a statement costs as much as a
    /// hundred others, and finds no more.
    const fn weight(self) -> u32 {
        match self {
            Self::Ingest => 78,
            Self::Grpc => 15,
            Self::Query => 4,
            Self::Admin => 2,
            Self::Store => 1,
        }
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers by listener and status; 0 is a connection that was closed without an answer.
    pub answers: BTreeMap<(Listener, u16), u64>,
    /// Requests whose answer did not come in time, by their first bytes.
    pub hung: Vec<String>,
    /// Requests that were answered with a 500, by their first bytes.
    pub broke: Vec<String>,
}

/// Failures that are kept with their request; the others are only counted.
const KEPT: usize = 20;

impl Tally {
    pub(crate) fn answered(&mut self, listener: Listener, status: u16, request: &[u8]) {
        *self.answers.entry((listener, status)).or_default() += 1;
        // ClickHouse's status for most of what is wrong with a statement is 500.
        if status == 500 && listener != Listener::Store && self.broke.len() < KEPT {
            self.broke.push(first_bytes(request));
        }
    }

    pub(crate) fn hung(&mut self, request: &[u8]) {
        if self.hung.len() < KEPT {
            self.hung.push(first_bytes(request));
        }
    }

    fn add(&mut self, other: Self) {
        for (key, count) in other.answers {
            *self.answers.entry(key).or_default() += count;
        }
        self.hung.extend(other.hung);
        self.broke.extend(other.broke);
    }
}

fn first_bytes(request: &[u8]) -> String {
    request.get(..600).unwrap_or(request).escape_ascii().to_string()
}

/// What a run saw.
#[derive(Debug, Default)]
pub struct Report {
    /// All answers.
    pub tally: Tally,
    /// Wall time.
    pub elapsed: Duration,
    /// Memory of the watched processes at the start, after each tenth, and at the end.
    pub memory: Vec<(u64, Vec<Usage>)>,
}

/// Makes the requests. `progress` hears of every tenth.
///
/// # Errors
/// When a listener takes no connections for a minute, or the seeds cannot be read.
pub async fn attack(plan: Plan, progress: impl Fn(&str)) -> anyhow::Result<Report> {
    let seeds =
        Arc::new(Seeds::load(&plan.seeds).with_context(|| format!("reading {}", plan.seeds.display()))?);
    ensure!(!plan.listeners.is_empty(), "no listener to attack");
    let started = Instant::now();
    let (next, total) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Tally::default())));
    let shutdown = Shutdown::new();
    let mut workers = Supervisor::new(shutdown.clone());
    let mut memory = vec![(0, watched(&plan))];
    let plan = Arc::new(plan);
    for number in 0..plan.connections.max(1) {
        let (plan, seeds, next, total) = (plan.clone(), seeds.clone(), next.clone(), total.clone());
        workers.spawn("attacker", async move {
            let tally = worker(&plan, &seeds, &next, number).await?;
            total.lock().await.add(tally);
            Ok::<_, anyhow::Error>(())
        });
    }
    let watch = async {
        let tenth = (plan.requests / 10).max(1);
        let mut due = tenth;
        while due < plan.requests {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let made = next.load(Ordering::Relaxed);
            if made >= due {
                let usage = watched(&plan);
                progress(&format!("{made} requests after {:.0?}; {}", started.elapsed(), resident(&usage)));
                memory.push((made, usage));
                due = (made / tenth + 1) * tenth;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = workers.join(Duration::from_secs(1)) => ended?,
        () = watch => {}
    }
    memory.push((plan.requests, watched(&plan)));
    let tally = std::mem::take(&mut *total.lock().await);
    Ok(Report { tally, elapsed: started.elapsed(), memory })
}

fn watched(plan: &Plan) -> Vec<Usage> {
    plan.pid.map(usage_of_tree).unwrap_or_default()
}

/// The resident memory of processes, in words.
pub fn resident(usages: &[Usage]) -> String {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let words: Vec<String> =
        usages.iter().map(|usage| format!("{} {} MiB", usage.name, mib(usage.rss))).collect();
    if words.is_empty() { "memory not watched".to_owned() } else { words.join(", ") }
}

async fn worker(plan: &Plan, seeds: &Seeds, next: &AtomicU64, number: u64) -> anyhow::Result<Tally> {
    let mut random = StdRng::seed_from_u64(plan.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut connections: BTreeMap<usize, http1::Connection> = BTreeMap::new();
    let mut tally = Tally::default();
    let weights: u32 = plan.listeners.iter().map(|(listener, _)| listener.weight()).sum();
    while next.fetch_add(PIPELINED, Ordering::Relaxed) < plan.requests {
        let mut at = random.random_range(0..weights);
        let place = plan.listeners.iter().position(|(listener, _)| {
            let here = at < listener.weight();
            at = at.saturating_sub(listener.weight());
            here
        });
        let Some((place, (listener, address))) =
            place.and_then(|place| Some((place, plan.listeners.get(place)?)))
        else {
            continue;
        };
        let target = Target { listener: *listener, key: &plan.key, seeds };
        if *listener == Listener::Grpc && !random.random_ratio(1, 8) {
            http2::attack(address, &target, PIPELINED, &mut random, &mut tally).await?;
            continue;
        }
        if random.random_ratio(1, 12) {
            // Broken framing ends the connection, so each needs one of its own: few, or the ports run out.
            http1::break_framing(address, &target, &mut random, &mut tally).await?;
        }
        let connection =
            connections.entry(place).or_insert_with(|| http1::Connection::new(address.clone(), *listener));
        let requests: Vec<_> = (0..PIPELINED).map(|_| target.request(&mut random)).collect();
        connection.exchange(&requests, &mut tally).await?;
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_broke_something_is_kept_and_printable() {
        let mut tally = Tally::default();
        tally.answered(Listener::Query, 500, b"GET /v1\xff\r\n");
        tally.answered(Listener::Query, 400, b"GET /");
        assert_eq!(tally.broke, ["GET /v1\\xff\\r\\n"]);
        assert_eq!(tally.answers[&(Listener::Query, 400)], 1);
    }
}
