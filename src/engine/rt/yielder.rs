//! A yield that goes through the driver, so that sockets and timers get their turn.
//!
//! One task a thread reads from a socket pair. Who yields joins a list; the task then writes a byte
//! into the pair while its read is pending, and wakes the list when the read completes. By then the
//! driver has been asked once, and all that was ready before is ahead in the run queue.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io::{self, Write},
    os::unix::net::UnixStream,
    pin::pin,
    rc::Rc,
    task::Poll,
};

use monoio::io::AsyncReadRent;

use super::Signal;

thread_local! {
    static YIELDER: RefCell<Option<Rc<Yielder>>> = const { RefCell::new(None) };
}

#[derive(Debug, Default)]
struct Yielder {
    wanted: Signal,
    passed: Signal,
    ending: Cell<bool>,
}

/// Lets every other task and the driver run once.
pub async fn yield_now() {
    let yielder = YIELDER.with_borrow(Clone::clone);
    if let Some(yielder) = yielder {
        let seen = yielder.passed.count();
        yielder.wanted.notify();
        yielder.passed.past(seen).await;
    }
}

/// How often all others have had their turn because somebody yielded.
pub fn passes() -> u64 {
    YIELDER.with_borrow(|yielder| yielder.as_ref().map_or(0, |yielder| yielder.passed.count()))
}

/// Starts the thread's yielder; within the runtime.
pub(super) fn install() -> io::Result<()> {
    let (read, write) = UnixStream::pair()?;
    write.set_nonblocking(true)?;
    read.set_nonblocking(monoio::utils::is_legacy())?;
    let read = monoio::net::UnixStream::from_std(read)?;
    let yielder = Rc::new(Yielder::default());
    YIELDER.with_borrow_mut(|slot| *slot = Some(Rc::clone(&yielder)));
    super::spawn(drive(yielder, read, write));
    Ok(())
}

/// Ends the thread's yielder, before its runtime goes: what is pending then is never freed.
pub(super) async fn uninstall() {
    let yielder = YIELDER.with_borrow_mut(Option::take);
    if let Some(yielder) = yielder {
        let seen = yielder.passed.count();
        yielder.ending.set(true);
        yielder.wanted.notify();
        yielder.passed.past(seen).await;
    }
}

async fn drive(yielder: Rc<Yielder>, mut read: monoio::net::UnixStream, write: UnixStream) {
    let mut served = 0;
    let mut buffer = vec![0; 16];
    loop {
        yielder.wanted.past(served).await;
        served = yielder.wanted.count();
        if yielder.ending.get() {
            yielder.passed.notify();
            return;
        }
        let mut reading = pin!(read.read(buffer));
        let mut written = false;
        let (result, returned) = poll_fn(|cx| match reading.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => {
                // Only now: on epoll, a byte that is there already would be read without asking
                // the driver.
                if !written {
                    written = true;
                    // The pair's buffer holds at most this one byte.
                    let _ = (&write).write(&[0]);
                }
                Poll::Pending
            }
        })
        .await;
        buffer = returned;
        yielder.passed.notify();
        if result.is_err() {
            // Both ends are ours, so this can't be; without it, a yield would hang.
            tracing::error!("the yielder's socket pair broke");
            std::process::abort();
        }
    }
}
