//! net.core.netdev_budget and netdev_budget_usecs: how much one softirq round may receive.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, at_least};
use crate::knobs::netdev_backlog::softnet_column;
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "netdev-budget",
    area: Area::Net,
    what: "Packets and time of one receive round (net.core.netdev_budget, netdev_budget_usecs)",
    why: "A round that ends with packets still waiting hands the rest to ksoftirqd, which then competes with the shard pinned to that core; the third column of /proc/net/softnet_stat counts such rounds",
    source: "kernel Documentation/admin-guide/sysctl/net.rst, netdev_budget and netdev_budget_usecs",
    risk: "a longer round delays the shard on that core by up to the time given",
    dev: false,
    check,
};

fn check(host: &Host, _: &Plan) -> Vec<Reading> {
    let squeezed = softnet_column(host, 2);
    // Only evidence makes it worth changing: the defaults are right until rounds run out.
    const SQUEEZED_MANY: u64 = 1000;
    let settings = [("netdev_budget", 600), ("netdev_budget_usecs", 4000)];
    let reading = |(name, least): (&str, u64)| {
        let place = Place::sysctl(&format!("net.core.{name}"));
        match squeezed {
            Some(count) if count < SQUEEZED_MANY => match host.read(&place) {
                Ok(now) => Reading::ok(now, "as it is").note(format!("rounds out of budget since boot: {count}")),
                Err(why) => why.into(),
            },
            Some(count) => {
                at_least(host, place, least).with_note(&format!("rounds out of budget since boot: {count}"))
            }
            None => at_least(host, place, least),
        }
        .item(name)
    };
    settings.map(reading).into()
}
