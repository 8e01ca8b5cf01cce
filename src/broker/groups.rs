//! The group coordinator at home on a core: it serves the groups whose partition of `__consumer_offsets` is led here.
//! `crate::group` decides; here its records are appended, its replies sent, and a partition's log is replayed, a slice at a
//! time, before its groups are served. A reply that waits for an append leaves after the flush that wrote it.

use std::collections::BTreeSet;

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Broker;
use crate::cluster::image::ClusterImage;
use crate::config::BrokerConfig;
use crate::group::{Append, Config, Groups, OFFSETS_TOPIC, Outcome, Reply, Topics};
use crate::ids::{Now, Offset, TopicId};
use crate::io::disk::{Disk, Job};
use crate::limits::GROUP_BYTES_MAX;
use crate::parts::FileRange;
use crate::storage::Resolved;
use crate::wire::batch::{Batch, Codec, HEADER_SIZE, HeaderView};
use crate::wire::compression::decompress_bounded;
use crate::wire::error_code::ErrorCode;
use crate::wire::record::{BatchBuilder, BatchFields, Records};

/// How much of a log is replayed in one turn of the loop: a fraction of a millisecond of work.
const LOAD_SLICE_SIZE: u32 = 128 * 1024;
/// When to look again for bytes that are on their way into the page cache.
const LOAD_RETRY_NS: u64 = 2_000_000;
/// A compressed batch of `__consumer_offsets` (another broker's: ours are not) may hold this much.
const INFLATED_SIZE_MAX: usize = 64 * 1024 * 1024;

/// The coordinator, and what it is in the middle of.
pub struct Coordination {
    /// The groups.
    pub groups: Groups,
    outcome: Outcome,
    /// The offsets topic as followed: its id, and its partitions led here.
    topic: Option<TopicId>,
    partitions: BTreeSet<i32>,
    loading: Vec<Loading>,
    load_at_ns: u64,
}

struct Loading {
    partition: i32,
    next: Offset,
}

impl Coordination {
    pub(super) fn new(config: &BrokerConfig) -> Coordination {
        let (group, offsets) = (&config.group, &config.offsets);
        let config = Config {
            offsets_partitions: offsets.topic_partitions,
            session_timeout_ms_min: group.session_timeout_ms_min,
            session_timeout_ms_max: group.session_timeout_ms_max,
            initial_rebalance_delay_ms: i64::from(group.initial_rebalance_delay_ms).max(0),
            group_size_max: group.size_max as usize,
            offset_metadata_bytes_max: offsets.metadata_bytes_max as usize,
            offsets_retention_ms: i64::try_from(offsets.retention_ms).unwrap_or(i64::MAX),
            retention_check_interval_ms: i64::try_from(offsets.retention_check_interval_ms).unwrap_or(i64::MAX),
            group_bytes_max: GROUP_BYTES_MAX,
            ..Config::default()
        };
        Coordination {
            groups: Groups::new(config, Box::new(Uuid::new_v4)),
            outcome: Outcome::default(),
            topic: None,
            partitions: BTreeSet::new(),
            loading: Vec::new(),
            load_at_ns: u64::MAX,
        }
    }

    /// When `look_after_groups` is due (monotonic ns).
    pub fn deadline_ns(&self) -> u64 {
        let timers_ms = u64::try_from(self.groups.next_deadline_ms()).unwrap_or(0);
        self.load_at_ns.min(timers_ms.saturating_mul(1_000_000))
    }
}

impl Topics for ClusterImage {
    fn has_topic(&self, name: &str) -> bool {
        self.topics.contains_key(name)
    }
    fn has_partition(&self, name: &str, partition: i32) -> bool {
        self.partition(name, partition).is_some()
    }
    fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.topic(name).map(|topic| topic.id)
    }
    fn topic_name(&self, id: Uuid) -> Option<StrBytes> {
        self.topic_by_id(id).map(|topic| StrBytes::from_string(topic.name.to_string()))
    }
}

impl Broker {
    /// Gives the coordinator one input and does what it asks for.
    pub fn with_groups<R>(&mut self, now: Now, act: impl FnOnce(&mut Groups, &dyn Topics, &mut Outcome) -> R) -> R {
        let mut outcome = std::mem::take(&mut self.coordination.outcome);
        let result = act(&mut self.coordination.groups, &*self.image, &mut outcome);
        self.carry_out(&mut outcome, now);
        self.coordination.outcome = outcome;
        result
    }

