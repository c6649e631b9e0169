//! The answer, from the thread that runs the statement to the network.
//!
//! The first mebibyte is held back: until then an error still gets its own status, and a small answer gets its length
//! and its summary. After that the answer streams through a bounded channel, and an error becomes ClickHouse's tagged
//! trailer, which clients of version 25.11 and later look for.

use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::compression::Encoder;
use crate::error::{Code, ServerError};
use crate::ffi::Counters;
use crate::request::Reply;

/// Pieces on their way to the network; with the size of an engine chunk the bound on what an answer buffers.
const QUEUED_PIECES: usize = 4;

/// Held back before the head is sent, as a server's own buffer does.
const HELD_BYTES: usize = 1 << 20;

/// A client that reads nothing for this long is given up: it would keep a query running.
const READER_PAUSE: Duration = Duration::from_secs(120);

/// What the network side receives.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// The first message: how it begins, or why it does not.
    Head(Result<Head, ServerError>),
    /// A piece of the body, encoded.
    Data(Bytes),
    /// The body is complete.
    End,
}

/// What the response's head needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The result's format.
    pub(crate) format: String,
    /// What the statement did so far.
    pub(crate) counters: Counters,
    /// The whole body's length, when it is complete.
    pub(crate) length: Option<usize>,
}

/// The engine's end of an answer.
pub(crate) struct ReplyWriter {
    sender: mpsc::Sender<Outgoing>,
    runtime: Handle,
    tag: String,
    reply: Reply,
    format: String,
    held: Vec<u8>,
    hold_limit: usize,
    hold_all: bool,
    encoder: Option<Encoder>,
    counters: Counters,
}

impl ReplyWriter {
    /// Makes the two ends of an answer; `hold_limit` bounds what is held when all of it must be.
    ///
    /// Called inside of the runtime; the writer is then used on a thread that may block.
    pub(crate) fn channel(
        reply: Reply,
        tag: String,
        hold_all: bool,
        hold_limit: usize,
    ) -> (Self, mpsc::Receiver<Outgoing>) {
        let (sender, receiver) = mpsc::channel(QUEUED_PIECES);
        let writer = Self {
            sender,
            runtime: Handle::current(),
            tag,
            reply,
            format: "TabSeparated".to_owned(),
            held: Vec::new(),
            hold_limit,
            hold_all,
            encoder: None,
            counters: Counters::default(),
        };
        (writer, receiver)
    }

    /// Names the result's format.
    pub(crate) fn set_format(&mut self, format: String) {
        self.format = format;
    }

    /// Takes a piece of the result; blocks while the client is behind.
    ///
    /// # Errors
    /// The client has gone, or the result is larger than may be held.
    pub(crate) fn write(&mut self, data: &[u8], counters: Counters) -> Result<(), ServerError> {
        self.counters.add(counters);
        if self.encoder.is_some() {
            return self.send_piece(data);
        }
        if self.hold_all && self.held.len() + data.len() > self.hold_limit {
            return Err(ServerError::new(
                Code::TooManyBytes,
                format_args!("The result is larger than the {} bytes that are held at once", self.hold_limit),
            ));
        }
        self.held.extend_from_slice(data);
        if self.hold_all || self.held.len() < HELD_BYTES {
            return Ok(());
        }
        let head = Head { format: self.format.clone(), counters: self.counters, length: None };
        self.send(Outgoing::Head(Ok(head)))?;
        self.encoder = Some(self.reply.encoder().map_err(|error| encoding_failed(&error))?);
        let held = std::mem::take(&mut self.held);
        self.send_piece(&held)
    }

    /// Ends the answer with what the statement did, or with its error.
    ///
    /// # Errors
    /// The client has gone.
    pub(crate) fn finish(mut self, outcome: Result<Counters, ServerError>) -> Result<(), ServerError> {
        match outcome {
            Ok(counters) => self.counters.add(counters),
            Err(error) => return self.fail(error),
        }
        match self.encoder.take() {
            Some(encoder) => {
                let last = encoder.finish().map_err(|error| encoding_failed(&error))?;
                self.send(Outgoing::Data(last.into()))?;
            }
            None => {
                let body = self.encode_held().map_err(|error| encoding_failed(&error))?;
                let head =
                    Head { format: self.format.clone(), counters: self.counters, length: Some(body.len()) };
                self.send(Outgoing::Head(Ok(head)))?;
                self.send(Outgoing::Data(body.into()))?;
            }
        }
        self.send(Outgoing::End)
    }

