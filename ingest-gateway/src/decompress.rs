//! Content encodings: what a body says it is, and its bytes decompressed under a bound.
//!
//! Output is produced in steps and stops at the limit, so that a bomb costs no more than the limit (design: "What
//! happens when").

use std::io::{self, Read};

use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use bytes::Bytes;

use crate::error::Refusal;

/// Output per step; also the first allocation.
const STEP: usize = 64 * 1024;
/// Largest window a zstd frame may ask for, as a power of two: 8 MB, what RFC 8878 recommends decoders to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const BROTLI_BUFFER: usize = 4096;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
    Brotli,
}

impl Encoding {
    /// What the headers say.
    ///
    /// # Errors
    /// [`Refusal::UnknownEncoding`] for an unknown one, or several at once.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = values.next() else { return Ok(Self::Identity) };
        let text = value.to_str().map_err(|_| Refusal::UnknownEncoding)?;
        if values.next().is_some() {
            return Err(Refusal::UnknownEncoding);
        }
        Ok(match text.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Self::Identity,
            "gzip" | "x-gzip" => Self::Gzip,
            "deflate" => Self::Deflate,
            "zstd" => Self::Zstd,
            "br" => Self::Brotli,
            _ => return Err(Refusal::UnknownEncoding),
        })
    }

    /// Its name, as the record carries it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
        }
    }
}

/// The body decompressed, of at most `limit` bytes; `reserve` is told of every growth before it happens.
///
/// # Errors
/// [`Refusal::DecodedTooLarge`], [`Refusal::BadCompression`], or what `reserve` says.
pub(crate) fn decompress(
    encoding: Encoding,
    body: &Bytes,
    limit: usize,
    reserve: impl FnMut(usize) -> Result<(), Refusal>,
) -> Result<Bytes, Refusal> {
    let input = &body[..];
    let bad = |_: io::Error| Refusal::BadCompression(encoding.as_str());
    match encoding {
        Encoding::Identity if body.len() > limit => Err(Refusal::DecodedTooLarge { limit }),
        Encoding::Identity => Ok(body.clone()),
        Encoding::Gzip => read_all(flate2::read::MultiGzDecoder::new(input), encoding, limit, reserve),
        // Some senders mean the bare format by "deflate"; a zlib header is recognisable (RFC 1950, 2.2).
        Encoding::Deflate if has_zlib_header(input) => {
            read_all(flate2::read::ZlibDecoder::new(input), encoding, limit, reserve)
        }
        Encoding::Deflate => read_all(flate2::read::DeflateDecoder::new(input), encoding, limit, reserve),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(bad)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(bad)?;
            read_all(decoder, encoding, limit, reserve)
        }
        Encoding::Brotli => {
            read_all(brotli::Decompressor::new(input, BROTLI_BUFFER), encoding, limit, reserve)
        }
    }
}

fn has_zlib_header(input: &[u8]) -> bool {
    matches!(input, [method, flags, ..]
        if method & 0x0F == 8 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0)
}

fn read_all(
    mut decoder: impl Read,
    encoding: Encoding,
    limit: usize,
    mut reserve: impl FnMut(usize) -> Result<(), Refusal>,
) -> Result<Bytes, Refusal> {
    let mut out = Vec::new();
    loop {
        // Doubling keeps copies few; the bound keeps a bomb from ever holding more than the limit.
        let step = out.len().max(STEP).min(limit.saturating_add(1).saturating_sub(out.len()));
        reserve(step)?;
        out.reserve_exact(step);
        let wanted = u64::try_from(step).unwrap_or(u64::MAX);
        let got = decoder
            .by_ref()
            .take(wanted)
            .read_to_end(&mut out)
            .map_err(|_| Refusal::BadCompression(encoding.as_str()))?;
        if out.len() > limit {
            return Err(Refusal::DecodedTooLarge { limit });
        }
        if got < step {
            return Ok(Bytes::from(out));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().into()
    }

    fn all_encodings(bytes: &[u8]) -> Vec<(Encoding, Bytes)> {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(bytes).unwrap();
        let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        deflate.write_all(bytes).unwrap();
        let mut brotli = brotli::CompressorWriter::new(Vec::new(), 4096, 4, 20);
        brotli.write_all(bytes).unwrap();
        vec![
            (Encoding::Identity, Bytes::copy_from_slice(bytes)),
            (Encoding::Gzip, gzip(bytes)),
            (Encoding::Deflate, zlib.finish().unwrap().into()),
            (Encoding::Deflate, deflate.finish().unwrap().into()),
            (Encoding::Zstd, zstd::encode_all(bytes, 3).unwrap().into()),
            (Encoding::Brotli, brotli.into_inner().into()),
        ]
    }

    #[test]
    fn every_encoding_gives_the_bytes_back_up_to_the_limit_and_no_further() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
        for (encoding, body) in all_encodings(&bytes) {
            let whole = decompress(encoding, &body, bytes.len(), |_| Ok(())).unwrap();
            assert_eq!(whole, bytes, "{encoding:?}");
            let cut = decompress(encoding, &body, bytes.len() - 1, |_| Ok(()));
            assert!(matches!(cut, Err(Refusal::DecodedTooLarge { .. })), "{encoding:?}");
        }
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_limit() {
        let bomb = gzip(&vec![0; 50_000_000]);
        assert!(bomb.len() < 100_000);
        let mut reserved = 0;
        let result = decompress(Encoding::Gzip, &bomb, 1_000_000, |more| {
            reserved += more;
            Ok(())
        });
        assert!(matches!(result, Err(Refusal::DecodedTooLarge { limit: 1_000_000 })));
        assert!(reserved <= 1_000_001, "{reserved}");
    }

    #[test]
    fn truncated_or_foreign_bytes_are_bad_input() {
        for (encoding, body) in all_encodings(&[7; 100_000]).into_iter().skip(1) {
            let half = body.slice(..body.len() / 2);
            let result = decompress(encoding, &half, 1_000_000, |_| Ok(()));
            assert!(matches!(result, Err(Refusal::BadCompression(_))), "{encoding:?}: {result:?}");
        }
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let result = decompress(encoding, &Bytes::from_static(b"{\"type\":1}"), 1_000, |_| Ok(()));
            assert!(matches!(result, Err(Refusal::BadCompression(_))), "{encoding:?}");
        }
    }
}
