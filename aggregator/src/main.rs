//! The aggregator as a program.

use std::process::ExitCode;

use fleetlog_aggregator::{Config, run};

fn main() -> ExitCode {
    fleetlog_runtime::launch("fleetlog-aggregator", Config::from_settings, run)
}
