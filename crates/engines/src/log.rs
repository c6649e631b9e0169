//! An engine's output: a file of bounded size, the last lines for error messages, and the line that means "ready".

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::error::{IoContext as _, Result};

/// The file is turned over at this size; one older file is kept, so a run writes at most twice that.
const FILE_BYTES: u64 = 8 << 20;
/// Longer lines are cut into pieces: an engine that prints no newline must not fill the memory.
const LINE_BYTES: u64 = 16 << 10;
/// Lines kept for error messages.
const TAIL_LINES: usize = 25;

/// Where an engine's output goes.
pub(crate) struct EngineLog {
    path: PathBuf,
    state: Mutex<State>,
    is_ready: fn(&str) -> bool,
    ready: watch::Sender<Option<String>>,
}

struct State {
    file: File,
    written: u64,
    tail: VecDeque<String>,
}

impl EngineLog {
    /// Continues the log file at `path`; the first line that satisfies `is_ready` is announced.
    pub(crate) fn open(path: PathBuf, is_ready: fn(&str) -> bool) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&path).context("open", &path)?;
        let written = file.metadata().context("read", &path)?.len();
        let state = Mutex::new(State { file, written, tail: VecDeque::with_capacity(TAIL_LINES) });
        Ok(Self { path, state, is_ready, ready: watch::Sender::new(None) })
    }

    /// The log file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The ready line, once it has been printed.
    pub(crate) fn ready(&self) -> watch::Receiver<Option<String>> {
        self.ready.subscribe()
    }

    /// The last lines, indented for an error message.
    pub(crate) fn tail(&self) -> String {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tail.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    }

    /// Takes in a stream to its end.
    pub(crate) fn drain(&self, stream: impl Read) {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => self.take_line(String::from_utf8_lossy(&line).trim_end()),
            }
        }
    }

    fn take_line(&self, line: &str) {
        if line.is_empty() {
            return;
        }
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.tail.len() == TAIL_LINES {
                state.tail.pop_front();
            }
            state.tail.push_back(line.to_owned());
            // A log that cannot be written (full disk) must not stop the engine by blocking its pipe.
            if let Err(error) = state.write(line, &self.path) {
                tracing::debug!(%error, path = %self.path.display(), "engine log not written");
            }
        }
        if (self.is_ready)(line) && self.ready.borrow().is_none() {
            self.ready.send_replace(Some(line.to_owned()));
        }
    }
}

impl State {
    fn write(&mut self, line: &str, path: &Path) -> std::io::Result<()> {
        if self.written >= FILE_BYTES {
            let mut older = path.as_os_str().to_owned();
            older.push(".1");
            std::fs::rename(path, older)?;
            self.file = File::options().create(true).append(true).open(path)?;
            self.written = 0;
        }
        self.written += line.len() as u64 + 1;
        writeln!(self.file, "{line}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(dir: &tempfile::TempDir) -> EngineLog {
        EngineLog::open(dir.path().join("engine.log"), |line| line.contains("started")).unwrap()
    }

    #[test]
    fn the_first_ready_line_is_announced() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        assert_eq!(*log.ready().borrow(), None);
        log.drain("loading\nKafka Server started\nstarted again\n".as_bytes());
        assert_eq!(log.ready().borrow().as_deref(), Some("Kafka Server started"));
        assert_eq!(std::fs::read_to_string(log.path()).unwrap().lines().count(), 3);
    }

    #[test]
    fn the_tail_keeps_the_last_lines_only() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        let lines: String = (1..=100).map(|n| format!("line {n}\n")).collect();
        log.drain(lines.as_bytes());
        assert_eq!(log.tail().lines().count(), TAIL_LINES);
        assert!(log.tail().ends_with("  line 100"));
    }

    #[test]
    fn the_file_is_bounded_and_so_is_a_line_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        log.drain(std::io::repeat(b'x').take(3 * FILE_BYTES));
        let files: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap()).collect();
        assert_eq!(files.len(), 2);
        assert!(files.iter().all(|meta| meta.len() <= FILE_BYTES + 2 * LINE_BYTES));
        assert!(log.tail().len() < (TAIL_LINES + 1) * LINE_BYTES as usize);
    }
}
