//! What members of consumer groups may get wrong, or leave undone, against the broker's own process: Kafka's error codes, the
//! others go on, and memory comes back. The state machine's own rules are in `tests/scripts/group`; here they are seen from
//! a socket, with real time.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Client, frame_of};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_commit_response::OffsetCommitResponsePartition;
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use ringlane::wire::ErrorCode::{self, *};
use ringlane::wire::writer;
use server::Server;

#[path = "support/client.rs"]
mod client;
#[path = "support/server.rs"]
mod server;

const JOIN: i16 = 9;
/// The last version whose first JoinGroup is not refused with MEMBER_ID_REQUIRED.
const JOIN_AT_ONCE: i16 = 3;
const SYNC: i16 = 5;
const SESSION_MS: i32 = 2_000;
const SETTINGS: [&str; 3] =
    ["group.min.session.timeout.ms=1", "group.initial.rebalance.delay.ms=300", "log.retention.hours=1"];
const TOPIC: &str = "read";
const CONDITION_MAX: Duration = Duration::from_secs(60);
/// What rounds of the same may add to resident memory: the allocator's own, not ours.
const GROWTH_MIB_MAX: u64 = 24;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A broker whose coordinator is there, and a topic to commit for.
fn start(settings: &[&str]) -> Server {
    let server = Server::start(&[env!("CARGO_BIN_EXE_ringlane")], &[&SETTINGS[..], settings].concat());
    let mut client = Client::connect(server.address);
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text(TOPIC))));
    let topics = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(true);
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    eventually("a coordinator", || {
        let metadata = client.call(12, &topics);
        let found = client.call(4, &find);
        metadata.topics[0].error_code == 0 && found.coordinators[0].error_code == 0
    });
    eventually("loaded groups", || client.call(4, &ListGroupsRequest::default()).error_code == 0);
    server
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + CONDITION_MAX;
    while !holds() {
        assert!(Instant::now() < until, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn join(group: &str, member: &StrBytes, metadata: &[u8]) -> JoinGroupRequest {
    let protocol =
        JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::copy_from_slice(metadata));
    JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_session_timeout_ms(SESSION_MS)
        .with_rebalance_timeout_ms(2 * SESSION_MS)
        .with_member_id(member.clone())
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

fn sync(group: &str, generation: i32, member: &StrBytes, assignments: &[(StrBytes, usize)]) -> SyncGroupRequest {
    let assign = |(member, size): &(StrBytes, usize)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(member.clone())
            .with_assignment(Bytes::from(vec![1; *size]))
    };
    SyncGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id(generation)
        .with_member_id(member.clone())
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
        .with_assignments(assignments.iter().map(assign).collect())
}

fn heartbeat(group: &str, generation: i32, member: &StrBytes) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id(generation)
        .with_member_id(member.clone())
}

fn commit(group: &str, generation: i32, member: &StrBytes, metadata: usize) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(1)
        .with_committed_metadata(Some(text(&"m".repeat(metadata))));
    let topic = OffsetCommitRequestTopic::default().with_name(TopicName(text(TOPIC))).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(member.clone())
        .with_topics(vec![topic])
}

fn leave(group: &str, member: &StrBytes) -> LeaveGroupRequest {
    let identity = MemberIdentity::default().with_member_id(member.clone());
    LeaveGroupRequest::default().with_group_id(GroupId(text(group))).with_members(vec![identity])
}

fn state(client: &mut Client, group: &str) -> String {
    let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
    client.call(5, &request).groups[0].group_state.to_string()
}

#[track_caller]
fn is(code: i16, error: ErrorCode) {
    assert_eq!(ErrorCode::from_code(code), Some(error));
}

fn work_alone(clients: &mut [Client], groups: &[String]) -> Vec<(StrBytes, i32)> {
    work_alone_on(clients, groups, b"m")
}

