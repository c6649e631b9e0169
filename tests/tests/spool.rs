//! The gateway's spool through everything behind it: killed with it full, killed while it drains, and drained twice; and
//! what the others say while it is full.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleetlog_engines::free_ports;
use fleetlog_tests::{ClickHouse, Client, Deployment, Engines, Process, SOON, eventually, run, say};
use rustix::process::Signal;
use serde_json::{Value, json};

const GATEWAY: usize = 0;
const STOP: Duration = Duration::from_secs(45);
const REQUESTS: u64 = 60;
/// Two events with an id, one with neither id nor time.
const PER_REQUEST: u64 = 3;

fn body(n: u64) -> String {
    let filler = "x".repeat(3_000);
    [
        format!(r#"{{"id":"a{n}","type":"log","sessionId":"s{}","data":{{"text":"{filler}"}}}}"#, n % 7),
        format!(r#"{{"id":"b{n}","type":"user.prompt","timestamp":{}}}"#, 1_790_000_000_000_u64 + n),
        format!(r#"{{"type":"log","name":"nameless-{n}"}}"#),
    ]
    .join("\n")
}

/// A copy of a folder's files.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The value of a metric; 0 before it is first said.
fn value(metrics: &str, name: &str) -> Result<f64> {
    let found = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.map_or(Ok(0.0), |text| text.parse().context("no number"))
}

/// Waits until something is drained, or nothing is left; looks often, because draining does not take long.
async fn drain_begins(deployment: &Deployment) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let metrics = deployment.metrics(GATEWAY).await.unwrap_or_default();
        let left = value(&metrics, "fleetlog_gateway_spool_records")?;
        if !metrics.is_empty()
            && (value(&metrics, "fleetlog_gateway_spool_drained_total")? > 0.0 || left == 0.0)
        {
            say(&format!("killed with {left} records left"));
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the drain does not begin");
        tokio::task::yield_now().await;
    }
}

async fn drained(deployment: &Deployment, gateway: &Process) -> Result<()> {
    deployment.ready(GATEWAY, gateway).await?;
    eventually("the spool is drained", SOON, || async {
        let left = value(&deployment.metrics(GATEWAY).await?, "fleetlog_gateway_spool_records")?;
        ensure!(left == 0.0, "{left} records are left");
        Ok(())
    })
    .await
}

fn kill(process: &Process) -> Result<()> {
    process.signal(Signal::KILL);
    process.wait(STOP)?;
    Ok(())
}

/// INV-1 and INV-5: what was acknowledged from the spool is stored once, whatever is killed and however often it is
/// drained, events with neither id nor time included.
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_outlives_kill_9_and_what_is_drained_twice_is_stored_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (spool, backup) = (folder.path().join("spool"), folder.path().join("backup"));
    let engines = Engines::start(folder.path()).await?;
    let deployment = Deployment::write(folder.path(), &engines)?;
    deployment.configure_gateway(&format!(
        "spool_path = \"{}\"\nspool_after_ms = 300\nspool_min_free_bytes = 0\nspool_drain_max_bytes = 4000",
        spool.display()
    ))?;
    let client = deployment.prepare(&engines).await?;
    let mut services = deployment.start().await?;

    engines.kafka.pause();
    let (mut sent, mut spooled) = (Ok(()), 0);
    for n in 0..REQUESTS {
        let answer = client.post("/v1/events", &[("content-type", "application/x-ndjson")], body(n)).await;
        sent = answer.and_then(|answer| answer.expect_status(202)).and_then(|answer| {
            spooled += u64::from(answer.json()?["durability"] == "spooled");
            Ok(())
        });
        if sent.is_err() {
            break;
        }
    }
    kill(&services[GATEWAY])?;
    copy(&spool, &backup)?;
    engines.kafka.resume();
    sent?;
    // The broker may have taken something while it stopped.
    ensure!(spooled + 5 >= REQUESTS, "{spooled} are spooled");

    // Killed again and again while it drains.
    for _ in 0..3 {
        services[GATEWAY] = deployment.launch(GATEWAY)?;
        drain_begins(&deployment).await?;
        kill(&services[GATEWAY])?;
    }
    services[GATEWAY] = deployment.launch(GATEWAY)?;
    drained(&deployment, &services[GATEWAY]).await?;
    stored_once(&engines, REQUESTS).await?;

    // The whole spool once more, as after a crash before anything of the drain was noted.
    kill(&services[GATEWAY])?;
    std::fs::remove_dir_all(&spool)?;
    copy(&backup, &spool)?;
    services[GATEWAY] = deployment.launch(GATEWAY)?;
    drained(&deployment, &services[GATEWAY]).await?;
    stored_once(&engines, REQUESTS + spooled).await
}

/// Waits until so many raw records are settled, and looks what became of them.
async fn stored_once(engines: &Engines, at_least: u64) -> Result<()> {
    let clickhouse = ClickHouse::at(&engines.clickhouse.url());
    let ledger = "SELECT (SELECT count() FROM settlements), (SELECT sum(records) FROM settlements),
        (SELECT sum(stored + duplicate) FROM piece_settlements), (SELECT sum(stored) FROM piece_settlements)";
    let rows =
        "SELECT count(), uniqExact(event_id), uniqExactIf(name, startsWith(name, 'nameless-')) FROM events";
    eventually("every drained record is settled, and stored once", SOON, || async {
        let [batches, records, accounted, stored]: [u64; 4] = clickhouse.select_one(ledger, &[]).await?;
        let [count, ids, nameless]: [u64; 3] = clickhouse.select_one(rows, &[]).await?;
        let seen = format!(
            "{batches} raw records with {records} events, {accounted} accounted for, {stored} stored; {count} rows, \
             {ids} ids, {nameless} with neither id nor time"
        );
        ensure!(batches >= at_least && records == accounted, "{seen}");
        ensure!(count == REQUESTS * PER_REQUEST && stored == count && nameless == REQUESTS, "{seen}");
        say(&seen);
        Ok(())
    })
    .await
}

/// A time of the store as the query API writes times; later ones are greater as texts, too.
async fn received(clickhouse: &ClickHouse, which: &str) -> Result<String> {
    let sql = format!(
        "SELECT toString(toTimeZone({which}(received_at), 'UTC')) FROM events WHERE startsWith(name, 'spooled-')"
    );
    let [at] = clickhouse.select_one::<[String; 1]>(&sql, &[]).await?;
    Ok(format!("{}Z", at.replace(' ', "T")))
}

/// A gateway with a spool beside the others, and who sends to it.
struct Spooling {
    port: u16,
    folder: PathBuf,
    client: Client,
}

impl Spooling {
    async fn launch(&self, deployment: &Deployment) -> Result<Process> {
        let process = deployment.launch_spooling(self.port, &self.folder)?;
        eventually("the gateway with a spool accepts", SOON, || async {
            ensure!(process.ended()?.is_none(), "it ended:\n{}", process.stderr_tail());
            self.client.post_json("/v1/events", "[]").await?.expect_status(202)?;
            Ok(())
        })
        .await?;
        Ok(process)
    }

    fn id(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.join("gateway-id"))?.trim().to_owned())
    }

    /// Sends an event; whether it was spooled.
    async fn send(&self, name: &str) -> Result<bool> {
        let event = format!(r#"{{"type":"log","name":"{name}"}}"#);
        let answer = self.client.post_json("/v1/events", event).await?.expect_status(202)?;
        Ok(answer.json()?["durability"] == "spooled")
    }

    /// Freezes Kafka, spools five events, and kills the gateway.
    async fn die_full(&self, engines: &Engines, process: Process) -> Result<()> {
        engines.kafka.pause();
        let spooled = async {
            // The broker may still take something while it stops.
            while !self.send("before").await? {}
            for n in 0..5 {
                ensure!(self.send(&format!("spooled-{n}")).await?, "{n} is not spooled");
            }
            Ok(())
        };
        let spooled = spooled.await;
        kill(&process)?;
        engines.kafka.resume();
        spooled
    }
}

