//! Client packages, installed by name once per build directory: `target/interop/<kind>`.
//!
//! A lock file keeps two test processes from installing at once, a stamp holds the exact inputs that were installed, and
//! a failed attempt is retried: a registry that hiccups must not fail a test. A runtime that this machine lacks skips
//! the test, except in CI (`CI=true`), where it is an error: silently testing nothing is worse.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;

use super::process::Process;

const INSTALL_MAX: Duration = Duration::from_secs(600);
const TRIES: usize = 4;

/// Where a kind of client is installed and how to get it there.
pub struct Kit {
    pub name: &'static str,
    /// Programs that must be on the machine; a package manager's own job, not ours.
    pub needs: &'static [&'static str],
    /// What is installed: a change of these files installs anew.
    inputs: &'static [(&'static str, &'static str)],
    steps: fn(&Path) -> Vec<Command>,
}

pub const PYTHON: Kit = Kit {
    name: "python",
    needs: &["python3"],
    inputs: &[("requirements.txt", include_str!("../python/requirements.txt"))],
    steps: |dir| {
        let pip = dir.join("bin/pip");
        vec![
            command("python3", &["-m", "venv", &text(dir)]),
            command(&text(&pip), &["install", "-q", "-r", &text(&source("python/requirements.txt"))]),
        ]
    },
};

pub const NODE: Kit = Kit {
    name: "node",
    needs: &["node", "npm"],
    inputs: &[("package.json", include_str!("../node/package.json"))],
    steps: |dir| {
        let mut npm = command("npm", &["install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]);
        npm.current_dir(dir);
        vec![command("cp", &[&text(&source("node/package.json")), &text(dir)]), npm]
    },
};

/// Older Java clients, whose jars lie in `lib-<version>`: the last before ApiVersions 4, and the last before KRaft.
pub const JAVA_3_7: &str = "3.7.2";
pub const JAVA_2_8: &str = "2.8.2";

pub const JAVA: Kit = Kit {
    name: "java",
    needs: &["java", "javac", "mvn"],
    inputs: &[
        ("pom.xml", include_str!("../java/pom.xml")),
        ("older.xml", include_str!("../java/older.xml")),
        ("older.xml of 3.7", JAVA_3_7),
        ("older.xml of 2.8", JAVA_2_8),
        ("Client.java", include_str!("../java/Client.java")),
        ("Admins.java", include_str!("../java/Admins.java")),
        ("Members.java", include_str!("../java/Members.java")),
        ("Streams.java", include_str!("../java/Streams.java")),
    ],
    steps: |dir| {
        let copy = |pom: &str, version: Option<&str>, into: &Path| {
            let mut mvn = command("mvn", &["-B", "-q", "-f", &text(&source(pom)), "dependency:copy-dependencies"]);
            mvn.arg(format!("-DoutputDirectory={}", text(into)));
            mvn.args(version.map(|version| format!("-Dkafka={version}")));
            mvn
        };
        let older = |version| copy("java/older.xml", Some(version), &dir.join(format!("lib-{version}")));
        let jars = dir.join("lib");
        let mut javac = command("javac", &["-nowarn", "-d", &text(&dir.join("classes"))]);
        javac.args(["-cp", &format!("{}/*", text(&jars))]);
        javac.args(["Client", "Admins", "Members", "Streams"].map(|class| source(&format!("java/{class}.java"))));
        vec![copy("java/pom.xml", None, &jars), older(JAVA_3_7), older(JAVA_2_8), javac]
    },
};

pub const GO: Kit = Kit {
    name: "go",
    needs: &["go"],
    inputs: &[
        ("go.mod", include_str!("../go/go.mod")),
        ("main.go", include_str!("../go/main.go")),
        ("groups.go", include_str!("../go/groups.go")),
    ],
    steps: |dir| {
        let mut build = command("go", &["build", "-o", &text(&dir.join("franz")), "."]);
        build.current_dir(source("go")).env("GOTOOLCHAIN", "local");
        vec![build]
    },
};

impl Kit {
    /// The directory it is installed in; None (and a line that says so) when this machine cannot run it.
    pub fn ready(&self) -> Option<PathBuf> {
        for need in self.needs {
            if !on_path(need) {
                return missing(&format!("{need} is not installed"));
            }
        }
        let root = root();
        fs::create_dir_all(&root).expect("creating target/interop");
        let lock = File::create(root.join(format!("{}.lock", self.name))).expect("creating a lock file");
        // A blocking lock: another test process is installing the same, each of its steps under a deadline.
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("locking");

        let dir = root.join(self.name);
        let stamp = root.join(format!("{}.stamp", self.name));
        let wanted: String = self.inputs.iter().map(|(name, content)| format!("== {name}\n{content}\n")).collect();
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            return Some(dir);
        }
        let mut reason = String::new();
        for attempt in 0..TRIES {
            thread::sleep(Duration::from_secs(5 * attempt as u64));
            let _ = fs::remove_file(&stamp);
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).expect("creating the install directory");
            match (self.steps)(&dir).into_iter().try_for_each(|step| attempt_step(self.name, step)) {
                Ok(()) => {
                    fs::write(&stamp, wanted).expect("writing the stamp");
                    return Some(dir);
                }
                Err(error) => {
                    eprintln!("installing {} failed, attempt {}: {error}", self.name, attempt + 1);
                    reason = error;
                }
            }
        }
        missing(&format!("{} clients could not be installed: {reason}", self.name))
    }
}

/// kcat comes from Debian's package.
pub fn kcat() -> Option<()> {
    fs::create_dir_all(root()).expect("creating target/interop");
    let lock = File::create(root().join("kcat.lock")).expect("creating a lock file");
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("locking");
    let mut attempt = 0;
    while !on_path("kcat") {
        if !Uid::effective().is_root() || !on_path("apt-get") {
            return missing("kcat is not installed (Debian: apt-get install kcat)");
        }
        if attempt == TRIES {
            return missing("kcat could not be installed by apt-get");
        }
        thread::sleep(Duration::from_secs(5 * attempt as u64));
        attempt += 1;
        for arguments in [&["-q", "update"][..], &["-q", "install", "-y", "kcat"][..]] {
            let mut apt = command("apt-get", arguments);
            apt.env("DEBIAN_FRONTEND", "noninteractive");
            if let Err(error) = attempt_step("kcat", apt) {
                eprintln!("installing kcat, attempt {attempt}: {error}");
            }
        }
    }
    Some(())
}

/// A file of `tests/interop`.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(path)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp has a parent").join("interop")
}

fn attempt_step(name: &str, step: Command) -> Result<(), String> {
    let mut process = Process::start(format!("install {name}"), step);
    match process.ended(INSTALL_MAX) {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("{status}\n{}", process.tail())),
        None => Err(format!("no end within {INSTALL_MAX:?}\n{}", process.tail())),
    }
}

fn missing<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}; CI must run every client");
    println!("skipped: {why}");
    None
}

fn on_path(program: &str) -> bool {
    let mut which = command("sh", &["-c", &format!("command -v {program}")]);
    which.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn text(path: &Path) -> String {
    path.to_str().expect("the build directory's path is UTF-8").to_string()
}
