//! What `ethtool` shows of a network interface: rings, channels, coalescing and features over generic netlink.
//!
//! Flow rules (`ntuple`) have no netlink message, only an ioctl: for these, and these alone, the program `ethtool` is run.
//! Numbers are those of linux/ethtool_netlink.h.

use std::io;

use crate::host::{Unreadable, run};
use crate::netlink::{Attributes, Family, parse};

struct Group {
    name: &'static str,
    get: u8,
    set: u8,
    /// (key, attribute, its width in bytes)
    fields: &'static [(&'static str, u16, usize)],
}

const GROUPS: [Group; 3] = [
    Group { name: "ring", get: 15, set: 16, fields: &[("rx-max", 2, 4), ("tx-max", 5, 4), ("rx", 6, 4), ("tx", 9, 4)] },
    Group { name: "channel", get: 17, set: 18, fields: &[("combined-max", 5, 4), ("combined", 9, 4)] },
    Group {
        name: "coalesce",
        get: 19,
        set: 20,
        fields: &[("rx-usecs", 2, 4), ("tx-usecs", 6, 4), ("adaptive-rx", 11, 1), ("adaptive-tx", 12, 1)],
    },
];

const HEADER: u16 = 1;
const DEVICE_NAME: u16 = 2;
const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;
const FEATURES_HARDWARE: u16 = 2;
const FEATURES_WANTED: u16 = 3;
const FEATURES_ACTIVE: u16 = 4;
const BITSET_BITS: u16 = 3;
const BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

pub fn get(nic: &str, key: &str) -> Result<String, Unreadable> {
    let (group, name) = key.split_once('/').unwrap_or((key, ""));
    let answer = if group == "feature" { feature(nic, name) } else { number(nic, group, name) };
    answer.map_err(|error| match error.raw_os_error() {
        Some(libc_errno::EOPNOTSUPP) => Unreadable::Other(format!("the driver of {nic} does not offer it")),
        Some(libc_errno::ENODEV) => Unreadable::Other(format!("no interface {nic}")),
        Some(libc_errno::ENOENT) => Unreadable::Other("this kernel has no ethtool netlink (5.6 or later has)".into()),
        _ => error.into(),
    })
}

pub fn set(nic: &str, key: &str, value: &str) -> io::Result<()> {
    let (group, name) = key.split_once('/').unwrap_or((key, ""));
    let mut body = header(nic);
    if group == "feature" {
        let mut bit = Attributes::default();
        bit.text(BIT_NAME, name);
        if value == "on" {
            bit.bytes(BIT_VALUE, &[]);
        }
        let mut bits = Attributes::default();
        bits.nest(BIT, &bit);
        let mut bitset = Attributes::default();
        bitset.nest(BITSET_BITS, &bits);
        body.nest(FEATURES_WANTED, &bitset);
        return Family::open("ethtool")?.set(FEATURES_SET, &body);
    }
    let (group, attribute, width) = field(group, name)?;
    let number: u32 = match value {
        "on" => 1,
        "off" => 0,
        number => number.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
    };
    match width {
        1 => body.bytes(attribute, &[number as u8]),
        _ => body.bytes(attribute, &number.to_ne_bytes()),
    }
    Family::open("ethtool")?.set(group.set, &body)
}

fn header(nic: &str) -> Attributes {
    let mut device = Attributes::default();
    device.text(DEVICE_NAME, nic);
    let mut body = Attributes::default();
    body.nest(HEADER, &device);
    body
}

fn field(group: &str, name: &str) -> io::Result<(&'static Group, u16, usize)> {
    let group = GROUPS.iter().find(|is| is.name == group).ok_or(io::ErrorKind::InvalidInput)?;
    let (_, attribute, width) =
        group.fields.iter().find(|(is, _, _)| *is == name).ok_or(io::ErrorKind::InvalidInput)?;
    Ok((group, *attribute, *width))
}

fn number(nic: &str, group: &str, name: &str) -> io::Result<String> {
    let (group, attribute, _) = field(group, name)?;
    let answer = Family::open("ethtool")?.get(group.get, &header(nic))?;
    let value = parse(&answer).find(|(kind, _)| *kind == attribute).map(|(_, value)| value);
    match value {
        Some([flag]) => Ok(if *flag == 0 { "off" } else { "on" }.to_string()),
        Some([a, b, c, d]) => Ok(u32::from_ne_bytes([*a, *b, *c, *d]).to_string()),
        _ => Err(io::Error::from_raw_os_error(libc_errno::EOPNOTSUPP)),
    }
}

