//! Faults at random moments under a known load: whatever is killed, frozen, doubled or taken away, everything that was
//! acknowledged is stored once, and the ledger balances.
//!
//! A short run by default; `cargo xtask faults --minutes N --seed S` runs longer. The seed decides which faults come in
//! which order, and is printed; their exact moments depend on the machine. Every fault comes in each round.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleetlog_chance::Chance;
use fleetlog_engines::free_ports;
use fleetlog_tests::{ClickHouse, Client, Deployment, Engines, Process, SERVICES, say};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tokio::task::JoinSet;

const GATEWAY: usize = 0;
const PROCESSOR: usize = 1;
const AGGREGATOR: usize = 2;
const QUERY: usize = 3;
/// A second gateway, which has a spool.
const SPOOLING: usize = 4;
const RUNNING: [&str; 5] =
    [SERVICES[GATEWAY], SERVICES[PROCESSOR], SERVICES[AGGREGATOR], SERVICES[QUERY], "the spooling gateway"];
/// Events in one request, requests under way at once, and the pause of a sender between two.
const PER_REQUEST: u64 = 20;
const SENDERS: u64 = 3;
const PAUSE: Duration = Duration::from_millis(60);
/// Time of the first event; each is a millisecond after the one before.
const START_MS: u64 = 1_790_000_000_000;
/// Sessions at a time, and events of each: they come to an end, as an agent's do.
const SESSIONS: u64 = 40;
const PER_SESSION: u64 = 1000;
/// One request in so many is sent again although it was acknowledged.
const REPEATED: u64 = 17;
const STOP: Duration = Duration::from_secs(60);
/// How long everything may take to settle after the last fault: attempts of unknown outcome wait half a minute. A long run
/// leaves more to recompute.
const SETTLED: Duration = Duration::from_secs(240);
/// How often it is told what is still not true.
const TELL: Duration = Duration::from_secs(20);
/// How long ClickHouse is away in a long outage; in a short run, there is time for less.
const OUTAGE: Duration = Duration::from_secs(60);
const SHORT_OUTAGE: Duration = Duration::from_secs(12);
/// Below this, a run is a short one, minutes.
const SHORT_RUN: f64 = 10.0;
/// Least bytes that a full disk still takes: less than a request, so that a write stops in the middle.
const DISK_LEFT: u64 = 700;
/// A slow engine works and stands still in turns.
const WORKING: Duration = Duration::from_millis(80);
const STANDING: Duration = Duration::from_millis(240);

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
    /// A further instance for some seconds, ended with SIGTERM: the work moves to it and back.
    Join(usize),
    /// The broker killed and started again.
    KillKafka,
    /// The broker stopped with SIGTERM and started again.
    StopKafka,
    /// The broker frozen for some seconds.
    FreezeKafka,
    /// ClickHouse killed, wherever its inserts are, and started again.
    KillClickHouse,
    /// ClickHouse stopped with SIGTERM, away for a minute, and started again.
    StopClickHouse,
    /// ClickHouse frozen for some seconds.
    FreezeClickHouse,
    /// ClickHouse standing still most of the time, so that everything takes several times as long.
    SlowClickHouse,
    /// A service killed while the broker is frozen, and started again before it answers.
    KillBesideFrozenKafka(usize),
    /// A service killed while ClickHouse is away, and started again before it is back.
    KillBesideKilledClickHouse(usize),
    /// The broker and ClickHouse killed at once.
    KillBothEngines,
    /// The broker frozen while the spool's disk is full, and then no longer is.
    FullDisk,
    /// The same, and the gateway killed while the disk is full.
    KillBesideFullDisk,
}

