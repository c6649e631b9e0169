//! The command line of Fleetlog: run it, send to it, administer it.

mod check_config;
mod formats;
mod keys;
mod limits;
mod migrate;
mod moment;
mod output;
mod projects;
mod rederive;
mod replay;
mod reprice;
mod send;
mod spools;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use fleetlog_runtime::{EXIT_CONFIG, EXIT_FAILURE, Settings, SettingsError};

/// The event pipeline for fleets of AI agents.
#[derive(Debug, Parser)]
#[command(name = "fleetlog", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 64 the configuration cannot work.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: Kafka, ClickHouse and the four services
    Up(up::Up),
    /// Send files of events, resumably
    Send(send::Send),
    /// Create, list and revoke API keys
    Keys(keys::Keys),
    /// List projects and change their settings
    Projects(projects::Projects),
    /// List what gateways hold in their spools, and forget gateways that never return
    Spools(spools::Spools),
    /// Create or update Kafka's topics and ClickHouse's tables
    Migrate(migrate::Migrate),
    /// Send dead letters through the pipeline again, or compare what is stored with what it would become today
    Replay(replay::Replay),
    /// Recompute everything derived from the events, and compare it with what is stored
    Rederive(rederive::Rederive),
    /// Apply today's price table to calls of the past
    Reprice(reprice::Reprice),
    /// List the formats that are understood
    Formats(formats::Formats),
    /// Check the configuration, or list every key with its default
    CheckConfig(check_config::CheckConfig),
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
struct ConfigArgs {
    /// Configuration file (TOML); every key can also be set by FLEETLOG__SECTION__KEY
    #[arg(long, global = true, env = "FLEETLOG_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key, above file and environment; can be repeated
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Settings, SettingsError> {
        Settings::load(self.config.as_deref(), &self.set)
    }
}

/// Events are many small allocations; the system's allocator is measurably slower at them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&e.into()),
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Up(up) => up.run().await?,
            Command::Send(send) => send.run().await?,
            Command::Keys(keys) => keys.run().await?,
            Command::Projects(projects) => projects.run().await?,
            Command::Spools(spools) => spools.run().await?,
            Command::Migrate(migrate) => migrate.run().await?,
            Command::Replay(replay) => return Box::pin(replay.run()).await,
            Command::Rederive(rederive) => return rederive.run().await,
            Command::Reprice(reprice) => return reprice.run().await,
            Command::Formats(formats) => formats.run()?,
            Command::CheckConfig(check) => check.run()?,
        }
        Ok(ExitCode::SUCCESS)
    });
    done.unwrap_or_else(|e| failed(&e))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    output::complain(&format!("{error:#}"));
    let code = if error.is::<SettingsError>() { EXIT_CONFIG } else { EXIT_FAILURE };
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
