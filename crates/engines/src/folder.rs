//! An engine's data folder: one owner at a time, and no process left over from an owner that was killed.

use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, IoContext as _, Result};
use crate::pins::Engine;

/// How long a leftover may take to end cleanly, and then to vanish after SIGKILL.
const LEFTOVER_BUDGET: Duration = Duration::from_secs(10);
/// `/proc` has no event for a process that is not our child.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A data folder that only this process uses.
#[derive(Debug)]
pub(crate) struct DataFolder {
    engine: Engine,
    path: PathBuf,
    // Released when this is dropped, and by the kernel when this process dies in any way.
    lock: File,
}

/// The process that an owner started, so that the next owner can recognise it.
#[derive(Debug, Serialize, Deserialize)]
struct Started {
    pid: u32,
    /// Clock ticks since boot, from `/proc/PID/stat`: a number that is given again has another start.
    start_ticks: u64,
}

impl DataFolder {
    /// Takes the folder, creating it if needed, and ends what a killed owner left running on it.
    pub(crate) fn claim(engine: Engine, path: &Path) -> Result<Self> {
        fs::create_dir_all(path).context("create", path)?;
        // The engine gets the path as an argument and runs in a folder of its own.
        let path = fs::canonicalize(path).context("resolve", path)?;
        let lock_path = path.join("fleetlog.lock");
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .context("open", &lock_path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder).context("read", &lock_path)?;
                return Err(EngineError::AlreadyRunning {
                    engine,
                    data_dir: path,
                    holder: holder.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(error).context("lock", &lock_path),
        }
        lock.set_len(0).context("write", &lock_path)?;
        writeln!(lock, "{}", std::process::id()).context("write", &lock_path)?;
        let folder = Self { engine, path, lock };
        folder.end_leftover()?;
        Ok(folder)
    }

    /// The folder, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes the started process for whoever owns the folder next.
    pub(crate) fn note_started(&self, pid: u32) -> Result<()> {
        let path = self.pid_file();
        // Already ended: its exit is reported by whoever waits for it.
        let Some(Stat { start_ticks, .. }) = Stat::of(pid) else { return Ok(()) };
        let started = serde_json::to_vec(&Started { pid, start_ticks }).map_err(std::io::Error::from);
        fs::write(&path, started.context("encode", &path)?).context("write", &path)
    }

    /// Forgets the process that has ended.
    pub(crate) fn note_ended(&self) {
        fs::remove_file(self.pid_file()).ok();
    }

    fn pid_file(&self) -> PathBuf {
        self.path.join("engine.pid")
    }

    /// Ends the process of an earlier owner, cleanly if it will, by force if not.
    fn end_leftover(&self) -> Result<()> {
        let Some(leftover) = self.leftover() else {
            self.note_ended();
            return Ok(());
        };
        tracing::warn!(engine = %self.engine, pid = leftover.pid, "ending what an earlier run left behind");
        for signal in [Signal::TERM, Signal::KILL] {
            if let Some(pid) = i32::try_from(leftover.pid).ok().and_then(Pid::from_raw) {
                // An error means that it has ended meanwhile, or is not ours to end; the wait below tells which.
                kill_process(pid, signal).ok();
            }
            let deadline = Instant::now() + LEFTOVER_BUDGET;
            while Instant::now() < deadline {
                if self.leftover().is_none() {
                    self.note_ended();
                    return Ok(());
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Err(EngineError::LeftoverSurvives { engine: self.engine, pid: leftover.pid })
    }

    /// The noted process, if it still runs and is really the engine of this folder: same start, and the folder in
    /// its command line.
    fn leftover(&self) -> Option<Started> {
        let noted: Started = serde_json::from_slice(&fs::read(self.pid_file()).ok()?).ok()?;
        let stat = Stat::of(noted.pid)?;
        let command_line = fs::read(format!("/proc/{}/cmdline", noted.pid)).ok()?;
        let ours = self.path.as_os_str().as_encoded_bytes();
        // A killed process loses its memory first, command line included, and its ports and files with its last
        // thread: until then it is still in the way.
        let is_ending = command_line.is_empty() && (!stat.is_zombie || stat.threads > 1);
        let is_ours = is_ending || command_line.windows(ours.len()).any(|window| window == ours);
        (is_ours && stat.start_ticks == noted.start_ticks).then_some(noted)
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is just starting has its own copy of the file until it
        // executes its program, and would hold the folder for as long.
        self.lock.unlock().ok();
    }
}

/// What `/proc/PID/stat` says about a process.
struct Stat {
    /// Its first thread has ended; others may still run.
    is_zombie: bool,
    /// Its threads, the first one included even when that has ended.
    threads: u32,
    /// When it began, in clock ticks since boot.
    start_ticks: u64,
}

impl Stat {
    /// `None` when there is no such process.
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses and may hold anything; what follows it begins with
        // field 3, see proc(5).
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            is_zombie: *fields.first()? == "Z",
            threads: fields.get(17)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that lives until its stdin is closed, with `argument` in its command line.
    fn sleeper(argument: &Path) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", "read line", "sh"]).arg(argument).stdin(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn a_second_owner_is_refused_and_told_who_holds_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataFolder::claim(Engine::Kafka, dir.path()).unwrap();
        let message = DataFolder::claim(Engine::Kafka, dir.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        drop(first);
        DataFolder::claim(Engine::Kafka, dir.path()).unwrap();
    }

    #[test]
    fn a_folder_is_free_at_once_though_a_process_being_started_still_has_a_copy_of_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataFolder::claim(Engine::Kafka, dir.path()).unwrap();
        let inherited = first.lock.try_clone().unwrap();
        drop(first);
        DataFolder::claim(Engine::Kafka, dir.path()).unwrap();
        drop(inherited);
    }

    #[test]
    fn a_leftover_of_this_folder_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(dir.path()).unwrap();
        let mut child = sleeper(&path);
        DataFolder::claim(Engine::Kafka, &path).unwrap().note_started(child.id()).unwrap();
        // The zombie must vanish for the claim to see its end, as init would see to for a real leftover.
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        let folder = DataFolder::claim(Engine::Kafka, &path).unwrap();
        assert!(!reaper.join().unwrap().success());
        assert!(!folder.pid_file().exists());
    }

    #[test]
    fn a_stranger_with_the_noted_number_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut stranger = sleeper(Path::new("/elsewhere"));
        DataFolder::claim(Engine::Kafka, dir.path()).unwrap().note_started(stranger.id()).unwrap();
        DataFolder::claim(Engine::Kafka, dir.path()).unwrap();
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
