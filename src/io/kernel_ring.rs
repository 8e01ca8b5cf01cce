//! One io_uring: set-up with its flags explained, errors that say what to change, and the single system call of a
//! turn of the loop. Knows nothing of what the operations mean.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, cqueue, opcode, register::Probe, squeue};

/// Why the ring could not be set up, and what to change.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error(
        "io_uring is forbidden here ({0}). Allow it: `sysctl kernel.io_uring_disabled=0` (now {1}); in a container also a \
         seccomp profile that permits io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Forbidden(io::Error, String),
    #[error("kernel {0} is too old: Ringlane needs Linux 6.1 or newer (io_uring with deferred task work)")]
    KernelTooOld(String),
    #[error(
        "not enough locked memory for io_uring ({0}). Raise RLIMIT_MEMLOCK: `ulimit -l unlimited`, or LimitMEMLOCK=infinity in the systemd unit"
    )]
    LockedMemory(io::Error),
    #[error("too few file descriptors ({error}); {remedy}", error = .0, remedy = super::open_files::REMEDY)]
    OpenFiles(io::Error),
    #[error("io_uring could not be set up: {0}")]
    Other(io::Error),
}

/// `(major, minor)` of a kernel release such as `6.18.44-generic`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// What a failed set-up means. `disabled` is the content of `/proc/sys/kernel/io_uring_disabled`.
fn explain(error: io::Error, release: &str, disabled: &str) -> RingError {
    let disabled = if disabled.is_empty() { "not set".to_string() } else { disabled.trim().to_string() };
    let old = kernel_version(release).is_some_and(|version| version < (6, 1));
    match error.raw_os_error() {
        _ if old => RingError::KernelTooOld(release.to_string()),
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => RingError::Forbidden(error, disabled),
        Some(libc::ENOMEM) => RingError::LockedMemory(error),
        _ if super::open_files::are_used_up(&error) => RingError::OpenFiles(error),
        _ => RingError::Other(error),
    }
}

impl RingError {
    fn of_setup(error: io::Error) -> RingError {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
        explain(error, release.trim(), &disabled)
    }
}

/// The ring itself. Belongs to the thread that made it (SINGLE_ISSUER).
pub(super) struct KernelRing {
    ring: IoUring,
    /// The ring's descriptor, or its index among those registered for this thread.
    enter_fd: i32,
    enter_flags: u32,
    /// Completions taken out to make room while submitting, ahead of their drain.
    early: Vec<cqueue::Entry>,
    /// This kernel truncates files through the ring (6.9).
    pub can_truncate: bool,
}

// From <linux/io_uring.h>: the crate uses these only inside its own calls, which look the descriptor up each time.
const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const ENTER_NO_IOWAIT: u32 = 1 << 7;
const REGISTER_RING_FDS: u32 = 20;

#[repr(C)]
struct GetEventsArgument {
    sigmask: u64,
    sigmask_size: u32,
    wait_us_min: u32,
    timeout: u64,
}

#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

impl KernelRing {
    /// A ring of `entries` submissions for the calling thread.
    pub fn new(entries: u32) -> Result<KernelRing, RingError> {
        let ring: IoUring = IoUring::builder()
            // One thread submits, the one that made the ring: the kernel drops its locking for others.
            .setup_single_issuer()
            // Completions are worked off when this thread asks for them, not whenever it happens to enter the
            // kernel: they come in batches, and never interrupt a handler. Needs SINGLE_ISSUER; kernel 6.1.
            .setup_defer_taskrun()
            // A flag in shared memory says that there are some to be worked off: `has_completions`.
            .setup_taskrun_flag()
            // A bad entry fails alone and does not hold back those behind it.
            .setup_submit_all()
            // Each submission completes once or, for multishot, many times: room for a burst.
            .setup_cqsize(entries * 4)
            // A larger ring than the kernel allows is made as large as it allows.
            .setup_clamp()
            // Children of `fork` do not get the mappings.
            .dontfork()
            .build(entries)
            .map_err(RingError::of_setup)?;
        let mut probe = Probe::new();
        let can_truncate =
            ring.submitter().register_probe(&mut probe).is_ok() && probe.is_supported(opcode::Ftruncate::CODE);
        // A wait for network events is not disk wait: without this flag (6.15) an idle shard counts as 100 % iowait.
        let mut enter_flags = if ring.params().is_feature_no_iowait() { ENTER_NO_IOWAIT } else { 0 };
        let mut enter_fd = ring.as_raw_fd();
        // A registered descriptor saves the look-up with its reference count in every enter.
        let mut update = ResourceUpdate { offset: u32::MAX, reserved: 0, data: enter_fd as u64 };
        // SAFETY: the kernel reads and writes one `io_uring_rsrc_update`, which `update` is.
        let registered =
            unsafe { libc::syscall(libc::SYS_io_uring_register, enter_fd, REGISTER_RING_FDS, &mut update, 1) };
        if registered == 1 {
            enter_fd = update.offset as i32;
            enter_flags |= ENTER_REGISTERED_RING;
        }
        Ok(KernelRing { ring, enter_fd, enter_flags, early: Vec::new(), can_truncate })
    }

