//! Connections: how many, how long they may take to ask, and their end.
//!
//! A caller that leaves before its answer ends its connection, and with it the statement that runs for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use fleetlog_runtime::Shutdown;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::metrics;

/// After a failed accept (no file descriptors left, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The bounds of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Most open at a time; further ones wait in the operating system's queue.
    pub(crate) connections: usize,
    /// Longest wait for a request's head.
    pub(crate) header_timeout: Duration,
    /// What requests under way have, once shutdown is asked for.
    pub(crate) drain: Duration,
}

/// Serves until shutdown, then lets requests under way finish within their budget.
///
/// # Errors
/// None today; the type is what a supervised task returns.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    bounds: Bounds,
    shutdown: Shutdown,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(bounds.connections));
    let open = metrics::CONNECTIONS.gauge_handle();
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((permit, listener.accept().await?.0))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            () = shutdown.triggered() => break,
        };
        let (permit, stream) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (app, watcher, open) = (app.clone(), graceful.watcher(), open.clone());
        connections.spawn(async move {
            open.increment(1.0);
            connection(stream, app, bounds.header_timeout, watcher).await;
            open.decrement(1.0);
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(bounds.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(budget = ?bounds.drain, "requests were still under way when the budget was used up");
    }
    connections.shutdown().await;
    Ok(())
}

async fn connection(stream: TcpStream, app: Router, header_timeout: Duration, watcher: Watcher) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(header_timeout);
    let served =
        watcher.watch(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))).await;
    if let Err(error) = served {
        // Callers that go away or are too slow.
        tracing::debug!(%error, "connection ended");
    }
}
