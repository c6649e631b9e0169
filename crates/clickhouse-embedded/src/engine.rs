//! The one engine of the process: how it starts, how connections are made, how it stops.
//!
//! The engine lives as long as its last connection, so one is kept for the life of the process. Every request gets a
//! connection of its own (69 µs): settings belong to a connection, and a connection runs one statement at a time.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{DataDirectory, Options};
use crate::error::{ServerError, StartError};
use crate::ffi::{Engine, Params, Session};
use crate::metrics;
use crate::request::quote;

/// Cancellations that wait for their turn; beyond it a query ends by its own time limit.
const QUEUED_CANCELLATIONS: usize = 256;

const NO_PARAMS: &Params = &[];

/// The running engine.
pub(crate) struct Host {
    engine: &'static Engine,
    arguments: Vec<String>,
    version: String,
    /// Kept open so that the engine stays; taken at the end.
    keeper: Mutex<Option<Session>>,
    _data: DataDirectory,
}

impl Host {
    /// Takes the data directory, starts the engine on it and makes the default database.
    ///
    /// # Errors
    /// See [`StartError`]; every one says what to do.
    pub(crate) fn start(options: &Options) -> Result<Self, StartError> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")) {
            return Err(StartError::Platform);
        }
        if !options.library.is_file() {
            return Err(StartError::LibraryMissing { path: options.library.clone() });
        }
        let data = DataDirectory::take(options)?;
        let engine = Engine::load(&options.library)?;
        let arguments = vec![
            format!("--config-file={}", data.config_file.display()),
            format!("--path={}", data.engine.display()),
        ];
        let mut keeper =
            engine.connect(&arguments).ok_or_else(|| StartError::Engine { path: options.data.clone() })?;
        let version = keeper.query(b"SELECT version()", "TabSeparated", NO_PARAMS)?.data;
        let version = String::from_utf8_lossy(&version).trim().to_owned();
        let create = format!("CREATE DATABASE IF NOT EXISTS {}", quote(&options.database, '`'));
        keeper.query(create.as_bytes(), "TabSeparated", NO_PARAMS)?;
        tracing::info!(version, library = engine.library_version(), data = %options.data.display(), "engine started");
        Ok(Self { engine, arguments, version, keeper: Mutex::new(Some(keeper)), _data: data })
    }

    /// ClickHouse's version, as `version()` says it.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Opens a connection of its own.
    ///
    /// # Errors
    /// The engine refuses; it is stopping, or out of memory.
    pub(crate) fn connect(&self) -> Result<Session, ServerError> {
        self.engine.connect(&self.arguments).ok_or_else(ServerError::no_answer)
    }

    /// Closes the last connection, which stops the engine; all others must be closed.
    pub(crate) fn stop(&self) {
        drop(self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Cancels queries whose client has gone, one after another, off the request's path.
#[derive(Clone)]
pub(crate) struct Canceller {
    queue: SyncSender<String>,
}

impl Canceller {
    /// Starts the thread that does it; it ends with the last `Canceller`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(host: Arc<Host>) -> std::io::Result<Self> {
        let (queue, marks) = sync_channel(QUEUED_CANCELLATIONS);
        std::thread::Builder::new().name("canceller".to_owned()).spawn(move || cancel_each(&host, &marks))?;
        Ok(Self { queue })
    }

    /// Asks for the query with this mark in its text to be cancelled.
    pub(crate) fn cancel(&self, mark: &str) {
        if self.queue.try_send(mark.to_owned()).is_err() {
            metrics::NOT_CANCELLED.add(1);
            tracing::warn!("too many cancellations at once: this query ends by its time limit");
        }
    }
}

fn cancel_each(host: &Host, marks: &Receiver<String>) {
    for mark in marks {
        let kill = format!(
            "KILL QUERY WHERE position(query, {}) > 0 AND query_kind = 'Select' ASYNC",
            quote(&mark, '\'')
        );
        let killed =
            host.connect().and_then(|mut session| session.query(kill.as_bytes(), "TabSeparated", NO_PARAMS));
        match killed {
            Ok(_) => metrics::CANCELLED.add(1),
            Err(error) => tracing::warn!(%error, "query not cancelled: it ends by its time limit"),
        }
    }
}
