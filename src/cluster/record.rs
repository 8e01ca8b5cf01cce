//! Records of the metadata log, with KRaft's keys, versions and encoding: frame version, key and record version as
//! unsigned varints, then the fields in flexible form. What Apache Kafka's controllers write is read too; records of
//! features that this broker does not have are passed over (`Record::Other`).

use uuid::Uuid;

use crate::ids::{LeaderEpoch, NodeId, TopicId};
use crate::wire::reader::{DecodeError, Reader};
use crate::wire::writer;

/// Kafka's key of each kind of record.
mod key {
    pub const REGISTER_BROKER: u32 = 0;
    pub const UNREGISTER_BROKER: u32 = 1;
    pub const TOPIC: u32 = 2;
    pub const PARTITION: u32 = 3;
    pub const CONFIG: u32 = 4;
    pub const PARTITION_CHANGE: u32 = 5;
    pub const FENCE_BROKER: u32 = 7;
    pub const UNFENCE_BROKER: u32 = 8;
    pub const REMOVE_TOPIC: u32 = 9;
    pub const FEATURE_LEVEL: u32 = 12;
    pub const PRODUCER_IDS: u32 = 15;
    pub const BROKER_REGISTRATION_CHANGE: u32 = 17;
    pub const NO_OP: u32 = 20;
    pub const BEGIN_TRANSACTION: u32 = 23;
    pub const END_TRANSACTION: u32 = 24;
    pub const ABORT_TRANSACTION: u32 = 25;
}

const FRAME_VERSION: u32 = 1;
/// `ConfigRecord::resource_type` of a topic.
pub const RESOURCE_TOPIC: i8 = 2;
/// `ConfigRecord::resource_type` of a broker; the empty name is all of them.
pub const RESOURCE_BROKER: i8 = 4;
/// `ConfigRecord::resource_type` of a client metrics subscription.
pub const RESOURCE_CLIENT_METRICS: i8 = 16;
/// `ConfigRecord::resource_type` of a group.
pub const RESOURCE_GROUP: i8 = 32;

/// One change of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A broker has come (again).
    RegisterBroker(RegisterBroker),
    /// A broker is gone for good.
    UnregisterBroker {
        /// Which.
        broker: NodeId,
    },
    /// A broker was fenced or unfenced.
    BrokerFenced {
        /// Which.
        broker: NodeId,
        /// Epoch of its registration.
        broker_epoch: i64,
        /// Fenced, or unfenced.
        fenced: bool,
    },
    /// A topic; its partitions follow.
    Topic {
        /// Its name.
        name: String,
        /// Its id.
        id: TopicId,
    },
    /// A partition.
    Partition(Partition),
    /// A partition has changed.
    PartitionChange(PartitionChange),
    /// A topic has gone, with its partitions.
    RemoveTopic {
        /// Its id.
        id: TopicId,
    },
    /// A configuration was set or (`None`) deleted.
    Config {
        /// One of `RESOURCE_TOPIC` and its neighbours.
        resource_type: i8,
        /// Name of the topic, subscription or group; node id, or empty for all brokers.
        resource_name: String,
        /// Its key.
        name: String,
        /// Its value.
        value: Option<String>,
    },
    /// A feature has been finalized at a level; 0: no more.
    FeatureLevel {
        /// Its name.
        name: String,
        /// Its level.
        level: i16,
    },
    /// Producer ids up to this one have been given out.
    ProducerIds {
        /// To whom.
        broker: NodeId,
        /// Epoch of its registration.
        broker_epoch: i64,
        /// First id that has not been given out.
        next: i64,
    },
    /// Nothing.
    NoOp,
    /// What follows up to `EndTransaction` holds together.
    BeginTransaction {
        /// What it is about.
        name: Option<String>,
    },
    /// What came since `BeginTransaction` holds.
    EndTransaction,
    /// What came since `BeginTransaction` does not hold.
    AbortTransaction,
    /// Something that this broker does not act on.
    Other {
        /// Kafka's key of it.
        key: u32,
    },
}

