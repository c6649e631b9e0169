//! The ingest gateway as a program.

use std::process::ExitCode;

use fleetlog_ingest_gateway::{Config, run};

/// Events are many small allocations; the system's allocator is measurably slower at them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fleetlog_runtime::launch("ingest-gateway", Config::from_settings, run)
}
