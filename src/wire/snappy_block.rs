//! One raw snappy block, decompressed in pieces. The format has none: what a block refers back to may be anywhere before, so all that
//! came of it is kept until its end. Java frames blocks of 32 KiB; clients that write one bare block for a whole batch
//! would hold a core for as long as it takes.

/// A block under way.
#[derive(Default)]
pub struct SnappyBlock {
    /// Position in the block: its next element, or the rest of a literal.
    at: usize,
    literal_left: usize,
    /// What came of it, and how much of that was given out.
    made: Vec<u8>,
    given: usize,
}

impl SnappyBlock {
    /// At its first element, behind the number that says its size.
    pub fn of(block: &[u8]) -> SnappyBlock {
        let at = block.iter().position(|byte| byte & 0x80 == 0).map_or(block.len(), |at| at + 1);
        SnappyBlock { at, ..SnappyBlock::default() }
    }

    /// Appends `piece` bytes to `out`, some more or fewer; the block becomes `size`. False: that was its end.
    pub fn read(&mut self, block: &[u8], size: usize, out: &mut Vec<u8>, piece: usize) -> Result<bool, &'static str> {
        let enough = self.given.saturating_add(piece);
        while self.made.len() < enough && self.at < block.len() {
            self.element(block, size, enough - self.made.len())?;
        }
        out.extend_from_slice(&self.made[self.given..]);
        self.given = self.made.len();
        let ended = self.at == block.len();
        if ended && (self.made.len() < size || self.literal_left > 0) {
            return Err("it ends inside a block");
        }
        Ok(!ended)
    }

    fn element(&mut self, block: &[u8], size: usize, wanted: usize) -> Result<(), &'static str> {
        if self.literal_left > 0 {
            let count = self.literal_left.min(wanted);
            let bytes = block.get(self.at..self.at + count).ok_or("a literal is cut")?;
            self.made.extend_from_slice(bytes);
            (self.at, self.literal_left) = (self.at + count, self.literal_left - count);
            return Ok(());
        }
        let tag = usize::from(block[self.at]);
        let number = |bytes: usize| {
            let bytes = block.get(self.at + 1..self.at + 1 + bytes).ok_or("an element is cut");
            bytes.map(|bytes| bytes.iter().rev().fold(0usize, |n, byte| n << 8 | usize::from(*byte)))
        };
        let fits = |length: usize| if length > size - self.made.len() { Err("more than its size") } else { Ok(length) };
        let (bytes, offset, length) = match tag & 3 {
            0 => {
                let bytes = (tag >> 2).saturating_sub(59);
                let length = if bytes == 0 { tag >> 2 } else { number(bytes)? };
                self.literal_left = fits(length + 1)?;
                self.at += 1 + bytes;
                return Ok(());
            }
            1 => (1, (tag >> 5) << 8 | number(1)?, 4 + (tag >> 2 & 7)),
            2 => (2, number(2)?, 1 + (tag >> 2)),
            _ => (4, number(4)?, 1 + (tag >> 2)),
        };
        let length = fits(length)?;
        let from = self.made.len().checked_sub(offset).filter(|_| offset > 0).ok_or("a copy from before the block")?;
        if offset >= length {
            self.made.extend_from_within(from..from + length);
        } else {
            // It repeats what it writes.
            (0..length).for_each(|i| self.made.push(self.made[from + i]));
        }
        self.at += 1 + bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::shape::tests::Random;

    fn in_pieces(block: &[u8], piece: usize) -> Result<Vec<u8>, String> {
        let size = snap::raw::decompress_len(block).map_err(|error| error.to_string())?;
        let (mut out, mut under_way) = (Vec::new(), SnappyBlock::of(block));
        loop {
            let before = out.len();
            let more = under_way.read(block, size, &mut out, piece)?;
            assert!(out.len() - before < piece + 64, "a piece of {} bytes", out.len() - before);
            if !more {
                return Ok(out);
            }
        }
    }

    #[test]
    fn pieces_are_what_the_library_reads_whole() {
        let mut random = Random(5);
        for round in 0..300 {
            let size = random.below(200_000);
            let alphabet = 1 + random.below(200);
            let mut plain: Vec<u8> = (0..size).map(|_| random.below(alphabet) as u8).collect();
            if round % 3 == 0 && size > 1000 {
                plain.copy_within(0..size / 2, size / 2);
            }
            let mut block = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
            let piece = 1 + random.below(40_000);
            assert_eq!(in_pieces(&block, piece), Ok(plain));
            for _ in 0..20 {
                let at = random.below(block.len());
                match random.below(3) {
                    0 => block[at] ^= 1 << random.below(8),
                    1 => block.truncate(at.max(1)),
                    _ => block.push(random.below(256) as u8),
                }
                if snap::raw::decompress_len(&block).is_ok_and(|size| size < 1 << 20) {
                    let whole = snap::raw::Decoder::new().decompress_vec(&block).ok();
                    assert_eq!(in_pieces(&block, piece).ok(), whole);
                }
            }
        }
    }
}
