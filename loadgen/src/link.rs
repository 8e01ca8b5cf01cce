//! One non-blocking connection to a broker: bytes in, whole frames out of them, and where sending stopped.
//! Knows size prefixes and nothing else of the protocol.

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::ops::Range;

pub struct Link {
    stream: TcpStream,
    pub peer: String,
    /// False once the kernel's send buffer was full, until epoll says otherwise.
    pub writable: bool,
    buffer: Vec<u8>,
    /// 0 <= start <= end <= buffer.len(); bytes start..end were received and not yet consumed.
    start: usize,
    end: usize,
}

/// A reply larger than this is taken for garbage.
const FRAME_SIZE_MAX: usize = 1 << 30;

impl Link {
    pub fn open(peer: &str, buffer_size: usize) -> Result<Self> {
        let stream = TcpStream::connect(peer).with_context(|| format!("connect to broker {peer}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Link { stream, peer: peer.into(), writable: true, buffer: vec![0; buffer_size], start: 0, end: 0 })
    }

    /// Edge-triggered: a short read or write is the sign that the next edge will come.
    pub fn watch(&self, epoll: &Epoll, token: u64) -> Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET | EpollFlags::EPOLLRDHUP;
        epoll.add(&self.stream, EpollEvent::new(flags, token)).context("epoll_ctl")
    }

    /// Sends what it can. Returns how many bytes the kernel took; fewer than offered means `writable` is now false.
    pub fn send(&mut self, slices: &[IoSlice<'_>]) -> Result<usize> {
        let offered: usize = slices.iter().map(|s| s.len()).sum();
        loop {
            let sent = match self.stream.write_vectored(slices) {
                Ok(sent) => sent,
                Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e).with_context(|| format!("send to broker {}", self.peer)),
            };
            self.writable = sent == offered;
            return Ok(sent);
        }
    }

    /// Receives once; returns false when the socket is drained for now.
    pub fn receive(&mut self) -> Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let need = self.frame_size()?.unwrap_or(4);
        if self.buffer.len() - self.start < need {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() < need {
                self.buffer.resize(need, 0);
            }
        }
        let room = self.buffer.len() - self.end;
        loop {
            return match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) if room > 0 => bail!("broker {} closed the connection", self.peer),
                Ok(count) => {
                    self.end += count;
                    Ok(count == room)
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => Err(e).with_context(|| format!("receive from broker {}", self.peer)),
            };
        }
    }

    /// Size of the frame at `start`, prefix included, once its prefix is here.
    fn frame_size(&self) -> Result<Option<usize>> {
        let have = &self.buffer[self.start..self.end];
        let Some(prefix) = have.first_chunk::<4>() else { return Ok(None) };
        let size = u32::from_be_bytes(*prefix) as usize;
        if size > FRAME_SIZE_MAX {
            bail!("broker {} sent a frame of {size} bytes; is it a Kafka listener?", self.peer);
        }
        Ok(Some(4 + size))
    }

    /// The next whole frame, without its size prefix, as a range for `bytes`.
    pub fn next_frame(&mut self) -> Result<Option<Range<usize>>> {
        match self.frame_size()? {
            Some(size) if self.end - self.start >= size => {
                let frame = self.start + 4..self.start + size;
                self.start += size;
                Ok(Some(frame))
            }
            _ => Ok(None),
        }
    }

    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }
}
