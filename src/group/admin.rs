//! What administrators ask: DescribeGroups, ListGroups, DeleteGroups. Reading changes nothing; a deletion is answered when
//! its tombstones are appended in every partition it touches.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    ListGroupsRequest, ListGroupsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::classic::{Group, State};
use super::offsets::tombstone;
use super::outcome::{Reply, Then};
use super::record::{Record, group_key};
use super::{Caller, Groups, Outcome, own};
use crate::ids::{Now, ReplyTo};
use crate::wire::ErrorCode;

/// All that one may do to a group: read, delete, describe, describe and alter its configuration. There is no authorizer.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// Deletions that wait for appends to more than one partition.
#[derive(Default, Debug)]
pub(super) struct Deletions {
    last: u64,
    waiting: BTreeMap<u64, Deletion>,
}

#[derive(Debug)]
struct Deletion {
    to: ReplyTo,
    appends_left: usize,
    response: DeleteGroupsResponse,
}

impl Groups {
    pub fn describe(&self, request: &DescribeGroupsRequest, version: i16) -> DescribeGroupsResponse {
        // One that is named twice is told once: it takes few bytes to ask for, and may have thousands of members.
        let mut seen = BTreeSet::new();
        let groups = request.groups.iter().filter(|group_id| seen.insert(*group_id)).map(|group_id| {
            let described = match self.route(group_id) {
                Err(error) => DescribedGroup::default().with_error_code(error.code()),
                Ok(partition) => match self.group(partition, group_id) {
                    Some(group) => describe_group(group),
                    None => describe_missing(group_id, version),
                },
            };
            let found = described.error_code == 0;
            let operations = if request.include_authorized_operations && found { GROUP_OPERATIONS } else { i32::MIN };
            described.with_group_id(group_id.clone()).with_authorized_operations(operations)
        });
        DescribeGroupsResponse::default().with_groups(groups.collect())
    }

    /// The groups of this shard. Filters are compared without regard to case; an unknown one matches nothing.
    pub fn list(&self, request: &ListGroupsRequest) -> ListGroupsResponse {
        if self.coordinators.values().any(|coordinator| coordinator.loading) {
            return ListGroupsResponse::default().with_error_code(ErrorCode::CoordinatorLoadInProgress.code());
        }
        let (states, types) = (Filter::of(&request.states_filter), Filter::of(&request.types_filter));
        let groups = self
            .coordinators
            .values()
            .flat_map(|coordinator| coordinator.groups.values())
            .filter(|group| states.lets_through(group.state.name()) && types.lets_through("classic"))
            .map(|group| {
                ListedGroup::default()
                    .with_group_id(GroupId(group.id.clone()))
                    .with_protocol_type(group.protocol_type.clone().unwrap_or_default())
                    .with_group_state(StrBytes::from_static_str(group.state.name()))
                    .with_group_type(StrBytes::from_static_str("classic"))
            });
        ListGroupsResponse::default().with_groups(groups.collect())
    }

    pub fn delete(&mut self, caller: &Caller, request: &DeleteGroupsRequest, now: Now, out: &mut Outcome) {
        let mut response = DeleteGroupsResponse::default();
        let mut doomed: BTreeMap<i32, (Vec<Record>, Vec<StrBytes>)> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let commits = self.pending.commits();
        // A group that is named twice is answered once.
        for group_id in request.groups_names.iter().filter(|group_id| seen.insert(*group_id)) {
            let found = self.route(group_id).and_then(|partition| {
                let group = self.group(partition, group_id).ok_or(ErrorCode::GroupIdNotFound)?;
                if group.state == State::Empty { Ok(group) } else { Err(ErrorCode::NonEmptyGroup) }
            });
            if let Ok(group) = found {
                let (records, groups) = doomed.entry(group.partition).or_default();
                let mut keys = BTreeSet::from_iter(group.offsets.keys());
                keys.extend(commits.get(&(group.partition, &group.id)).into_iter().flatten());
                records.extend(keys.into_iter().map(|(topic, of)| tombstone(&group.id, topic, of)));
                records.push(Record { key: group_key(&group.id), value: None });
                groups.push(own(group_id));
            }
            let result = DeletableGroupResult::default().with_group_id(group_id.clone());
            response.results.push(result.with_error_code(super::code(found.map(|_| ()))));
        }
        if doomed.is_empty() {
            out.replies.push((caller.to, Reply::DeleteGroups(response)));
            return;
        }
        self.deletions.last += 1;
        let deletion = self.deletions.last;
        let waiting = Deletion { to: caller.to, appends_left: doomed.len(), response };
        self.deletions.waiting.insert(deletion, waiting);
        for (partition, (records, groups)) in doomed {
            self.turn(now, out).append(partition, records, Then::GroupsDeleted { deletion, groups });
        }
    }

