//! When the next request is due. Closed loop: as soon as the window has room. Open loop: at fixed intended times,
//! counted in records, whether or not the broker keeps up; a late request keeps its intended time.

use crate::clock::{Nanos, SECOND};

pub enum Pacer {
    Closed,
    Open { start: Nanos, records_per_second: f64, issued: u64 },
}

impl Pacer {
    /// Open loop at a rate; `None` means closed loop.
    pub fn new(records_per_second: Option<f64>, start: Nanos) -> Self {
        match records_per_second {
            None => Pacer::Closed,
            Some(records_per_second) => Pacer::Open { start, records_per_second, issued: 0 },
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self, Pacer::Open { .. })
    }

    /// The intended time of the next request of `records` records: the time at which its last record exists.
    pub fn intended(&self, now: Nanos, records: u64) -> Nanos {
        match self {
            Pacer::Closed => now,
            Pacer::Open { start, records_per_second, issued } => {
                start + ((issued + records) as f64 / records_per_second * SECOND as f64) as Nanos
            }
        }
    }

    /// A request of `records` records was handed out.
    pub fn issue(&mut self, records: u64) {
        if let Pacer::Open { issued, .. } = self {
            *issued += records;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_loop_keeps_intended_times_when_late() {
        let mut pacer = Pacer::new(Some(1000.0), 5 * SECOND);
        assert_eq!(pacer.intended(9 * SECOND, 10), 5 * SECOND + SECOND / 100);
        pacer.issue(10);
        assert_eq!(pacer.intended(9 * SECOND, 10), 5 * SECOND + SECOND / 50);
    }
}