/// Each joins a group of its own and gets its assignment. Ids and generations.
fn work_alone_on(clients: &mut [Client], groups: &[String], metadata: &[u8]) -> Vec<(StrBytes, i32)> {
    for (client, group) in clients.iter_mut().zip(groups) {
        client.send(JOIN_AT_ONCE, &join(group, &text(""), metadata));
    }
    let work = |(client, group): (&mut Client, &String)| {
        let joined = client.receive::<JoinGroupRequest>(JOIN_AT_ONCE);
        is(joined.error_code, None);
        let (id, generation) = (joined.member_id, joined.generation_id);
        is(client.call(SYNC, &sync(group, generation, &id, &[(id.clone(), 10)])).error_code, None);
        (id, generation)
    };
    clients.iter_mut().zip(groups).map(work).collect()
}

fn member_at_work(server: &Server, group: &str) -> (Client, StrBytes, i32) {
    let mut clients = [Client::connect(server.address)];
    let (id, generation) = work_alone(&mut clients, &[group.to_owned()]).remove(0);
    let [client] = clients;
    (client, id, generation)
}

#[test]
fn wrong_generations_strangers_and_other_protocols() {
    let server = start(&[]);
    let (mut client, id, generation) = member_at_work(&server, "g");
    let stranger = text("stranger");

    is(client.call(4, &heartbeat("g", generation + 1, &id)).error_code, IllegalGeneration);
    is(client.call(4, &heartbeat("g", generation, &stranger)).error_code, UnknownMemberId);
    is(client.call(4, &heartbeat("nowhere", generation, &id)).error_code, UnknownMemberId);
    is(client.call(4, &heartbeat("", generation, &id)).error_code, InvalidGroupId);

    is(client.call(SYNC, &sync("g", generation - 1, &id, &[])).error_code, IllegalGeneration);
    is(client.call(SYNC, &sync("g", generation, &stranger, &[])).error_code, UnknownMemberId);
    let other = sync("g", generation, &id, &[]).with_protocol_name(Some(text("sticky")));
    is(client.call(SYNC, &other).error_code, InconsistentGroupProtocol);
    // From version 5 on a member must say what it believes to be the protocol.
    let silent = sync("g", generation, &id, &[]).with_protocol_name(Option::None);
    is(client.call(SYNC, &silent).error_code, InconsistentGroupProtocol);
    is(client.call(4, &silent.with_protocol_type(Option::None)).error_code, None);

    let mut commit_error = |request: &OffsetCommitRequest| {
        let response = client.call(9, request);
        ErrorCode::from_code(response.topics[0].partitions[0].error_code)
    };
    assert_eq!(commit_error(&commit("g", generation + 1, &id, 0)), Some(IllegalGeneration));
    assert_eq!(commit_error(&commit("g", generation, &stranger, 0)), Some(UnknownMemberId));
    assert_eq!(commit_error(&commit("g", -1, &text(""), 0)), Some(UnknownMemberId));
    assert_eq!(commit_error(&commit("nowhere", 1, &id, 0)), Some(GroupIdNotFound));
    assert_eq!(commit_error(&commit("g", generation, &id, 4_096)), Some(None));
    assert_eq!(commit_error(&commit("g", generation, &id, 4_097)), Some(OffsetMetadataTooLarge));
    assert_eq!(commit_error(&commit("g", generation + 1, &id, 4_097)), Some(IllegalGeneration));

    let required = client.call(JOIN, &join("g", &text(""), b"m"));
    is(required.error_code, MemberIdRequired);
    assert!(required.member_id.starts_with("test-"), "{:?}", required.member_id);
    is(client.call(JOIN, &join("g", &stranger, b"m")).error_code, UnknownMemberId);
    is(client.call(JOIN, &join("nowhere", &stranger, b"m")).error_code, UnknownMemberId);
    let connect = join("g", &text(""), b"m").with_protocol_type(text("connect"));
    is(client.call(JOIN, &connect).error_code, InconsistentGroupProtocol);
    let mut uncommon = join("g", &text(""), b"m");
    uncommon.protocols[0].name = text("roundrobin");
    is(client.call(JOIN, &uncommon).error_code, InconsistentGroupProtocol);
    is(client.call(JOIN, &join("g", &text(""), b"m").with_session_timeout_ms(0)).error_code, InvalidSessionTimeout);

    let left = client.call(5, &leave("g", &stranger));
    is(left.error_code, None);
    is(left.members[0].error_code, UnknownMemberId);
    // After all of that the member is at work as before.
    is(client.call(4, &heartbeat("g", generation, &id)).error_code, None);
}

