//! Configuration: Kafka's property names and defaults, checked once, then plain typed fields.
//!
//! `Settings` is what a file and the command line set; `BrokerConfig` and `TopicConfig` are what the broker reads.

pub mod broker;
pub mod topic;

pub use broker::{BatchValidation, BrokerConfig, FetchPath, GroupConfig, OffsetsConfig, SocketConfig};
pub use topic::{TimestampType, TopicConfig};

use std::collections::BTreeMap;

/// Properties that were set, by name: all known, all valid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<&'static str, String>,
}

impl Settings {
    /// The value a property was set to.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}
