//! The only path between threads: images and answers go down to the shards, admin requests and acknowledgements of
//! images up to the control thread. A message is put into the receiver's queue, then its bell is rung.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, TryRecvError};
use std::time::Duration;

use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, FindCoordinatorRequest,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, MetadataRequest, UpdateFeaturesRequest,
    UpdateFeaturesResponse,
};

use crate::cluster::image::ClusterImage;
use crate::ids::{ShardId, TopicName, Waiter};

/// What a shard is told.
#[derive(Debug)]
pub enum ToShard {
    /// The cluster has changed: take this image, apply it, then say `ToControl::Applied`.
    Image(Arc<ClusterImage>),
    /// The answer to an earlier `ToControl::Ask`. Every shard has applied its effects by now.
    Answer {
        /// As given with the request.
        waiter: Waiter,
        /// The answer.
        answer: ControlAnswer,
    },
    /// Finish what is in flight, sync, mark the logs clean and end.
    Stop,
}

/// What the control thread is told.
#[derive(Debug)]
pub enum ToControl {
    /// A shard passes on a request that changes the cluster.
    Ask {
        /// Who asks.
        shard: ShardId,
        /// Given back with the answer.
        waiter: Waiter,
        /// What is asked.
        request: ControlRequest,
    },
    /// A shard has applied the image of this epoch: it opened partitions it leads now, and let go of those it does not
    /// (their directories are renamed `<topic>-<partition>.<uuid>-delete` when the topic is gone).
    Applied {
        /// Which shard.
        shard: ShardId,
        /// The image's epoch.
        epoch: u64,
    },
    /// A shard has ended in good order.
    Stopped {
        /// Which shard.
        shard: ShardId,
    },
    /// All shards have ended (or will not): end too.
    Stop,
}

/// Requests that change the cluster. They are Kafka's own messages wherever there is one.
#[derive(Clone, Debug)]
pub enum ControlRequest {
    /// CreateTopics.
    CreateTopics(CreateTopicsRequest),
    /// DeleteTopics.
    DeleteTopics(DeleteTopicsRequest),
    /// CreatePartitions.
    CreatePartitions(CreatePartitionsRequest),
    /// AlterConfigs.
    AlterConfigs(AlterConfigsRequest),
    /// IncrementalAlterConfigs.
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest),
    /// UpdateFeatures.
    UpdateFeatures {
        /// The request.
        request: UpdateFeaturesRequest,
        /// Its version: fields mean different things.
        version: i16,
    },
    /// Topics that a Metadata (or FindCoordinator) request names and that do not exist: create them with default
    /// settings. Internal topics get the settings of their kind.
    AutoCreateTopics {
        /// Their names.
        names: Vec<TopicName>,
        /// The request that named them, given back with the answer: it is answered once they are there.
        cause: Cause,
    },
    /// A block of producer ids for this shard to hand out.
    AllocateProducerIds,
}

/// What made a topic come into being by itself.
#[derive(Clone, Debug)]
pub enum Cause {
    /// A client asked where it is.
    Metadata(MetadataRequest),
    /// A client asked for its coordinator.
    FindCoordinator(FindCoordinatorRequest),
}

/// Answers, one for each kind of request.
#[derive(Clone, Debug)]
pub enum ControlAnswer {
    /// CreateTopics.
    CreateTopics(CreateTopicsResponse),
    /// DeleteTopics.
    DeleteTopics(DeleteTopicsResponse),
    /// CreatePartitions.
    CreatePartitions(CreatePartitionsResponse),
    /// AlterConfigs.
    AlterConfigs(AlterConfigsResponse),
    /// IncrementalAlterConfigs.
    IncrementalAlterConfigs(IncrementalAlterConfigsResponse),
    /// UpdateFeatures.
    UpdateFeatures(UpdateFeaturesResponse),
    /// Topics that did not exist: created now, or why not.
    AutoCreatedTopics {
        /// Name and Kafka's error code; 0: it is in the image now.
        topics: Vec<(TopicName, i16)>,
        /// As given with the request.
        cause: Cause,
    },
    /// Producer ids `first .. first + count` are this shard's.
    ProducerIds {
        /// First one.
        first: i64,
        /// How many.
        count: i32,
    },
    /// Producer ids could not be given out: the metadata log cannot be written.
    Failed {
        /// Kafka's error code.
        error: i16,
    },
}

