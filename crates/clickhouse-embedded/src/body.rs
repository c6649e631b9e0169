//! The request's body, from the network to the thread that runs the statement.
//!
//! The network side sends pieces through a bounded channel; the engine's thread reads them as a stream of bytes. A body
//! that stops before its end is an error there, never an end: an insert whose sender vanished must not be committed.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use crate::compression::BlockReader;
use crate::error::{Code, ServerError};
use crate::request::Request;

/// Pieces on their way to the engine; with the size of a piece (about 64 KiB) the bound on what a body buffers.
const QUEUED_PIECES: usize = 16;

/// A piece of the body.
pub(crate) enum Piece {
    /// Bytes as they came.
    Data(Bytes),
    /// The body is complete.
    End,
}

/// The network's end of a body.
pub(crate) type BodySender = mpsc::Sender<Piece>;

/// The engine's end of a body, as it came over the network.
pub(crate) struct RawBody {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

/// Makes the two ends of a body.
pub(crate) fn body_channel() -> (BodySender, RawBody) {
    let (sender, pieces) = mpsc::channel(QUEUED_PIECES);
    (sender, RawBody { pieces, current: Bytes::new(), ended: false })
}

impl Read for RawBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => self.current = data,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// The body unpacked, and bounded.
pub(crate) struct Body {
    inner: Box<dyn Read + Send>,
    limit: u64,
    left: u64,
}

impl Body {
    /// Unpacks a body as the request says.
    ///
    /// # Errors
    /// A decoder cannot be set up.
    pub(crate) fn new(raw: RawBody, request: &Request, limit: u64) -> Result<Self, ServerError> {
        let decoded = request.body_encoding.decoder(raw).map_err(|error| read_error(&error))?;
        let inner: Box<dyn Read + Send> =
            if request.body_in_blocks { Box::new(BlockReader::new(decoded)) } else { decoded };
        Ok(Self { inner, limit, left: limit })
    }

    /// Reads the next bytes; 0 at the end.
    ///
    /// # Errors
    /// The body is too large, damaged, or stopped before its end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ServerError> {
        loop {
            match self.inner.read(buffer) {
                Ok(count) => {
                    self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
                        ServerError::new(
                            Code::QueryTooLarge,
                            format_args!("The request's body is larger than {} bytes", self.limit),
                        )
                    })?;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(&error)),
            }
        }
    }
}

fn read_error(error: &io::Error) -> ServerError {
    if error.kind() == io::ErrorKind::ConnectionAborted {
        ServerError::new(
            Code::NetworkError,
            "The request's body stopped before its end; nothing more was inserted",
        )
    } else {
        ServerError::new(Code::CannotDecompress, format_args!("Cannot unpack the request's body: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_that_stops_before_its_end_is_an_error() {
        let (sender, mut body) = body_channel();
        sender.try_send(Piece::Data(Bytes::from_static(b"abc"))).ok().unwrap();
        drop(sender);
        let mut out = Vec::new();
        assert_eq!(body.read_to_end(&mut out).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(out, b"abc");
    }

    #[test]
    fn complete_body_ends_cleanly() {
        let (sender, mut body) = body_channel();
        sender.try_send(Piece::Data(Bytes::from_static(b"abc"))).ok().unwrap();
        sender.try_send(Piece::End).ok().unwrap();
        let mut out = String::new();
        assert_eq!(body.read_to_string(&mut out).unwrap(), 3);
    }
}
