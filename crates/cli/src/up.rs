//! `fleetlog up`: the whole system on this machine.
//!
//! Order matters and is the same in both directions: engines, tables and topics, services; then services, engines.
//! The services are the production ones; only their endpoints point to loopback.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use fleetlog_engines::{
    ClickHouseNode, ClickHouseOptions, ClickHouseProgram, ClickHouseSource, EngineCache, EngineSet,
    KafkaNode, KafkaOptions, Progress, ensure_free, free_ports,
};
use fleetlog_runtime::{Clock, Deps, Health, Settings, Shutdown, TelemetryConfig, init_telemetry};
use fleetlog_schemas::ddl::{DatabaseName, users_config_xml};
use fleetlog_standalone::{Addresses, StandaloneConfig};
use fleetlog_store::StoreConfig;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::ConfigArgs;
use crate::keys::{FIRST_PROJECT, FirstKey, first_key};
use crate::migrate::migrate;
use crate::output::{note, say};

/// How long each engine may take to stop before it is killed.
const ENGINE_STOP_BUDGET: Duration = Duration::from_secs(20);
/// `kafka.session_timeout_ms`, where nothing else is configured.
const SESSION_TIMEOUT_MS: &str = "60000";

/// Runs Kafka, ClickHouse and the four services on loopback.
///
/// Fetches the engines at the first start, keeps all data in one folder, creates a first project and key, prints
/// how to use them, and stops everything in order on Ctrl-C.
#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    config: ConfigArgs,
    /// Folder for all data; it survives restarts
    #[arg(long, default_value = "data", value_name = "FOLDER", conflicts_with = "ephemeral")]
    data: PathBuf,
    /// Port of the ingest gateway [default: 4318]
    #[arg(long)]
    ingest_port: Option<u16>,
    /// Port of the ingest gateway for OTLP over gRPC [default: 4317]
    #[arg(long)]
    grpc_port: Option<u16>,
    /// Port of the query API [default: 8080]
    #[arg(long)]
    query_port: Option<u16>,
    /// Port of ClickHouse's HTTP interface [default: 8123]
    #[arg(long)]
    clickhouse_port: Option<u16>,
    /// Port of Kafka [default: 9092]
    #[arg(long)]
    kafka_port: Option<u16>,
    /// Most memory that ClickHouse may use, in MiB
    #[arg(long, default_value_t = 4096)]
    clickhouse_memory_mb: u64,
    /// Free ports, where none is given, and a temporary data folder, deleted at the end; prints the addresses as one line of JSON
    #[arg(long)]
    ephemeral: bool,
    /// Print the addresses as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Ports of a run.
#[derive(Clone, Copy)]
struct Ports {
    ingest: u16,
    grpc: u16,
    query: u16,
    clickhouse: u16,
    kafka: u16,
}

/// Ingest, gRPC, query, ClickHouse, Kafka.
const USUAL_PORTS: [u16; 5] = [4318, 4317, 8080, 8123, 9092];

/// What a run prints for machines.
#[derive(Serialize)]
struct Running<'a> {
    ingest: &'a str,
    /// Absent when `gateway.grpc_listen` is empty.
    grpc: Option<&'a str>,
    query: &'a str,
    clickhouse: &'a str,
    kafka: &'a str,
    project: &'a str,
    /// Present when this run created it; a key is shown once.
    key: Option<&'a str>,
    data: &'a Path,
    pid: u32,
}

/// The engines of a run, and where they (or the configured ones) are reached.
struct StartedEngines {
    set: EngineSet,
    brokers: String,
    clickhouse_url: String,
}

impl Up {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let settings = self.config.load()?;
        // Before anything is started: a misspelt key must not cost the start of two engines.
        StandaloneConfig::from_settings(&settings)?;
        let telemetry: TelemetryConfig = settings.section(TelemetryConfig::SECTION)?;
        let metrics = init_telemetry(&telemetry).map_err(anyhow::Error::msg)?;
        let shutdown = Shutdown::new();
        let _signals = tokio::task::JoinSet::from_iter([shutdown.clone().watch_signals()]);

        let temporary = if self.ephemeral { Some(tempfile::tempdir()?) } else { None };
        let data =
            std::path::absolute(temporary.as_ref().map_or(self.data.as_path(), |folder| folder.path()))?;
        std::fs::create_dir_all(&data)
            .with_context(|| format!("cannot make the data folder {}", data.display()))?;
        let ports = self.ports()?;

