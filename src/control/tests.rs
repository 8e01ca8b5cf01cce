//! The control thread's work on a real directory, with shards that are only played.

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest};

use super::files::Files;
use super::*;
use crate::cluster::topics::wire_name;
use crate::config::{BrokerConfig, Settings};
use crate::ids::{NodeId, Offset};
use crate::io::sim::Sim;
use crate::storage::ClosedLog;
use crate::storage::data_dir::ClosedPartition;

const NOW: Now = Now { monotonic_ns: 1, wall_ms: 1_700_000_000_000 };

struct Host<D = Files> {
    control: Control,
    disk: D,
}

impl Host {
    fn start(dir: &std::path::Path, shards: u16) -> Host {
        let mut disk = Files::new(dir.to_path_buf());
        let control = Control::open(&mut disk, setup(shards), NOW).unwrap();
        Host { control, disk }
    }
}

impl<D: Disk> Host<D> {
    /// Asks, lets every shard apply what was published, and gives the answer.
    fn ask(&mut self, request: ControlRequest) -> ControlAnswer {
        let mut outputs = Outputs::new();
        let shard = ShardId(0);
        self.control.handle(ToControl::Ask { shard, waiter: Waiter(7), request }, &mut outputs);
        self.control.commit(&mut self.disk, NOW, &mut outputs);
        let mut rounds = 0;
        loop {
            let mut next = Outputs::new();
            for (shard, message) in outputs {
                match message {
                    ToShard::Image(image) => {
                        self.control.handle(ToControl::Applied { shard, epoch: image.epoch }, &mut next);
                    }
                    ToShard::Answer { waiter, answer } => {
                        assert_eq!((shard, waiter), (ShardId(0), Waiter(7)));
                        return answer;
                    }
                    ToShard::Stop => unreachable!(),
                }
            }
            rounds += 1;
            assert!(rounds < 3, "no answer");
            outputs = next;
        }
    }

    fn create(&mut self, name: &str, partitions: i32) -> CreateTopicsResponse {
        let topic = CreatableTopic::default().with_name(wire_name(name)).with_num_partitions(partitions);
        let topic = topic.with_replication_factor(-1);
        match self.ask(ControlRequest::CreateTopics(CreateTopicsRequest::default().with_topics(vec![topic]))) {
            ControlAnswer::CreateTopics(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn leaders(&self, topic: &str) -> Vec<i32> {
        self.control.image().topic(topic).unwrap().partitions.iter().map(|p| p.leader.0).collect()
    }
}

fn setup(shards: u16) -> Setup {
    let address = |i| ShardAddress { host: "127.0.0.1".to_string(), port: 9092 + i };
    Setup {
        settings: Arc::new(Settings::default()),
        config: Arc::new(BrokerConfig::kafka_default()),
        shards: (0..shards).map(address).collect(),
        new_id: Box::new(random_id),
    }
}

#[test]
fn a_topic_outlives_the_process_and_the_number_of_cores() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), 2);
    let response = host.create("t", 4);
    assert_eq!(response.topics[0].error_code, 0);
    assert_eq!(response.topics[0].num_partitions, 4);
    assert_eq!(host.leaders("t"), [1, 2, 1, 2]);
    let (id, cluster) = (host.control.image().topic("t").unwrap().id, host.control.image().cluster_id.clone());
    drop(host);

    // Fewer cores: what the second had goes to the first, in a new leader epoch.
    let host = Host::start(dir.path(), 1);
    let image = host.control.image();
    assert_eq!(host.leaders("t"), [1, 1, 1, 1]);
    assert_eq!((image.topic("t").unwrap().id, &image.cluster_id), (id, &cluster));
    assert_eq!(image.partition("t", 0).unwrap().leader_epoch.0, 0);
    assert_eq!(image.partition("t", 1).unwrap().leader_epoch.0, 1);
    assert_eq!(image.alive_brokers().map(|b| b.id.0).collect::<Vec<_>>(), [1]);
    assert!(image.brokers[&NodeId(2)].fenced);
    drop(host);

    // More cores: evened out.
    let host = Host::start(dir.path(), 4);
    let mut leaders = host.leaders("t");
    leaders.sort();
    assert_eq!(leaders, [1, 2, 3, 4]);
    assert_eq!(host.control.image().brokers[&NodeId(2)].shard, Some(ShardId(1)));
}

