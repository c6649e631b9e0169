//! A real Apache Kafka node: one process that is broker and controller, on loopback.
//!
//! The settings differ from a cluster's only where one node on a developer's machine must: replication factor 1,
//! small buffers, and a session that does not end. What the pipeline relies on (acks, transactions, retention by its
//! consumers) is Kafka's own.
//!
//! A node must not lose the lead of its partitions while it serves, and nobody could take it over: Kafka 4.3.1 leaves out
//! the markers of a transaction that ends while its partitions have no leader ("Couldn't find leader endpoint … can be
//! skipped"), and tells the producer that all is well. Records without a marker hold up whoever reads committed ones, and
//! the producer's next transaction decides about them as well: aborted, it takes back what was committed, and the other way
//! round. A controller takes the lead away from a broker that was silent for the length of a session, if only because
//! both were frozen, and from one that announces its stop. So here a session has no end in practice, a stop is not
//! announced, and the session of a node that runs no more is ended before the next start (`session.rs`).

mod session;
mod settings;

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{EngineError, IoContext as _, Result};
use crate::folder::DataFolder;
use crate::log::EngineLog;
use crate::pins::Engine;
use crate::ports::{ensure_free, free_ports};
use crate::process::{EngineExit, EngineProcess, Stopped};
use crate::{launcher, toolchain};
use session::end_session;
use settings::server_properties;

/// How often a start is tried again with other ports, when the free ones that were picked are lost to others.
const PORT_ATTEMPTS: usize = 3;

/// How to run the node.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// The folder with Kafka's jars, from [`EngineCache::kafka`](crate::EngineCache::kafka).
    pub lib: PathBuf,
    /// The folder for the node's data, log and settings; created if needed.
    pub data_dir: PathBuf,
    /// The port on 127.0.0.1; 0 picks a free one.
    pub port: u16,
    /// What to change when the port is taken, for the message.
    pub port_setting: String,
    /// The JVM's heap limit.
    pub heap_mb: u32,
    /// How long the node may take to be ready; recovery after a kill is part of it.
    pub ready_within: Duration,
}

impl KafkaOptions {
    /// A node on a free port with a heap that carries full load on a small machine.
    pub fn new(lib: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            lib: lib.into(),
            data_dir: data_dir.into(),
            port: 0,
            port_setting: "`--kafka-port`".to_owned(),
            heap_mb: 512,
            ready_within: Duration::from_secs(120),
        }
    }
}

/// A running Kafka node. Dropping it kills the node; its data stays.
pub struct KafkaNode {
    options: KafkaOptions,
    folder: DataFolder,
    process: EngineProcess,
}

