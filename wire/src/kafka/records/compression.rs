//! Compression of the records part of a batch.
//!
//! Snappy is framed as Java's `SnappyOutputStream` frames it; raw blocks, which some clients send,
//! are read too. Lz4 frames have independent blocks, the only kind Java's client reads.

use std::io::{self, Read, Write};

/// How the records of a batch are compressed; the number is the one on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Compression {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

/// Why records could not be compressed or decompressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    #[error("decompressed records exceed {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("{codec} data is malformed")]
    Malformed { codec: &'static str, source: io::Error },
}

impl Compression {
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this number on the wire.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// The name in `compression.type`, and in `kafka-dump-log`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec named so in `compression.type`; Kafka's `uncompressed` is `none`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "uncompressed" => Some(Self::None),
            _ => Self::ALL.into_iter().find(|codec| codec.name() == name),
        }
    }

    /// Appends `plain` compressed to `out`.
    pub(super) fn compress(self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
        self.compress_io(plain, out).map_err(|source| self.malformed(source))
    }

    fn compress_io(self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::None => out.extend_from_slice(plain),
            Self::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(out, flate2::Compression::default());
                encoder.write_all(plain)?;
                encoder.finish()?;
            }
            Self::Snappy => compress_snappy(plain, out)?,
            Self::Lz4 => {
                let frame = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, out);
                encoder.write_all(plain)?;
                encoder.finish().map_err(io::Error::other)?;
            }
            Self::Zstd => {
                zstd::stream::copy_encode(plain, out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            }
        }
        Ok(())
    }

    /// Decompresses at most `limit_bytes`.
    pub(super) fn decompress(
        self,
        packed: &[u8],
        limit_bytes: usize,
    ) -> Result<Vec<u8>, CompressionError> {
        let too_large = CompressionError::TooLarge { limit_bytes };
        let plain = match self {
            Self::None => Ok(packed.to_vec()),
            Self::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(packed), limit_bytes),
            Self::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(packed), limit_bytes),
            Self::Zstd => decompress_zstd(packed, limit_bytes),
            Self::Snappy => match decompress_snappy(packed, limit_bytes) {
                Err(SnappyError::TooLarge) => return Err(too_large),
                Err(SnappyError::Io(source)) => Err(source),
                Ok(plain) => Ok(plain),
            },
        }
        .map_err(|source| self.malformed(source))?;
        if plain.len() > limit_bytes { Err(too_large) } else { Ok(plain) }
    }

    fn malformed(self, source: io::Error) -> CompressionError {
        CompressionError::Malformed { codec: self.name(), source }
    }
}

/// Reads to the end, or one byte past the limit.
fn read_bounded(reader: impl Read, limit_bytes: usize) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    reader.take(limit_bytes as u64 + 1).read_to_end(&mut plain)?;
    Ok(plain)
}

fn decompress_zstd(packed: &[u8], limit_bytes: usize) -> io::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
    // A frame header may ask for a window of gigabytes: grant what the limit could use, at least
    // the 8 MiB that every encoder may take for granted (RFC 8878) and at most zstd's own default.
    decoder.window_log_max(limit_bytes.max(1).ilog2().saturating_add(1).clamp(23, 27))?;
    read_bounded(decoder, limit_bytes)
}

/// `SnappyOutputStream`: a magic, version 1, compatible with 1, then blocks with their length.
const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";
const XERIAL_MAGIC_BYTES: usize = 8;
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Snappy's densest element makes 64 bytes of 3.
const SNAPPY_RATIO_MAX: usize = 22;

fn compress_snappy(plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(XERIAL_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    for block in plain.chunks(XERIAL_BLOCK_BYTES) {
        let start = out.len() + 4;
        out.resize(start + snap::raw::max_compress_len(block.len()), 0);
        let packed_bytes = encoder.compress(block, &mut out[start..]).map_err(io::Error::other)?;
        out.truncate(start + packed_bytes);
        // A block of 32 KiB packs into less than 2 GiB.
        out[start - 4..start].copy_from_slice(&(packed_bytes as u32).to_be_bytes());
    }
    Ok(())
}

enum SnappyError {
    TooLarge,
    Io(io::Error),
}

fn decompress_snappy(packed: &[u8], limit_bytes: usize) -> Result<Vec<u8>, SnappyError> {
    let malformed = |text: &str| SnappyError::Io(io::Error::new(io::ErrorKind::InvalidData, text));
    let mut plain = Vec::new();
    let mut decoder = snap::raw::Decoder::new();
    let mut block = |block: &[u8], plain: &mut Vec<u8>| {
        let invalid = |error| SnappyError::Io(io::Error::new(io::ErrorKind::InvalidData, error));
        let bytes = snap::raw::decompress_len(block).map_err(invalid)?;
        if bytes > limit_bytes - plain.len().min(limit_bytes) {
            return Err(SnappyError::TooLarge);
        }
        if bytes / SNAPPY_RATIO_MAX > block.len() {
            return Err(malformed("block announces more than it can hold"));
        }
        let start = plain.len();
        plain.resize(start + bytes, 0);
        decoder.decompress(block, &mut plain[start..]).map_err(invalid)?;
        Ok(())
    };
    if !packed.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]) {
        block(packed, &mut plain)?;
        return Ok(plain);
    }
    let mut rest = packed.get(XERIAL_HEADER.len()..).ok_or_else(|| malformed("short header"))?;
    while !rest.is_empty() {
        let (length, after) =
            rest.split_first_chunk::<4>().ok_or_else(|| malformed("short block length"))?;
        let (packed_block, after) = after
            .split_at_checked(u32::from_be_bytes(*length) as usize)
            .ok_or_else(|| malformed("short block"))?;
        block(packed_block, &mut plain)?;
        rest = after;
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(codec: Compression, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        codec.compress(plain, &mut out).unwrap();
        out
    }

    #[test]
    fn every_codec_round_trips() {
        let long: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for codec in Compression::ALL {
            for plain in [&b""[..], b"a", &long] {
                let packed = packed(codec, plain);
                assert_eq!(codec.decompress(&packed, plain.len()).unwrap(), plain, "{codec:?}");
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        for codec in Compression::ALL {
            let bomb = packed(codec, &vec![0; 10_000_000]);
            assert!(
                matches!(
                    codec.decompress(&bomb, 1 << 20),
                    Err(CompressionError::TooLarge { limit_bytes: 0x10_0000 })
                ),
                "{codec:?}"
            );
        }
    }

    #[test]
    fn raw_snappy_is_read() {
        let plain = b"raw raw raw raw raw raw raw raw raw raw";
        let raw = snap::raw::Encoder::new().compress_vec(plain).unwrap();
        assert_eq!(Compression::Snappy.decompress(&raw, 1000).unwrap(), plain);
    }

    #[test]
    fn a_snappy_length_is_not_believed() {
        // Announces 2^31 bytes in a block of six.
        let lie = [0x80, 0x80, 0x80, 0x80, 0x08, 0x00];
        assert!(matches!(
            Compression::Snappy.decompress(&lie, usize::MAX >> 1),
            Err(CompressionError::Malformed { .. })
        ));
    }
}
