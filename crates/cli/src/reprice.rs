//! `fleetlog reprice`: today's price table, applied to calls of the past.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use fleetlog_aggregator::{Config, Report, Repricings, reprice};
use fleetlog_runtime::SettingsError;

use crate::ConfigArgs;
use crate::output::{note, say};
use crate::rederive::{FAILED, advance, bar, failed, instant, json, text};

/// Applies today's price table to calls of the past.
///
/// The computed costs of the calls, sessions, traces and usage become what the configured table says, where it has a
/// price; reported costs stay, and so do the events. The table is recorded with the calls that it was applied to
/// (`repricings`), so that no later derivation undoes it, and a call that arrives late costs the same. Of several
/// repricings the last counts. Safe beside a running system, whose aggregators must be of this version.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 done; 2 failed (run it again); 64 the configuration cannot work.")]
pub(crate) struct Reprice {
    #[command(flatten)]
    config: ConfigArgs,
    /// Calls at or after this time (RFC 3339, or a date)
    #[arg(long, value_parser = instant, value_name = "TIME")]
    from: i64,
    /// Calls before this time
    #[arg(long, value_parser = instant, value_name = "TIME")]
    to: i64,
    /// Only models of this name, in which * stands for any text
    #[arg(long, default_value = "*", value_name = "GLOB")]
    model: String,
    /// Only this project
    #[arg(long)]
    project: Option<String>,
    /// The result as one JSON object
    #[arg(long)]
    json: bool,
}

impl Reprice {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.reprice().await {
            Ok(report) => {
                say(&if self.json { json(&report, false) } else { text(&report, false) });
                Ok(ExitCode::SUCCESS)
            }
            Err(e) if e.is::<SettingsError>() => Err(e),
            Err(e) => Ok(failed(&e, FAILED)),
        }
    }

    async fn reprice(&self) -> anyhow::Result<Report> {
        if self.to <= self.from {
            anyhow::bail!("--to is not after --from");
        }
        let config = Config::from_settings(&self.config.load()?)?;
        let which = Repricings {
            project_id: self.project.clone().unwrap_or_default(),
            model: self.model.clone(),
            from: self.from,
            until: self.to,
        };
        let versions = config.prices.table()?;
        note(&format!("prices of {}", versions.versions().collect::<Vec<_>>().join(", then ")));
        let bar = bar();
        let report = reprice(&config, &which, |step| advance(&bar, step)).await;
        bar.finish_and_clear();
        report.with_context(|| format!("ClickHouse at {}", config.clickhouse.url))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        reprice: Reprice,
    }

    #[tokio::test]
    async fn what_cannot_be_done_is_a_failure_and_no_difference() {
        let asked = ["reprice", "--from", "2026-03-02", "--to", "2026-03-01"];
        let code = Only::try_parse_from(asked).unwrap().reprice.run().await.unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(FAILED)));
    }
}
