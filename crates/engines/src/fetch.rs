//! Runs Maven and npm and watches them: what they fetched so far, what they last said, whether they still move.
//!
//! Registries, mirrors, proxies and credentials are the tools' own business; this module knows none of them.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{EngineError, IoContext as _, Result};
use crate::pins::{self, Engine};
use crate::progress::Progress;
use crate::toolchain;

/// No line and no new byte for this long means that the download hangs.
const STALLED_AFTER: Duration = Duration::from_secs(300);
/// How often the folder's growth is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The tool's lines that are kept for the error message.
const KEPT_LINES: usize = 15;

/// Fetches Kafka's class path into `work`; returns the folder with the jars.
pub(crate) fn kafka(work: &Path, progress: &Progress) -> Result<PathBuf> {
    toolchain::java_checked()?;
    let maven = toolchain::maven()?;
    let pom = work.join("pom.xml");
    std::fs::write(&pom, pins::KAFKA_POM).context("write", &pom)?;
    let jars = work.join("jars");
    let mut command = Command::new(maven);
    // -C: a download whose checksum is wrong is an error, not a warning.
    command.args(["-B", "-C", "-f"]).arg(&pom);
    command.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
    command.arg(format!("-DoutputDirectory={}", jars.display()));
    let tool = Tool { engine: Engine::Kafka, name: "mvn", title: "Kafka 4.3.1", total_bytes: None };
    let mut downloaded = Downloaded::default();
    tool.run(command, work, progress, |line| {
        downloaded.see(line?);
        Some((downloaded.bytes, format!("{} files downloaded", downloaded.files)))
    })?;
    Ok(jars)
}

/// Fetches the ClickHouse library into `work`; returns the folder with it.
pub(crate) fn chdb(work: &Path, progress: &Progress) -> Result<PathBuf> {
    let npm = toolchain::npm()?;
    // A package.json of our own, or npm would install into the nearest one above.
    let package = work.join("package.json");
    std::fs::write(&package, "{\"private\":true}\n").context("write", &package)?;
    let mut command = Command::new(npm);
    command.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]);
    command.arg(pins::CHDB_PACKAGE);
    let tool = Tool {
        engine: Engine::ClickHouse,
        name: "npm",
        title: "ClickHouse library",
        total_bytes: Some(pins::CHDB_UNPACKED_BYTES),
    };
    tool.run(command, work, progress, |line| match line {
        Some(_) => None,
        None => Some((folder_bytes(&work.join("node_modules")), "downloading and unpacking".to_owned())),
    })?;
    let installed = work.join(pins::CHDB_INSTALLED);
    Ok(installed.parent().unwrap_or(work).to_owned())
}

struct Tool {
    engine: Engine,
    name: &'static str,
    title: &'static str,
    total_bytes: Option<u64>,
}

impl Tool {
    /// Runs the tool in `work` to its end. `observe` is called with each line and, between lines, with `None`; it
    /// returns the bytes so far when it has news.
    fn run(
        &self,
        mut command: Command,
        work: &Path,
        progress: &Progress,
        mut observe: impl FnMut(Option<&str>) -> Option<(u64, String)>,
    ) -> Result<()> {
        let program = PathBuf::from(command.get_program());
        // One pipe for both streams keeps their lines in order.
        let (output, input) = std::io::pipe().context("open a pipe for", &program)?;
        command.current_dir(work).stdin(Stdio::null());
        command.stdout(input.try_clone().context("open a pipe for", &program)?).stderr(input);
        let mut task = progress.task(self.title, self.total_bytes);
        let mut child = command.spawn().context("start", &program)?;
        // The command still holds the pipe's writing end; its output would never end.
        drop(command);
        let lines = read_lines(output);
        let mut kept = VecDeque::with_capacity(KEPT_LINES);
        let (mut moved, mut bytes_seen) = (Instant::now(), 0);
        let status = loop {
            let line = match lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => Some(line),
                Err(RecvTimeoutError::Timeout) => None,
                // The output is closed: the tool is ending.
                Err(RecvTimeoutError::Disconnected) => {
                    break child.wait().context("wait for", Path::new(self.name))?;
                }
            };
            if let Some((bytes, doing)) = observe(line.as_deref()) {
                if bytes != bytes_seen {
                    (moved, bytes_seen) = (Instant::now(), bytes);
                }
                task.update(bytes, &doing);
            }
            if let Some(line) = line {
                moved = Instant::now();
                kept.extend((!line.trim().is_empty()).then_some(line));
                while kept.len() > KEPT_LINES {
                    kept.pop_front();
                }
            } else if moved.elapsed() >= STALLED_AFTER {
                child.kill().and_then(|()| child.wait()).context("end", Path::new(self.name))?;
                return Err(self.stalled(&kept));
            }
        };
        if status.success() {
            task.done(&format!("fetched with {}", self.name));
            return Ok(());
        }
        task.done("failed");
        Err(self.failed(work, status.to_string(), &kept))
    }

    fn failed(&self, work: &Path, status: String, kept: &VecDeque<String>) -> EngineError {
        let output = joined(kept);
        if output.contains("ENOSPC") || output.contains("No space left on device") {
            return EngineError::DiskFull { path: work.to_owned(), needed_mb: 1300, free_mb: 0 };
        }
        EngineError::FetchFailed { engine: self.engine, tool: self.name, status, output }
    }

    fn stalled(&self, kept: &VecDeque<String>) -> EngineError {
        EngineError::FetchStalled {
            engine: self.engine,
            tool: self.name,
            seconds: STALLED_AFTER.as_secs(),
            output: joined(kept),
        }
    }
}

