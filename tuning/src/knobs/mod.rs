//! Every knob, one file each, in the order in which they are applied: what creates queues and interrupts comes before what
//! places them.

use anyhow::{Result, bail};

use crate::deployment::Profile;
use crate::knob::Knob;

macro_rules! knobs {
    ($($file:ident)*) => {
        $(mod $file;)*
        pub const ALL: [&Knob; [$(stringify!($file)),*].len()] = [$(&$file::KNOB),*];
    };
}

knobs! {
    nic_queues
    nic_rings
    nic_coalescing
    nic_offloads
    flow_steering
    irqbalance
    irq_affinity
    rps
    rfs
    xps
    napi_threaded
    napi_busy_poll
    energy_preference
    cpu_governor
    cpu_idle
    smt
    shard_placement
    numa_balancing
    isolated_cores
    mitigations
    somaxconn
    syn_backlog
    netdev_backlog
    netdev_budget
    tcp_rmem
    tcp_wmem
    tcp_notsent_lowat
    tcp_slow_start_after_idle
    congestion_control
    disk_scheduler
    disk_merges
    disk_read_ahead
    disk_queue_depth
    disk_write_cache
    fstrim
    mount_options
    file_system
    free_space
    dirty_bytes
    dirty_expire
    swappiness
    transparent_huge_pages
    max_map_count
    min_free_kbytes
    zone_reclaim
    io_uring
    memory_lock
    open_files
    aio_max_nr
    core_dumps
    kernel_version
    clocksource
    time_sync
    virtualization
    cpu_model
    entropy
}

/// What a profile covers.
pub fn in_profile(profile: Profile) -> Vec<&'static Knob> {
    ALL.into_iter().filter(|knob| profile == Profile::Production || knob.dev).collect()
}

/// In the order of `ALL`, whatever the order they were asked for.
pub fn named(names: &[String]) -> Result<Vec<&'static Knob>> {
    for name in names {
        if ALL.iter().any(|knob| knob.name == name) {
            continue;
        }
        let likeness = |knob: &&&Knob| (strsim::jaro_winkler(knob.name, name) * 1000.0) as u32;
        match ALL.iter().max_by_key(likeness) {
            Some(nearest) => {
                bail!("no knob `{name}`; the nearest is `{}` (`ringlane-tune list` names all)", nearest.name)
            }
            None => bail!("no knob `{name}`"),
        }
    }
    Ok(ALL.into_iter().filter(|knob| names.iter().any(|name| name == knob.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_knob_explains_itself() {
        let mut names: Vec<_> = ALL.iter().map(|knob| knob.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for knob in ALL {
            for text in [knob.what, knob.why, knob.source, knob.risk] {
                assert!(text.len() > 3, "{} leaves something unsaid", knob.name);
            }
        }
    }

    #[test]
    fn a_mistyped_knob_names_its_neighbour() {
        let error = named(&["somaxcon".to_string()]).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("`somaxconn`"), "{error}");
    }
}
