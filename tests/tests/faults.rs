//! Faults at random moments under a known load: whatever is killed, frozen, doubled or taken away, everything that was
//! acknowledged is stored once, and the ledger balances.
//!
//! A short run by default; `cargo xtask faults --minutes N --seed S` runs longer. The seed decides which faults come in
//! which order, and is printed; their exact moments depend on the machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleetlog_tests::{ClickHouse, Client, Deployment, Engines, Process, SERVICES, say};
use rustix::process::Signal;
use tokio::task::JoinSet;

const PROCESSOR: usize = 1;
const AGGREGATOR: usize = 2;
/// Services that a fault may hit; the query API has no part in what is proved.
const HIT: [usize; 3] = [0, PROCESSOR, AGGREGATOR];
/// Events in one request, requests under way at once, and the pause of a sender between two.
const PER_REQUEST: u64 = 20;
const SENDERS: u64 = 3;
const PAUSE: Duration = Duration::from_millis(60);
/// One request in so many is sent again although it was acknowledged.
const REPEATED: u64 = 17;
const STOP: Duration = Duration::from_secs(60);
/// How long everything may take to settle after the last fault: attempts of unknown outcome wait half a minute.
const SETTLED: Duration = Duration::from_secs(180);

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// `kill -9` of a service, which is started again.
    Kill(usize),
    /// SIGTERM to a service, which is started again.
    Terminate(usize),
    /// A service frozen for longer than its group waits, so that it wakes as a zombie.
    Freeze(usize),
    /// A further instance for some seconds, ended with `kill -9`.
    Double(usize),
    /// The broker killed and started again.
    KillKafka,
    /// The broker frozen for some seconds.
    FreezeKafka,
    /// ClickHouse killed, wherever its inserts are, and started again.
    KillClickHouse,
    /// ClickHouse frozen for some seconds.
    FreezeClickHouse,
}

/// splitmix64: the same faults for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }

    fn fault(&mut self) -> Fault {
        let service = HIT[self.below(3) as usize];
        match self.below(12) {
            0..=4 => Fault::Kill(service),
            5 => Fault::Terminate(service),
            6 => Fault::Freeze(if service == 0 { AGGREGATOR } else { service }),
            7 => Fault::Double(if service == 0 { PROCESSOR } else { service }),
            8 => Fault::KillKafka,
            9 => Fault::FreezeKafka,
            10 => Fault::KillClickHouse,
            _ => Fault::FreezeClickHouse,
        }
    }

    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from * 1000 + self.below((to - from) * 1000))
    }
}

/// Numbers events and knows which are acknowledged.
#[derive(Default)]
struct Load {
    next: AtomicU64,
    acknowledged: AtomicU64,
    retries: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    fn body(first: u64) -> String {
        let event = |n: u64| {
            format!(
                "{{\"id\":\"e{n}\",\"type\":\"llm.request\",\"sessionId\":\"s{}\",\"timestamp\":{},\"model\":\"m\",\
                 \"inputTokens\":{},\"outputTokens\":1}}\n",
                n % 40,
                1_790_000_000_000_u64 + n,
                n % 1000,
            )
        };
        (first..first + PER_REQUEST).map(event).collect()
    }

