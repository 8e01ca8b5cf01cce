//! The cluster: what exists (topics, partitions, brokers, configuration) and how a request changes it. Everything is a
//! pure function of the metadata records; nothing waits, reads a clock or touches a file.

pub mod configs;
pub mod features;
pub mod fold;
pub mod image;
pub mod placement;
pub mod record;
pub mod snapshot;
pub mod topics;

use std::collections::BTreeSet;

use crate::wire::error_code::ErrorCode;

/// Why a part of a request is refused: Kafka's error code and its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The code.
    pub code: ErrorCode,
    /// The sentence.
    pub message: Option<String>,
}

/// Refuses with a sentence.
pub fn refused(code: ErrorCode, message: impl Into<String>) -> Refused {
    Refused { code, message: Some(message.into()) }
}

/// The keys that come more than once.
fn repeated<K: Ord + Clone>(keys: impl Iterator<Item = K>) -> BTreeSet<K> {
    let mut seen = BTreeSet::new();
    keys.filter(|key| !seen.insert(key.clone())).collect()
}
