//! The four codecs of record batches, by well-kept libraries, whole or in pieces (so that a core's loop can go on between
//! them). Decompression is bounded by what the caller allows, never by what the bytes claim: a stream that promises or holds
//! more fails, and no more than about twice the bound is reserved.
//!
//! ```text
//! gzip    RFC 1952, members one after the other       lz4    LZ4 frame (magic 2 batches have correct frame headers)
//! zstd    RFC 8878 frames                             snappy Java's framing: magic, two i32, then (i32 length, block)*;
//!                                                            or one bare block, as some clients write
//! ```

use std::io::{self, Cursor, Read, Write};

use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective::{self, ZSTD_e_continue, ZSTD_e_end, ZSTD_e_flush};
use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, InBuffer, OutBuffer};

use crate::wire::batch::{self, Batch, Codec, HEADER_SIZE, field};
use crate::wire::codec_contexts::Loan;
use crate::wire::snappy_block::SnappyBlock;

/// Java's snappy framing: magic, version 1, readable by version 1.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
/// What Java puts in one snappy block.
pub const PIECE_SIZE: usize = 32 * 1024;
/// Free bytes of the output that a codec is given at least.
const ROOM_MIN: usize = 256;

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
    let mut out = Vec::with_capacity(bytes.len().saturating_mul(2).min(size_max));
    let mut stream = Decompressor::new(codec, bytes, size_max);
    while stream.read(&mut out, usize::MAX)? {}
    Ok(out)
}

/// Appends `bytes`, compressed, to `out`. `level` is Kafka's `compression.<codec>.level`; snappy has none, and lz4 has one
/// speed here.
pub fn compress(codec: Codec, level: Option<i32>, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let mut stream = Compressor::new(codec, level, bytes.len(), std::mem::take(out))?;
    stream.write(bytes)?;
    *out = stream.finish()?;
    Ok(())
}

/// A batch with other records, given uncompressed and stored in `codec`. The rest of its header stays.
pub fn with_records(
    original: &Batch<'_>,
    records: &[u8],
    codec: Codec,
    level: Option<i32>,
) -> Result<Vec<u8>, CompressionError> {
    let mut out =
        Vec::with_capacity(HEADER_SIZE + if codec == Codec::None { records.len() } else { records.len() / 2 });
    out.extend_from_slice(&original.bytes()[..HEADER_SIZE]);
    compress(codec, level, records, &mut out)?;
    seal_records(&mut out, codec)?;
    Ok(out)
}

/// Makes a batch of another's header and the records behind it, which are in `codec`.
pub fn seal_records(batch: &mut Vec<u8>, codec: Codec) -> Result<(), CompressionError> {
    // Many small batches of very many bytes may wait for their write together.
    batch.shrink_to_fit();
    let length =
        i32::try_from(batch.len() - field::COUNTED).map_err(|_| CompressionError::TooLarge(i32::MAX as usize))?;
    batch[field::BATCH_LENGTH].copy_from_slice(&length.to_be_bytes());
    let attributes = batch::attributes(batch).with_codec(codec);
    batch[field::ATTRIBUTES].copy_from_slice(&attributes.0.to_be_bytes());
    batch::seal(batch);
    Ok(())
}

/// A stream that is decompressed piece by piece.
pub struct Decompressor<B: AsRef<[u8]>> {
    codec: Codec,
    source: Source<B>,
    size_max: usize,
    /// Bytes given so far.
    given: usize,
}

enum Source<B: AsRef<[u8]>> {
    Plain(Cursor<B>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Cursor<B>>>),
    /// Of one bare block: how far it has come.
    Snappy(Cursor<B>, Option<SnappyBlock>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<Cursor<B>>>),
    Zstd(ZstdFrames<B>),
}

