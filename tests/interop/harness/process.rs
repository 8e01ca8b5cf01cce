//! A child process whose output is read as it comes, and which never outlives the test.
//!
//! Standard output is what the harness acts on, line by line; standard error is kept for the failure message. Each
//! child leads its own process group, so that dropping it ends whatever it started; should the test process itself be
//! killed, a guard that reads from a pipe sees its end and does the same.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Only so much of a failed process's output is worth reading.
const LINES_SHOWN_MAX: usize = 80;

#[derive(Default)]
struct Output {
    stdout: Vec<String>,
    /// Both streams in the order they were read.
    both: Vec<String>,
}

pub struct Process {
    name: String,
    child: Child,
    output: Arc<Mutex<Output>>,
    readers: Vec<thread::JoinHandle<()>>,
    /// Its end was asked for or checked; nothing to report any more.
    done: bool,
}

impl Process {
    pub fn start(name: impl Into<String>, mut command: Command) -> Process {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: cannot start {:?}: {error}", command.get_program()));
        tell_guard("start", child.id());
        let output = Arc::new(Mutex::new(Output::default()));
        let readers = vec![
            read_lines(child.stdout.take().expect("stdout is piped"), output.clone(), true),
            read_lines(child.stderr.take().expect("stderr is piped"), output.clone(), false),
        ];
        Process { name, child, output, readers, done: false }
    }

    /// Every line of standard output so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().expect("reader panicked").stdout.clone()
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waiting for an own child")
    }

    /// Waits until `find` sees what it looks for in standard output; None when the process ended or time ran out first.
    pub fn wait_for<T>(&mut self, limit: Duration, find: impl Fn(&[String]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.exited().is_some() && self.readers.iter().all(|reader| reader.is_finished());
            if let Some(found) = find(&self.lines()) {
                return Some(found);
            }
            if ended || Instant::now() > deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end, which must be exit code 0; returns standard output.
    pub fn finish(mut self, limit: Duration) -> Vec<String> {
        match self.ended(limit) {
            Some(status) if status.success() => {}
            Some(status) => panic!("{} failed ({status}):\n{}", self.name, self.tail()),
            None => panic!("{} did not end within {limit:?}:\n{}", self.name, self.tail()),
        }
        self.done = true;
        self.lines()
    }

    /// Waits for the end, whatever it is; None when time ran out.
    pub fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.exited() {
                // What it wrote last may still be on the way; a grandchild that keeps the pipe open must not hold us.
                let drained = Instant::now() + Duration::from_secs(5);
                while Instant::now() < drained && !self.readers.iter().all(|reader| reader.is_finished()) {
                    thread::sleep(Duration::from_millis(10));
                }
                return Some(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        None
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself; who needs it alive sees that from what follows.
        let _ = kill(self.pid(), signal);
    }

    /// SIGKILL, as a crash: no goodbye to anyone.
    pub fn kill(&mut self) {
        self.done = true;
        self.end();
    }

    /// The last lines of both streams.
    pub fn tail(&self) -> String {
        let output = self.output.lock().expect("reader panicked");
        let from = output.both.len().saturating_sub(LINES_SHOWN_MAX);
        format!("--- output of {} ---\n{}\n---", self.name, output.both[from..].join("\n"))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    fn end(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
        tell_guard("end", self.child.id());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if thread::panicking() && !self.done {
            eprintln!("{}", self.tail());
        }
    }
}

/// Keeps the list of running process groups, and kills them when the pipe from this process closes.
const GUARD: &str = r#"
alive=
while read -r word pid; do
    case $word in
    start) alive="$alive $pid " ;;
    end) alive=$(printf %s "$alive" | sed "s/ $pid //") ;;
    esac
done
for pid in $alive; do kill -9 -- "-$pid"; done
"#;

fn tell_guard(word: &str, pid: u32) {
    static GUARD_STDIN: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let guard = GUARD_STDIN.get_or_init(|| {
        let mut sh = Command::new("sh");
        sh.args(["-c", GUARD]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Mutex::new(sh.spawn().expect("starting sh").stdin.take().expect("stdin is piped"))
    });
    // Without the guard the tests still end what they started; only a killed test process would leave something.
    let _ = writeln!(guard.lock().expect("no panic while it is held"), "{word} {pid}");
}

/// Runs to the end under a deadline and returns standard output; a non-zero exit fails the test.
pub fn run(name: impl Into<String>, command: Command, limit: Duration) -> Vec<String> {
    Process::start(name, command).finish(limit)
}

fn read_lines(
    stream: impl Read + Send + 'static,
    output: Arc<Mutex<Output>>,
    is_stdout: bool,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(size) if size > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_string();
            bytes.clear();
            let mut output = output.lock().expect("reader panicked");
            if is_stdout {
                output.stdout.push(line.clone());
            }
            output.both.push(line);
        }
    })
}
