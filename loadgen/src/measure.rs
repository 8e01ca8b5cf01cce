//! One measurement: one broker, one cell, one repeat. Lays the connections out over partitions and workers, runs the
//! workers through warm-up and measured time, and sums up what they recorded and what the broker used meanwhile.

use crate::admin::{Admin, Leader};
use crate::batch::{BatchLimit, Destination, Fresh, Prebuilt, RecordEncoder};
use crate::clock::{Clock, Nanos, SECOND};
use crate::consumer::{Consumer, Habits, Place};
use crate::link::{Link, Replies};
use crate::machine::{self, Usage};
use crate::producer::{Builder, Lane, Producer};
use crate::recorder::{Schedule, Slice};
use crate::run_file::{BrokerUse, Latency, RepeatResult, Second, histogram_to_text};
use crate::wire;
use crate::worker::{Outcome, Worker};
use crate::workload::{Cell, Payload, Rate, Workload};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// What all measurements of a run share.
pub struct Bench {
    pub clock: Clock,
    pub stop: Arc<AtomicBool>,
    pub generator_cores: Vec<usize>,
    /// Marks this run's records, so that leftovers of another are not taken for them.
    pub run_id: u32,
}

/// Where to measure, and what to send there.
pub struct Job<'a> {
    pub bootstrap: &'a str,
    pub pid: Option<i32>,
    pub workload: &'a Workload,
    pub cell: &'a Cell,
    /// Topics the producers fill.
    pub topics: &'a [String],
    /// Topic the consumers replay; none: they follow the producers' topics.
    pub replay: Option<&'a str>,
    /// Only fill: stop after this many payload bytes, in closed loop.
    pub payload_bytes_max: Option<u64>,
}

pub struct Measured {
    pub result: RepeatResult,
    pub total: Slice,
    pub records_per_request: f64,
    pub behind_s: f64,
    /// Requests were still unanswered some seconds after the end.
    pub unanswered: u64,
    /// Records that were sent but are not in the log, per ListOffsets.
    pub records_missing: i64,
    pub interrupted: bool,
    /// Cores that processes other than the broker and this one kept busy; 0 when the broker cannot be seen.
    pub other_cores_busy: f64,
    pub failure: Option<anyhow::Error>,
}

/// What was used until one end of the measured time.
struct Sample {
    broker: Option<Usage>,
    host_cpu_s: f64,
    own_cpu_s: f64,
}

/// A partition of one of the topics.
#[derive(Clone)]
struct Seat {
    topic: String,
    leader: Leader,
}

/// Splits `seats` over `count` connections so that each connection has one leader. Connections beyond the number of
/// seats share them; a leader always gets at least one connection.
fn lay_out(seats: &[Seat], count: usize) -> Vec<Vec<Seat>> {
    if count >= seats.len() {
        return (0..count).map(|i| vec![seats[i % seats.len()].clone()]).collect();
    }
    let mut by_leader: BTreeMap<&str, Vec<Seat>> = BTreeMap::new();
    for seat in seats {
        by_leader.entry(&seat.leader.address).or_default().push(seat.clone());
    }
    let mut all = Vec::new();
    for mine in by_leader.values() {
        let connections = (count * mine.len() / seats.len()).clamp(1, mine.len());
        for c in 0..connections {
            all.push(mine.iter().skip(c).step_by(connections).cloned().collect());
        }
    }
    all
}

const CONNECT_WAIT: Duration = Duration::from_secs(30);

