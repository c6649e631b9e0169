//! Compression of requests and responses, as ClickHouse clients use it.
//!
//! Two kinds: HTTP's content encodings (lz4 frames, zstd, gzip, deflate), and ClickHouse's own framing (`decompress=1`,
//! `compress=1`): a CityHash128 checksum, a method byte, two sizes, an LZ4 or ZSTD block. Decoders are readers, so that
//! a body is never in memory as a whole; what one frame may unpack to is bounded, since its size is the sender's claim.

use std::io::{self, BufRead, BufReader, Read, Write};

use cityhash_rs::cityhash_102_128;
use flate2::Compression;
use flate2::bufread::ZlibDecoder;
use flate2::read::MultiGzDecoder;
use flate2::write::{GzEncoder, ZlibEncoder};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use crate::error::{Code, ServerError};

const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 9;
const METHOD_NONE: u8 = 0x02;
const METHOD_LZ4: u8 = 0x82;
const METHOD_ZSTD: u8 = 0x90;

/// Largest block that is accepted or unpacked; ClickHouse refuses more than 1 GiB, its clients send at most 1 MiB.
const MAX_BLOCK_BYTES: usize = 128 << 20;

/// How a request's body is encoded over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As it is.
    Identity,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// zlib, which HTTP calls deflate.
    Deflate,
}

impl Encoding {
    /// Reads a `Content-Encoding`.
    ///
    /// # Errors
    /// It is none of those known here.
    pub(crate) fn of_content(header: &str) -> Result<Self, ServerError> {
        Self::named(header.trim()).ok_or_else(|| {
            ServerError::new(
                Code::UnknownCompressionMethod,
                format_args!("Unknown content encoding {header:?}"),
            )
        })
    }

    /// Picks from an `Accept-Encoding` the way a server does: the cheapest to make first.
    pub(crate) fn accepted(header: &str) -> Self {
        let offered: Vec<Self> = header
            .split(',')
            .filter(|offer| !offer.replace(' ', "").ends_with(";q=0"))
            .filter_map(|offer| Self::named(offer.split(';').next().unwrap_or_default().trim()))
            .collect();
        [Self::Lz4, Self::Zstd, Self::Gzip, Self::Deflate]
            .into_iter()
            .find(|encoding| offered.contains(encoding))
            .unwrap_or(Self::Identity)
    }

    fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Self::Identity),
            "lz4" => Some(Self::Lz4),
            "zstd" => Some(Self::Zstd),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }

    /// The header's value; None for identity.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Lz4 => Some("lz4"),
            Self::Zstd => Some("zstd"),
            Self::Gzip => Some("gzip"),
            Self::Deflate => Some("deflate"),
        }
    }

    /// Wraps a body into the decoder for this encoding; it may read from the body at once.
    ///
    /// Every decoder reads the body to its own end, so that a body that was cut is never taken for a complete one.
    ///
    /// # Errors
    /// The decoder cannot be set up.
    pub(crate) fn decoder<'a>(self, body: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::Identity => Box::new(body),
            Self::Lz4 => Box::new(Lz4Reader::new(body)),
            Self::Zstd => Box::new(zstd::Decoder::new(body)?),
            Self::Gzip => Box::new(MultiGzDecoder::new(body)),
            Self::Deflate => Box::new(ZlibReader(ZlibDecoder::new(BufReader::new(body)))),
        })
    }
}

/// Counts what a decoder takes from its source, and notes the source's end.
struct Watched<R> {
    source: R,
    taken: u64,
    ended: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.taken += count as u64;
        self.ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

/// Reads any number of LZ4 frames: clients send one per block.
///
/// The decoder answers "nothing" alike at the end of a frame and at the end of a source that stops inside of one; here
/// the first goes on to the next frame, and the second is an error.
struct Lz4Reader<R: Read> {
    frames: FrameDecoder<Watched<R>>,
}

impl<R: Read> Lz4Reader<R> {
    fn new(source: R) -> Self {
        Self { frames: FrameDecoder::new(Watched { source, taken: 0, ended: false }) }
    }
}

impl<R: Read> Read for Lz4Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.frames.read(buffer)?;
            let watched = self.frames.get_mut();
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            if watched.ended {
                return if watched.taken == 0 { Ok(0) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            watched.taken = 0;
        }
    }
}

/// Reads one zlib stream, after which nothing may follow.
struct ZlibReader<R>(ZlibDecoder<BufReader<R>>);

impl<R: Read> Read for ZlibReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        if count == 0 && !buffer.is_empty() && !self.0.get_mut().fill_buf()?.is_empty() {
            return Err(invalid("data follows the end of the compressed body"));
        }
        Ok(count)
    }
}

