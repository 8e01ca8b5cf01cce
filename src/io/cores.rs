//! Which cores a process may use, and pinning a thread to one. Called at start-up only.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Why a list of cores is of no use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoresError {
    #[error("`{0}` is no list of cores; write numbers and ranges, as in `0-3,5`")]
    Malformed(String),
    #[error("core {0} is named twice")]
    Twice(usize),
    #[error(
        "core {core} is not among those this process may use ({allowed}); see `taskset -p` and the cgroup's cpuset"
    )]
    NotAllowed { core: usize, allowed: String },
    #[error("the cores of this process cannot be read or set: {0}")]
    System(nix::Error),
}

/// Cores this process may use, in order.
pub fn allowed() -> Result<Vec<usize>, CoresError> {
    let set = sched_getaffinity(Pid::from_raw(0)).map_err(CoresError::System)?;
    Ok((0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect())
}

/// Parses a list such as `0-3,5`, in the order written.
pub fn parse(list: &str) -> Result<Vec<usize>, CoresError> {
    let malformed = || CoresError::Malformed(list.to_string());
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|&n| n < CpuSet::count()).ok_or_else(malformed);
    let mut cores = Vec::new();
    for item in list.split(',') {
        let (first, last) = match item.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(item)?, number(item)?),
        };
        if first > last {
            return Err(malformed());
        }
        for core in first..=last {
            if cores.contains(&core) {
                return Err(CoresError::Twice(core));
            }
            cores.push(core);
        }
    }
    Ok(cores)
}

/// The cores of a list, each allowed to this process.
pub fn choose(list: &str) -> Result<Vec<usize>, CoresError> {
    let (cores, allowed) = (parse(list)?, allowed()?);
    match cores.iter().find(|core| !allowed.contains(core)) {
        Some(&core) => Err(CoresError::NotAllowed { core, allowed: format_list(&allowed) }),
        None => Ok(cores),
    }
}

/// Keeps the calling thread, and threads it starts later, on one core. The worker threads of a ring made after this
/// stay on it too: what a core's partitions cost, that core pays.
pub fn pin(core: usize) -> Result<(), CoresError> {
    let mut set = CpuSet::new();
    set.set(core).map_err(CoresError::System)?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(CoresError::System)
}

/// How long the calling thread asks to run at a stretch. It is woken for work of microseconds, and a short stretch lets it
/// take its core at once from what else runs there: worker threads of its own ring that copy cold data, the kernel's
/// write-back, programs of other people.
const TIME_SLICE_NS: u64 = 100_000;

/// Asks the scheduler for short stretches (the least it grants). Kernels before 6.12 do not know of it: nothing changes there.
pub fn ask_for_short_time_slices() {
    // `struct sched_attr` of <linux/sched/types.h>, its first version.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    const RESET_ON_FORK: u64 = 1;
    // SAFETY: plain call; 0 is the calling thread.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        // Not for threads that this one starts: its workers are what it wants to come before.
        flags: RESET_ON_FORK,
        nice,
        priority: 0,
        runtime: TIME_SLICE_NS,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the kernel reads `attributes`, whose size it is told. A refusal costs latency only.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0) };
}

/// `[0, 1, 2, 5]` as `0-2,5`.
pub fn format_list(cores: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &core in cores {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => ranges.push((core, core)),
        }
    }
    let text =
        |&(first, last): &(usize, usize)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        assert_eq!(parse("0-3,5"), Ok(vec![0, 1, 2, 3, 5]));
        assert_eq!(parse(" 7 , 2-2"), Ok(vec![7, 2]));
        assert_eq!(format_list(&[0, 1, 2, 3, 5]), "0-3,5");
        assert_eq!(format_list(&[]), "");
        for bad in ["", "a", "1,", "3-1", "1-", "-1", "99999999999", "1-2-3"] {
            assert_eq!(parse(bad), Err(CoresError::Malformed(bad.to_string())), "{bad}");
        }
        assert_eq!(parse("1-3,2"), Err(CoresError::Twice(2)));
    }

    #[test]
    fn a_thread_is_pinned_to_an_allowed_core_only() {
        let allowed = allowed().expect("cores");
        let core = allowed[0];
        let of_thread = std::thread::spawn(move || {
            pin(core).expect("pin");
            super::allowed().expect("cores")
        });
        assert_eq!(of_thread.join().expect("thread"), vec![core]);
        let beyond = CpuSet::count() - 1;
        if !allowed.contains(&beyond) {
            assert!(matches!(choose(&beyond.to_string()), Err(CoresError::NotAllowed { .. })));
        }
    }
}
