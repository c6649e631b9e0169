//! `fleetlog send`: ships files to a gateway, with a progress bar, and continues where an earlier run stopped; with
//! `--follow` it goes on with them as they grow.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use fleetlog_collector::{
    CheckpointStore, Limits, Options, Outcome, Progress, Target, files_in, follow, ship_file,
};
use fleetlog_runtime::Shutdown;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output::{complain, note, say};

/// Sends files of events.
///
/// Recognised by their bytes: universal events (JSON, arrays, `{"events": […]}`, NDJSON), OTLP logs, traces and
/// metrics in JSON (one body, or one a line), with --format also OTLP in protobuf, and the transcripts, rollouts and
/// logs of coding agents. Anything else is sent line by line and kept as it is. Of a folder, all files within that
/// end in jsonl, ndjson, json or traj are sent.
///
/// Every acknowledged chunk is remembered: the same command continues after Ctrl-C or a crash, and sends only what
/// was added when a file has grown.
#[derive(Debug, Args)]
pub(crate) struct Send {
    /// Files to send, or folders of them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Go on with the files as they grow, are replaced or come to be, until Ctrl-C
    #[arg(long, short = 'F')]
    follow: bool,
    /// The gateway's base URL
    #[arg(long, env = "FLEETLOG_URL", default_value = "http://127.0.0.1:4318")]
    url: String,
    /// An API key with the role ingest or admin
    #[arg(long, env = "FLEETLOG_KEY", hide_env_values = true)]
    key: String,
    /// What the files hold, when their bytes should not decide: events, otlp-logs, otlp-traces, otlp-metrics, raw, or
    /// a format's name such as claude.transcript
    #[arg(long, value_parser = Format::parse)]
    format: Option<Format>,
    /// Most lines in one request
    #[arg(long, default_value_t = Limits::default().lines)]
    chunk_lines: usize,
    /// Longest line, and largest file that cannot be cut, in bytes [default: what the gateway takes by default]
    #[arg(long)]
    max_bytes: Option<usize>,
    /// Send from the beginning, whatever was acknowledged before
    #[arg(long)]
    restart: bool,
    /// Neither continue an earlier run nor remember this one
    #[arg(long)]
    no_checkpoint: bool,
    /// Folder for what was acknowledged [default: fleetlog/send below XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
}

/// What a file holds, as the user says.
#[derive(Clone, Debug)]
struct Format {
    target: Target,
    name: Option<String>,
}

impl Format {
    fn parse(word: &str) -> Result<Self, String> {
        if let Some(target) = Target::parse(word) {
            return Ok(Self { target, name: None });
        }
        let known: Vec<&str> = fleetlog_formats::record_formats().collect();
        if known.contains(&word) {
            return Ok(Self { target: Target::Raw, name: Some(word.to_owned()) });
        }
        Err(format!("known are {}, {}", Target::WORDS.join(", "), known.join(", ")))
    }
}