/// `on`, `off`, or either with ` [fixed]` when the driver does not let it be changed.
fn feature(nic: &str, name: &str) -> io::Result<String> {
    let answer = Family::open("ethtool")?.get(FEATURES_GET, &header(nic))?;
    let set = |which: u16| {
        parse(&answer)
            .filter(|(kind, _)| *kind == which)
            .flat_map(|(_, bitset)| parse(bitset))
            .filter(|(kind, _)| *kind == BITSET_BITS)
            .flat_map(|(_, bits)| parse(bits))
            .any(|(_, bit)| bit_is(bit, name, which == FEATURES_HARDWARE))
    };
    let active = if set(FEATURES_ACTIVE) { "on" } else { "off" };
    let fixed = if set(FEATURES_HARDWARE) { "" } else { " [fixed]" };
    Ok(format!("{active}{fixed}"))
}

/// The hardware set comes with a mask: every feature is listed and those that can be changed carry a value. The active
/// set has no mask: to be listed is to be on.
fn bit_is(bit: &[u8], name: &str, masked: bool) -> bool {
    let named = parse(bit).any(|(kind, value)| kind == BIT_NAME && value.strip_suffix(&[0]) == Some(name.as_bytes()));
    named && (!masked || parse(bit).any(|(kind, _)| kind == BIT_VALUE))
}

pub fn rule(nic: &str, port: u16) -> Result<String, Unreadable> {
    let shown = run("ethtool", &["-n", nic]).map_err(|error| Unreadable::Other(error.to_string()))?;
    Ok(rules(&shown).find(|rule| rule.port == port).map_or("none".to_string(), |rule| rule.queue))
}

pub fn set_rule(nic: &str, port: u16, value: &str) -> io::Result<()> {
    let shown = run("ethtool", &["-n", nic])?;
    for old in rules(&shown).filter(|rule| rule.port == port) {
        run("ethtool", &["-N", nic, "delete", &old.id])?;
    }
    if value != "none" {
        run("ethtool", &["-N", nic, "flow-type", "tcp4", "dst-port", &port.to_string(), "action", value])?;
    }
    Ok(())
}

struct Rule {
    id: String,
    port: u16,
    queue: String,
}

/// The rules of `ethtool -n` that steer a TCP over IPv4 destination port to a queue.
fn rules(shown: &str) -> impl Iterator<Item = Rule> {
    shown.split("Filter: ").skip(1).filter_map(|rule| {
        let line = |label: &str| rule.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
        if !line("Rule Type:")?.starts_with("TCP over IPv4") {
            return None;
        }
        Some(Rule {
            id: rule.lines().next()?.trim().to_string(),
            port: line("Dest port:")?.split(' ').next()?.parse().ok()?,
            queue: line("Action: Direct to queue")?.to_string(),
        })
    })
}

/// The three errno values that are told apart here.
mod libc_errno {
    pub const ENOENT: i32 = 2;
    pub const ENODEV: i32 = 19;
    pub const EOPNOTSUPP: i32 = 95;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_rules_are_read_from_what_ethtool_prints() {
        let shown = "8 RX rings available\nTotal 2 rules\n\nFilter: 1022\n\tRule Type: TCP over IPv4\n\
            \tSrc IP addr: 0.0.0.0 mask: 255.255.255.255\n\tSrc port: 0 mask: 0xffff\n\
            \tDest port: 9093 mask: 0x0\n\tAction: Direct to queue 1\n\nFilter: 1023\n\tRule Type: UDP over IPv4\n\
            \tDest port: 9092 mask: 0x0\n\tAction: Direct to queue 5\n";
        let found: Vec<_> = rules(shown).map(|rule| (rule.id, rule.port, rule.queue)).collect();
        assert_eq!(found, [("1022".to_string(), 9093, "1".to_string())]);
    }

    #[test]
    fn an_unknown_interface_is_a_reason_and_not_a_panic() {
        assert!(get("no-such-nic", "ring/rx").is_err());
        assert!(get("no-such-nic", "feature/rx-gro").is_err());
        assert!(set("no-such-nic", "ring/rx", "x").is_err());
    }
}
