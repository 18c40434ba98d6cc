//! The runtime: the one module that knows monoio.
//!
//! Each shard is one thread with one executor, on io_uring or, where that is forbidden, on epoll.
//! Everything here is shaped around what monoio 0.2.4 does and does not do:
//! - A task that wakes itself is put in front of all others and the driver is never asked: so
//!   nobody does. [`yield_now`] goes through the driver instead.
//! - A read or write that was begun owns its buffer until it completes: so none is ever dropped.
//!   Each connection has one reader and one writer, and a deadline shuts the socket down, which
//!   completes both.
//! - A join handle must not cross threads: [`spawn`] drops it at once.
//! - Cancelled connects and accepts leak descriptors: there are none here, sockets come connected.

mod offload;
mod probe;
mod signal;
mod socket;
mod yielder;

use std::{
    future::Future,
    io,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

pub use offload::Offload;
pub use signal::Signal;
pub use socket::{SharedSocket, SocketHandle, SocketReader, SocketWriter, adopt};
pub use yielder::{passes, yield_now};

/// Which driver is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Driver {
    /// io_uring if it works here, epoll if not.
    #[default]
    Auto,
    Uring,
    Epoll,
}

/// Which driver it has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DriverKind {
    Uring,
    Epoll,
}

impl DriverKind {
    /// As it stands in the log and in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// Decides on the driver by making as many rings as there will be, and reading through one.
///
/// A fall-back to epoll is said in the log, with its reason.
///
/// # Errors
/// If io_uring was asked for by name and does not work here.
pub fn choose(driver: Driver, rings: usize) -> io::Result<DriverKind> {
    if driver == Driver::Epoll {
        return Ok(DriverKind::Epoll);
    }
    let tried = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("try-io_uring".into())
            .spawn_scoped(scope, || try_uring(rings))
            .and_then(|thread| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("the trial panicked")))
            })
    });
    match tried {
        Ok(()) => Ok(DriverKind::Uring),
        Err(error) if driver == Driver::Uring => Err(error),
        Err(error) => {
            tracing::warn!(
                driver = "epoll",
                %error,
                "io_uring does not work here (forbidden by the container, by sysctl \
                 kernel.io_uring_disabled, or too little RLIMIT_MEMLOCK): running on epoll"
            );
            Ok(DriverKind::Epoll)
        }
    }
}

fn try_uring(rings: usize) -> io::Result<()> {
    probe::uring()?;
    let others = (1..rings).map(|_| build_uring()).collect::<io::Result<Vec<_>>>()?;
    let mut first = build_uring()?;
    first.block_on(async {
        yielder::install()?;
        yield_now().await;
        yielder::uninstall().await;
        Ok::<(), io::Error>(())
    })?;
    drop(others);
    Ok(())
}

type UringRuntime = monoio::Runtime<monoio::time::TimeDriver<monoio::IoUringDriver>>;

fn build_uring() -> io::Result<UringRuntime> {
    monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build()
}

/// Runs a task to its end on the calling thread, with all that it spawns.
///
/// # Errors
/// If the driver can't be set up.
pub fn run<F: Future + 'static>(
    kind: DriverKind,
    main: impl FnOnce() -> F,
) -> io::Result<F::Output> {
    let main = async move {
        yielder::install()?;
        let output = main().await;
        yielder::uninstall().await;
        Ok(output)
    };
    match kind {
        DriverKind::Uring => build_uring()?.block_on(main),
        DriverKind::Epoll => monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .enable_timer()
            .build()?
            .block_on(main),
    }
}

/// Starts a task of this thread. It ends by itself or with the thread.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(task));
}

/// Waits, to the millisecond.
pub async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// Microseconds of the wall clock since the Unix epoch.
pub fn wall_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Binds the calling thread to the `index`th core of those that the process may use; the indexes
/// wrap around. Returns whether it worked: where it does not, the thread runs unbound.
pub fn pin(index: usize) -> bool {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    match cores.len() {
        0 => false,
        count => core_affinity::set_for_current(cores[index % count]),
    }
}

#[cfg(test)]
mod tests;
