//! The requests a load generator needs, as bytes: ApiVersions, Metadata, CreateTopics, DeleteTopics, ListOffsets,
//! Produce and Fetch, in their last non-flexible versions, which every Kafka-compatible broker still serves.
//!
//! Kept apart from the broker's own codec on purpose: a mistake that both sides share would be invisible.
//! Decoding borrows, checks every bound, and names the field that was missing. No I/O here.

use anyhow::{Result, bail};
use std::ops::RangeInclusive;

pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
pub const LIST_OFFSETS: i16 = 2;
pub const METADATA: i16 = 3;
pub const API_VERSIONS: i16 = 18;
pub const CREATE_TOPICS: i16 = 19;
pub const DELETE_TOPICS: i16 = 20;
pub const DESCRIBE_CONFIGS: i16 = 32;

pub const CLIENT_ID: &str = "ringlane-loadgen";
/// Where the correlation id of a request or a reply sits, the size prefix included.
pub const CORRELATION: std::ops::Range<usize> = 8..12;

/// Which versions of an API this module can encode and decode.
pub fn spoken(api: i16) -> RangeInclusive<i16> {
    match api {
        PRODUCE => 3..=8,
        FETCH => 4..=11,
        LIST_OFFSETS => 1..=3,
        METADATA => 4..=4,
        CREATE_TOPICS => 2..=4,
        DELETE_TOPICS => 1..=3,
        DESCRIBE_CONFIGS => 1..=2,
        _ => 0..=0,
    }
}

pub fn api_name(api: i16) -> &'static str {
    match api {
        PRODUCE => "Produce",
        FETCH => "Fetch",
        LIST_OFFSETS => "ListOffsets",
        METADATA => "Metadata",
        API_VERSIONS => "ApiVersions",
        CREATE_TOPICS => "CreateTopics",
        DELETE_TOPICS => "DeleteTopics",
        DESCRIBE_CONFIGS => "DescribeConfigs",
        _ => "an API",
    }
}

/// Builds one request: size prefix, header version 1, body.
pub struct Request(Vec<u8>);

impl Request {
    pub fn new(api: i16, version: i16, correlation: i32) -> Self {
        Self::within(Vec::new(), api, version, correlation)
    }
    /// In memory that an older request no longer needs.
    fn within(mut memory: Vec<u8>, api: i16, version: i16, correlation: i32) -> Self {
        memory.clear();
        memory.extend([0; 4]);
        let mut r = Request(memory);
        r.i16(api).i16(version).i32(correlation).string(CLIENT_ID);
        r
    }
    /// A reply with header version 0, which has the same frame; for the sink.
    pub fn bare(correlation: i32) -> Self {
        let mut r = Request(vec![0; 4]);
        r.i32(correlation);
        r
    }
    pub fn i8(&mut self, v: i8) -> &mut Self {
        self.0.push(v as u8);
        self
    }
    pub fn i16(&mut self, v: i16) -> &mut Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    pub fn i32(&mut self, v: i32) -> &mut Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    pub fn i64(&mut self, v: i64) -> &mut Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    pub fn string(&mut self, s: &str) -> &mut Self {
        self.i16(s.len() as i16);
        self.0.extend(s.as_bytes());
        self
    }
    pub fn strings(&mut self, all: &[&str]) -> &mut Self {
        self.i32(all.len() as i32);
        for s in all {
            self.string(s);
        }
        self
    }
    /// The bytes so far, for a caller that appends a batch itself and then calls `set_size`.
    pub fn open(self) -> Vec<u8> {
        self.0
    }
    pub fn finish(mut self) -> Vec<u8> {
        let size = self.0.len() - 4;
        set_size(&mut self.0, size);
        self.0
    }
}

pub fn set_size(frame: &mut [u8], size: usize) {
    frame[..4].copy_from_slice(&(size as u32).to_be_bytes());
}

