//! The aggregator as a program.

use std::process::ExitCode;

use fleetlog_aggregator::{Config, run};

/// Events are many small allocations; the system's allocator is measurably slower at them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fleetlog_runtime::launch("fleetlog-aggregator", Config::from_settings, run)
}
