//! The listening socket with a bound on open connections.
//!
//! When the bound is reached nothing more is accepted: further clients wait in the kernel's queue, which is bounded as
//! well. Small answers leave at once instead of waiting for the client's acknowledgement (Nagle).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics;

/// Accepts up to a number of connections at a time.
pub(crate) struct Connections {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    at_once: usize,
}

impl Connections {
    /// Bounds a listener.
    pub(crate) fn new(listener: TcpListener, at_once: usize) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(at_once)), at_once }
    }
}

/// A connection that gives its place back when it ends.
pub(crate) struct Connection {
    stream: TcpStream,
    _place: Place,
}

/// A place among the open connections.
struct Place {
    permits: Arc<Semaphore>,
    at_once: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    fn count(&self) {
        metrics::CONNECTIONS.set((self.at_once - self.permits.available_permits()) as f64);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.count();
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // Fails only when the semaphore is closed, which it never is.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "connection stays without TCP_NODELAY");
        }
        let place = Place { permits: Arc::clone(&self.permits), at_once: self.at_once, permit };
        place.count();
        (Connection { stream, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