#[test]
fn an_answer_waits_for_every_shard() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), 2);
    let mut outputs = Outputs::new();
    let topic = CreatableTopic::default().with_name(wire_name("t")).with_num_partitions(1).with_replication_factor(1);
    let request = ControlRequest::CreateTopics(CreateTopicsRequest::default().with_topics(vec![topic]));
    host.control.handle(ToControl::Ask { shard: ShardId(1), waiter: Waiter(3), request }, &mut outputs);
    assert!(outputs.is_empty(), "nothing is told before it is durable");
    host.control.commit(&mut host.disk, NOW, &mut outputs);
    let epoch = host.control.image().epoch;
    assert_eq!(outputs.len(), 2);
    outputs.clear();
    host.control.handle(ToControl::Applied { shard: ShardId(1), epoch }, &mut outputs);
    assert!(outputs.is_empty(), "shard 0 does not know the topic yet");
    host.control.handle(ToControl::Applied { shard: ShardId(0), epoch }, &mut outputs);
    assert!(matches!(outputs[..], [(ShardId(1), ToShard::Answer { waiter: Waiter(3), .. })]));
}

#[test]
fn a_deleted_topics_directories_go_when_all_shards_have_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), 1);
    host.create("t", 1);
    // The shard's part: the directory was made, and is renamed before the image counts as applied.
    let renamed = dir.path().join("t-0.0123-delete");
    std::fs::create_dir(&renamed).unwrap();
    std::fs::write(renamed.join("00000000000000000000.log"), b"x").unwrap();
    let state = DeleteTopicState::default().with_name(Some(wire_name("t")));
    let request = DeleteTopicsRequest::default().with_topics(vec![state]);
    let ControlAnswer::DeleteTopics(response) = host.ask(ControlRequest::DeleteTopics(request)) else { panic!() };
    assert_eq!(response.responses[0].error_code, 0);
    while host.control.tidy_up(&mut host.disk) {}
    assert!(!renamed.exists());
    assert!(host.control.image().topics.is_empty());
}

#[test]
fn a_damaged_topic_id_does_not_cost_a_topic_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), 1);
    let id = |host: &Host| identity::to_base64(host.control.image().topic("t").unwrap().id);
    host.create("t", 1);
    let old = id(&host);
    let state = DeleteTopicState::default().with_name(Some(wire_name("t")));
    host.ask(ControlRequest::DeleteTopics(DeleteTopicsRequest::default().with_topics(vec![state])));
    host.create("t", 1);
    let partition = dir.path().join("t-0");
    std::fs::create_dir(&partition).unwrap();
    let damaged = id(&host).chars().rev().collect();
    for (id, stays) in [(id(&host), true), (damaged, true), (old, false)] {
        std::fs::write(partition.join("partition.metadata"), format!("version: 0\ntopic_id: {id}")).unwrap();
        Host::start(dir.path(), 1);
        assert_eq!(partition.exists(), stays, "{id}");
    }
}

#[test]
fn a_new_topic_does_not_inherit_a_directory() {
    for topic in ["t", &"t".repeat(249)] {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(format!("{topic}-0"));
        std::fs::create_dir_all(&left).unwrap();
        std::fs::write(left.join("00000000000000000000.log"), b"old").unwrap();
        let mut host = Host::start(dir.path(), 1);
        assert!(left.exists(), "what nobody asks for stays");
        host.create(topic, 1);
        assert!(!left.exists());
        let mut names = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let stray = names.find(|name| name.ends_with("-stray")).unwrap();
        assert!(stray.starts_with("t") && stray.contains("t-0."), "{stray}");
    }
}

