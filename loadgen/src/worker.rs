//! One thread per generator core: its producing and consuming connections, one io_uring, one loop. The loop issues and
//! sends what is due, sleeps in the ring until something can happen (or spins when the next request is due within a
//! millisecond), and takes in answers. Nothing is shared with other workers; slices go out over a channel.

use crate::clock::{Clock, Nanos, SECOND};
use crate::consumer::Consumer;
use crate::machine;
use crate::pacer::Pacer;
use crate::producer::{Producer, Pumped};
use crate::recorder::{Recorder, Schedule, Slice};
use crate::ring::{Ring, What};
use crate::wire;
use anyhow::{Result, bail};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

pub struct Worker {
    pub producers: Vec<Producer>,
    pub consumers: Vec<Consumer>,
    /// This worker's share, in records per second; none means closed loop.
    pub rate: Option<f64>,
    /// Stops producing after this many payload bytes (filling a topic).
    pub payload_bytes_max: Option<u64>,
    pub clock: Clock,
    pub schedule: Schedule,
    pub stop: Arc<AtomicBool>,
}

/// What a worker says at the end.
#[derive(Default)]
pub struct Outcome {
    /// Share of the measured time that the thread was busy, spinning not counted. 0.0 <= busy <= 1.0.
    pub busy: f64,
    pub records_sent: u64,
    /// Requests still unanswered when draining was given up.
    pub unanswered: u64,
    /// Open loop: how far issuing was behind at the end, in seconds.
    pub behind_s: f64,
    pub failure: Option<anyhow::Error>,
}

const DRAIN: Nanos = 5 * SECOND;
const SPIN_BELOW: Nanos = SECOND / 1000;
const TICK: Nanos = SECOND / 20;
/// So many refusals without one success, and going on is pointless.
const ERRORS_IN_A_ROW_MAX: u64 = 1000;

impl Worker {
    pub fn run(mut self, slices: Sender<Slice>) -> Outcome {
        let mut recorder = Recorder::new(self.schedule, slices);
        let mut outcome = Outcome::default();
        outcome.failure = self.turn_until_done(&mut recorder, &mut outcome).err();
        outcome.records_sent = self.producers.iter().map(|p| p.records_sent()).sum();
        outcome.unanswered = self.producers.iter().filter(|p| !p.is_idle()).count() as u64;
        recorder.finish();
        outcome
    }

    fn turn_until_done(&mut self, recorder: &mut Recorder, outcome: &mut Outcome) -> Result<()> {
        // Dropped before the connections, whose memory it has lent to the kernel.
        let mut ring = Ring::new(self.producers.len() + self.consumers.len())?;
        let first_consumer = self.producers.len();
        for link in self.producers.iter_mut().map(|p| &mut p.link).chain(self.consumers.iter_mut().map(|c| &mut c.link))
        {
            link.join(&mut ring)?;
        }
        let mut events = Vec::with_capacity(2 * (self.producers.len() + self.consumers.len()));
        let mut pacer = Pacer::new(self.rate, self.schedule.start);
        let mut ready = Ready::all(self.producers.len());
        let mut busy = Busy::new();
        let (mut draining, mut drain_until, mut turn) = (false, 0, 0usize);
        let mut looking = Vec::new();
        let clock = self.clock;
        while clock.now() < self.schedule.start {
            std::hint::spin_loop();
        }
        for consumer in &mut self.consumers {
            consumer.pump(&mut ring, &clock)?;
        }
        loop {
            let now = clock.now();
            recorder.roll(now);
            busy.mark(now, &self.schedule);
            let full = self.payload_bytes_max.is_some_and(|max| recorder.payload_bytes_total >= max);
            if !draining && (now >= self.schedule.measure_until || self.stop.load(Ordering::Relaxed) || full) {
                draining = true;
                drain_until = now + DRAIN;
                let due = pacer.intended(now, 0);
                outcome.behind_s = now.saturating_sub(due) as f64 / SECOND as f64;
                ready.fill();
            }
            if draining {
                let over = self.producers.iter().all(|p| p.is_idle());
                if over || now > drain_until {
                    outcome.busy = busy.share();
                    return Ok(());
                }
            }
            if recorder.errors_in_a_row >= ERRORS_IN_A_ROW_MAX {
                let error = &recorder.last_error;
                let hint = wire::error_hint(error);
                bail!("the broker answered {error} to {ERRORS_IN_A_ROW_MAX} requests in a row: {hint}");
            }

            // Issue and send. Open loop: whichever connection has room takes the next due request, in turn.
            let mut progress = false;
            if pacer.is_open() && !draining {
                let count = self.producers.len();
                let mut idle = 0;
                while idle < count {
                    turn = (turn + 1) % count.max(1);
                    let producer = &mut self.producers[turn];
                    let sent_before = producer.records_sent();
                    producer.pump(&mut ring, &clock, Some(&mut pacer), recorder)?;
                    if producer.records_sent() == sent_before {
                        idle += 1;
                    } else {
                        (idle, progress) = (0, true);
                    }
                }
                ready.clear();
            } else {
                ready.take(&mut looking);
                for i in looking.drain(..) {
                    let pacer = if draining { None } else { Some(&mut pacer) };
                    if let Pumped::More = self.producers[i].pump(&mut ring, &clock, pacer, recorder)? {
                        ready.add(i);
                    }
                    progress = true;
                }
            }

            // Sleep.
            let mut spinning = false;
            let mut wait = TICK;
            if !ready.is_empty() {
                wait = 0;
            } else if pacer.is_open() && !draining && self.producers.iter().any(|p| p.has_room()) {
                let records = self.producers.first().map_or(0, |p| p.records_per_request);
                let until_next = pacer.intended(now, records).saturating_sub(clock.now());
                spinning = until_next < SPIN_BELOW;
                wait = if spinning { 0 } else { wait.min(until_next - until_next % SPIN_BELOW) };
            }
            ring.turn(wait, &mut events)?;
            if spinning && events.is_empty() && !progress {
                busy.spinning_since = Some(now);
            }

            // Take in.
            for event in events.drain(..) {
                let i = event.socket;
                if i < first_consumer {
                    let producer = &mut self.producers[i];
                    match event.what {
                        What::Writable => producer.link.writable = true,
                        What::Received(received) => producer.received(&mut ring, received, &clock, recorder)?,
                    }
                    ready.add(i);
                } else if !draining {
                    let consumer = &mut self.consumers[i - first_consumer];
                    match event.what {
                        What::Writable => {
                            consumer.link.writable = true;
                            consumer.pump(&mut ring, &clock)?;
                        }
                        What::Received(received) => consumer.received(&mut ring, received, &clock, recorder)?,
                    }
                }
            }
        }
    }
}

