//! A broker that keeps nothing: it answers the requests a producer needs and discards every record unread. As
//! `--peer sink` it shows what the generator can do alone, and tests use it where no real broker is necessary.
//! Blocking threads, one for each connection, all on the broker's cores.

use crate::batch::field;
use crate::machine;
use crate::wire::{self, Reader};
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// How it behaves; `--override KEY=VALUE` makes it misbehave.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// `answer-error=CODE`: every Produce gets this error.
    answer_error: i16,
    /// `produce-versions=MIN-MAX`: what it claims to serve.
    produce_versions: Option<(i16, i16)>,
}

impl Manners {
    pub fn parse(overrides: &[String]) -> Result<Self> {
        let mut manners = Manners::default();
        for entry in overrides {
            match entry.split_once('=') {
                Some(("answer-error", code)) => manners.answer_error = code.parse().context("answer-error")?,
                Some(("produce-versions", range)) => {
                    let (min, max) = range.split_once('-').context("produce-versions: write MIN-MAX")?;
                    manners.produce_versions = Some((min.parse()?, max.parse()?));
                }
                _ => bail!("the sink knows answer-error=CODE and produce-versions=MIN-MAX, not {entry:?}"),
            }
        }
        Ok(manners)
    }
}

/// Topic -> record count of each partition.
type Topics = Arc<Mutex<HashMap<String, Vec<i64>>>>;

fn lock(topics: &Topics) -> MutexGuard<'_, HashMap<String, Vec<i64>>> {
    topics.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// Serves on a free loopback port until the process ends.
pub fn start(cores: &[usize], manners: Manners) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("bind a loopback port")?;
    let address = listener.local_addr()?;
    let (cores, topics) = (cores.to_vec(), Topics::default());
    std::thread::Builder::new().name("sink".into()).spawn(move || {
        if let Err(e) = machine::pin(&cores) {
            eprintln!("sink: {e:#}");
        }
        for stream in listener.incoming().flatten() {
            let (topics, manners) = (topics.clone(), manners.clone());
            let serve = move || {
                // The peer hanging up is how every connection ends.
                let _ = Connection { stream, address, topics, manners }.serve();
            };
            if std::thread::Builder::new().name("sink-connection".into()).spawn(serve).is_err() {
                return;
            }
        }
    })?;
    Ok(address)
}

struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    topics: Topics,
    manners: Manners,
}

const BUFFER: usize = 1 << 20;
/// Everything before the records of a Produce request fits in here.
const HEAD_MAX: usize = 1024;

impl Connection {
    fn serve(mut self) -> Result<()> {
        self.stream.set_nodelay(true)?;
        let mut buffer = vec![0u8; BUFFER];
        let (mut start, mut end) = (0, 0);
        let mut replies = Vec::new();
        loop {
            while let Some(prefix) = buffer[start..end].first_chunk::<4>() {
                let size = u32::from_be_bytes(*prefix) as usize;
                let have = end - start - 4;
                if have < size.min(HEAD_MAX) {
                    break;
                }
                let whole = have >= size;
                let head = &buffer[start + 4..start + 4 + size.min(have)];
                self.handle(head, &mut replies)?;
                if whole {
                    start += 4 + size;
                    continue;
                }
                // The rest of a large frame goes over the same memory and is never looked at.
                let mut left = size - have;
                while left > 0 {
                    let room = left.min(BUFFER);
                    let count = self.stream.read(&mut buffer[..room])?;
                    if count == 0 {
                        bail!("closed inside a frame");
                    }
                    left -= count;
                }
                (start, end) = (0, 0);
            }
            if !replies.is_empty() {
                self.stream.write_all(&replies)?;
                replies.clear();
            }
            if start > 0 {
                buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
            }
            let count = self.stream.read(&mut buffer[end..])?;
            if count == 0 {
                return Ok(());
            }
            end += count;
        }
    }