#[test]
fn a_new_topic_has_nothing_of_an_old_ones_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Files::new(dir.path().to_path_buf());
    let (recovery_point, log_start_offset) = (Offset(100), Some(Offset(50)));
    let log = ClosedLog { recovery_point, log_start_offset, cleaned: None, durable: true };
    let closed = ["made-anew", "other"].map(|topic| ClosedPartition { topic: topic.into(), index: 0, log });
    Checkpoints::write(&mut disk, &closed).unwrap();
    Checkpoints::take(&mut disk).unwrap();
    let mut host = Host::start(dir.path(), 1);
    host.create("made-anew", 1);
    let after_crash = Checkpoints::take(&mut disk).unwrap();
    let known = |topic| {
        let start = after_crash.start(Uuid::nil(), topic, 0);
        (start.log_start, start.recovery_point)
    };
    assert_eq!(known("made-anew"), (None, Offset(0)));
    assert_eq!(known("other"), (Some(Offset(50)), Offset(100)));
}

#[test]
fn producer_ids_never_come_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut firsts = Vec::new();
    for _ in 0..3 {
        let mut host = Host::start(dir.path(), 1);
        for _ in 0..2 {
            match host.ask(ControlRequest::AllocateProducerIds) {
                ControlAnswer::ProducerIds { first, count } => firsts.push((first, count)),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(firsts, (0..6).map(|i| (i * 1000, 1000)).collect::<Vec<_>>());
}

#[test]
fn a_torn_tail_is_cut_and_damage_in_the_middle_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), 1);
    host.create("kept", 1);
    host.create("torn", 1);
    drop(host);
    let path = dir.path().join("__cluster_metadata-0/00000000000000000000.log");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let mut host = Host::start(dir.path(), 1);
    assert!(host.control.image().topic("kept").is_some());
    assert!(host.control.image().topic("torn").is_none());
    host.create("again", 1);
    drop(host);
    let host = Host::start(dir.path(), 1);
    assert!(host.control.image().topic("again").is_some());
    drop(host);

    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let mut disk = Files::new(dir.path().to_path_buf());
    let error = Control::open(&mut disk, setup(1), NOW).err().unwrap().to_string();
    assert!(error.contains("damaged at position"), "{error}");
}

/// Every batch is synced before a topic in it takes records.
#[test]
fn a_metadata_log_without_topics_that_have_records_is_refused() {
    let whole = |bytes: &[u8]| bytes.to_vec();
    let without_last_byte = |bytes: &[u8]| bytes[..bytes.len() - 1].to_vec();
    for (damage, what) in [
        (&without_last_byte as &dyn Fn(&[u8]) -> Vec<u8>, Some("bytes are damaged")),
        (&|bytes| vec![0; bytes.len()], Some("bytes are damaged")),
        (&|_| Vec::new(), Some("it is empty")),
        (&whole, None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        Host::start(dir.path(), 1).create("t", 1);
        std::fs::create_dir(dir.path().join("t-0")).unwrap();
        let path = dir.path().join("__cluster_metadata-0/00000000000000000000.log");
        let damaged = damage(&std::fs::read(&path).unwrap());
        std::fs::write(&path, &damaged).unwrap();
        let mut disk = Files::new(dir.path().to_path_buf());
        let error = Control::open(&mut disk, setup(1), NOW).err().map(|error| error.to_string());
        match (&error, what) {
            (Some(error), Some(what)) => {
                assert!(error.contains(what) && error.contains("directories t-0:"), "{error}");
                assert_eq!(std::fs::read(&path).unwrap(), damaged, "nothing is written");
                std::fs::remove_file(&path).unwrap();
                let error = Control::open(&mut disk, setup(1), NOW).err().unwrap().to_string();
                assert!(error.contains("00000000000000000000.log: it is empty"), "{error}");
                std::fs::rename(dir.path().join("t-0"), dir.path().join("away")).unwrap();
                assert!(Control::open(&mut disk, setup(1), NOW).is_ok(), "as the message says");
            }
            (None, None) => {}
            _ => panic!("{error:?} instead of {what:?}"),
        }
    }
}

#[test]
fn a_snapshot_stands_for_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), 2);
    host.create("a", 3);
    host.create("b.c", 1);
    let before = host.control.image();
    host.control.write_snapshot(&mut host.disk, NOW);
    host.create("after", 1);
    drop(host);
    let names = std::fs::read_dir(dir.path().join("__cluster_metadata-0")).unwrap();
    let names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| name.ends_with(".log")).count(), 1, "{names:?}");
    assert_eq!(names.iter().filter(|name| name.ends_with(".checkpoint")).count(), 1, "{names:?}");
    let host = Host::start(dir.path(), 2);
    let image = host.control.image();
    assert_eq!(image.topics.keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "after", "b.c"]);
    for topic in before.topics.values() {
        assert_eq!(image.topic(&topic.name).unwrap().partitions, topic.partitions);
        assert_eq!(image.topic(&topic.name).unwrap().id, topic.id);
    }
    assert_eq!(image.features, before.features);
}

