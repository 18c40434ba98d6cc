//! Drivers: they open sockets and move bytes between them and the state machines of the simulated
//! network and its consumers. One runs on glommio (io_uring), one on a plain thread for each
//! connection, for where io_uring is forbidden.

mod threads;
mod uring;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::Sender;

use crate::consumer::{ConsumerReport, Watch};
use crate::network::Network;

/// How often a driver looks for commands and for a new phase. Phases are announced further ahead.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How far ahead a phase must be announced so that every connection starts it on time.
pub const PHASE_NOTICE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    Auto,
    Glommio,
    Threads,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    Glommio,
    Threads,
}

#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("io_uring cannot be used here ({0}); take --driver threads")]
    Uring(String),
    #[error("a server could not listen on a loopback port: {0}")]
    Listen(std::io::Error),
    #[error("a thread could not be started: {0}")]
    Spawn(std::io::Error),
}

/// A consumer to connect.
#[derive(Clone, Debug)]
struct ConsumerOrder {
    address: SocketAddr,
    url: String,
    watch: Watch,
    report: Arc<ConsumerReport>,
}

/// A running driver. Dropping it stops all of its servers and consumers.
#[derive(Debug)]
pub struct DriverHandle {
    pub kind: DriverKind,
    orders: Vec<Sender<ConsumerOrder>>,
    next: usize,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl std::str::FromStr for DriverChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "glommio" => Ok(Self::Glommio),
            "threads" => Ok(Self::Threads),
            _ => Err("one of auto, glommio, threads".into()),
        }
    }
}

/// Starts all servers of the network. `plc_port` zero lets the kernel choose. When this returns,
/// every service has its port.
pub fn start(
    choice: DriverChoice,
    network: &Arc<Network>,
    plc_port: u16,
    executors: usize,
) -> Result<DriverHandle, DriverError> {
    match choice {
        DriverChoice::Threads => threads::start(network, plc_port),
        DriverChoice::Glommio => {
            uring::probe()?;
            uring::start(network, plc_port, executors)
        }
        DriverChoice::Auto => match uring::probe() {
            Ok(()) => uring::start(network, plc_port, executors),
            Err(error) => {
                tracing::warn!("{error}; going on with a thread for each connection");
                threads::start(network, plc_port)
            }
        },
    }
}

impl DriverHandle {
    /// Connects a consumer to a relay's stream. Its report tells how that went.
    pub fn consume(
        &mut self,
        address: SocketAddr,
        cursor: Option<u64>,
        watch: Watch,
    ) -> Arc<ConsumerReport> {
        let report = Arc::new(ConsumerReport::default());
        let cursor = cursor.map(|cursor| format!("?cursor={cursor}")).unwrap_or_default();
        let url = format!("ws://{address}/xrpc/com.atproto.sync.subscribeRepos{cursor}");
        let order = ConsumerOrder { address, url, watch, report: Arc::clone(&report) };
        self.next = (self.next + 1) % self.orders.len();
        if self.orders[self.next].send(order).is_err() {
            report.closed.store(true, Ordering::Release);
        }
        report
    }

    fn shut_down(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.orders.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a driver thread panicked");
            }
        }
    }
}

impl Drop for DriverHandle {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// How long to wait for a time, but never so long that a new phase would be missed.
fn nap(until_ns: Option<u64>, now_ns: u64) -> Duration {
    let wait = until_ns.map(|until| Duration::from_nanos(until.saturating_sub(now_ns)));
    wait.unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL)
}

#[cfg(test)]
mod tests;
