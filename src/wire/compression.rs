//! The four codecs of record batches, by well-kept libraries. Decompression is bounded by what the caller allows, never by
//! what the bytes claim: a stream that promises or holds more fails, and no more than about twice the bound is reserved.
//!
//! ```text
//! gzip    RFC 1952, members one after the other       lz4    LZ4 frame (magic 2 batches have correct frame headers)
//! zstd    RFC 8878 frames                             snappy Java's framing: magic, two i32, then (i32 length, block)*;
//!                                                            or one bare block, as some clients write
//! ```

use std::io::{self, Read, Write};

use crate::wire::batch::Codec;

/// Java's snappy framing: magic, version 1, readable by version 1.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
/// What Java puts in one snappy block.
const XERIAL_BLOCK_SIZE: usize = 32 * 1024;

/// Why bytes could not be decompressed or compressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    #[error("more than {0} bytes after decompression")]
    TooLarge(usize),
    #[error("not a {codec:?} stream: {reason}")]
    Corrupt { codec: Codec, reason: String },
}

/// Decompresses all of `bytes`; fails beyond `size_max` bytes of output.
pub fn decompress_bounded(codec: Codec, bytes: &[u8], size_max: usize) -> Result<Vec<u8>, CompressionError> {
    match codec {
        Codec::None if bytes.len() > size_max => Err(CompressionError::TooLarge(size_max)),
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => read_bounded(codec, flate2::read::MultiGzDecoder::new(bytes), bytes.len(), size_max),
        Codec::Lz4 => read_bounded(codec, lz4_flex::frame::FrameDecoder::new(bytes), bytes.len(), size_max),
        Codec::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(|error| corrupt(codec, error))?;
            read_bounded(codec, decoder, bytes.len(), size_max)
        }
        Codec::Snappy => decompress_snappy(bytes, size_max),
    }
}

/// Compresses `bytes`. `level` is Kafka's `compression.<codec>.level`; snappy has none, and lz4 has one speed here.
pub fn compress(codec: Codec, level: Option<i32>, bytes: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let out = Vec::with_capacity(bytes.len() / 2 + 64);
    match codec {
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => {
            // -1 is zlib's default.
            let level = level.and_then(|level| u32::try_from(level).ok());
            let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
            let mut encoder = flate2::write::GzEncoder::new(out, level);
            encoder.write_all(bytes).and_then(|()| encoder.finish()).map_err(|error| corrupt(codec, error))
        }
        Codec::Snappy => compress_snappy(bytes, out),
        Codec::Lz4 => {
            // Java's reader takes independent blocks only.
            let info = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Independent)
                .block_size(lz4_flex::frame::BlockSize::Max64KB);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
            encoder.write_all(bytes).map_err(|error| corrupt(codec, error))?;
            encoder.finish().map_err(|error| corrupt(codec, error))
        }
        Codec::Zstd => {
            let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            let mut encoder = zstd::stream::write::Encoder::new(out, level).map_err(|error| corrupt(codec, error))?;
            encoder.write_all(bytes).and_then(|()| encoder.finish()).map_err(|error| corrupt(codec, error))
        }
    }
}

fn read_bounded(codec: Codec, stream: impl Read, held: usize, size_max: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::with_capacity(held.saturating_mul(2).min(size_max));
    // One byte more than allowed tells "too much" from "just enough".
    let taken = (size_max as u64).saturating_add(1);
    stream.take(taken).read_to_end(&mut out).map_err(|error| corrupt(codec, error))?;
    if out.len() > size_max { Err(CompressionError::TooLarge(size_max)) } else { Ok(out) }
}

fn decompress_snappy(bytes: &[u8], size_max: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    if !bytes.starts_with(XERIAL_MAGIC) {
        snappy_block(bytes, &mut out, size_max)?;
        return Ok(out);
    }
    let short = || corrupt(Codec::Snappy, "it ends inside a block");
    let mut rest = bytes.get(XERIAL_HEADER.len()..).ok_or_else(short)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| short())?;
        let (block, after) = after.split_at_checked(length).ok_or_else(short)?;
        snappy_block(block, &mut out, size_max)?;
        rest = after;
    }
    Ok(out)
}

/// A block says how long it becomes; that is checked before memory is reserved for it.
fn snappy_block(block: &[u8], out: &mut Vec<u8>, size_max: usize) -> Result<(), CompressionError> {
    let size = snap::raw::decompress_len(block).map_err(|error| corrupt(Codec::Snappy, error))?;
    if size > size_max - out.len() {
        return Err(CompressionError::TooLarge(size_max));
    }
    // Snappy cannot expand more than about 64/3 times, so a larger claim is a lie not worth reserving for.
    if size / 64 > block.len() {
        return Err(corrupt(Codec::Snappy, "a block claims more than it can hold"));
    }
    let start = out.len();
    out.resize(start + size, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..]);
    written.map_err(|error| corrupt(Codec::Snappy, error)).map(|_| ())
}

