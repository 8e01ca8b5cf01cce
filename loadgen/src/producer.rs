//! One producing connection: builds requests for the partitions its broker leads, keeps at most a window of them
//! unanswered, and records each answer. Replies come back in request order, which the correlation ids prove.

use crate::batch::{Frame, Fresh, Moment, Prebuilt, Stamp};
use crate::clock::{Clock, Nanos};
use crate::link::Link;
use crate::pacer::Pacer;
use crate::recorder::{Counts, Recorder};
use crate::ring::{Received, Ring};
use crate::wire;
use crate::workload::Acks;
use anyhow::{Result, bail};
use std::collections::VecDeque;
use std::io::IoSlice;

pub enum Builder {
    Prebuilt(Box<Prebuilt>),
    Fresh(Box<Fresh>),
}

/// One partition as this connection fills it.
pub struct Lane {
    pub builder: Builder,
    pub sequence: u64,
}

struct Outgoing {
    frame: Frame,
    correlation: i32,
    intended: Nanos,
    sent: Nanos,
}

struct Unanswered {
    correlation: i32,
    intended: Nanos,
    sent: Nanos,
    counts: Counts,
}

/// Requests are gathered up to this size before one system call sends them.
const GATHER_BYTES: usize = 128 << 10;
const GATHER_FRAMES: usize = 64;
/// A connection that is never full gives way to others after this much.
const TURN_BYTES: usize = 8 << 20;

pub struct Producer {
    pub link: Link,
    id: u32,
    run: u32,
    acks: Acks,
    window: usize,
    lanes: Vec<Lane>,
    lane: usize,
    /// Planned records of one request; what the pacer plans with.
    pub records_per_request: u64,
    outgoing: VecDeque<Outgoing>,
    /// Bytes of the first outgoing frame that the kernel took.
    first_sent: usize,
    unanswered: VecDeque<Unanswered>,
    spare: Vec<Frame>,
    correlation: i32,
}

pub enum Pumped {
    /// Waits for the socket, for answers, or for the pacer.
    Waiting,
    /// Could go on at once; others were given a turn.
    More,
}