    /// `head`: the request without its size prefix, perhaps without the end of its records.
    fn handle(&mut self, head: &[u8], replies: &mut Vec<u8>) -> Result<()> {
        // A request header begins like a reply with two more fields.
        let mut r = Reader::new(head);
        let (api, version, correlation) = (r.i16("api key")?, r.i16("api version")?, r.i32("correlation id")?);
        r.string("client id")?;
        let mut reply = wire::Request::bare(correlation);
        match api {
            wire::PRODUCE => {
                if !self.produce(version, r, &mut reply)? {
                    return Ok(());
                }
            }
            wire::API_VERSIONS => {
                let (min, max) = self.manners.produce_versions.unwrap_or((3, 8));
                let all = [
                    (wire::PRODUCE, min, max),
                    (wire::LIST_OFFSETS, 1, 3),
                    (wire::METADATA, 4, 4),
                    (wire::API_VERSIONS, 0, 0),
                    (wire::CREATE_TOPICS, 2, 4),
                    (wire::DELETE_TOPICS, 1, 3),
                ];
                reply.i16(0).i32(all.len() as i32);
                for (key, min, max) in all {
                    reply.i16(key).i16(min).i16(max);
                }
            }
            wire::METADATA => self.metadata(r, &mut reply)?,
            wire::CREATE_TOPICS => {
                r.count("topics")?;
                let topic = r.string("topic")?;
                let partitions = r.i32("partitions")?.clamp(1, 100_000) as usize;
                lock(&self.topics).insert(topic.into(), vec![0; partitions]);
                reply.i32(0).i32(1).string(topic).i16(0).i16(-1);
            }
            wire::DELETE_TOPICS => {
                r.count("topics")?;
                let topic = r.string("topic")?;
                let known = lock(&self.topics).remove(topic).is_some();
                reply.i32(0).i32(1).string(topic).i16(if known { 0 } else { 3 });
            }
            wire::LIST_OFFSETS => {
                r.i32("replica")?;
                if version >= 2 {
                    r.i8("isolation")?;
                    reply.i32(0);
                }
                r.count("topics")?;
                let topic = r.string("topic")?;
                r.count("partitions")?;
                let partition = r.i32("partition")?;
                let end = lock(&self.topics).get(topic).and_then(|p| p.get(partition as usize).copied());
                reply.i32(1).string(topic).i32(1).i32(partition);
                reply.i16(if end.is_some() { 0 } else { 3 }).i64(-1).i64(end.unwrap_or(-1));
            }
            _ => bail!("the sink does not serve API {api}"),
        }
        replies.extend(reply.finish());
        Ok(())
    }

    /// Counts the records by the batch's header. Returns whether an answer is wanted.
    fn produce(&mut self, version: i16, mut r: Reader<'_>, reply: &mut wire::Request) -> Result<bool> {
        r.string("transactional id")?;
        let acks = r.i16("acks")?;
        r.i32("timeout")?;
        r.count("topics")?;
        let topic = r.string("topic")?;
        r.count("partitions")?;
        let partition = r.i32("partition")?;
        r.i32("records size")?;
        let batch = r.take(field::RECORDS, "batch header")?;
        let count = batch[field::RECORD_COUNT].iter().fold(0i64, |sum, b| sum << 8 | *b as i64);
        let mut topics = lock(&self.topics);
        let end = topics.get_mut(topic).and_then(|p| p.get_mut(partition as usize));
        let (error, base_offset) = match end {
            None => (3, -1),
            Some(_) if self.manners.answer_error != 0 => (self.manners.answer_error, -1),
            Some(end) => {
                *end += count;
                (0, *end - count)
            }
        };
        drop(topics);
        reply.i32(1).string(topic).i32(1).i32(partition).i16(error).i64(base_offset).i64(-1);
        if version >= 5 {
            reply.i64(0);
        }
        if version >= 8 {
            reply.i32(0).i16(-1);
        }
        reply.i32(0);
        Ok(acks != 0)
    }

    fn metadata(&self, mut r: Reader<'_>, reply: &mut wire::Request) -> Result<()> {
        let mut asked = Vec::new();
        for _ in 0..r.count("topics")? {
            asked.push(r.string("topic")?);
        }
        reply.i32(0).i32(1).i32(0).string("127.0.0.1").i32(self.address.port() as i32).i16(-1);
        reply.i16(-1).i32(0).i32(asked.len() as i32);
        let topics = lock(&self.topics);
        for topic in asked {
            let partitions = topics.get(topic).map_or(0, |p| p.len());
            reply.i16(if partitions > 0 { 0 } else { 3 }).string(topic).i8(0).i32(partitions as i32);
            for partition in 0..partitions {
                reply.i16(0).i32(partition as i32).i32(0).i32(1).i32(0).i32(1).i32(0);
            }
        }
        Ok(())
    }
}
