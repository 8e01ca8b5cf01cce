//! Connections of the simulated world: partial receives, partial sends, a socket buffer of limited size, and a client that
//! acknowledges when it has room.
//!
//! The socket holds *references* to file ranges. Bytes are copied when the client acknowledges them (a far client), or
//! when it reads them (one on the same host, which shares the broker's pages): a file overwritten too early shows.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use super::disk::FileId;
use super::{Action, Sim, World};
use crate::ids::ConnectionId;
use crate::io::send_queue::{Piece, SendQueue};
use crate::io::{Event, ReceiveBuffer};
use crate::limits::SMALL_BUFFER_SIZE;
use crate::parts::{OpenFile, Reply};

/// What a socket holds before its peer has acknowledged it.
const SOCKET_BYTES_MAX: u64 = 64 * 1024;
/// What a client's side acknowledges before the client has read it.
const WINDOW_BYTES_MAX: u64 = 64 * 1024;

/// One client of the simulated world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(usize);

enum Chunk {
    Bytes(Vec<u8>),
    File { file: FileId, position: u64, size: u64 },
}

impl Chunk {
    fn size(&self) -> u64 {
        match self {
            Chunk::Bytes(bytes) => bytes.len() as u64,
            Chunk::File { size, .. } => *size,
        }
    }

    /// Takes `count` bytes off the front.
    fn split(&mut self, count: u64) -> Chunk {
        match self {
            Chunk::Bytes(bytes) => {
                let rest = bytes.split_off(count as usize);
                Chunk::Bytes(std::mem::replace(bytes, rest))
            }
            Chunk::File { file, position, size } => {
                let front = Chunk::File { file: *file, position: *position, size: count };
                *position += count;
                *size -= count;
                front
            }
        }
    }
}

/// Both directions of one connection, as long as its client lives.
struct Client {
    near: bool,
    connection: Option<ConnectionId>,
    /// On its way to the broker.
    to_broker: VecDeque<u8>,
    /// The client closed its side.
    finished: bool,
    /// In the broker's socket, not acknowledged.
    in_socket: VecDeque<Chunk>,
    in_socket_bytes: u64,
    acknowledged: u64,
    acknowledging: bool,
    /// Acknowledged, not read by the client.
    arrived: VecDeque<Chunk>,
    arrived_bytes: u64,
    /// The broker closed its side; what its socket holds still arrives.
    broker_closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    HungUp,
    Finishing,
}

/// The broker's end.
pub(super) struct Connection {
    id: ConnectionId,
    state: State,
    client: ClientId,
    posted: Option<Option<(ReceiveBuffer, usize)>>,
    /// A completion of the posted receive is due.
    receiving: bool,
    pub queue: SendQueue,
    taking_in: bool,
    pins: Vec<(Rc<OpenFile>, u64)>,
}

#[derive(Default)]
pub(super) struct Network {
    pub listening: bool,
    clients: Vec<Client>,
    slots: Vec<Option<Connection>>,
    generations: Vec<u32>,
}

impl Network {
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.slots.get(id.slot as usize)?.as_ref().filter(|c| c.id == id)
    }
    fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.slot as usize)?.as_mut().filter(|c| c.id == id)
    }

    /// The broker is gone from one moment to the next.
    pub fn cut(&mut self) {
        for client in &mut self.clients {
            client.connection = None;
            client.in_socket.clear();
            client.in_socket_bytes = 0;
            client.broker_closed = true;
        }
        self.slots.clear();
        self.listening = false;
    }

    pub fn release_acknowledged(&mut self) {
        for connection in self.slots.iter_mut().flatten() {
            let acknowledged = self.clients[connection.client.0].acknowledged;
            connection.pins.retain(|(_, sent)| *sent > acknowledged);
        }
    }

    pub fn release_file(&mut self, file: &Rc<OpenFile>) {
        self.slots.iter_mut().flatten().for_each(|c| c.pins.retain(|(pinned, _)| !Rc::ptr_eq(pinned, file)));
    }
}

/// The clients' side.
impl Sim {
    /// A client on another host connects. Its connection is accepted later.
    pub fn connect(&self) -> ClientId {
        self.connect_from(false)
    }

