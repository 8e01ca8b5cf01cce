//! Ringlane: a Kafka-compatible broker in which every core is a broker.
//!
//! Layers, top to bottom; a module uses only what is below it:
//!
//! ```text
//! cli                      commands: start the broker
//! shard      control       the two kinds of thread
//! mailbox                  the only thing both threads touch
//! api                      one file per Kafka API, acting on a Broker
//! broker                   what one core owns
//! group  partition  cluster    what it knows and decides; decisions are pure
//! storage                  logs on disk
//! wire   io                bytes / kernel
//! ids   parts   limits     words / what a reply is made of / bounds
//! ```

pub mod api;
pub mod broker;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod group;
pub mod ids;
pub mod io;
pub mod limits;
pub mod mailbox;
pub mod partition;
pub mod parts;
pub mod shard;
pub mod storage;
pub mod wire;
