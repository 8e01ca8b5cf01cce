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
struct Followed {
    /// Number of its topic in the session.
    topic: u32,
    index: i32,
    /// First offset wanted.
    offset: Offset,
    /// Most bytes.
    bytes_max: u32,
    /// As the client knows it.
    leader_epoch: LeaderEpoch,
    /// High watermark and log start offset as told last.
    told: Option<(Offset, Offset)>,
}

/// Topics go either by name or by id, all of a session alike. One that is followed by its id may get its name later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TopicKey {
    Name(TopicName),
    Id(TopicId),
}

fn key(topic: &FetchTopic) -> TopicKey {
    if topic.id.is_nil() { TopicKey::Name(topic.name.clone()) } else { TopicKey::Id(topic.id) }
}

struct Session {
    /// Expected of the next request.
    epoch: i32,
    used_ms: u64,
    follows: Follows,
}

/// What a session follows. Each of its requests looks at all of it: topics are compared by their numbers.
#[derive(Default)]
struct Follows {
    by_id: bool,
    topics: Vec<FetchTopic>,
    numbers: BTreeMap<TopicKey, u32>,
    partitions: Vec<Followed>,
    /// Topic's number and partition's index to the place in `partitions`.
    places: BTreeMap<(u32, i32), u32>,
    /// Places in the order they are served; those that gave records go to the end.
    order: Vec<u32>,
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
        forgotten: &[(FetchTopic, i32)],
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
        let mut follows = Follows { by_id, ..Follows::default() };
        follows.follow(query);
        loop {
            self.last_id = if self.last_id == i32::MAX { 1 } else { self.last_id + 1 };
            if !self.sessions.contains_key(&self.last_id) {
                break;
            }
        }
        self.followed += follows.partitions.len();
        self.sessions.insert(self.last_id, Session { epoch: 1, used_ms: now_ms, follows });
        SessionAnswer::New(self.last_id)
    }

    fn go_on(
        &mut self,
        id: i32,
        epoch: i32,
        by_id: bool,
        query: &mut FetchQuery,
        forgotten: &[(FetchTopic, i32)],
        now_ms: u64,
    ) -> SessionAnswer {
        let Some(session) = self.sessions.get_mut(&id) else {
            return SessionAnswer::Error(ErrorCode::FetchSessionIdNotFound);
        };
        if session.epoch != epoch {
            return SessionAnswer::Error(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.follows.by_id != by_id {
            return SessionAnswer::Error(ErrorCode::FetchSessionTopicIdError);
        }
        let before = session.follows.partitions.len();
        session.follows.follow(query);
        session.follows.forget(forgotten);
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.used_ms = now_ms;
        let after = session.follows.partitions.len();
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
        session.follows.fill(query);
        SessionAnswer::Incremental(id)
    }

    fn end(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.followed -= session.follows.partitions.len();
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
        let Some(Session { follows, .. }) = self.sessions.get_mut(&id) else { return };
        let Some(place) = follows.numbers.get(&key(topic)).and_then(|number| follows.places.get(&(*number, index)))
        else {
            return;
        };
        follows.partitions[*place as usize].told = told;
        if gave_records
            && follows.order.len() > 1
            && let Some(at) = follows.order.iter().position(|p| p == place)
        {
            follows.order.remove(at);
            follows.order.push(*place);
        }
    }
}

impl Follows {
    /// Adds or updates what a request names.
    fn follow(&mut self, query: &FetchQuery) {
        for group in FetchPartition::by_topic(&query.partitions) {
            let topic = self.number(&query.topics[group[0].topic as usize]);
            for &FetchPartition { index, offset, bytes_max, leader_epoch, .. } in group {
                if let Some(place) = self.places.get(&(topic, index)) {
                    let followed = &mut self.partitions[*place as usize];
                    *followed = Followed { offset, bytes_max, leader_epoch, ..*followed };
                } else {
                    self.add(Followed { topic, index, offset, bytes_max, leader_epoch, told: None });
                }
            }
        }
    }

    /// A topic's number, and its name if that has become known.
    fn number(&mut self, topic: &FetchTopic) -> u32 {
        let number = *self.numbers.entry(key(topic)).or_insert(self.topics.len() as u32);
        match self.topics.get_mut(number as usize) {
            None => self.topics.push(topic.clone()),
            Some(known) if !topic.name.is_empty() => known.name = topic.name.clone(),
            Some(_) => {}
        }
        number
    }

    fn add(&mut self, followed: Followed) {
        let place = self.partitions.len() as u32;
        self.places.insert((followed.topic, followed.index), place);
        self.partitions.push(followed);
        self.order.push(place);
    }

    /// Forgets what a request names. What is left is numbered anew.
    fn forget(&mut self, forgotten: &[(FetchTopic, i32)]) {
        if forgotten.is_empty() {
            return;
        }
        let number = |topic| self.numbers.get(&key(topic)).copied();
        let gone: BTreeSet<_> = forgotten.iter().filter_map(|(topic, index)| Some((number(topic)?, *index))).collect();
        let before = std::mem::take(self);
        self.by_id = before.by_id;
        let mut partitions: Vec<_> = before.partitions.into_iter().map(Some).collect();
        let served = before.order.iter().filter_map(|place| partitions[*place as usize].take());
        for followed in served.filter(|f| !gone.contains(&(f.topic, f.index))) {
            let topic = self.number(&before.topics[followed.topic as usize]);
            self.add(Followed { topic, ..followed });
        }
    }

    /// Puts all that is followed into the query.
    fn fill(&self, query: &mut FetchQuery) {
        query.topics.clear();
        query.partitions.clear();
        query.topics.extend_from_slice(&self.topics);
        query.partitions.extend(self.order.iter().map(|place| {
            let Followed { topic, index, offset, bytes_max, leader_epoch, told } = self.partitions[*place as usize];
            FetchPartition { topic, index, offset, bytes_max, leader_epoch, told }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, id: u128) -> FetchQuery {
        let mut query = FetchQuery::default();
        query.topics.push(FetchTopic { name: TopicName::from(name), id: TopicId::from_u128(id) });
        let (bytes_max, leader_epoch) = (1, LeaderEpoch(0));
        query.partitions.push(FetchPartition {
            topic: 0,
            index: 3,
            offset: Offset(5),
            bytes_max,
            leader_epoch,
            told: None,
        });
        query
    }

    /// Another core told the client of a new topic before this one knew it.
    #[test]
    fn a_topic_followed_by_id_gets_its_name_later() {
        let mut sessions = Sessions::default();
        let mut step = |id, epoch, query: &mut FetchQuery, forgotten: &[(FetchTopic, i32)]| {
            sessions.step((id, epoch), true, query, forgotten, 0, 10)
        };
        assert_eq!(step(0, 0, &mut query("", 7), &[]), SessionAnswer::New(1));
        let mut again = query("new", 7);
        assert_eq!(step(1, 1, &mut again, &[]), SessionAnswer::Incremental(1));
        assert_eq!((again.partitions.len(), &*again.topics[0].name), (1, "new"), "it is the same partition");
        let mut deleted = query("", 7);
        assert_eq!(step(1, 2, &mut deleted, &[]), SessionAnswer::Incremental(1));
        assert_eq!(&*deleted.topics[0].name, "new", "a topic that was known and is gone keeps its name");
        let mut none = FetchQuery::default();
        let forgotten = [(query("", 7).topics.remove(0), 3)];
        assert_eq!(step(1, 3, &mut none, &forgotten), SessionAnswer::Full, "nothing is left of the session");
    }
}