    /// A client on the same host: it shares the pages of what it is sent by reference until it has read them.
    pub fn connect_near(&self) -> ClientId {
        self.connect_from(true)
    }

    fn connect_from(&self, near: bool) -> ClientId {
        let world = &mut *self.world.borrow_mut();
        let id = ClientId(world.network.clients.len());
        world.network.clients.push(Client {
            near,
            connection: None,
            to_broker: VecDeque::new(),
            finished: false,
            in_socket: VecDeque::new(),
            in_socket_bytes: 0,
            acknowledged: 0,
            acknowledging: false,
            arrived: VecDeque::new(),
            arrived_bytes: 0,
            broker_closed: !world.network.listening,
        });
        if world.network.listening {
            world.later(Action::Accept(id));
        }
        id
    }

    /// Sends bytes to the broker; they arrive later, in pieces.
    pub fn client_send(&self, client: ClientId, bytes: &[u8]) {
        let world = &mut *self.world.borrow_mut();
        world.network.clients[client.0].to_broker.extend(bytes);
        world.wake_receive(client);
    }

    /// Takes what has arrived from the broker since the last call.
    pub fn client_receive(&self, client: ClientId) -> Vec<u8> {
        self.client_receive_up_to(client, u64::MAX)
    }

    /// Takes at most `count` bytes: a slow reader.
    pub fn client_receive_up_to(&self, client: ClientId, mut count: u64) -> Vec<u8> {
        let world = &mut *self.world.borrow_mut();
        let mut bytes = Vec::new();
        let this = &mut world.network.clients[client.0];
        while count > 0
            && let Some(first) = this.arrived.front_mut()
        {
            let size = first.size().min(count);
            world.disks.copy_out(first.split(size), &mut bytes);
            if first.size() == 0 {
                this.arrived.pop_front();
            }
            count -= size;
            this.arrived_bytes -= size;
        }
        world.wake_acknowledge(client);
        bytes
    }

    /// Closes the client's side in order; the broker sees the end of the stream after all bytes.
    pub fn client_close(&self, client: ClientId) {
        let world = &mut *self.world.borrow_mut();
        world.network.clients[client.0].finished = true;
        world.wake_receive(client);
    }

    /// Did the broker close, with nothing left to arrive or to be read?
    pub fn client_is_cut(&self, client: ClientId) -> bool {
        let world = self.world.borrow();
        let client = &world.network.clients[client.0];
        client.broker_closed && client.in_socket.is_empty() && client.arrived.is_empty()
    }
}

/// Reads a chunk's bytes as they are now.
trait CopyOut {
    fn copy_out(&self, chunk: Chunk, into: &mut Vec<u8>);
}
impl CopyOut for super::Disks {
    fn copy_out(&self, chunk: Chunk, into: &mut Vec<u8>) {
        match chunk {
            Chunk::Bytes(bytes) => into.extend(bytes),
            Chunk::File { file, position, size } => self.copy_now(file, position, size, into),
        }
    }
}

impl World {
    pub(super) fn accept(&mut self, client: ClientId, events: &mut Vec<Event>) {
        let network = &mut self.network;
        if !network.listening {
            network.clients[client.0].broker_closed = true;
            return;
        }
        let slot = network.slots.iter().position(Option::is_none).unwrap_or(network.slots.len());
        if slot == network.slots.len() {
            network.slots.push(None);
            network.generations.push(0);
        }
        network.generations[slot] += 1;
        let id = ConnectionId { slot: slot as u32, generation: network.generations[slot] };
        network.slots[slot] = Some(Connection {
            id,
            state: State::Open,
            client,
            posted: None,
            receiving: false,
            queue: SendQueue::default(),
            taking_in: false,
            pins: Vec::new(),
        });
        network.clients[client.0].connection = Some(id);
        let peer = SocketAddr::from((Ipv4Addr::new(10, 0, (client.0 >> 8) as u8, client.0 as u8), 40_000));
        events.push(Event::Accepted { connection: id, peer });
    }

