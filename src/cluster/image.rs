//! The cluster image: the fold of all metadata records. Immutable; every shard holds an `Arc` of the newest one it has
//! seen, and a new epoch is a new image that shares what did not change.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{BrokerConfig, Layers, Settings, TopicConfig};
use crate::ids::{LeaderEpoch, NodeId, ShardId, TopicId, TopicName};

/// Everything a shard needs to know about the cluster.
#[derive(Clone, Debug)]
pub struct ClusterImage {
    /// Rises by one with each image published.
    pub epoch: u64,
    /// Offset of the last metadata record folded in; -1: none.
    pub metadata_offset: i64,
    /// The epoch that metadata records are written in: it rises with each start.
    pub metadata_epoch: LeaderEpoch,
    /// From `meta.properties`.
    pub cluster_id: Arc<str>,
    /// The shards of this process: node ids from `local.first` on.
    pub local: LocalNodes,
    /// By node id: one per core of each host.
    pub brokers: BTreeMap<NodeId, Broker>,
    /// By name.
    pub topics: BTreeMap<TopicName, Arc<Topic>>,
    /// The same topics by id.
    pub topics_by_id: BTreeMap<TopicId, Arc<Topic>>,
    /// Configuration set at run time for one broker; `None`: for all of them.
    pub dynamic_configs: BTreeMap<Option<NodeId>, BTreeMap<String, String>>,
    /// Configuration of what is only a name here, groups and client metrics subscriptions, by resource type and name.
    pub named_configs: BTreeMap<(i8, String), BTreeMap<String, String>>,
    /// What the configuration file and the command line set.
    pub settings: Arc<Settings>,
    /// `settings` with the dynamic configuration of all brokers over it.
    pub config: Arc<BrokerConfig>,
    /// The same of brokers for which something was set alone.
    pub node_configs: BTreeMap<NodeId, Arc<BrokerConfig>>,
    /// First producer id of the block that is allocated next.
    pub next_producer_id: i64,
    /// Finalized features and their levels (`metadata.version`, ...).
    pub features: BTreeMap<String, i16>,
}

/// The node ids of this process: `first`, `first + 1`, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalNodes {
    /// Node id of shard 0.
    pub first: NodeId,
    /// Number of shards.
    pub count: u16,
}

impl LocalNodes {
    /// The shard with this node id, if it is one of this process.
    pub fn shard(self, node: NodeId) -> Option<ShardId> {
        let index = u16::try_from(node.0.checked_sub(self.first.0)?).ok()?;
        (index < self.count).then_some(ShardId(index))
    }

    /// The node id of a shard.
    pub fn node(self, shard: ShardId) -> NodeId {
        NodeId(self.first.0 + i32::from(shard.0))
    }
}

/// One core, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// `node.id` + the shard's index.
    pub id: NodeId,
    /// Where clients connect to.
    pub host: Arc<str>,
    /// Port of `host`.
    pub port: u16,
    /// `broker.rack`.
    pub rack: Option<Arc<str>>,
    /// Its shard in this process; `None`: on another host, or a core that is gone.
    pub shard: Option<ShardId>,
    /// Epoch of its registration.
    pub epoch: i64,
    /// Not (or no longer) there.
    pub fenced: bool,
}

/// A topic.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Never used again, also when the name is.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// By partition index, without gaps.
    pub partitions: Vec<PartitionInfo>,
    /// Configuration set for this topic.
    pub overrides: BTreeMap<String, String>,
    /// `overrides` over the defaults of all brokers; see `ClusterImage::topic_config` for one broker.
    pub config: Arc<TopicConfig>,
    /// `__consumer_offsets` and its like.
    pub internal: bool,
}

/// Who leads a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The leader; -1: none.
    pub leader: NodeId,
    /// Rises with each change of leader.
    pub leader_epoch: LeaderEpoch,
    /// All replicas, preferred leader first.
    pub replicas: Vec<NodeId>,
    /// The replicas that have all acknowledged records.
    pub isr: Vec<NodeId>,
    /// Rises with each change of any kind.
    pub partition_epoch: i32,
}

/// The feature of eligible leader replicas (KIP-966), which new clusters of Kafka 4.1 and later have.
pub const ELR_FEATURE: &str = "eligible.leader.replicas.version";

impl ClusterImage {
    pub fn has_elr(&self) -> bool {
        self.features.get(ELR_FEATURE).is_some_and(|level| *level >= 1)
    }

    /// A cluster without brokers and topics, on a process of `shards` shards.
    pub fn empty(
        cluster_id: Arc<str>,
        shards: u16,
        settings: Arc<Settings>,
        config: Arc<BrokerConfig>,
    ) -> ClusterImage {
        ClusterImage {
            epoch: 0,
            metadata_offset: -1,
            metadata_epoch: LeaderEpoch(0),
            cluster_id,
            local: LocalNodes { first: config.node_id, count: shards },
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            topics_by_id: BTreeMap::new(),
            dynamic_configs: BTreeMap::new(),
            named_configs: BTreeMap::new(),
            settings,
            config,
            node_configs: BTreeMap::new(),
            next_producer_id: 0,
            features: BTreeMap::new(),
        }
    }

    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// A topic by id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics_by_id.get(&id)
    }

    /// A partition by topic name and index.
    pub fn partition(&self, topic: &str, index: i32) -> Option<&PartitionInfo> {
        self.topics.get(topic)?.partition(index)
    }

    /// Brokers that can be connected to.
    pub fn alive_brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values().filter(|b| !b.fenced)
    }

    /// The settings of one broker: those of all, unless some were set for it alone.
    pub fn broker_config(&self, node: NodeId) -> &Arc<BrokerConfig> {
        self.node_configs.get(&node).unwrap_or(&self.config)
    }

    /// What governs a topic's logs on one broker.
    pub fn topic_config(&self, topic: &Topic, node: NodeId) -> Arc<TopicConfig> {
        match self.node_configs.get(&node) {
            None => topic.config.clone(),
            Some(config) if topic.overrides.is_empty() => config.topic.clone(),
            Some(_) => {
                let resolved = TopicConfig::resolve(&topic.overrides, &self.layers(Some(node)));
                resolved.map_or_else(|_| topic.config.clone(), Arc::new)
            }
        }
    }

    /// What is set for `node`, strongest first.
    pub fn layers(&self, node: Option<NodeId>) -> Layers<'_> {
        Layers {
            dynamic: node.and_then(|node| self.dynamic_configs.get(&Some(node))),
            dynamic_default: self.dynamic_configs.get(&None),
            settings: &self.settings,
        }
    }

    /// All partitions that `node` leads, by topic and index.
    pub fn led_by(&self, node: NodeId) -> impl Iterator<Item = (&Arc<Topic>, i32, &PartitionInfo)> {
        self.topics.values().flat_map(move |topic| {
            topic
                .partitions
                .iter()
                .enumerate()
                .filter(move |(_, p)| p.leader == node)
                .map(move |(i, p)| (topic, i as i32, p))
        })
    }
}

impl Topic {
    /// A partition by index.
    pub fn partition(&self, index: i32) -> Option<&PartitionInfo> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}
