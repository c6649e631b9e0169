//! Starts child processes that die with this process.
//!
//! The kernel sends the parent-death signal when the *thread* that started the child ends, so every engine is
//! started from one thread that never ends before the process does. The signal is asked for by `fleetlog-tether`, a
//! program of this crate that then becomes the engine (no unsafe code needed).

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use tokio::task::spawn_blocking;

use crate::error::{EngineError, IoContext as _, Result};

struct Request {
    command: Command,
    reply: SyncSender<io::Result<Child>>,
}

/// One request at a time: a caller waits for its own start anyway.
static LAUNCHER: LazyLock<io::Result<SyncSender<Request>>> = LazyLock::new(|| {
    let (sender, requests) = sync_channel::<Request>(0);
    thread::Builder::new().name("engine-launcher".to_owned()).spawn(move || {
        // The sender is static, so this loop ends with the process only.
        for Request { mut command, reply } in requests {
            // Nobody waits any more: the child is dropped, unwaited for, and ends with this process.
            reply.send(command.spawn()).ok();
        }
    })?;
    Ok(sender)
});

/// A command that becomes `program` and dies with this process. It has no stdin, piped outputs, and a process group
/// of its own: Ctrl-C must reach the front end only, which then stops the engines in their order.
pub(crate) fn tethered(program: impl AsRef<OsStr>) -> Result<Command> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(sibling("fleetlog-tether", "fleetlog-engines")?);
    command.arg(std::process::id().to_string()).arg(program);
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Starts the command from the thread that lives as long as this process.
pub(crate) fn spawn(command: Command) -> Result<Child> {
    let program = PathBuf::from(command.get_program());
    let gone = || io::Error::other("the engine launcher has ended");
    let launcher = LAUNCHER.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()));
    let launcher = launcher.context("start a thread for", &program)?;
    let (reply, answer) = sync_channel(1);
    launcher.send(Request { command, reply }).map_err(|_| gone()).context("start", &program)?;
    answer.recv().unwrap_or_else(|_| Err(gone())).context("start", &program)
}

/// Runs a step that blocks without holding up the other tasks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(ended) => Err(std::io::Error::other(ended)).context("wait for", Path::new("a blocking step")),
    }
}

/// Finds a program of this workspace beside the running one. Tests run one folder further down.
pub(crate) fn sibling(program: &'static str, package: &'static str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("find", Path::new("the running program"))?;
    let folder = this.parent().unwrap_or(Path::new("/"));
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let found = folder.join(program);
    if found.is_file() {
        return Ok(found);
    }
    Err(EngineError::MissingProgram { program, package, looked_in: folder.to_owned() })
}