/// Connections to look at in this turn, each at most once.
struct Ready {
    queued: Vec<bool>,
    list: Vec<usize>,
}

impl Ready {
    fn all(count: usize) -> Self {
        Ready { queued: vec![true; count], list: (0..count).collect() }
    }
    fn add(&mut self, i: usize) {
        if !self.queued[i] {
            self.queued[i] = true;
            self.list.push(i);
        }
    }
    fn fill(&mut self) {
        (0..self.queued.len()).for_each(|i| self.add(i));
    }
    fn clear(&mut self) {
        for i in self.list.drain(..) {
            self.queued[i] = false;
        }
    }
    fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
    /// Moves the list to `into`; `add` may be called meanwhile.
    fn take(&mut self, into: &mut Vec<usize>) {
        std::mem::swap(&mut self.list, into);
        self.list.clear();
        for &i in into.iter() {
            self.queued[i] = false;
        }
    }
}

/// CPU time of this thread inside the measured time, less what it spent spinning.
struct Busy {
    begin: Option<(Nanos, f64)>,
    end: Option<(Nanos, f64)>,
    spun: Nanos,
    /// The last turn did nothing but spin, from then on.
    spinning_since: Option<Nanos>,
}

impl Busy {
    fn new() -> Self {
        Busy { begin: None, end: None, spun: 0, spinning_since: None }
    }
    fn mark(&mut self, now: Nanos, schedule: &Schedule) {
        if let Some(from) = self.spinning_since.take()
            && from >= schedule.measure_from
            && now <= schedule.measure_until
        {
            self.spun += now - from;
        }
        if self.begin.is_none() && now >= schedule.measure_from {
            self.begin = Some((now, machine::thread_cpu_s()));
        }
        if self.end.is_none() && now >= schedule.measure_until {
            self.end = Some((now, machine::thread_cpu_s()));
        }
    }
    fn share(&self) -> f64 {
        let (Some(begin), Some(end)) = (self.begin, self.end) else { return 0.0 };
        let spun_s = self.spun as f64 / SECOND as f64;
        let wall_s = (end.0 - begin.0) as f64 / SECOND as f64;
        ((end.1 - begin.1 - spun_s) / wall_s).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Admin;
    use crate::batch::{BatchLimit, Destination, Fresh, RecordEncoder};
    use crate::codec::Codec;
    use crate::link::{Link, Replies};
    use crate::producer::{Builder, Lane};
    use crate::sink::{self, Manners};
    use crate::workload::{Acks, Keys, RecordSize};
    use std::time::Duration;

    /// What a worker reserves is for its connections and its seconds, not for its requests: ten times the requests, and
    /// about as many allocations.
    #[test]
    fn a_warm_worker_allocates_nothing_for_its_requests() {
        let address = sink::start(&machine::allowed_cores(), Manners::default()).unwrap().to_string();
        let mut admin = Admin::connect(&address).unwrap();
        admin.create_topic("t", 1, 1, &[]).unwrap();
        admin.leaders("t", Duration::from_secs(10)).unwrap();
        let allocations = |requests: u64| {
            let to = Destination { version: 7, topic: "t", partition: 0, acks: 1 };
            let limit = BatchLimit { bytes: 1000, records: 1 };
            let producer = |id| {
                let encoder = RecordEncoder::new(RecordSize::Fixed(100), Keys::None, 1);
                let builder = Builder::Fresh(Box::new(Fresh::new(&to, encoder, limit, Codec::None)));
                let link = Link::open(&address, Replies::Small, 4096).unwrap();
                Producer::new(link, 1, id, Acks::Leader, 3, vec![Lane { builder, sequence: 0 }], 1)
            };
            let clock = Clock::start();
            let worker = Worker {
                producers: (0..4).map(producer).collect(),
                consumers: Vec::new(),
                rate: None,
                payload_bytes_max: Some(100 * requests),
                clock,
                schedule: Schedule { start: 0, measure_from: 0, measure_until: 60 * SECOND },
                stop: Arc::default(),
            };
            let (tx, rx) = std::sync::mpsc::channel();
            let mut outcome = Outcome::default();
            let info = allocation_counter::measure(|| outcome = worker.run(tx));
            assert!(outcome.failure.is_none() && outcome.unanswered == 0, "{:?}", outcome.failure);
            let answered: u64 = rx.iter().map(|slice| slice.produced.requests).sum();
            assert!(answered >= requests, "{answered} of {requests}");
            info.count_total
        };
        let (few, many) = (allocations(2000), allocations(20_000));
        // A crowded host may take seconds, and each has its slice.
        assert!(many < few + 500, "{few} allocations for 2000 requests, {many} for 20000");
    }
}
