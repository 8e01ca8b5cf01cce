//! `ringlane serve`: reads the configuration, starts the shards and the control thread, and stops them in good order.
//!
//! Order of the start: the directory is locked and its checkpoints taken; every shard makes its ring and listens (clients that
//! connect now wait); the control thread folds the metadata log, with the ports that were found, into the first image; the
//! shards open their logs by it and run. The stop goes the other way, and marks the directory clean at its end.

use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::broker::Broker;
use crate::cluster::image::ClusterImage;
use crate::config::{self, BrokerConfig};
use crate::control::files::Files;
use crate::control::{self, ShardAddress};
use crate::ids::ShardId;
use crate::io::{self, Bell, Uring, clock, cores, dir_lock, heap, open_files, sd_notify, signals};
use crate::mailbox::{Post, ShardMailbox, ToControl, ToShard, mailboxes};
use crate::shard::Shard;
use crate::storage::data_dir::{Checkpoints, ClosedPartition};

/// Shown below `--help`.
pub const EXAMPLES: &str = "Examples:
  ringlane                                              broker on 127.0.0.1:9092, data in ./data, one shard per core
  ringlane serve --cores 0-3 --data-dir /var/lib/ringlane --listen 0.0.0.0:9092 --advertise host.example
  ringlane serve --config server.properties --override log.retention.hours=24
  echo hello | kcat -b 127.0.0.1:9092 -t greetings -P   produces a first message

RINGLANE_LOG=debug shows more of what happens.";

/// Where data goes when nothing says otherwise.
const DATA_DIR_DEFAULT: &str = "./data";

/// What can be typed after `serve`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Kafka properties file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A property, over those of the file (repeatable)
    #[arg(long = "override", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Cores to run on, one shard each [default: all that this process may use]
    #[arg(long, value_name = "LIST", help = "Cores to run on, one shard each, e.g. 0-3,6 [default: all allowed]")]
    cores: Option<String>,
    /// Directory of the logs [default: log.dirs, else ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address to listen on; shard i listens on PORT + i [default: listeners, else 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Host name that clients are told to connect to [default: advertised.listeners, else where it listens]
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
}