/// A cursor over a reply; every read is bounds-checked.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }
    /// `body` starts at the correlation id.
    pub fn reply(body: &'a [u8]) -> Result<(i32, Self)> {
        let mut r = Reader(body);
        let correlation = r.i32("correlation id")?;
        Ok((correlation, r))
    }
    pub fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8]> {
        match self.0.split_at_checked(count) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => bail!("malformed reply: it ends inside {field}"),
        }
    }
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, field)?);
        Ok(out)
    }
    pub fn i8(&mut self, field: &'static str) -> Result<i8> {
        Ok(i8::from_be_bytes(self.array(field)?))
    }
    pub fn i16(&mut self, field: &'static str) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array(field)?))
    }
    pub fn i32(&mut self, field: &'static str) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array(field)?))
    }
    pub fn i64(&mut self, field: &'static str) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array(field)?))
    }
    pub fn string(&mut self, field: &'static str) -> Result<&'a str> {
        let size = self.i16(field)?;
        let bytes = self.take(size.max(0) as usize, field)?;
        match std::str::from_utf8(bytes) {
            Ok(s) => Ok(s),
            Err(_) => bail!("malformed reply: {field} is not UTF-8"),
        }
    }
    /// An array length. A null array counts as empty; one longer than the reply is an error.
    pub fn count(&mut self, field: &'static str) -> Result<usize> {
        let count = self.i32(field)?;
        if count > 0 && count as usize > self.0.len() {
            bail!("malformed reply: {field} claims {count} entries in {} bytes", self.0.len());
        }
        Ok(count.max(0) as usize)
    }
}

/// One ListOffsets timestamp.
pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;

pub const OFFSET_OUT_OF_RANGE: i16 = 1;

#[derive(Clone, Copy)]
pub struct FetchPart {
    pub partition: i32,
    pub offset: i64,
}

/// What a consumer asks of one broker in one request.
pub struct FetchLimits {
    pub wait_ms_max: i32,
    pub bytes_min: i32,
    pub bytes_max: i32,
}

/// In memory that an older request no longer needs.
pub fn fetch(
    memory: Vec<u8>,
    version: i16,
    correlation: i32,
    topic: &str,
    parts: impl ExactSizeIterator<Item = FetchPart>,
    limits: &FetchLimits,
) -> Vec<u8> {
    let mut r = Request::within(memory, FETCH, version, correlation);
    r.i32(-1).i32(limits.wait_ms_max).i32(limits.bytes_min).i32(limits.bytes_max).i8(0);
    if version >= 7 {
        r.i32(0).i32(-1); // no fetch session
    }
    r.i32(1).string(topic).i32(parts.len() as i32);
    for part in parts {
        r.i32(part.partition);
        if version >= 9 {
            r.i32(-1);
        }
        r.i64(part.offset);
        if version >= 5 {
            r.i64(-1);
        }
        r.i32(limits.bytes_max);
    }
    if version >= 7 {
        r.i32(0);
    }
    if version >= 11 {
        r.string("");
    }
    r.finish()
}

pub struct Fetched<'a> {
    pub partition: i32,
    pub error: i16,
    pub high_watermark: i64,
    pub records: &'a [u8],
}

/// Calls `each` for every partition of a Fetch reply; returns the reply's own error code.
pub fn fetch_reply<'a>(
    version: i16,
    mut r: Reader<'a>,
    mut each: impl FnMut(Fetched<'a>) -> Result<()>,
) -> Result<i16> {
    r.i32("throttle time")?;
    let error = if version >= 7 {
        let error = r.i16("error code")?;
        r.i32("session id")?;
        error
    } else {
        0
    };
    for _ in 0..r.count("topics")? {
        r.string("topic name")?;
        for _ in 0..r.count("partitions")? {
            let partition = r.i32("partition index")?;
            let error = r.i16("partition error code")?;
            let high_watermark = r.i64("high watermark")?;
            r.i64("last stable offset")?;
            if version >= 5 {
                r.i64("log start offset")?;
            }
            for _ in 0..r.count("aborted transactions")? {
                r.take(16, "aborted transaction")?;
            }
            if version >= 11 {
                r.i32("preferred read replica")?;
            }
            let size = r.i32("records size")?.max(0) as usize;
            let records = r.take(size, "records")?;
            each(Fetched { partition, error, high_watermark, records })?;
        }
    }
    Ok(error)
}

