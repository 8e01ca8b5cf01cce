//! What the interop tests stand on: processes under a deadline, client packages installed once, a broker to talk to.
//!
//! A test fails only for what a client saw: every wait here has a deadline of minutes, installs are retried, ports are
//! free ones, and data lives in a temporary directory.

#![allow(dead_code)] // Until the remaining clients use it.

pub mod broker;
pub mod client;
pub mod install;
pub mod process;

use std::time::Duration;

/// How long one script of a client may take. Far above what any needs: it is there to end a hang, not to measure.
pub const SCRIPT_MAX: Duration = Duration::from_secs(300);

/// How long a condition that several processes bring about together may take to become true.
pub const CONDITION_MAX: Duration = Duration::from_secs(180);
