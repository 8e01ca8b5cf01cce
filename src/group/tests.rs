//! Floods and random histories: whatever clients do, every request is answered once, the books stay true, and when all
//! members are gone nothing is held.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, TopicName};

use super::*;
use crate::ids::Waiter;

struct AnyTopic;

impl Topics for AnyTopic {
    fn has_topic(&self, _: &str) -> bool {
        true
    }
    fn has_partition(&self, _: &str, _: i32) -> bool {
        true
    }
    fn topic_id(&self, _: &str) -> Option<Uuid> {
        Some(Uuid::from_u128(1))
    }
    fn topic_name(&self, _: Uuid) -> Option<StrBytes> {
        Some(own("topic"))
    }
}

/// A coordinator whose appends succeed at once, and what its clients have been told.
struct World {
    groups: Groups,
    now: Now,
    waiters: u64,
    unanswered: BTreeSet<u64>,
    replies: Vec<(u64, Reply)>,
}

impl World {
    fn new(config: Config) -> World {
        let mut last = 0u128;
        let new_id = move || {
            last += 1;
            Uuid::from_u128(last)
        };
        let now = Now { wall_ms: 1_000_000, monotonic_ns: 0 };
        let mut groups = Groups::new(config, Box::new(new_id));
        let mut out = Outcome::default();
        for partition in 0..50 {
            groups.load_start(partition);
            groups.load_done(partition, now, &mut out);
        }
        World { groups, now, waiters: 0, unanswered: BTreeSet::new(), replies: Vec::new() }
    }

    fn send(&mut self, version: i16, act: impl FnOnce(&mut Groups, &Caller, Now, &mut Outcome)) {
        self.waiters += 1;
        self.unanswered.insert(self.waiters);
        let to = ReplyTo { waiter: Waiter(self.waiters), correlation_id: 0, api: 0, version };
        let caller = Caller { to, client_id: "client", client_host: "/127.0.0.1" };
        let mut out = Outcome::default();
        act(&mut self.groups, &caller, self.now, &mut out);
        self.settle(out, Ok(()));
    }

    fn settle(&mut self, mut out: Outcome, result: Result<(), ErrorCode>) {
        loop {
            for (to, reply) in out.replies.drain(..) {
                let waiter = to.waiter.0;
                assert!(self.unanswered.remove(&waiter), "request {waiter} was answered twice");
                self.replies.push((waiter, reply));
            }
            let appends = std::mem::take(&mut out.appends);
            if appends.is_empty() {
                break;
            }
            for append in appends {
                self.groups.appended(append.id, result, self.now, &mut out);
            }
        }
    }

    fn advance(&mut self, by_ms: i64) {
        let until = timer_ms(self.now) + by_ms;
        while self.groups.next_deadline_ms() <= until {
            self.set_timer(self.groups.next_deadline_ms().max(timer_ms(self.now)));
            let mut out = Outcome::default();
            self.groups.expire(self.now, &mut out);
            self.settle(out, Ok(()));
        }
        self.set_timer(until);
    }

    fn set_timer(&mut self, ms: i64) {
        self.now.wall_ms += ms - timer_ms(self.now);
        self.now.monotonic_ns = ms as u64 * 1_000_000;
    }

    fn join(&mut self, group: &str, member_id: StrBytes, instance: Option<&str>, metadata: usize, version: i16) {
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(own(group)))
            .with_member_id(member_id)
            .with_group_instance_id(instance.map(own))
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(30_000)
            .with_protocol_type(own("consumer"))
            .with_protocols(vec![
                JoinGroupRequestProtocol::default()
                    .with_name(own("range"))
                    .with_metadata(Bytes::from(vec![7; metadata])),
            ]);
        self.send(version, |groups, caller, now, out| groups.join(caller, &request, now, out));
    }

    fn sync(&mut self, group: &str, member_id: StrBytes, generation: i32, assignments: &[StrBytes]) {
        let given = |id: &StrBytes| {
            SyncGroupRequestAssignment::default()
                .with_member_id(id.clone())
                .with_assignment(Bytes::from_static(b"given"))
        };
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(own(group)))
            .with_member_id(member_id)
            .with_generation_id(generation)
            .with_assignments(assignments.iter().map(given).collect());
        self.send(5, |groups, caller, now, out| groups.sync(caller, &request, now, out));
    }
}

#[test]
fn ten_thousand_members_join_sync_and_vanish() {
    let mut world = World::new(Config::default());
    for _ in 0..10_000 {
        world.join("crowd", own(""), None, 100, 3);
    }
    world.advance(7_000);
    world.groups.audit().unwrap();
    let joined: Vec<_> = std::mem::take(&mut world.replies)
        .into_iter()
        .filter_map(|(_, reply)| if let Reply::JoinGroup(response) = reply { Some(response) } else { None })
        .collect();
    assert_eq!(joined.iter().filter(|response| response.error_code == 0).count(), 10_000);
    let members: Vec<StrBytes> = joined.iter().map(|response| response.member_id.clone()).collect();
    let leader = joined.iter().find(|response| response.leader == response.member_id).unwrap();
    assert_eq!(leader.members.len(), 10_000);
    for member in &members {
        let assignments: &[StrBytes] = if *member == leader.member_id { &members } else { &[] };
        world.sync("crowd", member.clone(), 1, assignments);
    }
    assert!(world.unanswered.is_empty(), "every member has its assignment");
    world.groups.audit().unwrap();
    assert!(world.groups.group_bytes() > 10_000 * 500);
    world.advance(2_000_000);
    assert_eq!(world.groups.group_bytes(), 0, "all members vanished, all memory is back");
}

