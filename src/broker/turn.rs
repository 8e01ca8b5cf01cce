//! One turn of the loop: the buffers that arrived in it, the appends staged from them, and the replies that wait until those
//! are written (and durable, where `flush.messages` asks for it).

use crate::ids::{Offset, Waiter};
use crate::io::ReceiveBuffer;
use crate::parts::{Buffers, Reply, Slice};
use crate::storage::{Budget, ProducerStamp};
use crate::wire::batch::HeaderView;
use crate::wire::error_code::ErrorCode;

pub use crate::storage::StagedBatch;

/// What work on records may cost in a turn, and again for the requests that were put off.
pub const RECORDS_WORK_NS: i64 = 100_000;
/// Slices of buffers of the broker's own making have this bit set in their buffer index.
const OWN: u32 = 1 << 31;

/// The buffers of this turn.
#[derive(Default)]
pub struct TurnBuffers {
    received: Vec<Option<ReceiveBuffer>>,
    own: Vec<Vec<u8>>,
    own_size: usize,
}

impl Buffers for TurnBuffers {
    fn bytes(&self, slice: Slice) -> &[u8] {
        let range = slice.start as usize..(slice.start + slice.size) as usize;
        if slice.buffer & OWN != 0 {
            &self.own[(slice.buffer & !OWN) as usize][range]
        } else {
            let buffer = self.received[slice.buffer as usize].as_ref();
            &buffer.expect("a buffer of this turn is given back only after its turn")[range]
        }
    }
}

/// An append that a reply waits for.
struct Awaited {
    slot: u32,
    last_offset: Offset,
    /// Where the partition's error code stands in the reply's bytes; the base offset (i64) follows it.
    error_at: u32,
}

struct Pending {
    /// None: nobody waits (acks=0).
    waiter: Option<Waiter>,
    reply: Reply,
    awaited: Vec<Awaited>,
    /// Its request is not through yet: nothing is answered until it is taken up again.
    put_off: Option<PutOff>,
}

/// Names a reply that was begun and put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOff(u64);

/// The result of an append of the broker's own.
#[derive(Clone, Copy, Debug)]
pub struct OwnResult {
    /// As given to `Broker::stage_own`.
    pub token: u64,
    /// `None`: written.
    pub error: Option<ErrorCode>,
}

/// What has been staged in this turn of the loop.
pub struct Turn {
    /// The buffers that staged batches lie in.
    pub buffers: TurnBuffers,
    /// Partitions with something staged.
    pub(super) touched: Vec<u32>,
    pub(super) failed: Vec<(u32, ErrorCode)>,
    /// Results of `stage_own`, taken by their owner after each flush.
    pub own_results: Vec<OwnResult>,
    own: Vec<(u32, Offset, u64)>,
    pending: Vec<Pending>,
    /// Replies that wait for a sync that is under way.
    syncing: Vec<Pending>,
    spare: Vec<Pending>,
    open: Option<Pending>,
    /// How many were put off so far.
    put_off: u64,
    /// What work on records that came in this turn may still cost in it.
    pub budget: Budget,
}

impl Default for Turn {
    fn default() -> Turn {
        Turn {
            buffers: TurnBuffers::default(),
            touched: Vec::new(),
            failed: Vec::new(),
            own_results: Vec::new(),
            own: Vec::new(),
            pending: Vec::new(),
            syncing: Vec::new(),
            spare: Vec::new(),
            open: None,
            put_off: 0,
            budget: Budget::new(RECORDS_WORK_NS),
        }
    }
}

impl Turn {
    /// The index that the next `push_received` will give.
    pub fn next_buffer(&self) -> u32 {
        self.buffers.received.len() as u32
    }
    /// Keeps a buffer that slices point into until the turn ends.
    pub fn push_received(&mut self, buffer: ReceiveBuffer) {
        self.buffers.received.push(Some(buffer));
    }
    /// Takes a buffer back after the flush.
    pub fn take_received(&mut self, index: u32) -> Option<ReceiveBuffer> {
        self.buffers.received.get_mut(index as usize)?.take()
    }
    /// Ends the turn: no slice is alive any more.
    pub fn clear_buffers(&mut self) {
        self.budget = Budget::new(RECORDS_WORK_NS);
        debug_assert!(self.buffers.received.iter().all(Option::is_none));
        self.buffers.received.clear();
        self.clear_own();
    }
    /// Nothing that is staged is in a buffer of the broker's own any more.
    pub(super) fn clear_own(&mut self) {
        self.buffers.own.clear();
        self.buffers.own_size = 0;
    }
    /// Bytes of the broker's own making that are staged.
    pub(super) fn own_size(&self) -> usize {
        self.buffers.own_size
    }

    /// Begins a reply that waits for appends. None: no reply is wanted.
    pub fn begin(&mut self, waiter: Option<Waiter>, reply: Reply) -> &mut Reply {
        let mut pending = self.spare.pop().unwrap_or_else(|| Pending {
            waiter: None,
            reply: Reply::default(),
            awaited: Vec::new(),
            put_off: None,
        });
        pending.waiter = waiter;
        pending.reply = reply;
        &mut self.open.insert(pending).reply
    }
    /// The reply begun.
    pub fn reply(&mut self) -> &mut Reply {
        &mut self.open.as_mut().expect("begin comes first").reply
    }
    /// The reply begun waits for this append; its error code will stand at `error_at`.
    pub fn await_append(&mut self, slot: u32, last_offset: Offset, error_at: usize) {
        let open = self.open.as_mut().expect("begin comes first");
        open.awaited.push(Awaited { slot, last_offset, error_at: error_at as u32 });
    }
    /// Ends the reply begun: released by the flush at the end of this turn.
    pub fn end(&mut self) {
        self.pending.extend(self.open.take());
    }

