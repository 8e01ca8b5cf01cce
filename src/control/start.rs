//! The control thread's start: whose directory it is, the metadata log folded into the first image, brokers registered,
//! partitions of cores that are gone handed to those that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::identity::{Identity, IdentityError, to_base64};
use super::metadata_log::{MetadataError, MetadataLog};
use super::{Control, SNAPSHOT_AFTER_BYTES};
use crate::cluster::configs::MIN_INSYNC_REPLICAS;
use crate::cluster::features::FEATURES;
use crate::cluster::fold::Fold;
use crate::cluster::image::ClusterImage;
use crate::cluster::placement;
use crate::cluster::record::{RESOURCE_BROKER, Record, RegisterBroker};
use crate::cluster::topics::METADATA_TOPIC;
use crate::config::keys::broker_key;
use crate::config::{BrokerConfig, Settings};
use crate::ids::{NodeId, Now};
use crate::io::disk::{Disk, Job};
use crate::storage::{self, data_dir::Checkpoints};
use crate::wire::batch::Batch;
use crate::wire::record::Records;

/// Snapshot that Kafka's format tool leaves for the first start.
const BOOTSTRAP: &str = "bootstrap.checkpoint";

/// What the start needs to know.
pub struct Setup {
    /// The configuration file and the command line.
    pub settings: Arc<Settings>,
    /// The same, checked.
    pub config: Arc<BrokerConfig>,
    /// Where clients reach each shard, by shard.
    pub shards: Vec<ShardAddress>,
    /// Makes ids (`control::random_id`; the simulation has its own).
    pub new_id: Box<dyn FnMut() -> Uuid>,
}

/// Where clients reach a shard.
#[derive(Clone, Debug)]
pub struct ShardAddress {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Why the start failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory is not ours.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The metadata log cannot be used.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The directory cannot be read.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
}

impl Control {
    /// Starts: reads the metadata log, registers this process's shards as brokers and publishes the first image.
    pub fn open(disk: &mut dyn Disk, mut setup: Setup, now: Now) -> Result<Control, StartError> {
        let first = setup.config.node_id;
        let shards = setup.shards.len() as u16;
        let identity = Identity::load(disk, first, &mut setup.new_id)?;
        let cluster_id: Arc<str> = identity.cluster_id.as_str().into();
        let empty = ClusterImage::empty(cluster_id, shards, setup.settings.clone(), setup.config.clone());
        let mut fold = Fold::new(&empty);
        let mut history = History::default();
        let mut log = MetadataLog::open(disk, &mut |record| {
            history.note(&record);
            fold.apply(record);
        })?;
        let mut image = fold.finish();
        let strays = find_strays(disk, &image, &history, &mut setup.new_id)?;
        log.check_lost(&strays.values().flatten().map(String::as_str).collect::<Vec<_>>())?;
        log_strays(&strays);
        log.begin_epoch(disk, first, now)?;

        let mut records = Vec::new();
        if image.features.is_empty() {
            records.extend(bootstrap_records(disk));
        }
        let mut fold = Fold::new(&image);
        records.iter().for_each(|record| fold.apply(record.clone()));
        records.extend(elr_record(&fold.finish()));
        records.extend(register(&image, &mut setup, identity.directory, log.next_offset().0 + records.len() as i64));
        let mut fold = Fold::new(&image);
        records.iter().for_each(|record| fold.apply(record.clone()));
        let registered = fold.finish();
        let moves = placement::reassign(&registered, setup.config.rebalance_leaders);
        if !moves.is_empty() {
            log::info!("{} partitions change to another core", moves.len());
        }
        let mut fold = Fold::new(&registered);
        moves.iter().for_each(|record| fold.apply(record.clone()));
        image = fold.finish();
        log.append_if_room(disk, &records, now)?;
        if !moves.is_empty() {
            // Records may be appended under the new epochs even where nothing else can be written: they must not go back.
            log.append(disk, &moves, now)?;
        }
        image.epoch = 1;
        image.metadata_offset = log.next_offset().0 - 1;
        image.metadata_epoch = log.epoch();

        let mut control = Control {
            log,
            directory: identity.directory,
            new_id: setup.new_id,
            image: Arc::new(image),
            next: None,
            records: Vec::new(),
            answers: Vec::new(),
            waiting: Default::default(),
            applied: vec![1; usize::from(shards)], // they start from the first image
            removed_in: None,
            to_remove: deleted_directories(disk),
            strays,
            checkpointed: Checkpoints::topics(disk).map_err(MetadataError::from)?,
        };
        if control.log.size() > SNAPSHOT_AFTER_BYTES {
            control.write_snapshot(disk, now);
        }
        Ok(control)
    }
}

/// What has been deleted, as far as the log remembers.
#[derive(Default)]
struct History {
    names: BTreeMap<Uuid, String>,
    /// Ids of deleted topics by name, whether or not there is a new one.
    deleted: BTreeMap<String, BTreeSet<Uuid>>,
}

impl History {
    fn note(&mut self, record: &Record) {
        match record {
            Record::Topic { name, id } => drop(self.names.insert(*id, name.clone())),
            Record::RemoveTopic { id } => {
                if let Some(name) = self.names.remove(id) {
                    self.deleted.entry(name).or_default().insert(*id);
                }
            }
            _ => {}
        }
    }
}

