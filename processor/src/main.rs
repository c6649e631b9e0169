//! The processor as a program.

use std::process::ExitCode;

use fleetlog_processor::{Config, run};

/// Events are many small allocations; the system's allocator is measurably slower at them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fleetlog_runtime::launch("fleetlog-processor", Config::from_settings, run)
}
