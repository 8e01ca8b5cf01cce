//! Is a request what its API and version say it is? Walks the bytes by the tables in `requests`, reserving nothing.
//!
//! `kafka-protocol`'s decoders reserve memory by the counts they read. So each request is walked first: after `check`,
//! every count and length is proven by bytes that are there, and the number of elements is bounded, since a small
//! element on the wire is a large one in memory.

use super::frame::is_flexible;
use super::reader::{DecodeError, Reader};
use super::requests::REQUESTS;

/// Elements of arrays and unknown tagged fields in one request. Far above what clients send; decoded they take about a
/// hundred bytes each.
pub const ELEMENTS_MAX: usize = 250_000;

/// A field of a request.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    name: &'static str,
    kind: Kind,
    /// First version that has it.
    since: i16,
    /// Last version that has it.
    until: i16,
    /// First version in which it may be null.
    null_since: i16,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// So many bytes.
    Fixed(usize),
    String,
    Bytes,
    /// An array of structs.
    Structs(&'static [Field]),
    /// An array of anything else.
    Array(&'static Field),
    Struct(&'static [Field]),
}

impl Field {
    const fn new(name: &'static str, kind: Kind) -> Field {
        Field { name, kind, since: 0, until: i16::MAX, null_since: i16::MAX }
    }
    pub(super) const fn since(mut self, version: i16) -> Field {
        self.since = version;
        self
    }
    pub(super) const fn until(mut self, version: i16) -> Field {
        self.until = version;
        self
    }
    pub(super) const fn nullable(self) -> Field {
        self.nullable_since(0)
    }
    pub(super) const fn nullable_since(mut self, version: i16) -> Field {
        self.null_since = version;
        self
    }
}

/// The words the tables are written in.
pub(super) mod kinds {
    use super::{Field, Kind};

    pub const fn boolean(name: &'static str) -> Field {
        Field::new(name, Kind::Fixed(1))
    }
    pub const fn int8(name: &'static str) -> Field {
        Field::new(name, Kind::Fixed(1))
    }
    pub const fn int16(name: &'static str) -> Field {
        Field::new(name, Kind::Fixed(2))
    }
    pub const fn int32(name: &'static str) -> Field {
        Field::new(name, Kind::Fixed(4))
    }
    pub const fn int64(name: &'static str) -> Field {
        Field::new(name, Kind::Fixed(8))
    }
    pub const fn float64(name: &'static str) -> Field {
        Field::new(name, Kind::Fixed(8))
    }
    pub const fn uuid(name: &'static str) -> Field {
        Field::new(name, Kind::Fixed(16))
    }
    pub const fn string(name: &'static str) -> Field {
        Field::new(name, Kind::String)
    }
    pub const fn bytes(name: &'static str) -> Field {
        Field::new(name, Kind::Bytes)
    }
    pub const fn array(name: &'static str, element: &'static [Field]) -> Field {
        Field::new(name, Kind::Structs(element))
    }
    pub const fn array_of(name: &'static str, element: &'static Field) -> Field {
        Field::new(name, Kind::Array(element))
    }
    pub const fn structure(name: &'static str, fields: &'static [Field]) -> Field {
        Field::new(name, Kind::Struct(fields))
    }
}

/// Checks the body of a request (after its header). An API without a table is refused.
pub fn check(api_key: i16, api_version: i16, body: &[u8]) -> Result<(), DecodeError> {
    let fields = fields_of(api_key).ok_or(DecodeError::Invalid("api key"))?;
    let mut walk = Walk {
        reader: Reader::new(body),
        version: api_version,
        flexible: is_flexible(api_key, api_version),
        elements_left: ELEMENTS_MAX,
    };
    walk.structure(fields)
}

fn fields_of(api_key: i16) -> Option<&'static [Field]> {
    let row = REQUESTS.binary_search_by_key(&api_key, |row| row.0).ok()?;
    Some(REQUESTS[row].1)
}

struct Walk<'a> {
    reader: Reader<'a>,
    version: i16,
    flexible: bool,
    elements_left: usize,
}

