//! The protocol surface: one table of what is served, one file per API.
//!
//! A handler is a plain function on the `Broker`: `fn(&mut Context, &Request) -> Outcome`. It never waits and never sees a
//! socket. What cannot be answered yet is `Later` (somebody calls `Broker::answer` with the request's `ReplyTo`) or
//! `Ask` (the control thread answers, and `Finish` turns its answer into the reply).
//! Dispatch, ApiVersions and COMPAT.md all come from `APIS`, so they cannot disagree.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::Encodable;

use crate::broker::Broker;
use crate::cluster::image::ClusterImage;
use crate::ids::{FetchWaitId, NodeId, Now};
use crate::io::disk::Disk;
use crate::mailbox::{ControlAnswer, ControlRequest};
use crate::parts::Reply;
use crate::wire::reader::DecodeError;
use crate::wire::routing::NodeEndpoint;

mod table;
mod topology;

pub mod acls;
pub mod alter_configs;
pub mod alter_partition_reassignments;
pub mod alter_replica_log_dirs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_client_quotas;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod describe_user_scram_credentials;
pub mod elect_leaders;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sync_group;
pub mod update_features;

pub use crate::ids::ReplyTo;
pub use table::{APIS, find};

/// One API as served.
#[derive(Clone, Copy)]
pub struct Api {
    /// Kafka's key and name.
    pub key: ApiKey,
    /// Versions served: exactly what works.
    pub versions: (i16, i16),
    /// What answers it.
    pub handler: Handler,
}

impl Api {
    /// Versions served.
    pub fn versions(&self) -> RangeInclusive<i16> {
        self.versions.0..=self.versions.1
    }
}

/// The two hot messages have codecs of their own and work on the received bytes in place; everything else is decoded.
#[derive(Clone, Copy)]
pub enum Handler {
    /// `produce::handle`
    Produce,
    /// `fetch::handle`
    Fetch,
    /// Any other.
    Plain(fn(&mut Context<'_>, &Request<'_>) -> Outcome),
}

/// What a handler may use.
pub struct Context<'a> {
    /// What this core owns.
    pub broker: &'a mut Broker,
    /// The data directory.
    pub disk: &'a mut dyn Disk,
    /// The time of this turn of the loop.
    pub now: Now,
    /// The client's address.
    pub peer: SocketAddr,
}

/// A request whose header has been read.
pub struct Request<'a> {
    /// Where the reply goes.
    pub to: ReplyTo,
    /// The client's name for itself, "" if it has none.
    pub client_id: &'a str,
    /// The bytes after the header.
    pub body: &'a [u8],
}

impl Request<'_> {
    /// Decodes the body after its structure was checked (no allocation by a length that the peer claims).
    pub fn decode<M: kafka_protocol::protocol::Request>(&self) -> Result<M, DecodeError> {
        crate::wire::messages::decode(self.body, self.to.version)
    }
}

/// What a handler wants to happen.
pub enum Outcome {
    /// The reply is ready.
    Reply(Reply),
    /// No reply at all (acks=0).
    Silent,
    /// The reply comes by `Broker::answer`. `Some`: a parked fetch that is forgotten when its connection closes.
    Later(Option<FetchWaitId>),
    /// A produce request that is not through yet: to be gone on with (`produce::go_on`) in a later turn.
    PutOff(Box<produce::UnderWay>),
    /// The control thread is asked; its answer is turned into the reply by `Finish`.
    Ask(ControlRequest, Finish),
    /// The connection is closed without a reply (an error under acks=0).
    Close,
    /// The request was malformed: the connection is closed.
    Malformed(DecodeError),
}

/// Turns the control thread's answer into the outcome.
pub type Finish = fn(&mut Context<'_>, ReplyTo, ControlAnswer) -> Outcome;

impl Context<'_> {
    /// A reply of a kafka-protocol message.
    pub fn reply<M: Encodable>(&mut self, to: ReplyTo, message: &M) -> Outcome {
        Outcome::Reply(self.broker.encode_reply(to, message))
    }
}

/// A client's address as group members show it: Java prints one with a slash before it.
pub fn client_host(peer: SocketAddr) -> String {
    format!("/{}", peer.ip().to_canonical())
}

/// Where a node listens, for replies that name new leaders.
pub fn endpoint(image: &ClusterImage, node: NodeId) -> Option<NodeEndpoint<'_>> {
    let broker = image.brokers.get(&node)?;
    Some(NodeEndpoint { node, host: &broker.host, port: i32::from(broker.port), rack: broker.rack.as_deref() })
}

/// Decodes a request's body or returns `Outcome::Malformed` from the handler.
#[macro_export]
macro_rules! decode_or_close {
    ($request:expr) => {
        match $request.decode() {
            Ok(message) => message,
            Err(error) => return $crate::api::Outcome::Malformed(error),
        }
    };
}
