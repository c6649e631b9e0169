//! Each service as a process of its own, as in production: its binary, one configuration file, and endpoints.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetlog_engines::{
    ClickHouseNode, ClickHouseOptions, ClickHouseProgram, ClickHouseSource, EngineCache, KafkaNode,
    KafkaOptions, Progress, free_ports,
};
use fleetlog_schemas::ddl::{DatabaseName, users_config_xml};
use fleetlog_tests::{ClickHouse, Client, Process, SOON, create_key, eventually, program, run};

/// How long a service may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(45);

const SERVICES: [&str; 4] =
    ["fleetlog-ingest-gateway", "fleetlog-processor", "fleetlog-aggregator", "fleetlog-query-api"];

/// Kafka and ClickHouse, started as something that Fleetlog merely finds.
struct Engines {
    kafka: KafkaNode,
    clickhouse: ClickHouseNode,
}

impl Engines {
    async fn start(folder: &Path) -> Result<Self> {
        let (lib, library) = tokio::task::spawn_blocking(|| {
            let cache = EngineCache::of_user()?;
            Ok::<_, anyhow::Error>((cache.kafka(&Progress::stderr())?, cache.libchdb(&Progress::stderr())?))
        })
        .await??;
        let users = folder.join("users.xml");
        std::fs::write(&users, users_config_xml(&DatabaseName::parse("fleetlog")?))?;
        let clickhouse = match ClickHouseSource::choose(None, std::env::var_os("PATH").as_deref()) {
            ClickHouseSource::Server(binary) => ClickHouseProgram::Server { binary },
            _ => ClickHouseProgram::Embedded { library, bridge: Some(program("fleetlog-clickhouse")?) },
        };
        let clickhouse = ClickHouseOptions {
            users_config: Some(users),
            ..ClickHouseOptions::new(clickhouse, folder.join("clickhouse"))
        };
        let kafka = KafkaOptions { heap_mb: 256, ..KafkaOptions::new(lib, folder.join("kafka")) };
        let (kafka, clickhouse) =
            tokio::try_join!(KafkaNode::start(kafka), ClickHouseNode::start(clickhouse))?;
        Ok(Self { kafka, clickhouse })
    }
}

/// Where the services listen, and the one file that configures them all.
struct Deployment {
    config: PathBuf,
    ports: [u16; 4],
}

impl Deployment {
    fn write(folder: &Path, engines: &Engines) -> Result<Self> {
        let ports: [u16; 4] = free_ports()?;
        let config = folder.join("fleetlog.toml");
        let [gateway, _, _, query] = ports;
        let text = format!(
            "[kafka]\nbrokers = \"{}\"\ndelivery_timeout_ms = 2000\n\n[clickhouse]\nurl = \"{}\"\n\n\
             [gateway]\nlisten = \"127.0.0.1:{gateway}\"\ngrpc_listen = \"127.0.0.1:0\"\n\n\
             [query]\nlisten = \"127.0.0.1:{query}\"\n",
            engines.kafka.bootstrap(),
            engines.clickhouse.url(),
        );
        std::fs::write(&config, text)?;
        Ok(Self { config, ports })
    }

    fn url(&self, service: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[service])
    }

    /// Makes topics, tables and a key, as an operator does before the services first start.
    async fn prepare(&self, engines: &Engines) -> Result<Client> {
        fleetlog(&["migrate"], &self.config)?;
        let key = create_key(&engines.kafka.bootstrap(), "demo", "admin").await?;
        Ok(Client::new(&self.url(0), &self.url(3), &key))
    }

    /// Starts all services and waits until each says that it is ready.
    async fn start(&self) -> Result<Vec<Process>> {
        let start = |(service, port): (&'static str, u16)| {
            Process::start(service, |command| {
                command.arg("--config").arg(&self.config);
                // The two without a listener of their own get one for operation; one file serves all, hence the flag.
                if matches!(service, "fleetlog-processor" | "fleetlog-aggregator") {
                    command.arg("--set").arg(format!("admin.listen=127.0.0.1:{port}"));
                }
            })
        };
        let processes = SERVICES.into_iter().zip(self.ports).map(start).collect::<Result<Vec<_>>>()?;
        for (index, process) in processes.iter().enumerate() {
            let url = format!("{}/readyz", self.url(index));
            eventually("every service is ready", SOON, || async {
                ensure!(process.ended()?.is_none(), "{} ended:\n{}", SERVICES[index], process.stderr_tail());
                let answer = reqwest::get(&url).await?;
                let (status, text) = (answer.status(), answer.text().await?);
                ensure!(status.is_success(), "{}: {status} {text}", SERVICES[index]);
                Ok(())
            })
            .await?;
        }
        Ok(processes)
    }
}

