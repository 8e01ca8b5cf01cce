//! One clock for a whole run: nanoseconds since the run began, monotonic, convertible to Unix time.
//! All workers share it by copy, so that times taken by different workers can be subtracted.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    origin_unix_ns: u64,
}

/// Nanoseconds since the run began.
pub type Nanos = u64;

pub const SECOND: Nanos = 1_000_000_000;

impl Clock {
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { origin: Instant::now(), origin_unix_ns: unix.as_nanos() as u64 }
    }
    pub fn now(&self) -> Nanos {
        self.origin.elapsed().as_nanos() as u64
    }
    pub fn unix_ns(&self, at: Nanos) -> u64 {
        self.origin_unix_ns + at
    }
    pub fn unix_ms(&self, at: Nanos) -> i64 {
        (self.unix_ns(at) / 1_000_000) as i64
    }
}
