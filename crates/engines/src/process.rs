//! A running engine as a process: its readiness, its end, and the signals it gets.

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, setpriority_process,
    waitid,
};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::{EngineError, IoContext as _, Result};
use crate::folder::DataFolder;
use crate::launcher;
use crate::log::EngineLog;
use crate::pins::Engine;

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The engine ended by itself after SIGTERM.
    Cleanly,
    /// It did not end within the budget, and was killed.
    Killed,
    /// It had ended before.
    AlreadyEnded,
}

/// An engine's end, as whoever waits for it learns it.
#[derive(Debug, Clone)]
pub struct EngineExit {
    /// The engine.
    pub engine: Engine,
    /// Its exit code or signal.
    pub status: ExitStatus,
    /// The last lines of its log.
    pub log_tail: String,
}

/// An engine's process. Dropping it kills the engine and waits for its end.
pub(crate) struct EngineProcess {
    engine: Engine,
    pid: u32,
    // Names the process itself: a signal can never reach another one that got the same number later.
    pidfd: OwnedFd,
    log: Arc<EngineLog>,
    exit: watch::Receiver<Option<ExitStatus>>,
    waiter: Option<JoinHandle<()>>,
}

impl EngineProcess {
    /// Starts the (tethered) command and notes it in its data folder.
    pub(crate) fn launch(
        engine: Engine,
        command: Command,
        folder: &DataFolder,
        log: EngineLog,
    ) -> Result<Self> {
        let log = Arc::new(log);
        let mut child = launcher::spawn(command)?;
        let pid = child.id();
        let watched = watch_child(engine, &mut child, Arc::clone(&log));
        let (pidfd, readers) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                // Nobody would watch it, so it must not run.
                child.kill().and_then(|()| child.wait()).ok();
                return Err(error);
            }
        };
        let (ended, exit) = watch::channel(None);
        let waiter = thread::spawn(move || {
            let status = child.wait();
            // First the last words, then the news of the death.
            for reader in readers {
                reader.join().ok();
            }
            match status {
                Ok(status) => {
                    ended.send_replace(Some(status));
                }
                // Dropping the sender tells the same: there is nothing left to wait for.
                Err(error) => tracing::warn!(%engine, %error, "engine's exit status was lost"),
            }
        });
        let process = Self { engine, pid, pidfd, log, exit, waiter: Some(waiter) };
        folder.note_started(pid)?;
        Ok(process)
    }

    /// Gives the engine less right to the processors. A priority belongs to a thread, which those that it starts inherit:
    /// to be called before there are any.
    pub(crate) fn step_back(&self, niceness: i32) {
        if niceness != 0
            && let Err(error) = setpriority_process(Pid::from_raw(self.pid.cast_signed()), niceness)
        {
            tracing::warn!(engine = %self.engine, %error, "the engine runs at the usual priority");
        }
    }

    /// Waits until the engine has printed its ready line, and returns that line.
    pub(crate) async fn ready(&self, within: Duration) -> Result<String> {
        let mut ready = self.log.ready();
        let line = ready.wait_for(Option::is_some);
        tokio::select! {
            line = timeout(within, line) => match line {
                Ok(Ok(line)) => Ok(line.clone().unwrap_or_default()),
                Ok(Err(_)) | Err(_) => Err(self.not_ready(within)),
            },
            exit = self.wait() => Err(self.ended_early(&exit)),
        }
    }

    pub(crate) fn not_ready(&self, within: Duration) -> EngineError {
        EngineError::NotReady {
            engine: self.engine,
            seconds: within.as_secs(),
            log: self.log.path().to_owned(),
            tail: self.log.tail(),
        }
    }

    pub(crate) fn ended_early(&self, exit: &EngineExit) -> EngineError {
        EngineError::EndedEarly {
            engine: self.engine,
            status: exit.status.to_string(),
            log: self.log.path().to_owned(),
            tail: exit.log_tail.clone(),
        }
    }

    /// The engine's process number.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the engine's end.
    ///
    /// # Cancellation
    ///
    /// Safe; any number of callers may wait, before or after the end.
    pub(crate) async fn wait(&self) -> EngineExit {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        EngineExit { engine: self.engine, status: status.unwrap_or_default(), log_tail: self.log.tail() }
    }

    fn has_ended(&self) -> bool {
        self.exit.borrow().is_some() || self.exit.has_changed().is_err()
    }

    /// Asks the engine to end, and kills it when it has not within the budget.
    pub(crate) async fn stop(&self, budget: Duration) -> Stopped {
        if self.has_ended() {
            return Stopped::AlreadyEnded;
        }
        self.signal(Signal::TERM);
        // A paused engine could not act on it.
        self.signal(Signal::CONT);
        if timeout(budget, self.wait()).await.is_ok() {
            return Stopped::Cleanly;
        }
        tracing::warn!(engine = %self.engine, budget_s = budget.as_secs(), "engine did not stop in time, killing it");
        self.kill().await;
        Stopped::Killed
    }

    /// Kills the engine (SIGKILL) and waits for its end.
    pub(crate) async fn kill(&self) {
        self.signal(Signal::KILL);
        self.wait().await;
    }

    /// Freezes the engine: it keeps its sockets, and answers nothing. When this returns, every thread of it stands still: the
    /// signal itself returns before.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        let stopped = retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), options));
        if let Err(error) = stopped {
            tracing::warn!(engine = %self.engine, %error, "engine ended instead of standing still");
        }
    }

    /// Lets a paused engine go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Signals the engine; one that has ended gets nothing.
    fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.pidfd, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(engine = %self.engine, %error, ?signal, "engine could not be signalled");
        }
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // Waits some milliseconds, so that the data folder is free when its lock is.
        if let Some(waiter) = self.waiter.take() {
            waiter.join().ok();
        }
    }
}

/// Opens the handle for signals and starts reading the child's output.
fn watch_child(
    engine: Engine,
    child: &mut Child,
    log: Arc<EngineLog>,
) -> Result<(OwnedFd, Vec<JoinHandle<()>>)> {
    let name = engine.to_string();
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).context("watch", name.as_ref())?;
    let mut readers = Vec::with_capacity(2);
    if let Some(stdout) = child.stdout.take() {
        let log = Arc::clone(&log);
        readers.push(thread::spawn(move || log.drain(stdout)));
    }
    if let Some(stderr) = child.stderr.take() {
        readers.push(thread::spawn(move || log.drain(stderr)));
    }
    Ok((pidfd, readers))
}
