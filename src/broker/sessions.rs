//! Fetch sessions (KIP-227): the broker remembers which partitions a consumer follows, so that a request names only what
//! changed and a reply only what is new.
//!
//! A session's epoch counts its requests: 0 asks for a new one, -1 ends it, any other must be the one expected next.

use std::collections::{BTreeMap, BTreeSet};

use super::Map;
use super::fetches::{FetchPartition, FetchQuery, FetchTopic};
use crate::ids::{LeaderEpoch, Offset, TopicId, TopicName};
use crate::limits::FOLLOWED_PARTITIONS_MAX;
use crate::wire::error_code::ErrorCode;

/// `min.incremental.fetch.session.eviction.ms`: a session unused for so long may be dropped for a new one.
const EVICTION_MS: u64 = 120_000;

/// What a request asks of a partition, as remembered.
#[derive(Clone, Debug)]
pub struct Followed {
    /// First offset wanted.
    pub offset: Offset,
    /// Most bytes.
    pub bytes_max: u32,
    /// As the client knows it.
    pub leader_epoch: LeaderEpoch,
    /// High watermark and log start offset as told last.
    pub told: Option<(Offset, Offset)>,
}

type Key = (TopicName, TopicId, i32);

struct Session {
    /// Expected of the next request.
    epoch: i32,
    by_id: bool,
    used_ms: u64,
    /// In the order they are served; those that gave records go to the end.
    order: Vec<Key>,
    partitions: BTreeMap<Key, Followed>,
}

/// How a request stands to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAnswer {
    /// No session: answer for what the request names.
    Full,
    /// A new session (its id): answer for what the request names.
    New(i32),
    /// Go on with a session: answer for what is new in it.
    Incremental(i32),
    /// The reply is just this error.
    Error(ErrorCode),
}

/// All fetch sessions of this core.
#[derive(Default)]
pub struct Sessions {
    sessions: Map<i32, Session>,
    last_id: i32,
    /// Partitions of all sessions.
    followed: usize,
}

impl Sessions {
    /// Begins, goes on with or ends a session, as `id` and `epoch` of a request ask. `query` holds what the request names;
    /// for an incremental one it is replaced by all that the session follows.
    pub fn step(
        &mut self,
        (id, epoch): (i32, i32),
        by_id: bool,
        query: &mut FetchQuery,
        forgotten: &[(TopicName, TopicId, i32)],
        now_ms: u64,
        count_max: usize,
    ) -> SessionAnswer {
        match epoch {
            -1 => {
                self.end(id);
                SessionAnswer::Full
            }
            0 => {
                self.end(id);
                if query.partitions.is_empty() {
                    return SessionAnswer::Full;
                }
                self.begin(by_id, query, now_ms, count_max)
            }
            _ => self.go_on(id, epoch, by_id, query, forgotten, now_ms),
        }
    }

    fn begin(&mut self, by_id: bool, query: &FetchQuery, now_ms: u64, count_max: usize) -> SessionAnswer {
        if self.sessions.len() >= count_max {
            let oldest = self.sessions.iter().min_by_key(|(_, s)| s.used_ms).map(|(id, s)| (*id, s.used_ms));
            match oldest {
                Some((id, used_ms)) if now_ms.saturating_sub(used_ms) > EVICTION_MS => self.end(id),
                _ => return SessionAnswer::Full,
            }
        }
        if self.followed + query.partitions.len() > FOLLOWED_PARTITIONS_MAX {
            return SessionAnswer::Full;
        }
        let mut session = Session { epoch: 1, by_id, used_ms: now_ms, order: Vec::new(), partitions: BTreeMap::new() };
        session.follow(query);
        loop {
            self.last_id = if self.last_id == i32::MAX { 1 } else { self.last_id + 1 };
            if !self.sessions.contains_key(&self.last_id) {
                break;
            }
        }
        self.followed += session.partitions.len();
        self.sessions.insert(self.last_id, session);
        SessionAnswer::New(self.last_id)
    }