/// Version 10 names topics by id, which may be one that nobody knows: told for each of its partitions.
#[test]
fn topic_ids_that_nobody_knows() {
    let server = start(&[]);
    let mut client = Client::connect(server.address);
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text(TOPIC))));
    let id = client.call(12, &MetadataRequest::default().with_topics(Some(vec![topic]))).topics[0].topic_id;
    let unknown = uuid::Uuid::from_u128(7);
    let commit = frame_of(ApiKey::OffsetCommit as i16, 10, |out| {
        writer::string(out, true, "g");
        writer::i32(out, -1);
        writer::string(out, true, "");
        writer::nullable_string(out, true, Option::None);
        writer::array_count(out, true, Some(2));
        for topic in [unknown, id] {
            writer::uuid(out, topic);
            writer::array_count(out, true, Some(2));
            for partition in [0, 9] {
                writer::i32(out, partition);
                writer::i64(out, 42);
                writer::i32(out, 0);
                writer::nullable_string(out, true, Some("note"));
                writer::no_tags(out, true);
            }
            writer::no_tags(out, true);
        }
        writer::no_tags(out, true);
    });
    client.socket.write_all(&commit).expect("sent");
    let response = client.receive::<OffsetCommitRequest>(10);
    let codes = response.topics.iter().flat_map(|topic| {
        let code = |partition: &OffsetCommitResponsePartition| ErrorCode::from_code(partition.error_code);
        topic.partitions.iter().map(move |partition| ((topic.topic_id, partition.partition_index), code(partition)))
    });
    let wanted = BTreeMap::from([
        ((unknown, 0), Some(UnknownTopicId)),
        ((unknown, 9), Some(UnknownTopicId)),
        ((id, 0), Some(None)),
        ((id, 9), Some(UnknownTopicOrPartition)),
    ]);
    assert_eq!(codes.collect::<BTreeMap<_, _>>(), wanted);

    let fetch = frame_of(ApiKey::OffsetFetch as i16, 10, |out| {
        writer::array_count(out, true, Some(1));
        writer::string(out, true, "g");
        writer::nullable_string(out, true, Option::None);
        writer::i32(out, -1);
        writer::array_count(out, true, Some(2));
        for topic in [id, unknown] {
            writer::uuid(out, topic);
            writer::array_count(out, true, Some(1));
            writer::i32(out, 0);
            writer::no_tags(out, true);
        }
        writer::no_tags(out, true);
        writer::bool(out, true);
        writer::no_tags(out, true);
    });
    client.socket.write_all(&fetch).expect("sent");
    let response = client.receive::<OffsetFetchRequest>(10);
    let found = response.groups[0].topics.iter().map(|topic| {
        let partition = &topic.partitions[0];
        let metadata = partition.metadata.as_deref().unwrap_or_default().to_owned();
        (topic.topic_id, (partition.committed_offset, metadata, ErrorCode::from_code(partition.error_code)))
    });
    let nothing = (-1, String::new(), Some(UnknownTopicId));
    let wanted = BTreeMap::from([(id, (42, "note".to_owned(), Some(None))), (unknown, nothing)]);
    assert_eq!(found.collect::<BTreeMap<_, _>>(), wanted);
}

/// What a consumer of `TOPIC` sends as its metadata.
fn subscription() -> Vec<u8> {
    [&b"\0\x01\0\0\0\x01\0\x04"[..], TOPIC.as_bytes(), &[0; 4], &[0; 4]].concat()
}