/// `RegisterBrokerRecord`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterBroker {
    /// Which.
    pub broker: NodeId,
    /// Differs with each start.
    pub incarnation: Uuid,
    /// Offset of this record.
    pub broker_epoch: i64,
    /// Listener name, host and port.
    pub endpoints: Vec<(String, String, u16)>,
    /// Name, lowest and highest level.
    pub features: Vec<(String, i16, i16)>,
    /// Its failure domain.
    pub rack: Option<String>,
    /// Not there yet.
    pub fenced: bool,
    /// Ids of its data directories.
    pub log_dirs: Vec<Uuid>,
}

/// `PartitionRecord`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Index.
    pub partition: i32,
    /// Topic.
    pub topic: TopicId,
    /// Preferred leader first.
    pub replicas: Vec<NodeId>,
    /// In sync.
    pub isr: Vec<NodeId>,
    /// -1: none.
    pub leader: NodeId,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
    /// Rises with each change.
    pub partition_epoch: i32,
    /// Data directory of each replica.
    pub directories: Vec<Uuid>,
}

/// `PartitionChangeRecord`: what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionChange {
    /// Index.
    pub partition: i32,
    /// Topic.
    pub topic: TopicId,
    /// In sync.
    pub isr: Option<Vec<NodeId>>,
    /// -1: none.
    pub leader: Option<NodeId>,
    /// Preferred leader first.
    pub replicas: Option<Vec<NodeId>>,
    /// Data directory of each replica.
    pub directories: Option<Vec<Uuid>>,
}