    fn go_on(
        &mut self,
        id: i32,
        epoch: i32,
        by_id: bool,
        query: &mut FetchQuery,
        forgotten: &[(TopicName, TopicId, i32)],
        now_ms: u64,
    ) -> SessionAnswer {
        let Some(session) = self.sessions.get_mut(&id) else {
            return SessionAnswer::Error(ErrorCode::FetchSessionIdNotFound);
        };
        if session.epoch != epoch {
            return SessionAnswer::Error(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return SessionAnswer::Error(ErrorCode::FetchSessionTopicIdError);
        }
        let before = session.partitions.len();
        session.follow(query);
        session.forget(forgotten);
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.used_ms = now_ms;
        let after = session.partitions.len();
        self.followed = self.followed - before + after;
        if after > before && self.followed > FOLLOWED_PARTITIONS_MAX {
            // As one that had to make room for another: the client begins anew.
            self.end(id);
            return SessionAnswer::Error(ErrorCode::FetchSessionIdNotFound);
        }
        if after == 0 {
            self.end(id);
            query.topics.clear();
            query.partitions.clear();
            return SessionAnswer::Full;
        }
        session.fill(query);
        SessionAnswer::Incremental(id)
    }

    fn end(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.followed -= session.partitions.len();
        }
    }

    /// Remembers what a reply tells the client of a partition, and whether it gave records.
    pub fn told(
        &mut self,
        id: i32,
        topic: &FetchTopic,
        index: i32,
        told: Option<(Offset, Offset)>,
        gave_records: bool,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let key = (topic.name.clone(), topic.id, index);
        if let Some(followed) = session.partitions.get_mut(&key) {
            followed.told = told;
        }
        if gave_records
            && session.order.len() > 1
            && let Some(at) = session.order.iter().position(|k| *k == key)
        {
            let key = session.order.remove(at);
            session.order.push(key);
        }
    }
}

impl Session {
    /// Adds or updates what a request names.
    fn follow(&mut self, query: &FetchQuery) {
        for p in &query.partitions {
            let topic = &query.topics[p.topic as usize];
            let key = (topic.name.clone(), topic.id, p.index);
            match self.partitions.get_mut(&key) {
                Some(followed) => {
                    followed.offset = p.offset;
                    followed.bytes_max = p.bytes_max;
                    followed.leader_epoch = p.leader_epoch;
                }
                None => {
                    self.order.push(key.clone());
                    let followed =
                        Followed { offset: p.offset, bytes_max: p.bytes_max, leader_epoch: p.leader_epoch, told: None };
                    self.partitions.insert(key, followed);
                }
            }
        }
    }

    /// Forgets what a request names.
    fn forget(&mut self, forgotten: &[Key]) {
        if forgotten.is_empty() {
            return;
        }
        // Topics go either by name or by id.
        let by_id = self.by_id;
        let short = |(name, id, index): &Key| match by_id {
            true => (TopicName::from(""), *id, *index),
            false => (name.clone(), TopicId::nil(), *index),
        };
        let gone: BTreeSet<Key> = forgotten.iter().map(short).collect();
        self.partitions.retain(|key, _| !gone.contains(&short(key)));
        self.order.retain(|key| !gone.contains(&short(key)));
    }

    /// Puts all that is followed into the query, neighbours of one topic together.
    fn fill(&self, query: &mut FetchQuery) {
        query.topics.clear();
        query.partitions.clear();
        for key in &self.order {
            let Some(followed) = self.partitions.get(key) else { continue };
            let same = query.topics.last().is_some_and(|t| t.name == key.0 && t.id == key.1);
            if !same {
                query.topics.push(FetchTopic { name: key.0.clone(), id: key.1 });
            }
            query.partitions.push(FetchPartition {
                topic: query.topics.len() as u32 - 1,
                index: key.2,
                offset: followed.offset,
                bytes_max: followed.bytes_max,
                leader_epoch: followed.leader_epoch,
                told: followed.told,
            });
        }
    }
}
