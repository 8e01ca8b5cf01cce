//! NUMA nodes and where the shards, the NIC and the disk are.

use crate::cpus;
use crate::host::Host;
use crate::knob::{Area, Knob, Reading};
use crate::knobs::numa_balancing::is_node;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "shard-placement",
    area: Area::Cpu,
    what: "NUMA nodes of the shards' cores, the NIC and the disk",
    why: "A shard on another node than the NIC reads every packet across the link between the sockets; when all shards are on the wrong node, so is all traffic",
    source: "kernel Documentation/networking/scaling.rst, suggested configuration; admin-guide/mm/numaperf.rst",
    risk: "reported only; choose with --cores",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    const AT: &str = "/sys/devices/system/node";
    let nodes: Vec<(String, Vec<usize>)> = host
        .list(AT)
        .into_iter()
        .filter(|name| is_node(name))
        .filter_map(|node| Some((node.clone(), cpus::parse_list(&host.word(&format!("{AT}/{node}/cpulist"))?)?)))
        .collect();
    if nodes.len() < 2 {
        return vec![Reading::info("one node", "every core is as near as any other").item("nodes")];
    }
    let mut readings = Vec::new();
    for (node, all) in &nodes {
        let shards: Vec<usize> = plan.cores.iter().filter(|core| all.contains(core)).copied().collect();
        let note = format!("cores {}", cpus::list(all));
        let now = if shards.is_empty() { "no shards".to_string() } else { format!("shards {}", cpus::list(&shards)) };
        readings.push(Reading::info(now, note).item(node.as_str()));
    }
    if let Some(nic) = &plan.nic
        && let Some(node) = host.word(&format!("/sys/class/net/{nic}/device/numa_node"))
    {
        let near = nodes.iter().find(|(name, _)| *name == format!("node{node}"));
        readings.push(match near {
            Some((_, all)) if !plan.cores.iter().any(|core| all.contains(core)) => {
                let note = format!("no shard is on the NIC's node: --cores {}", cpus::list(all));
                Reading::by_hand(format!("node{node}"), "a node with shards", note)
            }
            Some(_) => Reading::info(format!("node{node}"), ""),
            None => Reading::info(node, "-1 is no node in particular"),
        }
        .item(nic.as_str()));
    }
    for disk in &plan.disks {
        if let Some(node) = host.word(&format!("/sys/block/{disk}/device/numa_node")) {
            readings.push(Reading::info(format!("node{node}"), "").item(disk.as_str()));
        }
    }
    readings
}
