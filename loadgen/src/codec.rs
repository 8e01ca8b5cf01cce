//! Compression of a batch's records with the four codecs that Kafka knows. The number is the one in `attributes`.

use anyhow::{Context, Result, bail};
use std::io::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl std::str::FromStr for Codec {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Self> {
        Ok(match s {
            "none" => Codec::None,
            "gzip" => Codec::Gzip,
            "snappy" => Codec::Snappy,
            "lz4" => Codec::Lz4,
            "zstd" => Codec::Zstd,
            _ => bail!("unknown codec {s:?}; use none, gzip, snappy, lz4 or zstd"),
        })
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        })
    }
}

/// Java clients frame snappy in blocks behind this header (xerial's format), and expect it back.
const XERIAL_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const XERIAL_BLOCK: usize = 32 << 10;

impl Codec {
    /// Appends the compressed form of `raw` to `out`.
    pub fn compress(self, raw: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self {
            Codec::None => out.extend_from_slice(raw),
            Codec::Gzip => {
                let mut w = flate2::write::GzEncoder::new(out, flate2::Compression::default());
                w.write_all(raw).and_then(|()| w.finish().map(drop)).context("gzip")?;
            }
            Codec::Snappy => {
                out.extend_from_slice(&XERIAL_HEADER);
                let mut encoder = snap::raw::Encoder::new();
                for block in raw.chunks(XERIAL_BLOCK) {
                    let packed = encoder.compress_vec(block).context("snappy")?;
                    out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
                    out.extend_from_slice(&packed);
                }
            }
            Codec::Lz4 => {
                let info = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max64KB);
                let mut w = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
                w.write_all(raw).context("lz4")?;
                w.finish().context("lz4")?;
            }
            Codec::Zstd => {
                zstd::stream::copy_encode(raw, out, 3).context("zstd")?;
            }
        }
        Ok(())
    }
}
