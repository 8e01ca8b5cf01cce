//! Generic netlink, as much as `ethtool` needs: one request, one answer, attributes in and out.
//!
//! Every length read from the kernel is checked against the bytes at hand. No unsafe: the sockets are nix's.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

mod field {
    use std::ops::Range;
    // struct nlmsghdr
    pub const LENGTH: Range<usize> = 0..4;
    pub const KIND: Range<usize> = 4..6;
    pub const HEADER_BYTES: usize = 16;
    /// struct genlmsghdr follows it: command, version, two reserved bytes.
    pub const GENERIC_BYTES: usize = HEADER_BYTES + 4;
    /// struct nlmsgerr begins with a negative errno.
    pub const ERROR: Range<usize> = HEADER_BYTES..HEADER_BYTES + 4;
}

const ERROR_MESSAGE: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Top two bits of an attribute's kind say "nested" and "network byte order".
const KIND_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

pub struct Family {
    socket: OwnedFd,
    id: u16,
}

impl Family {
    pub fn open(name: &str) -> io::Result<Family> {
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkGeneric)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        // The kernel answers at once; a driver that hangs must not hang the tuner.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
        let mut family = Family { socket, id: CONTROLLER };
        let mut body = Attributes::default();
        body.text(FAMILY_NAME, name);
        let answer = family.ask(GET_FAMILY, 1, &body, REQUEST)?;
        let id = parse(&answer).find(|(kind, _)| *kind == FAMILY_ID).and_then(|(_, value)| u16_of(value));
        family.id = id.ok_or_else(|| io::Error::other("the kernel named no such netlink family"))?;
        Ok(family)
    }

    /// The attributes of the kernel's answer.
    pub fn get(&self, command: u8, body: &Attributes) -> io::Result<Vec<u8>> {
        self.ask(command, 1, body, REQUEST)
    }

    pub fn set(&self, command: u8, body: &Attributes) -> io::Result<()> {
        self.ask(command, 1, body, REQUEST | ACK).map(|_| ())
    }

    fn ask(&self, command: u8, version: u8, body: &Attributes, flags: u16) -> io::Result<Vec<u8>> {
        let mut message = Vec::with_capacity(field::GENERIC_BYTES + body.0.len());
        message.extend(((field::GENERIC_BYTES + body.0.len()) as u32).to_ne_bytes());
        message.extend(self.id.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(1u32.to_ne_bytes()); // sequence
        message.extend(0u32.to_ne_bytes()); // port: ours, the kernel fills it in
        message.extend([command, version, 0, 0]);
        message.extend(&body.0);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut reply = Vec::new();
        // A set may be answered with a notification of what really changed before the acknowledgement.
        for _ in 0..4 {
            let mut buffer = vec![0; 64 << 10];
            let count = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            buffer.truncate(count);
            let mut rest = buffer.as_slice();
            while let Some((message, after)) = split_message(rest) {
                rest = after;
                if message.get(field::KIND).and_then(u16_of) == Some(ERROR_MESSAGE) {
                    let errno = message.get(field::ERROR).and_then(|at| at.try_into().ok()).map(i32::from_ne_bytes);
                    return match errno {
                        Some(0) => Ok(reply),
                        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
                        None => Err(io::Error::other("netlink: a truncated answer")),
                    };
                }
                reply = message.get(field::GENERIC_BYTES..).unwrap_or_default().to_vec();
                if flags & ACK == 0 {
                    return Ok(reply);
                }
            }
        }
        Err(io::Error::other("netlink: no answer to this request"))
    }
}

fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = bytes.get(field::LENGTH)?.try_into().ok().map(u32::from_ne_bytes)? as usize;
    if length < field::HEADER_BYTES {
        return None;
    }
    let message = bytes.get(..length)?;
    Some((message, bytes.get(aligned(length)..).unwrap_or_default()))
}

fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// Attributes under construction.
#[derive(Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.0.extend(((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(aligned(self.0.len()), 0);
    }

    pub fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    pub fn nest(&mut self, kind: u16, inner: &Attributes) {
        self.bytes(kind | NESTED, &inner.0);
    }
}

/// (kind, value) pairs; stops at the first that does not fit.
pub fn parse(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = rest.get(..2).and_then(u16_of)? as usize;
        let kind = rest.get(2..4).and_then(u16_of)? & KIND_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn u16_of(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip_and_odd_lengths_end_the_walk() {
        let mut inner = Attributes::default();
        inner.text(2, "eth0");
        let mut outer = Attributes::default();
        outer.nest(1, &inner);
        outer.bytes(9, &[7]);
        let found: Vec<_> = parse(&outer.0).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found.first().and_then(|(_, nest)| parse(nest).next()), Some((2, b"eth0\0".as_slice())));
        assert_eq!(found.get(1), Some(&(9, [7u8].as_slice())));
        assert_eq!(parse(&[3, 0, 1, 0, 9, 9]).count(), 0);
        assert_eq!(parse(&[200, 0, 1, 0]).count(), 0);
    }
}
