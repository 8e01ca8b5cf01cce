//! The thread around `Control`: takes what has come, commits it with one sync, tells the shards, and tidies up when
//! nothing is to do. It may wait for the disk, the shards never for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, TryRecvError, channel};
use std::thread::JoinHandle;

use super::files::Files;
use super::start::{Setup, StartError};
use super::{Control, Outputs, random_id};
use crate::cluster::image::ClusterImage;
use crate::config::{BrokerConfig, Settings};
use crate::ids::Now;
use crate::mailbox::{Post, ToControl, ToShard};

/// What the thread needs. `Setup` itself cannot be sent, for its ids may come from a simulation.
pub struct Start {
    /// The configuration file and the command line.
    pub settings: Arc<Settings>,
    /// The same, checked.
    pub config: Arc<BrokerConfig>,
    /// Where clients reach each shard, by shard.
    pub shards: Vec<super::ShardAddress>,
    /// The data directory; it exists.
    pub data_dir: PathBuf,
    /// Reads the clocks.
    pub clock: fn() -> Now,
}

/// Starts the thread. Returns when the metadata log has been read and the first image is there.
pub fn start(
    start: Start,
    incoming: Receiver<ToControl>,
    shards: Vec<Post<ToShard>>,
) -> Result<(JoinHandle<()>, Arc<ClusterImage>), StartError> {
    let (ready, started) = channel();
    let body = move || {
        let mut disk = Files::new(start.data_dir);
        let setup =
            Setup { settings: start.settings, config: start.config, shards: start.shards, new_id: Box::new(random_id) };
        match Control::open(&mut disk, setup, (start.clock)()) {
            Err(error) => drop(ready.send(Err(error))),
            Ok(control) => {
                if ready.send(Ok(control.image())).is_ok() {
                    run(control, disk, &incoming, &shards, start.clock);
                }
            }
        }
    };
    let handle = std::thread::Builder::new().name("control".to_string()).spawn(body)?;
    match started.recv() {
        Ok(Ok(image)) => Ok((handle, image)),
        Ok(Err(error)) => Err(error),
        Err(RecvError) => Err(StartError::Io(std::io::Error::other("the control thread ended at its start"))),
    }
}

fn run(
    mut control: Control,
    mut disk: Files,
    incoming: &Receiver<ToControl>,
    shards: &[Post<ToShard>],
    clock: fn() -> Now,
) {
    let mut outputs = Outputs::new();
    loop {
        let first = match incoming.try_recv() {
            Err(TryRecvError::Empty) if control.tidy_up(&mut disk) => continue,
            Err(TryRecvError::Empty) => incoming.recv().map_err(|RecvError| TryRecvError::Disconnected),
            result => result,
        };
        let Ok(first) = first else { return };
        let mut stop = false;
        for message in std::iter::once(first).chain(incoming.try_iter()) {
            stop |= matches!(message, ToControl::Stop);
            control.handle(message, &mut outputs);
        }
        control.commit(&mut disk, clock(), &mut outputs);
        for (shard, message) in outputs.drain(..) {
            // A shard that has ended needs no news.
            let _ = shards[usize::from(shard.0)].send(message);
        }
        if stop {
            return;
        }
    }
}