/// Reads ClickHouse's own compressed blocks.
pub(crate) struct BlockReader<R> {
    source: R,
    block: Vec<u8>,
    at: usize,
}

impl<R: Read> BlockReader<R> {
    /// Reads blocks from `source` until it ends.
    pub(crate) fn new(source: R) -> Self {
        Self { source, block: Vec::new(), at: 0 }
    }

    /// Reads the next block; false at a clean end.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut head = [0_u8; CHECKSUM_BYTES + HEADER_BYTES];
        if self.source.read(&mut head[..1])? == 0 {
            return Ok(false);
        }
        self.source.read_exact(&mut head[1..])?;
        let (checksum, header) = head.split_at(CHECKSUM_BYTES);
        let size_at = |at: usize| -> usize {
            let mut bytes = [0_u8; 4];
            bytes.copy_from_slice(&header[at..at + 4]);
            u32::from_le_bytes(bytes) as usize
        };
        let (packed, unpacked) = (size_at(1), size_at(5));
        if !(HEADER_BYTES..=MAX_BLOCK_BYTES).contains(&packed) || unpacked > MAX_BLOCK_BYTES {
            return Err(invalid("a compressed block has an impossible size"));
        }
        let mut data = header.to_vec();
        // Grows with what really arrives, not with what the header claims.
        (&mut self.source).take((packed - HEADER_BYTES) as u64).read_to_end(&mut data)?;
        if data.len() != packed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if checksum_of(&data) != checksum {
            return Err(invalid("a compressed block's checksum does not match"));
        }
        let body = &data[HEADER_BYTES..];
        self.block = match header[0] {
            METHOD_NONE => body.to_vec(),
            METHOD_LZ4 => lz4_flex::block::decompress(body, unpacked).map_err(invalid)?,
            METHOD_ZSTD => zstd::bulk::decompress(body, unpacked)?,
            _ => return Err(invalid("a compressed block has an unknown method")),
        };
        self.at = 0;
        if self.block.len() == unpacked {
            Ok(true)
        } else {
            Err(invalid("a compressed block has another size"))
        }
    }
}

