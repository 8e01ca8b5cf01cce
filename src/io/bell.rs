//! Wakes a shard from another thread: an eventfd that its ring reads. The message itself lies in the mailbox.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Rings at one shard. Cheap to clone, works from any thread, also when the shard is gone.
#[derive(Clone, Debug)]
pub struct Bell(Arc<File>);

impl Bell {
    pub(super) fn new() -> io::Result<Bell> {
        let eventfd = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Bell(Arc::new(File::from(OwnedFd::from(eventfd)))))
    }

    /// The shard's `wait` yields `Event::Mail`, once for any number of rings before it.
    pub fn ring(&self) {
        // It fails only when the counter is at its maximum: then the bell rings already.
        let _ = (&*self.0).write(&1u64.to_ne_bytes());
    }

    pub(super) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
