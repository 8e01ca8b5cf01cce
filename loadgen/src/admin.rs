//! What happens before and after the measured part, over one blocking connection: find the brokers and their
//! versions, make and delete topics, ask for offsets and settings.

use crate::wire::{self, Reader, Request};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

pub struct Admin {
    stream: TcpStream,
    peer: String,
    versions: BTreeMap<i16, (i16, i16)>,
    correlation: i32,
}

/// One partition and who leads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    pub partition: i32,
    pub address: String,
}

/// What Metadata tells about the cluster and one topic.
struct Metadata {
    nodes: BTreeMap<i32, String>,
    leaders: Vec<Leader>,
    /// Why not every partition has a leader.
    problem: Option<String>,
}

const IO_TIMEOUT: Duration = Duration::from_secs(60);
const LEADER_WAIT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Admin {
    /// Tries the comma-separated addresses in turn.
    pub fn connect(bootstrap: &str) -> Result<Self> {
        let mut last = None;
        for address in bootstrap.split(',').map(str::trim).filter(|a| !a.is_empty()) {
            match Self::connect_one(address) {
                Ok(admin) => return Ok(admin),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no address in --bootstrap {bootstrap:?}; write HOST:PORT")))
    }

    fn connect_one(address: &str) -> Result<Self> {
        let hint = || format!("cannot reach a broker at {address}; is it running, and is --bootstrap HOST:PORT right?");
        let mut last = None;
        for socket in address.to_socket_addrs().with_context(hint)? {
            match TcpStream::connect_timeout(&socket, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(IO_TIMEOUT))?;
                    stream.set_write_timeout(Some(IO_TIMEOUT))?;
                    let mut admin = Admin { stream, peer: address.into(), versions: BTreeMap::new(), correlation: 0 };
                    admin.api_versions()?;
                    return Ok(admin);
                }
                Err(e) => last = Some(e),
            }
        }
        match last {
            Some(e) => Err(e).with_context(hint),
            None => bail!("{address} names no address"),
        }
    }

    /// The address it is connected to.
    pub fn address(&self) -> Result<std::net::SocketAddr> {
        Ok(self.stream.peer_addr()?)
    }

    fn call(&mut self, build: impl FnOnce(i32) -> Vec<u8>) -> Result<Vec<u8>> {
        self.correlation += 1;
        let io = |e: std::io::Error, what: &str, peer: &str| anyhow::Error::new(e).context(format!("{what} {peer}"));
        self.stream.write_all(&build(self.correlation)).map_err(|e| io(e, "send to broker", &self.peer))?;
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).map_err(|e| io(e, "no reply from broker", &self.peer))?;
        let size = u32::from_be_bytes(prefix) as usize;
        if size > 256 << 20 {
            bail!("{} does not speak the Kafka protocol (a reply of {size} bytes)", self.peer);
        }
        let mut body = vec![0; size];
        self.stream.read_exact(&mut body).map_err(|e| io(e, "no reply from broker", &self.peer))?;
        let (correlation, _) = Reader::reply(&body)?;
        if correlation != self.correlation {
            bail!("{} answered request {correlation}, not {}", self.peer, self.correlation);
        }
        Ok(body)
    }

    fn api_versions(&mut self) -> Result<()> {
        let body = self
            .call(|c| Request::new(wire::API_VERSIONS, 0, c).finish())
            .with_context(|| format!("{} does not answer ApiVersions; is it a Kafka listener?", self.peer))?;
        let (_, mut r) = Reader::reply(&body)?;
        let error = r.i16("error code")?;
        if error != 0 {
            bail!("{} refuses ApiVersions: {}", self.peer, wire::error_name(error));
        }
        for _ in 0..r.count("api keys")? {
            let (key, min, max) = (r.i16("api key")?, r.i16("min version")?, r.i16("max version")?);
            self.versions.insert(key, (min, max));
        }
        Ok(())
    }

    /// The newest version of an API that both sides know.
    pub fn version(&self, api: i16) -> Result<i16> {
        let ours = wire::spoken(api);
        let name = wire::api_name(api);
        let Some(&(min, max)) = self.versions.get(&api) else {
            bail!("broker {} does not offer {name}; loadgen needs it", self.peer)
        };
        let version = max.min(*ours.end());
        if version < min.max(*ours.start()) {
            bail!(
                "broker {} offers {name} versions {min} to {max}, loadgen speaks {} to {}: use a broker that offers one of those",
                self.peer,
                ours.start(),
                ours.end()
            );
        }
        Ok(version)
    }

    /// Brokers by node id, and the leader of each partition of `topic`; waits until all have one.
    pub fn leaders(&mut self, topic: &str, wait: Duration) -> Result<Vec<Leader>> {
        let deadline = Instant::now() + wait;
        loop {
            let Metadata { leaders, problem, .. } = self.metadata(Some(topic))?;
            match problem {
                None => return Ok(leaders),
                Some(problem) if Instant::now() >= deadline => {
                    bail!("topic {topic} has no leader for every partition after {wait:?}: {problem}")
                }
                Some(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Number of broker nodes.
    pub fn node_count(&mut self) -> Result<usize> {
        Ok(self.metadata(None)?.nodes.len())
    }

    fn metadata(&mut self, topic: Option<&str>) -> Result<Metadata> {
        self.version(wire::METADATA)?;
        let topics: Vec<&str> = topic.into_iter().collect();
        let body = self.call(|c| {
            let mut r = Request::new(wire::METADATA, 4, c);
            r.strings(&topics).i8(0);
            r.finish()
        })?;
        let (_, mut r) = Reader::reply(&body)?;
        r.i32("throttle time")?;
        let mut nodes = BTreeMap::new();
        for _ in 0..r.count("brokers")? {
            let node = r.i32("node id")?;
            let host = r.string("host")?;
            let port = r.i32("port")?;
            r.string("rack")?;
            nodes.insert(node, if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") });
        }
        r.string("cluster id")?;
        r.i32("controller id")?;
        let (mut leaders, mut problem) = (Vec::new(), None);
        for _ in 0..r.count("topics")? {
            let error = r.i16("topic error code")?;
            r.string("topic name")?;
            r.i8("is internal")?;
            if error != 0 {
                problem = Some(wire::error_name(error));
            }
            for _ in 0..r.count("partitions")? {
                let error = r.i16("partition error code")?;
                let partition = r.i32("partition index")?;
                let leader = r.i32("leader id")?;
                for _ in 0..2 {
                    let nodes = r.count("replica nodes")?;
                    r.take(nodes * 4, "replica nodes")?;
                }
                match nodes.get(&leader) {
                    Some(address) if error == 0 => leaders.push(Leader { partition, address: address.clone() }),
                    _ => problem = Some(format!("partition {partition}: {}", wire::error_name(error))),
                }
            }
        }
        if topic.is_some() && leaders.is_empty() && problem.is_none() {
            problem = Some("the broker does not list it".into());
        }
        leaders.sort_by_key(|l| l.partition);
        Ok(Metadata { nodes, leaders, problem })
    }

    pub fn create_topic(
        &mut self,
        topic: &str,
        partitions: usize,
        replication: i16,
        configs: &[(String, String)],
    ) -> Result<()> {
        let version = self.version(wire::CREATE_TOPICS)?;
        let body = self.call(|c| {
            let mut r = Request::new(wire::CREATE_TOPICS, version, c);
            r.i32(1).string(topic).i32(partitions as i32).i16(replication).i32(0).i32(configs.len() as i32);
            for (key, value) in configs {
                r.string(key).string(value);
            }
            r.i32(30_000).i8(0);
            r.finish()
        })?;
        let (_, mut r) = Reader::reply(&body)?;
        r.i32("throttle time")?;
        for _ in 0..r.count("topics")? {
            r.string("topic name")?;
            let error = r.i16("error code")?;
            let message = r.string("error message")?;
            if error != 0 {
                bail!("cannot create topic {topic}: {} {message}", wire::error_name(error));
            }
        }
        Ok(())
    }

    pub fn delete_topic(&mut self, topic: &str) -> Result<()> {
        let version = self.version(wire::DELETE_TOPICS)?;
        let body = self.call(|c| {
            let mut r = Request::new(wire::DELETE_TOPICS, version, c);
            r.strings(&[topic]).i32(30_000);
            r.finish()
        })?;
        let (_, mut r) = Reader::reply(&body)?;
        r.i32("throttle time")?;
        for _ in 0..r.count("topics")? {
            r.string("topic name")?;
            let error = r.i16("error code")?;
            if error != 0 {
                bail!("cannot delete topic {topic}: {}", wire::error_name(error));
            }
        }
        Ok(())
    }

    /// The offset of one partition at `timestamp` (or LATEST, EARLIEST). Asks the broker this is connected to, which
    /// must be the leader; a leader that was elected a moment ago gets time to know it.
    pub fn offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> Result<i64> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            match self.offset_once(topic, partition, timestamp)? {
                (0, offset) => return Ok(offset),
                (code, _) if wire::is_about_leaders(code) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                (code, _) => bail!("ListOffsets of {topic}-{partition}: {}", wire::error_name(code)),
            }
        }
    }

    /// Error code and offset.
    fn offset_once(&mut self, topic: &str, partition: i32, timestamp: i64) -> Result<(i16, i64)> {
        let version = self.version(wire::LIST_OFFSETS)?;
        let body = self.call(|c| {
            let mut r = Request::new(wire::LIST_OFFSETS, version, c);
            r.i32(-1);
            if version >= 2 {
                r.i8(0);
            }
            r.i32(1).string(topic).i32(1).i32(partition).i64(timestamp);
            r.finish()
        })?;
        let (_, mut r) = Reader::reply(&body)?;
        if version >= 2 {
            r.i32("throttle time")?;
        }
        if r.count("topics")? != 1 {
            bail!("ListOffsets: one topic asked, another number answered");
        }
        r.string("topic name")?;
        if r.count("partitions")? != 1 {
            bail!("ListOffsets: one partition asked, another number answered");
        }
        r.i32("partition index")?;
        let error = r.i16("error code")?;
        r.i64("timestamp")?;
        let offset = r.i64("offset")?;
        Ok((error, offset))
    }

    /// Settings of a topic that a report must state, such as `flush.messages`. Empty when the broker cannot tell.
    pub fn topic_settings(&mut self, topic: &str, names: &[&str]) -> Result<BTreeMap<String, String>> {
        let version = self.version(wire::DESCRIBE_CONFIGS)?;
        let body = self.call(|c| {
            let mut r = Request::new(wire::DESCRIBE_CONFIGS, version, c);
            r.i32(1).i8(2).string(topic).strings(names).i8(0);
            r.finish()
        })?;
        let (_, mut r) = Reader::reply(&body)?;
        r.i32("throttle time")?;
        let mut settings = BTreeMap::new();
        for _ in 0..r.count("results")? {
            r.i16("error code")?;
            r.string("error message")?;
            r.i8("resource type")?;
            r.string("resource name")?;
            for _ in 0..r.count("configs")? {
                let name = r.string("config name")?.to_string();
                let value = r.string("config value")?.to_string();
                r.take(3, "config flags")?; // read only, source, sensitive
                for _ in 0..r.count("synonyms")? {
                    r.string("synonym name")?;
                    r.string("synonym value")?;
                    r.i8("synonym source")?;
                }
                settings.insert(name, value);
            }
        }
        Ok(settings)
    }
}