impl Producer {
    pub fn new(link: Link, run: u32, id: u32, acks: Acks, window: usize, lanes: Vec<Lane>, records: u64) -> Self {
        Producer {
            link,
            id,
            run,
            acks,
            window,
            lanes,
            lane: 0,
            records_per_request: records,
            outgoing: VecDeque::new(),
            first_sent: 0,
            unanswered: VecDeque::new(),
            spare: Vec::new(),
            correlation: 0,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.outgoing.is_empty() && self.unanswered.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.link.writable && self.outgoing.len() + self.unanswered.len() < self.window
    }

    /// Issues what is due and sends what can be sent. With `pacer` none, only sends.
    pub fn pump(
        &mut self,
        ring: &mut Ring,
        clock: &Clock,
        mut pacer: Option<&mut Pacer>,
        recorder: &mut Recorder,
    ) -> Result<Pumped> {
        let mut turn_bytes = 0;
        // Open loop: one request a call, so that due requests spread over the connections.
        let mut allowance = if pacer.as_ref().is_some_and(|p| p.is_open()) { 1 } else { usize::MAX };
        while self.link.writable {
            if let Some(pacer) = pacer.as_deref_mut() {
                self.issue(clock, pacer, &mut allowance)?;
            }
            if self.outgoing.is_empty() {
                return Ok(Pumped::Waiting);
            }
            turn_bytes += self.send(ring, clock, recorder)?;
            if turn_bytes >= TURN_BYTES {
                return Ok(Pumped::More);
            }
        }
        Ok(Pumped::Waiting)
    }

    fn issue(&mut self, clock: &Clock, pacer: &mut Pacer, allowance: &mut usize) -> Result<()> {
        let mut gathered: usize = self.outgoing.iter().map(|o| o.frame.size()).sum();
        while *allowance > 0
            && self.outgoing.len() + self.unanswered.len() < self.window
            && self.outgoing.len() < GATHER_FRAMES
            && (gathered < GATHER_BYTES || self.outgoing.is_empty())
        {
            let now = clock.now();
            let intended = pacer.intended(now, self.records_per_request);
            if intended > now {
                return Ok(());
            }
            let mut frame = self.spare.pop().unwrap_or_default();
            self.correlation = self.correlation.wrapping_add(1);
            let lane = &mut self.lanes[self.lane];
            let stamp = Stamp {
                run: self.run,
                producer: self.id,
                sequence: lane.sequence,
                intended_ns: clock.unix_ns(intended),
            };
            let moment = Moment { correlation: self.correlation, now_ms: clock.unix_ms(now), stamp };
            match &mut lane.builder {
                Builder::Prebuilt(prebuilt) => prebuilt.build(&mut frame, moment),
                Builder::Fresh(fresh) => fresh.build(&mut frame, moment)?,
            }
            lane.sequence += frame.records;
            self.lane = (self.lane + 1) % self.lanes.len();
            pacer.issue(frame.records);
            gathered += frame.size();
            *allowance -= 1;
            self.outgoing.push_back(Outgoing { frame, correlation: self.correlation, intended, sent: now });
        }
        Ok(())
    }

    /// One system call for all outgoing frames; what left whole moves on to `unanswered`.
    fn send(&mut self, ring: &mut Ring, clock: &Clock, recorder: &mut Recorder) -> Result<usize> {
        let mut slices = [IoSlice::new(&[]); 2 * GATHER_FRAMES];
        let mut count = 0;
        for (i, out) in self.outgoing.iter().take(GATHER_FRAMES).enumerate() {
            for slice in out.frame.rest(if i == 0 { self.first_sent } else { 0 }) {
                if !slice.is_empty() {
                    slices[count] = IoSlice::new(slice);
                    count += 1;
                }
            }
        }
        let sent = self.link.send(ring, &slices[..count])?;
        let mut left = sent + self.first_sent;
        while let Some(first) = self.outgoing.front() {
            let size = first.frame.size();
            if left < size {
                break;
            }
            left -= size;
            let Some(Outgoing { frame, correlation, intended, sent }) = self.outgoing.pop_front() else { break };
            let counts = Counts {
                requests: 1,
                records: frame.records,
                payload_bytes: frame.payload_bytes,
                wire_bytes: size as u64,
            };
            if self.acks == Acks::None {
                recorder.produced(clock.now(), intended, sent, &counts);
            } else {
                self.unanswered.push_back(Unanswered { correlation, intended, sent, counts });
            }
            self.spare.push(frame);
        }
        self.first_sent = left;
        Ok(sent)
    }

    /// Takes in the replies that have arrived.
    pub fn received(
        &mut self,
        ring: &mut Ring,
        received: Received,
        clock: &Clock,
        recorder: &mut Recorder,
    ) -> Result<()> {
        self.link.received(ring, received)?;
        let now = clock.now();
        while let Some(frame) = self.link.next_frame()? {
            let (correlation, reply) = wire::Reader::reply(self.link.bytes(frame))?;
            let Some(request) = self.unanswered.pop_front() else {
                bail!("broker {} sent a reply that nobody asked for", self.link.peer)
            };
            if request.correlation != correlation {
                bail!(
                    "broker {} answered request {correlation} before {}; replies must keep the order of requests",
                    self.link.peer,
                    request.correlation
                );
            }
            match wire::produce_reply(reply)? {
                (0, _) => recorder.produced(now, request.intended, request.sent, &request.counts),
                (code, _) => recorder.error(wire::error_name(code)),
            }
        }
        self.link.receive(ring)
    }

    /// Records that were sent, acknowledged or not: what the partitions' ends must have grown by.
    pub fn records_sent(&self) -> u64 {
        self.lanes.iter().map(|l| l.sequence).sum()
    }
}
