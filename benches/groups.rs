//! What consumer groups cost a core: steady heartbeats, a rebalance, offset commits. Drives the broker's own process over the
//! loopback, the broker on one core and this client on another: `cargo bench --bench groups [-- heartbeats|rebalance|commits]`.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::Client;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use ringlane::io::cores;
use ringlane::wire::ErrorCode;
use server::Server;

#[path = "../tests/support/client.rs"]
mod client;
#[path = "../tests/support/server.rs"]
mod server;

const JOIN: i16 = 9;
const SYNC: i16 = 5;
const HEARTBEAT: i16 = 4;
const COMMIT: i16 = 9;

/// Kafka's default `heartbeat.interval.ms` of consumers.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(10);
const TOPIC: &str = "read";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` only asks whether it starts.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let wanted = |name: &str| arguments.iter().all(|a| a.starts_with("--")) || arguments.iter().any(|a| a == name);
    if wanted("heartbeats") {
        on_a_thread(|| heartbeats(1_000, 3));
    }
    if wanted("rebalance") {
        on_a_thread(|| rebalance(100));
    }
    if wanted("commits") {
        for in_flight in [1, 4] {
            on_a_thread(|| commits(32, in_flight));
        }
    }
}

/// Each on a thread of its own, as `start` pins the thread once the broker, which would inherit that, runs.
fn on_a_thread(measure: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(measure).join().expect("measured"));
}

fn start() -> Server {
    let server = Server::start(&[env!("CARGO_BIN_EXE_ringlane")], &["group.initial.rebalance.delay.ms=1000"]);
    let mut client = Client::connect(server.address);
    let topic = metadata_request::MetadataRequestTopic::default().with_name(Some(TopicName(text(TOPIC))));
    let topics = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(true);
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g0")]);
    let mut ready = || {
        let metadata = client.call(12, &topics);
        let found = client.call(4, &find);
        metadata.topics[0].error_code == 0 && found.coordinators[0].error_code == 0
    };
    let until = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < until, "no coordinator");
        std::thread::sleep(Duration::from_millis(20));
    }
    let allowed = cores::allowed().expect("cores");
    cores::pin(allowed[1.min(allowed.len() - 1)]).expect("pinned");
    server
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// CPU time of all threads of the broker.
fn cpu(server: &Server) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("tasks");
    let nanoseconds = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        stat.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
    };
    Duration::from_nanos(tasks.flatten().map(nanoseconds).sum())
}

/// A member as a consumer is one: a connection, an id, what it subscribes to.
struct Member {
    client: Client,
    group: GroupId,
    id: StrBytes,
    generation: i32,
    protocol: StrBytes,
    /// Everyone's id, at the leader.
    members: Vec<StrBytes>,
}

impl Member {
    fn new(server: &Server, group: &str) -> Member {
        let group = GroupId(text(group));
        let client = Client::connect(server.address);
        Member { client, group, id: StrBytes::default(), generation: -1, protocol: text("range"), members: Vec::new() }
    }

    fn send_join(&mut self) {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(self.protocol.clone())
            .with_metadata(Bytes::from(format!("\0\x01\0\0\0\x01\0\x04{TOPIC}\0\0\0\0\0\0\0\0")));
        let request = JoinGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_session_timeout_ms(45_000)
            .with_rebalance_timeout_ms(300_000)
            .with_member_id(self.id.clone())
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        self.client.send(JOIN, &request);
    }

    /// The id that the first JoinGroup is answered with.
    fn receive_id(&mut self) {
        let response = self.client.receive::<JoinGroupRequest>(JOIN);
        assert_eq!(response.error_code, ErrorCode::MemberIdRequired.code());
        self.id = response.member_id;
    }

    fn receive_join(&mut self) {
        let response = self.client.receive::<JoinGroupRequest>(JOIN);
        assert_eq!(response.error_code, 0);
        self.generation = response.generation_id;
        self.members = response.members.into_iter().map(|member| member.member_id).collect();
    }

    fn send_sync(&mut self) {
        let assign = |id: StrBytes| {
            SyncGroupRequestAssignment::default().with_member_id(id).with_assignment(Bytes::from(vec![1; 100]))
        };
        let request = SyncGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(self.protocol.clone()))
            .with_assignments(self.members.drain(..).map(assign).collect());
        self.client.send(SYNC, &request);
    }

    fn receive_sync(&mut self) {
        let response = self.client.receive::<SyncGroupRequest>(SYNC);
        assert_eq!((response.error_code, response.assignment.len()), (0, 100));
    }

    fn heartbeat(&mut self) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        self.client.call(HEARTBEAT, &request).error_code
    }
}

/// All of them join at once and get their assignments.
fn form(members: &mut [Member]) {
    members.iter_mut().for_each(Member::send_join);
    members.iter_mut().for_each(Member::receive_id);
    members.iter_mut().for_each(Member::send_join);
    finish(members);
}

fn finish(members: &mut [Member]) {
    members.iter_mut().for_each(Member::receive_join);
    members.iter_mut().for_each(Member::send_sync);
    members.iter_mut().for_each(Member::receive_sync);
}

fn heartbeats(groups: usize, size: usize) {
    let server = start();
    let names = (0..groups * size).map(|i| format!("g{}", i / size));
    let mut members: Vec<Member> = names.map(|group| Member::new(&server, &group)).collect();
    form(&mut members);
    let gap = HEARTBEAT_INTERVAL / members.len() as u32;
    let mut slowest = Duration::ZERO;
    let (start, cpu_before) = (Instant::now(), cpu(&server));
    let mut sent = 0;
    while start.elapsed() < MEASURED {
        let due = start + gap * sent as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let at = sent % members.len();
        let began = Instant::now();
        assert_eq!(members[at].heartbeat(), 0);
        slowest = slowest.max(began.elapsed());
        sent += 1;
    }
    let (spent, took) = (cpu(&server) - cpu_before, start.elapsed());
    println!(
        "heartbeats: {groups} groups x {size} members every {HEARTBEAT_INTERVAL:?}: {:.0}/s, {:.2} % of a core, {:.1} us each; \
         slowest {slowest:.1?}; {} MiB resident",
        sent as f64 / took.as_secs_f64(),
        100.0 * spent.as_secs_f64() / took.as_secs_f64(),
        spent.as_secs_f64() * 1e6 / sent as f64,
        server.resident_mib(),
    );
}

fn rebalance(size: usize) {
    let server = start();
    let mut members: Vec<Member> = (0..size).map(|_| Member::new(&server, "large")).collect();
    form(&mut members[1..]);
    let mut took = Vec::new();
    for _ in 0..20 {
        // One more joins a group at work: everyone else hears of it and rejoins, and the last of them ends the join phase.
        let (newcomer, others) = members.split_first_mut().expect("members");
        newcomer.send_join();
        newcomer.receive_id();
        newcomer.send_join();
        for member in &mut *others {
            assert_eq!(member.heartbeat(), ErrorCode::RebalanceInProgress.code());
        }
        others.iter_mut().for_each(Member::send_join);
        let last_joined = Instant::now();
        finish(&mut members);
        took.push(last_joined.elapsed());
        // And leaves again, for the next round.
        let newcomer = &mut members[0];
        let identity = leave_group_request::MemberIdentity::default().with_member_id(std::mem::take(&mut newcomer.id));
        let leave = LeaveGroupRequest::default().with_group_id(newcomer.group.clone()).with_members(vec![identity]);
        assert_eq!(newcomer.client.call(5, &leave).error_code, 0);
        members[1..].iter_mut().for_each(Member::send_join);
        finish(&mut members[1..]);
    }
    took.sort();
    println!(
        "rebalance: {size} members, from the last JoinGroup sent to the last assignment read: median {:.1?}, slowest {:.1?}",
        took[took.len() / 2],
        took[took.len() - 1]
    );
}

/// A connection of which `in_flight` commits are under way, as a consumer's asynchronous commits are.
struct Committer {
    member: Member,
    request: Vec<u8>,
    received: Vec<u8>,
    filled: usize,
}

impl Committer {
    /// Takes the replies that have come and sends as many commits again. How many these were.
    fn turn(&mut self) -> usize {
        let socket = &mut self.member.client.socket;
        self.filled += socket.read(&mut self.received[self.filled..]).expect("replies");
        let mut replies = 0;
        let mut at = 0;
        while let Some(size) = self.received[at..self.filled].first_chunk::<4>() {
            let end = at + 4 + i32::from_be_bytes(*size) as usize;
            if end > self.filled {
                break;
            }
            // Its end: error code of the only partition, and the empty tags of partition, topic and reply.
            assert_eq!(self.received[end - 5..end], [0; 5], "a commit is refused");
            (at, replies) = (end, replies + 1);
        }
        self.received.copy_within(at..self.filled, 0);
        self.filled -= at;
        socket.write_all(&self.request.repeat(replies)).expect("sent");
        replies
    }
}

fn commits(connections: usize, in_flight: usize) {
    let server = start();
    let mut members: Vec<Member> = (0..connections).map(|i| Member::new(&server, &format!("g{i}"))).collect();
    form(&mut members);
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
    let mut committers: Vec<Committer> = members.into_iter().map(committer).collect();
    for (i, committer) in committers.iter_mut().enumerate() {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, i as u64);
        epoll.add(committer.member.client.socket.as_fd(), event).expect("watched");
        let request = committer.request.repeat(in_flight);
        committer.member.client.socket.write_all(&request).expect("sent");
    }
    let mut run = |time: Duration| {
        let (start, mut done) = (Instant::now(), 0);
        let mut events = [EpollEvent::empty(); 64];
        while start.elapsed() < time {
            let ready = epoll.wait(&mut events, EpollTimeout::NONE).expect("events");
            done += events[..ready].iter().map(|event| committers[event.data() as usize].turn()).sum::<usize>();
        }
        done
    };
    run(Duration::from_secs(1));
    let (start, cpu_before) = (Instant::now(), cpu(&server));
    let done = run(MEASURED);
    let (spent, took) = (cpu(&server) - cpu_before, start.elapsed());
    println!(
        "commits: {connections} connections, {in_flight} in flight on each: {:.0}/s, the broker at {:.0} % of a core, {:.1} us each; \
         {} MiB resident",
        done as f64 / took.as_secs_f64(),
        100.0 * spent.as_secs_f64() / took.as_secs_f64(),
        spent.as_secs_f64() * 1e6 / done as f64,
        server.resident_mib(),
    );
}

fn committer(member: Member) -> Committer {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(1_000_000)
        .with_committed_leader_epoch(0)
        .with_committed_metadata(Some(StrBytes::default()));
    let topic = OffsetCommitRequestTopic::default().with_name(TopicName(text(TOPIC))).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(member.group.clone())
        .with_generation_id_or_member_epoch(member.generation)
        .with_member_id(member.id.clone())
        .with_topics(vec![topic]);
    Committer { request: client::frame(COMMIT, &request), member, received: vec![0; 64 * 1024], filled: 0 }
}
