//! One connection to a broker: bytes in, whole frames out of them, and whether it can be sent on. Knows size prefixes
//! and nothing else of the protocol; the kernel's side of it is `ring`.

use crate::ring::{Received, Ring};
use anyhow::{Context, Result, bail};
use std::io::IoSlice;
use std::net::TcpStream;
use std::ops::Range;

pub struct Link {
    pub peer: String,
    /// Until the worker's ring takes it.
    stream: Option<TcpStream>,
    socket: usize,
    replies: Replies,
    /// False once the kernel's send buffer was full, until the ring says otherwise.
    pub writable: bool,
    /// Empty while the kernel receives into it.
    buffer: Vec<u8>,
    /// 0 <= start <= end <= buffer.len(); bytes start..end were received and not yet consumed.
    start: usize,
    end: usize,
}

/// What a broker answers on this connection.
#[derive(Clone, Copy, PartialEq)]
pub enum Replies {
    Small,
    Large,
}

/// A reply larger than this is taken for garbage.
const FRAME_SIZE_MAX: usize = 1 << 30;

impl Link {
    pub fn open(peer: &str, replies: Replies, buffer_size: usize) -> Result<Self> {
        let stream = TcpStream::connect(peer).with_context(|| format!("connect to broker {peer}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Link {
            peer: peer.into(),
            stream: Some(stream),
            socket: usize::MAX,
            replies,
            writable: true,
            buffer: vec![0; buffer_size],
            start: 0,
            end: 0,
        })
    }

    /// From now on `ring` carries it, and receives. Links are numbered in the order in which they join.
    pub fn join(&mut self, ring: &mut Ring) -> Result<()> {
        let Some(stream) = self.stream.take() else { return Ok(()) };
        self.socket = ring.add(stream);
        if self.replies == Replies::Small { ring.receive_small(self.socket) } else { self.receive(ring) }
    }

    /// Sends what it can. Returns how many bytes the kernel took; fewer than offered means `writable` is now false.
    pub fn send(&mut self, ring: &mut Ring, slices: &[IoSlice<'_>]) -> Result<usize> {
        let offered: usize = slices.iter().map(|s| s.len()).sum();
        let sent = ring.send(self.socket, slices).with_context(|| format!("send to broker {}", self.peer))?;
        self.writable = sent == offered;
        Ok(sent)
    }

    /// Takes in what the ring has received.
    pub fn received(&mut self, ring: &mut Ring, received: Received) -> Result<()> {
        match received {
            Received::Large { buffer, count } => {
                self.buffer = buffer;
                self.end += count;
            }
            Received::Small(small) => {
                let count = small.count;
                self.make_room(count)?;
                ring.copy(small, &mut self.buffer[self.end..self.end + count]);
                self.end += count;
            }
            Received::Ended(None) => bail!("broker {} closed the connection", self.peer),
            Received::Ended(Some(e)) => {
                return Err(e).with_context(|| format!("receive from broker {}", self.peer));
            }
        }
        Ok(())
    }

    /// Receives on, once all whole frames have been taken out.
    pub fn receive(&mut self, ring: &mut Ring) -> Result<()> {
        if self.replies == Replies::Small {
            return Ok(());
        }
        self.make_room(1)?;
        ring.receive_large(self.socket, std::mem::take(&mut self.buffer), self.end)
    }

    /// Room for `count` more bytes, and for the whole of a frame that has begun.
    fn make_room(&mut self, count: usize) -> Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let need = self.frame_size()?.unwrap_or(4).max(self.end - self.start + count);
        if self.buffer.len() - self.start < need {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() < need {
                self.buffer.resize(need, 0);
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;
    use crate::ring::What;
    use std::io::Write;
    use std::net::TcpListener;

    /// Small frames and ones larger than any buffer, cut anywhere: as sent, in order, by either way of receiving.
    #[test]
    fn frames_come_out_as_they_were_sent_wherever_they_are_cut() {
        for replies in [Replies::Small, Replies::Large] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let mut link = Link::open(&address, replies, 100).unwrap();
            let sizes = [0usize, 1, 3, 90, 5000, 96, 97, 100_000, 2, 200];
            let body = move |i: usize| vec![i as u8; sizes[i]];
            let writer = std::thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                stream.set_nodelay(true).unwrap();
                let all: Vec<u8> = (0..sizes.len())
                    .flat_map(|i| [(sizes[i] as u32).to_be_bytes().to_vec(), body(i)].concat())
                    .collect();
                for piece in all[..6000].chunks(7).chain(all[6000..].chunks(3333)) {
                    stream.write_all(piece).unwrap();
                }
                stream
            });
            let mut ring = Ring::new(1).unwrap();
            link.join(&mut ring).unwrap();
            let (mut events, mut got) = (Vec::new(), 0);
            while got < sizes.len() {
                ring.turn(SECOND, &mut events).unwrap();
                for event in events.drain(..) {
                    let What::Received(received) = event.what else { panic!("nothing was sent") };
                    link.received(&mut ring, received).unwrap();
                    while let Some(frame) = link.next_frame().unwrap() {
                        assert!(link.bytes(frame) == body(got), "frame {got}");
                        got += 1;
                    }
                    link.receive(&mut ring).unwrap();
                }
            }
            drop(writer.join().unwrap());
            ring.turn(SECOND, &mut events).unwrap();
            let What::Received(ended) = events.remove(0).what else { panic!("nothing was sent") };
            let error = link.received(&mut ring, ended).unwrap_err().to_string();
            assert!(error.contains(&address) && error.contains("closed"), "{error}");
        }
    }
}