/// The features of a new cluster: as Kafka's format tool wrote them, else our own.
fn bootstrap_records(disk: &mut dyn Disk) -> Vec<Record> {
    let bytes = disk.read_file(Path::new(BOOTSTRAP)).unwrap_or_default();
    let mut records = Vec::new();
    let mut rest = bytes.as_slice();
    while let Ok(batch) = Batch::stored(rest) {
        if !batch.attributes().is_control() {
            let values = Records::new(batch.records(), batch.count()).filter_map(|record| record.ok()?.value);
            records.extend(values.filter_map(|value| Record::decode(value).ok()));
        }
        rest = &rest[batch.size()..];
    }
    records.retain(|record| matches!(record, Record::FeatureLevel { .. } | Record::Config { .. }));
    if records.is_empty() {
        let ours = FEATURES.iter();
        records.extend(ours.map(|(name, _, level)| Record::FeatureLevel { name: name.to_string(), level: *level }));
    }
    records
}

/// With eligible leader replicas (KIP-966), `min.insync.replicas` is set for all brokers from the first start on, to what the
/// configuration says then: DescribeConfigs tells of it for every topic.
fn elr_record(image: &ClusterImage) -> Option<Record> {
    let is_set = image.dynamic_configs.get(&None).is_some_and(|configs| configs.contains_key(MIN_INSYNC_REPLICAS));
    let key = broker_key(MIN_INSYNC_REPLICAS).expect("it is in the table");
    let value = image.layers(None).broker_value(key);
    (image.has_elr() && !is_set).then(|| Record::Config {
        resource_type: RESOURCE_BROKER,
        resource_name: String::new(),
        name: MIN_INSYNC_REPLICAS.to_string(),
        value: value.map(String::from),
    })
}

/// Registers this process's shards; brokers that are not among them are fenced, since there is no other host.
fn register(image: &ClusterImage, setup: &mut Setup, directory: Uuid, first_offset: i64) -> Vec<Record> {
    let mut records = Vec::new();
    for (index, address) in setup.shards.iter().enumerate() {
        records.push(Record::RegisterBroker(RegisterBroker {
            broker: NodeId(setup.config.node_id.0 + index as i32),
            incarnation: (setup.new_id)(),
            broker_epoch: first_offset + index as i64,
            endpoints: vec![("PLAINTEXT".to_string(), address.host.clone(), address.port)],
            features: FEATURES.iter().map(|(name, min, max)| (name.to_string(), *min, *max)).collect(),
            rack: setup.config.rack.clone(),
            fenced: false,
            log_dirs: vec![directory],
        }));
    }
    let gone = image.alive_brokers().filter(|broker| image.local.shard(broker.id).is_none());
    let fence = |broker: &crate::cluster::image::Broker| Record::BrokerFenced {
        broker: broker.id,
        broker_epoch: broker.epoch,
        fenced: true,
    };
    records.extend(gone.map(fence));
    records
}

/// Directories of partitions that no topic has, by topic name. A crash between deleting a topic and renaming its
/// directories leaves them; so does copying them in by hand.
fn find_strays(
    disk: &mut dyn Disk,
    image: &ClusterImage,
    history: &History,
    new_id: &mut dyn FnMut() -> Uuid,
) -> Result<BTreeMap<String, Vec<String>>, StartError> {
    let mut strays: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in disk.list(Path::new(""))?.into_iter().filter(|entry| entry.is_dir) {
        let Some((name, index)) = parse_directory(&entry.name) else { continue };
        // A damaged id says nothing: the directory is the present topic's.
        let of_deleted = |ids: &BTreeSet<Uuid>| topic_id(disk, &entry.name).is_some_and(|id| ids.contains(&id));
        if history.deleted.get(name).is_some_and(of_deleted) {
            set_aside(disk, &entry.name, new_id())?;
        } else if image.partition(name, index).is_none() {
            strays.entry(name.to_string()).or_default().push(entry.name);
        }
    }
    strays.remove(METADATA_TOPIC);
    Ok(strays)
}

fn log_strays(strays: &BTreeMap<String, Vec<String>>) {
    for (topic, directories) in strays {
        log::warn!("no topic has the directories {}: they are left as they are", directories.join(", "));
        log::debug!("a topic '{topic}' that is created now will not have them");
    }
}

/// Whose a partition's directory is, as it says itself.
fn topic_id(disk: &mut dyn Disk, directory: &str) -> Option<Uuid> {
    let bytes = disk.read_file(&Path::new(directory).join("partition.metadata")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let id = text.lines().find_map(|line| line.strip_prefix("topic_id: "))?;
    super::identity::from_base64(id.trim())
}

/// Renames a directory so that no topic will take it for its own.
pub(super) fn set_aside(disk: &mut dyn Disk, directory: &str, id: Uuid) -> Result<(), MetadataError> {
    let to = storage::set_aside_name(directory, &format!("{}-stray", to_base64(id)));
    log::warn!("{directory} does not belong to the topic of that name: it is now {}", to.display());
    let job = Job::Rename { from: directory.into(), to };
    disk.run(job).map_err(|error| MetadataError::Io { path: directory.to_string(), error })
}

/// `<topic>-<partition>`, taken apart.
fn parse_directory(name: &str) -> Option<(&str, i32)> {
    let (topic, index) = name.rsplit_once('-')?;
    let index = index.parse().ok().filter(|_| index.bytes().all(|b| b.is_ascii_digit()))?;
    (!topic.is_empty()).then_some((topic, index))
}

/// Directories that shards have let go of.
pub(super) fn deleted_directories(disk: &mut dyn Disk) -> Vec<PathBuf> {
    let entries = disk.list(Path::new("")).unwrap_or_default().into_iter();
    let deleted = entries.filter(|entry| entry.is_dir && entry.name.ends_with("-delete"));
    deleted.map(|entry| PathBuf::from(entry.name)).collect()
}
