//! A ClickHouse engine on loopback: the embedded library behind its bridge, or a real server's binary.
//!
//! Which one is decided by [`ClickHouseSource::choose`]: a configured server is used as it is and nothing is
//! started; a `clickhouse` binary on the PATH is preferred over the embedded library, for it can do more.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::error::{EngineError, IoContext as _, Result};
use crate::folder::DataFolder;
use crate::log::EngineLog;
use crate::pins::Engine;
use crate::ports::{ensure_free, free_ports};
use crate::process::{EngineExit, EngineProcess, Stopped};
use crate::{launcher, toolchain};

mod server;

/// Where ClickHouse comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClickHouseSource {
    /// A server that runs already, by its URL; nothing is started.
    Running(String),
    /// The `clickhouse` binary at this path, started as a server.
    Server(PathBuf),
    /// The embedded library; fetch it with [`EngineCache::libchdb`](crate::EngineCache::libchdb).
    Embedded,
}

impl ClickHouseSource {
    /// A configured URL, else a `clickhouse` binary on `path` (the environment's PATH), else the embedded library.
    pub fn choose(configured_url: Option<&str>, path: Option<&OsStr>) -> Self {
        match (configured_url.filter(|url| !url.is_empty()), toolchain::on_path("clickhouse", path)) {
            (Some(url), _) => Self::Running(url.to_owned()),
            (None, Some(binary)) => Self::Server(binary),
            (None, None) => Self::Embedded,
        }
    }
}

/// The program that serves ClickHouse's HTTP interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClickHouseProgram {
    /// `fleetlog-clickhouse` with this library.
    Embedded {
        /// The path of `libchdb.so`.
        library: PathBuf,
        /// The bridge's path; by default it is looked for beside the running program.
        bridge: Option<PathBuf>,
    },
    /// `clickhouse server`.
    Server {
        /// The path of the `clickhouse` binary.
        binary: PathBuf,
    },
}

/// How to run the engine.
#[derive(Debug, Clone)]
pub struct ClickHouseOptions {
    /// What to run.
    pub program: ClickHouseProgram,
    /// The folder for the engine's data, log and settings; created if needed.
    pub data_dir: PathBuf,
    /// The HTTP port on 127.0.0.1; 0 picks a free one.
    pub port: u16,
    /// What to change when the port is taken, for the message.
    pub port_setting: String,
    /// ClickHouse's `users.xml` (users, profiles, row filters); without it there is one user without a password.
    pub users_config: Option<PathBuf>,
    /// The most memory that the engine may use, in bytes.
    pub max_memory: u64,
    /// How much less than others the engine gets of the processors while there is not enough for all: 0 for nothing,
    /// to 19.
    pub niceness: i32,
    /// The database that exists once the engine is ready.
    pub database: String,
    /// How long the engine may take to be ready.
    pub ready_within: Duration,
}

impl ClickHouseOptions {
    /// An engine on a free port with the database `fleetlog` and 2 GB of memory.
    pub fn new(program: ClickHouseProgram, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            program,
            data_dir: data_dir.into(),
            port: 0,
            port_setting: "`--clickhouse-port`".to_owned(),
            users_config: None,
            max_memory: 2_000_000_000,
            niceness: 0,
            database: "fleetlog".to_owned(),
            ready_within: Duration::from_secs(120),
        }
    }
}

/// A running ClickHouse engine. Dropping it kills the engine; its data stays.
pub struct ClickHouseNode {
    options: ClickHouseOptions,
    folder: DataFolder,
    process: EngineProcess,
    version: String,
}

/// What a started engine tells.
struct Serving {
    process: EngineProcess,
    port: u16,
    version: String,
}

/// The bridge's line on stdout once it serves.
#[derive(Deserialize)]
struct BridgeReady {
    http: String,
    version: String,
}

impl ClickHouseNode {
    /// Starts the engine and waits until it answers.
    ///
    /// # Errors
    ///
    /// Any [`EngineError`] about the program, the data folder, the port, or the engine's own start.
    pub async fn start(mut options: ClickHouseOptions) -> Result<Self> {
        let data_dir = options.data_dir.clone();
        let folder = launcher::blocking(move || DataFolder::claim(Engine::ClickHouse, &data_dir)).await?;
        // After the claim: an engine that a killed run left behind would still hold the port before it.
        ensure_free(options.port, "ClickHouse", &options.port_setting)?;
        let serving = launch(&options, &folder).await?;
        // A restart must come back where its clients look for it.
        options.port = serving.port;
        Ok(Self { options, folder, process: serving.process, version: serving.version })
    }

    /// The URL of the HTTP interface.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.options.port)
    }

    /// The version that the engine reports.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The engine's process number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for the engine's end, asked for or not. Safe to cancel.
    pub async fn wait(&self) -> EngineExit {
        self.process.wait().await
    }

    /// Stops the engine: SIGTERM, and SIGKILL when it has not ended within the budget.
    pub async fn stop(&self, budget: Duration) -> Stopped {
        let stopped = self.process.stop(budget).await;
        self.folder.note_ended();
        stopped
    }

    /// Kills the engine with SIGKILL, as a crash would.
    pub async fn kill(&self) {
        self.process.kill().await;
    }

    /// Freezes the engine (SIGSTOP): connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets a frozen engine go on.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Starts the engine again on the same port and data; one that still runs is killed first.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill().await;
        self.process = launch(&self.options, &self.folder).await?.process;
        Ok(())
    }
}

