//! The ingest gateway as a program.

use std::process::ExitCode;

use fleetlog_ingest_gateway::{Config, run};

fn main() -> ExitCode {
    fleetlog_runtime::launch("ingest-gateway", Config::from_settings, run)
}
