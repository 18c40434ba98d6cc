//! Bounded rings between threads, and the doorbell that wakes a sleeping receiver.
//!
//! A ring has room for a number of items *and* a number of bytes. Full means that the sender keeps
//! the item and waits for its own bell: nothing is ever dropped. Waking a sleeper costs an
//! eventfd write (15 µs), so pushing and ringing are two steps: push a batch, then ring once, and a
//! bell that was rung already is not rung again until its owner has looked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::Duration,
};

use atomic_waker::AtomicWaker;
use crossbeam::queue::ArrayQueue;

/// Wakes one task or thread. Any number of rings (and others) may share the bell of one receiver.
#[derive(Debug, Default)]
pub struct Doorbell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

impl Doorbell {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Wakes the owner unless it has been rung since it last looked.
    pub fn ring(&self) {
        // SeqCst: the store of the item before must not be ordered after this exchange.
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// Ready once the bell has been rung since the last time this was ready.
    ///
    /// The owner looks at its rings *after* this was ready and before it polls again.
    pub fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.rung.swap(false, Ordering::SeqCst) {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        if self.rung.swap(false, Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// # Cancel-safety
    /// Dropping the future loses nothing: a ring in between is found by the next call.
    pub async fn rung(&self) {
        std::future::poll_fn(|cx| self.poll_rung(cx)).await;
    }

    /// Blocks the calling thread until the bell is rung or the time is up; for plain threads.
    pub fn wait(&self, timeout: Duration) {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        if self.poll_rung(&mut context).is_pending() {
            std::thread::park_timeout(timeout);
            let _ = self.poll_rung(&mut context);
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// How many bytes an item stands for in a ring's byte budget.
pub trait Weight {
    fn weight(&self) -> usize;
}

struct Shared<T> {
    queue: ArrayQueue<T>,
    bytes: AtomicUsize,
    bytes_max: usize,
    /// The sender found no room and wants to be told when there is.
    starved: AtomicBool,
    receiver_bell: Arc<Doorbell>,
    sender_bell: Arc<Doorbell>,
}

/// The writing end. Not `Clone`: one sender for each ring.
pub struct Sender<T>(Arc<Shared<T>>);

/// The reading end.
pub struct Receiver<T>(Arc<Shared<T>>);

/// Makes a ring. `receiver_bell` is rung by [`Sender::ring`], `sender_bell` when a sender that found
/// the ring full has room again.
pub fn ring<T: Weight>(
    items_max: usize,
    bytes_max: usize,
    receiver_bell: &Arc<Doorbell>,
    sender_bell: &Arc<Doorbell>,
) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(items_max),
        bytes: AtomicUsize::new(0),
        bytes_max,
        starved: AtomicBool::new(false),
        receiver_bell: Arc::clone(receiver_bell),
        sender_bell: Arc::clone(sender_bell),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T: Weight> Sender<T> {
    /// Puts an item in without waking the receiver, or gives it back if there is no room.
    ///
    /// An item heavier than the whole budget fits into an empty ring, so that it can't wait for ever.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        match self.try_push(item) {
            Ok(()) => Ok(()),
            Err(item) => {
                self.0.starved.store(true, Ordering::SeqCst);
                // The receiver may have made room before it could see that we starve.
                let retried = self.try_push(item);
                if retried.is_ok() {
                    self.0.starved.store(false, Ordering::SeqCst);
                }
                retried
            }
        }
    }

    fn try_push(&self, item: T) -> Result<(), T> {
        let weight = item.weight();
        let before = self.0.bytes.load(Ordering::SeqCst);
        if before != 0 && before + weight > self.0.bytes_max {
            return Err(item);
        }
        self.0.bytes.fetch_add(weight, Ordering::SeqCst);
        self.0.queue.push(item).inspect_err(|_| {
            self.0.bytes.fetch_sub(weight, Ordering::SeqCst);
        })
    }

    /// Wakes the receiver, if it sleeps. Once for a batch.
    pub fn ring(&self) {
        self.0.receiver_bell.ring();
    }

    pub fn is_empty(&self) -> bool {
        self.0.queue.is_empty()
    }
}

impl<T: Weight> Receiver<T> {
    pub fn pop(&mut self) -> Option<T> {
        let item = self.0.queue.pop()?;
        self.0.bytes.fetch_sub(item.weight(), Ordering::SeqCst);
        if self.0.starved.load(Ordering::SeqCst) && self.0.starved.swap(false, Ordering::SeqCst) {
            self.0.sender_bell.ring();
        }
        Some(item)
    }

    pub fn is_empty(&self) -> bool {
        self.0.queue.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.queue.len()
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("len", &self.0.queue.len()).finish()
    }
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("len", &self.0.queue.len()).finish()
    }
}
