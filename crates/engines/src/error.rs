//! What can go wrong with the engines, each with a message that says what to do about it.

use std::path::{Path, PathBuf};

use fleetlog_runtime::ErrorClass;

use crate::pins::Engine;

/// The result of everything in this crate.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// Why an engine could not be fetched, started or stopped.
///
/// Shown to whoever typed the command, so every message names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The pinned ClickHouse library exists for one platform only.
    #[error(
        "the embedded ClickHouse engine exists for glibc Linux on x86-64 only, this is {found}; \
         set `clickhouse.url` to a ClickHouse server, or put a `clickhouse` binary on the PATH"
    )]
    UnsupportedPlatform {
        /// Operating system, architecture and C library of this build.
        found: String,
    },

    /// A tool that the engines need is not installed.
    #[error("`{tool}` was not found on the PATH; it is needed {purpose}. {remedy}")]
    MissingTool {
        /// The program's name.
        tool: &'static str,
        /// What it is needed for.
        purpose: &'static str,
        /// How to get it.
        remedy: &'static str,
    },

    /// A tool is installed, but too old.
    #[error("`{tool}` is version {found}, but {needed} or later is needed. {remedy}")]
    ToolTooOld {
        /// The program's name.
        tool: &'static str,
        /// The version it reports.
        found: String,
        /// The first version that works.
        needed: u32,
        /// How to get it.
        remedy: &'static str,
    },

    /// Maven or npm ended with an error.
    #[error(
        "fetching {engine} with `{tool}` failed ({status}). If this machine reaches its packages through a proxy \
         or a mirror, {tool}'s own settings must name it; the command can simply be run again. \
         The tool's last lines:\n{output}"
    )]
    FetchFailed {
        /// The engine that was fetched.
        engine: Engine,
        /// `mvn` or `npm`.
        tool: &'static str,
        /// How the tool ended.
        status: String,
        /// The tool's last lines.
        output: String,
    },

    /// Maven or npm made no progress.
    #[error(
        "fetching {engine} with `{tool}` stood still for {seconds} s and was given up; check the network and run \
         the command again. The tool's last lines:\n{output}"
    )]
    FetchStalled {
        /// The engine that was fetched.
        engine: Engine,
        /// `mvn` or `npm`.
        tool: &'static str,
        /// How long nothing happened.
        seconds: u64,
        /// The tool's last lines.
        output: String,
    },

    /// A file is not the pinned one.
    #[error(
        "{} is not the pinned file (SHA-256 {found}, expected {expected}). It is not used. \
         Delete the folder and run the command again; if it happens again, do not trust the source", path.display()
    )]
    HashMismatch {
        /// The file.
        path: PathBuf,
        /// The pinned SHA-256, in hex.
        expected: String,
        /// The SHA-256 that was found, or what else is wrong with the file.
        found: String,
    },

    /// There is no room for the engine.
    #[error(
        "not enough room in {}: {needed_mb} MB are needed, {free_mb} MB are free. Make room, or set \
         `FLEETLOG_CACHE` to a folder on another disk", path.display()
    )]
    DiskFull {
        /// The folder that would be written to.
        path: PathBuf,
        /// What the fetch needs.
        needed_mb: u64,
        /// What the file system has.
        free_mb: u64,
    },

    /// No folder for the cache is known.
    #[error("no folder for the engines is known; set `FLEETLOG_CACHE`, `XDG_CACHE_HOME` or `HOME`")]
    NoCacheFolder,

    /// A program of this workspace is not beside the running one.
    #[error(
        "`{program}` was not found in {}; build it with `cargo build -p {package}` (`cargo xtask up` does)",
        looked_in.display()
    )]
    MissingProgram {
        /// The program's file name.
        program: &'static str,
        /// The package that builds it.
        package: &'static str,
        /// The folder it should be in.
        looked_in: PathBuf,
    },

    /// Another process runs this engine on the same data.
    #[error(
        "{engine} already runs on {}{}; stop that run first, or choose another data folder (`--data`)",
        data_dir.display(), holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    AlreadyRunning {
        /// The engine.
        engine: Engine,
        /// The data folder both want.
        data_dir: PathBuf,
        /// The process that holds the folder, where it is known.
        holder: Option<u32>,
    },

    /// An engine that an earlier, killed run left behind does not end.
    #[error("process {pid}, left behind by an earlier run of {engine}, does not end; end it and try again")]
    LeftoverSurvives {
        /// The engine.
        engine: Engine,
        /// The process that does not end.
        pid: u32,
    },

    /// The port is taken.
    #[error(
        "port {port}, wanted for {wanted_for}, is in use by another program; choose another with {setting}"
    )]
    PortInUse {
        /// What wanted the port.
        wanted_for: String,
        /// The port.
        port: u16,
        /// The setting that changes it.
        setting: String,
    },

    /// The engine ended before it was ready.
    #[error("{engine} ended before it was ready ({status}); its log is {}. The last lines:\n{tail}", log.display())]
    EndedEarly {
        /// The engine.
        engine: Engine,
        /// How it ended.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },

    /// The engine did not become ready in time.
    #[error("{engine} was not ready after {seconds} s; its log is {}. The last lines:\n{tail}", log.display())]
    NotReady {
        /// The engine.
        engine: Engine,
        /// How long was waited.
        seconds: u64,
        /// Its log file.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },

    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
}

impl EngineError {
    /// The class that decides how the error is logged and answered.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::AlreadyRunning { .. } | Self::LeftoverSurvives { .. } | Self::PortInUse { .. } => {
                ErrorClass::Conflict
            }
            Self::HashMismatch { .. } => ErrorClass::Corrupt,
            Self::UnsupportedPlatform { .. }
            | Self::MissingTool { .. }
            | Self::ToolTooOld { .. }
            | Self::FetchFailed { .. }
            | Self::FetchStalled { .. }
            | Self::DiskFull { .. }
            | Self::NoCacheFolder
            | Self::MissingProgram { .. }
            | Self::EndedEarly { .. }
            | Self::NotReady { .. }
            | Self::Io { .. } => ErrorClass::Unavailable,
        }
    }
}

/// Names what was tried on which path when the operating system refuses it.
pub(crate) trait IoContext<T> {
    /// Wraps the error.
    fn context(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn context(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|error| EngineError::Io { action, path: path.to_owned(), source: error.into() })
    }
}