/// What ends the wait of the main thread.
enum Wake {
    Signal(&'static str),
    ShardEnded(ShardId),
}

/// A shard's thread, as the start sees it.
struct ShardThread {
    bell: Bell,
    address: SocketAddr,
    begin: Sender<Begin>,
    ready: Receiver<()>,
    thread: JoinHandle<Result<Option<Vec<ClosedPartition>>>>,
}

/// What a shard waits for before it opens its logs.
struct Begin {
    image: Arc<ClusterImage>,
    checkpoints: Arc<Checkpoints>,
}

/// Runs the broker until it is told to stop.
pub fn run(arguments: &Arguments) -> Result<()> {
    run_until_stopped(arguments).map_err(|error| {
        let used_up = error.chain().filter_map(|cause| cause.downcast_ref()).any(open_files::are_used_up);
        if used_up { error.context(open_files::REMEDY) } else { error }
    })
}

fn run_until_stopped(arguments: &Arguments) -> Result<()> {
    let began = Instant::now();
    heap::give_large_blocks_back();
    let settings = settings(arguments)?;
    let config = Arc::new(BrokerConfig::from_settings(&settings)?);
    let settings = Arc::new(settings);
    for name in settings.without_effect() {
        log::warn!("{name} is known, but has no effect here");
    }
    let cores = match &arguments.cores {
        Some(list) => cores::choose(list)?,
        None => cores::allowed()?,
    };
    if let (_, Some(warning)) = open_files::raise_limit()? {
        log::warn!("{warning}");
    }
    let (wake, woken) = channel();
    let signalled = wake.clone();
    signals::on_stop(move |name| drop(signalled.send(Wake::Signal(name))))?;
    let data_dir = &config.data_dir;
    let in_data_dir = || format!("data directory {}", data_dir.display());
    let _lock = dir_lock::DirLock::take(data_dir)?;
    let mut files = Files::new(data_dir.clone());
    let checkpoints = Arc::new(Checkpoints::take(&mut files).with_context(in_data_dir)?);

    let (ends, queues, incoming, to_control) = mailboxes(cores.len() as u16);
    let mut shards = Vec::new();
    for (core, mailbox) in cores.iter().zip(ends) {
        shards.push(start_shard(&config, *core, mailbox, wake.clone())?);
    }
    let posts = |shards: &[ShardThread]| -> Vec<Post<ToShard>> {
        let post = |(shard, queue): (&ShardThread, &Sender<ToShard>)| {
            let bell = shard.bell.clone();
            Post::new(queue.clone(), Box::new(move || bell.ring()))
        };
        shards.iter().zip(&queues).map(post).collect()
    };
    let host = advertised_host(&config);
    let first_port = |port: u16, index: usize| config.advertised_port.map_or(port, |first| first + index as u16);
    let start = control::thread::Start {
        settings,
        config: config.clone(),
        shards: shards
            .iter()
            .enumerate()
            .map(|(i, shard)| ShardAddress { host: host.clone(), port: first_port(shard.address.port(), i) })
            .collect(),
        data_dir: data_dir.clone(),
        clock: clock::now,
    };
    let (control, image) = control::thread::start(start, incoming, posts(&shards)).with_context(in_data_dir)?;
    for shard in &shards {
        let begin = Begin { image: image.clone(), checkpoints: checkpoints.clone() };
        shard.begin.send(begin).map_err(|_| anyhow!("a shard ended at its start"))?;
    }
    let stop = posts(&shards);
    let mut threads = Vec::new();
    let (mut first, mut last) = (None, None);
    for shard in shards {
        shard.ready.recv().map_err(|_| anyhow!("a shard ended at its start; the log above says why"))?;
        first = first.or(Some(shard.address));
        last = Some(shard.address);
        threads.push(shard.thread);
    }
    if let (Some(first), Some(last)) = (first, last) {
        announce(&config, &cores, (first, last), began);
    }
    let _ = sd_notify::ready();

    match woken.recv() {
        Ok(Wake::Signal(name)) => log::info!("{name}: stopping"),
        Ok(Wake::ShardEnded(shard)) => log::error!("shard {shard} ended; stopping the others"),
        Err(_) => {}
    }
    let _ = sd_notify::stopping();
    for post in &stop {
        // One that has ended needs no telling.
        let _ = post.send(ToShard::Stop);
    }
    let mut closed = Some(Vec::new());
    for thread in threads {
        let logs = thread.join().map_err(|_| anyhow!("a shard panicked"))??;
        closed = closed.zip(logs).map(|(mut all, logs)| {
            all.extend(logs);
            all
        });
    }
    let _ = to_control.send(ToControl::Stop);
    control.join().map_err(|_| anyhow!("the control thread panicked"))?;
    let closed = closed.ok_or_else(|| anyhow!("not every log was closed in good order; the next start checks them"))?;
    Checkpoints::write(&mut files, &closed).with_context(in_data_dir)?;
    log::info!("stopped in good order");
    Ok(())
}

/// The file, then what was typed over it.
fn settings(arguments: &Arguments) -> Result<config::Settings> {
    let mut settings = match &arguments.config {
        Some(path) => config::Settings::read(path)?,
        None => config::Settings::default(),
    };
    for assignment in &arguments.overrides {
        settings.set_override(assignment)?;
    }
    let mut typed = |flag: &str, key: &str, value: String| {
        settings.set(key, &value).map_err(|problem| anyhow!("{flag}: {problem}"))
    };
    if let Some(dir) = &arguments.data_dir {
        typed("--data-dir", "log.dirs", dir.display().to_string())?;
    }
    if let Some(address) = &arguments.listen {
        if !address.contains(':') {
            bail!("--listen {address}: HOST:PORT is needed, e.g. 127.0.0.1:9092");
        }
        typed("--listen", "listeners", format!("PLAINTEXT://{address}"))?;
    }
    if settings.get("log.dirs").is_none() && settings.get("log.dir").is_none() {
        settings.set("log.dirs", DATA_DIR_DEFAULT).map_err(|problem| anyhow!(problem))?;
    }
    if settings.get("listeners").is_none() {
        settings.set("listeners", "PLAINTEXT://127.0.0.1:9092").map_err(|problem| anyhow!(problem))?;
    }
    if let Some(host) = &arguments.advertise {
        let listener = settings.get("listeners").unwrap_or_default();
        let port = listener.rsplit_once(':').map_or("9092", |(_, port)| port).to_string();
        settings
            .set("advertised.listeners", &format!("PLAINTEXT://{host}:{port}"))
            .map_err(|problem| anyhow!("--advertise: {problem}"))?;
    }
    Ok(settings)
}

fn start_shard(
    config: &Arc<BrokerConfig>,
    core: usize,
    mailbox: ShardMailbox,
    wake: Sender<Wake>,
) -> Result<ShardThread> {
    let id = mailbox.shard;
    let address = listen_address(config, id)?;
    let (made, started) = channel();
    let (begin, begun) = channel::<Begin>();
    let (tell_ready, ready) = channel();
    let config = config.clone();
    let thread = std::thread::Builder::new().name(format!("shard-{id}")).spawn(move || {
        let ring = cores::pin(core).map_err(anyhow::Error::from).and_then(|()| make_ring(&config, address));
        cores::ask_for_short_time_slices();
        let (ring, bound) = match ring {
            Ok(ring) => ring,
            Err(error) => {
                let _ = made.send(Err(error));
                return Ok(None);
            }
        };
        let _ = made.send(Ok((ring.bell(), bound)));
        let Ok(Begin { image, checkpoints }) = begun.recv() else { return Ok(None) };
        let mut ring = ring;
        let mut broker = Broker::new(id, &image, checkpoints);
        broker.apply_image(&mut ring, image, clock::now());
        let mut shard = Shard::new(ring, broker, mailbox);
        let _ = tell_ready.send(());
        let closed = shard.run().context("the ring failed");
        let _ = wake.send(Wake::ShardEnded(id));
        closed
    })?;
    let (bell, address) = started.recv().map_err(|_| anyhow!("shard {id} ended at its start"))??;
    Ok(ShardThread { bell, address, begin, ready, thread })
}

fn make_ring(config: &BrokerConfig, address: SocketAddr) -> Result<(Uring, SocketAddr)> {
    let bytes = |size: Option<u32>| size.map_or(-1, |size| i32::try_from(size).unwrap_or(i32::MAX));
    let settings = io::Settings {
        send_buffer_bytes: bytes(config.socket.send_buffer_bytes),
        receive_buffer_bytes: bytes(config.socket.receive_buffer_bytes),
        fetch_path: match config.fetch_path {
            config::FetchPath::Sendfile => io::FetchPath::Sendfile,
            config::FetchPath::Splice => io::FetchPath::Splice,
            config::FetchPath::SendZc => io::FetchPath::SendZc,
            config::FetchPath::Copy => io::FetchPath::Copy,
        },
        backlog: config.socket.listen_backlog,
        connections_max: config.socket.connections_max.min(1 << 24) as usize,
        ..io::Settings::default()
    };
    let mut ring = Uring::new(&config.data_dir, settings)?;
    let bound = listen_patiently(&mut ring, address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow!("{address} is taken by another process; stop it, or choose another port with --listen")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            anyhow!("{} is no address of this host; choose one with --listen, or 0.0.0.0 for all", address.ip())
        }
        std::io::ErrorKind::PermissionDenied => {
            anyhow!("{address} may not be used by this user ({error}); choose a port above 1023 with --listen")
        }
        _ => anyhow!("cannot listen on {address}: {error}"),
    })?;
    Ok((ring, bound))
}