/// Every fault, as often as it comes in one round.
const ROUND: [Fault; 37] = [
    Fault::Kill(GATEWAY),
    Fault::Kill(PROCESSOR),
    Fault::Kill(PROCESSOR),
    Fault::Kill(AGGREGATOR),
    Fault::Kill(AGGREGATOR),
    Fault::Kill(QUERY),
    Fault::Kill(SPOOLING),
    Fault::Terminate(GATEWAY),
    Fault::Terminate(PROCESSOR),
    Fault::Terminate(AGGREGATOR),
    Fault::Terminate(QUERY),
    Fault::Terminate(SPOOLING),
    Fault::Freeze(PROCESSOR),
    Fault::Freeze(AGGREGATOR),
    Fault::Double(PROCESSOR),
    Fault::Double(AGGREGATOR),
    Fault::Join(PROCESSOR),
    Fault::Join(AGGREGATOR),
    Fault::KillKafka,
    Fault::KillKafka,
    Fault::StopKafka,
    Fault::FreezeKafka,
    Fault::FreezeKafka,
    Fault::KillClickHouse,
    Fault::KillClickHouse,
    Fault::StopClickHouse,
    Fault::FreezeClickHouse,
    Fault::SlowClickHouse,
    Fault::KillBesideFrozenKafka(GATEWAY),
    Fault::KillBesideFrozenKafka(PROCESSOR),
    Fault::KillBesideFrozenKafka(AGGREGATOR),
    Fault::KillBesideFrozenKafka(SPOOLING),
    Fault::KillBesideKilledClickHouse(AGGREGATOR),
    Fault::KillBesideKilledClickHouse(QUERY),
    Fault::KillBothEngines,
    Fault::FullDisk,
    Fault::KillBesideFullDisk,
];

/// The faults of one round in some order (Fisher and Yates).
fn round_of(order: &mut Chance) -> Vec<Fault> {
    let mut round = ROUND.to_vec();
    for last in (1..round.len()).rev() {
        round.swap(last, order.place(last + 1));
    }
    round
}

fn seconds(chance: &mut Chance, from: u64, to: u64) -> Duration {
    Duration::from_millis(from * 1000 + chance.below((to - from) * 1000))
}