fn fleetlog(arguments: &[&str], config: &Path) -> Result<()> {
    let output = run("fleetlog", |command| {
        command.args(arguments).arg("--config").arg(config);
    })?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

async fn send(client: &Client, id: &str) -> Result<()> {
    let body = format!(r#"{{"id":"{id}","type":"user.prompt","sessionId":"s1"}}"#);
    client.post_json("/v1/events", body).await?.expect_status(202)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn services_run_as_processes_of_their_own_and_lose_nothing_over_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let engines = Engines::start(folder.path()).await?;
    let deployment = Deployment::write(folder.path(), &engines)?;
    let client = deployment.prepare(&engines).await?;
    let services = deployment.start().await?;
    send(&client, "one").await?;
    eventually("the event has travelled through all of them", SOON, || async {
        let events = client.read("/v1/events", &[("session", "s1")]).await?;
        let events = events["data"].as_array().context("no data")?;
        ensure!(events.len() == 1 && events[0]["id"] == "one", "{events:?}");
        Ok(())
    })
    .await?;

    // Asked to end right after an acknowledgement: each ends cleanly, and what it held is not lost.
    send(&client, "two").await?;
    for (service, process) in SERVICES.into_iter().zip(&services) {
        let status = process.terminate(STOP)?;
        ensure!(status.code() == Some(0), "{service} ended with {status}:\n{}", process.stderr_tail());
    }
    let services = deployment.start().await?;
    stored(&engines, &["one", "two"]).await?;
    // The services first: they drain into the engines.
    drop(services);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_costs_nothing_that_was_acknowledged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut engines = Engines::start(folder.path()).await?;
    let deployment = Deployment::write(folder.path(), &engines)?;
    let client = deployment.prepare(&engines).await?;
    let services = deployment.start().await?;
    send(&client, "before").await?;
    stored(&engines, &["before"]).await?;

    // Without ClickHouse, events are accepted as ever, and questions are answered with "later".
    engines.clickhouse.kill().await;
    send(&client, "without-clickhouse").await?;
    let answer = client.get("/v1/events", &[]).await?.expect_status(503)?;
    ensure!(answer.headers.contains_key("retry-after"), "no Retry-After: {:?}", answer.headers);
    engines.clickhouse.restart().await?;
    stored(&engines, &["before", "without-clickhouse"]).await?;

    // Without Kafka, nothing is acknowledged, and senders are told to try again.
    engines.kafka.pause();
    let event = r#"{"id":"never-acknowledged","type":"log"}"#;
    let refused = client.post_json("/v1/events", event).await;
    engines.kafka.resume();
    let answer = refused?.expect_status(503)?;
    ensure!(answer.headers.contains_key("retry-after"), "no Retry-After: {:?}", answer.headers);
    eventually("events are accepted again", SOON, || send(&client, "after")).await?;
    stored(&engines, &["before", "without-clickhouse", "after"]).await?;
    drop(services);
    Ok(())
}

/// Waits until events with all these ids are rows in ClickHouse.
async fn stored(engines: &Engines, ids: &[&str]) -> Result<()> {
    let clickhouse = ClickHouse::at(&engines.clickhouse.url());
    let sql = "SELECT DISTINCT event_id FROM events";
    eventually("every acknowledged event is stored", SOON, || async {
        let rows: Vec<(String,)> = clickhouse.select(sql, &[]).await?;
        let missing: Vec<_> = ids.iter().filter(|id| !rows.iter().any(|(row,)| row == *id)).collect();
        ensure!(missing.is_empty(), "missing: {missing:?}");
        Ok(())
    })
    .await
}