/// A broker that was killed may hold its ports a little longer: the kernel takes its rings, and with them the sockets
/// they accept on, apart only after the process is gone. Whoever starts it again at once should not have to know.
fn listen_patiently(ring: &mut Uring, address: SocketAddr) -> std::io::Result<SocketAddr> {
    use crate::io::Ring;
    const TRIES_MAX: usize = 100;
    const PAUSE: Duration = Duration::from_millis(50);
    for _ in 1..TRIES_MAX {
        match ring.listen(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => std::thread::sleep(PAUSE),
            listening => return listening,
        }
    }
    ring.listen(address)
}

/// Shard i listens on port + i; with port 0 each on any free one.
fn listen_address(config: &BrokerConfig, shard: ShardId) -> Result<SocketAddr> {
    let host = if config.listen_host.is_empty() { "0.0.0.0" } else { &config.listen_host };
    let port = match config.listen_port {
        0 => 0,
        first => first
            .checked_add(shard.0)
            .ok_or_else(|| anyhow!("port {first} plus {shard} is above 65535; choose a lower one with --listen"))?,
    };
    let mut found = (host, port).to_socket_addrs().with_context(|| format!("host {host} of listeners"))?;
    found.next().ok_or_else(|| anyhow!("host {host} of listeners has no address"))
}

fn advertised_host(config: &BrokerConfig) -> String {
    if let Some(host) = &config.advertised_host {
        return host.clone();
    }
    match config.listen_host.as_str() {
        "" | "0.0.0.0" | "::" => host_name().unwrap_or_else(|| "127.0.0.1".to_string()),
        host => host.to_string(),
    }
}

fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

fn announce(config: &BrokerConfig, cores: &[usize], (first, last): (SocketAddr, SocketAddr), began: Instant) {
    let ports = if first == last { String::new() } else { format!(" to {}", last.port()) };
    let dir = Path::new(&config.data_dir);
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    // Whoever started us may have stopped reading: that is no reason to stop.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(
        out,
        "ready: listening on {first}{ports} ({} shards on cores {}), data in {}, started in {:.0} ms",
        cores.len(),
        cores::format_list(cores),
        dir.display(),
        began.elapsed().as_secs_f64() * 1e3,
    );
    let _ = writeln!(out, "produce a first message: echo hello | kcat -b {first} -t greetings -P");
}
