//! SyncGroup, Heartbeat, LeaveGroup, and members that stay silent: what happens to a group between two rebalances. Pure,
//! like `join`.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::classic::{Group, State, sync_error};
use super::join::answer_removed;
use super::outcome::{Reply, Then, Turn, code};
use super::{Caller, NEVER, own, timer_ms};
use crate::wire::ErrorCode;

impl Group {
    pub fn sync(&mut self, caller: &Caller, request: &SyncGroupRequest, turn: &mut Turn) {
        let member_id = &request.member_id;
        let refused = match self.check_sync(request) {
            Err(error) => Some(error),
            Ok(()) if self.state == State::PreparingRebalance => Some(ErrorCode::RebalanceInProgress),
            Ok(()) => None,
        };
        if let Some(error) = refused {
            turn.reply(caller.to, Reply::SyncGroup(sync_error(error)));
            return;
        }
        self.pending_sync.remove(member_id);
        if self.pending_sync.is_empty() {
            self.sync_deadline_ms = NEVER;
        }
        if self.state == State::Stable {
            let assignment = self.members.get(member_id).map(|member| member.assignment.clone()).unwrap_or_default();
            turn.reply(caller.to, Reply::SyncGroup(self.sync_response(assignment)));
            return;
        }
        if let Some(before) = self.members.get_mut(member_id).and_then(|member| member.syncing.replace(caller.to)) {
            turn.reply(before, Reply::SyncGroup(sync_error(ErrorCode::RebalanceInProgress)));
        }
        if self.is_leader(member_id) {
            let mut assignments: BTreeMap<StrBytes, Bytes> = BTreeMap::new();
            for given in &request.assignments {
                // Assignments to strangers are dropped, not kept.
                if self.members.contains_key(&given.member_id) {
                    assignments.insert(own(&given.member_id), Bytes::copy_from_slice(&given.assignment));
                }
            }
            let record = self.record(|member| assignments.get(&member.id).cloned().unwrap_or_default());
            let then = Then::Synced { group: self.id.clone(), generation: self.generation, assignments };
            turn.append(self.partition, vec![record], then);
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        let differs =
            |asked: &Option<StrBytes>, ours: &Option<StrBytes>| asked.is_some() && ours.is_some() && asked != ours;
        if self.state == State::Empty {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol_name, &self.protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn sync_response(&self, assignment: Bytes) -> SyncGroupResponse {
        SyncGroupResponse::default()
            .with_protocol_type(self.protocol_type.clone())
            .with_protocol_name(self.protocol.clone())
            .with_assignment(assignment)
    }

    /// The leader's assignments are stored, or could not be.
    pub fn synced(
        &mut self,
        generation: i32,
        assignments: BTreeMap<StrBytes, Bytes>,
        result: Result<(), ErrorCode>,
        turn: &mut Turn,
    ) {
        if self.state != State::CompletingRebalance || self.generation != generation {
            return; // A newer rebalance has answered everyone already.
        }
        match result {
            Ok(()) => {
                self.hand_out(|member_id| assignments.get(member_id).cloned().unwrap_or_default(), None, turn);
                self.transition(State::Stable, turn);
            }
            Err(error) => {
                self.hand_out(|_| Bytes::new(), Some(error), turn);
                self.prepare_rebalance(&format!("its assignment could not be stored: {error}"), turn);
            }
        }
    }

    /// Sets every member's assignment and answers those who wait for theirs.
    pub fn hand_out(&mut self, assignment: impl Fn(&StrBytes) -> Bytes, error: Option<ErrorCode>, turn: &mut Turn) {
        let member_ids: Vec<StrBytes> = self.members.keys().cloned().collect();
        for member_id in member_ids {
            let assignment = assignment(&member_id);
            let response = match error {
                None => self.sync_response(assignment.clone()),
                Some(error) => sync_error(error),
            };
            self.change(&member_id, |member| member.assignment = assignment);
            if self.answer_sync(&member_id, response, turn) {
                self.renew_session(&member_id, turn);
            }
        }
    }

    pub fn heartbeat(&mut self, request: &HeartbeatRequest, turn: &Turn) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        self.renew_session(&request.member_id, turn);
        match self.state {
            State::Empty => Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    pub fn leave(&mut self, request: &LeaveGroupRequest, version: i16, turn: &mut Turn) -> LeaveGroupResponse {
        let results: Vec<(MemberIdentity, Result<(), ErrorCode>)> = leavers(request, version)
            .into_iter()
            .map(|identity| {
                let result = self.leave_one(&identity, turn);
                (identity, result)
            })
            .collect();
        if results.iter().any(|(_, result)| result.is_ok()) {
            match self.state {
                State::Stable | State::CompletingRebalance => self.prepare_rebalance("members leave", turn),
                State::PreparingRebalance => self.complete_if_all_joined(turn),
                State::Empty => {}
            }
        }
        leave_response(results, version)
    }

    fn leave_one(&mut self, identity: &MemberIdentity, turn: &mut Turn) -> Result<(), ErrorCode> {
        let member_id = if identity.member_id.is_empty() {
            // An administrator may remove a static member by its instance id alone.
            let instance_id = identity.group_instance_id.as_ref().ok_or(ErrorCode::UnknownMemberId)?;
            self.static_members.get(instance_id).cloned().ok_or(ErrorCode::UnknownMemberId)?
        } else if self.take_pending(&identity.member_id) {
            return Ok(());
        } else {
            self.check_member(&identity.member_id, identity.group_instance_id.as_ref())?;
            identity.member_id.clone()
        };
        let reason = identity.reason.as_deref().unwrap_or("not provided");
        log::info!("member {member_id} leaves group {}: {reason}", self.id);
        if let Some(member) = self.remove(&member_id) {
            answer_removed(member, ErrorCode::UnknownMemberId, turn);
        }
        Ok(())
    }

    // --- silence

    /// Acts on everything that is due, in the order in which it fell due.
    pub fn expire(&mut self, turn: &mut Turn) {
        let now_ms = timer_ms(turn.now);
        let mut due: Vec<(i64, Due)> = Vec::new();
        let members = self.members.values().map(|member| (member.deadline_ms, &member.id));
        let pending = self.pending_members().iter().map(|(id, deadline_ms)| (*deadline_ms, id));
        due.extend(
            members.chain(pending).filter(|(at, _)| *at <= now_ms).map(|(at, id)| (at, Due::Member(id.clone()))),
        );
        due.extend(self.join_timer.map(|timer| (timer.deadline_ms(), Due::Join)).filter(|(at, _)| *at <= now_ms));
        due.extend(Some((self.sync_deadline_ms, Due::Sync)).filter(|(at, _)| *at <= now_ms));
        due.sort();
        let members = self.members.len();
        for (_, due) in due {
            // What came first may have settled what comes now, so each looks again.
            match due {
                Due::Join => {
                    if let Some(timer) = self.join_timer.filter(|timer| timer.deadline_ms() <= now_ms) {
                        self.join_timer_fired(timer, turn);
                    }
                }
                Due::Sync if self.sync_deadline_ms <= now_ms => self.sync_expired(turn),
                Due::Sync => {}
                Due::Member(member_id) => self.member_expired(&member_id, turn),
            }
        }
        if self.members.len() < members {
            // One line however many they are: ten thousand would keep the core busy writing them.
            log::info!("group {} has dropped {} members that kept silent", self.id, members - self.members.len());
        }
        self.recompute_deadline();
    }

    fn member_expired(&mut self, member_id: &StrBytes, turn: &mut Turn) {
        let now_ms = timer_ms(turn.now);
        if self.pending_members().get(member_id).is_some_and(|deadline_ms| *deadline_ms <= now_ms) {
            self.take_pending(member_id);
            if self.state == State::PreparingRebalance && self.all_members_joined() {
                self.complete_join(turn);
            }
            return;
        }
        let Some(member) = self.members.get_mut(member_id).filter(|member| member.deadline_ms <= now_ms) else {
            return;
        };
        if member.heartbeat_is_excused() {
            member.deadline_ms = NEVER; // Starts anew when its request is answered.
            return;
        }
        log::debug!("group {} drops member {member_id}: no heartbeat in its session timeout", self.id);
        if let Some(member) = self.remove(member_id) {
            answer_removed(member, ErrorCode::UnknownMemberId, turn);
        }
        match self.state {
            State::Stable | State::CompletingRebalance => {
                self.prepare_rebalance(&format!("member {member_id} timed out"), turn);
            }
            State::PreparingRebalance if self.all_members_joined() => self.complete_join(turn),
            State::PreparingRebalance | State::Empty => {}
        }
    }

    /// Members that never asked for their assignment cannot be working: put them out and start over.
    fn sync_expired(&mut self, turn: &mut Turn) {
        self.sync_deadline_ms = NEVER;
        if self.pending_sync.is_empty() || !matches!(self.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        let late = std::mem::take(&mut self.pending_sync);
        for member_id in &late {
            if let Some(member) = self.remove(member_id) {
                answer_removed(member, ErrorCode::UnknownMemberId, turn);
            }
        }
        self.prepare_rebalance(&format!("{} members sent no SyncGroup in time", late.len()), turn);
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Member(StrBytes),
    Sync,
    Join,
}

/// Before version 3 one member left at a time.
fn leavers(request: &LeaveGroupRequest, version: i16) -> Vec<MemberIdentity> {
    if version >= 3 {
        request.members.clone()
    } else {
        vec![MemberIdentity::default().with_member_id(request.member_id.clone())]
    }
}

fn leave_response(results: Vec<(MemberIdentity, Result<(), ErrorCode>)>, version: i16) -> LeaveGroupResponse {
    if version < 3 {
        let first = results.into_iter().next().map_or(Ok(()), |(_, result)| result);
        return LeaveGroupResponse::default().with_error_code(code(first));
    }
    let members = results
        .into_iter()
        .map(|(identity, result)| {
            MemberResponse::default()
                .with_member_id(identity.member_id)
                .with_group_instance_id(identity.group_instance_id)
                .with_error_code(code(result))
        })
        .collect();
    LeaveGroupResponse::default().with_members(members)
}

/// LeaveGroup when the group is not there, or not here. Only a missing group is told member by member.
pub(super) fn leave_refused(request: &LeaveGroupRequest, version: i16, error: ErrorCode) -> LeaveGroupResponse {
    if error == ErrorCode::UnknownMemberId {
        leave_response(leavers(request, version).into_iter().map(|identity| (identity, Err(error))).collect(), version)
    } else {
        LeaveGroupResponse::default().with_error_code(error.code())
    }
}