impl KafkaNode {
    /// Starts a node and waits until it serves.
    ///
    /// # Errors
    ///
    /// Any [`EngineError`] about Java, the data folder, the port, or the node's own start.
    pub async fn start(mut options: KafkaOptions) -> Result<Self> {
        let data_dir = options.data_dir.clone();
        let folder = launcher::blocking(move || DataFolder::claim(Engine::Kafka, &data_dir)).await?;
        // After the claim: a node that a killed run left behind would still hold the port before it.
        ensure_free(options.port, "Kafka", &options.port_setting)?;
        let mut attempt = 1;
        loop {
            let [free, controller] = free_ports()?;
            let port = if options.port == 0 { free } else { options.port };
            match launch(&options, &folder, port, controller).await {
                Ok(process) => {
                    // A restart must come back where its clients look for it.
                    options.port = port;
                    return Ok(Self { options, folder, process });
                }
                Err(EngineError::EndedEarly { tail, .. })
                    if lost_a_port(&tail) && attempt < PORT_ATTEMPTS =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The address for `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.options.port)
    }

    /// The node's process number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for the node's end, asked for or not. Safe to cancel.
    pub async fn wait(&self) -> EngineExit {
        self.process.wait().await
    }

    /// Stops the node: SIGTERM, and SIGKILL when it has not ended within the budget.
    pub async fn stop(&self, budget: Duration) -> Stopped {
        let stopped = self.process.stop(budget).await;
        self.folder.note_ended();
        stopped
    }

    /// Kills the node with SIGKILL, as a crash would.
    pub async fn kill(&self) {
        self.process.kill().await;
    }

    /// Freezes the node (SIGSTOP): connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets a frozen node go on.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Starts the node again on the same port and data; one that still runs is killed first.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill().await;
        let [controller] = free_ports()?;
        self.process = launch(&self.options, &self.folder, self.options.port, controller).await?;
        Ok(())
    }
}

/// Formats the folder if it is new, starts the node and waits until it accepts connections.
async fn launch(
    options: &KafkaOptions,
    folder: &DataFolder,
    port: u16,
    controller: u16,
) -> Result<EngineProcess> {
    let java = toolchain::java()?;
    let settings = folder.path().join("server.properties");
    fs::write(&settings, server_properties(port, controller)).context("write", &settings)?;
    reset_temporary(folder.path())?;
    if !folder.path().join("data/meta.properties").exists() {
        let mut command = jvm(&java, options, folder.path())?;
        command.arg("kafka.tools.StorageTool");
        command
            .args(["format", "--ignore-formatted", "--cluster-id", &new_cluster_id(), "--config"])
            .arg(&settings);
        format(command, folder.path()).await?;
    }
    end_session(&java, options, folder, controller).await?;
    let command = jvm(&java, options, folder.path())?;
    let process = serve(command, &settings, options, folder).await?;
    let accepted = timeout(options.ready_within, TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await;
    if !matches!(accepted, Ok(Ok(_))) {
        return Err(process.not_ready(options.ready_within));
    }
    Ok(process)
}

/// Has a Java command run Kafka with these settings, and waits until it says that it serves.
async fn serve(
    mut command: Command,
    settings: &Path,
    options: &KafkaOptions,
    folder: &DataFolder,
) -> Result<EngineProcess> {
    command.arg("kafka.Kafka").arg(settings);
    let log = EngineLog::open(folder.path().join("kafka.log"), |line| line.contains("Kafka Server started"))?;
    let process = EngineProcess::launch(Engine::Kafka, command, folder, log)?;
    process.ready(options.ready_within).await.map_err(explain)?;
    Ok(process)
}

/// A Java command with everything but the main class.
fn jvm(java: &Path, options: &KafkaOptions, folder: &Path) -> Result<Command> {
    let mut command = launcher::tethered(java)?;
    // `log.dirs` and Java's crash files are relative to it, so no path needs escaping.
    command.current_dir(folder);
    command.args(["-Xms64m", &format!("-Xmx{}m", options.heap_mb), "-XX:+UseSerialGC", "-XX:-UsePerfData"]);
    // A broker without memory is neither alive nor dead; the supervisor can only help a dead one.
    command.args(["-XX:+ExitOnOutOfMemoryError", "-Duser.timezone=UTC", "-Djava.awt.headless=true"]);
    // The compression libraries unpack native code there, and leave it behind when the node is killed.
    let mut temporary = OsString::from("-Djava.io.tmpdir=");
    temporary.push(folder.join("tmp"));
    command.arg(temporary);
    for (setting, value) in [
        ("logFile", "System.out"),
        ("showDateTime", "true"),
        ("dateTimeFormat", "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'"),
        ("log.kafka.server.KafkaConfig", "warn"),
        ("log.org.apache.kafka.common.utils.AppInfoParser", "warn"),
    ] {
        command.arg(format!("-Dorg.slf4j.simpleLogger.{setting}={value}"));
    }
    // Java itself expands the star.
    command.arg("-cp").arg(options.lib.join("*"));
    Ok(command)
}

async fn format(command: Command, folder: &Path) -> Result<()> {
    let child = launcher::spawn(command)?;
    let waited = launcher::blocking(move || {
        child.wait_with_output().context("wait for", Path::new("Kafka's format step"))
    });
    let output = waited.await?;
    if output.status.success() {
        return Ok(());
    }
    let printed = [output.stdout, output.stderr].concat();
    let tail = String::from_utf8_lossy(&printed).trim().to_owned();
    let (status, log) = (output.status.to_string(), folder.join("kafka.log"));
    Err(explain(EngineError::EndedEarly { engine: Engine::Kafka, status, log, tail }))
}

fn reset_temporary(folder: &Path) -> Result<()> {
    let temporary = folder.join("tmp");
    if temporary.exists() {
        fs::remove_dir_all(&temporary).context("empty", &temporary)?;
    }
    fs::create_dir(&temporary).context("create", &temporary)
}

/// Recognises the cause that a developer can mend in what Java printed.
fn explain(error: EngineError) -> EngineError {
    let too_old = match &error {
        EngineError::EndedEarly { tail, .. } => toolchain::too_old(tail),
        _ => None,
    };
    too_old.unwrap_or(error)
}

fn lost_a_port(tail: &str) -> bool {
    tail.contains("BindException") || tail.contains("Address already in use")
}

/// 16 random bytes in URL-safe base64, as Kafka writes its ids; one that begins with a dash would read as an option.
fn new_cluster_id() -> String {
    loop {
        let id = BASE64_URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes());
        if !id.starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_what_kafka_reads_as_one() {
        for _ in 0..200 {
            let id = new_cluster_id();
            assert_eq!(id.len(), 22);
            assert!(!id.starts_with('-'), "{id}");
        }
    }

    #[test]
    fn an_old_java_is_named_as_the_cause() {
        let tail = "java.lang.UnsupportedClassVersionError: kafka/Kafka has been compiled by …".to_owned();
        let status = "exit status: 1".to_owned();
        let error =
            explain(EngineError::EndedEarly { engine: Engine::Kafka, status, log: PathBuf::new(), tail });
        assert!(matches!(error, EngineError::ToolTooOld { needed: 17, .. }), "{error}");
    }
}
