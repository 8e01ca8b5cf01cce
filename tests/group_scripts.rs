//! Runs tests/scripts/group/*.txt against the group coordinator: commands, `----`, the expected trace. After every command
//! the coordinator's books are audited. `REWRITE=1 cargo test --test group_scripts` writes the traces anew: read the diff.
//!
//! Commands (`key=value`; member ids are `<prefix>-<n>`, `n` counting ids handed out):
//!   config key=value...          before anything else            hold | release | fail ERROR    appends wait / are done / fail
//!   join g client=c ...          sync g member= gen= m=bytes...  heartbeat, leave, commit, fetch, describe, list, delete,
//!   advance ms                   restart                         offset-delete, drop-topic, unload, held

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use ringlane::group::record::{Committed, GroupValue, Key, Record, subscribed_topics};
use ringlane::group::{Append, Caller, Config, Groups, Outcome, Reply, Topics, partition_for};
use ringlane::ids::{Now, ReplyTo, Waiter};
use ringlane::wire::ErrorCode;
use uuid::Uuid;

/// Topics `orders` (id 1) and `clicks` (id 2), three partitions each, until dropped.
struct TwoTopics(Vec<&'static str>);

impl Topics for TwoTopics {
    fn has_topic(&self, name: &str) -> bool {
        self.0.contains(&name)
    }
    fn has_partition(&self, name: &str, partition: i32) -> bool {
        self.has_topic(name) && (0..3).contains(&partition)
    }
    fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.has_topic(name).then(|| Uuid::from_u128(if name == "orders" { 1 } else { 2 }))
    }
    fn topic_name(&self, id: Uuid) -> Option<StrBytes> {
        let name = ["orders", "clicks"].into_iter().find(|name| self.topic_id(name) == Some(id))?;
        Some(StrBytes::from_static_str(name))
    }
}

struct World {
    config: Config,
    groups: Groups,
    ids: Arc<AtomicU64>,
    topics: TwoTopics,
    log: BTreeMap<i32, Vec<Record>>,
    now: Now,
    hold: bool,
    held: Vec<Append>,
    waiters: u64,
    trace: String,
}

fn new_groups(config: &Config, ids: &Arc<AtomicU64>) -> Groups {
    let ids = ids.clone();
    Groups::new(config.clone(), Box::new(move || Uuid::from_u128(u128::from(ids.fetch_add(1, Ordering::Relaxed) + 1))))
}

/// The arguments of one command.
struct Args<'a>(Vec<&'a str>);

impl<'a> Args<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find_map(|arg| arg.strip_prefix(key)?.strip_prefix('='))
    }
    fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> T {
        let parse = |text: &str| text.parse().unwrap_or_else(|_| panic!("{key}={text} is no number"));
        self.get(key).map_or(default, parse)
    }
    fn positional(&self, index: usize) -> &'a str {
        self.0.iter().filter(|arg| !arg.contains('=')).nth(index).copied().unwrap_or("")
    }
    /// `topic:partition[:rest]` arguments.
    fn partitions(&self) -> Vec<(&'a str, i32, Vec<&'a str>)> {
        let of = |arg: &&'a str| {
            let mut parts = arg.split(':');
            let (topic, partition) = (parts.next()?, parts.next()?.parse().ok()?);
            Some((topic, partition, parts.collect()))
        };
        self.0.iter().filter(|arg| !arg.contains('=')).filter_map(of).collect()
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// `c-3` stands for `c-<uuid 3>`.
fn member(short: &str) -> StrBytes {
    match short.rsplit_once('-').and_then(|(prefix, n)| Some((prefix, n.parse::<u128>().ok()?))) {
        Some((prefix, n)) => text(&format!("{prefix}-{}", Uuid::from_u128(n))),
        None => text(short),
    }
}

fn short(id: &str) -> String {
    let Some(at) = id.len().checked_sub(36) else { return if id.is_empty() { "-".into() } else { id.into() } };
    match Uuid::try_parse(&id[at..]) {
        Ok(uuid) => format!("{}{}", &id[..at], uuid.as_u128()),
        Err(_) => id.into(),
    }
}

fn error(code: i16) -> String {
    if code == 0 { "ok".into() } else { format!("{:?}", ErrorCode::from_code(code).expect("a code of Kafka's")) }
}

