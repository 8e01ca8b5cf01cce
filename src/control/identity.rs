//! `meta.properties`: whose data directory this is. Written once, as Kafka writes it; a directory that Apache Kafka
//! formatted keeps its cluster id.

use std::io;
use std::path::Path;

use uuid::Uuid;

use super::metadata_log;
use crate::ids::NodeId;
use crate::io::disk::{Disk, Job};

const FILE: &str = "meta.properties";
/// What helps a directory whose cluster's id is lost.
const CLUSTER_ID_REMEDY: &str = "restore it, or remove the file: the next start makes one, with another cluster id";

/// Who the data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the cluster.
    pub cluster_id: String,
    /// Id of this directory.
    pub directory: Uuid,
}

/// Why the directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk failed.
    #[error("meta.properties cannot be read or written")]
    Io(#[from] io::Error),
    /// Another node's directory.
    #[error(
        "meta.properties: the data directory belongs to node {stored}, this is node {configured}; set node.id={stored} or use another directory"
    )]
    OtherNode {
        /// Who wrote it.
        stored: i32,
        /// Who reads it.
        configured: i32,
    },
    /// Not a file of this kind: what is wrong, and what to do about it.
    #[error("meta.properties: {0}")]
    Malformed(String),
}

impl Identity {
    /// Reads it, or makes one with `new_id` and writes it.
    pub fn load(
        disk: &mut dyn Disk,
        node: NodeId,
        new_id: &mut dyn FnMut() -> Uuid,
    ) -> Result<Identity, IdentityError> {
        let bytes = match disk.read_file(Path::new(FILE)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if disk.list(Path::new(metadata_log::DIRECTORY)).is_ok() {
                    log::warn!("{FILE} is missing: a new one is made, with another cluster id");
                }
                let identity = Identity { cluster_id: to_base64(new_id()), directory: new_id() };
                identity.store(disk, node)?;
                return Ok(identity);
            }
            Err(e) => return Err(e.into()),
        };
        let mut identity = Identity { cluster_id: String::new(), directory: Uuid::nil() };
        for line in java_properties::PropertiesIter::new(bytes.as_slice()) {
            let line = line.map_err(|_| malformed(format!("it is not a properties file; {CLUSTER_ID_REMEDY}")))?;
            let java_properties::LineContent::KVPair(key, value) = line.content() else { continue };
            match key.as_str() {
                "cluster.id" => identity.cluster_id = value.clone(),
                "directory.id" => {
                    let remedy = "restore it, or remove its line: the next start makes one";
                    let not_an_id = || malformed(format!("directory.id={value} is not an id; {remedy}"));
                    identity.directory = from_base64(value).ok_or_else(not_an_id)?;
                }
                "node.id" | "broker.id" if *value != node.0.to_string() => {
                    let remedy = format!("write {key}={node} if this node's data is here");
                    let not_a_number = |_| malformed(format!("{key}={value} is not a number; {remedy}"));
                    let stored = value.parse().map_err(not_a_number)?;
                    return Err(IdentityError::OtherNode { stored, configured: node.0 });
                }
                _ => {}
            }
        }
        if identity.cluster_id.is_empty() {
            return Err(malformed(format!("cluster.id is missing; {CLUSTER_ID_REMEDY}")));
        }
        if identity.directory.is_nil() {
            identity.directory = new_id();
            identity.store(disk, node)?;
        }
        Ok(identity)
    }

    fn store(&self, disk: &mut dyn Disk, node: NodeId) -> io::Result<()> {
        let text = format!(
            "version=1\ncluster.id={}\nnode.id={node}\ndirectory.id={}\n",
            self.cluster_id,
            to_base64(self.directory)
        );
        disk.run(Job::Replace { path: FILE.into(), bytes: text.into_bytes(), sync: true })
    }
}

fn malformed(what: String) -> IdentityError {
    IdentityError::Malformed(what)
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A uuid as Kafka writes it: 22 characters of base64 for URLs.
pub fn to_base64(id: Uuid) -> String {
    let bits = id.as_u128();
    // 21 digits of 6 bits, then the last 2 bits with 4 zeros after them.
    let full = (0..21).map(|i| (bits >> (122 - 6 * i)) as usize & 63);
    full.chain([(bits << 4) as usize & 63]).map(|digit| char::from(DIGITS[digit])).collect()
}

/// The reverse of `to_base64`.
pub fn from_base64(text: &str) -> Option<Uuid> {
    let mut bits: u128 = 0;
    let digits = text.as_bytes();
    let digit = |byte: &u8| DIGITS.iter().position(|d| d == byte).map(|d| d as u128);
    let (last, full) = digits.split_last().filter(|(_, full)| full.len() == 21)?;
    for byte in full {
        bits = bits << 6 | digit(byte)?;
    }
    Some(Uuid::from_u128(bits << 2 | digit(last)? >> 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_kafkas() {
        assert_eq!(to_base64(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        let id = from_base64("DVZK1tLmS2iZ50ZRthrc0A").unwrap();
        assert_eq!(id.to_string(), "0d564ad6-d2e6-4b68-99e7-4651b61adcd0");
        assert_eq!(to_base64(id), "DVZK1tLmS2iZ50ZRthrc0A");
        assert_eq!(from_base64("short"), None);
        assert_eq!(from_base64("!!!!!!!!!!!!!!!!!!!!!!"), None);
    }
}
