//! The services as an operator deploys them: a process each, one configuration file, engines that are merely found.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use fleetlog_engines::{
    ClickHouseNode, ClickHouseOptions, ClickHouseProgram, ClickHouseSource, EngineCache, KafkaNode,
    KafkaOptions, Progress, free_ports,
};
use fleetlog_schemas::ddl::{DatabaseName, users_config_xml};

use crate::client::Client;
use crate::process::{Process, program, run};
use crate::project::create_key;
use crate::wait::{SOON, eventually};

/// The services, in the order in which an event meets them.
pub const SERVICES: [&str; 4] =
    ["fleetlog-ingest-gateway", "fleetlog-processor", "fleetlog-aggregator", "fleetlog-query-api"];

/// Kafka and ClickHouse, started as something that Fleetlog merely finds.
pub struct Engines {
    /// The broker.
    pub kafka: KafkaNode,
    /// The store.
    pub clickhouse: ClickHouseNode,
}

impl Engines {
    /// Starts both in a folder.
    ///
    /// # Errors
    /// When one cannot be had or does not start.
    pub async fn start(folder: &Path) -> Result<Self> {
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
pub struct Deployment {
    config: PathBuf,
    ports: [u16; 4],
}

impl Deployment {
    /// Writes the configuration of services on free ports.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write(folder: &Path, engines: &Engines) -> Result<Self> {
        let ports: [u16; 4] = free_ports()?;
        let config = folder.join("fleetlog.toml");
        let [gateway, _, _, query] = ports;
        let text = format!(
            "[kafka]\nbrokers = \"{}\"\ndelivery_timeout_ms = 2000\nsession_timeout_ms = 6000\n\n[clickhouse]\nurl = \"{}\"\n\n\
             [gateway]\nlisten = \"127.0.0.1:{gateway}\"\ngrpc_listen = \"127.0.0.1:0\"\n\n\
             [query]\nlisten = \"127.0.0.1:{query}\"\n",
            engines.kafka.bootstrap(),
            engines.clickhouse.url(),
        );
        std::fs::write(&config, text)?;
        Ok(Self { config, ports })
    }

    /// Adds keys to the gateway's section, for the next start.
    ///
    /// # Errors
    /// The operating system's.
    pub fn configure_gateway(&self, keys: &str) -> Result<()> {
        let text = std::fs::read_to_string(&self.config)?;
        std::fs::write(&self.config, text.replace("[gateway]\n", &format!("[gateway]\n{keys}\n")))?;
        Ok(())
    }

    /// The text of a service's metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self, service: usize) -> Result<String> {
        Ok(reqwest::get(format!("{}/metrics", self.url(service))).await?.text().await?)
    }

    fn url(&self, service: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[service])
    }

    /// Makes topics, tables and a key, as an operator does before the services first start.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub async fn prepare(&self, engines: &Engines) -> Result<Client> {
        fleetlog(&["migrate"], &self.config)?;
        let key = create_key(&engines.kafka.bootstrap(), "demo", "admin").await?;
        Ok(Client::new(&self.url(0), &self.url(3), &key))
    }

    /// Starts all services and waits until each says that it is ready.
    ///
    /// # Errors
    /// When one ends or does not become ready; its last words are part of the error.
    pub async fn start(&self) -> Result<Vec<Process>> {
        let processes =
            (0..SERVICES.len()).map(|service| self.launch(service)).collect::<Result<Vec<_>>>()?;
        for (service, process) in processes.iter().enumerate() {
            self.ready(service, process).await?;
        }
        Ok(processes)
    }

    /// Starts one service at its address.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn launch(&self, service: usize) -> Result<Process> {
        self.launch_at(service, self.ports[service])
    }

    /// Starts a further instance of a service that has no listener but the one for operation.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn launch_beside(&self, service: usize) -> Result<Process> {
        let [port] = free_ports()?;
        self.launch_at(service, port)
    }

    /// Starts a second gateway at a port, with a spool in a folder of its own.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn launch_spooling(&self, port: u16, spool: &Path) -> Result<Process> {
        let keys = [
            format!("gateway.listen=127.0.0.1:{port}"),
            format!("gateway.spool_path={}", spool.display()),
            "gateway.spool_after_ms=300".to_owned(),
            "gateway.spool_min_free_bytes=0".to_owned(),
        ];
        self.launch_with(0, &keys)
    }

    fn launch_at(&self, service: usize, port: u16) -> Result<Process> {
        // The two without a listener of their own get one for operation; one file serves all, hence the flag.
        let has_none = matches!(SERVICES[service], "fleetlog-processor" | "fleetlog-aggregator");
        let key = has_none.then(|| format!("admin.listen=127.0.0.1:{port}"));
        self.launch_with(service, key.as_slice())
    }

    fn launch_with(&self, service: usize, keys: &[String]) -> Result<Process> {
        Process::start(SERVICES[service], |command| {
            command.arg("--config").arg(&self.config);
            for key in keys {
                command.arg("--set").arg(key);
            }
        })
    }

    /// Waits until a service at its address says that it is ready.
    ///
    /// # Errors
    /// When it ends or does not become ready.
    pub async fn ready(&self, service: usize, process: &Process) -> Result<()> {
        let (url, name) = (format!("{}/readyz", self.url(service)), SERVICES[service]);
        eventually("the service is ready", SOON, || async {
            ensure!(process.ended()?.is_none(), "{name} ended:\n{}", process.stderr_tail());
            let answer = reqwest::get(&url).await?;
            let (status, text) = (answer.status(), answer.text().await?);
            ensure!(status.is_success(), "{name}: {status} {text}");
            Ok(())
        })
        .await
    }
}

fn fleetlog(arguments: &[&str], config: &Path) -> Result<()> {
    let output = run("fleetlog", |command| {
        command.args(arguments).arg("--config").arg(config);
    })?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