impl ControlAnswer {
    /// The same with an error wherever it said that something was done: it could not be made durable.
    pub fn refused(mut self, error: i16) -> ControlAnswer {
        fn refuse<'a>(codes: impl Iterator<Item = &'a mut i16>, error: i16) {
            codes.filter(|code| **code == 0).for_each(|code| *code = error);
        }
        match &mut self {
            ControlAnswer::CreateTopics(r) => refuse(r.topics.iter_mut().map(|t| &mut t.error_code), error),
            ControlAnswer::DeleteTopics(r) => refuse(r.responses.iter_mut().map(|t| &mut t.error_code), error),
            ControlAnswer::CreatePartitions(r) => refuse(r.results.iter_mut().map(|t| &mut t.error_code), error),
            ControlAnswer::AlterConfigs(r) => refuse(r.responses.iter_mut().map(|t| &mut t.error_code), error),
            ControlAnswer::IncrementalAlterConfigs(r) => {
                refuse(r.responses.iter_mut().map(|t| &mut t.error_code), error)
            }
            ControlAnswer::UpdateFeatures(r) => {
                refuse(std::iter::once(&mut r.error_code), error);
                r.results.clear();
            }
            // What was to be created is just not there.
            ControlAnswer::AutoCreatedTopics { .. } | ControlAnswer::Failed { .. } => {}
            ControlAnswer::ProducerIds { .. } => return ControlAnswer::Failed { error },
        }
        self
    }
}

/// Wakes a thread that may be asleep in its ring. Harmless when it is awake.
pub type Ring = Box<dyn Fn() + Send>;

/// A queue to a thread, with its bell.
pub struct Post<T> {
    queue: Sender<T>,
    ring: Ring,
}

impl<T> Post<T> {
    /// Puts messages into `queue` and rings `ring` after each.
    pub fn new(queue: Sender<T>, ring: Ring) -> Post<T> {
        Post { queue, ring }
    }

    /// Sends a message. An error gives it back: the receiver has ended.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.queue.send(message)?;
        (self.ring)();
        Ok(())
    }
}

/// A shard's end: what it is told, and where it asks. The control thread sleeps on its queue and needs no bell.
pub struct ShardMailbox {
    /// The shard.
    pub shard: ShardId,
    incoming: Receiver<ToShard>,
    control: Sender<ToControl>,
}

impl ShardMailbox {
    /// The next message, if there is one. Losing the control thread reads as `Stop`.
    pub fn take(&self) -> Option<ToShard> {
        match self.incoming.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(ToShard::Stop),
        }
    }

    /// Start-up: waits for a message.
    pub fn wait(&self, timeout: Duration) -> Option<ToShard> {
        match self.incoming.recv_timeout(timeout) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(ToShard::Stop),
        }
    }

    /// Passes a request to the control thread. `false`: it has ended, there will be no answer.
    pub fn ask(&self, waiter: Waiter, request: ControlRequest) -> bool {
        self.control.send(ToControl::Ask { shard: self.shard, waiter, request }).is_ok()
    }

    /// Says that an image has been applied.
    pub fn applied(&self, epoch: u64) {
        let _ = self.control.send(ToControl::Applied { shard: self.shard, epoch });
    }

    /// Says that this shard has ended in good order.
    pub fn stopped(&self) {
        let _ = self.control.send(ToControl::Stopped { shard: self.shard });
    }
}

/// Mailboxes for `count` shards: the shards' ends, the queues to the shards (give each its bell by `Post::new`),
/// and the control thread's queue with a sender for whoever wants to stop it.
pub fn mailboxes(count: u16) -> (Vec<ShardMailbox>, Vec<Sender<ToShard>>, Receiver<ToControl>, Sender<ToControl>) {
    let (control, control_incoming) = std::sync::mpsc::channel();
    let (ends, queues) = (0..count)
        .map(|shard| {
            let (queue, incoming) = std::sync::mpsc::channel();
            (ShardMailbox { shard: ShardId(shard), incoming, control: control.clone() }, queue)
        })
        .unzip();
    (ends, queues, control_incoming, control)
}