fn bytes(bytes: &[u8]) -> String {
    match subscribed_topics(bytes) {
        Ok(topics) if bytes.len() > 4 => {
            format!("topics({})", topics.iter().map(|t| t.as_str()).collect::<Vec<_>>().join(","))
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Metadata `topics(a,b)` is a consumer's subscription, anything else is opaque.
fn metadata(spec: &str) -> Bytes {
    let Some(topics) = spec.strip_prefix("topics(").and_then(|rest| rest.strip_suffix(')')) else {
        return Bytes::copy_from_slice(spec.as_bytes());
    };
    let topics: Vec<&str> = topics.split('+').collect();
    let mut out = vec![0, 1];
    out.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        out.extend((topic.len() as i16).to_be_bytes());
        out.extend(topic.as_bytes());
    }
    out.extend((-1i32).to_be_bytes());
    Bytes::from(out)
}

impl World {
    fn new() -> World {
        let (config, ids) = (Config::default(), Arc::new(AtomicU64::new(0)));
        let mut world = World {
            groups: new_groups(&config, &ids),
            config,
            ids,
            topics: TwoTopics(vec!["orders", "clicks"]),
            log: BTreeMap::new(),
            now: Now { wall_ms: 1_000_000, monotonic_ns: 0 },
            hold: false,
            held: Vec::new(),
            waiters: 0,
            trace: String::new(),
        };
        world.load();
        world
    }

    fn load(&mut self) {
        let mut out = Outcome::default();
        for partition in 0..self.config.offsets_partitions {
            self.groups.load_start(partition);
            for record in self.log.get(&partition).into_iter().flatten() {
                self.groups.replay(partition, &record.key, record.value.as_deref()).unwrap();
            }
            self.groups.load_done(partition, self.now, &mut out);
        }
        self.settle(out);
    }

    fn timer_ms(&self) -> i64 {
        self.now.monotonic_ms() as i64
    }

    fn set_timer(&mut self, ms: i64) {
        self.now.wall_ms += ms - self.timer_ms();
        self.now.monotonic_ns = ms as u64 * 1_000_000;
    }

    fn say(&mut self, line: String) {
        writeln!(self.trace, "{line}").unwrap();
    }

    fn run(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap();
        let args = Args(words.collect());
        let group = GroupId(text(args.positional(0)));
        let mut out = Outcome::default();
        if !matches!(command, "config" | "hold" | "release" | "fail" | "advance" | "restart" | "held") {
            self.waiters += 1;
        }
        let client = args.get("client").unwrap_or("c").to_owned();
        let (waiter, version) = (self.waiters, args.number("v", 9));
        let caller = Caller {
            to: ReplyTo { waiter: Waiter(waiter), correlation_id: 0, api: 0, version },
            client_id: &client,
            client_host: "/127.0.0.1",
        };
        let instance = args.get("instance").map(text);
        match command {
            "config" => {
                let config = &mut self.config;
                config.group_size_max = args.number("max-size", config.group_size_max);
                config.initial_rebalance_delay_ms = args.number("delay", config.initial_rebalance_delay_ms);
                config.group_bytes_max = args.number("bytes", config.group_bytes_max);
                config.offset_metadata_bytes_max = args.number("metadata", config.offset_metadata_bytes_max);
                config.offsets_retention_ms = args.number("retention", config.offsets_retention_ms);
                config.retention_check_interval_ms = args.number("check", config.retention_check_interval_ms);
                self.restart();
            }
            "hold" => self.hold = true,
            "release" | "fail" => {
                let result = match args.positional(0) {
                    "" => Ok(()),
                    "NotLeaderOrFollower" => Err(ErrorCode::NotLeaderOrFollower),
                    "MessageTooLarge" => Err(ErrorCode::MessageTooLarge),
                    "NotEnoughReplicas" => Err(ErrorCode::NotEnoughReplicas),
                    other => panic!("unknown error {other}"),
                };
                self.hold = false;
                for append in std::mem::take(&mut self.held) {
                    self.finish(append, result, &mut out);
                }
            }
            "restart" => self.restart(),
            "held" => {
                let held = if self.groups.group_bytes() == 0 { "nothing held" } else { "memory held" };
                self.say(held.into());
            }
            "advance" => {
                let until = self.timer_ms() + args.positional(0).parse::<i64>().unwrap();
                while self.groups.next_deadline_ms() <= until {
                    self.set_timer(self.groups.next_deadline_ms().max(self.timer_ms()));
                    let mut out = Outcome::default();
                    self.groups.expire(self.now, &mut out);
                    if !out.replies.is_empty() || !out.appends.is_empty() {
                        self.say(format!("@{}", self.timer_ms()));
                    }
                    self.settle(out);
                    self.groups.audit().unwrap();
                }
                self.set_timer(until);
            }
            "join" => {
                let protocols = args.get("protocols").unwrap_or("range:m").split(',').filter(|p| !p.is_empty());
                let protocols = protocols.map(|protocol| {
                    let (name, data) = protocol.split_once(':').unwrap();
                    JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(metadata(data))
                });
                let request = JoinGroupRequest::default()
                    .with_group_id(group)
                    .with_session_timeout_ms(args.number("session", 10_000))
                    .with_rebalance_timeout_ms(args.number("rebalance", 60_000))
                    .with_member_id(member(args.get("member").unwrap_or("")))
                    .with_group_instance_id(instance)
                    .with_protocol_type(text(args.get("type").unwrap_or("consumer")))
                    .with_protocols(protocols.collect());
                self.groups.join(&caller, &request, self.now, &mut out);
            }
            "sync" => {
                let keys = ["member", "gen", "instance", "type", "protocol", "v"];
                let given = args.0.iter().filter_map(|arg| arg.split_once('=')).filter(|(key, _)| !keys.contains(key));
                let assignments = given.map(|(id, data)| {
                    SyncGroupRequestAssignment::default().with_member_id(member(id)).with_assignment(metadata(data))
                });
                let request = SyncGroupRequest::default()
                    .with_group_id(group)
                    .with_generation_id(args.number("gen", 1))
                    .with_member_id(member(args.get("member").unwrap_or("")))
                    .with_group_instance_id(instance)
                    .with_protocol_type(args.get("type").map(text))
                    .with_protocol_name(args.get("protocol").map(text))
                    .with_assignments(assignments.collect());
                self.groups.sync(&caller, &request, self.now, &mut out);
            }
            "heartbeat" => {
                let request = HeartbeatRequest::default()
                    .with_group_id(group)
                    .with_generation_id(args.number("gen", 1))
                    .with_member_id(member(args.get("member").unwrap_or("")))
                    .with_group_instance_id(instance);
                let response = self.groups.heartbeat(&request, self.now);
                self.say(format!("#{} heartbeat {}", waiter, error(response.error_code)));
            }
            "leave" => {
                let mut request = LeaveGroupRequest::default().with_group_id(group);
                if version < 3 {
                    request.member_id = member(args.get("member").unwrap_or(""));
                } else {
                    let identities = args.0.iter().filter_map(|arg| arg.split_once('=')).filter_map(|(key, value)| {
                        let identity = MemberIdentity::default();
                        match key {
                            "member" => {
                                let (id, instance) = value.split_once('/').map_or((value, None), |(a, b)| (a, Some(b)));
                                Some(identity.with_member_id(member(id)).with_group_instance_id(instance.map(text)))
                            }
                            "instance" => Some(identity.with_group_instance_id(Some(text(value)))),
                            _ => None,
                        }
                    });
                    request.members = identities.collect();
                }
                self.groups.leave(&caller, &request, self.now, &mut out);
            }
            "commit" => {
                let topics = args.partitions().into_iter().map(|(topic, partition, rest)| {
                    let partition = OffsetCommitRequestPartition::default()
                        .with_partition_index(partition)
                        .with_committed_offset(rest.first().map_or(0, |offset| offset.parse().unwrap()))
                        .with_committed_leader_epoch(0)
                        .with_committed_metadata(rest.get(1).map(|data| text(data)));
                    let (name, id) = named(topic, version);
                    OffsetCommitRequestTopic::default()
                        .with_name(name)
                        .with_topic_id(id)
                        .with_partitions(vec![partition])
                });
                let request = OffsetCommitRequest::default()
                    .with_group_id(group)
                    .with_generation_id_or_member_epoch(args.number("gen", -1))
                    .with_member_id(member(args.get("member").unwrap_or("")))
                    .with_group_instance_id(instance)
                    .with_retention_time_ms(args.number("retention", -1))
                    .with_topics(topics.collect());
                self.groups.commit(&caller, &request, &self.topics, self.now, &mut out);
            }
            "fetch" => self.fetch(&args, version),
            "offset-delete" => {
                let topics = args.partitions().into_iter().map(|(topic, partition, _)| {
                    let partition = OffsetDeleteRequestPartition::default().with_partition_index(partition);
                    OffsetDeleteRequestTopic::default()
                        .with_name(TopicName(text(topic)))
                        .with_partitions(vec![partition])
                });
                let request = OffsetDeleteRequest::default().with_group_id(group).with_topics(topics.collect());
                self.groups.delete_offsets(&caller, &request, &self.topics, self.now, &mut out);
            }
            "describe" => {
                let request = DescribeGroupsRequest::default()
                    .with_groups(vec![group])
                    .with_include_authorized_operations(args.get("ops").is_some());
                for group in self.groups.describe(&request, args.number("v", 5)).groups {
                    let operations = match group.authorized_operations {
                        i32::MIN => String::new(),
                        operations => format!(" ops={operations}"),
                    };
                    self.say(format!(
                        "{} {} type={} protocol={} {}{operations}",
                        group.group_id.as_str(),
                        group.group_state.as_str(),
                        group.protocol_type.as_str(),
                        group.protocol_data.as_str(),
                        error(group.error_code),
                    ));
                    for one in group.members {
                        self.say(format!(
                            "  {} instance={} client={} host={} metadata={} assignment={}",
                            short(&one.member_id),
                            one.group_instance_id.as_deref().unwrap_or("-"),
                            one.client_id.as_str(),
                            one.client_host.as_str(),
                            bytes(&one.member_metadata),
                            bytes(&one.member_assignment),
                        ));
                    }
                }
            }
            "list" => {
                let filter = |key| args.get(key).map_or(Vec::new(), |list| list.split(',').map(text).collect());
                let request = ListGroupsRequest::default()
                    .with_states_filter(filter("states"))
                    .with_types_filter(filter("types"));
                let response = self.groups.list(&request);
                self.say(format!("list {}", error(response.error_code)));
                for group in response.groups {
                    let (id, state) = (group.group_id.as_str(), group.group_state.as_str());
                    let (protocol_type, kind) = (group.protocol_type.as_str(), group.group_type.as_str());
                    self.say(format!("  {id} {state} type={protocol_type} kind={kind}"));
                }
            }
            "delete" => {
                let names = args.0.iter().filter(|arg| !arg.contains('=')).map(|name| GroupId(text(name)));
                let request = DeleteGroupsRequest::default().with_groups_names(names.collect());
                self.groups.delete(&caller, &request, self.now, &mut out);
            }
            "drop-topic" => {
                self.topics.0.retain(|name| *name != args.positional(0));
                self.groups.topics_deleted(&[text(args.positional(0))].into(), self.now, &mut out);
            }
            "unload" => self.groups.unload(partition_for(&group, self.config.offsets_partitions), self.now, &mut out),
            other => panic!("unknown command {other}"),
        }
        self.settle(out);
        self.groups.audit().unwrap();
    }

    fn restart(&mut self) {
        self.held.clear();
        self.groups = new_groups(&self.config, &self.ids);
        self.load();
    }

    fn fetch(&mut self, args: &Args, version: i16) {
        let group = GroupId(text(args.positional(0)));
        let asked: Vec<_> = args.partitions();
        let mut request = OffsetFetchRequest::default();
        if version >= 8 {
            let topics = asked.iter().map(|(topic, partition, _)| {
                let (name, id) = named(topic, version);
                OffsetFetchRequestTopics::default()
                    .with_name(name)
                    .with_topic_id(id)
                    .with_partition_indexes(vec![*partition])
            });
            let topics = (!asked.is_empty()).then(|| topics.collect());
            request.groups = vec![OffsetFetchRequestGroup::default().with_group_id(group).with_topics(topics)];
        } else {
            let topics = asked.iter().map(|(topic, partition, _)| {
                OffsetFetchRequestTopic::default()
                    .with_name(TopicName(text(topic)))
                    .with_partition_indexes(vec![*partition])
            });
            request.group_id = group;
            request.topics = (!asked.is_empty()).then(|| topics.collect());
        }
        let response = self.groups.fetch(&request, version, &self.topics);
        let mut lines = Vec::new();
        if version < 8 {
            lines.push(format!("fetch {}", error(response.error_code)));
            for topic in response.topics {
                for p in topic.partitions {
                    let metadata = p.metadata.as_deref().unwrap_or("null");
                    let at = format!("{}:{}", topic.name.as_str(), p.partition_index);
                    lines.push(format!(
                        "  {at} offset={} metadata={metadata} {}",
                        p.committed_offset,
                        error(p.error_code)
                    ));
                }
            }
        }
        for group in response.groups {
            lines.push(format!("fetch {}", error(group.error_code)));
            for topic in group.topics {
                for p in topic.partitions {
                    let metadata = p.metadata.as_deref().unwrap_or("null");
                    let at = match version {
                        10.. => format!("{}:{}", topic.topic_id.as_u128(), p.partition_index),
                        _ => format!("{}:{}", topic.name.as_str(), p.partition_index),
                    };
                    lines.push(format!(
                        "  {at} offset={} metadata={metadata} {}",
                        p.committed_offset,
                        error(p.error_code)
                    ));
                }
            }
        }
        lines.into_iter().for_each(|line| self.say(line));
    }

    /// Prints what came out, and performs the appends unless they are held.
    fn settle(&mut self, out: Outcome) {
        let mut out = Some(out);
        while let Some(now) = out.take() {
            for (to, reply) in now.replies {
                let line = describe(&reply);
                encode(&reply, to.version);
                self.say(format!("#{} {line}", to.waiter.0));
            }
            let mut next = Outcome::default();
            for append in now.appends {
                if self.hold {
                    self.say(format!("held append of {} records", append.records.len()));
                    self.held.push(append);
                } else {
                    self.finish(append, Ok(()), &mut next);
                }
            }
            if !next.replies.is_empty() || !next.appends.is_empty() {
                out = Some(next);
            }
        }
    }

    fn finish(&mut self, append: Append, result: Result<(), ErrorCode>, out: &mut Outcome) {
        for record in append.records {
            let line = describe_record(&record);
            match result {
                Ok(()) => {
                    self.say(format!("append {line}"));
                    self.log.entry(append.partition).or_default().push(record);
                }
                Err(_) => self.say(format!("refuse {line}")),
            }
        }
        self.groups.appended(append.id, result, self.now, out);
    }
}

/// Every reply must fit the version it was asked for in, or the last one of its API: the scripts ask in JoinGroup's versions.
fn encode(reply: &Reply, version: i16) {
    let (message, last): (&dyn Fn(i16) -> anyhow::Result<()>, i16) = match reply {
        Reply::JoinGroup(r) => (&|v| r.encode(&mut Vec::new(), v), 9),
        Reply::SyncGroup(r) => (&|v| r.encode(&mut Vec::new(), v), 5),
        Reply::LeaveGroup(r) => (&|v| r.encode(&mut Vec::new(), v), 5),
        Reply::OffsetCommit(r) => (&|v| r.encode(&mut Vec::new(), v), 10),
        Reply::OffsetDelete(r) => (&|v| r.encode(&mut Vec::new(), v), 0),
        Reply::DeleteGroups(r) => (&|v| r.encode(&mut Vec::new(), v), 2),
    };
    message(version.min(last)).unwrap();
}

fn named(topic: &str, version: i16) -> (TopicName, Uuid) {
    match (version >= 10, topic.parse::<u128>()) {
        (true, Ok(id)) => (TopicName::default(), Uuid::from_u128(id)),
        _ => (TopicName(text(topic)), Uuid::nil()),
    }
}

fn describe(reply: &Reply) -> String {
    let optional = |text: &Option<StrBytes>| text.as_deref().unwrap_or("null").to_owned();
    match reply {
        Reply::JoinGroup(r) if r.error_code != 0 => {
            format!("join {} member={}", error(r.error_code), short(&r.member_id))
        }
        Reply::JoinGroup(r) => {
            let members: Vec<String> = r
                .members
                .iter()
                .map(|m| {
                    let instance = m.group_instance_id.as_deref().map_or(String::new(), |id| format!("/{id}"));
                    format!("{}{instance}:{}", short(&m.member_id), bytes(&m.metadata))
                })
                .collect();
            let skip = if r.skip_assignment { " skip-assignment" } else { "" };
            format!(
                "join ok gen={} type={} protocol={} member={} leader={} members=[{}]{skip}",
                r.generation_id,
                optional(&r.protocol_type),
                optional(&r.protocol_name),
                short(&r.member_id),
                short(&r.leader),
                members.join(" ")
            )
        }
        Reply::SyncGroup(r) if r.error_code != 0 => format!("sync {}", error(r.error_code)),
        Reply::SyncGroup(r) => {
            let (protocol_type, name) = (optional(&r.protocol_type), optional(&r.protocol_name));
            format!("sync ok type={protocol_type} protocol={name} assignment={}", bytes(&r.assignment))
        }
        Reply::LeaveGroup(r) => {
            let members = r.members.iter().map(|m| format!(" {}:{}", short(&m.member_id), error(m.error_code)));
            format!("leave {}{}", error(r.error_code), members.collect::<String>())
        }
        Reply::OffsetCommit(r) => {
            let partitions = r.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p)));
            let lines = partitions.map(|(t, p)| {
                let topic =
                    if t.topic_id.is_nil() { t.name.as_str().to_owned() } else { t.topic_id.as_u128().to_string() };
                format!(" {topic}:{}:{}", p.partition_index, error(p.error_code))
            });
            format!("commit{}", lines.collect::<String>())
        }
        Reply::OffsetDelete(r) => {
            let partitions = r.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p)));
            let lines =
                partitions.map(|(t, p)| format!(" {}:{}:{}", t.name.as_str(), p.partition_index, error(p.error_code)));
            format!("offset-delete {}{}", error(r.error_code), lines.collect::<String>())
        }
        Reply::DeleteGroups(r) => {
            let lines = r.results.iter().map(|g| format!(" {}:{}", g.group_id.as_str(), error(g.error_code)));
            format!("delete{}", lines.collect::<String>())
        }
    }
}