    pub(super) fn groups_deleted(
        &mut self,
        partition: i32,
        deletion: u64,
        groups: Vec<StrBytes>,
        result: Result<(), ErrorCode>,
        out: &mut Outcome,
    ) {
        if result.is_ok() {
            for group in &groups {
                let keys =
                    |group: &Group| group.offsets.keys().map(|(topic, of)| (topic.clone(), of)).collect::<Vec<_>>();
                let keys = self.group(partition, group).map(keys).unwrap_or_default();
                self.remove_offsets(partition, group, &keys);
                // With the ids that were handed out in advance: those who come with them are told to begin anew.
                if self.group(partition, group).is_some_and(|group| group.state == State::Empty) {
                    self.forget_group(partition, group);
                }
            }
        }
        let Some(waiting) = self.deletions.waiting.get_mut(&deletion) else { return };
        if let Err(error) = result {
            let groups: BTreeSet<&StrBytes> = groups.iter().collect();
            let failed = waiting.response.results.iter_mut().filter(|result| groups.contains(&result.group_id.0));
            failed.for_each(|result| result.error_code = error.code());
        }
        waiting.appends_left -= 1;
        if waiting.appends_left == 0
            && let Some(done) = self.deletions.waiting.remove(&deletion)
        {
            out.replies.push((done.to, Reply::DeleteGroups(done.response)));
        }
    }
}

/// What ListGroups is narrowed down to; nothing: everything.
struct Filter(BTreeSet<String>);

impl Filter {
    fn of(wanted: &[StrBytes]) -> Filter {
        Filter(wanted.iter().map(|name| name.trim().to_ascii_lowercase()).collect())
    }

    fn lets_through(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.contains(&name.to_ascii_lowercase())
    }
}

fn describe_group(group: &Group) -> DescribedGroup {
    let stable = group.state == State::Stable;
    let protocol = group.protocol.clone().filter(|_| stable);
    let members = group.members.values().map(|member| {
        let metadata = protocol.as_ref().and_then(|name| member.metadata(name).cloned());
        DescribedGroupMember::default()
            .with_member_id(member.id.clone())
            .with_group_instance_id(member.instance_id.clone())
            .with_client_id(member.client_id.clone())
            .with_client_host(member.client_host.clone())
            .with_member_metadata(metadata.unwrap_or_default())
            .with_member_assignment(member.assignment.clone())
    });
    DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(group.state.name()))
        .with_protocol_type(group.protocol_type.clone().unwrap_or_default())
        .with_protocol_data(protocol.clone().unwrap_or_default())
        .with_members(members.collect())
}

/// A group that is not there is Dead; from version 6 on that is also an error.
fn describe_missing(group_id: &StrBytes, version: i16) -> DescribedGroup {
    let dead = DescribedGroup::default().with_group_state(StrBytes::from_static_str("Dead"));
    if version < 6 {
        return dead;
    }
    dead.with_error_code(ErrorCode::GroupIdNotFound.code())
        .with_error_message(Some(StrBytes::from_string(format!("Group {group_id} not found."))))
}
