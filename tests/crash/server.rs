//! The broker as a process of its own on a data directory, to be killed and started again.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::running;

/// A broker that was started. Dropped, it is killed; what it logged is shown if the test failed.
pub struct Server {
    pub address: SocketAddr,
    process: Child,
    log: Log,
}

/// What the process writes to its standard error, as it comes.
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Log {
    fn follow(from: ChildStderr) -> Log {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let into = lines.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                into.lock().expect("no reader panics").push(line);
            }
        });
        Log { lines, reader: Some(reader) }
    }
    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no reader panics").clone()
    }
    fn end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log was read");
        }
    }
}

fn spawn(dir: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ringlane"))
        .args(["serve", "--cores", "0", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir)
        .env("RINGLANE_LOG", "info")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the broker starts")
}

impl Server {
    /// Starts it and waits until it serves.
    pub fn start(dir: &Path) -> Server {
        let mut process = spawn(dir);
        let mut log = Log::follow(process.stderr.take().expect("piped"));
        let address = running::ready(&mut process).unwrap_or_else(|line| {
            log.end();
            panic!("no ready line but {line:?}; the broker says:\n{}", log.lines().join("\n"));
        });
        Server { address, process, log }
    }

    /// Starts it and kills it while it starts.
    pub fn start_and_kill(dir: &Path, after: Duration) {
        let mut process = spawn(dir);
        let mut log = Log::follow(process.stderr.take().expect("piped"));
        std::thread::sleep(after);
        let ended = process.try_wait().expect("asked");
        process.kill().expect("killed");
        process.wait().expect("ended");
        log.end();
        assert!(ended.is_none(), "the broker ended at its start:\n{}", log.lines().join("\n"));
    }

    /// SIGKILL, from one moment to the next. It must have lived until then.
    pub fn kill(mut self) {
        let ended = self.process.try_wait().expect("asked");
        assert!(ended.is_none(), "the broker ended by itself: {ended:?}");
        self.process.kill().expect("killed");
        self.process.wait().expect("ended");
    }

    /// SIGTERM, and what becomes of it. False: it could not stop in good order.
    pub fn stop(mut self) -> bool {
        let told = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().expect("kill runs");
        assert!(told.success());
        self.process.wait().expect("ended").success()
    }

    /// Does a line that it logged so far say this? What reads them may be a little behind.
    pub fn says(&self, what: &str) -> bool {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if self.log.lines().iter().any(|line| line.contains(what)) {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.log.end();
        if std::thread::panicking() {
            eprintln!("the broker said:\n{}", self.log.lines().join("\n"));
        }
    }
}
