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

/// docs/knobs.md.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Knobs\n\nEvery host setting that `ringlane-tune` knows, in the order in which they are applied. This page is written \
         from the knobs themselves\n(`tuning/src/knobs/`, one file each; `UPDATE_DOCS=1 cargo test -p ringlane-tune` rewrites it).\n\n\
         Apply saves what was there before it writes; undo puts that back, last change first. Knobs marked *dev* are also \
         in the\n`--dev` profile, which touches nothing that other programs would feel.\n",
    );
    for knob in ALL {
        let dev = if knob.dev { " *(dev)*" } else { "" };
        text.push_str(&format!("\n## {}{dev}\n\n{}.\n\n", knob.name, knob.what));
        text.push_str(&format!(
            "- **Why.** {}.\n- **Source.** {}.\n- **Risk.** {}.\n",
            knob.why, knob.source, knob.risk
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_knobs_is_up_to_date() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/knobs.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&page, markdown()).unwrap();
        }
        let written = std::fs::read_to_string(&page).unwrap_or_default();
        assert!(written == markdown(), "docs/knobs.md is old: UPDATE_DOCS=1 cargo test -p ringlane-tune");
    }

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