async fn launch(options: &ClickHouseOptions, folder: &DataFolder) -> Result<Serving> {
    match &options.program {
        ClickHouseProgram::Embedded { library, bridge } => {
            launch_bridge(options, folder, library, bridge.as_deref()).await
        }
        ClickHouseProgram::Server { binary } => launch_server(options, folder, binary).await,
    }
}

async fn launch_bridge(
    options: &ClickHouseOptions,
    folder: &DataFolder,
    library: &Path,
    bridge: Option<&Path>,
) -> Result<Serving> {
    let bridge = match bridge {
        Some(path) => path.to_owned(),
        None => launcher::sibling("fleetlog-clickhouse", "fleetlog-clickhouse-embedded")?,
    };
    let data = folder.path().join("data");
    fs::create_dir_all(&data).context("create", &data)?;
    let mut command = launcher::tethered(bridge)?;
    command.current_dir(folder.path());
    command.arg("--library").arg(absolute(library)?).arg("--data").arg(&data);
    command.args(["--listen", &format!("127.0.0.1:{}", options.port), "--database", &options.database]);
    command.args(["--max-memory", &options.max_memory.to_string(), "--exit-with-parent"]);
    if let Some(users_config) = &options.users_config {
        command.arg("--users-config").arg(absolute(users_config)?);
    }
    let log = EngineLog::open(folder.path().join("clickhouse.log"), |line| bridge_ready(line).is_some())?;
    let process = EngineProcess::launch(Engine::ClickHouse, command, folder, log)?;
    process.step_back(options.niceness);
    let line = process.ready(options.ready_within).await?;
    let told = bridge_ready(&line).ok_or_else(|| process.not_ready(options.ready_within))?;
    let port = told.http.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let port = port.ok_or_else(|| process.not_ready(options.ready_within))?;
    Ok(Serving { process, port, version: told.version })
}

async fn launch_server(options: &ClickHouseOptions, folder: &DataFolder, binary: &Path) -> Result<Serving> {
    let port = match options.port {
        0 => free_ports::<1>()?[0],
        port => port,
    };
    let users_config = options.users_config.as_deref().map(absolute).transpose()?;
    let config = server::write_config(options, folder.path(), port, users_config.as_deref())?;
    let mut command = launcher::tethered(binary)?;
    command.current_dir(folder.path()).arg("server").arg("--config-file").arg(&config);
    // The watchdog is a parent in between: the tether would hold it, and not the server.
    command.env("CLICKHOUSE_WATCHDOG_ENABLE", "0");
    let log = EngineLog::open(folder.path().join("clickhouse.log"), |_| false)?;
    let process = EngineProcess::launch(Engine::ClickHouse, command, folder, log)?;
    process.step_back(options.niceness);
    let version = tokio::select! {
        version = server::answering(port, &options.database) => version,
        exit = process.wait() => return Err(process.ended_early(&exit)),
        () = tokio::time::sleep(options.ready_within) => return Err(process.not_ready(options.ready_within)),
    };
    Ok(Serving { process, port, version })
}

fn bridge_ready(line: &str) -> Option<BridgeReady> {
    line.starts_with("{\"ready\":true").then(|| serde_json::from_str(line).ok()).flatten()
}

/// The engine runs in its data folder, so paths relative to ours must be resolved here.
fn absolute(path: &Path) -> Result<PathBuf, EngineError> {
    std::path::absolute(path).context("resolve", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_url_beats_a_binary_and_a_binary_beats_the_library() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("clickhouse");
        fs::write(&binary, "").unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let path = Some(dir.path().as_os_str());
        let url = "http://127.0.0.1:8123";
        assert_eq!(ClickHouseSource::choose(Some(url), path), ClickHouseSource::Running(url.to_owned()));
        assert_eq!(ClickHouseSource::choose(Some(""), path), ClickHouseSource::Server(binary.clone()));
        assert_eq!(ClickHouseSource::choose(None, path), ClickHouseSource::Server(binary));
        assert_eq!(ClickHouseSource::choose(None, Some(OsStr::new("/nowhere"))), ClickHouseSource::Embedded);
    }

    #[test]
    fn only_the_bridges_own_line_means_ready() {
        let told = bridge_ready(r#"{"ready":true,"http":"127.0.0.1:8123","version":"26.7.2.1"}"#).unwrap();
        assert_eq!((told.http.as_str(), told.version.as_str()), ("127.0.0.1:8123", "26.7.2.1"));
        assert!(bridge_ready("{\"level\":\"info\",\"ready\":true}").is_none());
        assert!(bridge_ready("ready").is_none());
    }
}