/// Numbers events and knows which are acknowledged.
#[derive(Default)]
struct Load {
    next: AtomicU64,
    acknowledged: AtomicU64,
    /// Those of them that a gateway had on its disk only when it acknowledged them.
    spooled: AtomicU64,
    retries: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    fn body(first: u64) -> String {
        let event = |n: u64| {
            format!(
                "{{\"id\":\"e{n}\",\"type\":\"llm.request\",\"sessionId\":\"s{}-{}\",\"timestamp\":{},\"model\":\"m\",\
                 \"inputTokens\":{},\"outputTokens\":1}}\n",
                n / (SESSIONS * PER_SESSION),
                n % SESSIONS,
                START_MS + n,
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
                        Ok(answer) if answer.status == 202 => {
                            if !again && answer.json()?["durability"] == "spooled" {
                                self.spooled.fetch_add(PER_REQUEST, Ordering::Relaxed);
                            }
                            break;
                        }
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
    outage: Duration,
    engines: Engines,
    deployment: Deployment,
    services: Vec<Process>,
    /// Where the spooling gateway listens, and its folder.
    spooling: (u16, PathBuf),
}

impl Stage {
    async fn suffer(&mut self, fault: Fault, chance: &mut Chance) -> Result<()> {
        match fault {
            Fault::Kill(service) => self.kill(service)?,
            Fault::Terminate(service) => {
                orderly(RUNNING[service], &self.services[service])?;
                self.revive(service)?;
            }
            Fault::Freeze(service) => {
                // The group must have somebody to give the partitions to.
                let beside = self.deployment.launch_beside(service)?;
                self.services[service].signal(Signal::STOP);
                tokio::time::sleep(seconds(chance, 8, 12)).await;
                self.services[service].signal(Signal::CONT);
                tokio::time::sleep(seconds(chance, 1, 3)).await;
                beside.terminate(STOP)?;
            }
            Fault::Double(service) => {
                let beside = self.deployment.launch_beside(service)?;
                tokio::time::sleep(seconds(chance, 2, 6)).await;
                beside.signal(Signal::KILL);
                beside.wait(STOP)?;
            }
            Fault::Join(service) => {
                let beside = self.deployment.launch_beside(service)?;
                tokio::time::sleep(seconds(chance, 4, 8)).await;
                orderly(SERVICES[service], &beside)?;
            }
            Fault::KillKafka => self.engines.kafka.restart().await?,
            Fault::StopKafka => {
                self.engines.kafka.stop(STOP).await;
                self.engines.kafka.restart().await?;
            }
            Fault::FreezeKafka => {
                self.engines.kafka.pause();
                tokio::time::sleep(seconds(chance, 1, 6)).await;
                self.engines.kafka.resume();
            }
            Fault::KillClickHouse => {
                self.engines.clickhouse.kill().await;
                tokio::time::sleep(seconds(chance, 0, 4)).await;
                self.engines.clickhouse.restart().await?;
            }
            Fault::StopClickHouse => {
                self.engines.clickhouse.stop(STOP).await;
                tokio::time::sleep(self.outage).await;
                self.engines.clickhouse.restart().await?;
            }
            Fault::FreezeClickHouse => {
                self.engines.clickhouse.pause();
                tokio::time::sleep(seconds(chance, 1, 6)).await;
                self.engines.clickhouse.resume();
            }
            Fault::SlowClickHouse => {
                let end = Instant::now() + seconds(chance, 4, 8);
                while Instant::now() < end {
                    self.engines.clickhouse.pause();
                    tokio::time::sleep(STANDING).await;
                    self.engines.clickhouse.resume();
                    tokio::time::sleep(WORKING).await;
                }
            }
            Fault::KillBesideFrozenKafka(service) => {
                self.engines.kafka.pause();
                tokio::time::sleep(seconds(chance, 0, 2)).await;
                let killed = self.kill(service);
                tokio::time::sleep(seconds(chance, 1, 4)).await;
                self.engines.kafka.resume();
                killed?;
            }
            Fault::KillBesideKilledClickHouse(service) => {
                self.engines.clickhouse.kill().await;
                self.kill(service)?;
                tokio::time::sleep(seconds(chance, 1, 4)).await;
                self.engines.clickhouse.restart().await?;
            }
            Fault::KillBothEngines => {
                tokio::join!(self.engines.kafka.kill(), self.engines.clickhouse.kill());
                tokio::try_join!(self.engines.kafka.restart(), self.engines.clickhouse.restart())?;
            }
            Fault::FullDisk | Fault::KillBesideFullDisk => {
                self.engines.kafka.pause();
                tokio::time::sleep(seconds(chance, 1, 2)).await;
                let filled = self.fill_disk(Some(DISK_LEFT + chance.below(1 << 14)));
                tokio::time::sleep(seconds(chance, 1, 4)).await;
                let killed = if fault == Fault::KillBesideFullDisk {
                    self.kill(SPOOLING)
                } else {
                    self.fill_disk(None)
                };
                tokio::time::sleep(seconds(chance, 1, 3)).await;
                self.engines.kafka.resume();
                filled.and(killed)?;
            }
        }
        Ok(())
    }

    /// Has the spooling gateway's files take no more than so many bytes each; a write meets that as it meets a full disk:
    /// a part is written, then there is an error.
    fn fill_disk(&self, bytes: Option<u64>) -> Result<()> {
        let limit = Rlimit { current: bytes, maximum: None };
        let gateway = Pid::from_raw(self.services[SPOOLING].pid().cast_signed());
        prlimit(gateway, Resource::Fsize, limit).context("limiting the size of files")?;
        Ok(())
    }

    /// `kill -9`, and a start.
    fn kill(&mut self, service: usize) -> Result<()> {
        self.services[service].signal(Signal::KILL);
        self.services[service].wait(STOP)?;
        self.revive(service)
    }

    /// A service that a fault has ended is started again, as its supervisor would.
    fn revive(&mut self, service: usize) -> Result<()> {
        self.services[service] = match service {
            SPOOLING => self.deployment.launch_spooling(self.spooling.0, &self.spooling.1)?,
            service => self.deployment.launch(service)?,
        };
        Ok(())
    }

    /// Starts again what ended by itself, which a service may do when the log gives it up; it is counted.
    fn revive_the_dead(&mut self) -> Result<u64> {
        let mut dead = 0;
        for (service, name) in RUNNING.iter().enumerate() {
            if let Some(status) = self.services[service].ended()? {
                say(&format!("{name} ended by itself ({status}):\n{}", self.services[service].stderr_tail()));
                self.revive(service)?;
                dead += 1;
            }
        }
        Ok(dead)
    }
}

/// SIGTERM: a service must say that it ended in order.
fn orderly(name: &str, process: &Process) -> Result<()> {
    let status = process.terminate(STOP)?;
    ensure!(status.success(), "{name} ended with {status}:\n{}", process.stderr_tail());
    Ok(())
}

fn from_environment(name: &str) -> Option<f64> {
    std::env::var(name).ok()?.parse().ok()
}

/// INV-1 to INV-6, all at once.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_nothing_is_stored_twice_and_the_ledger_balances_whatever_fails() -> Result<()> {
    let minutes = from_environment("FLEETLOG_FAULT_MINUTES").unwrap_or(4.5);
    let seed = from_environment("FLEETLOG_FAULT_SEED")
        .map_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_secs()), |seed| seed as u64);
    say(&format!("seed {seed}, {minutes} minutes"));
    let folder = tempfile::tempdir()?;
    let engines = Engines::start(folder.path()).await?;
    let deployment = Deployment::write(folder.path(), &engines)?;
    let client = deployment.prepare(&engines).await?;
    let mut services = deployment.start().await?;
    let ([port], spool) = (free_ports()?, folder.path().join("spool"));
    services.push(deployment.launch_spooling(port, &spool)?);
    let spooling = client.sending_to(port);
    let outage = if minutes < SHORT_RUN { SHORT_OUTAGE } else { OUTAGE };
    let mut stage = Stage { outage, engines, deployment, services, spooling: (port, spool) };

