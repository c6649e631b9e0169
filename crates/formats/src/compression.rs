//! Undoes a body's content encoding, under a limit that a bomb cannot exceed.
//!
//! The encoding is the one the sender named; without a name the first bytes decide (1f 8b is gzip, 28 b5 2f fd is
//! zstd). Output is produced piece by piece and stops at the limit, so what a bomb costs is bounded by the limit and
//! never by what it claims to hold.

use std::borrow::Cow;
use std::io::{self, Read};

use thiserror::Error;

/// Output per step; also the first allocation.
const STEP: usize = 64 * 1024;
/// Largest window a zstd frame may ask for, as a power of two: 8 MB, what RFC 8878 recommends decoders to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const BROTLI_BUFFER: usize = 4096;

/// A way a body can be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// RFC 1952; several members in a row are one body.
    Gzip,
    /// RFC 1950 (zlib), or the bare RFC 1951 stream that some clients send under this name.
    Deflate,
    /// RFC 8878; several frames in a row are one body.
    Zstd,
    /// RFC 7932.
    Brotli,
}

/// A body that cannot be decompressed.
#[derive(Debug, Error)]
pub enum CompressionError {
    /// The named encoding is not one of ours.
    #[error("content encoding {0:?} is not supported; use gzip, deflate, zstd, br or identity")]
    Unknown(String),
    /// The bytes are not what the encoding says.
    #[error("the body is not valid {encoding}")]
    Corrupt {
        /// The encoding it should have.
        encoding: &'static str,
    },
    /// Decompressed, it is larger than the limit.
    #[error("the decompressed body is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

impl Encoding {
    /// The encoding that a `Content-Encoding` names, or that the first bytes show when it is empty.
    ///
    /// # Errors
    /// [`CompressionError::Unknown`] for any other name, lists of encodings included.
    pub fn of(content_encoding: &str, body: &[u8]) -> Result<Self, CompressionError> {
        match content_encoding.trim().to_ascii_lowercase().as_str() {
            "" => Ok(match body {
                [0x1F, 0x8B, ..] => Self::Gzip,
                [0x28, 0xB5, 0x2F, 0xFD, ..] => Self::Zstd,
                _ => Self::Identity,
            }),
            "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            "zstd" => Ok(Self::Zstd),
            "br" => Ok(Self::Brotli),
            _ => Err(CompressionError::Unknown(content_encoding.chars().take(64).collect())),
        }
    }

    /// Its name, as a raw record carries it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
        }
    }
}

/// Decompresses a body to at most `limit` bytes; an identity body is borrowed.
///
/// `reserve` is told of every growth of the output before it happens and can refuse it, so that a caller may charge the
/// memory to a budget of its own.
///
/// # Errors
/// [`CompressionError`], or what `reserve` says. Never more than `limit` bytes and one step were allocated.
pub fn decompress<E: From<CompressionError>>(
    encoding: Encoding,
    body: &[u8],
    limit: usize,
    reserve: impl FnMut(usize) -> Result<(), E>,
) -> Result<Cow<'_, [u8]>, E> {
    let output = Output { encoding, limit };
    let decoded = match encoding {
        Encoding::Identity if body.len() > limit => return Err(CompressionError::TooLarge { limit }.into()),
        Encoding::Identity => return Ok(Cow::Borrowed(body)),
        Encoding::Gzip => output.read(flate2::read::MultiGzDecoder::new(body), reserve),
        Encoding::Deflate if is_zlib(body) => output.read(flate2::read::ZlibDecoder::new(body), reserve),
        Encoding::Deflate => output.read(flate2::read::DeflateDecoder::new(body), reserve),
        Encoding::Zstd => output.read(zstd_reader(body).map_err(|_| output.corrupt())?, reserve),
        Encoding::Brotli => output.read(brotli::Decompressor::new(body, BROTLI_BUFFER), reserve),
    };
    decoded.map(Cow::Owned)
}

/// A zlib header is a multiple of 31 and names method 8 (RFC 1950, 2.2).
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [cmf, flg, ..] if cmf & 0x0F == 8 && (u16::from(*cmf) << 8 | u16::from(*flg)) % 31 == 0)
}

