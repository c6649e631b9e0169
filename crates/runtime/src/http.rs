//! An HTTP listener with bounds: how many connections, how long they may take to ask, and their end.
//!
//! A caller that leaves before its answer ends its connection, and with it the work that is done for it.
//! A refusal may be sent before the body has been read. Closing the socket then would reset the connection, and the
//! sender would lose the answer it is owed; so what still arrives is read and thrown away for a bounded while
//! (RFC 9112, 9.6: "lingering close").

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use metrics::Gauge;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::{Metric, Shutdown};

/// How long, and for how many bytes, a finished connection is still read.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// After a failed accept (no file descriptors left, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct HttpBounds {
    /// Most connections open at a time; further ones wait in the operating system's queue.
    pub connections: usize,
    /// Longest wait for a request's head.
    pub header_timeout: Duration,
    /// What requests under way have, once shutdown is asked for.
    pub drain: Duration,
}

/// Serves until shutdown, then lets requests under way finish within their budget. `open` is a gauge of the open
/// connections.
///
/// # Errors
/// None today; the type is what a supervised task returns.
pub async fn serve_http(
    listener: TcpListener,
    app: Router,
    bounds: HttpBounds,
    open: Metric,
    shutdown: Shutdown,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(bounds.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit.map_err(io::Error::other)?,
            () = shutdown.triggered() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.triggered() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (app, watcher, open) = (app.clone(), graceful.watcher(), Open::new(open, permit));
        connections.spawn(async move {
            connection(stream, app, bounds.header_timeout, watcher).await;
            drop(open);
        });
    }
    drop(listener);
    if tokio::time::timeout(bounds.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(budget = ?bounds.drain, "requests were still under way when the budget was used up");
    }
    connections.shutdown().await;
    Ok(())
}

/// An open connection: its permit, and its place in the gauge.
struct Open {
    gauge: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(metric: Metric, permit: OwnedSemaphorePermit) -> Self {
        let gauge = metric.gauge_handle();
        gauge.increment(1.0);
        Self { gauge, _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.decrement(1.0);
    }
}

async fn connection(stream: TcpStream, app: Router, header_timeout: Duration, watcher: Watcher) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let left_over = Arc::new(Mutex::new(None));
    let (read, write) = stream.into_split();
    let io = TokioIo::new(Socket { read: Some(read), write, left_over: Arc::clone(&left_over) });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(header_timeout);
    let service = TowerToHyperService::new(app);
    let served = watcher.watch(builder.serve_connection(io, service)).await;
    if let Err(error) = served {
        // Senders that go away or are too slow; the requests they made have been answered or refused.
        tracing::debug!(%error, "connection ended");
    }
    let read = left_over.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(read) = read {
        discard(read).await;
    }
}

/// Reads to the end, within the bounds.
async fn discard(read: OwnedReadHalf) {
    let mut read = read.take(LINGER_MAX_BYTES);
    let mut sink = tokio::io::sink();
    let _in_time = tokio::time::timeout(LINGER, tokio::io::copy(&mut read, &mut sink)).await.is_ok();
}

/// A connection's socket, which leaves its reading half behind when it is dropped; the writing half is shut down
/// then, which tells the sender that the answer is complete.
struct Socket {
    read: Option<OwnedReadHalf>,
    write: OwnedWriteHalf,
    left_over: Arc<Mutex<Option<OwnedReadHalf>>>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        *self.left_over.lock().unwrap_or_else(PoisonError::into_inner) = self.read.take();
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.read {
            Some(read) => Pin::new(read).poll_read(cx, buf),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.write.is_write_vectored()
    }
}