/// What Maven said that it downloaded.
#[derive(Default)]
struct Downloaded {
    files: usize,
    bytes: u64,
}

impl Downloaded {
    /// Counts lines such as `Downloaded from central: …/kafka-clients-4.3.1.jar (9.4 MB at 12 MB/s)`.
    fn see(&mut self, line: &str) {
        if !line.contains("Downloaded from ") {
            return;
        }
        self.files += 1;
        let size = line.rsplit_once('(').and_then(|(_, size)| size.split_once(" at "));
        let parts = size.and_then(|(size, _)| size.split_once(' '));
        let Some((number, unit)) = parts else { return };
        let factor = match unit {
            "B" => 1.0,
            "kB" => 1e3,
            "MB" => 1e6,
            _ => return,
        };
        // A file's size as Maven rounds it: good enough for a display, and never near 2^53.
        self.bytes += number.parse::<f64>().map_or(0, |number| (number * factor) as u64);
    }
}

/// Reads a tool's output line by line; the channel closes when the output ends.
fn read_lines(output: impl Read + Send + 'static) -> Receiver<String> {
    // Full only while the watcher is busy for a moment; the tool then waits on its pipe.
    let (sender, receiver) = sync_channel(64);
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(std::result::Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

fn joined(lines: &VecDeque<String>) -> String {
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// The size of all files below a folder; files that vanish meanwhile count nothing.
fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOL: Tool = Tool { engine: Engine::Kafka, name: "mvn", title: "Kafka", total_bytes: None };

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn mavens_own_lines_are_counted() {
        let mut downloaded = Downloaded::default();
        downloaded.see("[INFO] Downloading from central: somewhere/asm-9.7.jar");
        downloaded.see("[INFO] Downloaded from central: somewhere/asm-9.7.jar (125 kB at 133 kB/s)");
        downloaded
            .see("[INFO] Downloaded from mirror: somewhere/kafka-clients-4.3.1.jar (9.5 MB at 12 MB/s)");
        downloaded.see("[INFO] BUILD SUCCESS");
        assert_eq!((downloaded.files, downloaded.bytes), (2, 9_625_000));
    }

    #[test]
    fn a_failed_tool_is_quoted_with_its_last_lines() {
        let work = tempfile::tempdir().unwrap();
        let script = "for i in $(seq 40); do echo line $i; done; echo 'could not resolve host' >&2; exit 3";
        let error = TOOL.run(shell(script), work.path(), &Progress::quiet(), |_| None).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, EngineError::FetchFailed { .. }), "{message}");
        assert!(
            message.contains("exit status: 3") && message.contains("could not resolve host"),
            "{message}"
        );
        assert!(!message.contains("line 2\n"), "{message}");
    }

    #[test]
    fn a_tool_that_ran_out_of_room_is_reported_as_a_full_disk() {
        let work = tempfile::tempdir().unwrap();
        let script = "echo 'npm error code ENOSPC' >&2; exit 228";
        let error = TOOL.run(shell(script), work.path(), &Progress::quiet(), |_| None).unwrap_err();
        assert!(matches!(error, EngineError::DiskFull { .. }), "{error}");
    }

    #[test]
    fn growth_of_nested_folders_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/c"), [0; 100]).unwrap();
        std::fs::write(dir.path().join("d"), [0; 11]).unwrap();
        assert_eq!(folder_bytes(dir.path()), 111);
        assert_eq!(folder_bytes(&dir.path().join("missing")), 0);
    }
}
