//! The query API as a program.

use std::process::ExitCode;

use fleetlog_query_api::{Config, run};

/// Events are many small allocations; the system's allocator is measurably slower at them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fleetlog_runtime::launch("query-api", Config::from_settings, run)
}
