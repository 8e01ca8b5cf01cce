//! What the interop tests stand on: processes under a deadline, client packages installed once, a broker to talk to.
//!
//! A test fails only for what a client saw: every wait here has a deadline of minutes, installs are retried, ports are
//! free ones, and data lives in a temporary directory.

pub mod broker;
pub mod client;
pub mod install;
pub mod process;

use std::thread;
use std::time::{Duration, Instant};

/// How long one script of a client may take. Far above what any needs: it is there to end a hang, not to measure.
pub const SCRIPT_MAX: Duration = Duration::from_secs(300);

/// How long a condition that several processes bring about together may take to become true.
pub const CONDITION_MAX: Duration = Duration::from_secs(240);

/// Repeats a probe until it holds: for what a broker does after it has answered. A probe that starts a JVM may take most
/// of the time on a busy machine, so that a number of them is granted in any case.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + CONDITION_MAX;
    let mut probes = 0;
    while !holds() {
        probes += 1;
        assert!(Instant::now() < deadline || probes < 10, "{what}: not within {CONDITION_MAX:?}");
        thread::sleep(Duration::from_millis(100));
    }
}
