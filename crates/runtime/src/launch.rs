//! From a service's library to a program.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::{Clock, Deps, Health, Settings, SettingsError, Shutdown, TelemetryConfig, init_telemetry};

/// Exit code for a configuration that cannot work (`EX_USAGE` of sysexits).
pub const EXIT_CONFIG: u8 = 64;
/// Exit code for a service that failed.
pub const EXIT_FAILURE: u8 = 1;

/// What a blocking call that nobody waits for any more is given to end.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// The arguments every service takes.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct ServiceArgs {
    /// Configuration file (TOML); every key can also be set by FLEETLOG__SECTION__KEY.
    #[arg(long, env = "FLEETLOG_CONFIG")]
    pub config: Option<PathBuf>,
    /// Sets one key, above file and environment; can be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Checks the configuration and exits: 0 when it is fine, 64 when it is not.
    #[arg(long)]
    pub check_config: bool,
}

/// Runs a service as a program: arguments, config, telemetry, signals, exit code.
///
/// `configure` takes the service's sections from the settings; `run` is the service.
pub fn launch<C, E, F>(
    service: &'static str,
    configure: impl FnOnce(&Settings) -> Result<C, SettingsError>,
    run: impl FnOnce(C, Deps, Shutdown) -> F,
) -> ExitCode
where
    E: std::fmt::Display,
    F: Future<Output = Result<(), E>>,
{
    let args = ServiceArgs::parse();
    let configured = Settings::load(args.config.as_deref(), &args.set).and_then(|settings| {
        let telemetry: TelemetryConfig = settings.section(TelemetryConfig::SECTION)?;
        Ok((configure(&settings)?, telemetry))
    });
    let (config, telemetry) = match configured {
        Ok(configured) => configured,
        Err(e) => return say_and_exit(service, &e, EXIT_CONFIG),
    };
    if args.check_config {
        return ExitCode::SUCCESS;
    }
    let metrics = match init_telemetry(&telemetry) {
        Ok(metrics) => metrics,
        Err(e) => return say_and_exit(service, &e, EXIT_CONFIG),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return say_and_exit(service, &e, EXIT_FAILURE),
    };
    let deps = Deps { clock: Clock::system(), health: Health::new(), metrics };
    let shutdown = Shutdown::new();
    // The signal watcher lives as long as the process and needs no supervision: without it the defaults apply.
    let signals = runtime.spawn(shutdown.clone().watch_signals());
    tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
    let ended = runtime.block_on(run(config, deps, shutdown));
    signals.abort();
    abandon(runtime);
    match ended {
        Ok(()) => {
            tracing::info!(service, "stopped");
            ExitCode::SUCCESS
        }
        Err(e) => say_and_exit(service, &e, EXIT_FAILURE),
    }
}

/// Ends the runtime although a call may still wait on a thread of its own, for a cluster that does not answer: nobody
/// waits for its outcome any more, and the service's budget is used up.
fn abandon(runtime: tokio::runtime::Runtime) {
    runtime.shutdown_timeout(LEFT_BEHIND);
}

#[expect(clippy::print_stderr, reason = "the last word of a program, when logging may not be up")]
fn say_and_exit(service: &str, error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("{service}: {error}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_nobody_waits_for_does_not_keep_the_program_from_ending() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (hold, held) = std::sync::mpsc::sync_channel::<()>(0);
        drop(runtime.spawn_blocking(move || held.recv()));
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            abandon(runtime);
            tell.send(()).unwrap();
        });
        told.recv_timeout(Duration::from_secs(60)).unwrap();
        drop(hold);
    }
}
