//! Child processes that end with the test, whatever happens to it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Lines of each output stream that are kept.
const LINES_KEPT: usize = 2_000;
/// How long a dropped process may take to end cleanly before it is killed.
const DROP_BUDGET: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// The path of a program of this workspace: beside the running test's folder.
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("finding the running test")?;
    let folder = this.ancestors().nth(2).context("the running test is in no target folder")?;
    let found = folder.join(name);
    ensure!(
        found.is_file(),
        "{} is not built: run `cargo xtask test`, which builds every program before it tests",
        found.display()
    );
    Ok(found)
}

/// The lines of one output stream.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<VecDeque<String>>>);

impl Lines {
    /// Keeps the last lines of a stream, and all of them in a file if there is one.
    fn collect(&self, stream: impl Read + Send + 'static, mut file: Option<File>) -> JoinHandle<()> {
        let lines = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(io::Result::ok) {
                if let Some(file) = &mut file {
                    writeln!(file, "{line}").ok();
                }
                let mut kept = lines.0.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == LINES_KEPT {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        })
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// A running program of this workspace. Dropping it stops it, by force when it does not stop by itself.
pub struct Process {
    name: String,
    child: Mutex<Child>,
    pid: u32,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a program of this workspace, tied to this process: it dies with it, even with `kill -9`.
    ///
    /// # Errors
    /// When the program has not been built or cannot be started.
    pub fn start(name: &str, configure: impl FnOnce(&mut Command)) -> Result<Self> {
        let mut command = Command::new(program("fleetlog-tether")?);
        command.arg(std::process::id().to_string()).arg(program(name)?);
        isolate(&mut command);
        configure(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command).with_context(|| format!("starting {name}"))?;
        let log = log_file(name, child.id())?;
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = [
            child.stdout.take().map(|stream| stdout.collect(stream, None)),
            child.stderr.take().map(|stream| stderr.collect(stream, log)),
        ];
        let readers = readers.into_iter().flatten().collect();
        Ok(Self { name: name.to_owned(), pid: child.id(), child: Mutex::new(child), stdout, stderr, readers })
    }

    /// The process number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The lines on stdout so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.all()
    }

    /// The last lines on stderr, for messages.
    pub fn stderr_tail(&self) -> String {
        let lines = self.stderr.all();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The exit status, if it has ended.
    ///
    /// # Errors
    /// The operating system's.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        Ok(self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()?)
    }

    /// Sends a signal; one to a process that has ended is lost.
    pub fn signal(&self, signal: Signal) {
        // The child is not reaped between the two steps, so the number cannot belong to another process.
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(None), Some(pid)) = (child.try_wait(), pid_of(self.pid)) {
            kill_process(pid, signal).ok();
        }
    }

    /// Waits for its end, and until all that it said has been read.
    ///
    /// # Errors
    /// When it still runs after `within`; its last words are part of the error.
    pub fn wait(&self, within: Duration) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended()?
                && self.readers.iter().all(JoinHandle::is_finished)
            {
                return Ok(status);
            }
            if started.elapsed() > within {
                bail!("{} still runs after {within:?}:\n{}", self.name, self.stderr_tail());
            }
            thread::sleep(PAUSE);
        }
    }

    /// Asks it to end (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn terminate(&self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait(within)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.terminate(DROP_BUDGET).is_err() {
            self.signal(Signal::KILL);
            self.wait(DROP_BUDGET).ok();
        }
    }
}

/// Runs a program of this workspace to its end.
///
/// # Errors
/// When it has not been built or cannot be started.
pub fn run(name: &str, configure: impl FnOnce(&mut Command)) -> Result<Output> {
    let mut command = Command::new(program(name)?);
    isolate(&mut command);
    configure(&mut command);
    command.stdin(Stdio::null()).output().with_context(|| format!("running {name}"))
}

/// Where all that a program says on stderr is kept, when `FLEETLOG_TEST_LOGS` names a folder: after a fault, the last
/// lines often say too little.
fn log_file(name: &str, pid: u32) -> Result<Option<File>> {
    let Some(folder) = std::env::var_os("FLEETLOG_TEST_LOGS").map(PathBuf::from) else { return Ok(None) };
    let path = folder.join(format!("{name}-{pid}.log"));
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    Ok(Some(file))
}

/// Takes away what the developer's own environment would set.
fn isolate(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        // The cache of the engines is meant to be shared.
        if text.starts_with("FLEETLOG_") && text != "FLEETLOG_CACHE" {
            command.env_remove(&name);
        }
    }
}

/// The kernel ends a tethered process with the *thread* that started it, so all are started by one that stays.
static LAUNCHER: LazyLock<SyncSender<(Command, SyncSender<io::Result<Child>>)>> = LazyLock::new(|| {
    let (sender, requests) = sync_channel::<(Command, SyncSender<io::Result<Child>>)>(0);
    thread::spawn(move || {
        for (mut command, reply) in requests {
            reply.send(command.spawn()).ok();
        }
    });
    sender
});

fn spawn(command: Command) -> Result<Child> {
    let (reply, answer) = sync_channel(1);
    LAUNCHER.send((command, reply)).context("the launcher has ended")?;
    Ok(answer.recv().context("the launcher has ended")??)
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// All descendants of a process, with the process itself first.
pub fn descendants(root: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(&process) = tree.get(at) {
        tree.extend(parents.iter().filter(|(_, parent)| *parent == process).map(|(pid, _)| *pid));
        at += 1;
    }
    tree
}

/// The fields of `/proc/PID/stat` after the name, which may itself hold spaces and parentheses: see proc(5).
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// Whether a process runs; one that only waits to be reaped does not. One whose first thread has ended still does
/// while it has others: its ports and files go with the last.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| {
        let ended = fields.first().is_some_and(|state| state == "Z" || state == "X");
        let threads = fields.get(17).and_then(|count| count.parse::<u32>().ok()).unwrap_or_default();
        !ended || threads > 1
    })
}

/// The command line of a process; empty when it does not run.
pub fn command_line(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ")
}

/// Sends a signal to a descendant of a process of ours, as someone else would.
///
/// # Errors
/// When there is no such process.
pub fn signal_process(pid: u32, signal: Signal) -> Result<()> {
    Ok(kill_process(pid_of(pid).context("not a process number")?, signal)?)
}

/// The largest resident set that a process ever had, bytes.
///
/// # Errors
/// When it does not run.
pub fn peak_memory(pid: u32) -> Result<u64> {
    let path = Path::new("/proc").join(pid.to_string()).join("status");
    let status = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = peak.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib * 1024)
}