#[test]
fn static_members_fence_those_they_replace() {
    let server = start(&[]);
    let mut client = Client::connect(server.address);
    let instance = Some(text("instance"));
    let request = join("static", &text(""), &subscription()).with_group_instance_id(instance.clone());
    // A static member needs no id in advance.
    let first = client.call(JOIN, &request);
    is(first.error_code, None);
    let given = [(first.member_id.clone(), 10)];
    let request_sync = sync("static", first.generation_id, &first.member_id, &given);
    is(client.call(SYNC, &request_sync.with_group_instance_id(instance.clone())).error_code, None);
    let second = client.call(JOIN, &request);
    is(second.error_code, None);
    assert_eq!((second.generation_id, second.skip_assignment), (first.generation_id, true));
    assert_ne!(second.member_id, first.member_id);

    let old = &first.member_id;
    let generation = first.generation_id;
    let fenced = heartbeat("static", generation, old).with_group_instance_id(instance.clone());
    is(client.call(4, &fenced).error_code, FencedInstanceId);
    is(client.call(4, &heartbeat("static", generation, old)).error_code, UnknownMemberId);
    let fenced = sync("static", generation, old, &[]).with_group_instance_id(instance.clone());
    is(client.call(SYNC, &fenced).error_code, FencedInstanceId);
    let fenced = commit("static", generation, old, 0).with_group_instance_id(instance.clone());
    is(client.call(9, &fenced).topics[0].partitions[0].error_code, FencedInstanceId);
    is(
        client.call(JOIN, &join("static", old, &subscription()).with_group_instance_id(instance.clone())).error_code,
        FencedInstanceId,
    );
    let mut fenced = leave("static", old);
    fenced.members[0].group_instance_id = instance.clone();
    is(client.call(5, &fenced).members[0].error_code, FencedInstanceId);
    let unknown = heartbeat("static", generation, &second.member_id).with_group_instance_id(Some(text("other")));
    is(client.call(4, &unknown).error_code, UnknownMemberId);
    // By its instance alone an administrator removes it.
    let mut removal = leave("static", &text(""));
    removal.members[0].group_instance_id = instance;
    is(client.call(5, &removal).members[0].error_code, None);
}

#[test]
fn what_administrators_are_refused() {
    let server = start(&[]);
    let mut clients = [Client::connect(server.address)];
    let (id, generation) = work_alone_on(&mut clients, &["admin".to_owned()], &subscription()).remove(0);
    let [mut client] = clients;
    is(client.call(9, &commit("admin", generation, &id, 0)).topics[0].partitions[0].error_code, None);
    is(client.call(9, &commit("offsets-only", -1, &text(""), 0)).topics[0].partitions[0].error_code, None);

    let names = |names: &[&str]| names.iter().map(|name| GroupId(text(name))).collect::<Vec<_>>();
    let describe = DescribeGroupsRequest::default().with_groups(names(&["nowhere"]));
    let described = client.call(5, &describe).groups.remove(0);
    assert_eq!((described.error_code, described.group_state.as_str()), (0, "Dead"));
    let described = client.call(6, &describe).groups.remove(0);
    is(described.error_code, GroupIdNotFound);
    assert_eq!((described.group_state.as_str(), described.error_message.is_some()), ("Dead", true));

    let mut list = |states: &[&str], types: &[&str]| {
        let texts = |texts: &[&str]| texts.iter().map(|one| text(one)).collect::<Vec<_>>();
        let request = ListGroupsRequest::default().with_states_filter(texts(states)).with_types_filter(texts(types));
        let groups = client.call(5, &request).groups;
        let ours = groups
            .iter()
            .map(|group| group.group_id.to_string())
            .filter(|id| ["admin", "offsets-only"].contains(&&**id));
        let mut ours: Vec<String> = ours.collect();
        ours.sort();
        ours
    };
    assert_eq!(list(&[], &[]), ["admin", "offsets-only"]);
    assert_eq!(list(&["sTaBlE"], &[]), ["admin"]);
    assert_eq!(list(&["Empty"], &["CLASSIC"]), ["offsets-only"]);
    assert_eq!(list(&[], &["consumer"]), [""; 0]);
    assert_eq!(list(&["nonsense"], &[]), [""; 0]);

    let delete = |topics: &[(&str, i32)], group: &str| {
        let topics = topics.iter().map(|(name, partition)| {
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(*partition);
            OffsetDeleteRequestTopic::default().with_name(TopicName(text(name))).with_partitions(vec![partition])
        });
        OffsetDeleteRequest::default().with_group_id(GroupId(text(group))).with_topics(topics.collect())
    };
    let deleted = client.call(0, &delete(&[(TOPIC, 0)], "admin"));
    is(deleted.topics[0].partitions[0].error_code, GroupSubscribedToTopic);
    let deleted = client.call(0, &delete(&[(TOPIC, 9)], "offsets-only"));
    is(deleted.topics[0].partitions[0].error_code, UnknownTopicOrPartition);
    let deleted = client.call(0, &delete(&[("no-such-topic", 0)], "offsets-only"));
    is(deleted.topics[0].partitions[0].error_code, UnknownTopicOrPartition);
    is(client.call(0, &delete(&[(TOPIC, 0)], "nowhere")).error_code, GroupIdNotFound);
    is(client.call(0, &delete(&[(TOPIC, 0)], "")).error_code, InvalidGroupId);
    let deleted = client.call(0, &delete(&[(TOPIC, 0)], "offsets-only"));
    is(deleted.topics[0].partitions[0].error_code, None);

    is(client.call(4, &heartbeat("admin", generation, &id)).error_code, None);
    let request = DeleteGroupsRequest::default().with_groups_names(names(&["admin", "nowhere"]));
    let codes =
        client.call(2, &request).results.into_iter().map(|result| (result.group_id.to_string(), result.error_code));
    let wanted = [("admin".to_owned(), NonEmptyGroup.code()), ("nowhere".to_owned(), GroupIdNotFound.code())];
    assert_eq!(codes.collect::<BTreeMap<_, _>>(), BTreeMap::from(wanted));
}

