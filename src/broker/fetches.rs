//! Fetches that wait for data (long poll): parked here, woken by appends to their partitions, ended by their deadline.
//! A parked fetch keeps what it asked for and is evaluated anew when woken; it holds no slot of any partition.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::ids::{FetchWaitId, LeaderEpoch, NodeId, Offset, ReplyTo, TopicId, TopicName};
use crate::limits::{PARKED_PARTITIONS_FEW, PARKED_PARTITIONS_MAX};
use crate::parts::FileRange;
use crate::wire::error_code::ErrorCode;

/// A topic of a fetch.
#[derive(Clone, Debug)]
pub struct FetchTopic {
    /// Its name; "" if only the id came and is unknown.
    pub name: TopicName,
    /// Its id; nil in versions that go by name.
    pub id: TopicId,
}

/// What is asked of one partition.
#[derive(Clone, Debug)]
pub struct FetchPartition {
    /// Index into the query's topics.
    pub topic: u32,
    /// The partition's number.
    pub index: i32,
    /// First offset wanted.
    pub offset: Offset,
    /// Most bytes from this partition.
    pub bytes_max: u32,
    /// The leader epoch the client goes by; -1: any.
    pub leader_epoch: LeaderEpoch,
    /// In a session: what the client was told last (high watermark and log start offset).
    pub told: Option<(Offset, Offset)>,
}

impl FetchPartition {
    /// Neighbours of one topic together: it is looked up once for them.
    pub fn by_topic(partitions: &[FetchPartition]) -> impl Iterator<Item = &[FetchPartition]> {
        partitions.chunk_by(|a, b| a.topic == b.topic)
    }
}

/// What one partition gives.
#[derive(Clone, Debug)]
pub struct FetchResult {
    /// The code for the reply.
    pub error: ErrorCode,
    /// -1 with an error.
    pub high_watermark: Offset,
    /// -1 with an error.
    pub log_start_offset: Offset,
    /// The records.
    pub range: Option<FileRange>,
    /// Which records, stands in bytes that are being read.
    pub reads: bool,
    /// Who leads it, where the client went by something older.
    pub leader: Option<(NodeId, LeaderEpoch)>,
}

/// A fetch as asked: kept while parked, used again afterwards.
#[derive(Debug, Default)]
pub struct FetchQuery {
    /// Where the reply goes; set by `park` and by the handler.
    pub to: Option<ReplyTo>,
    /// Monotonic ns.
    pub deadline_ns: u64,
    /// Fewer bytes than this wait until the deadline.
    pub bytes_min: u32,
    /// Most bytes of records in the reply.
    pub bytes_max: u32,
    /// 0: no session.
    pub session_id: i32,
    /// Committed records only.
    pub committed: bool,
    /// Leave out partitions with nothing new.
    pub incremental: bool,
    /// Topics, in order.
    pub topics: Vec<FetchTopic>,
    /// Partitions, grouped by topic, in order.
    pub partitions: Vec<FetchPartition>,
    /// As many as partitions, once evaluated.
    pub results: Vec<FetchResult>,
}

impl FetchQuery {
    /// Forgets the contents, keeps the memory.
    pub fn clear(&mut self) {
        self.to = None;
        self.session_id = 0;
        self.incremental = false;
        self.topics.clear();
        self.partitions.clear();
        self.results.clear();
    }
}

#[derive(Default)]
struct Wait {
    generation: u32,
    /// Partitions that the query names.
    asked: usize,
    query: Option<Box<FetchQuery>>,
    woken: bool,
}

/// All parked fetches of this core.
#[derive(Default)]
pub struct Fetches {
    waits: Vec<Wait>,
    free: Vec<u32>,
    deadlines: BinaryHeap<Reverse<(u64, FetchWaitId)>>,
    woken: Vec<FetchWaitId>,
    /// Boxed once, so that parking moves a pointer.
    #[expect(clippy::vec_box)]
    spare: Vec<Box<FetchQuery>>,
    parked: usize,
    /// Partitions that the parked ones name.
    partitions: usize,
}

/// Queries kept for use again.
const SPARE_COUNT_MAX: usize = 256;
/// Those with more partitions are not.
const SPARE_PARTITIONS_MAX: usize = 1024;