fn describe_record(record: &Record) -> String {
    match (Key::decode(&record.key).unwrap(), record.value.as_deref()) {
        (Key::Group { group }, None) => format!("group {} tombstone", group.as_str()),
        (Key::Group { group }, Some(value)) => {
            let value = GroupValue::decode(value).unwrap();
            let members: Vec<String> = value
                .members
                .iter()
                .map(|m| {
                    let instance = m.instance_id.as_deref().map_or(String::new(), |id| format!("/{id}"));
                    format!("{}{instance}:{}", short(&m.member_id), bytes(&m.assignment))
                })
                .collect();
            format!(
                "group {} type={} gen={} protocol={} leader={} at={} members=[{}]",
                group.as_str(),
                value.protocol_type.as_str(),
                value.generation,
                value.protocol.as_deref().unwrap_or("null"),
                value.leader.as_deref().map_or("null".into(), short),
                value.current_state_ms.unwrap_or(-1),
                members.join(" ")
            )
        }
        (Key::Offset { group, topic, partition }, None) => {
            format!("offset {} {}:{partition} tombstone", group.as_str(), topic.as_str())
        }
        (Key::Offset { group, topic, partition }, Some(value)) => {
            let value = Committed::decode(value).unwrap();
            let expire = value.expire_ms.map_or(String::new(), |ms| format!(" expire={ms}"));
            format!(
                "offset {} {}:{partition} = {} metadata={} at={}{expire}",
                group.as_str(),
                topic.as_str(),
                value.offset,
                value.metadata.as_str(),
                value.commit_ms
            )
        }
        (Key::Other(version), _) => format!("key version {version}"),
    }
}

#[test]
fn scripts() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/group");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no scripts in {folder}");
    let rewrite = std::env::var_os("REWRITE").is_some();
    for file in files {
        let script = std::fs::read_to_string(&file).unwrap();
        let mut world = World::new();
        let mut rewritten = String::new();
        for block in script.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
            let (commands, expected) = match block.split_once("\n----") {
                Some((commands, expected)) => (commands, expected.trim_start_matches('\n')),
                None => (block, ""),
            };
            world.trace.clear();
            for line in commands.lines().filter(|line| !line.starts_with('#')) {
                world.run(line);
            }
            let actual = world.trace.trim_end();
            let only_comments = commands.lines().all(|line| line.starts_with('#'));
            if only_comments {
                rewritten.push_str(&format!("{commands}\n\n"));
                continue;
            }
            let gap = if actual.is_empty() { "" } else { "\n" };
            rewritten.push_str(&format!("{commands}\n----\n{actual}{gap}\n"));
            if !rewrite {
                assert_eq!(actual, expected.trim_end(), "{}: after\n{commands}\n", file.display());
            }
        }
        if rewrite {
            std::fs::write(&file, format!("{}\n", rewritten.trim_end())).unwrap();
        }
    }
}
