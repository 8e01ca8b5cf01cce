//! SIGTERM and SIGINT, taken by a thread of their own and told to whoever can stop the process in good order.

use std::io;

use nix::sys::signal::{SigSet, Signal};

/// From now on the signals call `told` with their name instead of ending the process, again for each further one.
/// To be called before other threads are started: they inherit that the signals are not theirs.
pub fn on_stop(mut told: impl FnMut(&'static str) + Send + 'static) -> io::Result<()> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block()?;
    let wait = move || {
        while let Ok(signal) = signals.wait() {
            told(signal.as_str());
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}