    /// Sends as an SDK does: the same bytes again until they are acknowledged.
    async fn send(self: Arc<Self>, client: Client) -> Result<()> {
        const HEADERS: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];
        while !self.stop.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(PER_REQUEST, Ordering::Relaxed);
            let again = (first / PER_REQUEST).is_multiple_of(REPEATED);
            for _ in 0..=u32::from(again) {
                let mut wait = Duration::from_millis(50);
                loop {
                    match client.post("/v1/events", &HEADERS, Self::body(first)).await {
                        Ok(answer) if answer.status == 202 => break,
                        Ok(answer) => {
                            ensure!(matches!(answer.status, 429 | 503), "{}: {}", answer.status, answer.text)
                        }
                        Err(_) => {}
                    }
                    self.retries.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(2));
                }
            }
            self.acknowledged.fetch_add(PER_REQUEST, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// Everything that runs.
struct Stage {
    engines: Engines,
    deployment: Deployment,
    services: Vec<Process>,
}

impl Stage {
    async fn suffer(&mut self, fault: Fault, chance: &mut Chance) -> Result<()> {
        match fault {
            Fault::Kill(service) => {
                self.services[service].signal(Signal::KILL);
                self.services[service].wait(STOP)?;
                self.revive(service)?;
            }
            Fault::Terminate(service) => {
                let status = self.services[service].terminate(STOP)?;
                ensure!(
                    status.success(),
                    "{} ended with {status}:\n{}",
                    SERVICES[service],
                    self.services[service].stderr_tail()
                );
                self.revive(service)?;
            }
            Fault::Freeze(service) => {
                // The group must have somebody to give the partitions to.
                let beside = self.deployment.launch_beside(service)?;
                self.services[service].signal(Signal::STOP);
                tokio::time::sleep(chance.seconds(8, 12)).await;
                self.services[service].signal(Signal::CONT);
                tokio::time::sleep(chance.seconds(1, 3)).await;
                beside.terminate(STOP)?;
            }
            Fault::Double(service) => {
                let beside = self.deployment.launch_beside(service)?;
                tokio::time::sleep(chance.seconds(2, 6)).await;
                beside.signal(Signal::KILL);
                beside.wait(STOP)?;
            }
            Fault::KillKafka => self.engines.kafka.restart().await?,
            Fault::FreezeKafka => {
                self.engines.kafka.pause();
                tokio::time::sleep(chance.seconds(1, 6)).await;
                self.engines.kafka.resume();
            }
            Fault::KillClickHouse => {
                self.engines.clickhouse.kill().await;
                tokio::time::sleep(chance.seconds(0, 4)).await;
                self.engines.clickhouse.restart().await?;
            }
            Fault::FreezeClickHouse => {
                self.engines.clickhouse.pause();
                tokio::time::sleep(chance.seconds(1, 6)).await;
                self.engines.clickhouse.resume();
            }
        }
        Ok(())
    }

    /// A service that a fault has ended is started again, as its supervisor would.
    fn revive(&mut self, service: usize) -> Result<()> {
        self.services[service] = self.deployment.launch(service)?;
        Ok(())
    }

    /// Starts again what ended by itself, which a service may do when the log gives it up; it is counted.
    fn revive_the_dead(&mut self) -> Result<u64> {
        let mut dead = 0;
        for service in HIT {
            if let Some(status) = self.services[service].ended()? {
                say(&format!(
                    "{} ended by itself ({status}):\n{}",
                    SERVICES[service],
                    self.services[service].stderr_tail()
                ));
                self.revive(service)?;
                dead += 1;
            }
        }
        Ok(dead)
    }
}

fn from_environment(name: &str) -> Option<f64> {
    std::env::var(name).ok()?.parse().ok()
}

/// INV-1 to INV-6, all at once.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_nothing_is_stored_twice_and_the_ledger_balances_whatever_fails() -> Result<()> {
    let minutes = from_environment("FLEETLOG_FAULT_MINUTES").unwrap_or(1.5);
    let seed = from_environment("FLEETLOG_FAULT_SEED")
        .map_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_secs()), |seed| seed as u64);
    say(&format!("seed {seed}, {minutes} minutes"));
    let folder = tempfile::tempdir()?;
    let engines = Engines::start(folder.path()).await?;
    let deployment = Deployment::write(folder.path(), &engines)?;
    let client = deployment.prepare(&engines).await?;
    let services = deployment.start().await?;
    let mut stage = Stage { engines, deployment, services };

    let load = Arc::new(Load::default());
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        senders.spawn(Arc::clone(&load).send(client.clone()));
    }
    let (mut chance, mut suffered, mut dead) = (Chance(seed), BTreeMap::<Fault, u32>::new(), 0);
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    while Instant::now() < end {
        let fault = chance.fault();
        stage.suffer(fault, &mut chance).await.with_context(|| format!("seed {seed}: {fault:?}"))?;
        *suffered.entry(fault).or_default() += 1;
        tokio::time::sleep(chance.seconds(1, 4)).await;
        dead += stage.revive_the_dead()?;
    }
    load.stop.store(true, Ordering::Relaxed);
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    dead += stage.revive_the_dead()?;
    let sent = load.acknowledged.load(Ordering::Relaxed);
    say(&format!(
        "{} faults {suffered:?}; {sent} events acknowledged, {} requests retried, {dead} services ended by themselves",
        suffered.values().sum::<u32>(),
        load.retries.load(Ordering::Relaxed),
    ));
    // A service may still give up on what the last fault left it with: it is started again, as its supervisor would.
    let deadline = Instant::now() + SETTLED;
    let truth = loop {
        stage.revive_the_dead()?;
        match all_is_true(&stage, sent).await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            truth => break truth,
        }
    };
    if truth.is_err() {
        for service in HIT {
            say(&format!("{} said last:\n{}", SERVICES[service], stage.services[service].stderr_tail()));
        }
    }
    truth.with_context(|| format!("seed {seed}"))
}