impl<R: Read> Read for BlockReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.block.len() - self.at);
        buffer[..count].copy_from_slice(&self.block[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn invalid(message: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_string())
}

/// CityHash128 of version 1.0.2, low half first, as ClickHouse writes it.
fn checksum_of(data: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = cityhash_102_128(data);
    let mut out = [0_u8; CHECKSUM_BYTES];
    out[..8].copy_from_slice(&((hash >> 64) as u64).to_le_bytes());
    out[8..].copy_from_slice(&(hash as u64).to_le_bytes());
    out
}

/// Compresses a response piece by piece; every piece can be unpacked when it arrives.
pub(crate) enum Encoder {
    /// As it is.
    Identity,
    /// LZ4 frames.
    Lz4(Box<FrameEncoder<Vec<u8>>>),
    /// Zstandard.
    Zstd(zstd::Encoder<'static, Vec<u8>>),
    /// gzip.
    Gzip(GzEncoder<Vec<u8>>),
    /// zlib.
    Deflate(ZlibEncoder<Vec<u8>>),
    /// ClickHouse's own blocks (`compress=1`).
    Blocks,
}

impl Encoder {
    /// Makes the encoder for a content encoding.
    ///
    /// # Errors
    /// The encoder cannot be set up.
    pub(crate) fn new(encoding: Encoding) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Identity => Self::Identity,
            Encoding::Lz4 => {
                let info =
                    FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max256KB);
                Self::Lz4(Box::new(FrameEncoder::with_frame_info(info, Vec::new())))
            }
            Encoding::Zstd => Self::Zstd(zstd::Encoder::new(Vec::new(), 1)?),
            Encoding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Encoding::Deflate => Self::Deflate(ZlibEncoder::new(Vec::new(), Compression::fast())),
        })
    }

    /// Compresses one piece.
    ///
    /// # Errors
    /// The encoder fails.
    pub(crate) fn piece(&mut self, data: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity => Ok(data.to_vec()),
            Self::Blocks => Ok(data.chunks(1 << 20).flat_map(lz4_block).collect()),
            Self::Lz4(encoder) => {
                encoder.write_all(data)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Self::Zstd(encoder) => {
                encoder.write_all(data)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Self::Gzip(encoder) => {
                encoder.write_all(data)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Self::Deflate(encoder) => {
                encoder.write_all(data)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }

    /// Ends the stream and gives its last bytes.
    ///
    /// # Errors
    /// The encoder fails.
    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity | Self::Blocks => Ok(Vec::new()),
            Self::Lz4(encoder) => encoder.finish().map_err(invalid),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Deflate(encoder) => encoder.finish(),
        }
    }
}

/// Makes one of ClickHouse's own blocks.
fn lz4_block(data: &[u8]) -> Vec<u8> {
    let packed = lz4_flex::block::compress(data);
    let mut block = vec![0_u8; CHECKSUM_BYTES];
    block.push(METHOD_LZ4);
    block.extend_from_slice(&((packed.len() + HEADER_BYTES) as u32).to_le_bytes());
    block.extend_from_slice(&(data.len() as u32).to_le_bytes());
    block.extend_from_slice(&packed);
    let checksum = checksum_of(&block[CHECKSUM_BYTES..]);
    block[..CHECKSUM_BYTES].copy_from_slice(&checksum);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(mut reader: impl Read) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        reader.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_encoding_returns_what_it_was_given() {
        let pieces: [&[u8]; 3] = [b"hello ", &[7; 300_000], b" world"];
        let whole = pieces.concat();
        for encoding in [Encoding::Identity, Encoding::Lz4, Encoding::Zstd, Encoding::Gzip, Encoding::Deflate]
        {
            let mut encoder = Encoder::new(encoding).unwrap();
            let mut packed: Vec<u8> = pieces.iter().flat_map(|piece| encoder.piece(piece).unwrap()).collect();
            packed.extend(encoder.finish().unwrap());
            let unpacked = read_all(encoding.decoder(packed.as_slice()).unwrap()).unwrap();
            assert_eq!(unpacked, whole, "{encoding:?}");
        }
        let mut packed = Encoder::Blocks.piece(&whole).unwrap();
        packed.extend(Encoder::Blocks.piece(b"!").unwrap());
        assert_eq!(read_all(BlockReader::new(packed.as_slice())).unwrap(), [whole.as_slice(), b"!"].concat());
    }

    #[test]
    fn every_frame_of_a_body_is_read() {
        for encoding in [Encoding::Lz4, Encoding::Zstd, Encoding::Gzip] {
            let frame = |data: &[u8]| {
                let mut encoder = Encoder::new(encoding).unwrap();
                [encoder.piece(data).unwrap(), encoder.finish().unwrap()].concat()
            };
            let body = [frame(&[1; 70_000]), frame(b""), frame(&[2; 10])].concat();
            let unpacked = read_all(encoding.decoder(body.as_slice()).unwrap()).unwrap();
            assert_eq!(unpacked, [vec![1; 70_000], vec![2; 10]].concat(), "{encoding:?}");
        }
    }

    #[test]
    fn data_after_a_zlib_stream_is_not_dropped_in_silence() {
        let mut encoder = Encoder::new(Encoding::Deflate).unwrap();
        let body = [encoder.piece(b"a").unwrap(), encoder.finish().unwrap(), b"b".to_vec()].concat();
        assert!(Encoding::Deflate.decoder(body.as_slice()).and_then(read_all).is_err());
    }

    #[test]
    fn body_cut_inside_a_frame_is_an_error_and_so_is_one_that_breaks_off_after_it() {
        /// A source that fails after its bytes, as a body does whose sender vanished.
        struct Vanishing<'a>(&'a [u8]);
        impl Read for Vanishing<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.0.is_empty() {
                    Err(io::ErrorKind::ConnectionAborted.into())
                } else {
                    self.0.read(buffer)
                }
            }
        }
        let noise: Vec<u8> =
            (0..600_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for encoding in [Encoding::Lz4, Encoding::Zstd, Encoding::Gzip, Encoding::Deflate] {
            let mut encoder = Encoder::new(encoding).unwrap();
            let mut body = encoder.piece(&noise).unwrap();
            let mut cuts = vec![1, 5, 8, body.len() / 3, body.len()];
            body.extend(encoder.finish().unwrap());
            cuts.push(body.len() - 1);
            for cut in cuts {
                let read = encoding.decoder(&body[..cut]).and_then(read_all);
                assert!(read.is_err(), "{encoding:?} cut at {cut} of {}", body.len());
            }
            let read = encoding.decoder(Vanishing(&body)).and_then(read_all);
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted, "{encoding:?}");
        }
    }

    #[test]
    fn damaged_or_cut_block_is_an_error() {
        let good = lz4_block(&[1; 1000]);
        for cut in 1..good.len() {
            assert!(read_all(BlockReader::new(&good[..cut])).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(read_all(BlockReader::new(bad.as_slice())).is_err(), "flipped at {at}");
        }
    }

    #[test]
    fn client_gets_an_encoding_it_offers() {
        assert_eq!(Encoding::accepted("gzip, deflate, lz4;q=0"), Encoding::Gzip);
        assert_eq!(Encoding::accepted("lz4,zstd"), Encoding::Lz4);
        assert_eq!(Encoding::accepted("br"), Encoding::Identity);
        assert!(Encoding::of_content("br").is_err());
    }
}