impl Record {
    /// Appends the record's bytes: the value of a record in the metadata log.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (key, version) = match self {
            Record::RegisterBroker(_) => (key::REGISTER_BROKER, 3),
            Record::UnregisterBroker { .. } => (key::UNREGISTER_BROKER, 0),
            Record::BrokerFenced { .. } => (key::BROKER_REGISTRATION_CHANGE, 0),
            Record::Topic { .. } => (key::TOPIC, 0),
            Record::Partition(_) => (key::PARTITION, 1),
            Record::PartitionChange(_) => (key::PARTITION_CHANGE, 1),
            Record::RemoveTopic { .. } => (key::REMOVE_TOPIC, 0),
            Record::Config { .. } => (key::CONFIG, 0),
            Record::FeatureLevel { .. } => (key::FEATURE_LEVEL, 0),
            Record::ProducerIds { .. } => (key::PRODUCER_IDS, 0),
            Record::NoOp => (key::NO_OP, 0),
            Record::BeginTransaction { .. } => (key::BEGIN_TRANSACTION, 0),
            Record::EndTransaction => (key::END_TRANSACTION, 0),
            Record::AbortTransaction => (key::ABORT_TRANSACTION, 0),
            Record::Other { key } => panic!("a record of key {key} is not ours to write"),
        };
        writer::uvarint(out, FRAME_VERSION);
        writer::uvarint(out, key);
        writer::uvarint(out, version);
        let mut tags = Tags::default();
        match self {
            Record::RegisterBroker(r) => {
                writer::i32(out, r.broker.0);
                writer::bool(out, false); // of a migration from ZooKeeper
                writer::uuid(out, r.incarnation);
                writer::i64(out, r.broker_epoch);
                writer::array_count(out, true, Some(r.endpoints.len()));
                for (name, host, port) in &r.endpoints {
                    writer::string(out, true, name);
                    writer::string(out, true, host);
                    writer::i16(out, *port as i16);
                    writer::i16(out, 0); // PLAINTEXT
                    writer::no_tags(out, true);
                }
                writer::array_count(out, true, Some(r.features.len()));
                for (name, min, max) in &r.features {
                    writer::string(out, true, name);
                    writer::i16(out, *min);
                    writer::i16(out, *max);
                    writer::no_tags(out, true);
                }
                writer::nullable_string(out, true, r.rack.as_deref());
                writer::bool(out, r.fenced);
                writer::bool(out, false); // in controlled shutdown
                tags.push(!r.log_dirs.is_empty(), 0, |out| write_uuids(out, &r.log_dirs));
            }
            Record::UnregisterBroker { broker } => {
                writer::i32(out, broker.0);
                writer::i64(out, -1);
            }
            Record::BrokerFenced { broker, broker_epoch, fenced } => {
                writer::i32(out, broker.0);
                writer::i64(out, *broker_epoch);
                tags.push(true, 0, |out| writer::i8(out, if *fenced { 1 } else { -1 }));
            }
            Record::Topic { name, id } => {
                writer::string(out, true, name);
                writer::uuid(out, *id);
            }
            Record::Partition(p) => {
                writer::i32(out, p.partition);
                writer::uuid(out, p.topic);
                write_nodes(out, &p.replicas);
                write_nodes(out, &p.isr);
                write_nodes(out, &[]); // removing
                write_nodes(out, &[]); // adding
                writer::i32(out, p.leader.0);
                writer::i32(out, p.leader_epoch.0);
                writer::i32(out, p.partition_epoch);
                write_uuids(out, &p.directories);
            }
            Record::PartitionChange(c) => {
                writer::i32(out, c.partition);
                writer::uuid(out, c.topic);
                if let Some(isr) = &c.isr {
                    tags.push(true, 0, |out| write_nodes(out, isr));
                }
                if let Some(leader) = c.leader {
                    tags.push(true, 1, |out| writer::i32(out, leader.0));
                }
                if let Some(replicas) = &c.replicas {
                    tags.push(true, 2, |out| write_nodes(out, replicas));
                }
                if let Some(directories) = &c.directories {
                    tags.push(true, 8, |out| write_uuids(out, directories));
                }
            }
            Record::RemoveTopic { id } => writer::uuid(out, *id),
            Record::Config { resource_type, resource_name, name, value } => {
                writer::i8(out, *resource_type);
                writer::string(out, true, resource_name);
                writer::string(out, true, name);
                writer::nullable_string(out, true, value.as_deref());
            }
            Record::FeatureLevel { name, level } => {
                writer::string(out, true, name);
                writer::i16(out, *level);
            }
            Record::ProducerIds { broker, broker_epoch, next } => {
                writer::i32(out, broker.0);
                writer::i64(out, *broker_epoch);
                writer::i64(out, *next);
            }
            Record::BeginTransaction { name } => {
                tags.push(name.is_some(), 0, |out| writer::nullable_string(out, true, name.as_deref()));
            }
            Record::NoOp | Record::EndTransaction | Record::AbortTransaction | Record::Other { .. } => {}
        }
        tags.write(out);
    }

    /// Reads the value of a record in the metadata log.
    pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
        let mut r = Reader::new(bytes);
        if r.uvarint("frame version")? != FRAME_VERSION {
            return Err(DecodeError::Invalid("frame version"));
        }
        let key = r.uvarint("record key")?;
        let version = r.uvarint("record version")?;
        let record = match key {
            key::REGISTER_BROKER => Record::RegisterBroker(decode_register_broker(&mut r, version)?),
            key::UNREGISTER_BROKER => Record::UnregisterBroker { broker: NodeId(r.i32("broker id")?) },
            key::FENCE_BROKER | key::UNFENCE_BROKER => Record::BrokerFenced {
                broker: NodeId(r.i32("broker id")?),
                broker_epoch: r.i64("broker epoch")?,
                fenced: key == key::FENCE_BROKER,
            },
            key::BROKER_REGISTRATION_CHANGE => {
                let (broker, broker_epoch) = (NodeId(r.i32("broker id")?), r.i64("broker epoch")?);
                let mut change = 0;
                r.tags(|tag, r| {
                    if tag == 0 {
                        change = r.i8("fenced")?;
                    }
                    Ok(())
                })?;
                match change {
                    0 => Record::Other { key },
                    change => Record::BrokerFenced { broker, broker_epoch, fenced: change > 0 },
                }
            }
            key::TOPIC => Record::Topic { name: r.string(true, "topic name")?.to_string(), id: r.uuid("topic id")? },
            key::PARTITION => Record::Partition(decode_partition(&mut r, version)?),
            key::PARTITION_CHANGE => Record::PartitionChange(decode_partition_change(&mut r)?),
            key::REMOVE_TOPIC => Record::RemoveTopic { id: r.uuid("topic id")? },
            key::CONFIG => Record::Config {
                resource_type: r.i8("resource type")?,
                resource_name: r.string(true, "resource name")?.to_string(),
                name: r.string(true, "configuration name")?.to_string(),
                value: r.nullable_string(true, "configuration value")?.map(str::to_string),
            },
            key::FEATURE_LEVEL => Record::FeatureLevel {
                name: r.string(true, "feature name")?.to_string(),
                level: r.i16("feature level")?,
            },
            key::PRODUCER_IDS => Record::ProducerIds {
                broker: NodeId(r.i32("broker id")?),
                broker_epoch: r.i64("broker epoch")?,
                next: r.i64("next producer id")?,
            },
            key::NO_OP => Record::NoOp,
            key::BEGIN_TRANSACTION => {
                let mut name = None;
                r.tags(|tag, r| {
                    if tag == 0 {
                        name = r.nullable_string(true, "transaction name")?.map(str::to_string);
                    }
                    Ok(())
                })?;
                Record::BeginTransaction { name }
            }
            key::END_TRANSACTION => Record::EndTransaction,
            key::ABORT_TRANSACTION => Record::AbortTransaction,
            key => Record::Other { key },
        };
        Ok(record)
    }
}

