//! Cuts a file into bodies of bounded size, without ever cutting a line.

use std::io::{self, BufRead, Read};

use bytes::Bytes;
use fleetlog_schemas::topic::RAW_MAX_MESSAGE_BYTES;

use crate::sniff::Framing;

/// Bounds of one chunk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most lines in a chunk.
    pub lines: usize,
    /// A chunk is closed when it has reached this many bytes.
    pub target_bytes: usize,
    /// Longest line: the gateway cannot cut one to fit into a message.
    pub line_bytes: usize,
    /// Largest file that is one body.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lines: 1_000,
            target_bytes: 1024 * 1024,
            line_bytes: RAW_MAX_MESSAGE_BYTES - 64 * 1024,
            body_bytes: 20 * 1024 * 1024,
        }
    }
}

/// What a file holds next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Portion {
    /// A body that can be sent.
    Chunk(Chunk),
    /// A line that is too long to be sent.
    TooLong {
        /// Number of the line, from 0.
        line: u64,
        /// Offset behind it.
        end: u64,
    },
}

/// What becomes of a last line without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastLine {
    /// It is a line like the others.
    Take,
    /// It is still being written, and left for later.
    Await,
}

/// One body, and where it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The bytes to send.
    pub(crate) body: Bytes,
    /// Offset of its first byte.
    pub(crate) start: u64,
    /// Offset behind its last byte.
    pub(crate) end: u64,
    /// Number of its first line, from 0.
    pub(crate) first_line: u64,
    /// Lines in it, empty ones included.
    pub(crate) lines: u64,
}

impl Chunk {
    /// The chunk in two parts of about as many lines; itself when it has only one.
    pub(crate) fn halves(&self) -> Vec<Self> {
        let middle = (self.lines / 2) as usize;
        let ends = self.body.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        let Some(cut) = middle.checked_sub(1).and_then(|last| ends.clone().nth(last)) else {
            return vec![self.clone()];
        };
        let (at, lines) = (self.start + cut as u64, middle as u64);
        vec![
            Self { body: self.body.slice(..cut), end: at, lines, ..self.clone() },
            Self {
                body: self.body.slice(cut..),
                start: at,
                first_line: self.first_line + lines,
                lines: self.lines - lines,
                ..self.clone()
            },
        ]
    }
}

/// Reads chunk after chunk.
#[derive(Debug)]
pub(crate) struct ChunkReader<R> {
    reader: R,
    framing: Framing,
    last_line: LastLine,
    limits: Limits,
    offset: u64,
    line: u64,
    /// A line that was read and did not fit into the chunk before.
    held: Vec<u8>,
    /// Length of a line that was read over and comes next.
    too_long: Option<u64>,
    ended: bool,
}

impl<R: BufRead> ChunkReader<R> {
    /// Reads on from `offset`, where line `line` begins; `reader` must stand there.
    pub(crate) fn new(
        reader: R,
        framing: Framing,
        last_line: LastLine,
        limits: Limits,
        (offset, line): (u64, u64),
    ) -> Self {
        let (held, too_long, ended) = (Vec::new(), None, false);
        Self { reader, framing, last_line, limits, offset, line, held, too_long, ended }
    }

    /// The next portion, or `None` at the end of the file.
    ///
    /// # Errors
    /// The reader's error; [`io::ErrorKind::FileTooLarge`] for a whole body above the limit.
    pub(crate) fn next_portion(&mut self) -> io::Result<Option<Portion>> {
        let (start, first_line) = (self.offset, self.line);
        let body = match self.framing {
            Framing::Whole | Framing::Protobuf => self.rest()?,
            Framing::Lines => self.lines(self.limits.lines)?,
            Framing::BodyPerLine => self.lines(1)?,
        };
        if body.is_empty() {
            let Some(length) = self.too_long.take() else { return Ok(None) };
            self.offset += length;
            self.line += 1;
            return Ok(Some(Portion::TooLong { line: first_line, end: self.offset }));
        }
        self.offset += body.len() as u64;
        Ok(Some(Portion::Chunk(Chunk {
            body: body.into(),
            start,
            end: self.offset,
            first_line,
            lines: self.line - first_line,
        })))
    }

    fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        let bound = self.limits.body_bytes as u64 + 1;
        self.reader.by_ref().take(bound).read_to_end(&mut body)?;
        if body.len() > self.limits.body_bytes {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.line += body.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(body)
    }

