//! Is a peer *near*, on this very host? Then its kernel is ours: bytes sent by reference lie, acknowledged, in its
//! receive queue and are still the pages of our file. (Measured: `sendfile` over loopback, acknowledged, then the file
//! overwritten: the peer reads the new bytes.) Only over a network device does an acknowledgement mean that a copy arrived.
//!
//! Near are: loopback, our own addresses, and whoever comes in through a virtual device (veth, bridge: containers).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::Path;

/// Remembers which network devices are real ones.
#[derive(Default)]
pub(super) struct Peers {
    /// By interface index.
    virtual_devices: HashMap<i32, bool>,
}

impl Peers {
    /// Of an accepted connection. In doubt: near, which costs only the overwriting of files it reads.
    pub fn is_near(&mut self, fd: RawFd, peer: SocketAddr) -> bool {
        if peer.ip().to_canonical().is_loopback() {
            return true;
        }
        match incoming_interface(fd, peer) {
            Some(index) => *self.virtual_devices.entry(index).or_insert_with(|| is_virtual(index)),
            None => true,
        }
    }
}

/// A real device, or a bond or VLAN of real ones only, is not virtual.
fn is_virtual(index: i32) -> bool {
    let name = u32::try_from(index).ok().and_then(|index| nix::net::if_::if_indextoname(index).ok());
    let Some(name) = name.as_ref().and_then(|name| name.to_str().ok()) else { return true };
    is_virtual_device(Path::new("/sys/class/net"), name, 4)
}

fn is_virtual_device(root: &Path, name: &str, depth: u32) -> bool {
    let device = root.join(name);
    if device.join("device").exists() {
        return false;
    }
    let Ok(entries) = device.read_dir() else { return true };
    let names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    let mut lowers = names.iter().filter_map(|name| name.strip_prefix("lower_")).peekable();
    depth == 0 || lowers.peek().is_none() || lowers.any(|lower| is_virtual_device(root, lower, depth - 1))
}

/// Index of the interface through which the connection was opened. Loopback for one of our own addresses.
fn incoming_interface(fd: RawFd, peer: SocketAddr) -> Option<i32> {
    if !peer.ip().to_canonical().is_ipv4() {
        return incoming_interface_v6(fd);
    }
    // The kernel answers with the packet options only of what was asked for.
    set_flag(fd, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
    let control = packet_options(fd, libc::IPPROTO_IP, libc::IP_PKTOPTIONS)?;
    let info: libc::in_pktinfo = control.find(libc::IPPROTO_IP, libc::IP_PKTINFO)?;
    Some(info.ipi_ifindex).filter(|&index| index > 0)
}

fn incoming_interface_v6(fd: RawFd) -> Option<i32> {
    const IPV6_2292PKTINFO: i32 = 2;
    const IPV6_2292PKTOPTIONS: i32 = 6;
    set_flag(fd, libc::IPPROTO_IPV6, IPV6_2292PKTINFO)?;
    let control = packet_options(fd, libc::IPPROTO_IPV6, IPV6_2292PKTOPTIONS)?;
    let info: libc::in6_pktinfo = control.find(libc::IPPROTO_IPV6, IPV6_2292PKTINFO)?;
    i32::try_from(info.ipi6_ifindex).ok().filter(|&index| index > 0)
}

fn set_flag(fd: RawFd, level: i32, name: i32) -> Option<()> {
    let on: libc::c_int = 1;
    // SAFETY: reads one int.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const on).cast(), size_of::<libc::c_int>() as u32) };
    (result == 0).then_some(())
}

/// Control messages as the kernel lays them out.
#[repr(C, align(8))]
struct Control {
    bytes: [u8; 256],
    size: usize,
}

fn packet_options(fd: RawFd, level: i32, name: i32) -> Option<Control> {
    let mut control = Control { bytes: [0; 256], size: 0 };
    let mut size = control.bytes.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes and says how many.
    let result = unsafe { libc::getsockopt(fd, level, name, control.bytes.as_mut_ptr().cast(), &mut size) };
    control.size = (size as usize).min(control.bytes.len());
    (result == 0).then_some(control)
}

impl Control {
    /// The data of one message, if it is there.
    fn find<T: Copy>(&self, level: i32, kind: i32) -> Option<T> {
        const HEADER: usize = size_of::<libc::cmsghdr>();
        let mut at = 0;
        while at + HEADER <= self.size {
            // SAFETY: a header's bytes are there, and any bytes make one.
            let header: libc::cmsghdr = unsafe { std::ptr::read_unaligned(self.bytes.as_ptr().add(at).cast()) };
            let size = header.cmsg_len;
            if size < HEADER || at + size > self.size {
                return None;
            }
            if header.cmsg_level == level && header.cmsg_type == kind && size >= HEADER + size_of::<T>() {
                // SAFETY: as many bytes are there, and `T` is one of the kernel's plain structs.
                return Some(unsafe { std::ptr::read_unaligned(self.bytes.as_ptr().add(at + HEADER).cast()) });
            }
            at += size.next_multiple_of(size_of::<usize>());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn devices_are_told_apart_by_what_carries_them() {
        let root = tempfile::tempdir().expect("directory");
        let make = |path: &str| std::fs::create_dir_all(root.path().join(path)).expect("directory");
        ["eth0/device", "veth1", "bond0/lower_eth0", "br0/lower_eth0", "br0/lower_veth1"].into_iter().for_each(make);
        let is_virtual = |name| is_virtual_device(root.path(), name, 4);
        assert!(!is_virtual("eth0") && !is_virtual("bond0"));
        assert!(is_virtual("veth1") && is_virtual("br0") && is_virtual("gone"));
    }

    #[test]
    fn loopback_is_near_and_its_interface_is_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (server, peer) = listener.accept().expect("accept");
        assert!(Peers::default().is_near(server.as_raw_fd(), peer));
        let index = incoming_interface(server.as_raw_fd(), peer).expect("interface");
        let name = nix::net::if_::if_indextoname(index as u32).expect("name");
        assert_eq!(name.to_str(), Ok("lo"));
        drop(client);
    }
}