#[test]
fn an_assignment_too_large_for_the_offsets_topic_and_one_that_fits_after_it() {
    let server = start(&[]);
    let (mut client, id, _) = member_at_work(&server, "g");
    // The leader rejoins: a new generation, whose assignment no batch of __consumer_offsets may hold.
    let joined = client.call(JOIN, &join("g", &id, b"m"));
    is(joined.error_code, None);
    let huge = sync("g", joined.generation_id, &id, &[(id.clone(), 2_000_000)]);
    is(client.call(SYNC, &huge).error_code, UnknownServerError);
    assert_eq!(state(&mut client, "g"), "PreparingRebalance");
    let joined = client.call(JOIN, &join("g", &id, b"m"));
    is(joined.error_code, None);
    let synced = client.call(SYNC, &sync("g", joined.generation_id, &id, &[(id.clone(), 10)]));
    assert_eq!((ErrorCode::from_code(synced.error_code), synced.assignment.len()), (Some(None), 10));
}

/// What a member brings along is kept while it is there, within what all groups may hold together, and not longer.
#[test]
fn metadata_of_megabytes_comes_back() {
    let server = start(&[]);
    let mut resident = Vec::new();
    for round in 0..4 {
        let mut members: Vec<Client> = (0..24).map(|_| Client::connect(server.address)).collect();
        for (i, client) in members.iter_mut().enumerate() {
            client.send(JOIN_AT_ONCE, &join(&format!("large-{i}"), &text(""), &vec![7; 4 << 20]));
        }
        let joined: Vec<_> =
            members.iter_mut().map(|client| client.receive::<JoinGroupRequest>(JOIN_AT_ONCE)).collect();
        assert!(joined.iter().all(|joined| joined.error_code == 0 && joined.members[0].metadata.len() == 4 << 20));
        for (i, (client, joined)) in members.iter_mut().zip(&joined).enumerate() {
            let left = client.call(5, &leave(&format!("large-{i}"), &joined.member_id));
            is(left.members[0].error_code, None);
        }
        resident.push(server.resident_mib());
        assert!(resident[round] < 100, "{resident:?} MiB resident after 24 members of 4 MiB have left");
    }
    assert!(resident[3] <= resident[0] + GROWTH_MIB_MAX, "{resident:?} MiB resident, round by round");
}