        let engines = tokio::select! {
            started = self.start_engines(&settings, &data, ports) => started?,
            () = shutdown.triggered() => bail!("interrupted while starting"),
        };
        // A name makes this process the same group member after a crash: it gets its partitions back at once.
        let instance = settings.text("kafka.instance_id").unwrap_or_else(|| "standalone".to_owned());
        // So nobody waits for the end of its session, which may be long. It has to be: a member whose session ended because
        // the broker stood still joins again, and is then refused as its own rival.
        let session =
            settings.text("kafka.session_timeout_ms").unwrap_or_else(|| SESSION_TIMEOUT_MS.to_owned());
        let listen = |port: u16| format!("{}:{port}", Ipv4Addr::LOCALHOST);
        let grpc_listen = match settings.text("gateway.grpc_listen") {
            Some(off) if off.trim().is_empty() => off,
            _ => listen(ports.grpc),
        };
        // Engines and services share the disk: ingest sheds before it is full.
        let watched = settings.text("gateway.disk_watch_path").unwrap_or_else(|| data.display().to_string());
        let settings = settings.with([
            ("kafka.brokers", engines.brokers.clone()),
            ("gateway.disk_watch_path", watched),
            ("kafka.instance_id", instance),
            ("kafka.session_timeout_ms", session),
            ("clickhouse.url", engines.clickhouse_url.clone()),
            ("gateway.listen", listen(ports.ingest)),
            ("gateway.grpc_listen", grpc_listen),
            ("query.listen", listen(ports.query)),
        ])?;
        let deps = Deps { clock: Clock::system(), health: Health::new(), metrics };
        let served = self.serve(&settings, &engines, deps, shutdown, &data).await;
        for (engine, stopped) in engines.set.stop(ENGINE_STOP_BUDGET).await {
            tracing::info!(%engine, ?stopped, "engine stopped");
        }
        served
    }

    /// The ports that are given, else free ones for a run of its own, else the usual ones.
    fn ports(&self) -> anyhow::Result<Ports> {
        let free = if self.ephemeral { free_ports()? } else { USUAL_PORTS };
        let given =
            [self.ingest_port, self.grpc_port, self.query_port, self.clickhouse_port, self.kafka_port];
        let mut ports = free.into_iter().zip(given).map(|(other, given)| given.unwrap_or(other));
        let mut next = || ports.next().unwrap_or_default();
        let ports = Ports { ingest: next(), grpc: next(), query: next(), clickhouse: next(), kafka: next() };
        ensure_free(ports.ingest, "the ingest gateway", "`--ingest-port`")?;
        ensure_free(ports.grpc, "OTLP over gRPC", "`--grpc-port`")?;
        ensure_free(ports.query, "the query API", "`--query-port`")?;
        Ok(ports)
    }

    /// Starts the engines that the configuration does not say run elsewhere.
    async fn start_engines(
        &self,
        settings: &Settings,
        data: &Path,
        ports: Ports,
    ) -> anyhow::Result<StartedEngines> {
        let cache = EngineCache::of_user()?;
        let kafka = async {
            if let Some(brokers) = settings.text("kafka.brokers") {
                return Ok::<_, anyhow::Error>((None, brokers));
            }
            let cache = cache.clone();
            let lib = tokio::task::spawn_blocking(move || cache.kafka(&Progress::stderr())).await??;
            let options = KafkaOptions { port: ports.kafka, ..KafkaOptions::new(lib, data.join("kafka")) };
            let node = KafkaNode::start(options).await?;
            let brokers = node.bootstrap();
            Ok((Some(node), brokers))
        };
        let clickhouse = async {
            let path = std::env::var_os("PATH");
            let program =
                match ClickHouseSource::choose(settings.text("clickhouse.url").as_deref(), path.as_deref()) {
                    ClickHouseSource::Running(url) => return Ok::<_, anyhow::Error>((None, url)),
                    ClickHouseSource::Server(binary) => ClickHouseProgram::Server { binary },
                    ClickHouseSource::Embedded => {
                        let cache = cache.clone();
                        let library =
                            tokio::task::spawn_blocking(move || cache.libchdb(&Progress::stderr())).await??;
                        ClickHouseProgram::Embedded { library, bridge: None }
                    }
                };
            let node = self.start_clickhouse(program, settings, data, ports.clickhouse).await?;
            let url = node.url();
            Ok((Some(node), url))
        };
        let ((kafka, brokers), (clickhouse, clickhouse_url)) = tokio::try_join!(kafka, clickhouse)?;
        Ok(StartedEngines { set: EngineSet { kafka, clickhouse }, brokers, clickhouse_url })
    }

    async fn start_clickhouse(
        &self,
        program: ClickHouseProgram,
        settings: &Settings,
        data: &Path,
        port: u16,
    ) -> anyhow::Result<ClickHouseNode> {
        let store: StoreConfig = settings.section(StoreConfig::SECTION)?;
        let database = DatabaseName::parse(&store.database)?;
        // The engine reads its row filters at start and never again, so they are written before (INV-10).
        let users = data.join("clickhouse-users.xml");
        std::fs::write(&users, users_config_xml(&database))
            .with_context(|| format!("cannot write {}", users.display()))?;
        let options = ClickHouseOptions {
            port,
            users_config: Some(users),
            max_memory: self.clickhouse_memory_mb * 1024 * 1024,
            // On one machine a merge must not make senders wait.
            niceness: 5,
            database: store.database,
            ..ClickHouseOptions::new(program, data.join("clickhouse"))
        };
        Ok(ClickHouseNode::start(options).await?)
    }

    /// Prepares tables, topics and the first key, runs the services, and returns when they have ended.
    async fn serve(
        &self,
        settings: &Settings,
        engines: &StartedEngines,
        deps: Deps,
        shutdown: Shutdown,
        data: &Path,
    ) -> anyhow::Result<()> {
        let config = StandaloneConfig::from_settings(settings)?;
        migrate(settings).await?;
        let key = first_key(settings, &deps.clock).await?;
        let (ready, addresses) = oneshot::channel();
        let services = fleetlog_standalone::run(config, deps, shutdown.clone(), ready);
        let watch = async {
            tokio::select! {
                exit = engines.set.wait_any() => {
                    shutdown.trigger();
                    Err(anyhow::anyhow!("{} ended unasked ({}):\n{}", exit.engine, exit.status, exit.log_tail))
                }
                () = shutdown.triggered() => Ok(()),
            }
        };
        let announce = async {
            if let Ok(addresses) = addresses.await {
                self.announce(&addresses, engines, key.as_ref(), data)?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let (served, watched, announced) = tokio::join!(services, watch, announce);
        watched?;
        served?;
        announced
    }

    fn announce(
        &self,
        addresses: &Addresses,
        engines: &StartedEngines,
        first: Option<&FirstKey>,
        data: &Path,
    ) -> anyhow::Result<()> {
        let (ingest, query) = (format!("http://{}", addresses.ingest), format!("http://{}", addresses.query));
        let grpc = addresses.grpc.map(|grpc| format!("http://{grpc}"));
        if self.ephemeral || self.json {
            say(&serde_json::to_string(&Running {
                ingest: &ingest,
                grpc: grpc.as_deref(),
                query: &query,
                clickhouse: &engines.clickhouse_url,
                kafka: &engines.brokers,
                project: first.map_or(FIRST_PROJECT, |key| &key.project_id),
                key: first.map(|key| key.text.expose()),
                data,
                pid: std::process::id(),
            })?);
            return Ok(());
        }
        say(&format!(
            "\nFleetlog is up.\n\n  ingest      {ingest}\n  query API   {query}  (try it: {query}/docs)"
        ));
        if let Some(grpc) = grpc {
            say(&format!("  OTLP/gRPC   {grpc}"));
        }
        say(&format!("  ClickHouse  {}\n  Kafka       {}", engines.clickhouse_url, engines.brokers));
        say(&format!("  data        {}\n", data.display()));
        match first {
            Some(key) => {
                say(&format!(
                    "Project {:?} with an admin key, shown this once:\n\n  export FLEETLOG_KEY={}\n",
                    key.project_id,
                    key.text.expose()
                ));
                say("Send an event and read it back:\n");
            }
            None => say(
                "The first key was shown when it was made; `fleetlog keys create` makes another. With it in FLEETLOG_KEY:\n",
            ),
        }
        say(&format!(
            "  curl {ingest}/v1/events -H \"authorization: Bearer $FLEETLOG_KEY\" \\\n       -d '{{\"type\":\"user.prompt\",\"sessionId\":\"s1\",\"data\":{{\"text\":\"hello\"}}}}'"
        ));
        say(&format!("  curl {query}/v1/events -H \"authorization: Bearer $FLEETLOG_KEY\"\n"));
        note("Ctrl-C stops everything in order; the data stays.");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        up: Up,
    }

    #[test]
    fn a_port_that_is_given_is_used_by_a_run_of_its_own_too() {
        let [ingest, kafka]: [u16; 2] = free_ports().unwrap();
        let (ingest, kafka) = (ingest.to_string(), kafka.to_string());
        let arguments = ["up", "--ephemeral", "--ingest-port", &ingest, "--kafka-port", &kafka];
        let ports = Cli::parse_from(arguments).up.ports().unwrap();
        assert_eq!((ports.ingest.to_string(), ports.kafka.to_string()), (ingest, kafka));
        assert!(!USUAL_PORTS.contains(&ports.query) && !USUAL_PORTS.contains(&ports.grpc));
    }
}
