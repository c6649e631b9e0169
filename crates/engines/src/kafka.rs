//! A real Apache Kafka node: one process that is broker and controller, on loopback.
//!
//! The settings differ from a cluster's only where one node on a developer's machine must: replication factor 1,
//! small buffers, a short session so that a killed node can come back at once. What the pipeline relies on
//! (acks, transactions, retention by its consumers) is Kafka's own.

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
    let mut command = jvm(&java, options, folder.path())?;
    command.arg("kafka.Kafka").arg(&settings);
    let log = EngineLog::open(folder.path().join("kafka.log"), |line| line.contains("Kafka Server started"))?;
    let process = EngineProcess::launch(Engine::Kafka, command, folder, log)?;
    process.ready(options.ready_within).await.map_err(explain)?;
    let accepted = timeout(options.ready_within, TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await;
    if !matches!(accepted, Ok(Ok(_))) {
        return Err(process.not_ready(options.ready_within));
    }
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

fn server_properties(port: u16, controller: u16) -> String {
    format!(
        "# Written at every start; changes are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=data

# One node: every internal topic has one replica.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1

# After a kill -9 the node is refused until its own old session has ended; 9 s by default.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
# An abandoned transaction holds back its readers until it is looked at; 10 s by default.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000

# Topics are made by the services, with their own limits; these bound them from above.
auto.create.topics.enable=false
message.max.bytes=41943040
replica.fetch.max.bytes=41943040
# Consumers trim what they have consumed; time alone deletes nothing (INV-2).
log.retention.ms=-1
log.retention.bytes=-1
offsets.retention.minutes=525600
log.segment.bytes=268435456

# A small machine.
num.partitions=1
num.network.threads=2
num.io.threads=4
background.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=4194304
group.initial.rebalance.delay.ms=0
"
    )
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
    fn the_settings_name_the_ports_and_no_other_address_than_loopback() {
        let settings = server_properties(9092, 19093);
        assert!(settings.contains("advertised.listeners=PLAINTEXT://127.0.0.1:9092\n"));
        assert!(settings.contains("controller.quorum.voters=1@127.0.0.1:19093\n"));
        assert_eq!(settings.matches("://").count(), settings.matches("://127.0.0.1:").count());
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