impl Walk<'_> {
    fn structure(&mut self, fields: &[Field]) -> Result<(), DecodeError> {
        for field in fields {
            if (field.since..=field.until).contains(&self.version) {
                self.field(field)?;
            }
        }
        if self.flexible {
            let mut tags = 0;
            self.reader.tags(|_, _| {
                tags += 1;
                Ok(())
            })?;
            self.count(tags, "tagged fields")?;
        }
        Ok(())
    }
    fn field(&mut self, field: &Field) -> Result<(), DecodeError> {
        let present = match field.kind {
            Kind::Fixed(size) => self.reader.take(size, field.name).map(|_| true)?,
            Kind::String => self.reader.nullable_string(self.flexible, field.name)?.is_some(),
            Kind::Bytes => self.reader.nullable_bytes(self.flexible, field.name)?.is_some(),
            Kind::Structs(element) => self.array(field.name, |walk| walk.structure(element))?,
            Kind::Array(element) => self.array(field.name, |walk| walk.field(element))?,
            Kind::Struct(fields) => {
                // A struct that may be null says so in a byte of its own.
                let present = field.null_since == i16::MAX || self.reader.i8(field.name)? >= 0;
                if present {
                    self.structure(fields)?;
                }
                present
            }
        };
        if present || self.version >= field.null_since { Ok(()) } else { Err(DecodeError::Negative(field.name)) }
    }
    fn array(
        &mut self,
        name: &'static str,
        element: impl Fn(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<bool, DecodeError> {
        let Some(count) = self.reader.nullable_array_count(self.flexible, 1, name)? else { return Ok(false) };
        self.count(count, name)?;
        for _ in 0..count {
            element(self)?;
        }
        Ok(true)
    }
    fn count(&mut self, elements: usize, name: &'static str) -> Result<(), DecodeError> {
        self.elements_left = self.elements_left.checked_sub(elements).ok_or(DecodeError::Invalid(name))?;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wire::writer;
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::{ApiKey, RequestKind};

    /// A small generator, so that a failing case can be run again.
    pub struct Random(pub u64);
    impl Random {
        pub fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % n.max(1) as u64) as usize
        }
    }

    /// A well-formed request body with random contents, written by the table.
    pub fn sample(api_key: i16, version: i16, random: &mut Random) -> Vec<u8> {
        let mut out = Vec::new();
        let flexible = is_flexible(api_key, version);
        write_struct(&mut out, fields_of(api_key).unwrap(), version, flexible, random);
        out
    }
    fn write_struct(out: &mut Vec<u8>, fields: &[Field], version: i16, flexible: bool, random: &mut Random) {
        for field in fields {
            if (field.since..=field.until).contains(&version) {
                write_field(out, field, version, flexible, random);
            }
        }
        writer::no_tags(out, flexible);
    }
    fn write_field(out: &mut Vec<u8>, field: &Field, version: i16, flexible: bool, random: &mut Random) {
        let null = version >= field.null_since && random.below(3) == 0;
        let text = &"a text, ünïcode"[..[0, 6, 16][random.below(3)]];
        let count = (!null).then(|| random.below(4));
        match field.kind {
            // 0 and 1 are the only bytes that survive decoding and encoding as a boolean.
            Kind::Fixed(size) => (0..size).for_each(|_| out.push(random.below(2) as u8)),
            Kind::String => writer::nullable_string(out, flexible, (!null).then_some(text)),
            Kind::Bytes => writer::nullable_bytes(out, flexible, (!null).then_some(text.as_bytes())),
            Kind::Structs(element) => {
                writer::array_count(out, flexible, count);
                for _ in 0..count.unwrap_or(0) {
                    write_struct(out, element, version, flexible, random);
                }
            }
            Kind::Array(element) => {
                writer::array_count(out, flexible, count);
                for _ in 0..count.unwrap_or(0) {
                    write_field(out, element, version, flexible, random);
                }
            }
            Kind::Struct(fields) => {
                if field.null_since != i16::MAX {
                    writer::i8(out, if null { -1 } else { 1 });
                }
                if !null {
                    write_struct(out, fields, version, flexible, random);
                }
            }
        }
    }
    /// Every API and version that both the tables and `kafka-protocol` know.
    pub fn all() -> impl Iterator<Item = (ApiKey, i16)> {
        REQUESTS.iter().flat_map(|(key, _)| {
            let api = ApiKey::try_from(*key).unwrap();
            // The crate lists one version more of these than it decodes.
            let max = match api {
                ApiKey::OffsetCommit | ApiKey::OffsetFetch => 9,
                ApiKey::InitProducerId => 5,
                _ => api.valid_versions().max,
            };
            (api.valid_versions().min..=max).map(move |version| (api, version))
        })
    }

    /// The tables against another implementation of the same schemas: what they write is read and written back alike.
    #[test]
    fn tables_agree_with_kafka_protocol_in_every_version() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for (api, version) in all() {
            for _ in 0..60 {
                let body = sample(api as i16, version, &mut random);
                assert_eq!(check(api as i16, version, &body), Ok(()), "{api:?} v{version}");
                let mut left = Bytes::from(body.clone());
                let request = RequestKind::decode(api, &mut left, version);
                let request = request.unwrap_or_else(|e| panic!("{api:?} v{version}: {e}: {body:?}"));
                assert!(left.is_empty(), "{api:?} v{version}: {} bytes left of {body:?}", left.len());
                let mut again = BytesMut::new();
                request.encode(&mut again, version).unwrap_or_else(|e| panic!("{api:?} v{version}: {e}"));
                assert_eq!(again, body, "{api:?} v{version}: {request:?}");
            }
        }
    }

    #[test]
    fn a_cut_body_is_refused_at_every_byte() {
        let mut random = Random(7);
        for (api, version) in all() {
            let body = sample(api as i16, version, &mut random);
            for size in 0..body.len() {
                assert!(check(api as i16, version, &body[..size]).is_err(), "{api:?} v{version} cut to {size}");
            }
        }
    }

    /// Whatever arrives, decoding what `check` let through takes memory in proportion to the bytes received.
    #[test]
    fn mutations_never_make_decoding_panic_or_reserve_what_was_only_claimed() {
        let mut random = Random(0xdead_beef);
        let (mut passed, mut refused) = (0, 0);
        for (api, version) in all() {
            for _ in 0..150 {
                let mut body = sample(api as i16, version, &mut random);
                for _ in 0..1 + random.below(4) {
                    let at = random.below(body.len());
                    match random.below(4) {
                        _ if body.is_empty() => {}
                        0 => body[at] = random.below(256) as u8,
                        1 => body[at] = [0xff, 0x7f, 0x80, 0x00][random.below(4)],
                        2 => drop(body.splice(at..at, [0xff, 0xff, 0xff, 0x7f])),
                        _ => body.truncate(at),
                    }
                }
                if check(api as i16, version, &body).is_err() {
                    refused += 1;
                    continue;
                }
                passed += 1;
                let size = body.len();
                let mut bytes = Bytes::from(body.clone());
                let info = allocation_counter::measure(|| drop(RequestKind::decode(api, &mut bytes, version)));
                let allowed = 4096 + 200 * size as u64;
                assert!(info.bytes_max <= allowed, "{api:?} v{version}: {} for {body:?}", info.bytes_max);
            }
        }
        assert!(passed > 1000 && refused > 1000, "{passed} passed, {refused} refused");
    }

    #[test]
    fn the_number_of_elements_is_bounded() {
        let delete_topics = |count: usize| {
            let mut body = Vec::new();
            writer::array_count(&mut body, true, Some(count));
            (0..count).for_each(|_| writer::string(&mut body, true, ""));
            writer::i32(&mut body, 1000);
            writer::no_tags(&mut body, true);
            body
        };
        assert_eq!(check(20, 4, &delete_topics(ELEMENTS_MAX)), Ok(()));
        assert!(matches!(check(20, 4, &delete_topics(ELEMENTS_MAX + 1)), Err(DecodeError::Invalid(_))));
        assert_eq!(check(999, 0, &[]), Err(DecodeError::Invalid("api key")));
    }
}