fn decode_register_broker(r: &mut Reader<'_>, version: u32) -> Result<RegisterBroker, DecodeError> {
    let broker = NodeId(r.i32("broker id")?);
    if version >= 2 {
        r.bool("is migrating")?;
    }
    let incarnation = r.uuid("incarnation id")?;
    let broker_epoch = r.i64("broker epoch")?;
    let mut endpoints = Vec::new();
    for _ in 0..r.array_count(true, 7, "endpoints")? {
        let name = r.string(true, "listener name")?.to_string();
        let host = r.string(true, "host")?.to_string();
        let port = r.u16("port")?;
        r.i16("security protocol")?;
        r.skip_tags()?;
        endpoints.push((name, host, port));
    }
    let mut features = Vec::new();
    for _ in 0..r.array_count(true, 6, "features")? {
        features.push((r.string(true, "feature name")?.to_string(), r.i16("lowest level")?, r.i16("highest level")?));
        r.skip_tags()?;
    }
    let rack = r.nullable_string(true, "rack")?.map(str::to_string);
    let fenced = r.bool("fenced")?;
    if version >= 1 {
        r.bool("in controlled shutdown")?;
    }
    let mut log_dirs = Vec::new();
    r.tags(|tag, r| {
        if tag == 0 {
            log_dirs = read_uuids(r)?;
        }
        Ok(())
    })?;
    Ok(RegisterBroker { broker, incarnation, broker_epoch, endpoints, features, rack, fenced, log_dirs })
}

fn decode_partition(r: &mut Reader<'_>, version: u32) -> Result<Partition, DecodeError> {
    let partition = r.i32("partition")?;
    let topic = r.uuid("topic id")?;
    let (replicas, isr) = (read_nodes(r)?, read_nodes(r)?);
    let (_removing, _adding) = (read_nodes(r)?, read_nodes(r)?);
    let leader = NodeId(r.i32("leader")?);
    let leader_epoch = LeaderEpoch(r.i32("leader epoch")?);
    let partition_epoch = r.i32("partition epoch")?;
    let directories = if version >= 1 { read_uuids(r)? } else { Vec::new() };
    Ok(Partition { partition, topic, replicas, isr, leader, leader_epoch, partition_epoch, directories })
}

