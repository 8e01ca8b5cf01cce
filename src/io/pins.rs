//! Files whose pages a socket may still hold. `sendfile` queues references to pages, not bytes: until the peer has
//! acknowledged them, overwriting the file would change what it receives. A pin holds the file until then.
//!
//! Bounded: one pin per file and connection, and a connection that has many asks the kernel and drops what it may.

use std::os::fd::RawFd;
use std::rc::Rc;

use crate::parts::OpenFile;

struct Pin {
    file: Rc<OpenFile>,
    /// Bytes sent on the connection up to and with the last ones of this file.
    sent: u64,
}

/// What one connection pins. Order does not matter.
#[derive(Default)]
pub(super) struct Pins {
    pins: Vec<Pin>,
    /// At this many pins the kernel is asked which can go.
    ask_at: usize,
}

const ASK_AT_MIN: usize = 16;

/// Bytes the peer has not acknowledged. None: the socket is in no state to tell.
fn unacknowledged_bytes(fd: RawFd) -> Option<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &mut bytes) };
    (result == 0).then_some(bytes as u64)
}

impl Pins {
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty()
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.pins.len()
    }

    /// Bytes of `file` were the last of `sent` bytes handed to the socket.
    pub fn hold(&mut self, file: &Rc<OpenFile>, fd: RawFd, sent: u64) {
        // The file sent last is the likely one to be sent from again.
        if let Some(pin) = self.pins.iter_mut().rev().find(|pin| Rc::ptr_eq(&pin.file, file)) {
            pin.sent = sent;
            return;
        }
        if self.pins.len() >= self.ask_at.max(ASK_AT_MIN) {
            self.release_acknowledged(fd, sent);
            self.ask_at = self.pins.len() * 2;
        }
        self.pins.push(Pin { file: file.clone(), sent });
    }

    /// Drops pins whose bytes the peer acknowledged, of `sent` in all.
    pub fn release_acknowledged(&mut self, fd: RawFd, sent: u64) {
        if self.pins.is_empty() {
            return;
        }
        if let Some(unacknowledged) = unacknowledged_bytes(fd) {
            let acknowledged = sent.saturating_sub(unacknowledged);
            self.pins.retain(|pin| pin.sent > acknowledged);
        }
    }

    /// Drops those of one file, which is not to be overwritten through this handle any more.
    pub fn release_file(&mut self, file: &Rc<OpenFile>) {
        self.pins.retain(|pin| !Rc::ptr_eq(&pin.file, file));
    }

    /// The connection is about to be closed: what is not acknowledged by now can never be known.
    pub fn abandon(&mut self, fd: RawFd, sent: u64) {
        self.release_acknowledged(fd, sent);
        for pin in self.pins.drain(..) {
            pin.file.tainted.set(true);
        }
        self.pins = Vec::new();
        self.ask_at = 0;
    }
}
