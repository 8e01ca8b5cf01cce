//! What one core owns: its partitions, parked fetches, fetch sessions, groups, and the cluster image it goes by.
//! No ring in sight: handlers in `api` act on it, the shard feeds it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use kafka_protocol::protocol::Encodable;

use crate::cluster::image::{ClusterImage, Topic};
use crate::config::BrokerConfig;
use crate::ids::{FetchWaitId, JobOwner, NodeId, Now, Offset, ReplyTo, ShardId, TopicId, TopicName, Waiter};
use crate::io::disk::{Disk, Job};
use crate::limits::REENCODED_SIZE_MAX;
use crate::partition::Partition;
use crate::parts::{Buffers, OpenFile, Reply};
use crate::storage::data_dir::{Checkpoints, ClosedPartition};
use crate::storage::{self, Log, LogConfig, RecoveryReport};
use crate::wire::batch::{self, Batch, Validation};
use crate::wire::error_code::ErrorCode;
use crate::wire::frame;

mod compaction;
mod fetches;
pub mod groups;
mod leaving;
mod log_config;
mod lookups;
mod places;
mod sessions;
pub mod turn;

pub use fetches::{FetchPartition, FetchQuery, FetchResult, FetchTopic, Fetches};
pub use lookups::{Lookup, LookupState, Lookups};
use places::Place;
pub use places::{NotHere, Places};
pub use sessions::{SessionAnswer, Sessions};
pub use turn::{OwnResult, StagedBatch, Turn};

/// Hash maps keyed by names that the cluster image vouches for.
pub type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Replies kept for use again.
const REPLY_POOL_COUNT_MAX: usize = 256;
/// A reply that grew above this is not kept.
const REPLY_POOL_SIZE_MAX: usize = 64 * 1024;

/// Logs that are synced each on its own at a stop, some ten syncs a log. More are left to one sync of their file systems, which writes
/// out what other programs have there, too.
const SYNCED_ONE_BY_ONE_MAX: usize = 32;

/// A log that was appended to is looked after soon: write-back, preallocation, `flush.ms`.
const HOUSEKEEPING_AFTER_APPEND_NS: u64 = 100_000_000;

struct LocalTopic {
    topic: Arc<Topic>,
    places: Places,
}

/// What one core owns.
pub struct Broker {
    /// This core's node id.
    pub node: NodeId,
    /// This core's shard.
    pub shard: ShardId,
    /// The settings of the process.
    pub config: Arc<BrokerConfig>,
    /// What the cluster agrees on, as far as this core has heard.
    pub image: Arc<ClusterImage>,
    /// Producer ids that this core may hand out.
    pub producer_ids: std::ops::Range<i64>,
    /// Parked fetches.
    pub fetches: Fetches,
    /// Parked ListOffsets requests.
    pub lookups: Lookups,
    /// Fetch sessions (KIP-227).
    pub sessions: Sessions,
    /// Consumer groups whose coordinator is this core.
    pub coordination: groups::Coordination,
    /// What has been staged in this turn of the loop.
    pub turn: Turn,
    partitions: Vec<Option<Partition>>,
    free: Vec<u32>,
    /// What the data directory says of the logs that are opened first.
    checkpoints: Arc<Checkpoints>,
    topics: Map<TopicName, LocalTopic>,
    names: Map<TopicId, TopicName>,
    /// How many partitions each slot has had.
    generations: Vec<u32>,
    /// Partitions of deleted topics whose directories are not set aside yet.
    leaving: leaving::Leavings,
    /// Open files of logs that are gone.
    orphans: Vec<Rc<OpenFile>>,
    /// When each partition's log wants to be looked after, and the earliest of these (monotonic ns).
    housekeeping: Vec<u64>,
    housekeeping_next: u64,
    compaction: compaction::Compaction,
    answers: Vec<(Waiter, Reply)>,
    replies: Vec<Reply>,
}

