//! A cursor over received bytes, in Kafka's primitive types. Each read names the field it reads, so that an error says
//! what was missing. No read goes past the end, and no length or count is believed before the bytes behind it are there:
//! memory reserved for `array_count` elements is at most a small multiple of the bytes received.

use std::fmt;

/// Why bytes could not be read; the text is the name of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end before this field does.
    Missing(&'static str),
    /// A length or count below zero where null is not allowed.
    Negative(&'static str),
    /// The bytes are there and mean nothing: text that is not UTF-8, a number that is too long.
    Invalid(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Missing(field) => write!(f, "the request ends before {field} does"),
            DecodeError::Negative(field) => write!(f, "{field} has a negative length"),
            DecodeError::Invalid(field) => write!(f, "{field} is malformed"),
        }
    }
}
impl std::error::Error for DecodeError {}

/// Longest string Kafka accepts, also where a flexible version could say more.
const STRING_SIZE_MAX: usize = i16::MAX as usize;

/// `0 <= position <= bytes.len()`.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the start.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, position: 0 }
    }
    /// Reads `bytes` from `position`; a position past the end is the end.
    pub fn at(bytes: &'a [u8], position: usize) -> Reader<'a> {
        Reader { bytes, position: position.min(bytes.len()) }
    }
    /// Bytes read so far, counted from the start of what the reader was made of.
    pub fn position(&self) -> usize {
        self.position
    }
    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }
    /// Everything not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }
    /// The next `size` bytes.
    pub fn take(&mut self, size: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let bytes = self.rest().get(..size).ok_or(DecodeError::Missing(field))?;
        self.position += size;
        Ok(bytes)
    }
    fn take_array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let bytes = self.rest().first_chunk::<N>().ok_or(DecodeError::Missing(field))?;
        self.position += N;
        Ok(*bytes)
    }

    pub fn i8(&mut self, field: &'static str) -> Result<i8, DecodeError> {
        self.take_array(field).map(i8::from_be_bytes)
    }
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.take_array(field).map(u8::from_be_bytes)
    }
    pub fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        self.u8(field).map(|b| b != 0)
    }
    pub fn i16(&mut self, field: &'static str) -> Result<i16, DecodeError> {
        self.take_array(field).map(i16::from_be_bytes)
    }
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.take_array(field).map(u16::from_be_bytes)
    }
    pub fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.take_array(field).map(i32::from_be_bytes)
    }
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.take_array(field).map(u32::from_be_bytes)
    }
    pub fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.take_array(field).map(i64::from_be_bytes)
    }
    pub fn f64(&mut self, field: &'static str) -> Result<f64, DecodeError> {
        self.take_array(field).map(f64::from_be_bytes)
    }
    pub fn uuid(&mut self, field: &'static str) -> Result<uuid::Uuid, DecodeError> {
        self.take_array(field).map(uuid::Uuid::from_bytes)
    }
    /// Unsigned, seven bits a byte, lowest first; at most 5 bytes.
    pub fn uvarint(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.base128::<5>(field)?).map_err(|_| DecodeError::Invalid(field))
    }
    /// Zigzag of `uvarint`.
    pub fn varint(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        let raw = self.uvarint(field)?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }
    /// Zigzag, at most 10 bytes.
    pub fn varlong(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        let raw = self.base128::<10>(field)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }
    fn base128<const SIZE_MAX: usize>(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (i, &byte) in self.rest().iter().take(SIZE_MAX).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if i == 9 && bits > 1 {
                return Err(DecodeError::Invalid(field));
            }
            value |= bits << (7 * i);
            if byte < 0x80 {
                self.position += i + 1;
                return Ok(value);
            }
        }
        Err(if self.remaining() < SIZE_MAX { DecodeError::Missing(field) } else { DecodeError::Invalid(field) })
    }

    /// A string; `flexible` versions have compact lengths.
    pub fn string(&mut self, flexible: bool, field: &'static str) -> Result<&'a str, DecodeError> {
        self.nullable_string(flexible, field)?.ok_or(DecodeError::Negative(field))
    }
    /// A string that may be null.
    pub fn nullable_string(&mut self, flexible: bool, field: &'static str) -> Result<Option<&'a str>, DecodeError> {
        let size = if flexible { self.compact_length(field)? } else { length(self.i16(field)?.into(), field)? };
        let Some(size) = size else { return Ok(None) };
        if size > STRING_SIZE_MAX {
            return Err(DecodeError::Invalid(field));
        }
        let text = std::str::from_utf8(self.take(size, field)?).map_err(|_| DecodeError::Invalid(field))?;
        Ok(Some(text))
    }
    /// Bytes that may not be null.
    pub fn bytes(&mut self, flexible: bool, field: &'static str) -> Result<&'a [u8], DecodeError> {
        self.nullable_bytes(flexible, field)?.ok_or(DecodeError::Negative(field))
    }
    /// Bytes that may be null. Record data is such a field.
    pub fn nullable_bytes(&mut self, flexible: bool, field: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
        let size = if flexible { self.compact_length(field)? } else { length(self.i32(field)?, field)? };
        size.map(|size| self.take(size, field)).transpose()
    }
    /// Number of elements of an array that may not be null. Each takes at least `element_size_min` bytes:
    /// a count that the bytes left cannot hold is refused here.
    pub fn array_count(
        &mut self,
        flexible: bool,
        element_size_min: usize,
        field: &'static str,
    ) -> Result<usize, DecodeError> {
        self.nullable_array_count(flexible, element_size_min, field)?.ok_or(DecodeError::Negative(field))
    }
    /// Number of elements of an array that may be null.
    pub fn nullable_array_count(
        &mut self,
        flexible: bool,
        element_size_min: usize,
        field: &'static str,
    ) -> Result<Option<usize>, DecodeError> {
        let count = if flexible { self.compact_length(field)? } else { length(self.i32(field)?, field)? };
        match count {
            Some(count) if count.saturating_mul(element_size_min.max(1)) > self.remaining() => {
                Err(DecodeError::Missing(field))
            }
            count => Ok(count),
        }
    }
    /// Skips the tagged fields that end a struct of a flexible version.
    pub fn skip_tags(&mut self) -> Result<(), DecodeError> {
        self.tags(|_, _| Ok(()))
    }
    /// Gives each tagged field to `visit`, with a reader of just its bytes. Tags rise strictly, as Kafka demands.
    pub fn tags(
        &mut self,
        mut visit: impl FnMut(u32, &mut Reader<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = self.uvarint("tagged field count")?;
        let mut tag_min = 0u64;
        for _ in 0..count {
            let tag = self.uvarint("tag")?;
            if u64::from(tag) < tag_min {
                return Err(DecodeError::Invalid("tag"));
            }
            tag_min = u64::from(tag) + 1;
            let size = self.uvarint("tagged field size")? as usize;
            visit(tag, &mut Reader::new(self.take(size, "tagged field")?))?;
        }
        Ok(())
    }
    /// Length of a compact field: stored plus one, 0 means null.
    fn compact_length(&mut self, field: &'static str) -> Result<Option<usize>, DecodeError> {
        Ok((self.uvarint(field)? as usize).checked_sub(1))
    }
}

/// Length of a field of an old version: -1 means null.
fn length(stored: i32, field: &'static str) -> Result<Option<usize>, DecodeError> {
    match stored {
        -1 => Ok(None),
        _ => usize::try_from(stored).map(Some).map_err(|_| DecodeError::Negative(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::writer;

    #[test]
    fn varints_round_trip_at_every_size() {
        for shift in 0..64 {
            for value in [1i64 << shift, (1i64 << shift).wrapping_sub(1), (1i64 << shift).wrapping_neg()] {
                let mut out = Vec::new();
                writer::varlong(&mut out, value);
                let mut r = Reader::new(&out);
                assert_eq!(r.varlong("x"), Ok(value));
                assert_eq!(r.remaining(), 0);
                assert_eq!(out.len(), writer::varlong_size(value));
                if let Ok(value) = i32::try_from(value) {
                    out.clear();
                    writer::varint(&mut out, value);
                    assert_eq!(Reader::new(&out).varint("x"), Ok(value));
                    out.clear();
                    writer::uvarint(&mut out, value as u32);
                    assert_eq!(Reader::new(&out).uvarint("x"), Ok(value as u32));
                    assert_eq!(out.len(), writer::uvarint_size(value as u32));
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_too_long_are_invalid_and_cut_ones_are_missing() {
        assert_eq!(Reader::new(&[0xff; 5]).uvarint("n"), Err(DecodeError::Invalid("n")));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).uvarint("n"), Err(DecodeError::Invalid("n")));
        assert_eq!(Reader::new(&[0xff; 4]).uvarint("n"), Err(DecodeError::Missing("n")));
        assert_eq!(Reader::new(&[0xff; 10]).varlong("n"), Err(DecodeError::Invalid("n")));
        assert_eq!(Reader::new(&[]).i32("n"), Err(DecodeError::Missing("n")));
        // Longer than needed, as some encoders write to patch a length later: fine.
        assert_eq!(Reader::new(&[0x81, 0x80, 0x80, 0x80, 0x00]).uvarint("n"), Ok(1));
    }

    #[test]
    fn lengths_are_not_believed() {
        assert_eq!(Reader::new(&[0x7f, 0xff, b'a']).string(false, "s"), Err(DecodeError::Missing("s")));
        assert_eq!(Reader::new(&[0xff, 0xfe]).nullable_string(false, "s"), Err(DecodeError::Negative("s")));
        assert_eq!(Reader::new(&[0xff, 0xff]).nullable_string(false, "s"), Ok(None));
        assert_eq!(Reader::new(&[0xff, 0xff]).string(false, "s"), Err(DecodeError::Negative("s")));
        assert_eq!(Reader::new(&[0]).nullable_string(true, "s"), Ok(None));
        assert_eq!(Reader::new(&[2, 0xc0]).string(true, "s"), Err(DecodeError::Invalid("s")));
        assert_eq!(Reader::new(&[0x7f, 0xff, 0xff, 0xff]).array_count(false, 4, "a"), Err(DecodeError::Missing("a")));
        assert_eq!(Reader::new(&[3, 0, 0, 0, 0]).array_count(true, 4, "a"), Err(DecodeError::Missing("a")));
        assert_eq!(Reader::new(&[2, 0, 0, 0, 0]).array_count(true, 4, "a"), Ok(1));
        let long = [&[0x81, 0x80, 0x02][..], &vec![b'a'; 40_000]].concat();
        assert_eq!(Reader::new(&long).string(true, "s"), Err(DecodeError::Invalid("s")));
    }

    #[test]
    fn tags_are_skipped_and_must_rise() {
        let mut r = Reader::new(&[2, 0, 1, 7, 5, 2, 8, 9, 42]);
        let mut seen = Vec::new();
        r.tags(|tag, field| {
            seen.push((tag, field.rest().to_vec()));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, vec![(0, vec![7]), (5, vec![8, 9])]);
        assert_eq!(r.rest(), &[42]);
        assert_eq!(Reader::new(&[2, 5, 0, 5, 0]).skip_tags(), Err(DecodeError::Invalid("tag")));
        assert_eq!(Reader::new(&[1, 0, 9, 1]).skip_tags(), Err(DecodeError::Missing("tagged field")));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).skip_tags(), Err(DecodeError::Missing("tag")));
    }
}