#[test]
fn min_insync_replicas_is_set_for_all_brokers_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), 2);
    let set = |host: &Host| host.control.image().dynamic_configs[&None]["min.insync.replicas"].clone();
    assert_eq!(set(&host), "1");
    let records = vec![Record::Config {
        resource_type: crate::cluster::record::RESOURCE_BROKER,
        resource_name: String::new(),
        name: "min.insync.replicas".into(),
        value: Some("3".into()),
    }];
    host.control.log.append(&mut host.disk, &records, NOW).unwrap();
    drop(host);
    assert_eq!(set(&Host::start(dir.path(), 2)), "3");
}

/// A broker that does not start on a full disk cannot be told to delete anything.
#[test]
fn what_a_start_notes_waits_for_room() {
    let sim = Sim::new(1);
    let start = || {
        let mut disk = sim.clone();
        let control = Control::open(&mut disk, setup(1), NOW).unwrap();
        Host { control, disk }
    };
    assert_eq!(start().create("before", 1).topics[0].error_code, 0);
    sim.set_disk_full(true);
    for _ in 0..2 {
        let mut host = start();
        assert!(host.control.image().topic("before").is_some());
        assert_eq!(host.create("refused", 1).topics[0].error_code, ErrorCode::KafkaStorageError.code());
    }
    let mut host = start();
    sim.set_disk_full(false);
    assert_eq!(host.create("after", 1).topics[0].error_code, 0);
    assert_eq!(host.control.log.next_offset().0, host.control.image().metadata_offset + 1);
    let (end, image) = (host.control.log.next_offset(), start().control.image());
    assert!(image.topic("after").is_some() && image.topic("refused").is_none());
    assert!(image.metadata_offset > end.0, "no offset is missing between what waited and what came then");
}

#[test]
fn another_nodes_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("meta.properties"), "version=1\nnode.id=5\ncluster.id=x\n").unwrap();
    let mut disk = Files::new(dir.path().to_path_buf());
    let error = Control::open(&mut disk, setup(1), NOW).err().unwrap().to_string();
    assert!(error.contains("belongs to node 5") && error.contains("set node.id=5"), "{error}");
}
#[test]
fn what_apache_kafka_wrote_is_understood() {
    // The first records of a node of Apache Kafka 4.3: bootstrap, its broker, topic t1 with three partitions.
    let golden = include_bytes!("../../tests/golden/kafka-4.3-metadata/00000000000000000000.log");
    let dir = tempfile::tempdir().unwrap();
    let metadata = dir.path().join("__cluster_metadata-0");
    std::fs::create_dir(&metadata).unwrap();
    std::fs::write(metadata.join("00000000000000000000.log"), golden).unwrap();
    let identity = "version=1\nnode.id=1\ncluster.id=TH70CdSoTxynN1Dmj0_3ow\ndirectory.id=E4JKmKL4xRctodj7OYNCtA\n";
    std::fs::write(dir.path().join("meta.properties"), identity).unwrap();

    let mut host = Host::start(dir.path(), 2);
    let image = host.control.image();
    let topic = image.topic("t1").unwrap();
    assert_eq!(identity::to_base64(topic.id), "DVZK1tLmS2iZ50ZRthrc0A");
    assert_eq!(topic.config.retention_ms, Some(1_234_567));
    assert_eq!(image.features["metadata.version"], 30);
    assert_eq!(&*image.cluster_id, "TH70CdSoTxynN1Dmj0_3ow");
    let mut leaders = host.leaders("t1");
    leaders.sort();
    assert_eq!(leaders, [1, 1, 2]);
    assert_eq!(host.create("t1", 1).topics[0].error_code, ErrorCode::TopicAlreadyExists.code());
    drop(host);
    assert_eq!(Host::start(dir.path(), 1).leaders("t1"), [1, 1, 1]);
}
