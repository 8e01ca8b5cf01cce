//! `Ring` and `Disk` in memory, from one seed: what the kernel does late, in part and in another order, happens here late,
//! in part and in random order, and the same way again for the same seed. Nothing completes within the call that asked.
//!
//! `Sim` is a handle; its clones share one world. A test gives one to the shard and plays the clients with another, in the
//! same thread. Time is virtual: it moves only in `wait`, to what happens next. `crash` ends the world and keeps its disk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::bell::Bell;
use super::buffers::BufferPool;
use super::{Event, ReceiveBuffer, Ring};
use crate::ids::{ConnectionId, Now};
use crate::parts::Reply;

mod disk;
mod network;
mod random;
#[cfg(test)]
mod tests;

pub use disk::Keep;
pub use network::ClientId;
pub use random::Random;

use disk::Disks;
use network::Network;

/// What completes later.
enum Action {
    /// A client's connection is accepted.
    Accept(ClientId),
    /// A posted receive gets some of what has arrived.
    Receive(ConnectionId),
    /// The socket takes some of the queued replies.
    TakeIn(ConnectionId),
    /// The client's side acknowledges some of what the socket holds.
    Acknowledge(ClientId),
    /// A disk job ends.
    Job(u64),
    /// An event that only had to be late.
    Emit(Event),
}

/// An idle wait moves the time on by no more, so that clients get a turn while the shard sleeps.
const IDLE_STEP_NS: u64 = 5_000_000;
/// Wall time at the start of every world: 2025-01-01.
const WALL_MS: i64 = 1_735_689_600_000;

struct World {
    random: Random,
    now_ns: u64,
    /// By time, then by chance.
    due: BTreeMap<(u64, u64), Action>,
    network: Network,
    disks: Disks,
    pool: Rc<BufferPool>,
}

impl World {
    /// Usually soon, sometimes much later.
    fn latency_ns(&mut self) -> u64 {
        match self.random.below(32) {
            0 => 1_000 + self.random.below(20_000_000),
            _ => 1_000 + self.random.below(200_000),
        }
    }

    fn later(&mut self, action: Action) {
        let at_ns = self.now_ns + self.latency_ns();
        let tie = self.random.next();
        self.due.insert((at_ns, tie), action);
    }
}

/// A simulated shard's ring and disk, and the world around it.
#[derive(Clone)]
pub struct Sim {
    world: Rc<RefCell<World>>,
    bell: Bell,
}

impl Sim {
    /// A world with an empty disk.
    pub fn new(seed: u64) -> Sim {
        Sim::with(Random::new(seed), 1_000_000_000, Disks::default())
    }

    fn with(random: Random, now_ns: u64, disks: Disks) -> Sim {
        let network = Network::default();
        let pool = BufferPool::new(64 * 1024 * 1024);
        let world = World { random, now_ns, due: BTreeMap::new(), network, disks, pool };
        Sim { world: Rc::new(RefCell::new(world)), bell: Bell::simulated() }
    }

    /// The machine stops: connections and everything in flight are gone, the disk is as `keep` says. The world goes on
    /// with what is returned; this one's clients see their connections end.
    pub fn crash(&self, keep: Keep) -> Sim {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        world.due.clear();
        world.network.cut();
        let mut random = Random::new(world.random.next());
        let disks = std::mem::take(&mut world.disks).after_crash(keep, &mut random);
        Sim::with(random, world.now_ns, disks)
    }

    /// Rings at this shard.
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// A number below `bound`, from the world's seed.
    pub fn random_below(&self, bound: u64) -> u64 {
        self.world.borrow_mut().random.below(bound)
    }
}

impl Ring for Sim {
    fn now(&self) -> Now {
        let now_ns = self.world.borrow().now_ns;
        Now { monotonic_ns: now_ns, wall_ms: WALL_MS + (now_ns / 1_000_000) as i64 }
    }

    fn listen(&mut self, mut address: SocketAddr) -> io::Result<SocketAddr> {
        if address.port() == 0 {
            address.set_port(9092);
        }
        self.world.borrow_mut().network.listening = true;
        Ok(address)
    }