    let load = Arc::new(Load::default());
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let gateway = if sender == 0 { &spooling } else { &client };
        senders.spawn(Arc::clone(&load).send(gateway.clone()));
    }
    let (mut chance, mut suffered, mut dead) = (Chance::new(seed), BTreeMap::<Fault, u32>::new(), 0);
    let mut order = Chance::new(!seed);
    let (started, length) = (Instant::now(), Duration::from_secs_f64(minutes * 60.0));
    let mut round = Vec::new();
    while started.elapsed() < length {
        if round.is_empty() {
            round = round_of(&mut order);
        }
        let Some(fault) = round.pop() else { continue };
        say(&format!("{:>5} s {fault:?}", started.elapsed().as_secs()));
        stage.suffer(fault, &mut chance).await.with_context(|| format!("seed {seed}: {fault:?}"))?;
        *suffered.entry(fault).or_default() += 1;
        tokio::time::sleep(seconds(&mut chance, 1, 4)).await;
        dead += stage.revive_the_dead()?;
    }
    load.stop.store(true, Ordering::Relaxed);
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    dead += stage.revive_the_dead()?;
    let sent = load.acknowledged.load(Ordering::Relaxed);
    let spooled = load.spooled.load(Ordering::Relaxed);
    say(&format!(
        "{} faults {suffered:?}; {sent} events acknowledged, {spooled} of them spooled, {} requests retried, \
         {dead} services ended by themselves",
        suffered.values().sum::<u32>(),
        load.retries.load(Ordering::Relaxed),
    ));
    let away = [Fault::StopKafka, Fault::FullDisk, Fault::KillBesideFullDisk];
    ensure!(spooled > 0 || !away.iter().any(|fault| suffered.contains_key(fault)), "nothing was spooled");
    // A service may still give up on what the last fault left it with: it is started again, as its supervisor would.
    let deadline = Instant::now() + SETTLED + length / 10;
    let mut told = Instant::now();
    let truth = loop {
        stage.revive_the_dead()?;
        match all_is_true(&stage, &client, sent).await {
            Err(untruth) if Instant::now() < deadline => {
                if told.elapsed() > TELL {
                    say(&format!("{:>5} s not yet: {untruth:#}", started.elapsed().as_secs()));
                    told = Instant::now();
                }
                tokio::time::sleep(PAUSE).await;
            }
            truth => break truth,
        }
    };
    if truth.is_ok() {
        say(&format!("all of it is true {} s after the start", started.elapsed().as_secs()));
    } else {
        for (name, service) in RUNNING.iter().zip(&stage.services) {
            say(&format!("{name} said last:\n{}", service.stderr_tail()));
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

async fn all_is_true(stage: &Stage, client: &Client, sent: u64) -> Result<()> {
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
    // And whoever asks is told so.
    let (from, to) = (START_MS.to_string(), (START_MS + sent * 2 + 60_000).to_string());
    let usage = client.read("/v1/usage", &[("from", &from), ("to", &to)]).await?;
    ensure!(usage["totals"]["calls"] == sent, "{sent} calls; the query API says {}", usage["totals"]);
    Ok(())
}
