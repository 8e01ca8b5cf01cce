//! What the user says about one deployment. Everything left out is found out from the host by `plan`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How far the tuner may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The host is there for the broker.
    #[default]
    Production,
    /// The host is somebody's desk: only what costs other programs nothing.
    Dev,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Deployment {
    /// The interface clients come in by. Left out: the one with the default route.
    pub nic: Option<String>,
    /// The whole disk, such as `nvme0n1`. Left out: the one under `data_dir`.
    pub disk: Option<String>,
    /// Cores with a shard, in shard order. Left out: every core that is online.
    pub cores: Option<Vec<usize>>,
    /// Shard `i` listens on `port + i`.
    pub port: u16,
    pub data_dir: PathBuf,
    pub profile: Profile,
}

impl Default for Deployment {
    fn default() -> Deployment {
        Deployment {
            nic: None,
            disk: None,
            cores: None,
            port: 9092,
            data_dir: PathBuf::from("/var/lib/ringlane"),
            profile: Profile::Production,
        }
    }
}