impl<B: AsRef<[u8]>> Decompressor<B> {
    /// Of `bytes`, which may become `size_max` bytes.
    pub fn new(codec: Codec, bytes: B, size_max: usize) -> Decompressor<B> {
        let bytes = Cursor::new(bytes);
        let source = match codec {
            Codec::None => Source::Plain(bytes),
            Codec::Gzip => Source::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(bytes))),
            Codec::Snappy => Source::Snappy(bytes, None),
            Codec::Lz4 => Source::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(bytes))),
            Codec::Zstd => Source::Zstd(ZstdFrames { context: Loan::take(), bytes, ended: false }),
        };
        Decompressor { codec, source, size_max, given: 0 }
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }
    /// Appends about `piece` bytes to `out`. False: that was the end.
    pub fn read(&mut self, out: &mut Vec<u8>, piece: usize) -> Result<bool, CompressionError> {
        let left = self.size_max - self.given;
        // One byte more than allowed tells "too much" from "just enough".
        let piece = piece.min(left.saturating_add(1)) as u64;
        let before = out.len();
        let read = match &mut self.source {
            Source::Plain(source) => source.take(piece).read_to_end(out),
            Source::Gzip(source) => source.take(piece).read_to_end(out),
            Source::Lz4(source) => source.take(piece).read_to_end(out),
            Source::Zstd(source) => source.read_to(out, piece),
            Source::Snappy(source, bare) => {
                let bytes = source.get_ref().as_ref();
                let more = if bytes.starts_with(XERIAL_MAGIC) {
                    read_snappy(source, out, left, self.size_max)?
                } else if bare.is_none() && piece > left as u64 {
                    snappy_block(bytes, out, left, self.size_max)?;
                    false
                } else {
                    let size = snappy_size(bytes, left + self.given, self.size_max)?;
                    let block = bare.get_or_insert_with(|| SnappyBlock::of(bytes));
                    block.read(bytes, size, out, piece as usize).map_err(|reason| corrupt(self.codec, reason))?
                };
                self.given += out.len() - before;
                return Ok(more);
            }
        };
        read.map_err(|error| corrupt(self.codec, error))?;
        let got = out.len() - before;
        if got > left {
            return Err(CompressionError::TooLarge(self.size_max));
        }
        self.given += got;
        Ok(got as u64 == piece)
    }
}

/// Reads one of the framed blocks, of at most `left` bytes when decompressed: at most 32 KiB become of one that Java wrote.
fn read_snappy(
    source: &mut Cursor<impl AsRef<[u8]>>,
    out: &mut Vec<u8>,
    left: usize,
    size_max: usize,
) -> Result<bool, CompressionError> {
    let (bytes, at) = (source.get_ref().as_ref(), source.position() as usize);
    let short = || corrupt(Codec::Snappy, "it ends inside a block");
    let rest = bytes.get(at.max(XERIAL_HEADER.len())..).ok_or_else(short)?;
    if rest.is_empty() {
        return Ok(false);
    }
    let (length, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| short())?;
    let (block, after) = after.split_at_checked(length).ok_or_else(short)?;
    snappy_block(block, out, left, size_max)?;
    let (end, more) = (bytes.len() - after.len(), !after.is_empty());
    source.set_position(end as u64);
    Ok(more)
}

/// A block says how long it becomes; that is checked before memory is reserved for it.
fn snappy_size(block: &[u8], left: usize, size_max: usize) -> Result<usize, CompressionError> {
    let size = snap::raw::decompress_len(block).map_err(|error| corrupt(Codec::Snappy, error))?;
    if size > left {
        return Err(CompressionError::TooLarge(size_max));
    }
    // Snappy cannot expand more than about 64/3 times, so a larger claim is a lie not worth reserving for.
    if size / 64 > block.len() {
        return Err(corrupt(Codec::Snappy, "a block claims more than it can hold"));
    }
    Ok(size)
}

fn snappy_block(block: &[u8], out: &mut Vec<u8>, left: usize, size_max: usize) -> Result<(), CompressionError> {
    let size = snappy_size(block, left, size_max)?;
    let start = out.len();
    out.resize(start + size, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..]);
    written.map_err(|error| corrupt(Codec::Snappy, error)).map(|_| ())
}

/// zstd frames, one after the other.
struct ZstdFrames<B: AsRef<[u8]>> {
    context: Loan<DCtx<'static>>,
    bytes: Cursor<B>,
    /// What was read so far is whole frames.
    ended: bool,
}

impl<B: AsRef<[u8]>> ZstdFrames<B> {
    /// Appends `piece` bytes, or what there is up to the end.
    fn read_to(&mut self, out: &mut Vec<u8>, piece: u64) -> io::Result<usize> {
        let before = out.len();
        let end = before.saturating_add(piece as usize);
        while out.len() < end {
            let (bytes, at) = (self.bytes.get_ref().as_ref(), self.bytes.position() as usize);
            let start = out.len();
            if self.ended && at == bytes.len() {
                break;
            }
            out.resize(end.min(start + PIECE_SIZE), 0);
            let mut input = InBuffer::around(&bytes[at..]);
            let mut output = OutBuffer::around_pos(&mut out[..], start);
            let result = self.context.decompress_stream(&mut output, &mut input);
            let (filled, taken) = (output.pos(), input.pos());
            out.truncate(filled);
            self.bytes.set_position((at + taken) as u64);
            self.ended = result.map_err(zstd_error)? == 0;
            if !self.ended && taken == 0 && filled == start {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends inside a frame"));
            }
        }
        Ok(out.len() - before)
    }
}