    fn fail(mut self, error: ServerError) -> Result<(), ServerError> {
        let Some(mut encoder) = self.encoder.take() else {
            return self.send(Outgoing::Head(Err(error)));
        };
        // One piece of its own: clients look for the trailer at the end of a piece.
        let mut last = encoder.piece(&trailer(&self.tag, &error)).map_err(|error| encoding_failed(&error))?;
        last.extend(encoder.finish().map_err(|error| encoding_failed(&error))?);
        self.send(Outgoing::Data(last.into()))?;
        self.send(Outgoing::End)
    }

    fn encode_held(&mut self) -> std::io::Result<Vec<u8>> {
        let held = std::mem::take(&mut self.held);
        match self.reply {
            // An empty answer stays empty: clients do not expect a compressed nothing.
            _ if held.is_empty() => Ok(held),
            Reply::Http(crate::compression::Encoding::Identity) => Ok(held),
            reply => {
                let mut encoder = reply.encoder()?;
                let mut body = encoder.piece(&held)?;
                body.extend(encoder.finish()?);
                Ok(body)
            }
        }
    }

    fn send_piece(&mut self, data: &[u8]) -> Result<(), ServerError> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        let piece = encoder.piece(data).map_err(|error| encoding_failed(&error))?;
        if piece.is_empty() { Ok(()) } else { self.send(Outgoing::Data(piece.into())) }
    }

    fn send(&self, outgoing: Outgoing) -> Result<(), ServerError> {
        match self.runtime.block_on(timeout(READER_PAUSE, self.sender.send(outgoing))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ServerError::new(Code::QueryWasCancelled, "The client has gone")),
            Err(_) => Err(ServerError::new(Code::SocketTimeout, "The client reads nothing any more")),
        }
    }
}

fn encoding_failed(error: &std::io::Error) -> ServerError {
    ServerError::new(Code::LogicalError, format_args!("Cannot compress the answer: {error}"))
}

/// The server's way to tell an error after the answer has begun.
fn trailer(tag: &str, error: &ServerError) -> Vec<u8> {
    let message = error.to_string();
    let message = message.trim_end();
    // The length counts the line end after the message.
    format!("\r\n__exception__\r\n{tag}\r\n{message}\n{} {tag}\r\n__exception__\r\n", message.len() + 1)
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::Encoding;

    async fn answer(
        hold_all: bool,
        pieces: &[&[u8]],
        outcome: Result<Counters, ServerError>,
    ) -> (Result<Head, ServerError>, Vec<u8>) {
        let (mut writer, mut receiver) =
            ReplyWriter::channel(Reply::Http(Encoding::Identity), "tag".into(), hold_all, 10 << 20);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let producer = tokio::task::spawn_blocking(move || {
            let written = pieces.iter().try_for_each(|piece| writer.write(piece, Counters::default()));
            writer.finish(written.and(outcome)).unwrap();
        });
        let mut head = None;
        let mut body = Vec::new();
        while let Some(outgoing) = receiver.recv().await {
            match outgoing {
                Outgoing::Head(first) => head = Some(first),
                Outgoing::Data(data) => body.extend_from_slice(&data),
                Outgoing::End => break,
            }
        }
        producer.await.unwrap();
        (head.unwrap(), body)
    }

    fn failure() -> ServerError {
        ServerError::new(Code::NetworkError, "no")
    }

    #[tokio::test]
    async fn small_answer_has_its_length_and_a_small_failure_its_status() {
        let (head, body) = answer(false, &[b"a", b"b"], Ok(Counters::default())).await;
        assert_eq!((head.unwrap().length, body.as_slice()), (Some(2), b"ab".as_slice()));
        let (head, body) = answer(false, &[b"a"], Err(failure())).await;
        assert_eq!((head.unwrap_err().code(), body.len()), (210, 0));
    }

    #[tokio::test]
    async fn failure_after_the_head_is_a_tagged_trailer() {
        let (head, body) = answer(false, &[&[b'x'; HELD_BYTES]], Err(failure())).await;
        assert_eq!(head.unwrap().length, None);
        let text = String::from_utf8_lossy(&body[HELD_BYTES..]).into_owned();
        let message = "Code: 210. DB::Exception: no (NETWORK_ERROR)";
        let expected =
            format!("\r\n__exception__\r\ntag\r\n{message}\n{} tag\r\n__exception__\r\n", message.len() + 1);
        assert_eq!(text, expected);
    }

    #[tokio::test]
    async fn held_answer_keeps_its_status_to_the_end_and_its_bound() {
        let (head, _) = answer(true, &[&[b'x'; 2 * HELD_BYTES]], Err(failure())).await;
        assert_eq!(head.unwrap_err().code(), 210);
        let (head, _) = answer(true, &[&[b'x'; 11 << 20]], Ok(Counters::default())).await;
        assert_eq!(head.unwrap_err().code(), 307);
    }
}
