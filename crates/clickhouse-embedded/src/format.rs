//! What this process must know of ClickHouse's formats: which can be sent in pieces, and their media types.
//!
//! The engine formats every chunk of a streamed result as a result of its own, so a format with an envelope repeats it.
//! A header is cut off every chunk but the first; a format whose envelope encloses or counts the rows is not streamed.

use crate::error::{Code, ServerError};

/// How chunks of a format are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Envelope {
    /// Chunks simply follow one another.
    None,
    /// Every chunk begins with the same header.
    Header(Header),
    /// Only a whole result makes sense.
    Whole,
}

/// How long a header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// A count, and per column one length-prefixed string (names) or two (names and types).
    Binary {
        /// Strings per column.
        strings: usize,
    },
    /// Lines, in formats that escape line ends.
    Lines {
        /// Lines in the header.
        lines: usize,
    },
    /// Lines, in formats where a line end inside double quotes does not count.
    QuotedLines {
        /// Lines in the header.
        lines: usize,
    },
}

impl Envelope {
    /// Looks a format up by its name; an unknown one is kept whole.
    pub(crate) fn of(format: &str) -> Self {
        let lower = format.to_ascii_lowercase();
        match lower.as_str() {
            "rowbinary"
            | "native"
            | "msgpack"
            | "tabseparated"
            | "tsv"
            | "tabseparatedraw"
            | "tsvraw"
            | "raw"
            | "csv"
            | "tskv"
            | "jsoneachrow"
            | "ndjson"
            | "jsonlines"
            | "jsonl"
            | "jsoncompacteachrow"
            | "jsonstringseachrow"
            | "jsoncompactstringseachrow"
            | "lineasstring" => Self::None,
            "rowbinarywithnames" => Self::Header(Header::Binary { strings: 1 }),
            "rowbinarywithnamesandtypes" => Self::Header(Header::Binary { strings: 2 }),
            "csvwithnames" => Self::Header(Header::QuotedLines { lines: 1 }),
            "csvwithnamesandtypes" => Self::Header(Header::QuotedLines { lines: 2 }),
            "tsvwithnames"
            | "tabseparatedwithnames"
            | "jsoncompacteachrowwithnames"
            | "jsoncompactstringseachrowwithnames" => Self::Header(Header::Lines { lines: 1 }),
            "tsvwithnamesandtypes"
            | "tabseparatedwithnamesandtypes"
            | "jsoncompacteachrowwithnamesandtypes"
            | "jsoncompactstringseachrowwithnamesandtypes" => Self::Header(Header::Lines { lines: 2 }),
            _ => Self::Whole,
        }
    }
}

/// Joins the chunks of one result, cutting repeated headers off.
pub(crate) struct Joiner {
    header: Option<Header>,
    seen: Option<Vec<u8>>,
}

impl Joiner {
    /// Makes a joiner for a format that is streamed.
    pub(crate) fn new(envelope: Envelope) -> Self {
        let header = match envelope {
            Envelope::Header(header) => Some(header),
            Envelope::None | Envelope::Whole => None,
        };
        Self { header, seen: None }
    }

    /// Gives the part of a chunk that belongs into the result.
    ///
    /// # Errors
    /// A chunk does not begin with the first one's header; the result would be garbage.
    pub(crate) fn rest<'a>(&mut self, chunk: &'a [u8]) -> Result<&'a [u8], ServerError> {
        let Some(header) = self.header else { return Ok(chunk) };
        match &self.seen {
            Some(seen) => chunk.strip_prefix(seen.as_slice()).ok_or_else(broken),
            None => {
                let length = header.length(chunk).ok_or_else(broken)?;
                self.seen = Some(chunk[..length].to_vec());
                Ok(chunk)
            }
        }
    }
}

fn broken() -> ServerError {
    ServerError::new(Code::LogicalError, "The engine's chunks do not begin with the same header.")
}

impl Header {
    fn length(self, chunk: &[u8]) -> Option<usize> {
        match self {
            Self::Binary { strings } => {
                let (columns, mut at) = varint(chunk, 0)?;
                for _ in 0..columns.checked_mul(strings)? {
                    let (length, start) = varint(chunk, at)?;
                    at = start.checked_add(length)?;
                }
                (at <= chunk.len()).then_some(at)
            }
            Self::Lines { lines } => nth_line_end(chunk, lines, false),
            Self::QuotedLines { lines } => nth_line_end(chunk, lines, true),
        }
    }
}

fn nth_line_end(chunk: &[u8], lines: usize, quotes: bool) -> Option<usize> {
    let mut quoted = false;
    chunk
        .iter()
        .enumerate()
        .filter(|(_, byte)| {
            // A doubled quote toggles twice, which is as good as not at all.
            quoted ^= quotes && **byte == b'"';
            **byte == b'\n' && !quoted
        })
        .nth(lines.checked_sub(1)?)
        .map(|(index, _)| index + 1)
}

/// Reads an unsigned LEB128 number.
fn varint(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut value = 0_usize;
    for shift in (0..63).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value, at));
        }
    }
    None
}

/// The media type that a server answers with.
pub(crate) fn content_type(format: &str) -> &'static str {
    let lower = format.to_ascii_lowercase();
    if lower.starts_with("jsoneachrow") || lower == "ndjson" || lower.starts_with("jsonl") {
        "application/x-ndjson; charset=UTF-8"
    } else if lower.starts_with("json") {
        "application/json; charset=UTF-8"
    } else if lower.starts_with("csv") {
        "text/csv; charset=UTF-8"
    } else if lower.starts_with("tabseparated") || lower.starts_with("tsv") {
        "text/tab-separated-values; charset=UTF-8"
    } else if ["pretty", "vertical", "values", "markdown", "xml", "tskv"]
        .iter()
        .any(|text| lower.starts_with(text))
    {
        "text/plain; charset=UTF-8"
    } else {
        "application/octet-stream"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(format: &str, chunks: &[&[u8]]) -> Result<Vec<u8>, ServerError> {
        let mut joiner = Joiner::new(Envelope::of(format));
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend_from_slice(joiner.rest(chunk)?);
        }
        Ok(out)
    }

    #[test]
    fn repeated_headers_are_cut_off() {
        let chunk = b"\x01\x011\x05UInt8\x07";
        assert_eq!(
            join("RowBinaryWithNamesAndTypes", &[chunk, chunk]).unwrap(),
            b"\x01\x011\x05UInt8\x07\x07"
        );
        let csv = b"\"a\nb\",\"c\"\n1,2\n";
        assert_eq!(join("CSVWithNames", &[csv, csv]).unwrap(), b"\"a\nb\",\"c\"\n1,2\n1,2\n");
        assert_eq!(
            join("TSVWithNamesAndTypes", &[b"a\"\nUInt8\n1\n", b"a\"\nUInt8\n2\n"]).unwrap(),
            b"a\"\nUInt8\n1\n2\n"
        );
    }

    #[test]
    fn chunk_with_another_header_is_an_error() {
        assert!(join("TSVWithNames", &[b"a\n1\n", b"b\n1\n"]).is_err());
        assert!(join("RowBinaryWithNames", &[b"\xff\xff"]).is_err());
    }

    #[test]
    fn formats_that_enclose_their_rows_are_kept_whole() {
        for format in ["JSON", "Parquet", "Pretty", "Values", "Vertical", "XML", "Whatever"] {
            assert_eq!(Envelope::of(format), Envelope::Whole, "{format}");
        }
    }
}