    fn carry_out(&mut self, outcome: &mut Outcome, now: Now) {
        loop {
            for (to, reply) in outcome.replies.drain(..) {
                match reply {
                    Reply::JoinGroup(response) => self.answer(to, &response),
                    Reply::SyncGroup(response) => self.answer(to, &response),
                    Reply::LeaveGroup(response) => self.answer(to, &response),
                    Reply::OffsetCommit(response) => self.answer(to, &response),
                    Reply::OffsetDelete(response) => self.answer(to, &response),
                    Reply::DeleteGroups(response) => self.answer(to, &response),
                }
            }
            if outcome.appends.is_empty() {
                return;
            }
            for append in std::mem::take(&mut outcome.appends) {
                let id = append.id;
                if let Err(error) = self.append_for_groups(append, now) {
                    self.coordination.groups.appended(id, Err(error), now, outcome);
                }
            }
        }
    }

    fn append_for_groups(&mut self, append: Append, now: Now) -> Result<(), ErrorCode> {
        let (slot, partition) = self.leading(OFFSETS_TOPIC, append.partition).map_err(|not_here| not_here.error)?;
        let size_max = partition.config.message_bytes_max as usize;
        let size: usize = append.records.iter().map(|record| 24 + record.len()).sum();
        let mut batch = Vec::with_capacity(HEADER_SIZE + size);
        let mut builder = BatchBuilder::new(&mut batch, BatchFields::default());
        for record in &append.records {
            builder.push(now.wall_ms, Some(&record.key), record.value.as_deref(), &[]);
        }
        builder.finish();
        if batch.len() > size_max {
            return Err(ErrorCode::MessageTooLarge);
        }
        self.stage_own(slot, batch, append.id).map(|_| ())
    }

    /// After a flush: tells the coordinator how its appends ended. `true`: it has staged more.
    pub fn group_appends_ended(&mut self, now: Now) -> bool {
        if self.turn.own_results.is_empty() {
            return false;
        }
        for result in std::mem::take(&mut self.turn.own_results) {
            let ended = result.error.map_or(Ok(()), Err);
            self.with_groups(now, |groups, _, out| groups.appended(result.token, ended, now, out));
        }
        !self.turn.touched.is_empty()
    }

    /// After a new image: loads partitions that are led here now, lets go of those that are not, forgets the offsets of
    /// topics that are gone.
    pub(super) fn follow_groups(&mut self, old: &ClusterImage, now: Now) {
        let image = self.image.clone();
        let topic = image.topic(OFFSETS_TOPIC);
        let id = topic.map(|topic| topic.id);
        let led: BTreeSet<i32> = topic
            .iter()
            .flat_map(|topic| topic.partitions.iter().enumerate())
            .filter(|(_, partition)| partition.leader == self.node)
            .map(|(index, _)| index as i32)
            .collect();
        let before = std::mem::take(&mut self.coordination.partitions);
        let kept = |partition: &&i32| id == self.coordination.topic && led.contains(partition);
        let gone: Vec<i32> = before.iter().filter(|partition| !kept(partition)).copied().collect();
        let new: Vec<i32> =
            led.iter().filter(|&partition| gone.contains(partition) || !before.contains(partition)).copied().collect();
        self.coordination.loading.retain(|loading| !gone.contains(&loading.partition));
        for partition in gone {
            self.with_groups(now, |groups, _, out| groups.unload(partition, now, out));
        }
        if let Some(topic) = topic {
            self.coordination.groups.set_offsets_partitions(topic.partitions.len() as i32);
        }
        for partition in new {
            self.coordination.groups.load_start(partition);
            self.coordination.loading.push(Loading { partition, next: Offset(0) });
            self.coordination.load_at_ns = now.monotonic_ns;
        }
        self.coordination.topic = id;
        self.coordination.partitions = led;
        let is_gone = |name: &str, id: TopicId| image.topic(name).is_none_or(|topic| topic.id != id);
        let deleted: BTreeSet<StrBytes> = old
            .topics
            .values()
            .filter(|topic| is_gone(&topic.name, topic.id))
            .map(|topic| StrBytes::from_string(topic.name.to_string()))
            .collect();
        if !deleted.is_empty() {
            self.with_groups(now, |groups, _, out| groups.topics_deleted(&deleted, now, out));
        }
    }

    /// Sessions, rebalances, expired offsets, and a slice of loading.
    pub fn look_after_groups(&mut self, disk: &mut dyn Disk, now: Now) {
        if now.monotonic_ns >= self.coordination.load_at_ns {
            self.load_slice(disk, now);
        }
        if self.coordination.groups.next_deadline_ms() <= now.monotonic_ms() as i64 {
            self.with_groups(now, |groups, _, out| groups.expire(now, out));
        }
    }

