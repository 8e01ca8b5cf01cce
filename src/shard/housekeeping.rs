//! What is done between turns because its time has come: retention and write-back of logs, idle connections, files that
//! readers have let go of, and the steps of stopping. In slices, so that no turn grows long.

use super::Shard;
use crate::config::BrokerConfig;
use crate::ids::Now;
use crate::io::Ring;
use crate::io::disk::Disk;

/// Logs looked after in one turn.
const LOGS_PER_TURN: usize = 64;
/// How often readers' acknowledgements are asked for while a log waits for them.
const ACKNOWLEDGED_EVERY_NS: u64 = 5_000_000;
/// How often idle connections are looked for.
const IDLE_EVERY_NS: u64 = 5_000_000_000;
/// `log.initial.task.delay.ms`: the first retention check comes so long after the start.
const INITIAL_TASK_DELAY_NS: u64 = 30_000_000_000;
/// How long a stop waits for replies that are under way.
const STOP_WAIT_NS: u64 = 2_000_000_000;
/// How much longer a stop waits for disk jobs.
const STOP_JOBS_WAIT_NS: u64 = 30_000_000_000;
/// How long compaction works at a stretch.
const COMPACTION_NS: u64 = 50_000;
/// Longest sleep of the loop.
const SLEEP_MAX_NS: u64 = 1_000_000_000;
/// Sleep while a connection waits for memory.
const STARVED_SLEEP_NS: u64 = 5_000_000;

/// When things are due (monotonic ns; `u64::MAX`: never).
pub struct Timers {
    acknowledged_ns: u64,
    idle_ns: u64,
    stop_ns: u64,
    retention_ns: u64,
    retention_every_ns: u64,
    /// Slot that the retention check under way has come to.
    retention_at: usize,
}

impl Timers {
    pub(super) fn new(config: &BrokerConfig, now: Now) -> Timers {
        Timers {
            retention_ns: now.monotonic_ns + INITIAL_TASK_DELAY_NS,
            retention_every_ns: config.retention_check_interval_ms.saturating_mul(1_000_000),
            retention_at: 0,
            acknowledged_ns: u64::MAX,
            idle_ns: now.monotonic_ns + IDLE_EVERY_NS,
            stop_ns: u64::MAX,
        }
    }
    pub(super) fn stop(&mut self, now: Now) {
        self.stop_ns = now.monotonic_ns + STOP_WAIT_NS;
    }
    fn next(&self) -> u64 {
        self.acknowledged_ns.min(self.retention_ns).min(self.idle_ns)
    }
}

impl<I: Ring + Disk> Shard<I> {
    /// When the loop must wake up though nothing happened.
    pub(super) fn next_deadline(&self) -> u64 {
        let now = self.io.now().monotonic_ns;
        if self.has_leftovers() || !self.put_off.is_empty() || self.broker.lookups.any_due() {
            return now;
        }
        let mut deadline = self
            .timers
            .next()
            .min(self.broker.housekeeping_next_ns())
            .min(self.broker.compaction_next_ns())
            .min(self.broker.fetches.next_deadline_ns())
            .min(self.broker.coordination.deadline_ns())
            .min(now + SLEEP_MAX_NS);
        if self.stopping {
            deadline = deadline.min(now + STARVED_SLEEP_NS);
        }
        if self.someone_starves() {
            deadline = deadline.min(now + STARVED_SLEEP_NS);
        }
        deadline
    }

    pub(super) fn look_after(&mut self, now: Now) {
        let now_ns = now.monotonic_ns;
        if now_ns >= self.broker.housekeeping_next_ns() {
            self.broker.housekeep(&mut self.io, now, LOGS_PER_TURN);
            if self.broker.wants_acknowledgements() {
                self.timers.acknowledged_ns = self.timers.acknowledged_ns.min(now_ns);
            }
        }
        if now_ns >= self.broker.compaction_next_ns() && !self.stopping {
            self.compact();
        }
        if now_ns >= self.timers.acknowledged_ns {
            self.io.release_acknowledged();
            let again = self.broker.wants_acknowledgements();
            self.timers.acknowledged_ns = if again { now_ns + ACKNOWLEDGED_EVERY_NS } else { u64::MAX };
        }
        if now_ns >= self.timers.retention_ns {
            match self.broker.apply_retention(&mut self.io, now, self.timers.retention_at, LOGS_PER_TURN) {
                Some(next) => self.timers.retention_at = next,
                None => {
                    self.timers.retention_at = 0;
                    self.timers.retention_ns = now_ns.saturating_add(self.timers.retention_every_ns);
                }
            }
        }
        self.close_untaken(now);
        self.close_stuck(now);
        if now_ns >= self.timers.idle_ns {
            self.timers.idle_ns = now_ns + IDLE_EVERY_NS;
            self.close_idle(now_ns);
        }
        if self.stopping {
            self.stop_when_quiet(now_ns);
        }
    }

    /// Compaction works until its time is over or something happens that somebody waits for.
    fn compact(&mut self) {
        let begun = self.io.now();
        let mut took_ns = 0;
        while took_ns < COMPACTION_NS && self.broker.compaction_next_ns() <= begun.monotonic_ns {
            self.broker.compact(&mut self.io, begun);
            took_ns = self.io.now().monotonic_ns - begun.monotonic_ns;
            if self.io.has_events() {
                break;
            }
        }
        self.broker.compaction_took(begun, took_ns);
    }

    fn close_idle(&mut self, now_ns: u64) {
        let Some(idle_ms_max) = self.config.socket.idle_ms_max else { return };
        let before = now_ns.saturating_sub(idle_ms_max.saturating_mul(1_000_000));
        let idle: Vec<_> = self
            .connections
            .iter()
            .flatten()
            .filter(|c| c.active_ns < before && c.in_line() == 0)
            .map(|c| c.id)
            .collect();
        for id in idle {
            log::debug!("connection {} was idle for connections.max.idle.ms", id.slot);
            self.close(id);
        }
    }

    /// Stops once every accepted request is answered, or the wait is over: parked fetches are not waited for.
    fn stop_when_quiet(&mut self, now_ns: u64) {
        let parked = self.broker.fetches.parked();
        let in_line: usize = self.connections.iter().flatten().map(|c| c.in_line()).sum();
        let sending = self.connections.iter().flatten().any(|c| self.io.send_backlog(c.id) > 0);
        if (in_line > parked || sending) && now_ns < self.timers.stop_ns {
            return;
        }
        // Jobs that are under way must end first, or what they leave half done is nobody's. A disk that hangs is not waited for.
        if !self.broker.logs_are_quiet() && now_ns < self.timers.stop_ns + STOP_JOBS_WAIT_NS {
            return;
        }
        let open: Vec<_> = self.connections.iter().flatten().map(|c| c.id).collect();
        for id in open {
            self.close(id);
        }
        self.closed = self.broker.close_logs(&mut self.io);
        self.mailbox.stopped();
        self.stopped = true;
    }
}