    pub(super) fn post_receive(&mut self, id: ConnectionId, into: Option<(ReceiveBuffer, usize)>) {
        let Some(connection) = self.network.get_mut(id).filter(|c| c.state == State::Open) else { return };
        assert!(connection.posted.is_none(), "one receive at a time");
        if let Some((buffer, filled)) = &into {
            assert!(*filled < buffer.len(), "a receive needs room");
        }
        connection.posted = Some(into);
        let client = connection.client;
        self.wake_receive(client);
    }

    fn wake_receive(&mut self, client: ClientId) {
        let this = &self.network.clients[client.0];
        let Some(id) = this.connection.filter(|_| this.finished || !this.to_broker.is_empty()) else { return };
        if let Some(connection) = self.network.get_mut(id)
            && connection.posted.is_some()
            && !connection.receiving
        {
            connection.receiving = true;
            self.later(Action::Receive(id));
        }
    }

    pub(super) fn complete_receive(&mut self, id: ConnectionId, events: &mut Vec<Event>) {
        let Some(connection) = self.network.get_mut(id) else { return };
        connection.receiving = false;
        let Some(posted) = connection.posted.take() else { return };
        let (client, state) = (connection.client, connection.state);
        let this = &mut self.network.clients[client.0];
        if state == State::Finishing {
            this.to_broker.clear();
            return;
        }
        if this.to_broker.is_empty() {
            let connection = self.network.get_mut(id).expect("looked up above");
            connection.state = State::HungUp;
            return events.push(Event::Hangup {
                connection: id,
                buffer: posted.map(|(buffer, _)| buffer),
                error: None,
            });
        }
        let (mut buffer, filled) = posted.unwrap_or_else(|| (ReceiveBuffer::from_vec(vec![0; SMALL_BUFFER_SIZE]), 0));
        let available = this.to_broker.len().min(buffer.len() - filled);
        let count = self.random.some_of(available as u64) as usize;
        this.to_broker.read_exact(&mut buffer[filled..filled + count]).expect("as many as are there");
        events.push(Event::Received { connection: id, buffer, filled: filled + count });
    }

    pub(super) fn queue_reply(&mut self, id: ConnectionId, reply: Reply) {
        match self.network.get_mut(id).filter(|c| c.state == State::Open) {
            Some(connection) => {
                connection.queue.push(reply);
                self.wake_take_in(id);
            }
            None => self.later(Action::Emit(Event::Sent { connection: id, reply })),
        }
    }

    fn wake_take_in(&mut self, id: ConnectionId) {
        let Network { clients, slots, .. } = &mut self.network;
        let connection = slots.get_mut(id.slot as usize).and_then(Option::as_mut).filter(|c| c.id == id);
        if let Some(connection) = connection
            && clients[connection.client.0].in_socket_bytes < SOCKET_BYTES_MAX
            && !connection.queue.is_empty()
            && !connection.taking_in
        {
            connection.taking_in = true;
            self.later(Action::TakeIn(id));
        }
    }

    /// The socket takes bytes and references, as many as it has room for or fewer.
    pub(super) fn take_in(&mut self, id: ConnectionId, events: &mut Vec<Event>) {
        let Some(connection) = self.network.slots.get_mut(id.slot as usize).and_then(Option::as_mut) else { return };
        if connection.id != id {
            return;
        }
        connection.taking_in = false;
        let client = connection.client;
        let this = &mut self.network.clients[client.0];
        let mut sent = |connection: &mut Connection, count: u64| {
            connection.queue.advance(count, |reply| events.push(Event::Sent { connection: id, reply }));
        };
        sent(connection, 0);
        let mut room = SOCKET_BYTES_MAX.saturating_sub(this.in_socket_bytes);
        if room > 0 {
            room = self.random.some_of(room);
        }
        while room > 0
            && let Some(piece) = connection.queue.next()
        {
            let chunk = match piece {
                Piece::Bytes(bytes) => Chunk::Bytes(bytes[..bytes.len().min(room as usize)].to_vec()),
                Piece::File(range) => {
                    let (count, file) = (u64::from(range.size).min(room), range.file);
                    if this.near {
                        file.tainted.set(true);
                    }
                    if !file.tainted.get() {
                        let sent = connection.queue.sent() + count;
                        match connection.pins.iter_mut().find(|(pinned, _)| Rc::ptr_eq(pinned, &file)) {
                            Some(pin) => pin.1 = sent,
                            None => connection.pins.push((file.clone(), sent)),
                        }
                    }
                    Chunk::File { file: self.disks.id(&file), position: range.position.0, size: count }
                }
            };
            let count = chunk.size();
            room -= count;
            this.in_socket_bytes += count;
            this.in_socket.push_back(chunk);
            sent(connection, count);
        }
        if connection.state == State::Finishing && connection.queue.is_idle() {
            self.close(id);
        } else {
            self.wake_take_in(id);
        }
        self.wake_acknowledge(client);
    }