/// What is stored is stored through the gateway without a spool: its receipt is redeemed, by a look that was begun later.
async fn looked_again(client: &Client) -> Result<Value> {
    let answer = eventually("Kafka acknowledges", SOON, || async {
        let answer = client.post_json("/v1/events", r#"{"type":"log","name":"direct"}"#).await?;
        answer.expect_status(202)?.json()
    });
    let answer = answer.await?;
    let wait =
        [("wait_for", answer["receipt"].as_str().context("no receipt")?), ("wait_timeout_ms", "60000")];
    eventually("the receipt is redeemed", SOON, || client.read("/v1/completeness", &wait)).await
}

/// What the operator's command says, and whether it did what it was asked for.
fn operator(folder: &Path, arguments: &[&str]) -> Result<(bool, String)> {
    let output = run("fleetlog", |command| {
        command.arg("spools").args(arguments).arg("--config").arg(folder.join("fleetlog.toml"));
    })?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// INV-1 and INV-6: what waits in a spool is in flight, also when its gateway is dead.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_to_be_complete_beyond_what_a_killed_gateway_holds() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let engines = Engines::start(folder.path()).await?;
    let deployment = Deployment::write(folder.path(), &engines)?;
    let client = deployment.prepare(&engines).await?;
    let _services = deployment.start().await?;
    let clickhouse = ClickHouse::at(&engines.clickhouse.url());
    let [port] = free_ports()?;
    let spooling = Spooling { port, folder: folder.path().join("spool"), client: client.sending_to(port) };

    // With nothing to do it holds nothing back.
    let process = spooling.launch(&deployment).await?;
    let id = spooling.id()?;
    let answer = client.settled(&clickhouse, &[]).await?;
    ensure!(answer["spools"][0]["gateway"] == id.as_str(), "{}", answer["spools"]);
    ensure!(answer["spools"][0]["records"] == 0, "{}", answer["spools"]);
    let (forgotten, said) = operator(folder.path(), &["forget", &id])?;
    ensure!(!forgotten && said.contains("runs"), "{said}");

    // Killed with it full: everything else goes on, and `complete_through` does not.
    spooling.die_full(&engines, process).await?;
    looked_again(&client).await?;
    let held = looked_again(&client).await?;
    say(&format!("held at {}, {}", held["complete_through"], held["spools"]));
    let process = spooling.launch(&deployment).await?;
    eventually("the spool is drained", SOON, || async {
        let sql = "SELECT uniqExact(name) FROM events WHERE startsWith(name, 'spooled-')";
        let [stored] = clickhouse.select_one::<[u64; 1]>(sql, &[]).await?;
        ensure!(stored == 5, "{stored} of 5 are stored");
        Ok(())
    })
    .await?;
    let (first, last) = (received(&clickhouse, "min").await?, received(&clickhouse, "max").await?);
    for through in ["complete_through", "settled_through"] {
        let through = held[through].as_str().context("nothing is complete")?;
        ensure!(through <= first.as_str(), "{through} is said, and {first} was spooled");
    }
    let answer = client.settled(&clickhouse, &[]).await?;
    ensure!(answer["complete_through"].as_str() > Some(last.as_str()), "{answer}");

    // At an orderly end it is forgotten, and nothing waits for it.
    process.signal(Signal::TERM);
    process.wait(STOP)?;
    let answer = client.settled(&clickhouse, &[]).await?;
    ensure!(answer["spools"] == json!([]), "{}", answer["spools"]);

    // One that never returns is forgotten by who knows that.
    let process = spooling.launch(&deployment).await?;
    spooling.die_full(&engines, process).await?;
    let held = looked_again(&client).await?;
    ensure!(held["spools"][0]["gateway"] == id.as_str(), "{}", held["spools"]);
    let (listed, said) = operator(folder.path(), &["list"])?;
    ensure!(listed && said.contains(&id), "{said}");
    let (forgotten, said) = operator(folder.path(), &["forget", &id])?;
    ensure!(forgotten, "{said}");
    client.settled(&clickhouse, &[]).await?;
    Ok(())
}
