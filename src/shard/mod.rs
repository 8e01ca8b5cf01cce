//! One core: one thread, one `Broker` and one ring. The loop is: wait for events, act on all of them, write what was staged,
//! answer, look after what is due; what all that asked of the ring is submitted by the next wait.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use crate::api::Finish;
use crate::broker::Broker;
use crate::cluster::image::ClusterImage;
use crate::config::BrokerConfig;
use crate::ids::{ConnectionId, Now, ReplyTo, Waiter};
use crate::io::disk::Disk;
use crate::io::{Event, ReceiveBuffer, Ring};
use crate::mailbox::{ShardMailbox, ToShard};
use crate::parts::Reply;
use crate::storage::data_dir::ClosedPartition;

mod connection;
mod dispatch;
mod housekeeping;
mod pressure;
mod put_off;
mod receive;
mod stuck;
mod untaken;

use connection::{Connection, Paused};

/// What asked the control thread, and what turns its answer into a reply.
struct Asked {
    to: ReplyTo,
    peer: std::net::SocketAddr,
    finish: Finish,
}

/// A buffer whose frames have been handled, and what to do with it once the turn's appends are written.
struct Leftover {
    connection: ConnectionId,
    buffer: u32,
    /// Bytes handled, and bytes valid.
    at: usize,
    filled: usize,
    /// What follows.
    rest: Rest,
}

/// Why frames of a buffer were not gone on with.
#[derive(Clone, Copy, Debug)]
enum Rest {
    /// Its end was reached, within a frame of this size if that is known.
    Began(Option<usize>),
    /// The connection had no room for more requests: whole ones may follow.
    NoRoom,
    /// The request was put off.
    PutOff,
}

/// One core.
pub struct Shard<I: Ring + Disk> {
    io: I,
    broker: Broker,
    mailbox: ShardMailbox,
    config: Arc<BrokerConfig>,
    /// Images that came while an older one was still being applied, and the epoch of that one.
    images: VecDeque<Arc<ClusterImage>>,
    applying: Option<u64>,
    connections: Vec<Option<Connection>>,
    asked: HashMap<Waiter, Asked>,
    leftovers: Vec<Leftover>,
    /// Connections whose next receive waits for a buffer or for room.
    starved: Vec<ConnectionId>,
    /// Connections with a request that was put off, in order. The first alone holds memory for what has been done of it.
    put_off: VecDeque<ConnectionId>,
    answers: Vec<(Waiter, Reply)>,
    untaken: untaken::Untaken,
    /// Some wait for memory to receive into, and none of them gets it.
    stuck: pressure::Lasting,
    timers: housekeeping::Timers,
    malformed: dispatch::MalformedLog,
    stopping: bool,
    stopped: bool,
    closed: Option<Vec<ClosedPartition>>,
}

impl<I: Ring + Disk> Shard<I> {
    /// A shard that has not begun. Its partitions are those of the images it has been given.
    pub fn new(io: I, broker: Broker, mailbox: ShardMailbox) -> Shard<I> {
        let config = broker.config.clone();
        let now = io.now();
        Shard {
            timers: housekeeping::Timers::new(&config, now),
            io,
            broker,
            mailbox,
            config,
            images: VecDeque::new(),
            applying: None,
            connections: Vec::new(),
            asked: HashMap::new(),
            leftovers: Vec::new(),
            starved: Vec::new(),
            put_off: VecDeque::new(),
            answers: Vec::new(),
            untaken: untaken::Untaken::default(),
            stuck: pressure::Lasting::default(),
            malformed: dispatch::MalformedLog::default(),
            stopping: false,
            stopped: false,
            closed: None,
        }
    }

    /// Listens. The address says the port that was chosen.
    pub fn listen(&mut self, address: std::net::SocketAddr) -> io::Result<std::net::SocketAddr> {
        self.io.listen(address)
    }

    /// The broker, for the simulation's eyes.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Runs until told to stop. The logs it closed, unless one of them could not be closed in good order.
    pub fn run(&mut self) -> io::Result<Option<Vec<ClosedPartition>>> {
        let mut events = Vec::with_capacity(1024);
        while !self.stopped {
            self.turn(&mut events)?;
        }
        Ok(self.take_closed())
    }

    /// The logs it closed when it stopped, unless one of them could not be closed in good order.
    pub fn take_closed(&mut self) -> Option<Vec<ClosedPartition>> {
        self.closed.take()
    }

    /// Has it stopped?
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// One turn of the loop. `events` is scratch memory.
    pub fn turn(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let deadline = self.next_deadline();
        self.io.wait(Some(deadline), events)?;
        let now = self.io.now();
        for event in events.drain(..) {
            self.act(event, now);
        }
        self.broker.look_after_groups(&mut self.io, now);
        self.broker.flush_turn(&mut self.io, now);
        self.appended(now);
        self.end_fetches(now);
        self.end_lookups();
        self.deliver();
        self.continue_receiving(now);
        self.go_on_with_put_off(now);
        self.look_after(now);
        Ok(())
    }

