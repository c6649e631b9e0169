//! The life of the process: start, serve, drain, stop.
//!
//! The order at the end matters, or the engine crashes: first no new connection is taken, then the running statements
//! end (within a budget), then the last engine connection closes, then the process exits without the library's own exit
//! handlers. What does not end within the budget is left behind like after a crash, which costs nothing acknowledged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleetlog_runtime::{MetricsHandle, Shutdown};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::config::Options;
use crate::connections::Connections;
use crate::engine::{Canceller, Host};
use crate::error::StartError;
use crate::ffi;
use crate::http::Server;
use crate::statement::Limits;

/// Connections that are open at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;

/// What is told once requests are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The address that is served, with the port that was picked.
    pub address: SocketAddr,
    /// ClickHouse's version.
    pub version: String,
}

impl Ready {
    /// The one line of JSON on stdout.
    pub fn line(&self) -> String {
        serde_json::json!({"ready": true, "http": self.address.to_string(), "version": self.version})
            .to_string()
    }
}

/// Starts the engine and serves it until the shutdown, then drains and stops it.
///
/// `ready` is called once, when requests are served.
///
/// # Errors
/// Why it could not start, or why serving ended early.
pub async fn run(
    options: Options,
    shutdown: Shutdown,
    metrics: MetricsHandle,
    ready: impl FnOnce(&Ready) -> std::io::Result<()>,
) -> Result<(), StartError> {
    let address = options.listen;
    if !address.ip().is_loopback() {
        return Err(StartError::NotLoopback { address });
    }
    let listener =
        TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
    let address = listener.local_addr().map_err(|source| StartError::Listen { address, source })?;
    let concurrent = options.max_concurrent_queries;
    let drain = Duration::from_secs(options.drain_s);
    let host = Arc::new(start_host(options.clone()).await?);
    let canceller = Canceller::start(Arc::clone(&host)).map_err(StartError::Serve)?;
    let limits = Limits {
        default_database: options.database,
        default_seconds: options.max_execution_time_s,
        max_result_bytes: options.max_result_bytes,
        max_body_bytes: options.max_body_bytes,
    };
    let server = Server::new(Arc::clone(&host), limits, canceller, metrics, usize::from(concurrent));
    ready(&Ready { address, version: host.version().to_owned() }).map_err(StartError::Serve)?;

    let until = shutdown.clone();
    let listener = Connections::new(listener, MAX_CONNECTIONS);
    let serving = axum::serve(listener, server.clone().router())
        .with_graceful_shutdown(async move { until.triggered().await });
    let mut serving = std::pin::pin!(serving.into_future());
    tokio::select! {
        ended = &mut serving => return ended.map_err(StartError::Serve),
        () = shutdown.triggered() => {}
    }
    // Polled on while the budget lasts: answers in progress are written here.
    let drained = timeout(drain, async {
        tokio::join!(server.idle(), timeout(drain, serving)).0;
    });
    if drained.await.is_ok() {
        host.stop();
        tracing::info!("engine stopped");
    } else {
        tracing::warn!("statements still ran after {} s and were left", drain.as_secs());
    }
    Ok(())
}

/// The engine starts on a blocking thread: on a large data directory it takes a while.
async fn start_host(options: Options) -> Result<Host, StartError> {
    match tokio::task::spawn_blocking(move || Host::start(&options)).await {
        Ok(started) => started,
        Err(error) => Err(StartError::Serve(std::io::Error::other(error))),
    }
}

/// Makes the kernel end this process when its parent ends.
///
/// The kernel watches the parent's thread that started this process: the parent must start it from one that stays.
///
/// # Errors
/// The parent has ended already, or the kernel refuses.
pub fn end_with_parent() -> std::io::Result<()> {
    ffi::die_with_parent(std::os::unix::process::parent_id())
}

/// Ends the process without the engine library's exit handlers, which crash when its threads still run.
pub fn exit_at_once(code: i32) -> ! {
    ffi::exit_now(code)
}