    /// Puts off the reply begun: its request goes on in a later turn, or never. What is written meanwhile is noted in it.
    pub fn put_off(&mut self) -> PutOff {
        self.put_off += 1;
        let name = PutOff(self.put_off);
        self.pending.extend(self.open.take().map(|pending| Pending { put_off: Some(name), ..pending }));
        name
    }
    /// Goes on with a reply that was put off.
    pub fn take_up(&mut self, name: PutOff) {
        self.open = self.take_put_off(name).map(|pending| Pending { put_off: None, ..pending });
    }
    /// Nobody waits for it any more.
    pub fn drop_put_off(&mut self, name: PutOff) {
        self.take_put_off(name);
    }
    fn take_put_off(&mut self, name: PutOff) -> Option<Pending> {
        let from = |pending: &mut Vec<Pending>| {
            let at = pending.iter().position(|p| p.put_off == Some(name))?;
            Some(pending.remove(at))
        };
        from(&mut self.syncing).or_else(|| from(&mut self.pending))
    }

    /// Keeps a batch of the broker's own making until it is written.
    pub(super) fn push_own(&mut self, batch: Vec<u8>) -> Slice {
        let slice = Slice { buffer: self.buffers.own.len() as u32 | OWN, start: 0, size: batch.len() as u32 };
        self.buffers.own_size += batch.len();
        self.buffers.own.push(batch);
        slice
    }
    /// The result of an append of the broker's own is wanted.
    pub(super) fn await_own(&mut self, slot: u32, last: Offset, token: u64) {
        self.own.push((slot, last, token));
    }

    /// A partition is gone: what was staged for it fails.
    pub(super) fn forget(&mut self, slot: u32) {
        self.touched.retain(|&s| s != slot);
        self.failed.push((slot, ErrorCode::NotLeaderOrFollower));
    }

    /// Releases what was flushed. `acknowledgeable(slot, last_offset)`: written, and durable if that is asked.
    pub(super) fn release(
        &mut self,
        acknowledgeable: impl Fn(u32, Offset) -> bool,
        mut answer: impl FnMut(Option<Waiter>, Reply),
    ) {
        let Turn { failed, own, own_results, pending, syncing, spare, .. } = self;
        own.retain(|&(slot, last, token)| {
            let error = failed.iter().find(|f| f.0 == slot).map(|f| f.1);
            let over = error.is_some() || acknowledgeable(slot, last);
            if over {
                own_results.push(OwnResult { token, error });
            }
            !over
        });
        let mut settle = |mut p: Pending, still: &mut Vec<Pending>| {
            for awaited in &p.awaited {
                if let Some((_, code)) = failed.iter().find(|f| f.0 == awaited.slot)
                    && p.waiter.is_some()
                {
                    let at = awaited.error_at as usize;
                    p.reply.bytes[at..at + 2].copy_from_slice(&code.code().to_be_bytes());
                    p.reply.bytes[at + 2..at + 10].copy_from_slice(&(-1i64).to_be_bytes());
                }
            }
            if p.put_off.is_some() {
                // What fails later is not what was written before.
                p.awaited.retain(|a| !failed.iter().any(|f| f.0 == a.slot) && !acknowledgeable(a.slot, a.last_offset));
                still.push(p);
                return;
            }
            let waits = p
                .awaited
                .iter()
                .any(|a| !failed.iter().any(|f| f.0 == a.slot) && !acknowledgeable(a.slot, a.last_offset));
            if waits {
                still.push(p);
                return;
            }
            answer(p.waiter.take(), std::mem::take(&mut p.reply));
            p.awaited.clear();
            spare.push(p);
        };
        if !syncing.is_empty() {
            let mut still = Vec::with_capacity(syncing.len());
            for p in syncing.drain(..) {
                settle(p, &mut still);
            }
            *syncing = still;
        }
        for p in pending.drain(..) {
            settle(p, syncing);
        }
        failed.clear();
    }
}

/// What a batch says of its producer.
pub fn producer_stamp(batch: &HeaderView<'_>) -> ProducerStamp {
    ProducerStamp { id: batch.producer_id(), epoch: batch.producer_epoch(), base_sequence: batch.base_sequence() }
}

/// What the log needs to know of a batch that was checked and stamped. None: not even a header is there.
pub fn staged(stamped: &[u8], slice: Slice) -> Option<StagedBatch> {
    let batch = HeaderView::read(stamped)?;
    Some(StagedBatch {
        base_offset: batch.base_offset(),
        last_offset: batch.last_offset(),
        max_timestamp: batch.max_timestamp(),
        leader_epoch: batch.leader_epoch(),
        producer: producer_stamp(&batch),
        transactional: batch.attributes().is_transactional(),
        control: batch.attributes().is_control(),
        slice,
    })
}
