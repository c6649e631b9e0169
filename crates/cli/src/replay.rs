//! `fleetlog replay`: what could not be used is tried again, and what is stored is held against what it would become today.

mod dead;
mod letters;
mod raw;
mod report;

use std::process::ExitCode;

use clap::{Args, Subcommand};

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
