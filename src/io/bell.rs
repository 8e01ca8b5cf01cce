//! Wakes a shard from another thread: an eventfd that its ring reads, or a flag that the simulation looks at.
//! The message itself lies in the mailbox.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Rings at one shard. Cheap to clone, works from any thread, also when the shard is gone.
#[derive(Clone, Debug)]
pub struct Bell(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Kernel(Arc<File>),
    Simulated(Arc<AtomicBool>),
}

impl Bell {
    /// The shard's `wait` yields `Event::Mail`, once for any number of rings before it.
    pub fn ring(&self) {
        match &self.0 {
            // Never waits: the counter does not get near its maximum in the life of a process.
            Kind::Kernel(eventfd) => drop((&**eventfd).write(&1u64.to_ne_bytes())),
            Kind::Simulated(flag) => flag.store(true, Ordering::Release),
        }
    }

    pub(super) fn of_kernel() -> io::Result<Bell> {
        let eventfd = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?;
        Ok(Bell(Kind::Kernel(Arc::new(File::from(OwnedFd::from(eventfd))))))
    }

    pub(super) fn simulated() -> Bell {
        Bell(Kind::Simulated(Arc::default()))
    }

    /// The eventfd, of the kernel's kind.
    pub(super) fn fd(&self) -> RawFd {
        match &self.0 {
            Kind::Kernel(eventfd) => eventfd.as_raw_fd(),
            Kind::Simulated(_) => -1,
        }
    }

    /// Did somebody ring since the last look? Of the simulated kind.
    pub(super) fn take_rung(&self) -> bool {
        match &self.0 {
            Kind::Kernel(_) => false,
            Kind::Simulated(flag) => flag.swap(false, Ordering::Acquire),
        }
    }
}