    fn load_slice(&mut self, disk: &mut dyn Disk, now: Now) {
        let Some(Loading { partition, next }) = self.coordination.loading.pop() else {
            self.coordination.load_at_ns = u64::MAX;
            return;
        };
        self.coordination.load_at_ns = now.monotonic_ns;
        match self.replay_from(disk, partition, next) {
            Ok(Some(next)) => self.coordination.loading.push(Loading { partition, next }),
            Ok(None) => self.with_groups(now, |groups, _, out| groups.load_done(partition, now, out)),
            Err(LoadError::Cold) => {
                self.coordination.loading.push(Loading { partition, next });
                self.coordination.load_at_ns = now.monotonic_ns + LOAD_RETRY_NS;
            }
            Err(LoadError::Broken(reason)) => {
                log::error!("{OFFSETS_TOPIC}-{partition}: {reason}; its groups are not served");
                self.with_groups(now, |groups, _, out| groups.unload(partition, now, out));
            }
        }
    }

    /// Replays one slice; the offset to go on from, or none if that was all.
    fn replay_from(&mut self, disk: &mut dyn Disk, index: i32, next: Offset) -> Result<Option<Offset>, LoadError> {
        let (slot, partition) =
            self.leading(OFFSETS_TOPIC, index).map_err(|not_here| LoadError::Broken(not_here.error.to_string()))?;
        let from = next.max(partition.log_start_offset());
        let end = partition.high_watermark();
        let resolved = partition.log.resolve(disk, from, end, LOAD_SLICE_SIZE, true);
        let range = match resolved.map_err(|error| LoadError::Broken(error.to_string()))? {
            Resolved::Empty => return Ok(None),
            Resolved::Range(range) => range,
            Resolved::Cold(range) => return Err(self.read_ahead(disk, slot, range)),
        };
        let mut bytes = vec![0; range.size as usize];
        match disk.read_resident(&range.file, range.position, &mut bytes) {
            Ok(read) if read == bytes.len() => {}
            Ok(_) => return Err(self.read_ahead(disk, slot, range)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(self.read_ahead(disk, slot, range));
            }
            Err(error) => return Err(LoadError::Broken(error.to_string())),
        }
        let mut next = from;
        let mut rest = &bytes[..];
        while let Some((header, batch)) = whole_batch(rest) {
            if let Err(reason) = self.replay_batch(index, batch) {
                // What was committed before holds again: consumers repeat a little, where they would else stand still.
                let offset = header.base_offset();
                log::error!("{OFFSETS_TOPIC}-{index}: the batch at offset {offset} is skipped: {reason}");
            }
            next = next.max((header.last_offset() + 1).min(end));
            rest = &rest[batch.len()..];
        }
        if next == from {
            return Err(LoadError::Broken(format!("no whole batch at offset {from}")));
        }
        Ok(Some(next))
    }

    fn read_ahead(&self, disk: &mut dyn Disk, slot: u32, range: FileRange) -> LoadError {
        disk.start(self.owner(slot), Job::read_ahead(range));
        LoadError::Cold
    }

    /// Replays one batch, or says what is wrong with it.
    fn replay_batch(&mut self, partition: i32, bytes: &[u8]) -> Result<(), String> {
        let batch = Batch::stored(bytes).map_err(|error| error.to_string())?;
        if batch.attributes().is_control() {
            return Ok(());
        }
        let inflated;
        let records = match batch.codec() {
            Codec::None => batch.records(),
            codec => {
                inflated =
                    decompress_bounded(codec, batch.records(), INFLATED_SIZE_MAX).map_err(|error| error.to_string())?;
                &inflated
            }
        };
        for record in Records::new(records, batch.count()) {
            let record = record.map_err(|error| error.to_string())?;
            let Some(key) = record.key else { continue };
            if let Err(error) = self.coordination.groups.replay(partition, key, record.value) {
                let offset = batch.base_offset() + i64::from(record.offset_delta);
                log::warn!("{OFFSETS_TOPIC}-{partition}: the record at offset {offset} is skipped: {error}");
            }
        }
        Ok(())
    }
}

fn whole_batch(bytes: &[u8]) -> Option<(HeaderView<'_>, &[u8])> {
    let header = HeaderView::read(bytes)?;
    let batch = bytes.get(..header.batch_size()?)?;
    Some((header, batch))
}

enum LoadError {
    /// The bytes are on their way into the page cache.
    Cold,
    Broken(String),
}
