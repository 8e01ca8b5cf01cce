//! The control thread's work, without the thread: `Control` takes messages of shards, changes the cluster by writing
//! records to the metadata log, and says what to tell the shards. A change is published when it is durable, and answered
//! when every shard has applied it. It does not read clocks; the simulation drives it by hand.

pub mod files;
pub mod identity;
pub mod metadata_log;
pub mod start;
pub mod thread;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use crate::cluster::fold::Fold;
use crate::cluster::image::ClusterImage;
use crate::cluster::record::Record;
use crate::cluster::topics::{self, Creation};
use crate::cluster::{configs, features, snapshot};
use crate::ids::{Now, ShardId, TopicId, TopicName, Waiter};
use crate::io::disk::{Disk, Job};
use crate::mailbox::{ControlAnswer, ControlRequest, ToControl, ToShard};
use crate::storage::data_dir::Checkpoints;
use crate::wire::error_code::ErrorCode;
pub use identity::{Identity, IdentityError};
pub use metadata_log::{MetadataError, MetadataLog};
pub use start::{Setup, ShardAddress, StartError};

/// Producer ids are handed to shards in blocks of so many, as Kafka does.
pub const PRODUCER_ID_BLOCK: i64 = 1000;
/// Size of metadata log after which a snapshot takes its place.
const SNAPSHOT_AFTER_BYTES: u64 = 20 * 1024 * 1024;

/// Messages to shards, in order.
pub type Outputs = Vec<(ShardId, ToShard)>;

/// The state of the control thread.
pub struct Control {
    log: MetadataLog,
    directory: Uuid,
    new_id: Box<dyn FnMut() -> Uuid>,
    /// As published.
    image: Arc<ClusterImage>,
    /// With `records` folded in, not durable yet.
    next: Option<ClusterImage>,
    /// To be written by `commit`.
    records: Vec<Record>,
    /// Answers that hold once `records` are durable.
    answers: Vec<Answer>,
    /// Answers that are given once every shard has applied an epoch.
    waiting: VecDeque<(u64, Answer)>,
    /// Newest epoch that each shard has applied.
    applied: Vec<u64>,
    /// Epoch in which topics were removed last: their directories can go when all shards have applied it.
    removed_in: Option<u64>,
    /// Directories to be removed, one at a time.
    to_remove: Vec<PathBuf>,
    /// Directories of partitions that no topic of the image has, by topic name.
    strays: BTreeMap<String, Vec<String>>,
    /// Topics that the data directory's checkpoints tell of.
    checkpointed: BTreeSet<String>,
}

struct Answer {
    shard: ShardId,
    waiter: Waiter,
    answer: ControlAnswer,
}

impl Control {
    /// The newest published image.
    pub fn image(&self) -> Arc<ClusterImage> {
        self.image.clone()
    }

    /// Takes a message. Changes wait for `commit`, so that many share one sync.
    pub fn handle(&mut self, message: ToControl, outputs: &mut Outputs) {
        match message {
            ToControl::Ask { shard, waiter, request } => {
                let answer = self.answer(shard, request);
                self.answers.push(Answer { shard, waiter, answer });
            }
            ToControl::Applied { shard, epoch } => {
                if let Some(applied) = self.applied.get_mut(usize::from(shard.0)) {
                    *applied = epoch.max(*applied);
                }
                self.give_answers(outputs);
            }
            ToControl::Stopped { shard } => {
                // Nobody waits for it any more.
                if let Some(applied) = self.applied.get_mut(usize::from(shard.0)) {
                    *applied = u64::MAX;
                }
                self.give_answers(outputs);
            }
            ToControl::Stop => {}
        }
    }

    /// Writes what `handle` has decided, and publishes it.
    pub fn commit(&mut self, disk: &mut dyn Disk, now: Now, outputs: &mut Outputs) {
        if let Some(next) = self.next.take() {
            let records = std::mem::take(&mut self.records);
            let cleared = self.set_strays_aside(disk, &next).and_then(|()| self.forget_checkpoints(disk, &records));
            if let Err(error) = cleared.and_then(|()| self.log.append(disk, &records, now)) {
                log::error!("the metadata log cannot be written, {} changes are refused: {error}", records.len());
                let error = ErrorCode::KafkaStorageError.code();
                for Answer { shard, waiter, answer } in self.answers.drain(..) {
                    outputs.push((shard, ToShard::Answer { waiter, answer: answer.refused(error) }));
                }
                return;
            }
            self.publish(next, outputs);
            if records.iter().any(|record| matches!(record, Record::RemoveTopic { .. })) {
                self.removed_in = Some(self.image.epoch);
            }
            if self.log.size() > SNAPSHOT_AFTER_BYTES {
                self.write_snapshot(disk, now);
            }
        }
        let epoch = self.image.epoch;
        self.waiting.extend(self.answers.drain(..).map(|answer| (epoch, answer)));
        self.give_answers(outputs);
    }

    /// Does one piece of work that can wait. `false`: there is none.
    pub fn tidy_up(&mut self, disk: &mut dyn Disk) -> bool {
        if let Some(path) = self.to_remove.pop() {
            if let Err(error) = disk.run(Job::RemoveDir { path: path.clone() }) {
                log::warn!("{} of a deleted topic cannot be removed: {error}", path.display());
            }
            return true;
        }
        let all_applied = self.applied.iter().min().copied().unwrap_or(u64::MAX);
        if self.removed_in.is_some_and(|epoch| epoch <= all_applied) {
            self.removed_in = None;
            self.to_remove = start::deleted_directories(disk);
            return true;
        }
        false
    }

