//! Mount options of the data: access times.

use crate::host::Host;
use crate::knob::{Area, Knob, Reading, exactly};
use crate::place::Place;
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "mount-options",
    area: Area::Disk,
    what: "Access times of the file system with the data (noatime; lazytime shown)",
    why: "Every fetch would otherwise be a reason to write an inode: with strictatime on each read, with relatime once a day and file. lazytime keeps the modification times of appends in memory in the same way",
    source: "mount(8), relatime, noatime and lazytime; measured (results/, knobs): noatime or strictatime is the same to fetches that find everything in the page cache",
    risk: "none for logs; a mail reader on the same file system may want access times. Lasts until the next mount: put it into /etc/fstab",
    dev: false,
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Reading> {
    let Some(mount) = &plan.mount else { return vec![Reading::unavailable("no mount found for the data directory")] };
    let place = Place::Atime { mount: mount.point.clone() };
    let lazy = if mount.has("lazytime") { "lazytime" } else { "not lazytime" };
    let atime = match host.read(&place) {
        Err(why) => why.into(),
        Ok(now) if now == "noatime" => Reading::ok(now, "noatime"),
        Ok(now) if plan.disks.is_empty() => Reading::info(now, format!("{} is no disk of this host", mount.file_system)),
        Ok(now) if mount.point == "/" && now == "relatime" => {
            Reading::info(now, "the data shares / with the system: left as it is; give it a file system of its own")
        }
        Ok(_) => exactly(host, place, "noatime"),
    };
    vec![atime.item(mount.point.as_str()), Reading::info(lazy, "an option for /etc/fstab").item("lazytime")]
}
