//! Shows what a fetch is doing: bars on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

/// How often a plain line is printed at most; a log should not fill with percentages.
const LINE_EVERY: Duration = Duration::from_secs(5);

type Lines = Arc<Mutex<dyn Write + Send>>;

/// Where progress is shown.
#[derive(Clone)]
pub struct Progress {
    shown: Shown,
}

#[derive(Clone)]
enum Shown {
    Bars(MultiProgress),
    Lines(Lines),
    Nothing,
}

impl Progress {
    /// Shows bars when stderr is a terminal, else plain lines on stderr.
    pub fn stderr() -> Self {
        if io::stderr().is_terminal() {
            Self { shown: Shown::Bars(MultiProgress::new()) }
        } else {
            Self::lines(io::stderr())
        }
    }

    /// Shows plain lines on `writer`.
    pub fn lines(writer: impl Write + Send + 'static) -> Self {
        Self { shown: Shown::Lines(Arc::new(Mutex::new(writer))) }
    }

    /// Shows nothing.
    pub fn quiet() -> Self {
        Self { shown: Shown::Nothing }
    }

    /// Begins a task; with a total it has a bar, without one it only counts.
    pub(crate) fn task(&self, name: &str, total_bytes: Option<u64>) -> Task {
        let display = match &self.shown {
            Shown::Bars(bars) => Display::Bar(bars.add(bar(name, total_bytes))),
            Shown::Lines(writer) => Display::Lines { writer: Arc::clone(writer), last: Instant::now() },
            Shown::Nothing => Display::Nothing,
        };
        let task = Task { name: name.to_owned(), total_bytes, bytes: 0, started: Instant::now(), display };
        if let Display::Lines { writer, .. } = &task.display {
            print(writer, &format!("{name}: started"));
        }
        task
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.shown {
            Shown::Bars(_) => "Progress(bars)",
            Shown::Lines(_) => "Progress(lines)",
            Shown::Nothing => "Progress(nothing)",
        })
    }
}

/// One thing in progress.
pub(crate) struct Task {
    name: String,
    total_bytes: Option<u64>,
    bytes: u64,
    started: Instant,
    display: Display,
}

enum Display {
    Bar(ProgressBar),
    Lines { writer: Lines, last: Instant },
    Nothing,
}

impl Task {
    /// Says how far it is, and in a few words what it is doing.
    pub(crate) fn update(&mut self, bytes: u64, doing: &str) {
        self.bytes = bytes;
        match &mut self.display {
            Display::Bar(bar) => {
                bar.set_position(bytes);
                bar.set_message(doing.to_owned());
            }
            Display::Lines { writer, last } if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                let so_far = match self.total_bytes {
                    Some(total) => format!("{} of {}", HumanBytes(bytes), HumanBytes(total)),
                    None => HumanBytes(bytes).to_string(),
                };
                print(
                    writer,
                    &format!("{}: {so_far}, {doing}, {} s", self.name, self.started.elapsed().as_secs()),
                );
            }
            Display::Lines { .. } | Display::Nothing => {}
        }
    }

    /// Ends the task with its outcome.
    pub(crate) fn done(self, outcome: &str) {
        let line = format!("{}: {outcome} ({:.1} s)", self.name, self.started.elapsed().as_secs_f64());
        match self.display {
            Display::Bar(bar) => {
                bar.set_style(
                    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
                );
                bar.finish_with_message(line);
            }
            Display::Lines { writer, .. } => print(&writer, &line),
            Display::Nothing => {}
        }
    }
}

fn bar(name: &str, total_bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match total_bytes {
        Some(total) => (
            ProgressBar::new(total),
            "{prefix:22} {bar:24} {bytes:>11} of {total_bytes:<11} {elapsed:>4}  {msg}",
        ),
        None => (ProgressBar::new_spinner(), "{prefix:22} {spinner} {bytes:>11} {elapsed:>4}  {msg}"),
    };
    bar.set_prefix(name.to_owned());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn print(writer: &Lines, line: &str) {
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    // Progress that nobody can see is no reason to fail the work it tells of.
    writeln!(writer, "{line}").and_then(|()| writer.flush()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn plain_lines_tell_start_and_end_and_do_not_flood() {
        let out = Shared::default();
        let mut task = Progress::lines(out.clone()).task("Kafka 4.3.1", Some(1000));
        for bytes in 0..1000 {
            task.update(bytes, "downloading");
        }
        task.done("46 files verified");
        let printed = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = printed.lines().collect();
        assert_eq!(lines.len(), 2, "{printed}");
        assert_eq!(lines[0], "Kafka 4.3.1: started");
        assert!(lines[1].starts_with("Kafka 4.3.1: 46 files verified ("), "{printed}");
    }
}
