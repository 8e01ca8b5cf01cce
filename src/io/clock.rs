//! The only place that reads clocks. Everyone else is given `Now`.

use crate::ids::Now;

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing; the two clocks asked for exist on every Linux.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(result, 0, "clock_gettime");
    time
}

/// The time, monotonic and wall.
pub fn now() -> Now {
    let wall = read(libc::CLOCK_REALTIME);
    Now { monotonic_ns: monotonic_ns(), wall_ms: wall.tv_sec * 1000 + wall.tv_nsec / 1_000_000 }
}

/// Nanoseconds of the clock that never goes back.
pub fn monotonic_ns() -> u64 {
    let time = read(libc::CLOCK_MONOTONIC);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_goes_on() {
        let (a, b) = (super::now(), super::now());
        assert!(a.monotonic_ns <= b.monotonic_ns);
        assert!(a.wall_ms > 1_600_000_000_000, "{}", a.wall_ms);
    }
}