/// More than all groups together may hold: a retriable refusal, and those who are there go on.
#[test]
fn metadata_of_all_groups_together_is_bounded() {
    let server = start(&[]);
    let (mut client, id, generation) = member_at_work(&server, "small");
    let mut members: Vec<Client> = (0..40).map(|_| Client::connect(server.address)).collect();
    let mut errors: BTreeMap<i16, usize> = BTreeMap::new();
    for (i, member) in members.iter_mut().enumerate() {
        let request = join(&format!("large-{i}"), &text(""), &vec![7; 8 << 20]);
        let request = request.with_session_timeout_ms(60_000).with_rebalance_timeout_ms(60_000);
        let joined = member.call(JOIN_AT_ONCE, &request);
        *errors.entry(joined.error_code).or_default() += 1;
        is(client.call(4, &heartbeat("small", generation, &id)).error_code, None);
    }
    let refused = errors.get(&CoordinatorLoadInProgress.code()).copied().unwrap_or(0);
    assert!(errors.len() == 2 && errors[&0] >= 24 && refused >= 8, "{errors:?} by error code");
}

/// A crowd of members over few connections, each with as many JoinGroups under way as a connection may have.
fn crowd(server: &Server, group: &str, size: usize) -> (Vec<Client>, Vec<(usize, JoinGroupResponse)>) {
    const EACH: usize = 100;
    let mut clients: Vec<Client> = (0..size / EACH).map(|_| Client::connect(server.address)).collect();
    // A session that outlasts reading ten thousand replies.
    let request = join(group, &text(""), b"m").with_session_timeout_ms(8_000).with_rebalance_timeout_ms(60_000);
    for client in &mut clients {
        (0..EACH).for_each(|_| client.send(JOIN_AT_ONCE, &request));
    }
    let mut joined = Vec::new();
    for (at, client) in clients.iter_mut().enumerate() {
        joined.extend((0..EACH).map(|_| (at, client.receive::<JoinGroupRequest>(JOIN_AT_ONCE))));
    }
    (clients, joined)
}

#[test]
fn ten_thousand_members_beyond_group_max_size_are_refused() {
    let server = start(&["group.max.size=100"]);
    let (_clients, joined) = crowd(&server, "g", 10_000);
    let count = |error: ErrorCode| joined.iter().filter(|(_, joined)| joined.error_code == error.code()).count();
    assert_eq!((count(None), count(GroupMaxSizeReached)), (100, 9_900));
}

#[test]
fn ten_thousand_members_form_a_group_and_vanish() {
    let server = start(&[]);
    let mut resident = Vec::new();
    for _ in 0..3 {
        let (mut clients, joined) = crowd(&server, "g", 10_000);
        assert!(joined.iter().all(|(_, joined)| joined.error_code == 0), "someone was refused");
        let (at, leader) = joined.iter().find(|(_, joined)| !joined.members.is_empty()).expect("a leader");
        assert_eq!(leader.members.len(), 10_000);
        // The record of the whole group is larger than a batch of __consumer_offsets may be: the leader hears of it.
        let assignments: Vec<_> = leader.members.iter().map(|member| (member.member_id.clone(), 50)).collect();
        let request = sync("g", leader.generation_id, &leader.member_id, &assignments);
        is(clients[*at].call(SYNC, &request).error_code, UnknownServerError);
        drop(clients);
        let mut client = Client::connect(server.address);
        eventually("the end of ten thousand sessions", || state(&mut client, "g") == "Empty");
        resident.push(server.resident_mib());
    }
    assert!(resident[2] <= resident[0] + GROWTH_MIB_MAX, "{resident:?} MiB resident, round by round");
}

