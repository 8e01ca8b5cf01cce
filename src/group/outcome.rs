//! What a turn of the coordinator leaves to its caller: replies to send, records to append. The rule the caller keeps: an
//! append is performed, then reported by [`Groups::appended`](super::Groups::appended), in order within a partition; the
//! replies that depend on it come out of that call and of no other. No IO and no clock here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kafka_protocol::messages::{
    DeleteGroupsResponse, JoinGroupResponse, LeaveGroupResponse, OffsetCommitResponse, OffsetDeleteResponse,
    SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Config;
use super::classic::Terms;
use super::record::{Committed, Record};
use crate::ids::{Now, ReplyTo};
use crate::wire::ErrorCode;

#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    JoinGroup(JoinGroupResponse),
    SyncGroup(SyncGroupResponse),
    LeaveGroup(LeaveGroupResponse),
    OffsetCommit(OffsetCommitResponse),
    OffsetDelete(OffsetDeleteResponse),
    DeleteGroups(DeleteGroupsResponse),
}

/// Records for partition `partition` of `__consumer_offsets`, to be appended as one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    pub id: u64,
    pub partition: i32,
    pub records: Vec<Record>,
}

#[derive(Default, Debug)]
pub struct Outcome {
    pub replies: Vec<(ReplyTo, Reply)>,
    pub appends: Vec<Append>,
}

/// What follows once an append is done.
#[derive(Debug)]
pub(super) enum Then {
    /// A new group was made known; members wait in it already.
    Created {
        group: StrBytes,
    },
    /// Nothing: if this is lost, the next rebalance or expiry writes it again.
    Settled,
    /// The leader's assignments are stored: hand them out.
    Synced {
        group: StrBytes,
        generation: i32,
        assignments: BTreeMap<StrBytes, Bytes>,
    },
    /// A static member came back without a rebalance.
    StaticRejoined(Box<StaticRejoin>),
    Committed {
        group: StrBytes,
        to: ReplyTo,
        response: OffsetCommitResponse,
        offsets: Vec<(StrBytes, i32, Committed)>,
    },
    OffsetsDeleted {
        group: StrBytes,
        to: ReplyTo,
        response: OffsetDeleteResponse,
        keys: Vec<(StrBytes, i32)>,
    },
    GroupsDeleted {
        deletion: u64,
        groups: Vec<StrBytes>,
    },
    Expired {
        offsets: Vec<(StrBytes, StrBytes, i32)>,
        groups: Vec<StrBytes>,
    },
}

/// All that is needed to undo a static member's return when its record cannot be stored.
#[derive(Debug)]
pub(super) struct StaticRejoin {
    pub group: StrBytes,
    pub instance_id: StrBytes,
    pub member_id: StrBytes,
    pub old_member_id: StrBytes,
    pub old_terms: Terms,
    pub old_leader: Option<StrBytes>,
    pub version: i16,
}

/// Appends under way, by id.
#[derive(Default, Debug)]
pub(super) struct Pending {
    last: u64,
    waiting: BTreeMap<u64, (i32, usize, Then)>,
    bytes: usize,
}

impl Pending {
    fn begin(&mut self, partition: i32, bytes: usize, then: Then) -> u64 {
        self.last += 1;
        self.bytes += bytes;
        self.waiting.insert(self.last, (partition, bytes, then));
        self.last
    }

    pub fn finish(&mut self, id: u64) -> Option<(i32, Then)> {
        let (partition, bytes, then) = self.waiting.remove(&id)?;
        self.bytes -= bytes;
        Some((partition, then))
    }

    pub fn of_partition(&self, partition: i32) -> Vec<u64> {
        self.waiting.iter().filter(|(_, (of, ..))| *of == partition).map(|(id, _)| *id).collect()
    }

    /// Commits under way, by partition and group. Their groups do not know them yet, but their records come before that of
    /// whatever is appended now: who forgets offsets must look here too.
    pub fn commits(&self) -> BTreeMap<(i32, &StrBytes), BTreeSet<(&StrBytes, i32)>> {
        let mut commits = BTreeMap::<_, BTreeSet<_>>::new();
        for (partition, _, then) in self.waiting.values() {
            if let Then::Committed { group, offsets, .. } = then {
                let keys = offsets.iter().map(|(topic, of, _)| (topic, *of));
                commits.entry((*partition, group)).or_default().extend(keys);
            }
        }
        commits
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a state machine may touch while it handles one input.
pub(super) struct Turn<'a> {
    pub config: &'a Config,
    pub now: Now,
    pub new_id: &'a mut dyn FnMut() -> Uuid,
    pub pending: &'a mut Pending,
    pub out: &'a mut Outcome,
}

impl Turn<'_> {
    pub fn reply(&mut self, to: ReplyTo, reply: Reply) {
        self.out.replies.push((to, reply));
    }

    pub fn append(&mut self, partition: i32, records: Vec<Record>, then: Then) {
        let bytes = records.iter().map(Record::len).sum();
        let id = self.pending.begin(partition, bytes, then);
        self.out.appends.push(Append { id, partition, records });
    }
}

pub(super) fn code(result: Result<(), ErrorCode>) -> i16 {
    result.map_or_else(|error| error.code(), |()| 0)
}

/// What a client is told when the offsets partition refuses an append.
pub(super) fn append_error(error: ErrorCode) -> ErrorCode {
    use ErrorCode::*;
    match error {
        UnknownTopicOrPartition | NotEnoughReplicas | NotEnoughReplicasAfterAppend | RequestTimedOut => {
            CoordinatorNotAvailable
        }
        NotLeaderOrFollower | KafkaStorageError => NotCoordinator,
        MessageTooLarge | RecordListTooLarge | InvalidFetchSize => UnknownServerError,
        other => other,
    }
}
