//! Tells systemd (`Type=notify`) how the service is doing. Without `NOTIFY_SOCKET` in the environment nothing happens.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The service accepts connections.
pub fn ready() -> io::Result<()> {
    notify("READY=1")
}

/// The service is stopping.
pub fn stopping() -> io::Result<()> {
    notify("STOPPING=1")
}

fn notify(state: &str) -> io::Result<()> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(name) if !name.is_empty() => send(&name, state),
        _ => Ok(()),
    }
}

/// To a path, or to a name in the abstract space when it begins with `@`.
fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> Vec<u8> {
        let mut bytes = [0; 64];
        let size = socket.recv(&mut bytes).expect("a datagram");
        bytes[..size].to_vec()
    }

    #[test]
    fn the_state_arrives_by_path_and_by_abstract_name() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bind");
        send(path.as_os_str(), "READY=1").expect("send");
        assert_eq!(received(&socket), b"READY=1");

        let name = format!("ringlane-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("name")).expect("bind");
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").expect("send");
        assert_eq!(received(&socket), b"STOPPING=1");
        send(OsStr::new("/nowhere/at/all"), "READY=1").expect_err("nobody there");
    }
}