    fn lines(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut body = std::mem::take(&mut self.held);
        let mut count = usize::from(!body.is_empty());
        let room = self.limits.line_bytes;
        while count < most && body.len() < self.limits.target_bytes && self.too_long.is_none() && !self.ended
        {
            let before = body.len();
            self.reader.by_ref().take(room as u64 + 1).read_until(b'\n', &mut body)?;
            let length = body.len() - before;
            let mut whole = body.last() == Some(&b'\n');
            if length > room {
                body.truncate(before);
                let mut skipped = length as u64;
                if !whole {
                    let (rest, found) = skip_line(&mut self.reader)?;
                    skipped += rest;
                    whole = found;
                }
                self.too_long = (whole || self.last_line == LastLine::Take).then_some(skipped);
                self.ended = !whole;
            } else if length == 0 || !whole && self.last_line == LastLine::Await {
                // What is appended from now on is read from here on the next time.
                body.truncate(before);
                self.ended = true;
            } else if before > 0 && body.len() > room {
                self.held = body.split_off(before);
                break;
            } else {
                count += 1;
            }
        }
        self.line += count as u64;
        Ok(body)
    }
}

/// Reads over the rest of a line, of any length; returns its bytes and whether its end was there.
fn skip_line(reader: &mut impl BufRead) -> io::Result<(u64, bool)> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(buffer.len(), |at| at + 1);
        skipped += length as u64;
        reader.consume(length);
        if end.is_some() || length == 0 {
            return Ok((skipped, end.is_some()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portions(text: &str, framing: Framing, last_line: LastLine, limits: Limits) -> Vec<Portion> {
        let mut reader = ChunkReader::new(text.as_bytes(), framing, last_line, limits, (0, 0));
        std::iter::from_fn(|| reader.next_portion().unwrap()).collect()
    }

    fn chunks(text: &str, framing: Framing, limits: Limits) -> Vec<Chunk> {
        let chunk = |portion| match portion {
            Portion::Chunk(chunk) => chunk,
            Portion::TooLong { .. } => panic!("too long"),
        };
        portions(text, framing, LastLine::Take, limits).into_iter().map(chunk).collect()
    }

    #[test]
    fn chunks_lie_end_to_end_and_never_cut_a_line() {
        let text = "one\ntwo\nthree\n\nfive";
        for lines in 1..6 {
            for line_bytes in 6..20 {
                let limits = Limits { lines, target_bytes: 4, line_bytes, ..Limits::default() };
                let chunks = chunks(text, Framing::Lines, limits);
                let joined: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.body.to_vec()).collect();
                assert_eq!(joined, text.as_bytes());
                assert_eq!(chunks.iter().map(|chunk| chunk.lines).sum::<u64>(), 5);
                for pair in chunks.windows(2) {
                    assert_eq!((pair[0].end, pair[0].body.last()), (pair[1].start, Some(&b'\n')));
                    assert_eq!(pair[0].first_line + pair[0].lines, pair[1].first_line);
                }
            }
        }
    }

    #[test]
    fn a_line_above_the_limit_costs_only_itself() {
        let limits = Limits { lines: 9, target_bytes: 100, line_bytes: 4, ..Limits::default() };
        let text = "ok\nfar too long\n1\n2\nwithout an end";
        let seen: Vec<String> = portions(text, Framing::Lines, LastLine::Take, limits)
            .into_iter()
            .map(|portion| match portion {
                Portion::Chunk(chunk) => {
                    format!("{}@{}", String::from_utf8_lossy(&chunk.body), chunk.first_line)
                }
                Portion::TooLong { line, end } => format!("long@{line}..{end}"),
            })
            .collect();
        assert_eq!(seen, ["ok\n@0", "long@1..16", "1\n2\n@2", "long@4..34"]);
    }

    #[test]
    fn a_line_that_is_still_being_written_is_left_for_later() {
        let limits = Limits { line_bytes: 8, ..Limits::default() };
        for text in ["one\ntw", "one\nfar too long to be sent"] {
            let seen = portions(text, Framing::Lines, LastLine::Await, limits);
            let [Portion::Chunk(chunk)] = &seen[..] else { panic!("{seen:?}") };
            assert_eq!((&chunk.body[..], chunk.end), (&b"one\n"[..], 4));
        }
    }

    #[test]
    fn each_line_of_a_collectors_file_is_a_body() {
        let chunks = chunks("{}\n{}\n", Framing::BodyPerLine, Limits::default());
        assert_eq!(chunks.len(), 2);
    }
}
