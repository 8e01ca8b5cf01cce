//! Mounts: /proc/self/mounts as lines, which one holds a path, and access-time options.

use std::io;
use std::path::Path;

use nix::mount::MsFlags;

/// One line of /proc/self/mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub device: String,
    pub point: String,
    pub file_system: String,
    pub options: Vec<String>,
}

impl Mount {
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|is| is == option)
    }
}

pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let (device, point) = (fields.next()?, fields.next()?);
    let (file_system, options) = (fields.next()?, fields.next()?);
    Some(Mount {
        device: device.to_string(),
        // The kernel writes a blank in a name as \040.
        point: point.replace("\\040", " "),
        file_system: file_system.to_string(),
        options: options.split(',').map(str::to_string).collect(),
    })
}

/// The mount that holds `path`: the longest point, the last one mounted there.
pub fn covering(mounts: &[Mount], path: impl AsRef<Path>) -> Option<&Mount> {
    let path = path.as_ref();
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| Path::new(&mount.point).components().count())
}

pub fn atime(mounts: &[Mount], point: &str) -> Option<String> {
    let mount = mounts.iter().rfind(|mount| mount.point == point)?;
    let known = ["noatime", "relatime"].into_iter().find(|option| mount.has(option));
    Some(known.unwrap_or("strictatime").to_string())
}

/// The text of /proc/self/mounts after such a remount. Only copied trees need it.
pub fn with_atime(text: &str, point: &str, option: &str) -> String {
    let changed = text.lines().map(|line| {
        let mut fields: Vec<String> = line.split(' ').map(str::to_string).collect();
        if fields.get(1).is_none_or(|at| at != point) {
            return line.to_string();
        }
        if let Some(options) = fields.get_mut(3) {
            let kept = options.split(',').map(|is| match is {
                "noatime" | "relatime" if option != "strictatime" => option,
                other => other,
            });
            *options = kept.collect::<Vec<_>>().join(",");
        }
        fields.join(" ")
    });
    changed.collect::<Vec<_>>().join("\n") + if text.ends_with('\n') { "\n" } else { "" }
}

/// MS_BIND | MS_REMOUNT changes the flags of this mount only and leaves the file system's own options alone; every flag
/// that is to stay must be given again.
pub fn remount(mounts: &[Mount], point: &str, option: &str) -> io::Result<()> {
    let mount = mounts.iter().rfind(|mount| mount.point == point).ok_or(io::ErrorKind::NotFound)?;
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    for (name, flag) in [
        ("ro", MsFlags::MS_RDONLY),
        ("nosuid", MsFlags::MS_NOSUID),
        ("nodev", MsFlags::MS_NODEV),
        ("noexec", MsFlags::MS_NOEXEC),
        ("nodiratime", MsFlags::MS_NODIRATIME),
    ] {
        if mount.has(name) {
            flags |= flag;
        }
    }
    flags |= match option {
        "noatime" => MsFlags::MS_NOATIME,
        "relatime" => MsFlags::MS_RELATIME,
        _ => MsFlags::MS_STRICTATIME,
    };
    nix::mount::mount(None::<&str>, point, None::<&str>, flags, None::<&str>).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str =
        "/dev/sda1 / ext4 rw,relatime 0 0\n/dev/sdb1 /var/lib/my\\040data xfs rw,noatime 0 0\nproc /proc proc rw 0 0\n";

    #[test]
    fn the_longest_point_holds_a_path() {
        let mounts = parse(MOUNTS);
        assert_eq!(covering(&mounts, "/var/lib/my data/x").map(|m| m.device.as_str()), Some("/dev/sdb1"));
        assert_eq!(covering(&mounts, "/var/lib/my datax").map(|m| m.device.as_str()), Some("/dev/sda1"));
        assert_eq!(atime(&mounts, "/").as_deref(), Some("relatime"));
        assert_eq!(atime(&mounts, "/proc").as_deref(), Some("strictatime"));
    }

    #[test]
    fn a_remount_and_back_leaves_the_text_as_it_was() {
        let changed = with_atime(MOUNTS, "/", "noatime");
        assert_eq!(atime(&parse(&changed), "/").as_deref(), Some("noatime"));
        assert_eq!(with_atime(&changed, "/", "relatime"), MOUNTS);
    }
}
