//! One simulated host: a shard and the control thread's work, driven by hand in one thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use ringlane::broker::Broker;
use ringlane::config::{BrokerConfig, Settings};
use ringlane::control::{Control, Outputs, Setup, ShardAddress};
use ringlane::ids::{ShardId, Waiter};
use ringlane::io::sim::{Keep, Sim};
use ringlane::io::{Event, Ring};
use ringlane::mailbox::{ControlRequest, Post, ToControl, ToShard, mailboxes};
use ringlane::shard::Shard;
use ringlane::storage::data_dir::Checkpoints;

/// A host that runs.
pub struct Host {
    pub sim: Sim,
    shard: Shard<Sim>,
    control: Control,
    incoming: Receiver<ToControl>,
    post: Post<ToShard>,
    events: Vec<Event>,
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    for (key, value) in [
        ("listeners", "PLAINTEXT://127.0.0.1:9092"),
        ("log.dirs", "sim"),
        ("log.retention.ms", "-1"),
        ("log.index.interval.bytes", "1024"),
    ] {
        settings.set(key, value).expect("a known key");
    }
    settings
}

impl Host {
    /// A host with an empty disk.
    pub fn start(seed: u64) -> Host {
        Host::start_on(Sim::new(seed))
    }

    fn start_on(sim: Sim) -> Host {
        let mut disk = sim.clone();
        let now = sim.now();
        let checkpoints = Arc::new(Checkpoints::take(&mut disk).expect("checkpoints"));
        let settings = Arc::new(settings());
        let config = Arc::new(BrokerConfig::from_settings(&settings).expect("settings"));
        let ids = sim.clone();
        let setup = Setup {
            settings,
            config,
            shards: vec![ShardAddress { host: "127.0.0.1".into(), port: 9092 }],
            new_id: Box::new(move || {
                uuid::Uuid::from_u64_pair(ids.random_below(u64::MAX), 1 << 63 | ids.random_below(1 << 60))
            }),
        };
        let control = Control::open(&mut disk, setup, now).expect("control");
        let (mut ends, queues, incoming, _) = mailboxes(1);
        let bell = sim.bell();
        let queue = queues.into_iter().next().expect("one shard");
        let post = Post::new(queue, Box::new(move || bell.ring()));
        let mut broker = Broker::new(ShardId(0), &control.image(), checkpoints);
        broker.apply_image(&mut disk, control.image(), now);
        let mut shard = Shard::new(sim.clone(), broker, ends.remove(0));
        shard.listen("127.0.0.1:9092".parse().expect("an address")).expect("listening");
        Host { sim, shard, control, incoming, post, events: Vec::new() }
    }

    /// One turn of the shard's loop, then the control thread's work.
    pub fn turn(&mut self) {
        self.shard.turn(&mut self.events).expect("the simulated ring does not fail");
        self.control_turn(VecDeque::new());
    }

    fn control_turn(&mut self, mut messages: VecDeque<ToControl>) {
        messages.extend(self.incoming.try_iter());
        if messages.is_empty() {
            return;
        }
        let mut outputs = Outputs::new();
        for message in messages {
            self.control.handle(message, &mut outputs);
        }
        let mut disk = self.sim.clone();
        self.control.commit(&mut disk, self.sim.now(), &mut outputs);
        for (_, message) in outputs {
            let _ = self.post.send(message);
        }
        while self.control.tidy_up(&mut disk) {}
    }

    /// Deletes a topic. The shard hears of it, and of what comes after it, later.
    pub fn delete_topic(&mut self, name: &str) {
        let names = vec![TopicName(StrBytes::from_string(name.to_string()))];
        let request = ControlRequest::DeleteTopics(DeleteTopicsRequest::default().with_topic_names(names));
        let ask = ToControl::Ask { shard: ShardId(0), waiter: Waiter(u64::MAX), request };
        self.control_turn(VecDeque::from([ask]));
    }

    /// Creates a topic and waits until the shard has it.
    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let string = |s: &str| StrBytes::from_string(s.to_string());
        let config = |(key, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(string(key)).with_value(Some(string(value)))
        };
        let topic = CreatableTopic::default()
            .with_name(TopicName(string(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.iter().map(config).collect());
        let request = ControlRequest::CreateTopics(CreateTopicsRequest::default().with_topics(vec![topic]));
        let ask = ToControl::Ask { shard: ShardId(0), waiter: Waiter(u64::MAX), request };
        self.control_turn(VecDeque::from([ask]));
        let epoch = self.control.image().epoch;
        for _ in 0..1000 {
            if self.shard.broker().image.epoch >= epoch {
                return;
            }
            self.turn();
        }
        panic!("topic {name} was not created");
    }

    /// Stops in good order and starts again.
    pub fn stop_and_start(mut self) -> Host {
        self.post.send(ToShard::Stop).expect("the shard runs");
        for _ in 0..100_000 {
            if self.shard.is_stopped() {
                let closed = self.shard.take_closed().expect("every log closes in good order");
                let mut disk = self.sim.clone();
                Checkpoints::write(&mut disk, &closed).expect("checkpoints");
                let sim = self.sim.crash(Keep::Everything);
                return Host::start_on(sim);
            }
            self.turn();
        }
        panic!("the shard does not stop");
    }

    /// Dies from one moment to the next and starts again.
    pub fn kill_and_start(self, keep: Keep) -> Host {
        let sim = self.sim.crash(keep);
        drop(self);
        Host::start_on(sim)
    }
}