#[test]
fn memory_is_bounded_and_comes_back() {
    let limit = 2 << 20;
    let mut world = World::new(Config { group_bytes_max: limit, ..Config::default() });
    // Ids that nobody comes back for, members with large metadata, offsets under ever new groups.
    for n in 0..30_000 {
        match n % 3 {
            0 => world.join(&format!("pending-{n}"), own(""), None, 10, 9),
            1 => world.join("large", own(""), None, 5_000, 3),
            _ => {
                let partition = OffsetCommitRequestPartition::default().with_committed_metadata(Some(own("note")));
                let topic = OffsetCommitRequestTopic::default()
                    .with_name(TopicName(own("topic")))
                    .with_partitions(vec![partition]);
                let request = OffsetCommitRequest::default()
                    .with_group_id(GroupId(own(&format!("simple-{n}"))))
                    .with_generation_id_or_member_epoch(-1)
                    .with_retention_time_ms(60_000)
                    .with_topics(vec![topic]);
                world.send(2, |groups, caller, now, out| groups.commit(caller, &request, &AnyTopic, now, out));
            }
        }
        assert!(world.groups.group_bytes() < limit + (64 << 10), "{} bytes held", world.groups.group_bytes());
    }
    let refused = ErrorCode::CoordinatorLoadInProgress.code();
    let is_refused = |reply: &Reply| match reply {
        Reply::JoinGroup(response) => response.error_code == refused,
        Reply::OffsetCommit(response) => response.topics[0].partitions[0].error_code == refused,
        _ => false,
    };
    assert!(world.replies.iter().filter(|(_, reply)| is_refused(reply)).count() > 10_000);
    world.advance(3_000_000);
    world.groups.audit().unwrap();
    assert_eq!(world.groups.group_bytes(), 0);
    assert!(world.unanswered.is_empty());
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Member ids that clients were told, right or wrong ones to use next.
fn some_member(world: &World, random: &mut Random) -> StrBytes {
    let recent = world.replies.len().min(24) as u64;
    let ids = world.replies.iter().rev().take(recent as usize).filter_map(|(_, reply)| match reply {
        Reply::JoinGroup(response) if !response.member_id.is_empty() => Some(response.member_id.clone()),
        _ => None,
    });
    let ids: Vec<StrBytes> = ids.collect();
    match random.below(ids.len() as u64 + 2) {
        0 => own(""),
        n => ids.get(n as usize - 1).cloned().unwrap_or_default(),
    }
}

fn history(seed: u64) {
    let mut world = World::new(Config { group_size_max: 5, initial_rebalance_delay_ms: 500, ..Config::default() });
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..600 {
        let group = ["g", "h"][random.below(2) as usize];
        let member = some_member(&world, &mut random);
        let generation = world
            .replies
            .iter()
            .rev()
            .find_map(|(_, reply)| if let Reply::JoinGroup(r) = reply { Some(r.generation_id) } else { None })
            .unwrap_or(-1);
        let instance = ["i", "j"][random.below(2) as usize];
        match random.below(12) {
            0..=2 => world.join(group, member, None, random.below(3) as usize, [3, 9][random.below(2) as usize]),
            3 => world.join(group, member, Some(instance), 1, 9),
            4..=6 => world.sync(group, member.clone(), generation, &[member]),
            7 => {
                let request = HeartbeatRequest::default()
                    .with_group_id(GroupId(own(group)))
                    .with_member_id(member)
                    .with_generation_id(generation);
                world.groups.heartbeat(&request, world.now);
            }
            8 => {
                let identity = match random.below(2) {
                    0 => MemberIdentity::default().with_member_id(member),
                    _ => MemberIdentity::default().with_group_instance_id(Some(own(instance))),
                };
                let request =
                    LeaveGroupRequest::default().with_group_id(GroupId(own(group))).with_members(vec![identity]);
                world.send(5, |groups, caller, now, out| groups.leave(caller, &request, now, out));
            }
            9 if random.below(20) == 0 => {
                let partition = partition_for(group, 50);
                let mut out = Outcome::default();
                world.groups.unload(partition, world.now, &mut out);
                world.groups.load_start(partition);
                world.groups.load_done(partition, world.now, &mut out);
                world.settle(out, Ok(()));
            }
            _ => world.advance(random.below(9_000) as i64),
        }
        world.groups.audit().unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    world.advance(3_000_000);
    world.groups.audit().unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    assert!(world.unanswered.is_empty(), "seed {seed}: {:?} were never answered", world.unanswered);
    assert_eq!(world.groups.group_bytes(), 0, "seed {seed}");
}

#[test]
fn random_histories_answer_everyone_once() {
    (1..=150).for_each(history);
}

#[test]
fn partitions_are_javas() {
    // Java: Math.abs("...".hashCode()) % 50; "polygenelubricants" hashes to Integer.MIN_VALUE, which Kafka takes as 0.
    assert_eq!(partition_for("polygenelubricants", 50), 0);
    assert_eq!(partition_for("", 50), 0);
    assert_eq!(partition_for("a", 50), 97 % 50);
    assert_eq!(partition_for("test-group", 50), 12);
    // Two UTF-16 units, not one code point.
    assert_eq!(partition_for("\u{1F600}", 1 << 30), 0xD83D * 31 + 0xDE00);
}