impl Bench {
    pub fn measure(&self, job: &Job<'_>, progress: &mut dyn FnMut(&Slice)) -> Result<Measured> {
        let w = job.workload;
        let mut admin = Admin::connect(job.bootstrap)?;
        let produce_version = admin.version(wire::PRODUCE)?;
        let mut seats = Vec::new();
        for topic in job.topics {
            let leaders = admin.leaders(topic, CONNECT_WAIT)?;
            seats.extend(leaders.into_iter().map(|leader| Seat { topic: topic.clone(), leader }));
        }

        let core_count = self.generator_cores.len();
        let mut producers: Vec<Vec<Producer>> = (0..core_count).map(|_| Vec::new()).collect();
        let mut records_per_request = 0.0;
        let producing = w.produces() || job.payload_bytes_max.is_some();
        if producing {
            let count = if w.produces() && w.producers > 0 { w.producers } else { seats.len() };
            let layout = lay_out(&seats, count);
            let rate = self.rate(job);
            let limit = self.batch_limit(w, rate, layout.len().max(seats.len()));
            let encoder = |seed| RecordEncoder::new(job.cell.record_size.clone(), w.keys.clone(), seed);
            let first = destination(produce_version, &layout[0][0], job);
            let prebuilt = Prebuilt::new(&first, encoder(1), limit, w.codec)?;
            records_per_request = prebuilt.records() as f64;
            for (id, seats) in layout.iter().enumerate() {
                let link = Link::open(&seats[0].leader.address, Replies::Small, 4 << 10)?;
                let lanes = seats.iter().map(|seat| {
                    let to = destination(produce_version, seat, job);
                    let builder = match job.cell.payload {
                        Payload::Prebuilt => Builder::Prebuilt(Box::new(prebuilt.for_destination(&to))),
                        Payload::Fresh => {
                            Builder::Fresh(Box::new(Fresh::new(&to, encoder(2 + id as u64), limit, w.codec)))
                        }
                    };
                    Lane { builder, sequence: 0 }
                });
                let (lanes, acks) = (lanes.collect(), job.cell.acks);
                let producer =
                    Producer::new(link, self.run_id, id as u32, acks, w.in_flight, lanes, prebuilt.records());
                producers[id % core_count].push(producer);
            }
        }
        let ends_before = if producing { end_offsets(&seats)? } else { 0 };
        let mut consumers = if job.payload_bytes_max.is_none() && w.consumers > 0 {
            self.consumers(&mut admin, job, &seats)?
        } else {
            (0..core_count).map(|_| Vec::new()).collect()
        };

        // Every connection stands; now the clock may start.
        let start = self.clock.now() + SECOND / 50;
        let measure_from = start + (w.warmup_s * SECOND as f64) as Nanos;
        let duration_s = if job.payload_bytes_max.is_some() { 3600.0 } else { w.duration_s };
        let schedule =
            Schedule { start, measure_from, measure_until: measure_from + (duration_s * SECOND as f64) as Nanos };
        let (slices, received) = channel();
        let mut threads = Vec::new();
        let all: usize = producers.iter().map(|p| p.len()).sum();
        for (i, core) in self.generator_cores.iter().copied().enumerate() {
            let producers = std::mem::take(&mut producers[i]);
            let consumers = std::mem::take(&mut consumers[i]);
            if producers.is_empty() && consumers.is_empty() {
                continue;
            }
            let worker = Worker {
                rate: self.rate(job).map(|r| r * producers.len() as f64 / all.max(1) as f64),
                payload_bytes_max: job.payload_bytes_max.map(|b| b * producers.len() as u64 / all.max(1) as u64),
                producers,
                consumers,
                clock: self.clock,
                schedule,
                stop: self.stop.clone(),
            };
            let slices = slices.clone();
            let run = move || machine::pin(&[core]).map(|()| worker.run(slices));
            threads.push(std::thread::Builder::new().name(format!("worker-{core}")).spawn(run)?);
        }
        drop(slices);

        // Collect until the last worker is gone, sampling the broker at both ends of the measured time.
        let usage = || Sample {
            broker: job.pid.and_then(Usage::of),
            host_cpu_s: machine::host_cpu_s(),
            own_cpu_s: machine::process_cpu_s(),
        };
        let (mut before, mut after) = (None, None);
        let mut seconds: BTreeMap<i64, Slice> = BTreeMap::new();
        loop {
            let now = self.clock.now();
            if before.is_none() && now >= schedule.measure_from {
                before = Some((now, usage()));
            }
            if after.is_none() && (now >= schedule.measure_until || self.stop.load(Ordering::Relaxed)) {
                after = Some((now, usage()));
            }
            let edge = if before.is_none() { schedule.measure_from } else { schedule.measure_until };
            let wait = edge.saturating_sub(now).clamp(SECOND / 1000, SECOND / 20);
            match received.recv_timeout(Duration::from_nanos(wait)) {
                Ok(slice) => {
                    progress(&slice);
                    let second = slice.second;
                    seconds.entry(second).or_insert_with(|| Slice::new(second)).merge(&slice);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let now = self.clock.now();
        let before = before.unwrap_or_else(|| (now, usage()));
        let after = after.unwrap_or_else(|| (now.min(schedule.measure_until), usage()));
        let mut outcomes: Vec<Outcome> = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(outcome) => outcomes.push(outcome?),
                Err(_) => anyhow::bail!("a worker thread panicked"),
            }
        }
        let failure = outcomes.iter_mut().find_map(|o| o.failure.take());
        let sent: u64 = outcomes.iter().map(|o| o.records_sent).sum();
        let mut total = Slice::new(0);
        seconds.values().filter(|s| s.second >= 0).for_each(|s| total.merge(s));
        // An error during warm-up is an error.
        for (name, count) in seconds.values().filter(|s| s.second < 0).flat_map(|s| &s.errors) {
            *total.errors.entry(name.clone()).or_default() += count;
        }
        let unanswered = outcomes.iter().map(|o| o.unanswered).sum();
        let records_missing = if producing && failure.is_none() && unanswered == 0 && total.errors.is_empty() {
            records_missing(&seats, ends_before, sent)?
        } else {
            0
        };
        let measured_s = (after.0.saturating_sub(before.0)).max(1) as f64 / SECOND as f64;
        let primary = if producing { total.produced } else { total.consumed };
        let gb = primary.payload_bytes as f64 / 1e9;
        let messages = primary.records as f64;
        let result = RepeatResult {
            started_s: start as f64 / SECOND as f64,
            measured_s,
            messages_per_second: messages / measured_s,
            bytes_per_second: primary.payload_bytes as f64 / measured_s,
            wire_bytes_per_second: primary.wire_bytes as f64 / measured_s,
            requests_per_second: primary.requests as f64 / measured_s,
            consumed_messages_per_second: (producing && w.consumers > 0)
                .then_some(total.consumed.records as f64 / measured_s),
            consumed_bytes_per_second: (producing && w.consumers > 0)
                .then_some(total.consumed.payload_bytes as f64 / measured_s),
            latency_ms: Latency::of(&total.from_intended),
            broker: match (&before.1.broker, &after.1.broker) {
                (Some(before), Some(after)) => broker_use(before, after, measured_s, gb, messages),
                _ => BrokerUse::default(),
            },
            generator_busy: outcomes.iter().map(|o| o.busy).fold(0.0, f64::max),
            errors: total.errors.values().sum(),
            seconds: seconds.values().filter(|s| s.second >= 0).map(|s| second_of(s, producing)).collect(),
            histograms: [
                ("from_intended", &total.from_intended),
                ("from_send", &total.from_send),
                ("end_to_end", &total.end_to_end),
            ]
            .into_iter()
            .filter(|(_, h)| !h.is_empty())
            .map(|(name, h)| (name.to_string(), histogram_to_text(h)))
            .collect(),
        };
        let (b, a) = (&before.1, &after.1);
        let broker_cpu_s = a.broker.map_or(0.0, |u| u.cpu_s) - b.broker.map_or(0.0, |u| u.cpu_s);
        let others = (a.host_cpu_s - b.host_cpu_s) - (a.own_cpu_s - b.own_cpu_s) - broker_cpu_s;
        Ok(Measured {
            result,
            other_cores_busy: if job.pid.is_some() { (others / measured_s).max(0.0) } else { 0.0 },
            total,
            records_per_request,
            behind_s: outcomes.iter().map(|o| o.behind_s).fold(0.0, f64::max),
            unanswered,
            records_missing,
            interrupted: self.stop.load(Ordering::Relaxed),
            failure,
        })
    }

    fn rate(&self, job: &Job<'_>) -> Option<f64> {
        match job.cell.rate {
            Rate::PerSecond(rate) if job.payload_bytes_max.is_none() => Some(rate),
            _ => None,
        }
    }

    /// At a rate a batch holds what arrives during `linger`; flat out it is full at once.
    fn batch_limit(&self, w: &Workload, rate: Option<f64>, connections: usize) -> BatchLimit {
        let lingered = rate.map_or(f64::INFINITY, |r| r / connections as f64 * w.linger_ms / 1000.0);
        let records = if lingered.is_finite() { lingered.max(1.0) as usize } else { usize::MAX };
        BatchLimit { bytes: w.batch_bytes, records: records.min(w.batch_records_max) }
    }

    fn consumers(&self, admin: &mut Admin, job: &Job<'_>, seats: &[Seat]) -> Result<Vec<Vec<Consumer>>> {
        let w = job.workload;
        let version = admin.version(wire::FETCH)?;
        let topics: Vec<String> = match job.replay {
            Some(topic) => vec![topic.to_string()],
            None => job.topics.to_vec(),
        };
        let mut all: Vec<Vec<Consumer>> = self.generator_cores.iter().map(|_| Vec::new()).collect();
        let mut turn = all.len() - 1; // the last core first: the first one already has the first producer
        for _group in 0..w.groups.max(1) {
            for topic in &topics {
                let mine: Vec<Seat> = match job.replay {
                    Some(_) => {
                        let leaders = admin.leaders(topic, CONNECT_WAIT)?;
                        leaders.into_iter().map(|leader| Seat { topic: topic.clone(), leader }).collect()
                    }
                    None => seats.iter().filter(|s| s.topic == *topic).cloned().collect(),
                };
                for seats in lay_out(&mine, w.consumers) {
                    let mut leader = Admin::connect(&seats[0].leader.address)?;
                    let mut places = Vec::new();
                    for seat in &seats {
                        let from = if job.replay.is_some() { wire::EARLIEST } else { wire::LATEST };
                        places.push(Place::new(
                            seat.leader.partition,
                            leader.offset(topic, seat.leader.partition, from)?,
                        ));
                    }
                    let link = Link::open(&seats[0].leader.address, Replies::Large, w.fetch_bytes + (256 << 10))?;
                    let limits = wire::FetchLimits {
                        wait_ms_max: w.fetch_wait_ms,
                        bytes_min: 1,
                        bytes_max: w.fetch_bytes as i32,
                    };
                    let habits = Habits {
                        run: self.run_id,
                        check: w.check,
                        replay: job.replay.is_some(),
                        latency: !w.produces(),
                        record_size_mean: job.cell.record_size.mean(),
                    };
                    all[turn].push(Consumer::new(link, version, topic, limits, habits, places));
                    turn = (turn + 1) % all.len();
                }
            }
        }
        Ok(all)
    }
}

fn destination<'a>(version: i16, seat: &'a Seat, job: &Job<'_>) -> Destination<'a> {
    Destination { version, topic: &seat.topic, partition: seat.leader.partition, acks: job.cell.acks.code() }
}

/// Sum of the end offsets of all partitions.
fn end_offsets(seats: &[Seat]) -> Result<i64> {
    let mut leaders: BTreeMap<&str, Admin> = BTreeMap::new();
    let mut sum = 0;
    for seat in seats {
        let address = seat.leader.address.as_str();
        if !leaders.contains_key(address) {
            leaders.insert(address, Admin::connect(address)?);
        }
        let admin = leaders.get_mut(address).context("just inserted")?;
        sum += admin.offset(&seat.topic, seat.leader.partition, wire::LATEST)?;
    }
    Ok(sum)
}

/// How many records were sent but did not get into the log. With acks=0 the broker may still be taking them in.
fn records_missing(seats: &[Seat], before: i64, sent: u64) -> Result<i64> {
    let mut missing = 0;
    for _ in 0..100 {
        missing = before + sent as i64 - end_offsets(seats)?;
        if missing == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(missing)
}

fn second_of(s: &Slice, producing: bool) -> Second {
    let primary = if producing { &s.produced } else { &s.consumed };
    let latency = Latency::of(&s.from_intended);
    Second {
        second: s.second,
        messages: primary.records,
        bytes: primary.payload_bytes,
        consumed_messages: s.consumed.records,
        p50_ms: latency.p50,
        p99_ms: latency.p99,
        max_ms: latency.max,
        errors: s.errors.values().sum(),
    }
}

fn broker_use(before: &Usage, after: &Usage, seconds: f64, gb: f64, messages: f64) -> BrokerUse {
    let cpu_s = (after.cpu_s - before.cpu_s).max(0.0);
    BrokerUse {
        cpu_seconds_per_gb: (gb > 0.0).then(|| cpu_s / gb),
        cpu_seconds_per_million_messages: (messages > 0.0).then(|| cpu_s / messages * 1e6),
        cpu_busy: Some(cpu_s / seconds),
        rss_mb: Some(after.rss_bytes as f64 / 1e6),
        page_cache_growth_mb: Some((after.page_cache_bytes as f64 - before.page_cache_bytes as f64) / 1e6),
        context_switches_per_second: Some(
            after.context_switches.saturating_sub(before.context_switches) as f64 / seconds,
        ),
        io_workers: Some(after.io_workers.max(before.io_workers)),
        threads: Some(after.threads),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_one_leader_and_every_partition_a_connection() {
        let seat = |p: i32, a: &str| Seat { topic: "t".into(), leader: Leader { partition: p, address: a.into() } };
        let seats: Vec<Seat> = (0..10).map(|p| seat(p, if p % 3 == 0 { "a:1" } else { "b:1" })).collect();
        for count in [1, 2, 3, 5, 9, 10, 25] {
            let layout = lay_out(&seats, count);
            assert!(layout.iter().all(|c| c.iter().all(|s| s.leader.address == c[0].leader.address)));
            for p in 0..10 {
                assert!(layout.iter().flatten().any(|s| s.leader.partition == p), "{count} connections, partition {p}");
            }
        }
        assert_eq!(lay_out(&seats, 25).len(), 25);
    }
}