/// Members that vanish without a word in each state, in many groups at once: whoever is left goes on, the rest is forgotten.
#[test]
fn members_vanish_in_each_state() {
    const GROUPS: usize = 50;
    let server = start(&["offsets.retention.minutes=1"]);
    let names: Vec<String> = (0..GROUPS).map(|i| format!("g{i}")).collect();
    let mut client = Client::connect(server.address);
    let mut all_are = |wanted: &str| eventually(wanted, || names.iter().all(|name| state(&mut client, name) == wanted));
    let connect = || -> Vec<Client> { names.iter().map(|_| Client::connect(server.address)).collect() };
    let mut resident = Vec::new();
    for _ in 0..3 {
        // With an id and no second JoinGroup.
        let mut named = connect();
        for (client, name) in named.iter_mut().zip(&names) {
            is(client.call(JOIN, &join(name, &text(""), b"m")).error_code, MemberIdRequired);
        }
        drop(named);
        // While the first rebalance waits for more.
        let mut waiting = connect();
        for (client, name) in waiting.iter_mut().zip(&names) {
            client.send(JOIN_AT_ONCE, &join(name, &text(""), b"m"));
        }
        all_are("PreparingRebalance");
        drop(waiting);
        all_are("Empty");
        // After its JoinGroup was answered, and while the other one waits for its assignment.
        let (mut leaders, mut followers) = (connect(), connect());
        for (leader, (follower, name)) in leaders.iter_mut().zip(followers.iter_mut().zip(&names)) {
            leader.send(JOIN_AT_ONCE, &join(name, &text(""), b"m"));
            follower.send(JOIN_AT_ONCE, &join(name, &text(""), b"m"));
        }
        let mut joined = Vec::new();
        for (leader, follower) in leaders.iter_mut().zip(&mut followers) {
            let mut both = [leader, follower].map(|client| {
                let joined = client.receive::<JoinGroupRequest>(JOIN_AT_ONCE);
                is(joined.error_code, None);
                joined
            });
            both.sort_by_key(|joined| joined.members.is_empty());
            joined.push(both);
        }
        // Which of the two leads does not matter for what follows: the follower syncs, the leader is gone.
        for (client, (name, [_, follower])) in followers.iter_mut().zip(names.iter().zip(&joined)) {
            client.send(SYNC, &sync(name, follower.generation_id, &follower.member_id, &[]));
        }
        drop(leaders);
        for (client, (name, [_, follower])) in followers.iter_mut().zip(names.iter().zip(&joined)) {
            is(client.receive::<SyncGroupRequest>(SYNC).error_code, RebalanceInProgress);
            client.send(JOIN, &join(name, &follower.member_id, b"m"));
        }
        // The one that is left leads alone, works, and vanishes at work.
        for (client, name) in followers.iter_mut().zip(&names) {
            let alone = client.receive::<JoinGroupRequest>(JOIN);
            is(alone.error_code, None);
            assert_eq!(alone.members.len(), 1);
            let id = alone.member_id;
            let synced = client.call(SYNC, &sync(name, alone.generation_id, &id, &[(id.clone(), 10)]));
            is(synced.error_code, None);
        }
        all_are("Stable");
        drop(followers);
        all_are("Empty");
        // While a rebalance waits for it.
        let mut workers = connect();
        let generations = work_alone(&mut workers, &names);
        let mut newcomers = connect();
        for (client, name) in newcomers.iter_mut().zip(&names) {
            client.send(JOIN_AT_ONCE, &join(name, &text(""), b"m"));
        }
        all_are("PreparingRebalance");
        for (client, (name, (id, generation))) in workers.iter_mut().zip(names.iter().zip(&generations)) {
            is(client.call(4, &heartbeat(name, *generation, id)).error_code, RebalanceInProgress);
        }
        drop(workers);
        for client in &mut newcomers {
            let joined = client.receive::<JoinGroupRequest>(JOIN_AT_ONCE);
            assert_eq!((ErrorCode::from_code(joined.error_code), joined.members.len()), (Some(None), 1));
        }
        drop(newcomers);
        all_are("Empty");
        let mut client = Client::connect(server.address);
        let request =
            DeleteGroupsRequest::default().with_groups_names(names.iter().map(|name| GroupId(text(name))).collect());
        let deleted = client.call(2, &request);
        assert!(deleted.results.iter().all(|result| result.error_code == 0), "{deleted:?}");
        resident.push(server.resident_mib());
    }
    assert!(resident[2] <= resident[0] + GROWTH_MIB_MAX, "{resident:?} MiB resident, round by round");
}
