//! The limit on open files of this process: segments and connections each take one.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Below it a busy broker runs out.
pub const OPEN_FILES_WANTED: u64 = 10_000;

/// What to do about too few.
pub const REMEDY: &str = "raise RLIMIT_NOFILE: `ulimit -n 1048576`, or LimitNOFILE=1048576 in the systemd unit";

/// Whether that is what an error is about.
pub fn are_used_up(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Raises the soft limit to the hard one, which needs no privilege. Returns the limit, and a warning when it is low.
pub fn raise_limit() -> io::Result<(u64, Option<String>)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let warning = (limit < OPEN_FILES_WANTED)
        .then(|| format!("only {limit} files may be open, and each connection and segment takes one; {REMEDY}"));
    Ok((limit, warning))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let (limit, warning) = super::raise_limit().expect("limit");
        let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("limit");
        assert_eq!((limit, soft), (hard, hard));
        assert_eq!(warning.is_some(), limit < super::OPEN_FILES_WANTED);
    }
}