/// How far each partition of the events topic is stored: one that lags behind the others names itself.
async fn lags(clickhouse: &ClickHouse) -> Result<String> {
    let sql = "SELECT log_partition, max(log_offset), toString(max(received_at)) FROM events
        GROUP BY log_partition ORDER BY log_partition";
    let stored: Vec<(i32, i64, String)> = clickhouse.select(sql, &[]).await?;
    Ok(format!("stored by partition: {stored:?}"))
}

async fn all_is_true(stage: &Stage, sent: u64) -> Result<()> {
    let clickhouse = ClickHouse::at(&stage.engines.clickhouse.url());
    let rows = "SELECT uniqExact(event_id), count() FROM events";
    let numbers = "SELECT (SELECT count() FROM llm_calls), (SELECT sum(llm_call_count) FROM sessions),
        (SELECT sum(calls) FROM usage_1m), (SELECT sum(calls) FROM usage_1h)";
    let tokens = "SELECT (SELECT sum(in_uncached) FROM events), (SELECT sum(in_uncached) FROM llm_calls),
        (SELECT sum(in_uncached) FROM usage_1h)";
    // Each raw record is settled once, and its records are all accounted for.
    let ledger = "SELECT (SELECT count() - uniqExact(raw_partition, raw_offset) FROM settlements),
        (SELECT sum(records) FROM settlements),
        (SELECT sum(filtered + dead + context) FROM settlements) + (SELECT sum(stored + duplicate) FROM piece_settlements),
        (SELECT sum(stored) FROM piece_settlements)";
    let (events, stored): (u64, u64) = clickhouse.select_one(rows, &[]).await?;
    ensure!(
        events == sent,
        "{events} of {sent} acknowledged events are stored; {}",
        lags(&clickhouse).await?
    );
    ensure!(stored == events, "{events} events in {stored} rows");
    let counts: [u64; 4] = clickhouse.select_one(numbers, &[]).await?;
    ensure!(counts == [sent; 4], "{sent} calls; calls, sessions, usage by minute and hour: {counts:?}");
    let sums: [u64; 3] = clickhouse.select_one(tokens, &[]).await?;
    ensure!(sums[0] == sums[1] && sums[0] == sums[2], "tokens of events, calls, usage: {sums:?}");
    let [twice, records, accounted, stored]: [u64; 4] = clickhouse.select_one(ledger, &[]).await?;
    ensure!(twice == 0, "{twice} settlements are stored twice");
    ensure!(records == accounted, "{records} records, {accounted} accounted for");
    ensure!(stored == sent, "{stored} records stored, {sent} sent");
    Ok(())
}