impl Send {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let options = self.options()?;
        let shutdown = Shutdown::new();
        let signals = tokio::task::JoinSet::from_iter([shutdown.clone().watch_signals()]);
        let done = match self.follow {
            true => self.go_on(&options, &shutdown).await,
            false => self.send(&options, &shutdown).await,
        };
        drop(signals);
        done
    }

    fn options(&self) -> anyhow::Result<Options> {
        let checkpoints =
            if self.no_checkpoint { None } else { Some(CheckpointStore::new(self.state_folder()?)) };
        let mut limits = Limits { lines: self.chunk_lines.max(1), ..Limits::default() };
        if let Some(bytes) = self.max_bytes {
            (limits.line_bytes, limits.body_bytes) = (bytes, bytes);
        }
        Ok(Options {
            url: self.url.clone(),
            key: self.key.clone(),
            target: self.format.as_ref().map(|format| format.target),
            format: self.format.as_ref().and_then(|format| format.name.clone()),
            limits,
            checkpoints,
            restart: self.restart,
        })
    }

    /// Sends every file to its end.
    async fn send(&self, options: &Options, shutdown: &Shutdown) -> anyhow::Result<()> {
        let bars = MultiProgress::new();
        let (mut failed, mut rejected) = (0, 0);
        let mut files = Vec::new();
        for path in &self.files {
            match files_in(path) {
                Ok(found) => files.extend(found),
                Err(e) => {
                    failed += 1;
                    complain(&e.to_string());
                }
            }
        }
        let all = files.len() + failed;
        for file in &files {
            let bar = bars.add(bar_of(file));
            let shipped = ship_file(file, options, shutdown, |progress| show(&bar, progress)).await;
            bar.finish_and_clear();
            match shipped {
                Ok(outcome) => {
                    rejected += outcome.rejected + outcome.refused_before;
                    report(file, &outcome);
                }
                Err(e) => {
                    failed += 1;
                    complain(&format!("{}: {e}", file.display()));
                    if shutdown.is_triggered() {
                        break;
                    }
                }
            }
        }
        if failed > 0 {
            bail!("{failed} of {all} files were not sent completely");
        }
        if rejected > 0 {
            bail!("{rejected} records were refused; the rest is stored");
        }
        Ok(())
    }

    /// Sends what is there and what is added, until it is interrupted; then says what became of each file.
    async fn go_on(&self, options: &Options, shutdown: &Shutdown) -> anyhow::Result<()> {
        note("following; Ctrl-C stops, and the same command goes on from there");
        let mut waiting = false;
        let tell = |path: &Path, progress: Progress| match progress {
            Progress::Started { size, offset } => {
                note(&format!("{}: {} bytes to send", path.display(), size.saturating_sub(offset)));
            }
            Progress::Acknowledged { .. } => waiting = false,
            Progress::Refused { records } => note(&format!("{}: {records} refused", path.display())),
            // Once for each time that it is away.
            Progress::Waiting { .. } if waiting => {}
            Progress::Waiting { .. } => {
                waiting = true;
                note("the gateway is busy or away; trying on");
            }
        };
        let followed = follow(&self.files, options, shutdown, tell).await?;
        let told = followed.iter().filter(|(_, followed)| followed.outcome != Outcome::default());
        told.for_each(|(path, followed)| report(path, &followed.outcome));
        for (path, followed) in &followed {
            if let Some(fault) = &followed.fault {
                complain(&format!("{}: {fault}", path.display()));
            }
        }
        Ok(())
    }

    fn state_folder(&self) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.state {
            return Ok(folder.clone());
        }
        let named = std::env::var_os("XDG_STATE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = named.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")));
        Ok(base.context("no home folder is known; name one with --state")?.join("fleetlog/send"))
    }
}

fn bar_of(file: &Path) -> ProgressBar {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // A malformed template cannot be met at run time: it is fixed, and the fallback shows the bytes all the same.
    let style =
        ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_prefix(name)
}

fn show(bar: &ProgressBar, progress: Progress) {
    match progress {
        Progress::Started { size, offset } => {
            bar.set_length(size);
            bar.set_position(offset);
            bar.reset_eta();
        }
        Progress::Acknowledged { offset } => {
            bar.set_position(offset);
            bar.set_message("");
        }
        // Said with the reasons when the file is through.
        Progress::Refused { .. } => {}
        Progress::Waiting { pause } => {
            let pause = pause.max(Duration::from_millis(100));
            let message = format!("the gateway is busy or away; trying again in {pause:.1?}");
            if bar.is_hidden() {
                note(&message);
            } else {
                bar.set_message(message);
            }
        }
    }
}

fn report(file: &Path, outcome: &Outcome) {
    let name = file.display();
    let before = match outcome.resumed_at {
        0 => String::new(),
        bytes => format!(" ({bytes} bytes were acknowledged by an earlier run)"),
    };
    say(&format!("{name}: {} accepted, {} refused{before}", outcome.accepted, outcome.rejected));
    if outcome.refused_before > 0 {
        note(&format!(
            "  an earlier run had {} refused; --restart sends all of it again",
            outcome.refused_before
        ));
    }
    if !outcome.recognised && outcome.accepted > 0 {
        note("  not recognised by its lines: kept line by line as it is; --format says what a file holds");
    }
    for reason in &outcome.reasons {
        note(&format!("  {reason}"));
    }
    if outcome.rejected > outcome.reasons.len() as u64 {
        note("  and more");
    }
}
