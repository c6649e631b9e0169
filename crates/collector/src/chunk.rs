//! Cuts a file into bodies of bounded size, without ever cutting a line.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

use crate::sniff::Framing;

/// Bounds of one chunk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most lines in a chunk.
    pub lines: usize,
    /// A chunk is closed when it has reached this many bytes.
    pub target_bytes: usize,
    /// Longest line, and largest file that is one body.
    pub max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lines: 1_000, target_bytes: 1024 * 1024, max_bytes: 20 * 1024 * 1024 }
    }
}

/// One body, and where it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The bytes to send.
    pub body: Bytes,
    /// Offset of its first byte.
    pub start: u64,
    /// Offset behind its last byte.
    pub end: u64,
    /// Number of its first line, from 0.
    pub first_line: u64,
    /// Lines in it, empty ones included.
    pub lines: u64,
}

impl Chunk {
    /// The chunk in two parts of about as many lines; itself when it has only one.
    pub fn halves(&self) -> Vec<Self> {
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
pub struct ChunkReader<R> {
    reader: R,
    framing: Framing,
    limits: Limits,
    offset: u64,
    line: u64,
    /// A line that was read and did not fit into the chunk before.
    held: Vec<u8>,
}

impl<R: BufRead> ChunkReader<R> {
    /// Reads on from `offset`, where line `line` begins; `reader` must stand there.
    pub fn new(reader: R, framing: Framing, limits: Limits, offset: u64, line: u64) -> Self {
        Self { reader, framing, limits, offset, line, held: Vec::new() }
    }

    /// The next chunk, or `None` at the end of the file.
    ///
    /// # Errors
    /// The reader's error; [`io::ErrorKind::FileTooLarge`] for a line, or a whole body, above the limit.
    pub fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        let (start, first_line) = (self.offset, self.line);
        let body = match self.framing {
            Framing::Whole | Framing::Protobuf => self.rest()?,
            Framing::Lines => self.lines(self.limits.lines)?,
            Framing::BodyPerLine => self.lines(1)?,
        };
        if body.is_empty() {
            return Ok(None);
        }
        self.offset += body.len() as u64;
        Ok(Some(Chunk {
            body: body.into(),
            start,
            end: self.offset,
            first_line,
            lines: self.line - first_line,
        }))
    }

    fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        let bound = self.limits.max_bytes as u64 + 1;
        self.reader.by_ref().take(bound).read_to_end(&mut body)?;
        self.check(body.len())?;
        self.line += body.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(body)
    }

    fn lines(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut body = std::mem::take(&mut self.held);
        let mut count = u64::from(!body.is_empty());
        while (count as usize) < most && body.len() < self.limits.target_bytes {
            let before = body.len();
            let bound = self.limits.max_bytes as u64 + 1;
            self.reader.by_ref().take(bound).read_until(b'\n', &mut body)?;
            let length = body.len() - before;
            if length == 0 {
                break;
            }
            self.check(length)?;
            if before > 0 && body.len() > self.limits.max_bytes {
                self.held = body.split_off(before);
                break;
            }
            count += 1;
        }
        self.line += count;
        Ok(body)
    }

    fn check(&self, length: usize) -> io::Result<()> {
        if length > self.limits.max_bytes {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(text: &str, framing: Framing, limits: Limits) -> Vec<Chunk> {
        let mut reader = ChunkReader::new(text.as_bytes(), framing, limits, 0, 0);
        std::iter::from_fn(|| reader.next_chunk().unwrap()).collect()
    }

    #[test]
    fn chunks_lie_end_to_end_and_never_cut_a_line() {
        let text = "one\ntwo\nthree\n\nfive";
        for lines in 1..6 {
            for max in 6..20 {
                let limits = Limits { lines, target_bytes: 4, max_bytes: max };
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
    fn a_line_above_the_limit_is_an_error_and_not_a_cut() {
        let limits = Limits { lines: 9, target_bytes: 4, max_bytes: 4 };
        let mut reader = ChunkReader::new("ok\ntoo long\n".as_bytes(), Framing::Lines, limits, 0, 0);
        assert_eq!(reader.next_chunk().unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn each_line_of_a_collectors_file_is_a_body() {
        let chunks = chunks("{}\n{}\n", Framing::BodyPerLine, Limits::default());
        assert_eq!(chunks.len(), 2);
    }
}
