//! `fleetlog-clickhouse`: serves ClickHouse's HTTP interface over the embedded engine.

use std::io::Write;

use clap::Parser;
use fleetlog_clickhouse_embedded::{Options, confine, end_with_parent, exit_at_once, run};
use fleetlog_runtime::{Shutdown, TelemetryConfig, init_telemetry};

fn main() {
    let options = Options::parse();
    let code = match serve(options) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error:#}");
            1
        }
    };
    exit_at_once(code);
}

fn serve(options: Options) -> anyhow::Result<()> {
    let metrics = init_telemetry(&TelemetryConfig::default()).map_err(anyhow::Error::msg)?;
    if options.exit_with_parent {
        end_with_parent()?;
    }
    confine(&options)?;
    let threads = usize::from(options.max_concurrent_queries) + 8;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(threads).build()?;
    let served = runtime.block_on(async {
        let shutdown = Shutdown::new();
        let signals = shutdown.clone().watch_signals();
        let serving =
            run(options, shutdown, metrics, |ready| writeln!(std::io::stdout(), "{}", ready.line()));
        tokio::select! {
            served = serving => Ok(served?),
            Err(error) = signals => Err(error.into()),
        }
    });
    // Statements that outlived their budget must not hold the exit up.
    runtime.shutdown_background();
    served
}
