//! `fetch.path = send_zc`: a window of the file is mapped and sent without a copy. The kernel says when it is done with the
//! pages, so nothing needs to be asked or tainted: until then the window holds the file. (Over loopback the kernel copies.)

use std::io;
use std::ptr::NonNull;
use std::rc::Rc;

use io_uring::{cqueue, opcode, types};

use super::Event;
use super::file_to_socket::{FetchPath, Step};
use super::token::{Op, Token};
use super::uring::Uring;
use crate::ids::ConnectionId;
use crate::parts::{FileRange, OpenFile};

const PAGE_SIZE: u64 = 4096;
/// What is mapped and sent at once.
const WINDOW_SIZE_MAX: u32 = 1024 * 1024;

/// Pages of a file in this process's memory, in the kernel's hands. Unmapped when dropped.
pub(super) struct Window {
    connection: ConnectionId,
    memory: NonNull<libc::c_void>,
    size: usize,
    /// Held so that nobody overwrites what is still being sent.
    _file: Rc<OpenFile>,
    /// The send itself is over; only the kernel's word on the pages is outstanding.
    sent: bool,
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size; the kernel has said that it is done.
        unsafe { libc::munmap(self.memory.as_ptr(), self.size) };
    }
}

/// Windows of one shard, by the slot of their token.
#[derive(Default)]
pub(super) struct Windows {
    slots: Vec<Option<Window>>,
    free: Vec<u32>,
}

impl Windows {
    fn add(&mut self, window: Window) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(window);
                slot
            }
            None => {
                self.slots.push(Some(window));
                self.slots.len() as u32 - 1
            }
        }
    }

    /// The window that a connection is sending from: the operation to cancel is its.
    pub fn sending(&self, connection: ConnectionId) -> Option<u32> {
        let of = |w: &Option<Window>| w.as_ref().is_some_and(|w| w.connection == connection && !w.sent);
        self.slots.iter().position(of).map(|slot| slot as u32)
    }
}

impl Uring {
    pub(super) fn send_window(&mut self, id: ConnectionId, range: &FileRange) -> io::Result<Step> {
        let start = range.position.0 / PAGE_SIZE * PAGE_SIZE;
        let skip = (range.position.0 - start) as usize;
        let count = range.size.min(WINDOW_SIZE_MAX);
        let size = skip + count as usize;
        // SAFETY: a new mapping at an address the kernel chooses touches no memory of ours. Nobody in this process reads it.
        let memory = unsafe {
            let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), size, protection, flags, range.file.handle, start as libc::off_t)
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory).expect("mmap");
        let slot = self.windows.add(Window { connection: id, memory, size, _file: range.file.clone(), sent: false });
        let connection = &mut self.table.slots[id.slot as usize];
        connection.queue.begin(Op::SendZc);
        // SAFETY: inside the mapping.
        let bytes = unsafe { memory.as_ptr().cast::<u8>().add(skip) };
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = opcode::SendZc::new(types::Fd(connection.fd), bytes, count).flags(flags).build();
        // SAFETY: the window is unmapped only after the kernel's last completion for it.
        unsafe { self.push(entry, Token::new(Op::SendZc, slot, 0)) };
        Ok(Step::Waits)
    }

    pub(super) fn window_progressed(&mut self, slot: u32, entry: &cqueue::Entry, events: &mut Vec<Event>) {
        let Some(window) = self.windows.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let (connection, result) = (window.connection, entry.result());
        let is_result = !std::mem::replace(&mut window.sent, true);
        if !cqueue::more(entry.flags()) {
            self.windows.slots[slot as usize] = None;
            self.windows.free.push(slot);
        }
        if !is_result {
            return;
        }
        if matches!(-result, libc::ENOMEM | libc::ENOBUFS | libc::EOPNOTSUPP) {
            // Pages in flight count as locked memory.
            let error = io::Error::from_raw_os_error(-result);
            log::warn!("fetch.path=send_zc is refused ({error}; is RLIMIT_MEMLOCK too low?), going on with sendfile");
            self.settings.fetch_path = FetchPath::Sendfile;
            return self.send_progressed(connection, Op::SendZc, 0, events);
        }
        self.send_progressed(connection, Op::SendZc, result, events);
    }
}
