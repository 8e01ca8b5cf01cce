//! Interrupts of the NIC: queue `i` on the core of shard `i`.

use crate::cpus;
use crate::host::Host;
use crate::knob::{Area, Knob, Reading, judge};
use crate::knobs::nic_queues::no_nic;
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "irq-affinity",
    area: Area::Nic,
    what: "Which core takes the interrupt of each NIC queue (/proc/irq/N/smp_affinity_list)",
    why: "Packet handling runs where the interrupt arrives; on the shard's own core the data is in its cache when the ring completes, and no other shard is interrupted for it",
    source: "kernel Documentation/core-api/irq/irq-affinity.rst and networking/scaling.rst",
    risk: "irqbalance, when it runs, undoes it within seconds",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let Some(nic) = &plan.nic else { return vec![no_nic()] };
    let interrupts = queue_interrupts(host, nic);
    if interrupts.is_empty() {
        return vec![Reading::unavailable(format!("{nic} has no interrupt per queue that could be placed"))];
    }
    let one = |(interrupt, queue): (u32, usize)| {
        let core = *plan.cores.get(queue)?;
        let place = Place::file(format!("/proc/irq/{interrupt}/smp_affinity_list"));
        let reading = judge(host, place, "its shard's core", &core.to_string(), |now| {
            cpus::parse_list(now).map(|cpus| cpus == [core])
        });
        Some(reading.item(format!("irq{interrupt}")))
    };
    interrupts.into_iter().filter_map(one).collect()
}

/// (interrupt, queue) of everything in /proc/interrupts that belongs to a queue of the NIC.
fn queue_interrupts(host: &Host, nic: &str) -> Vec<(u32, usize)> {
    let device = format!("/sys/class/net/{nic}/device");
    // A virtio NIC's interrupts belong to the PCI device above it.
    let mut own = host.list(&format!("{device}/msi_irqs"));
    own.extend(host.list(&format!("{device}/../msi_irqs")));
    let text = host.text("/proc/interrupts").unwrap_or_default();
    let one = |line: &str| {
        let (number, rest) = line.trim_start().split_once(':')?;
        let name = rest.split_whitespace().last()?;
        let belongs = own.iter().any(|is| is == number) || name.starts_with(&format!("{nic}-"));
        Some((number.parse().ok()?, queue_of(name).filter(|_| belongs)?))
    };
    text.lines().filter_map(one).collect()
}

/// The queue in names such as `ens5-Tx-Rx-3`, `mlx5_comp3@pci:0000:17:00.0`, `virtio1-input.0`, `i40e-eth0-TxRx-3`.
fn queue_of(name: &str) -> Option<usize> {
    let name = name.split('@').next()?;
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (label, number) = name.split_at(name.len() - digits);
    let label = label.to_ascii_lowercase();
    let queue = ["rx", "tx", "comp", "input", "output", "queue", "fp"].iter().any(|word| label.contains(word));
    number.parse().ok().filter(|_| queue)
}

#[cfg(test)]
mod tests {
    use super::queue_of;

    #[test]
    fn drivers_name_their_queues_in_many_ways() {
        for (name, queue) in [
            ("ens5-Tx-Rx-3", Some(3)),
            ("mlx5_comp12@pci:0000:17:00.0", Some(12)),
            ("virtio1-input.0", Some(0)),
            ("i40e-eth0-TxRx-7", Some(7)),
            ("eth0-rx-1", Some(1)),
            ("mlx5_async0@pci:0000:17:00.0", None),
            ("ena-mgmnt@pci:0000:00:05.0", None),
            ("virtio1-config", None),
        ] {
            assert_eq!(queue_of(name), queue, "{name}");
        }
    }
}