impl Fetches {
    /// An empty query, from those kept.
    pub fn take_query(&mut self) -> Box<FetchQuery> {
        self.spare.pop().unwrap_or_default()
    }
    /// Keeps a query's memory.
    pub fn give_query(&mut self, mut query: Box<FetchQuery>) {
        query.clear();
        if self.spare.len() < SPARE_COUNT_MAX && query.partitions.capacity() <= SPARE_PARTITIONS_MAX {
            self.spare.push(query);
        }
    }
    /// The name the next parked fetch will have.
    pub fn next_id(&mut self) -> FetchWaitId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.waits.push(Wait::default());
            self.waits.len() as u32 - 1
        });
        FetchWaitId { slot, generation: self.waits[slot as usize].generation }
    }
    /// May it be parked? Else it is to be answered with what there is.
    pub fn has_room(&self, query: &FetchQuery) -> bool {
        let count = query.partitions.len();
        count <= PARKED_PARTITIONS_FEW || self.partitions + count <= PARKED_PARTITIONS_MAX
    }
    /// Parks a query under the name that `next_id` gave.
    pub fn park(&mut self, id: FetchWaitId, mut query: Box<FetchQuery>) {
        query.results.clear();
        if query.partitions.len() > SPARE_PARTITIONS_MAX {
            query.partitions.shrink_to_fit();
            query.results = Vec::new();
        }
        if self.deadlines.len() > 2 * self.parked + 1024 {
            let waits = &self.waits;
            self.deadlines.retain(|Reverse((_, id))| waits[id.slot as usize].generation == id.generation);
        }
        self.deadlines.push(Reverse((query.deadline_ns, id)));
        self.partitions += query.partitions.len();
        let wait = &mut self.waits[id.slot as usize];
        wait.asked = query.partitions.len();
        wait.query = Some(query);
        wait.woken = false;
        self.parked += 1;
    }
    /// Takes a parked query out to evaluate it: then either `put_back` or `end`.
    pub fn take(&mut self, id: FetchWaitId) -> Option<Box<FetchQuery>> {
        let wait = self.waits.get_mut(id.slot as usize).filter(|w| w.generation == id.generation)?;
        wait.woken = false;
        wait.query.take()
    }
    /// It waits on, under the same name.
    pub fn put_back(&mut self, id: FetchWaitId, query: Box<FetchQuery>) {
        if let Some(wait) = self.waits.get_mut(id.slot as usize).filter(|w| w.generation == id.generation) {
            wait.query = Some(query);
        }
    }
    /// It is over: the name is never used again.
    pub fn end(&mut self, id: FetchWaitId) {
        let Some(wait) = self.waits.get_mut(id.slot as usize).filter(|w| w.generation == id.generation) else { return };
        wait.query = None;
        self.partitions -= std::mem::take(&mut wait.asked);
        wait.generation = wait.generation.wrapping_add(1);
        self.free.push(id.slot);
        self.parked -= 1;
    }
    /// Its client is gone.
    pub fn cancel(&mut self, id: FetchWaitId) {
        if let Some(query) = self.take(id) {
            self.give_query(query);
        }
        self.end(id);
    }
    /// Something happened to a partition: all fetches on its list are to be evaluated. Drops those that are over.
    pub fn wake(&mut self, waiting: &mut Vec<FetchWaitId>) {
        let Fetches { waits, woken, .. } = self;
        waiting.retain(|id| {
            let Some(wait) = waits.get_mut(id.slot as usize).filter(|w| w.generation == id.generation) else {
                return false;
            };
            if !wait.woken {
                wait.woken = true;
                woken.push(*id);
            }
            true
        });
    }
    /// The next fetch that was woken, or whose deadline has passed.
    pub fn next_due(&mut self, now_ns: u64) -> Option<FetchWaitId> {
        while let Some(id) = self.woken.pop() {
            let wait = &self.waits[id.slot as usize];
            if wait.generation == id.generation && wait.query.is_some() {
                return Some(id);
            }
        }
        while let Some(Reverse((deadline, id))) = self.deadlines.peek() {
            let live = self.waits[id.slot as usize].generation == id.generation;
            if live && *deadline > now_ns {
                return None;
            }
            let id = *id;
            self.deadlines.pop();
            if live {
                return Some(id);
            }
        }
        None
    }
    /// When the next deadline passes (monotonic ns).
    pub fn next_deadline_ns(&self) -> u64 {
        self.deadlines.peek().map_or(u64::MAX, |Reverse((deadline, _))| *deadline)
    }
    /// How many are parked.
    pub fn parked(&self) -> usize {
        self.parked
    }
}

/// A list of parked fetches that keeps its size in bounds: most of its names may be of fetches that are over.
pub fn add_waiting(waiting: &mut Vec<FetchWaitId>, id: FetchWaitId, fetches: &Fetches) {
    if waiting.last() == Some(&id) {
        return;
    }
    if waiting.len() >= 64 && waiting.len() == waiting.capacity() {
        waiting.retain(|w| fetches.waits[w.slot as usize].generation == w.generation);
    }
    waiting.push(id);
}