    fn act(&mut self, event: Event, now: Now) {
        match event {
            Event::Accepted { connection, peer } => self.accepted(connection, peer, now),
            Event::Received { connection, buffer, filled } => self.received(connection, buffer, filled, now),
            Event::Hangup { connection, buffer, error } => self.hangup(connection, buffer, error),
            Event::Sent { connection, reply } => {
                let of_slot = self.connections.get_mut(connection.slot as usize).and_then(Option::as_mut);
                if let Some(c) = of_slot.filter(|c| c.id == connection) {
                    self.untaken.taken(c, &reply);
                    if c.paused != Paused::No {
                        self.starved.push(connection);
                    }
                }
                self.broker.give_reply(reply);
            }
            Event::JobDone { owner, job, result } => {
                self.broker.job_done(&mut self.io, owner, job, result, now);
                self.apply_images(now);
            }
            Event::Mail => self.read_mail(now),
        }
    }

    fn accepted(&mut self, id: ConnectionId, peer: std::net::SocketAddr, now: Now) {
        let slot = id.slot as usize;
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        self.connections[slot] = Some(Connection::new(id, peer, now.monotonic_ns));
        self.io.receive(id, None);
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(id.slot as usize)?.as_mut().filter(|c| c.id == id)
    }

    fn hangup(&mut self, id: ConnectionId, buffer: Option<ReceiveBuffer>, error: Option<io::Error>) {
        if let Some(buffer) = buffer {
            self.io.give_buffer(buffer);
        }
        if let Some(error) = error {
            log::debug!("connection {}: {error}", id.slot);
        }
        self.close(id);
    }

    /// Forgets a connection and all it waits for.
    fn close(&mut self, id: ConnectionId) {
        if self.forget(id) {
            self.io.close(id);
        }
    }

    fn forget(&mut self, id: ConnectionId) -> bool {
        if self.connection(id).is_none() {
            return false;
        }
        let Some(mut connection) = self.connections[id.slot as usize].take() else { return false };
        if let Some((buffer, _)) = connection.held.take() {
            self.io.give_buffer(buffer);
        }
        if let Some(under_way) = connection.put_off.take() {
            under_way.drop_reply(&mut self.broker);
        }
        self.untaken.closed(&connection);
        let mut parked = Vec::new();
        let broker = &mut self.broker;
        connection.over(|fetch| parked.push(fetch), |reply| broker.give_reply(reply));
        for fetch in parked {
            broker.fetches.cancel(fetch);
        }
        true
    }

    fn read_mail(&mut self, now: Now) {
        while let Some(message) = self.mailbox.take() {
            match message {
                ToShard::Image(image) => {
                    self.images.push_back(image);
                    self.apply_images(now);
                }
                ToShard::Answer { waiter, answer } => self.control_answered(waiter, answer, now),
                ToShard::Stop => {
                    self.stopping = true;
                    self.io.stop_listening();
                    self.timers.stop(now);
                }
            }
        }
    }

    /// Applies the images that came, one after another: each must have let go of its directories before the next may use them.
    fn apply_images(&mut self, now: Now) {
        while !self.broker.sets_aside() {
            if let Some(epoch) = self.applying.take() {
                self.mailbox.applied(epoch);
            }
            let Some(image) = self.images.pop_front() else { return };
            self.applying = Some(image.epoch);
            self.broker.apply_image(&mut self.io, image, now);
            self.config = self.broker.config.clone();
        }
    }

    /// Puts answers into their connections' lines and sends what may leave.
    fn deliver(&mut self) {
        let mut answers = std::mem::take(&mut self.answers);
        self.broker.take_answers(&mut answers);
        for (waiter, reply) in answers.drain(..) {
            self.answer(waiter, reply);
        }
        self.answers = answers;
    }

    fn answer(&mut self, waiter: Waiter, reply: Reply) {
        let slot = connection::slot_of(waiter) as usize;
        let Some(Some(connection)) = self.connections.get_mut(slot) else {
            self.broker.give_reply(reply);
            return;
        };
        let size = reply.memory();
        if let Some(reply) = connection.ready(waiter, reply) {
            self.broker.give_reply(reply);
            return;
        }
        self.untaken.made(connection, size);
        self.send_ready(slot);
    }

    fn send_ready(&mut self, slot: usize) {
        let Some(Some(connection)) = self.connections.get_mut(slot) else { return };
        let id = connection.id;
        while let Some(reply) = connection.next_reply() {
            self.io.send(id, reply);
        }
        if connection.paused != Paused::No {
            self.starved.push(id);
        }
    }
}
