//! The lock that keeps two brokers off one data directory: a record lock on its file `.lock`, the kind that Apache
//! Kafka takes too. The kernel drops it when the process ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// Held as long as it lives.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Why the directory is not ours to use.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody has it.
    #[error("data directory {} is used by another process{}; stop it, or choose another directory with --data-dir", dir.display(), holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse {
        /// Which directory.
        dir: PathBuf,
        /// Who holds it.
        holder: Option<i32>,
    },
    /// It cannot be created or written to.
    #[error("data directory {}: {error}; choose one that this user may write to with --data-dir", dir.display())]
    Io {
        /// Which directory.
        dir: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl DirLock {
    /// Creates the directory if need be and locks it.
    pub fn take(dir: &Path) -> Result<DirLock, LockError> {
        let io_error = |error| LockError::Io { dir: dir.to_path_buf(), error };
        std::fs::create_dir_all(dir).map_err(io_error)?;
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(".lock"));
        let file = open.map_err(io_error)?;
        let mut whole_file = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match fcntl(&file, FcntlArg::F_SETLK(&whole_file)) {
            Ok(_) => Ok(DirLock { _file: file }),
            Err(Errno::EACCES | Errno::EAGAIN) => {
                let asked = fcntl(&file, FcntlArg::F_GETLK(&mut whole_file));
                let holder = asked.ok().map(|_| whole_file.l_pid).filter(|pid| *pid > 0);
                Err(LockError::InUse { dir: dir.to_path_buf(), holder })
            }
            Err(errno) => Err(io_error(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_and_locked() {
        // A process does not exclude itself; that another is refused is seen by the start-up tests.
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        let lock = DirLock::take(&data).unwrap();
        assert!(data.join(".lock").exists());
        drop(lock);
        std::fs::write(dir.path().join("file"), b"").unwrap();
        let error = DirLock::take(&dir.path().join("file")).unwrap_err().to_string();
        assert!(error.contains("--data-dir"), "{error}");
    }
}