/// A stream that is compressed piece by piece, at the end of the bytes it was given.
pub struct Compressor {
    codec: Codec,
    sink: Sink,
}

enum Sink {
    Plain(Vec<u8>),
    Gzip(Loan<Compress>, Vec<u8>),
    Snappy(Box<snap::raw::Encoder>, Vec<u8>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
    Zstd(Loan<CCtx<'static>>, Vec<u8>),
}

impl Compressor {
    /// For `size` bytes in all, the result to stand behind what is in `out`.
    pub fn new(
        codec: Codec,
        level: Option<i32>,
        size: usize,
        mut out: Vec<u8>,
    ) -> Result<Compressor, CompressionError> {
        let sink = match codec {
            Codec::None => Sink::Plain(out),
            Codec::Gzip => {
                // -1 is zlib's default.
                let level = level.and_then(|level| u32::try_from(level).ok());
                let level = level.map_or_else(Compression::default, Compression::new);
                let mut context = Loan::<Compress>::take();
                context.set_level(level).map_err(|error| corrupt(codec, error))?;
                Sink::Gzip(context, out)
            }
            Codec::Snappy => {
                out.extend_from_slice(&XERIAL_HEADER);
                Sink::Snappy(Box::new(snap::raw::Encoder::new()), out)
            }
            Codec::Lz4 => {
                // Java's reader takes independent blocks only.
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_mode(lz4_flex::frame::BlockMode::Independent)
                    .block_size(lz4_flex::frame::BlockSize::Max64KB);
                Sink::Lz4(Box::new(lz4_flex::frame::FrameEncoder::with_frame_info(info, out)))
            }
            Codec::Zstd => {
                let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
                let mut context = Loan::<CCtx>::take();
                let set = context.set_parameter(CParameter::CompressionLevel(level));
                // High levels reserve hundreds of megabytes where they do not know how little will come.
                let set = set.and_then(|_| context.set_pledged_src_size(Some(size as u64)));
                set.map_err(|code| corrupt(codec, zstd_error(code)))?;
                Sink::Zstd(context, out)
            }
        };
        Ok(Compressor { codec, sink })
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }
    /// A piece whose work is to be done now, not gathered until there is enough for one of zstd's blocks.
    pub fn write_piece(&mut self, piece: &[u8]) -> Result<(), CompressionError> {
        match &mut self.sink {
            Sink::Zstd(context, out) => {
                zstd_stream(context, piece, ZSTD_e_flush, out).map_err(|error| corrupt(self.codec, error))
            }
            _ => self.write(piece),
        }
    }
    /// Bytes of the stream. Of snappy, all but the last are multiples of `PIECE_SIZE`.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), CompressionError> {
        let written = match &mut self.sink {
            Sink::Plain(out) => out.write_all(piece),
            Sink::Gzip(context, out) => gzip_stream(context, piece, FlushCompress::None, out),
            Sink::Lz4(encoder) => encoder.write_all(piece),
            Sink::Zstd(context, out) => zstd_stream(context, piece, ZSTD_e_continue, out),
            Sink::Snappy(encoder, out) => return write_snappy(encoder, piece, out),
        };
        written.map_err(|error| corrupt(self.codec, error))
    }

    /// Ends the stream: the bytes given at the start and the compressed ones after them.
    pub fn finish(self) -> Result<Vec<u8>, CompressionError> {
        let finished = match self.sink {
            Sink::Plain(out) | Sink::Snappy(_, out) => Ok(out),
            Sink::Gzip(mut context, mut out) => {
                gzip_stream(&mut context, &[], FlushCompress::Finish, &mut out).map(|()| out)
            }
            Sink::Lz4(encoder) => encoder.finish().map_err(io::Error::from),
            Sink::Zstd(mut context, mut out) => zstd_stream(&mut context, &[], ZSTD_e_end, &mut out).map(|()| out),
        };
        finished.map_err(|error| corrupt(self.codec, error))
    }
}

/// Gives deflate a piece, which it takes all of.
fn gzip_stream(context: &mut Compress, mut piece: &[u8], flush: FlushCompress, out: &mut Vec<u8>) -> io::Result<()> {
    loop {
        out.reserve(piece.len().clamp(ROOM_MIN, PIECE_SIZE));
        let before = context.total_in();
        let status = context.compress_vec(piece, out, flush)?;
        piece = &piece[(context.total_in() - before) as usize..];
        let wants_end = matches!(flush, FlushCompress::Finish);
        if piece.is_empty() && (status == Status::StreamEnd || !wants_end) {
            return Ok(());
        }
    }
}

/// Gives zstd a piece, which it takes all of, and flushes or ends the stream if it is to.
fn zstd_stream(context: &mut CCtx, piece: &[u8], end: ZSTD_EndDirective, out: &mut Vec<u8>) -> io::Result<()> {
    let mut input = InBuffer::around(piece);
    loop {
        out.reserve((piece.len() - input.pos()).clamp(ROOM_MIN, PIECE_SIZE));
        let start = out.len();
        let left = context.compress_stream2(&mut OutBuffer::around_pos(out, start), &mut input, end);
        let left = left.map_err(zstd_error)?;
        if input.pos() == piece.len() && (left == 0 || end == ZSTD_e_continue) {
            return Ok(());
        }
    }
}

fn zstd_error(code: zstd_safe::ErrorCode) -> io::Error {
    io::Error::other(zstd_safe::get_error_name(code))
}

fn write_snappy(encoder: &mut snap::raw::Encoder, piece: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    for block in piece.chunks(PIECE_SIZE) {
        let length_at = out.len();
        let block_at = length_at + size_of::<i32>();
        out.resize(block_at + snap::raw::max_compress_len(block.len()), 0);
        let size = encoder.compress(block, &mut out[block_at..]).map_err(|error| corrupt(Codec::Snappy, error))?;
        out[length_at..block_at].copy_from_slice(&(size as i32).to_be_bytes());
        out.truncate(block_at + size);
    }
    Ok(())
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
    use crate::wire::record::{BatchBuilder, BatchFields};

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
        for size in [0, 1, 100, PIECE_SIZE, PIECE_SIZE + 1, 300_000] {
            let bytes: Vec<u8> = (0..size as u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
            for codec in CODECS {
                for level in [None, Some(1), Some(9)] {
                    let mut small = b"header".to_vec();
                    compress(codec, level, &bytes, &mut small).unwrap();
                    let whole = decompress_bounded(codec, &small[6..], size).unwrap();
                    assert_eq!(whole, bytes, "{codec:?}, {size} bytes");
                    assert_eq!(in_pieces(codec, level, &bytes), bytes, "{codec:?}, {size} bytes");
                }
            }
        }
    }

    /// Compressed and decompressed piece by piece.
    fn in_pieces(codec: Codec, level: Option<i32>, bytes: &[u8]) -> Vec<u8> {
        let mut stream = Compressor::new(codec, level, bytes.len(), Vec::new()).unwrap();
        bytes.chunks(2 * PIECE_SIZE).for_each(|piece| stream.write_piece(piece).unwrap());
        let small = stream.finish().unwrap();
        let mut stream = Decompressor::new(codec, small, bytes.len());
        let mut out = Vec::new();
        let mut before = 0;
        while stream.read(&mut out, 10_000).unwrap() {
            assert!(out.len() - before <= PIECE_SIZE, "{codec:?}: a piece of {} bytes", out.len() - before);
            before = out.len();
        }
        out
    }

    #[test]
    fn bombs_are_refused() {
        let zeros = vec![0; 16 << 20];
        for codec in CODECS {
            let mut bomb = Vec::new();
            compress(codec, None, &zeros, &mut bomb).unwrap();
            let result = decompress_bounded(codec, &bomb, 1 << 20);
            assert!(matches!(result, Err(CompressionError::TooLarge(_))), "{codec:?}");
        }
        // Claims of sizes that are not there.
        for claim in [&b"\xff\xff\xff\xff\x0f"[..], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\x7f\xff\xff\xff"] {
            assert!(decompress_bounded(Codec::Snappy, claim, usize::MAX).is_err());
        }
    }

    /// Thirty batches of 64 kB in one request, 63 MB each when decompressed, held a gigabyte until they were written.
    #[test]
    fn a_batch_made_anew_keeps_no_more_memory_than_it_has_bytes() {
        let mut bytes = Vec::new();
        let mut builder = BatchBuilder::new(&mut bytes, BatchFields::default());
        builder.push(0, None, Some(&[0; 1 << 20]), &[]);
        builder.finish();
        let batch = Batch::stored(&bytes).unwrap();
        for codec in CODECS {
            let made = with_records(&batch, batch.records(), codec, None).unwrap();
            assert_eq!(made.capacity(), made.len(), "{codec:?}");
        }
    }
}
