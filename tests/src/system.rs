//! A running `fleetlog up`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::clickhouse::ClickHouse;
use crate::client::Client;
use crate::process::Process;
use crate::wait::eventually;

/// How long a start may take. Engines that are not yet fetched are part of it.
const START: Duration = Duration::from_secs(300);

/// How long the output of a process that has ended is waited for.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What `fleetlog up` prints for machines.
#[derive(Clone, Debug, Deserialize)]
pub struct Addresses {
    /// Base URL of the gateway.
    pub ingest: String,
    /// Base URL of the gateway for OTLP over gRPC.
    pub grpc: String,
    /// Base URL of the query API.
    pub query: String,
    /// Base URL of ClickHouse's HTTP interface.
    pub clickhouse: String,
    /// Kafka's bootstrap server.
    pub kafka: String,
    /// The first project.
    pub project: String,
    /// The first key, of role admin; only where this start created it.
    pub key: Option<String>,
    /// The data folder.
    pub data: PathBuf,
    /// The process number.
    pub pid: u32,
}

/// The ports of a run that is to come back at the same addresses.
#[derive(Clone, Copy, Debug)]
pub struct Ports([u16; 5]);

impl Ports {
    /// Five ports that are free now.
    ///
    /// # Errors
    /// When the operating system has none.
    pub fn free() -> Result<Self> {
        Ok(Self(fleetlog_engines::free_ports()?))
    }
}

/// A running `fleetlog up`. Dropping it stops everything it started.
pub struct System {
    process: Process,
    addresses: Addresses,
    clickhouse: ClickHouse,
}

impl System {
    /// Starts a system on free ports with a temporary data folder.
    ///
    /// # Errors
    /// When it does not come up; its last words are part of the error.
    pub async fn ephemeral() -> Result<Self> {
        Self::up(&["--ephemeral".to_owned()]).await
    }

    /// Starts a system on this data folder and these ports.
    ///
    /// # Errors
    /// As [`ephemeral`](Self::ephemeral).
    pub async fn on(data: &Path, Ports([ingest, grpc, query, clickhouse, kafka]): Ports) -> Result<Self> {
        let mut arguments = vec!["--json".to_owned(), "--data".to_owned(), data.display().to_string()];
        let ports = [
            ("ingest", ingest),
            ("grpc", grpc),
            ("query", query),
            ("clickhouse", clickhouse),
            ("kafka", kafka),
        ];
        arguments.extend(ports.iter().flat_map(|(name, port)| [format!("--{name}-port"), port.to_string()]));
        Self::up(&arguments).await
    }

    async fn up(arguments: &[String]) -> Result<Self> {
        let process = Process::start("fleetlog", |command| {
            command.arg("up").args(arguments);
        })?;
        let ready = eventually("`fleetlog up` says where it listens", START, || async {
            if let Some(status) = process.ended()? {
                return Ok(Err(status));
            }
            let line = process.stdout().into_iter().find(|line| line.starts_with('{'));
            Ok(Ok(line.with_context(|| format!("not up yet:\n{}", process.stderr_tail()))?))
        });
        let line = match ready.await? {
            Ok(line) => line,
            Err(status) => {
                // Its last words may still be on their way; without them the status must do.
                process.wait(LAST_WORDS).ok();
                bail!("`fleetlog up` ended while starting ({status}):\n{}", process.stderr_tail())
            }
        };
        let addresses: Addresses = serde_json::from_str(&line).with_context(|| line.clone())?;
        ensure!(addresses.pid == process.pid(), "it says it is {}, it is {}", addresses.pid, process.pid());
        Ok(Self { process, clickhouse: ClickHouse::at(&addresses.clickhouse), addresses })
    }

    /// Where everything is.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The front process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its ClickHouse.
    pub fn clickhouse(&self) -> &ClickHouse {
        &self.clickhouse
    }

    /// The holder of a key.
    pub fn client(&self, key: &str) -> Client {
        Client::new(&self.addresses.ingest, &self.addresses.query, key)
    }
}