    /// Queues an operation; goes into the kernel only when the queue is full.
    ///
    /// # Safety
    /// Memory the entry points to must stay valid and untouched until its completion.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller's promise.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            if let Err(e) = self.enter(0, None) {
                // EBUSY: completions must be taken out first, as is done below. Anything else is our own bug.
                assert_eq!(e.raw_os_error(), Some(libc::EBUSY), "io_uring_enter: {e}");
            }
            self.early.extend(self.ring.completion());
        }
    }

    /// Submits what is queued and waits for `want` completions or until `timeout_ns` passed.
    pub fn enter(&mut self, want: u32, timeout_ns: Option<u64>) -> io::Result<()> {
        let submit = self.ring.submission().len() as u32;
        let want = if self.early.is_empty() { want } else { 0 };
        let time = timeout_ns.map(|ns| [(ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64]);
        let argument = GetEventsArgument {
            sigmask: 0,
            sigmask_size: 0,
            wait_us_min: 0,
            timeout: time.as_ref().map_or(0, |time| time.as_ptr() as u64),
        };
        // GETEVENTS always: with deferred task work, completions are produced only by an enter that asks for them.
        let flags = self.enter_flags | ENTER_GETEVENTS | ENTER_EXT_ARG;
        // SAFETY: the argument and the time it points to live until the call returns.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                submit,
                want,
                flags,
                &argument,
                size_of::<GetEventsArgument>(),
            )
        };
        if result >= 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            // Time passed, a signal came, or the kernel is short of memory for a moment: look at what there is, come again.
            e if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EAGAIN)) => Ok(()),
            e => Err(e),
        }
    }

    /// Completions are there, or come with the next enter.
    pub fn has_completions(&mut self) -> bool {
        !self.early.is_empty() || self.ring.submission().taskrun() || !self.ring.completion().is_empty()
    }

    /// Moves all completions out.
    pub fn drain(&mut self, into: &mut Vec<cqueue::Entry>) {
        into.append(&mut self.early);
        into.extend(self.ring.completion());
    }

    /// For registering buffers.
    pub fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_up_errors_say_what_to_change() {
        let error = |errno, release| explain(io::Error::from_raw_os_error(errno), release, "2\n").to_string();
        let text = error(libc::EPERM, "6.18.1");
        assert!(text.contains("kernel.io_uring_disabled=0") && text.contains("now 2"), "{text}");
        assert!(error(libc::ENOSYS, "6.18.1").contains("seccomp"));
        assert!(error(libc::EINVAL, "5.15.0-91-generic").contains("6.1"));
        assert!(error(libc::EINVAL, "6.0.9").contains("too old"));
        assert!(error(libc::ENOMEM, "6.1.0").contains("RLIMIT_MEMLOCK"));
        assert!(error(libc::EMFILE, "6.1.0").contains("RLIMIT_NOFILE"));
        assert!(error(libc::EIO, "6.10.0").contains("could not be set up"));
    }

    #[test]
    fn more_operations_than_the_queue_holds_all_complete() {
        let mut ring = KernelRing::new(8).expect("ring");
        let mut done = Vec::new();
        for i in 0..100 {
            // SAFETY: a no-op points to no memory.
            unsafe { ring.push(&opcode::Nop::new().build().user_data(i)) };
        }
        while done.len() < 100 {
            ring.enter(1, Some(10_000_000_000)).expect("enter");
            ring.drain(&mut done);
        }
        let mut seen: Vec<u64> = done.iter().map(|e| e.user_data()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }
}
