//! A broker that cannot start says in one line what is wrong and what to change, and does not end with 0.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringlane");

/// `limits` goes before the program: `prlimit --nofile=64`, or nothing.
fn serve_on(address: &str, limits: &[&str], data: &Path) -> Command {
    let words = [limits, &[PROGRAM, "serve", "--cores", "0", "--data-dir"]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(data).args(["--listen", address]);
    command
}

fn serve(limits: &[&str], data: &Path) -> Command {
    serve_on("127.0.0.1:0", limits, data)
}

/// Runs a broker that must not start; what it said last.
fn refused(mut command: Command) -> String {
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default().to_string();
    assert!(last.starts_with("ringlane: "), "{said}");
    last
}

/// A broker that must start; killed at the end.
struct Started(Child);

impl Started {
    fn of(mut command: Command) -> Started {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the program runs");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let started = Started(process);
        assert!(line.starts_with("ready: "), "{line:?}");
        started
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mentions(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

#[test]
fn a_port_that_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let said = refused(serve_on(&address, &[], dir.path()));
    mentions(&said, &[&address, "taken by another process", "--listen"]);
}

#[test]
fn an_address_of_another_host() {
    let dir = tempfile::tempdir().unwrap();
    // RFC 5737: in documentation only.
    let said = refused(serve_on("192.0.2.1:9092", &[], dir.path()));
    mentions(&said, &["192.0.2.1 is no address of this host", "--listen"]);
}

#[test]
fn a_data_directory_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let first = Started::of(serve(&[], dir.path()));
    let said = refused(serve(&[], dir.path()));
    mentions(&said, &["is used by another process", &format!("(pid {})", first.0.id()), "--data-dir"]);
}

#[test]
fn a_data_directory_that_cannot_be_written() {
    let said = refused(serve(&[], Path::new("/proc/ringlane")));
    mentions(&said, &["/proc/ringlane", "--data-dir"]);
}

#[test]
fn a_damaged_meta_properties() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let whole = "version=1\ncluster.id=AAAAAAAAAAAAAAAAAAAAAQ\nnode.id=1\n";
    for (text, words) in [
        ("", ["cluster.id is missing", "remove the file"]),
        ("version=1\nnode.id=1\n", ["cluster.id is missing", "remove the file"]),
        ("\\u12", ["not a properties file", "remove the file"]),
        ("version=1\ncluster.id=c\nnode.id=one\n", ["node.id=one is not a number", "node.id=1"]),
        (&format!("{whole}directory.id=?\n"), ["directory.id=? is not an id", "remove its line"]),
        (&whole.replace("node.id=1", "node.id=7"), ["belongs to node 7", "set node.id=7"]),
    ] {
        std::fs::write(dir.path().join("meta.properties"), text).unwrap();
        let said = refused(serve(&[], dir.path()));
        mentions(&said, &[path, "meta.properties"]);
        mentions(&said, &words);
        assert_eq!(std::fs::read_to_string(dir.path().join("meta.properties")).unwrap(), text, "left as it is");
    }
    std::fs::write(dir.path().join("meta.properties"), whole).unwrap();
    drop(Started::of(serve(&[], dir.path())));
}

/// As where somebody else's files were restored into it.
#[test]
fn files_of_the_start_that_cannot_be_read() {
    for name in ["meta.properties", ".kafka_cleanshutdown", "recovery-point-offset-checkpoint"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(name)).unwrap();
        let said = refused(serve(&[], dir.path()));
        mentions(&said, &[dir.path().to_str().unwrap(), name, "directory"]);
    }
}

#[test]
fn io_uring_forbidden_as_container_runtimes_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = serve(&[], dir.path());
    // SAFETY: between fork and exec only prctl is called, on memory of this function's own.
    unsafe { command.pre_exec(forbid_io_uring) };
    let said = refused(command);
    mentions(&said, &["io_uring is forbidden", "kernel.io_uring_disabled=0", "seccomp"]);
}

/// A seccomp filter under which io_uring_setup answers EPERM.
fn forbid_io_uring() -> std::io::Result<()> {
    use libc::*;
    let statement = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        statement(BPF_LD | BPF_W | BPF_ABS, 0, 0, std::mem::offset_of!(seccomp_data, nr) as u32),
        statement(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_io_uring_setup as u32),
        statement(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM as u32),
        statement(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW),
    ];
    let program = sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `program` and its filter outlive both calls.
    let done = unsafe {
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn too_few_open_files_for_a_ring() {
    let dir = tempfile::tempdir().unwrap();
    let said = refused(serve(&["prlimit", "--nofile=8"], dir.path()));
    mentions(&said, &["RLIMIT_NOFILE", "ulimit -n", "LimitNOFILE"]);
}

#[test]
fn few_open_files_are_said_and_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut command = serve(&["prlimit", "--nofile=64"], &dir.path().join("data"));
    command.stderr(std::fs::File::create(&log).unwrap());
    drop(Started::of(command));
    mentions(&std::fs::read_to_string(log).unwrap(), &["only 64 files", "ulimit -n", "LimitNOFILE"]);
}

#[test]
fn too_little_locked_memory_for_a_ring() {
    // Without capabilities, as the unit runs it: CAP_IPC_LOCK lifts the limit.
    let dir = tempfile::tempdir().unwrap();
    let limits = ["prlimit", "--memlock=0", "setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"];
    let limits = if nix::unistd::geteuid().is_root() { &limits[..] } else { &limits[..2] };
    let said = refused(serve(limits, dir.path()));
    mentions(&said, &["RLIMIT_MEMLOCK", "ulimit -l", "LimitMEMLOCK"]);
}