fn decode_partition_change(r: &mut Reader<'_>) -> Result<PartitionChange, DecodeError> {
    let (partition, topic) = (r.i32("partition")?, r.uuid("topic id")?);
    let mut change = PartitionChange { partition, topic, ..PartitionChange::default() };
    r.tags(|tag, r| {
        match tag {
            0 => change.isr = read_nullable_nodes(r)?,
            1 => change.leader = Some(NodeId(r.i32("leader")?)).filter(|leader| leader.0 != -2),
            2 => change.replicas = read_nullable_nodes(r)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(change)
}

fn read_nullable_nodes(r: &mut Reader<'_>) -> Result<Option<Vec<NodeId>>, DecodeError> {
    let Some(count) = r.nullable_array_count(true, 4, "broker ids")? else { return Ok(None) };
    (0..count).map(|_| r.i32("broker id").map(NodeId)).collect::<Result<_, _>>().map(Some)
}

fn read_nodes(r: &mut Reader<'_>) -> Result<Vec<NodeId>, DecodeError> {
    Ok(read_nullable_nodes(r)?.unwrap_or_default())
}

fn read_uuids(r: &mut Reader<'_>) -> Result<Vec<Uuid>, DecodeError> {
    (0..r.array_count(true, 16, "directories")?).map(|_| r.uuid("directory id")).collect()
}

fn write_nodes(out: &mut Vec<u8>, nodes: &[NodeId]) {
    writer::array_count(out, true, Some(nodes.len()));
    nodes.iter().for_each(|node| writer::i32(out, node.0));
}

fn write_uuids(out: &mut Vec<u8>, ids: &[Uuid]) {
    writer::array_count(out, true, Some(ids.len()));
    ids.iter().for_each(|id| writer::uuid(out, *id));
}

/// Tagged fields of one record, in rising order.
#[derive(Default)]
struct Tags(Vec<(u32, Vec<u8>)>);

impl Tags {
    fn push(&mut self, present: bool, tag: u32, write: impl FnOnce(&mut Vec<u8>)) {
        if present {
            let mut bytes = Vec::new();
            write(&mut bytes);
            self.0.push((tag, bytes));
        }
    }

    fn write(self, out: &mut Vec<u8>) {
        writer::uvarint(out, self.0.len() as u32);
        for (tag, bytes) in self.0 {
            writer::uvarint(out, tag);
            writer::uvarint(out, bytes.len() as u32);
            out.extend_from_slice(&bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(record: Record) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(Record::decode(&bytes), Ok(record));
        for cut in 0..bytes.len() {
            // Cut anywhere it is an error or a shorter record, never a panic.
            let _ = Record::decode(&bytes[..cut]);
        }
        bytes
    }

    #[test]
    fn bytes_are_kafkas() {
        // As Apache Kafka 4.3 wrote them into its bootstrap checkpoint.
        let feature = Record::FeatureLevel { name: "metadata.version".to_string(), level: 30 };
        assert_eq!(round_trip(feature), b"\x01\x0c\x00\x11metadata.version\x00\x1e\x00");
        assert_eq!(round_trip(Record::EndTransaction), b"\x01\x18\x00\x00");
        let named = Record::BeginTransaction { name: Some("Bootstrap records".to_string()) };
        assert_eq!(round_trip(named), b"\x01\x17\x00\x01\x00\x12\x12Bootstrap records");
    }

    #[test]
    fn every_record_survives() {
        let topic = Uuid::from_u128(7);
        round_trip(Record::RegisterBroker(RegisterBroker {
            broker: NodeId(3),
            incarnation: Uuid::from_u128(1),
            broker_epoch: 12,
            endpoints: vec![("PLAINTEXT".into(), "localhost".into(), 65_535)],
            features: vec![("metadata.version".into(), 7, 27)],
            rack: Some("host".into()),
            fenced: false,
            log_dirs: vec![Uuid::from_u128(5)],
        }));
        round_trip(Record::BrokerFenced { broker: NodeId(3), broker_epoch: 12, fenced: true });
        round_trip(Record::Topic { name: "t".into(), id: topic });
        round_trip(Record::Partition(Partition {
            partition: 1,
            topic,
            replicas: vec![NodeId(1), NodeId(2)],
            isr: vec![NodeId(1)],
            leader: NodeId(1),
            leader_epoch: LeaderEpoch(4),
            partition_epoch: 5,
            directories: vec![Uuid::from_u128(5), Uuid::from_u128(6)],
        }));
        round_trip(Record::PartitionChange(PartitionChange {
            partition: 1,
            topic,
            isr: Some(vec![NodeId(2)]),
            leader: Some(NodeId(2)),
            replicas: None,
            directories: None,
        }));
        round_trip(Record::RemoveTopic { id: topic });
        for value in [Some("1".to_string()), None] {
            round_trip(Record::Config {
                resource_type: RESOURCE_TOPIC,
                resource_name: "t".into(),
                name: "retention.ms".into(),
                value,
            });
        }
        round_trip(Record::ProducerIds { broker: NodeId(1), broker_epoch: 2, next: 3000 });
        round_trip(Record::NoOp);
        round_trip(Record::AbortTransaction);
        round_trip(Record::UnregisterBroker { broker: NodeId(9) });
    }
}
