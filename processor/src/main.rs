//! The processor as a program.

use std::process::ExitCode;

use fleetlog_processor::{Config, run};

fn main() -> ExitCode {
    fleetlog_runtime::launch("fleetlog-processor", Config::from_settings, run)
}