/// Everything of a Produce request that comes before the batch; `batch_size` bytes follow.
pub fn produce_head(version: i16, topic: &str, partition: i32, acks: i16, batch_size: usize) -> Vec<u8> {
    let mut r = Request::new(PRODUCE, version, 0);
    r.i16(-1).i16(acks).i32(30_000).i32(1).string(topic).i32(1).i32(partition).i32(batch_size as i32);
    let mut head = r.open();
    let size = head.len() - 4 + batch_size;
    set_size(&mut head, size);
    head
}

/// The error code and base offset of a Produce reply for one partition.
pub fn produce_reply(mut r: Reader<'_>) -> Result<(i16, i64)> {
    if r.count("topics")? == 0 {
        bail!("malformed reply: Produce answered for no topic");
    }
    r.string("topic name")?;
    if r.count("partitions")? == 0 {
        bail!("malformed reply: Produce answered for no partition");
    }
    r.i32("partition index")?;
    Ok((r.i16("error code")?, r.i64("base offset")?))
}

/// Kafka's name for an error code that a benchmark may meet.
pub fn error_name(code: i16) -> String {
    let name = match code {
        -1 => "UNKNOWN_SERVER_ERROR",
        1 => "OFFSET_OUT_OF_RANGE",
        2 => "CORRUPT_MESSAGE",
        3 => "UNKNOWN_TOPIC_OR_PARTITION",
        5 => "LEADER_NOT_AVAILABLE",
        6 => "NOT_LEADER_OR_FOLLOWER",
        7 => "REQUEST_TIMED_OUT",
        10 => "MESSAGE_TOO_LARGE",
        13 => "NETWORK_EXCEPTION",
        17 => "INVALID_TOPIC_EXCEPTION",
        18 => "RECORD_LIST_TOO_LARGE",
        19 => "NOT_ENOUGH_REPLICAS",
        20 => "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        21 => "INVALID_REQUIRED_ACKS",
        29 => "TOPIC_AUTHORIZATION_FAILED",
        35 => "UNSUPPORTED_VERSION",
        36 => "TOPIC_ALREADY_EXISTS",
        37 => "INVALID_PARTITIONS",
        38 => "INVALID_REPLICATION_FACTOR",
        40 => "INVALID_CONFIG",
        42 => "INVALID_REQUEST",
        44 => "POLICY_VIOLATION",
        56 => "KAFKA_STORAGE_ERROR",
        74 => "FENCED_LEADER_EPOCH",
        87 => "INVALID_RECORD",
        _ => return format!("ERROR_{code}"),
    };
    name.to_string()
}

/// Errors that pass by themselves once leaders are known everywhere.
pub fn is_about_leaders(code: i16) -> bool {
    matches!(code, 3 | 5 | 6 | 74)
}

/// What a user can do about an error that does not go away.
pub fn error_hint(name: &str) -> &'static str {
    match name {
        "KAFKA_STORAGE_ERROR" => "its disk is full or broken; free space there and look at its log",
        "MESSAGE_TOO_LARGE" | "RECORD_LIST_TOO_LARGE" => {
            "lower --batch-bytes, or raise max.message.bytes with --topic-config"
        }
        "NOT_ENOUGH_REPLICAS" | "NOT_ENOUGH_REPLICAS_AFTER_APPEND" => {
            "too few brokers are in sync for min.insync.replicas; start them, or lower it with --topic-config"
        }
        "TOPIC_AUTHORIZATION_FAILED" => "allow this client to use topics named loadgen-*",
        "NOT_LEADER_OR_FOLLOWER" | "FENCED_LEADER_EPOCH" => {
            "leaders moved during the run; wait until the cluster rests"
        }
        _ => "the broker's own log says why",
    }
}
