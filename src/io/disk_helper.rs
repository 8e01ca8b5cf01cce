//! One thread beside a ring for the few disk jobs the ring has no operation for: removing a whole directory, replacing a
//! small file, syncing whole file systems, and truncating on kernels before 6.9. Started with the first errand; errands are done in order.
//! The only channel of a shard besides the mailbox; both ends are in here.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::bell::Bell;
use super::content_mark;

/// What the helper is sent to do. Paths are absolute, but for those below a `root`.
pub(super) enum Errand {
    RemoveDir(PathBuf),
    SyncFileSystems {
        root: PathBuf,
        dirs: Vec<PathBuf>,
    },
    Replace {
        path: PathBuf,
        bytes: Vec<u8>,
        sync: bool,
    },
    /// The descriptor stays open: the job that asked holds the file.
    Truncate {
        fd: RawFd,
        size: u64,
    },
}

impl Errand {
    fn run(self) -> io::Result<()> {
        match self {
            Errand::RemoveDir(path) => std::fs::remove_dir_all(path),
            Errand::SyncFileSystems { root, dirs } => sync_file_systems(&root, &dirs),
            Errand::Replace { path, bytes, sync } => replace_file(&path, &bytes, sync),
            // SAFETY: plain call on the descriptor of an open file.
            Errand::Truncate { fd, size } => match unsafe { libc::ftruncate(fd, size as libc::off_t) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
        }
    }
}

type Ends = (Sender<(u32, Errand)>, Receiver<(u32, io::Result<()>)>);

/// The thread, seen from its ring.
pub(super) struct Helper {
    bell: Bell,
    /// None before the first errand.
    ends: Option<Ends>,
    /// Errands that are not back. Spares a look into the channel.
    out: usize,
}

impl Helper {
    pub fn new(bell: Bell) -> Helper {
        Helper { bell, ends: None, out: 0 }
    }

    pub fn send(&mut self, slot: u32, errand: Errand) {
        self.out += 1;
        let ends = self.ends.get_or_insert_with(|| {
            let (to_do, errands) = channel::<(u32, Errand)>();
            let (done, results) = channel();
            let bell = self.bell.clone();
            let work = move || {
                // Ends when the ring is gone.
                for (slot, errand) in errands {
                    if done.send((slot, errand.run())).is_err() {
                        return;
                    }
                    bell.ring();
                }
            };
            std::thread::Builder::new().name("disk-helper".into()).spawn(work).expect("a thread");
            (to_do, results)
        });
        ends.0.send((slot, errand)).expect("the helper lives as long as the ring");
    }

    /// An errand that was done: the job's slot, and how it ended.
    pub fn take_done(&mut self) -> Option<(u32, io::Result<()>)> {
        if self.out == 0 {
            return None;
        }
        let done = self.ends.as_ref()?.1.try_recv().ok()?;
        self.out -= 1;
        Some(done)
    }
}

/// Reserves space for a file, whose size stays.
pub fn reserve(file: RawFd, position: u64, size: u64) -> io::Result<()> {
    let (position, size) = (position as libc::off_t, size as libc::off_t);
    // SAFETY: plain call on the descriptor of an open file.
    match unsafe { libc::fallocate(file, libc::FALLOC_FL_KEEP_SIZE, position, size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes all that was written to the file systems of these directories below `root` durable.
pub fn sync_file_systems(root: &Path, dirs: &[PathBuf]) -> io::Result<()> {
    let mut synced = BTreeSet::new();
    for dir in dirs {
        let dir = root.join(dir);
        if synced.insert(std::fs::metadata(&dir)?.dev()) {
            // SAFETY: plain call on the descriptor of an open directory.
            if unsafe { libc::syncfs(File::open(&dir)?.as_raw_fd()) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// Writes a small file whole and atomically.
pub fn replace_file(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        content_mark::note(&file, bytes);
        if sync { file.sync_data() } else { Ok(()) }
    });
    if let Err(error) = written.and_then(|()| std::fs::rename(&temporary, path)) {
        // On a full device even a little space is wanted by others.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    match (sync, path.parent()) {
        // The new name is durable when its directory is.
        (true, Some(parent)) => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}