    fn wake_acknowledge(&mut self, client: ClientId) {
        let this = &mut self.network.clients[client.0];
        if !this.acknowledging && !this.in_socket.is_empty() && this.arrived_bytes < WINDOW_BYTES_MAX {
            this.acknowledging = true;
            self.later(Action::Acknowledge(client));
        }
    }

    pub(super) fn acknowledge(&mut self, client: ClientId) {
        let this = &mut self.network.clients[client.0];
        this.acknowledging = false;
        let mut room = WINDOW_BYTES_MAX.saturating_sub(this.arrived_bytes).min(this.in_socket_bytes);
        if room > 0 {
            room = self.random.some_of(room);
        }
        while room > 0
            && let Some(first) = this.in_socket.front_mut()
        {
            let count = first.size().min(room);
            let mut chunk = first.split(count);
            if first.size() == 0 {
                this.in_socket.pop_front();
            }
            if !this.near {
                // From here on the client has its own copy.
                let mut bytes = Vec::new();
                self.disks.copy_out(chunk, &mut bytes);
                chunk = Chunk::Bytes(bytes);
            }
            this.arrived.push_back(chunk);
            room -= count;
            this.in_socket_bytes -= count;
            this.arrived_bytes += count;
            this.acknowledged += count;
        }
        if let Some(id) = this.connection {
            self.wake_take_in(id);
        }
        self.wake_acknowledge(client);
    }

    pub(super) fn close(&mut self, id: ConnectionId) {
        if self.network.get(id).is_none() {
            return;
        }
        let Some(mut connection) = self.network.slots[id.slot as usize].take() else { return };
        let mut unsent = Vec::new();
        connection.queue.drop_all(|reply| unsent.push(reply));
        for reply in unsent {
            self.later(Action::Emit(Event::Sent { connection: id, reply }));
        }
        let client = &mut self.network.clients[connection.client.0];
        for (file, sent) in connection.pins {
            if sent > client.acknowledged {
                file.tainted.set(true);
            }
        }
        client.connection = None;
        client.broker_closed = true;
    }

    pub(super) fn close_after_send(&mut self, id: ConnectionId) {
        let Some(connection) = self.network.get_mut(id) else { return };
        if connection.queue.is_idle() || connection.state == State::HungUp {
            self.close(id);
        } else {
            connection.state = State::Finishing;
        }
    }
}

/// An error a client may cause, for tests of what follows.
impl Sim {
    /// The client vanishes: the broker sees a reset instead of an orderly end.
    pub fn client_reset(&self, client: ClientId) {
        let world = &mut *self.world.borrow_mut();
        let this = &mut world.network.clients[client.0];
        this.to_broker.clear();
        this.finished = true;
        this.in_socket.clear();
        this.acknowledged += std::mem::take(&mut this.in_socket_bytes);
        let Some(id) = this.connection else { return };
        let Some(connection) = world.network.get_mut(id).filter(|c| c.state == State::Open) else { return };
        connection.state = State::HungUp;
        let buffer = connection.posted.take().flatten().map(|(buffer, _)| buffer);
        let mut unsent = Vec::new();
        connection.queue.drop_all(|reply| unsent.push(reply));
        for reply in unsent {
            world.later(Action::Emit(Event::Sent { connection: id, reply }));
        }
        let error = Some(io::Error::from(io::ErrorKind::ConnectionReset));
        world.later(Action::Emit(Event::Hangup { connection: id, buffer, error }));
    }
}