    fn stop_listening(&mut self) {
        self.world.borrow_mut().network.listening = false;
    }

    fn receive(&mut self, connection: ConnectionId, into: Option<(ReceiveBuffer, usize)>) {
        self.world.borrow_mut().post_receive(connection, into);
    }

    fn send(&mut self, connection: ConnectionId, reply: Reply) {
        self.world.borrow_mut().queue_reply(connection, reply);
    }

    fn send_backlog(&self, connection: ConnectionId) -> u64 {
        self.world.borrow().network.get(connection).map_or(0, |c| c.queue.backlog())
    }

    fn close(&mut self, connection: ConnectionId) {
        self.world.borrow_mut().close(connection);
    }

    fn close_after_send(&mut self, connection: ConnectionId) {
        self.world.borrow_mut().close_after_send(connection);
    }

    fn take_buffer(&mut self, capacity: usize) -> Option<ReceiveBuffer> {
        self.world.borrow().pool.take(capacity)
    }

    fn take_larger_buffer(&mut self, than: &ReceiveBuffer, capacity: usize) -> Option<ReceiveBuffer> {
        self.world.borrow().pool.take_larger(than, capacity)
    }

    fn set_aside(&mut self, _buffer: &ReceiveBuffer, _filled: usize) -> Option<ReceiveBuffer> {
        None
    }

    fn give_buffer(&mut self, buffer: ReceiveBuffer) {
        drop(buffer);
    }

    fn release_acknowledged(&mut self) {
        self.world.borrow_mut().network.release_acknowledged();
    }

    fn has_events(&mut self) -> bool {
        // Time stands still between two calls of `wait`: background work would never end.
        true
    }
    fn wait(&mut self, deadline_ns: Option<u64>, events: &mut Vec<Event>) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        if self.bell.take_rung() {
            world.later(Action::Emit(Event::Mail));
        }
        world.start_closes();
        let limit_ns = deadline_ns.unwrap_or(u64::MAX).min(world.now_ns + IDLE_STEP_NS).max(world.now_ns);
        match world.due.first_key_value() {
            Some((&(at_ns, _), _)) if at_ns <= limit_ns => {
                // What happens about then comes in the same turn.
                let spread = world.random.below(100_000);
                world.now_ns = world.now_ns.max(at_ns) + spread;
            }
            _ => world.now_ns = limit_ns,
        }
        let before = events.len();
        let now_ns = world.now_ns;
        while let Some(first) = world.due.first_entry().filter(|first| first.key().0 <= now_ns) {
            let action = first.remove();
            world.perform(action, events);
        }
        let happened = &mut events[before..];
        world.shuffle_across_connections(happened);
        Ok(())
    }
}

impl World {
    fn perform(&mut self, action: Action, events: &mut Vec<Event>) {
        match action {
            Action::Accept(client) => self.accept(client, events),
            Action::Receive(connection) => self.complete_receive(connection, events),
            Action::TakeIn(connection) => self.take_in(connection, events),
            Action::Acknowledge(client) => self.acknowledge(client),
            Action::Job(job) => self.end_job(job, events),
            Action::Emit(event) => events.push(event),
        }
    }

    /// Events of one turn come in any order, except those of one connection among themselves.
    fn shuffle_across_connections(&mut self, events: &mut [Event]) {
        let connection = |event: &Event| match event {
            Event::Accepted { connection, .. }
            | Event::Received { connection, .. }
            | Event::Hangup { connection, .. }
            | Event::Sent { connection, .. } => Some(*connection),
            Event::JobDone { .. } | Event::Mail => None,
        };
        for at in 1..events.len() {
            let mut place = at;
            let mut steps = self.random.below(4);
            while place > 0 && steps > 0 {
                let (a, b) = (connection(&events[place - 1]), connection(&events[place]));
                if a.is_some() && a == b {
                    break;
                }
                events.swap(place - 1, place);
                place -= 1;
                steps -= 1;
            }
        }
    }
}