fn compress_snappy(bytes: &[u8], mut out: Vec<u8>) -> Result<Vec<u8>, CompressionError> {
    let mut encoder = snap::raw::Encoder::new();
    out.extend_from_slice(&XERIAL_HEADER);
    for block in bytes.chunks(XERIAL_BLOCK_SIZE) {
        let block = encoder.compress_vec(block).map_err(|error| corrupt(Codec::Snappy, error))?;
        out.extend_from_slice(&(block.len() as i32).to_be_bytes());
        out.extend_from_slice(&block);
    }
    Ok(out)
}

fn corrupt(codec: Codec, reason: impl ToString) -> CompressionError {
    CompressionError::Corrupt { codec, reason: reason.to_string() }
}

impl From<CompressionError> for io::Error {
    fn from(error: CompressionError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// Made with Python: gzip, cramjam, python-lz4, zstandard.
    const VECTORS: [(&str, Codec, &str); 7] = [
        (
            "gzip",
            Codec::Gzip,
            "1f8b08000000000002034b2d4b2daa5448ce2f4a55c82c564854482acacf4e2db256481d15078b0300f701144e20010000",
        ),
        (
            "one bare block",
            Codec::Snappy,
            "a0025c657665727920636f726520697320612062726f6b65723b20fe1800fe1800fe1800fe18001118",
        ),
        (
            "two blocks in Java's framing",
            Codec::Snappy,
            "82534e415050590000000001000000010000002190015c657665727920636f726520697320612062726f6b65723b20fe1800de18000000\
             002190015c657665727920636f726520697320612062726f6b65723b20fe1800de1800",
        ),
        (
            "independent blocks, no size",
            Codec::Lz4,
            "04224d1860408223000000ff09657665727920636f726520697320612062726f6b65723b201800f0506b65723b2000000000",
        ),
        (
            "linked blocks, content checksum",
            Codec::Lz4,
            "04224d186c402001000000000000d023000000ff09657665727920636f726520697320612062726f6b65723b201800f0506b65723b2000\
             000000e3ecdede",
        ),
        (
            "with content size",
            Codec::Zstd,
            "28b52ffd602000fd0000c0657665727920636f726520697320612062726f6b65723b20010014ac3ac7",
        ),
        ("streamed", Codec::Zstd, "28b52ffd0058fd0000c0657665727920636f726520697320612062726f6b65723b20010014ac3ac7"),
    ];

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn reads_what_others_wrote() {
        let text = "every core is a broker; ".repeat(12);
        for (what, codec, hex) in VECTORS {
            let bytes = unhex(hex);
            assert_eq!(decompress_bounded(codec, &bytes, text.len()).unwrap(), text.as_bytes(), "{codec:?}: {what}");
            let below = decompress_bounded(codec, &bytes, text.len() - 1);
            assert!(matches!(below, Err(CompressionError::TooLarge(_))), "{codec:?}: {what}: {below:?}");
            for cut in 0..bytes.len() {
                // A cut stream fails or yields a part; it never panics and never exceeds the bound.
                let part = decompress_bounded(codec, &bytes[..cut], text.len());
                assert!(part.is_err() || part.unwrap().len() <= text.len());
            }
        }
    }

    #[test]
    fn round_trips_at_every_size() {
        for size in [0, 1, 100, XERIAL_BLOCK_SIZE, XERIAL_BLOCK_SIZE + 1, 300_000] {
            let bytes: Vec<u8> = (0..size as u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
            for codec in CODECS {
                for level in [None, Some(1), Some(9)] {
                    let small = compress(codec, level, &bytes).unwrap();
                    assert_eq!(decompress_bounded(codec, &small, size).unwrap(), bytes, "{codec:?}, {size} bytes");
                }
            }
        }
    }

    #[test]
    fn bombs_are_refused() {
        let zeros = vec![0; 16 << 20];
        for codec in CODECS {
            let bomb = compress(codec, None, &zeros).unwrap();
            let result = decompress_bounded(codec, &bomb, 1 << 20);
            assert!(matches!(result, Err(CompressionError::TooLarge(_))), "{codec:?}");
        }
        // Claims of sizes that are not there.
        for claim in [&b"\xff\xff\xff\xff\x0f"[..], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\x7f\xff\xff\xff"] {
            assert!(decompress_bounded(Codec::Snappy, claim, usize::MAX).is_err());
        }
    }
}
