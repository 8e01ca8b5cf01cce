//! Appends Kafka's primitive types to a reply under construction. A length that is known later is reserved with
//! `reserve_i32` and patched. `flexible` versions write compact lengths (plus one, 0 for null).

pub fn i8(out: &mut Vec<u8>, value: i8) {
    out.push(value as u8);
}
pub fn bool(out: &mut Vec<u8>, value: bool) {
    out.push(value.into());
}
pub fn i16(out: &mut Vec<u8>, value: i16) {
    out.extend_from_slice(&value.to_be_bytes());
}
pub fn i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}
pub fn u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}
pub fn i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}
pub fn uuid(out: &mut Vec<u8>, value: uuid::Uuid) {
    out.extend_from_slice(value.as_bytes());
}
/// Unsigned, seven bits a byte, lowest first.
pub fn uvarint(out: &mut Vec<u8>, value: u32) {
    base128(out, value.into());
}
/// Zigzag, so that small negative numbers are short too.
pub fn varint(out: &mut Vec<u8>, value: i32) {
    base128(out, zigzag(value.into()) & 0xffff_ffff);
}
/// Zigzag of 64 bits.
pub fn varlong(out: &mut Vec<u8>, value: i64) {
    base128(out, zigzag(value));
}
fn base128(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}
/// Bytes that `uvarint` would append.
pub const fn uvarint_size(value: u32) -> usize {
    (38 - (value | 1).leading_zeros() as usize) / 7
}
/// Bytes that `varlong` (or `varint`) would append.
pub const fn varlong_size(value: i64) -> usize {
    (70 - (((value << 1) ^ (value >> 63)) as u64 | 1).leading_zeros() as usize) / 7
}

/// A string.
pub fn string(out: &mut Vec<u8>, flexible: bool, value: &str) {
    nullable_string(out, flexible, Some(value));
}
/// A string or null. Cut at a character if it is longer than the protocol's 32767 bytes.
pub fn nullable_string(out: &mut Vec<u8>, flexible: bool, value: Option<&str>) {
    let value = value.map(cut_to_protocol);
    if flexible {
        compact_length(out, value.map(str::len));
    } else {
        i16(out, value.map_or(-1, |text| text.len() as i16));
    }
    out.extend_from_slice(value.unwrap_or_default().as_bytes());
}
fn cut_to_protocol(text: &str) -> &str {
    let mut size = text.len().min(i16::MAX as usize);
    while !text.is_char_boundary(size) {
        size -= 1;
    }
    &text[..size]
}
/// Bytes or null.
pub fn nullable_bytes(out: &mut Vec<u8>, flexible: bool, value: Option<&[u8]>) {
    bytes_size(out, flexible, value.map(<[u8]>::len));
    out.extend_from_slice(value.unwrap_or_default());
}
/// The length of a bytes field whose bytes follow by other means.
pub fn bytes_size(out: &mut Vec<u8>, flexible: bool, size: Option<usize>) {
    array_count(out, flexible, size);
}
/// The count of an array, or null.
pub fn array_count(out: &mut Vec<u8>, flexible: bool, count: Option<usize>) {
    if flexible {
        compact_length(out, count);
    } else {
        i32(out, count.map_or(-1, |n| n as i32));
    }
}
fn compact_length(out: &mut Vec<u8>, size: Option<usize>) {
    uvarint(out, size.map_or(0, |n| n as u32 + 1));
}
/// An empty list of tagged fields, if the version has them.
pub fn no_tags(out: &mut Vec<u8>, flexible: bool) {
    if flexible {
        out.push(0);
    }
}

/// Leaves room for a number that is known later; gives its place to `patch_i32`.
#[must_use]
pub fn reserve_i32(out: &mut Vec<u8>) -> usize {
    i32(out, 0);
    out.len() - 4
}
/// Writes the number into the place that `reserve_i32` gave.
pub fn patch_i32(out: &mut [u8], at: usize, value: i32) {
    out[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
