//! What a Linux host offers a Ringlane broker, and what it holds back.
//!
//! A *knob* (one file in `knobs/`) reads the host and says, per item, what it found and what it would like to find. It
//! never writes: `apply` alone does, and only after the value that was there has been saved by `state`, from which `undo`
//! works. The kernel is reached through `host` only, live or as a copied tree.
//!
//! The load generator stores `check_host` in every run file.

pub mod apply;
pub mod cpus;
pub mod deployment;
pub mod ethtool;
pub mod findings;
pub mod host;
pub mod knob;
pub mod knobs;
pub mod mounts;
pub mod netlink;
pub mod place;
pub mod plan;
pub mod script;
pub mod state;

pub use deployment::{Deployment, Profile};
pub use findings::{Finding, check_host};
pub use host::Host;
pub use knob::Verdict;
