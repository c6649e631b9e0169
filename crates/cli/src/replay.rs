//! `fleetlog replay`: what could not be used is tried again, and what is stored is held against what it would become today.

mod dead;
mod letters;
mod raw;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use fleetlog_log::{Tail, TailRead};

use crate::ConfigArgs;

/// Sends dead letters through the pipeline again, or compares what is stored with what it would become today.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Send dead letters through the pipeline again; safe to repeat
    Dead(dead::Dead),
    /// Run a window of the raw topic through today's processor, beside what is stored, and report the differences
    Raw(raw::Raw),
}

impl Replay {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let settings = self.config.load()?;
        match self.action {
            Action::Dead(dead) => dead.run(&settings).await.map(|()| ExitCode::SUCCESS),
            Action::Raw(raw) => raw.run(&settings).await,
        }
    }
}

/// How long the log may be silent before a command gives up.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// What a tail gives next, or an error when it gives nothing.
async fn next(tail: &Tail) -> anyhow::Result<TailRead> {
    let read = tokio::time::timeout(READ_WITHIN, tail.next()).await;
    Ok(read.with_context(|| format!("Kafka gave nothing to read within {READ_WITHIN:?}"))??)
}
