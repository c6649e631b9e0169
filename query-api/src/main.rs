//! The query API as a program.

use std::process::ExitCode;

use fleetlog_query_api::{Config, run};

fn main() -> ExitCode {
    fleetlog_runtime::launch("query-api", Config::from_settings, run)
}
