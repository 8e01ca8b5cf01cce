//! A deployment with everything that was left out found on the host: interface, disk, cores, mount.

use anyhow::{Result, bail};

use crate::cpus;
use crate::deployment::{Deployment, Profile};
use crate::host::Host;
use crate::mounts::{self, Mount};

pub struct Plan {
    /// None when the host has no interface worth tuning.
    pub nic: Option<String>,
    /// Whole disks under the data directory: one, or the members of a RAID or LVM volume.
    pub disks: Vec<String>,
    pub mount: Option<Mount>,
    /// Shard `i` runs on `cores[i]`. Never empty.
    pub cores: Vec<usize>,
    pub port: u16,
    pub data_dir: std::path::PathBuf,
    pub profile: Profile,
}

impl Plan {
    pub fn new(host: &Host, deployment: &Deployment) -> Result<Plan> {
        let online = online(host);
        let cores = match &deployment.cores {
            Some(cores) => checked_cores(cores, &online)?,
            None => online,
        };
        if deployment.port.checked_add(cores.len().saturating_sub(1) as u16).is_none() || deployment.port == 0 {
            bail!("--port {}: shard i listens on port + i, so take a port in 1..={}", deployment.port, {
                u16::MAX as usize - cores.len() + 1
            });
        }
        let mounts = host.mounts();
        let mount = mounts::covering(&mounts, &deployment.data_dir).cloned();
        let disks = match &deployment.disk {
            Some(name) => vec![checked_disk(host, name)?],
            None => mount.as_ref().map(|mount| disks_under(host, mount)).unwrap_or_default(),
        };
        Ok(Plan {
            nic: match &deployment.nic {
                Some(name) => Some(checked_nic(host, name)?),
                None => default_nic(host),
            },
            disks,
            mount,
            cores,
            port: deployment.port,
            data_dir: deployment.data_dir.clone(),
            profile: deployment.profile,
        })
    }

    /// The shards' cores as a CPU list, for notes.
    pub fn cores_text(&self) -> String {
        cpus::list(&self.cores)
    }
}

pub fn online(host: &Host) -> Vec<usize> {
    let text = host.word("/sys/devices/system/cpu/online").unwrap_or_default();
    match cpus::parse_list(&text) {
        Some(cpus) if !cpus.is_empty() => cpus,
        _ => vec![0],
    }
}

fn checked_cores(cores: &[usize], online: &[usize]) -> Result<Vec<usize>> {
    if cores.is_empty() {
        bail!("--cores is empty: name at least one, such as --cores 0-3");
    }
    let mut seen = std::collections::BTreeSet::new();
    for core in cores {
        if !online.contains(core) {
            bail!("--cores: core {core} is not online here; online are {}", cpus::list(online));
        }
        if !seen.insert(core) {
            bail!("--cores: core {core} is named twice; each shard needs its own");
        }
    }
    Ok(cores.to_vec())
}

fn checked_nic(host: &Host, name: &str) -> Result<String> {
    if is_name(name) && host.exists(&format!("/sys/class/net/{name}")) {
        return Ok(name.to_string());
    }
    bail!("--nic: no interface `{name}` here; there are: {}", host.list("/sys/class/net").join(", "))
}

fn checked_disk(host: &Host, name: &str) -> Result<String> {
    let name = name.trim_start_matches("/dev/");
    if is_name(name) && host.exists(&format!("/sys/block/{name}")) {
        return Ok(name.to_string());
    }
    bail!("--disk: no disk `{name}` here (a whole disk, not a partition); there are: {}", {
        host.list("/sys/block").join(", ")
    })
}

/// Names go into paths: nothing that leaves the directory.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != "." && name != ".."
}

/// The interface of the default route, else the first that has hardware behind it.
fn default_nic(host: &Host) -> Option<String> {
    let routes = host.text("/proc/net/route").unwrap_or_default();
    let routed = routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let (nic, destination) = (fields.next()?, fields.next()?);
        (destination == "00000000").then(|| nic.to_string())
    });
    let hardware = || {
        let mut names = host.list("/sys/class/net").into_iter();
        names.find(|nic| host.exists(&format!("/sys/class/net/{nic}/device")))
    };
    routed.filter(|nic| host.exists(&format!("/sys/class/net/{nic}"))).or_else(hardware)
}

fn disks_under(host: &Host, mount: &Mount) -> Vec<String> {
    let Some(name) = mount.device.strip_prefix("/dev/") else { return Vec::new() };
    let device = match name.strip_prefix("mapper/") {
        Some(mapped) => {
            let named = |dm: &String| host.word(&format!("/sys/block/{dm}/dm/name")).is_some_and(|is| is == mapped);
            match host.list("/sys/block").into_iter().find(named) {
                Some(dm) => dm,
                None => return Vec::new(),
            }
        }
        None => name.to_string(),
    };
    let mut disks = Vec::new();
    whole_disks(host, &device, &mut disks, 0);
    disks
}

/// A partition's disk, or the disks that a volume is made of; volumes on volumes end at a depth no one builds.
fn whole_disks(host: &Host, device: &str, into: &mut Vec<String>, depth: usize) {
    let blocks = host.list("/sys/block");
    let Some(disk) =
        blocks.iter().find(|disk| *disk == device || host.exists(&format!("/sys/block/{disk}/{device}/partition")))
    else {
        return;
    };
    let members = host.list(&format!("/sys/block/{disk}/slaves"));
    if members.is_empty() || depth > 8 {
        if !into.contains(disk) {
            into.push(disk.clone());
        }
        return;
    }
    for member in members {
        whole_disks(host, &member, into, depth + 1);
    }
}
