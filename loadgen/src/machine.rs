//! Facts about this host that a figure is worthless without, and what a process has used so far, all from /proc and
//! /sys. Host names are not kept: a run file may be published.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;
use ringlane_tune::{Deployment, Finding, Verdict, check_host};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// A neutral name: the number of cores unless the user gave one.
    pub name: String,
    pub cpu: String,
    pub cores: usize,
    pub numa_nodes: usize,
    pub threads_per_core: String,
    pub memory_bytes: u64,
    pub kernel: String,
    pub virtualization: String,
    pub governor: String,
    pub clock_source: String,
    pub transparent_hugepages: String,
    pub mitigations: String,
    pub nics: Vec<Nic>,
    /// Kernel settings that decide results: sockets, page cache, io_uring.
    pub sysctl: BTreeMap<String, String>,
    pub file_system: String,
    /// What the host tuner says of this host, as a place for a broker on the broker's cores.
    pub tuning: Vec<Finding>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Nic {
    pub name: String,
    pub driver: String,
    pub speed_mbit: String,
    pub queues: usize,
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|s| s.trim().to_string()).unwrap_or_default()
}

/// The chosen word of a file such as `always [madvise] never`.
fn chosen(path: &str) -> String {
    let text = read(path);
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word.to_string()).unwrap_or(text)
}

fn or_unknown(s: String) -> String {
    if s.is_empty() { "unknown".into() } else { s }
}

fn count_dirs(path: &str, prefix: &str) -> usize {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).count()
}

const SYSCTLS: &[&str] = &[
    "kernel.io_uring_disabled",
    "net.core.busy_poll",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_max",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "vm.dirty_background_bytes",
    "vm.dirty_background_ratio",
    "vm.dirty_bytes",
    "vm.dirty_ratio",
    "vm.swappiness",
];

impl Machine {
    /// `data_dir`: where an embedded broker keeps its logs, on `broker_cores`.
    pub fn probe(name: Option<&str>, data_dir: &Path, broker_cores: &[usize]) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == name));
            line.and_then(|l| l.split_once(':')).map(|(_, v)| v.trim().to_string()).unwrap_or_default()
        };
        let cores = cpuinfo.lines().filter(|l| l.starts_with("processor")).count();
        let siblings = read("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list");
        let vulnerabilities = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten();
        let mut mitigated: Vec<String> = vulnerabilities
            .filter(|e| fs::read_to_string(e.path()).is_ok_and(|s| s.starts_with("Mitigation")))
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        mitigated.sort();
        Machine {
            name: name.map(str::to_string).unwrap_or_else(|| format!("{cores}-core")),
            cpu: field("model name"),
            cores,
            numa_nodes: count_dirs("/sys/devices/system/node", "node").max(1),
            threads_per_core: if siblings.contains([',', '-']) { "2" } else { "1" }.into(),
            memory_bytes: meminfo("MemTotal"),
            kernel: read("/proc/sys/kernel/osrelease"),
            virtualization: if field("flags").split(' ').any(|f| f == "hypervisor") { "virtual" } else { "bare metal" }
                .into(),
            governor: or_unknown(read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
            clock_source: or_unknown(read("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
            transparent_hugepages: or_unknown(chosen("/sys/kernel/mm/transparent_hugepage/enabled")),
            mitigations: if mitigated.is_empty() { "none active".into() } else { mitigated.join(", ") },
            nics: nics(),
            sysctl: SYSCTLS
                .iter()
                .map(|name| (name.to_string(), read(&format!("/proc/sys/{}", name.replace('.', "/")))))
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name, value.split_whitespace().collect::<Vec<_>>().join(" ")))
                .collect(),
            file_system: file_system(data_dir),
            tuning: check_host(
                Path::new("/"),
                &Deployment {
                    cores: Some(broker_cores.to_vec()),
                    data_dir: data_dir.to_path_buf(),
                    ..Deployment::default()
                },
            ),
        }
    }

    /// The findings that hold a broker back.
    pub fn short(&self) -> impl Iterator<Item = &Finding> {
        self.tuning.iter().filter(|f| f.verdict == Verdict::Short)
    }
}

fn nics() -> Vec<Nic> {
    let mut nics: Vec<Nic> = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| {
            let name = e.file_name().to_string_lossy().into_owned();
            let base = format!("/sys/class/net/{name}");
            let driver = fs::read_link(format!("{base}/device/driver"));
            Nic {
                driver: driver
                    .ok()
                    .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()))
                    .unwrap_or_else(|| "virtual".into()),
                speed_mbit: or_unknown(read(&format!("{base}/speed"))),
                queues: count_dirs(&format!("{base}/queues"), "rx-"),
                name,
            }
        })
        .collect();
    nics.sort_by(|a, b| a.name.cmp(&b.name));
    nics
}