fn zstd_reader(body: &[u8]) -> io::Result<zstd::Decoder<'_, &[u8]>> {
    let mut decoder = zstd::Decoder::with_buffer(body)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

#[derive(Clone, Copy)]
struct Output {
    encoding: Encoding,
    limit: usize,
}

impl Output {
    fn corrupt(self) -> CompressionError {
        CompressionError::Corrupt { encoding: self.encoding.as_str() }
    }

    fn read<E: From<CompressionError>>(
        self,
        mut decoder: impl Read,
        mut reserve: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Vec<u8>, E> {
        let mut bytes = Vec::new();
        loop {
            // Doubling keeps copies few; the bound keeps a bomb from ever holding more than the limit.
            let step = bytes.len().max(STEP).min((self.limit + 1).saturating_sub(bytes.len()));
            reserve(step)?;
            bytes.reserve_exact(step);
            let read =
                decoder.by_ref().take(step as u64).read_to_end(&mut bytes).map_err(|_| self.corrupt())?;
            if bytes.len() > self.limit {
                return Err(CompressionError::TooLarge { limit: self.limit }.into());
            }
            if read < step {
                return Ok(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn br(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        brotli::CompressorWriter::new(&mut out, 4096, 5, 22).write_all(bytes).unwrap();
        out
    }

    fn decode(name: &str, body: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
        decompress(Encoding::of(name, body)?, body, limit, |_| Ok(())).map(Cow::into_owned)
    }

    #[test]
    fn every_encoding_gives_the_bytes_back() {
        let text = br#"{"type":"log"}"#.repeat(50);
        let zstd = zstd::encode_all(text.as_slice(), 3).unwrap();
        let cases = [
            ("gzip", gzip(&text)),
            ("X-GZIP", gzip(&text)),
            ("deflate", zlib(&text)),
            ("deflate", raw_deflate(&text)),
            ("zstd", zstd.clone()),
            ("br", br(&text)),
            ("identity", text.clone()),
            ("", text.clone()),
            ("", gzip(&text)),
            ("", zstd),
        ];
        for (encoding, body) in cases {
            assert_eq!(decode(encoding, &body, 10_000).unwrap(), text, "{encoding}");
        }
    }

    #[test]
    fn the_limit_holds_to_the_byte_for_every_encoding() {
        let text = vec![b'a'; 1000];
        let zstd = zstd::encode_all(text.as_slice(), 3).unwrap();
        let bodies =
            [("gzip", gzip(&text)), ("zstd", zstd), ("br", br(&text)), ("deflate", zlib(&text)), ("", text)];
        for (encoding, body) in bodies {
            assert!(decode(encoding, &body, 1000).is_ok(), "{encoding}");
            let over = decode(encoding, &body, 999);
            assert!(matches!(over, Err(CompressionError::TooLarge { limit: 999 })), "{encoding}");
        }
    }

    #[test]
    fn a_bomb_reserves_no_more_than_the_limit() {
        let bomb = gzip(&vec![0; 50_000_000]);
        let mut reserved = 0;
        let result = decompress(Encoding::Gzip, &bomb, 1_000_000, |more| {
            reserved += more;
            Ok::<_, CompressionError>(())
        });
        assert!(matches!(result, Err(CompressionError::TooLarge { limit: 1_000_000 })));
        assert!(reserved <= 1_000_001, "{reserved}");
    }

    #[test]
    fn garbage_and_cut_bodies_are_errors() {
        let cut = gzip(&[b'x'; 500]);
        for (encoding, body) in
            [("gzip", &cut[..cut.len() - 4]), ("zstd", b"nonsense"), ("br", b"\xff\xff\xff\xff")]
        {
            let error = decode(encoding, body, 10_000).unwrap_err();
            assert!(matches!(error, CompressionError::Corrupt { .. }), "{encoding}: {error}");
        }
        assert!(matches!(decode("gzip, br", b"", 10), Err(CompressionError::Unknown(_))));
    }
}