    fn publish(&mut self, mut image: ClusterImage, outputs: &mut Outputs) {
        image.epoch = self.image.epoch + 1;
        image.metadata_offset = self.log.next_offset().0 - 1;
        self.image = Arc::new(image);
        let shards = (0..self.applied.len() as u16).map(ShardId);
        outputs.extend(shards.map(|shard| (shard, ToShard::Image(self.image.clone()))));
    }

    fn give_answers(&mut self, outputs: &mut Outputs) {
        let applied = self.applied.iter().min().copied().unwrap_or(u64::MAX);
        while self.waiting.front().is_some_and(|(epoch, _)| *epoch <= applied) {
            let Some((_, Answer { shard, waiter, answer })) = self.waiting.pop_front() else { return };
            outputs.push((shard, ToShard::Answer { waiter, answer }));
        }
    }

    fn write_snapshot(&mut self, disk: &mut dyn Disk, now: Now) {
        if let Err(error) = self.log.snapshot(disk, &snapshot::records(&self.image, self.directory), now) {
            log::warn!("no snapshot of the metadata log could be written, it goes on growing: {error}");
        }
    }

    fn answer(&mut self, shard: ShardId, request: ControlRequest) -> ControlAnswer {
        let image = self.next.as_ref().unwrap_or(&self.image);
        let directory = self.directory;
        let mut creation = Creation { new_id: &mut self.new_id, directory };
        let (records, answer) = match request {
            ControlRequest::CreateTopics(request) => {
                let (records, response) = topics::create(image, &request, &mut creation);
                (records, ControlAnswer::CreateTopics(response))
            }
            ControlRequest::DeleteTopics(request) => {
                let (records, response) = topics::delete(image, &request);
                (records, ControlAnswer::DeleteTopics(response))
            }
            ControlRequest::CreatePartitions(request) => {
                let (records, response) = topics::add_partitions(image, &request, directory);
                (records, ControlAnswer::CreatePartitions(response))
            }
            ControlRequest::AlterConfigs(request) => {
                let (records, response) = configs::alter(image, &request);
                (records, ControlAnswer::AlterConfigs(response))
            }
            ControlRequest::IncrementalAlterConfigs(request) => {
                let (records, response) = configs::alter_incrementally(image, &request);
                (records, ControlAnswer::IncrementalAlterConfigs(response))
            }
            ControlRequest::UpdateFeatures { request, version } => {
                let (records, response) = features::update(image, &request, version);
                (records, ControlAnswer::UpdateFeatures(response))
            }
            ControlRequest::AutoCreateTopics { names, cause } => {
                let (records, topics) = auto_create(image, names, &mut creation);
                (records, ControlAnswer::AutoCreatedTopics { topics, cause })
            }
            ControlRequest::AllocateProducerIds => {
                let first = image.next_producer_id;
                let broker = image.local.node(shard);
                let broker_epoch = image.brokers.get(&broker).map_or(-1, |broker| broker.epoch);
                let next = first + PRODUCER_ID_BLOCK;
                let record = Record::ProducerIds { broker, broker_epoch, next };
                (vec![record], ControlAnswer::ProducerIds { first, count: PRODUCER_ID_BLOCK as i32 })
            }
        };
        if !records.is_empty() {
            let mut fold = Fold::new(image);
            records.iter().for_each(|record| fold.apply(record.clone()));
            self.next = Some(fold.finish());
            self.records.extend(records);
        }
        answer
    }

    /// A directory that a deleted topic left behind must not become the new topic's of that name.
    fn set_strays_aside(&mut self, disk: &mut dyn Disk, next: &ClusterImage) -> Result<(), MetadataError> {
        if self.strays.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = self.strays.keys().filter(|name| next.topic(name).is_some()).cloned().collect();
        for name in names {
            for directory in self.strays.remove(&name).unwrap_or_default() {
                start::set_aside(disk, &directory, (self.new_id)())?;
            }
        }
        Ok(())
    }

    /// Nor must what the checkpoints tell of a deleted topic be taken for the new one's.
    fn forget_checkpoints(&mut self, disk: &mut dyn Disk, records: &[Record]) -> Result<(), MetadataError> {
        let name = |record: &Record| match record {
            Record::Topic { name, .. } => self.checkpointed.get(name).cloned(),
            _ => None,
        };
        let names: BTreeSet<String> = records.iter().filter_map(name).collect();
        if !names.is_empty() {
            Checkpoints::forget(disk, &names)?;
            self.checkpointed.retain(|name| !names.contains(name));
        }
        Ok(())
    }
}

fn auto_create(
    image: &ClusterImage,
    mut names: Vec<TopicName>,
    creation: &mut Creation<'_>,
) -> (Vec<Record>, Vec<(TopicName, i16)>) {
    names.sort();
    names.dedup();
    // Another shard may have asked for the same one just before.
    names.retain(|name| image.topic(name).is_none());
    let request = topics::auto_creation(image, &names);
    let (records, response) = topics::create(image, &request, creation);
    let results = response.topics.iter().map(|topic| (TopicName::from(topic.name.as_str()), topic.error_code));
    (records, results.collect())
}

/// Ids that are never nil and never begin with a dash in base64, which command lines would take for an option.
pub fn random_id() -> TopicId {
    loop {
        let id = Uuid::new_v4();
        if !identity::to_base64(id).starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests;
