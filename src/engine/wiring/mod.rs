//! Starts the threads of the engine, ties them together with rings, and stops them in order.
//!
//! To start: the log is opened and repaired, then the sequencer runs, then the shards. To stop, all
//! shards go through the phases of [`Phase`] together, so that nothing that was taken in is lost,
//! and everyone who listens is told.

mod rings;

#[cfg(test)]
mod tests;

use std::{
    io,
    rc::Rc,
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use ports::{
    ShardCommand, ShardReport,
    ring::{Doorbell, Receiver, Sender},
};

use self::rings::Rings;
use crate::{
    config::EngineConfig,
    fanout::Replay,
    log::{self, LogError, LogReader},
    rt::{self, DriverKind, Offload},
    sequencer::{Lane, Sequencer},
    shard::{self, Core, Phase, ShardEnds, Stop},
    upstream,
};

/// They wait for the disk on behalf of consumers who read what is not in memory.
const DISK_THREADS: usize = 4;

/// Whoever is behind can wait a little longer, when processors are short, than who is live.
const REPLAY_NICE: i32 = 10;

/// Why the engine can't start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("io_uring does not work here: {0}; allow it, or choose the epoll driver")]
    Driver(io::Error),
    #[error("a thread can't be started: {0}")]
    Thread(io::Error),
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The running engine, as control sees it.
#[derive(Debug)]
pub struct Engine {
    /// One for each shard.
    pub commands: Vec<Sender<ShardCommand>>,
    /// One for each shard; they ring the bell that was given to [`start`].
    pub reports: Vec<Receiver<ShardReport>>,
    pub log: LogReader,
    pub driver: DriverKind,
    pub handle: EngineHandle,
}

/// Stops the engine.
#[derive(Debug)]
pub struct EngineHandle {
    stop: Arc<Stop>,
    bells: Vec<Arc<Doorbell>>,
    sequencer: Sequencer,
    shards: Vec<JoinHandle<()>>,
}

/// Opens the log and starts all threads.
///
/// # Errors
/// If the log can't be opened, or the system does not let us run.
pub fn start(config: EngineConfig, control_bell: &Arc<Doorbell>) -> Result<Engine, EngineError> {
    let count = config.shards.max(1);
    let driver = rt::choose(config.driver, count).map_err(EngineError::Driver)?;
    let tls = upstream::client_config(&config.extra_roots)?;
    let (writer, log) = log::open(config.log.clone())?;
    let disk = Offload::start("log-read", DISK_THREADS, 0).map_err(EngineError::Thread)?;
    let senders = Offload::start("replay", count, REPLAY_NICE).map_err(EngineError::Thread)?;
    let stop = Arc::new(Stop::default());
    let sequencer_bell = Doorbell::new();
    let Rings { bells, commands, reports, shards, lanes } =
        Rings::new(count, &config.limits, control_bell, &sequencer_bell);
    let lanes = lanes.into_iter().map(|(events, progress)| Lane { events, progress }).collect();
    // The sequencer is not bound: with as many shards as cores it takes what they leave.
    let sequencer =
        Sequencer::start(writer, lanes, sequencer_bell, None).map_err(EngineError::Thread)?;
    let mut threads = Vec::with_capacity(count);
    for (index, ends) in shards.into_iter().enumerate() {
        let ends = ShardEnds {
            shard: ends.shard,
            bell: ends.bell,
            commands: ends.commands,
            reports: ends.reports,
            mesh: ends.mesh,
            verified: ends.verified,
            progress: ends.progress,
            log: log.clone(),
            replay: Replay::new(disk.clone(), senders.clone()),
            tls: Arc::clone(&tls),
            stop: Arc::clone(&stop),
        };
        let config = config.clone();
        let thread = Builder::new()
            .name(format!("shard-{index:02}"))
            .spawn(move || run_shard(index, driver, config, ends))
            .map_err(EngineError::Thread)?;
        threads.push(thread);
    }
    let handle = EngineHandle { stop, bells, sequencer, shards: threads };
    Ok(Engine { commands, reports, log, driver, handle })
}

fn run_shard(index: usize, driver: DriverKind, config: EngineConfig, ends: ShardEnds) {
    if config.pin && !rt::pin(index) {
        tracing::warn!(shard = index, "the thread could not be bound to a core");
    }
    let ran = rt::run(driver, || async move {
        shard::run(Rc::new(Core::new(Rc::new(config), ends))).await;
    });
    if let Err(error) = ran {
        // It was tried before; without its shard, accounts and hosts would silently be missing.
        tracing::error!(shard = index, %error, "the shard's driver can't be set up");
        std::process::abort();
    }
}

impl EngineHandle {
    /// Stops reading, verifies and stores what was taken in, sends the rest to consumers and says
    /// goodbye to them; blocks until then, but about `patience` at most. Control should go on
    /// taking reports meanwhile: the last ones tell how far we are with each host.
    ///
    /// Returns whether the log was closed in order.
    pub fn shutdown(self, patience: Duration) -> bool {
        let began = Instant::now();
        // A slow disk or a slow consumer may take half of the time, not all of it.
        let shards = Shards { stop: &self.stop, bells: &self.bells };
        shards.pass(Phase::Deaf, began + patience / 4);
        shards.pass(Phase::Drained, began + patience / 2);
        let closed = self.sequencer.stop();
        shards.pass(Phase::Settled, began + patience * 5 / 8);
        shards.begin(Phase::Parting);
        if !shards.wait(Phase::Parting, began + patience * 7 / 8) {
            shards.begin(Phase::Cut);
            shards.wait(Phase::Parting, began + patience * 9 / 8);
        }
        if self.stop.done(Phase::Parting) == self.bells.len() {
            for thread in self.shards {
                let _ = thread.join();
            }
        } else {
            tracing::error!("a shard did not stop in time");
        }
        closed
    }
}

/// The shards as whoever stops them sees them.
struct Shards<'a> {
    stop: &'a Stop,
    bells: &'a [Arc<Doorbell>],
}

impl Shards<'_> {
    fn pass(&self, phase: Phase, deadline: Instant) {
        self.begin(phase);
        if !self.wait(phase, deadline) {
            tracing::warn!(?phase, "not all shards came so far in time; going on");
        }
    }

    fn begin(&self, phase: Phase) {
        self.stop.begin(phase);
        for bell in self.bells {
            bell.ring();
        }
    }

    /// Whether all of them have done the phase before the deadline.
    fn wait(&self, phase: Phase, deadline: Instant) -> bool {
        while self.stop.done(phase) < self.bells.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.stop.bell().wait(left);
        }
        true
    }
}
