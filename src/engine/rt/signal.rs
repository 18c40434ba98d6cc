//! [`Signal`]: wakes the waiting tasks of one thread.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Context, Poll, Waker},
};

/// Something that happens again and again, and tasks of the same thread that wait for it.
///
/// A task notes the count, looks at the state that it is about, and waits for the count to move:
/// what happens in between is not missed.
#[derive(Debug, Default)]
pub struct Signal {
    count: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// How often it has happened.
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// It happened: every waiting task runs.
    pub fn notify(&self) {
        self.count.set(self.count.get().wrapping_add(1));
        // A wake only puts a task into the run queue, so it can't come back here.
        for waker in self.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Ready once the count is another than `seen`.
    pub fn poll_past(&self, seen: u64, cx: &mut Context<'_>) -> Poll<()> {
        if self.count.get() != seen {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.last().is_some_and(|last| last.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// # Cancel-safety
    /// Nothing is lost; the waker stays in the list until the next [`Signal::notify`].
    pub async fn past(&self, seen: u64) {
        poll_fn(|cx| self.poll_past(seen, cx)).await;
    }
}