/// Type and mount options of the file system that holds `dir`.
fn file_system(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let mounts = read("/proc/mounts");
    let best = mounts
        .lines()
        .filter_map(|line| {
            let mut f = line.split(' ');
            Some((f.nth(1)?, f.next()?, f.next()?))
        })
        .filter(|(at, ..)| dir.starts_with(at))
        .max_by_key(|(at, ..)| at.len());
    best.map(|(_, kind, options)| format!("{kind} ({options})")).unwrap_or_else(|| "unknown".into())
}

/// A field of /proc/meminfo, in bytes.
pub fn meminfo(field: &str) -> u64 {
    let text = read("/proc/meminfo");
    let line = text.lines().find(|l| l.split(':').next() == Some(field));
    let kib: u64 = line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0);
    kib * 1024
}

/// CPU seconds that all processes of this host have used so far, and seconds a hypervisor took away.
pub fn host_cpu_s() -> f64 {
    let text = read("/proc/stat");
    let fields: Vec<f64> =
        text.lines().next().unwrap_or("").split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    [0, 1, 2, 5, 6, 7].iter().filter_map(|i| fields.get(*i)).sum::<f64>() / 100.0
}

/// CPU seconds of this process so far.
pub fn process_cpu_s() -> f64 {
    cpu_s(UsageWho::RUSAGE_SELF)
}

/// CPU seconds of the calling thread so far.
pub fn thread_cpu_s() -> f64 {
    cpu_s(UsageWho::RUSAGE_THREAD)
}

fn cpu_s(who: UsageWho) -> f64 {
    getrusage(who).map_or(0.0, |r| {
        let s = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
        s(r.user_time()) + s(r.system_time())
    })
}

/// Binds the calling thread, and every process and thread it starts from now on, to `cores`.
pub fn pin(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core).with_context(|| format!("core {core}"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("bind to cores {cores:?}; this host has cores {:?}", allowed_cores()))
}

/// The cores this thread may use.
pub fn allowed_cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return vec![0] };
    (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect()
}

/// What a process has used since it began, as far as this kernel tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu_s: f64,
    pub rss_bytes: u64,
    pub context_switches: u64,
    pub threads: u64,
    /// Kernel threads that io_uring started because an operation would have blocked.
    pub io_workers: u64,
    pub page_cache_bytes: u64,
}

impl Usage {
    pub fn of(pid: i32) -> Option<Usage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        let mut usage = Usage {
            cpu_s: ticks / 100.0, // USER_HZ is 100 on every architecture Linux still supports
            rss_bytes: status_field(&format!("/proc/{pid}/status"), "VmRSS:") * 1024,
            page_cache_bytes: meminfo("Cached"),
            ..Usage::default()
        };
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            let dir = task.path();
            let status = dir.join("status");
            let status = status.to_string_lossy();
            usage.threads += 1;
            usage.context_switches += status_field(&status, "voluntary_ctxt_switches:");
            usage.context_switches += status_field(&status, "nonvoluntary_ctxt_switches:");
            if fs::read_to_string(dir.join("comm")).is_ok_and(|comm| comm.starts_with("iou-wrk")) {
                usage.io_workers += 1;
            }
        }
        Some(usage)
    }
}

fn status_field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(name));
    line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The process that listens on a local TCP port, if it is one of this host's and we may look.
pub fn listener(port: u16) -> Option<i32> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let f: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) = (f.get(1), f.get(3), f.get(9)) else { continue };
            if *state == "0A" && local.ends_with(&format!(":{port:04X}")) {
                inodes.push(format!("socket:[{inode}]"));
            }
        }
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for pid in processes.filter_map(|e| e.file_name().to_string_lossy().parse::<i32>().ok()) {
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            if let Ok(target) = fs::read_link(fd.path())
                && inodes.iter().any(|i| target.as_os_str() == i.as_str())
            {
                return Some(pid);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_and_this_process_can_be_described() {
        let machine = Machine::probe(None, Path::new("/tmp"), &[0]);
        assert!(machine.cores >= 1 && machine.memory_bytes > 1 << 20 && !machine.kernel.is_empty());
        assert!(machine.tuning.iter().any(|f| f.knob == "clocksource"), "{:?}", machine.tuning);
        let usage = Usage::of(std::process::id() as i32).unwrap();
        assert!(usage.threads >= 1 && usage.rss_bytes > 0);
        assert!(Usage::of(-1).is_none());
    }

    #[test]
    fn the_process_behind_a_port_is_found() {
        let listener_socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener_socket.local_addr().unwrap().port();
        assert_eq!(listener(port), Some(std::process::id() as i32));
    }
}
