//! Configuration: Kafka's property names and defaults, checked once, then plain typed fields.
//!
//! `Settings` is what a file and the command line set; `BrokerConfig` and `TopicConfig` are what the broker reads.

pub mod broker;
pub mod keys;
pub mod layers;
pub mod settings;
pub mod topic;

pub use broker::{BatchValidation, BrokerConfig, FetchPath, GroupConfig, OffsetsConfig, SocketConfig};
pub use layers::{Layers, Source};
pub use settings::{ConfigError, Place, Settings};
pub use topic::{Compression, TimestampType, TopicConfig};