impl Broker {
    /// A broker without partitions: they come with `apply_image`. The checkpoints are for those of the first image.
    pub fn new(shard: ShardId, image: &ClusterImage, checkpoints: Arc<Checkpoints>) -> Broker {
        let config = image.config.clone();
        let nothing = ClusterImage::empty(image.cluster_id.clone(), 0, image.settings.clone(), config.clone());
        Broker {
            coordination: groups::Coordination::new(&config),
            node: NodeId(config.node_id.0 + i32::from(shard.0)),
            shard,
            config,
            checkpoints,
            image: Arc::new(nothing),
            producer_ids: 0..0,
            fetches: Fetches::default(),
            lookups: Lookups::default(),
            sessions: Sessions::default(),
            turn: Turn::default(),
            partitions: Vec::new(),
            free: Vec::new(),
            topics: Map::default(),
            names: Map::default(),
            generations: Vec::new(),
            leaving: leaving::Leavings::default(),
            orphans: Vec::new(),
            housekeeping: Vec::new(),
            housekeeping_next: u64::MAX,
            compaction: compaction::Compaction::default(),
            answers: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// Takes over a newer image: opens the logs of partitions that are led here now, lets go of those that are not.
    /// `clean` and the offsets come from the checkpoints at start-up.
    pub fn apply_image(&mut self, disk: &mut dyn Disk, image: Arc<ClusterImage>, now: Now) {
        self.config = image.broker_config(self.node).clone();
        let old = std::mem::replace(&mut self.image, image.clone());
        for (name, topic) in &old.topics {
            if image.topics.get(name).is_none_or(|new| new.id != topic.id) {
                self.drop_topic(disk, name);
            }
        }
        for (name, topic) in &image.topics {
            if old.topics.get(name).is_some_and(|known| Arc::ptr_eq(known, topic)) {
                continue;
            }
            self.take_topic(disk, name, topic, now);
        }
        self.checkpoints = Arc::default();
        self.follow_groups(&old, now);
    }

    fn drop_topic(&mut self, disk: &mut dyn Disk, name: &TopicName) {
        let Some(local) = self.topics.remove(name) else { return };
        self.names.remove(&local.topic.id);
        for slot in local.places.here() {
            self.drop_partition(disk, slot, true);
        }
    }

    /// Lets go of a partition. Its directory is set aside, so that a topic of the same name begins anew; the control thread
    /// removes it.
    fn drop_partition(&mut self, disk: &mut dyn Disk, slot: u32, topic_is_gone: bool) {
        let Some(mut partition) = self.partitions[slot as usize].take() else { return };
        self.fetches.wake(&mut partition.waiting);
        self.turn.forget(slot);
        if topic_is_gone && partition.log.has_directory() {
            let from = storage::directory_name(&partition.topic, partition.index);
            let to = storage::set_aside_name(&from, &format!("{}-delete", partition.topic_id.simple()));
            let owner = self.owner(slot);
            self.leaving.begin(disk, owner, &partition.log, to);
        }
        self.orphans.extend(partition.log.into_files());
        self.housekeeping[slot as usize] = u64::MAX;
        self.generations[slot as usize] += 1;
        self.free.push(slot);
    }

    fn take_topic(&mut self, disk: &mut dyn Disk, name: &TopicName, topic: &Arc<Topic>, now: Now) {
        let topic_config = self.image.topic_config(topic, self.node);
        let config = Rc::new(log_config::of(&topic_config, &self.config));
        let known = self.topics.remove(name).map(|local| local.places).unwrap_or_default();
        let mut places = Vec::with_capacity(topic.partitions.len());
        for (index, info) in topic.partitions.iter().enumerate() {
            let before = known.get(index);
            let place = match before {
                Some(Place::Here(slot)) if info.leader == self.node => {
                    if let Some(partition) = &mut self.partitions[slot as usize] {
                        partition.config = topic_config.clone();
                        partition.leader_epoch = info.leader_epoch;
                        partition.log.set_config(config.clone());
                        self.housekeeping[slot as usize] = 0;
                        self.housekeeping_next = 0;
                    }
                    Place::Here(slot)
                }
                Some(Place::Here(slot)) => {
                    self.drop_partition(disk, slot, false);
                    Place::Elsewhere(info.leader, info.leader_epoch)
                }
                _ if info.leader == self.node => Place::Here(self.open(disk, topic, index as i32, &config, now)),
                _ => Place::Elsewhere(info.leader, info.leader_epoch),
            };
            places.push(place);
        }
        self.names.insert(topic.id, name.clone());
        self.topics.insert(name.clone(), LocalTopic { topic: topic.clone(), places: places.into() });
    }

    fn open(&mut self, disk: &mut dyn Disk, topic: &Arc<Topic>, index: i32, config: &Rc<LogConfig>, now: Now) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.partitions.push(None);
            self.housekeeping.push(0);
            self.generations.push(0);
            self.partitions.len() as u32 - 1
        });
        let name = &topic.name;
        let dir = PathBuf::from(storage::directory_name(name, index));
        let info = &topic.partitions[index as usize];
        let owner = self.owner(slot);
        let start = self.checkpoints.start(topic.id, name, index);
        let start = storage::Start { leader_epoch: Some(info.leader_epoch), ..start };
        let log = match Log::open(disk, &dir, owner, config.clone(), start, now) {
            Ok((log, report)) => {
                if report != RecoveryReport::default() {
                    log::info!("{name}-{index}: recovered: {report:?}");
                }
                log
            }
            Err(error) => {
                log::error!("{name}-{index}: {error}; the partition is offline");
                return slot;
            }
        };
        self.partitions[slot as usize] = Some(Partition {
            topic: name.clone(),
            topic_id: topic.id,
            index,
            leader_epoch: info.leader_epoch,
            config: self.image.topic_config(topic, self.node),
            log,
            offline: false,
            waiting: Vec::new(),
            sync_to: Offset(-1),
            touched: false,
        });
        self.housekeeping[slot as usize] = 0;
        self.housekeeping_next = 0;
        slot
    }

    /// A topic's name as this broker shares it; none if it does not know the topic.
    pub fn known_name(&self, name: &str) -> Option<TopicName> {
        self.topics.get_key_value(name).map(|(name, _)| name.clone())
    }

    /// The name a topic id belongs to.
    pub fn topic_name(&self, id: TopicId) -> Option<&TopicName> {
        self.names.get(&id)
    }

    /// By what name a partition's log knows its jobs: a slot that is used again does not get those of the one before.
    pub fn owner(&self, slot: u32) -> JobOwner {
        JobOwner(u64::from(self.generations[slot as usize]) << 32 | u64::from(slot))
    }

    /// Where the partitions of a topic are.
    pub fn places(&self, topic: &str) -> Places {
        self.topics.get(topic).map(|local| local.places.clone()).unwrap_or_default()
    }

    /// The slot of a partition that is led here.
    pub fn find(&self, topic: &str, index: i32) -> Result<u32, NotHere> {
        let local = self.topics.get(topic).ok_or(NotHere::unknown(ErrorCode::UnknownTopicOrPartition))?;
        local.places.find(index)
    }

    /// A partition that is led here and whose disk works.
    pub fn leading(&mut self, topic: &str, index: i32) -> Result<(u32, &mut Partition), NotHere> {
        let slot = self.find(topic, index)?;
        Ok((slot, self.working(slot)?))
    }

    /// The partition in a slot, if its disk works.
    pub fn working(&mut self, slot: u32) -> Result<&mut Partition, NotHere> {
        let partition = self.partition(slot).filter(|partition| !partition.offline);
        partition.ok_or(NotHere::unknown(ErrorCode::KafkaStorageError))
    }

    /// The partition in a slot, if there is one.
    pub fn partition(&mut self, slot: u32) -> Option<&mut Partition> {
        self.partitions.get_mut(slot as usize)?.as_mut()
    }

    /// A fetch is to be woken by what happens to a partition.
    pub fn add_waiting(&mut self, slot: u32, fetch: FetchWaitId) {
        let Broker { partitions, fetches, .. } = self;
        if let Some(partition) = partitions.get_mut(slot as usize).and_then(Option::as_mut) {
            fetches::add_waiting(&mut partition.waiting, fetch, fetches);
        }
    }

    /// All partitions led here.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.iter().flatten()
    }

    /// Appends a batch of this broker's own making (committed offsets, group metadata) at the end of this turn of the loop;
    /// `stamped` with its offset already. The result is found under `token` in `turn.own_results` after the flush.
    pub fn stage_own(&mut self, slot: u32, mut batch: Vec<u8>, token: u64) -> Result<Offset, ErrorCode> {
        let partition = self.partition(slot).ok_or(ErrorCode::NotLeaderOrFollower)?;
        if partition.offline {
            return Err(ErrorCode::KafkaStorageError);
        }
        let base = partition.log.next_offset();
        let leader_epoch = partition.leader_epoch;
        batch::stamp(&mut batch, base, leader_epoch);
        Batch::check(&batch, Validation::Header).map_err(|e| e.code())?;
        let last = self.stage_buffer(slot, batch).ok_or(ErrorCode::CorruptMessage)?;
        self.turn.await_own(slot, last, token);
        Ok(base)
    }

    /// Stages a checked and stamped batch that was made from a producer's; gives its last offset. What is staged is written now
    /// if that has become much, so that memory stays bounded whatever a request expands to.
    pub fn stage_made(&mut self, disk: &mut dyn Disk, slot: u32, batch: Vec<u8>, now: Now) -> Option<Offset> {
        let last = self.stage_buffer(slot, batch);
        if self.turn.own_size() > REENCODED_SIZE_MAX {
            self.write_staged(disk, now);
        }
        last
    }

    fn stage_buffer(&mut self, slot: u32, batch: Vec<u8>) -> Option<Offset> {
        let slice = self.turn.push_own(batch);
        let staged = turn::staged(self.turn.buffers.bytes(slice), slice)?;
        self.stage(slot, staged);
        Some(staged.last_offset)
    }

    /// Hands a checked and stamped batch to its partition's log, to be written when the turn ends.
    pub fn stage(&mut self, slot: u32, batch: StagedBatch) {
        if let Some(partition) = self.partitions[slot as usize].as_mut() {
            partition.log.stage(batch);
            if !partition.touched {
                partition.touched = true;
                self.turn.touched.push(slot);
            }
        }
    }

    /// Writes all that was staged in this turn, one write per partition, releases the replies that waited for it and wakes
    /// the fetches parked on those partitions.
    pub fn flush_turn(&mut self, disk: &mut dyn Disk, now: Now) {
        self.write_staged(disk, now);
        self.release();
    }

    fn write_staged(&mut self, disk: &mut dyn Disk, now: Now) {
        let mut touched = std::mem::take(&mut self.turn.touched);
        for &slot in &touched {
            let Some(partition) = self.partitions[slot as usize].as_mut() else { continue };
            partition.touched = false;
            match partition.log.flush(disk, &self.turn.buffers, now) {
                Ok(info) => {
                    if let Some(info) = info.filter(|i| i.ack_when_synced) {
                        partition.sync_to = info.last;
                    }
                    self.fetches.wake(&mut partition.waiting);
                }
                Err(error) => {
                    log::error!("{}-{}: append failed: {error}", partition.topic, partition.index);
                    partition.offline |= !error.is_passing();
                    self.turn.failed.push((slot, ErrorCode::KafkaStorageError));
                }
            }
            let soon = now.monotonic_ns + HOUSEKEEPING_AFTER_APPEND_NS;
            self.housekeeping[slot as usize] = self.housekeeping[slot as usize].min(soon);
            self.housekeeping_next = self.housekeeping_next.min(soon);
        }
        touched.clear();
        self.turn.touched = touched;
        self.turn.clear_own();
    }

    /// Releases the replies whose appends are written, and durable where that is asked.
    pub fn release(&mut self) {
        let Broker { turn, partitions, answers, replies, .. } = self;
        turn.release(
            |slot, last| partitions[slot as usize].as_ref().is_none_or(|p| p.may_acknowledge(last)),
            |waiter, reply| match waiter {
                Some(waiter) => answers.push((waiter, reply)),
                None => give(replies, reply),
            },
        );
    }

    /// A job of one of the logs ended.
    pub fn job_done(&mut self, disk: &mut dyn Disk, owner: JobOwner, job: Job, result: std::io::Result<()>, now: Now) {
        let read_ahead = matches!(job, Job::ReadAhead { .. });
        if read_ahead {
            self.lookups.read_ended(owner);
        }
        if self.leaving.job_done(disk, owner, &job, &result) {
            return;
        }
        let slot = owner.0 as u32;
        if self.generations.get(slot as usize).is_none_or(|_| self.owner(slot) != owner) {
            return;
        }
        self.wake_compaction(owner, now);
        let Some(Some(partition)) = self.partitions.get_mut(slot as usize) else { return };
        partition.log.job_done(disk, job, result, now);
        if let Some(ns) = partition.log.retry_ns() {
            self.housekeeping[slot as usize] = self.housekeeping[slot as usize].min(ns);
            self.housekeeping_next = self.housekeeping_next.min(ns);
        }
        let failed = partition.log.has_failed() && !partition.offline;
        if failed {
            // What waits for a sync of it will not be durable.
            partition.offline = true;
            self.turn.failed.push((slot, ErrorCode::KafkaStorageError));
        }
        if read_ahead || failed {
            self.fetches.wake(&mut partition.waiting);
        }
        self.release();
    }

    /// When `housekeep` is due (monotonic ns).
    pub fn housekeeping_next_ns(&self) -> u64 {
        self.housekeeping_next
    }

    /// Looks after the logs whose time has come, `count_max` at most.
    pub fn housekeep(&mut self, disk: &mut dyn Disk, now: Now, count_max: usize) {
        let mut done = 0;
        let mut next = u64::MAX;
        for slot in 0..self.partitions.len() {
            if self.housekeeping[slot] > now.monotonic_ns || done == count_max {
                next = next.min(self.housekeeping[slot]);
                continue;
            }
            let Some(partition) = self.partitions[slot].as_mut() else {
                self.housekeeping[slot] = u64::MAX;
                continue;
            };
            done += 1;
            let at = partition.log.housekeep(disk, now).unwrap_or(u64::MAX);
            self.housekeeping[slot] = at;
            next = next.min(at);
        }
        self.housekeeping_next = next;
        if !self.orphans.is_empty() {
            self.close_orphans(disk);
            self.housekeeping_next = next.min(now.monotonic_ns + HOUSEKEEPING_AFTER_APPEND_NS);
        }
    }

    /// Some log waits for readers to let go of a file.
    pub fn wants_acknowledgements(&self) -> bool {
        !self.orphans.is_empty() || self.partitions().any(|p| p.log.wants_acknowledgements())
    }

    /// Are directories of deleted topics still to be set aside? No newer image is applied until they are: one of their names may
    /// be used again.
    pub fn sets_aside(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Is no disk job of any log under way?
    pub fn logs_are_quiet(&self) -> bool {
        self.partitions().all(|p| p.log.is_quiet()) && !self.sets_aside()
    }

    /// Clean shutdown of every log, once they are quiet. None: one of them could not be closed in good order.
    pub fn close_logs(&mut self, disk: &mut dyn Disk) -> Option<Vec<ClosedPartition>> {
        let mut closed = Some(Vec::new());
        let sync = self.partitions().filter(|p| !p.log.is_closed_already()).count() <= SYNCED_ONE_BY_ONE_MAX;
        for partition in self.partitions.iter_mut().flatten() {
            match partition.log.close(disk, sync) {
                Ok(log) => {
                    if let Some(all) = &mut closed {
                        all.push(ClosedPartition { topic: partition.topic.to_string(), index: partition.index, log });
                    }
                }
                Err(error) => {
                    log::error!("{}-{}: closing: {error}", partition.topic, partition.index);
                    closed = None;
                }
            }
        }
        closed
    }

    /// Closes files of logs that are gone, once their readers are.
    fn close_orphans(&mut self, disk: &mut dyn Disk) {
        self.orphans.retain(|file| {
            let held = Rc::strong_count(file) > 1;
            if !held {
                disk.start(JobOwner(u64::MAX), Job::Close { file: file.clone() });
            }
            held
        });
    }

    /// Takes what retention says may go from the logs of slots `from..`, `count_max` at most. Returns the slot to go on from.
    pub fn apply_retention(&mut self, disk: &mut dyn Disk, now: Now, from: usize, count_max: usize) -> Option<usize> {
        let to = (from + count_max).min(self.partitions.len());
        for partition in self.partitions[from.min(to)..to].iter_mut().flatten() {
            if let Err(error) = partition.log.apply_retention(disk, now) {
                log::error!("{}-{}: retention: {error}", partition.topic, partition.index);
            }
        }
        (to < self.partitions.len()).then_some(to)
    }

    /// Encodes a kafka-protocol message as a whole reply frame.
    pub fn encode_reply<M: Encodable>(&mut self, to: ReplyTo, message: &M) -> Reply {
        let mut reply = self.take_reply();
        let size_at =
            frame::begin_reply(&mut reply.bytes, to.correlation_id, frame::reply_header_flexible(to.api, to.version));
        if let Err(error) = message.encode(&mut reply.bytes, to.version) {
            // Our own mistake: a value was set that this version cannot carry. Serving something else would be worse.
            panic!("reply of API {} version {}: {error}", to.api, to.version);
        }
        frame::end_reply(&mut reply.bytes, size_at, 0);
        reply
    }

    /// Answers a request for which a handler returned `Outcome::Later`.
    pub fn answer<M: Encodable>(&mut self, to: ReplyTo, message: &M) {
        let reply = self.encode_reply(to, message);
        self.answers.push((to.waiter, reply));
    }

    /// Answers with a reply that is encoded already.
    pub fn answer_encoded(&mut self, waiter: Waiter, reply: Reply) {
        self.answers.push((waiter, reply));
    }

    /// Takes the answers given since the last call.
    pub fn take_answers(&mut self, into: &mut Vec<(Waiter, Reply)>) {
        into.append(&mut self.answers);
    }

    /// An empty reply, from those kept.
    pub fn take_reply(&mut self) -> Reply {
        self.replies.pop().unwrap_or_default()
    }

    /// Keeps a reply for use again.
    pub fn give_reply(&mut self, reply: Reply) {
        give(&mut self.replies, reply);
    }
}

fn give(replies: &mut Vec<Reply>, mut reply: Reply) {
    if replies.len() < REPLY_POOL_COUNT_MAX && reply.bytes.capacity() <= REPLY_POOL_SIZE_MAX {
        reply.clear();
        replies.push(reply);
    }
}
