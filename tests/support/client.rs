//! One connection that sends requests of `kafka-protocol` and waits for their replies, in order.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::protocol::{Decodable, Request};
use ringlane::wire::frame::{reply_header_flexible, request_header_flexible};
use ringlane::wire::writer;

/// No reply of a healthy broker takes as long.
const REPLY_MAX: Duration = Duration::from_secs(60);

pub struct Client {
    pub socket: TcpStream,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).expect("the broker accepts");
        socket.set_read_timeout(Some(REPLY_MAX)).expect("a deadline");
        socket.set_nodelay(true).expect("no delay");
        Client { socket }
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request);
        self.receive::<R>(version)
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.socket.write_all(&frame(version, request)).expect("sent");
    }

    /// The reply to the oldest request that has none yet.
    pub fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        decode::<R>(version, read_reply(&mut self.socket).expect("a reply")).1
    }
}

/// A reply without its size. An error: the connection broke.
pub fn read_reply(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut size = [0; 4];
    socket.read_exact(&mut size)?;
    let mut reply = vec![0; i32::from_be_bytes(size) as usize];
    socket.read_exact(&mut reply)?;
    Ok(reply)
}

/// Correlation id and contents of a reply.
pub fn decode<R: Request>(version: i16, reply: Vec<u8>) -> (i32, R::Response) {
    let (correlation_id, _) = reply.split_first_chunk().expect("a correlation id");
    let correlation_id = i32::from_be_bytes(*correlation_id);
    let header = 4 + usize::from(reply_header_flexible(R::KEY, version));
    let mut body = Bytes::from(reply).slice(header..);
    let response = R::Response::decode(&mut body, version).expect("a reply of its version");
    assert!(body.is_empty(), "{} bytes after the reply", body.len());
    (correlation_id, response)
}

/// A request with its size and header.
pub fn frame<R: Request>(version: i16, request: &R) -> Vec<u8> {
    frame_of(R::KEY, version, |out| request.encode(out, version).expect("a request of its version"))
}

/// A request of which `kafka-protocol` does not know the version.
pub fn frame_of(key: i16, version: i16, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0; 4];
    writer::i16(&mut out, key);
    writer::i16(&mut out, version);
    writer::i32(&mut out, 0);
    writer::string(&mut out, false, "test");
    writer::no_tags(&mut out, request_header_flexible(key, version));
    body(&mut out);
    let size = out.len() as i32 - 4;
    out[..4].copy_from_slice(&size.to_be_bytes());
    out
}
