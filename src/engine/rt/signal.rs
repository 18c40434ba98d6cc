//! [`Signal`]: wakes the waiting tasks of one thread.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// Something that happens again and again, and tasks of the same thread that wait for it.
///
/// A task notes the count, looks at the state that it is about, and waits for the count to move:
/// what happens in between is not missed.
#[derive(Debug, Default)]
pub struct Signal {
    count: Cell<u64>,
    /// Each with its ticket, which rise.
    waiting: RefCell<Vec<(u64, Waker)>>,
    tickets: Cell<u64>,
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
        for (_, waker) in self.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Waits until the count is another than `seen`.
    pub fn past(&self, seen: u64) -> Past<'_> {
        Past { signal: self, seen, ticket: None }
    }
}

/// A wait for a [`Signal`].
///
/// # Cancel-safety
/// Nothing is lost, and nothing is left behind in the signal, which may not happen for days.
#[derive(Debug)]
pub struct Past<'a> {
    signal: &'a Signal,
    seen: u64,
    /// Of the waker that the signal has.
    ticket: Option<u64>,
}

impl Future for Past<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let signal = self.signal;
        if signal.count.get() != self.seen {
            return Poll::Ready(());
        }
        let mut waiting = signal.waiting.borrow_mut();
        let held = self.ticket.map(|held| waiting.binary_search_by_key(&held, |(held, _)| *held));
        if let Some(Ok(at)) = held {
            waiting[at].1.clone_from(cx.waker());
        } else {
            let ticket = signal.tickets.get();
            signal.tickets.set(ticket + 1);
            waiting.push((ticket, cx.waker().clone()));
            self.ticket = Some(ticket);
        }
        Poll::Pending
    }
}

impl Drop for Past<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.filter(|_| self.signal.count.get() == self.seen) else {
            return;
        };
        let mut waiting = self.signal.waiting.borrow_mut();
        if let Ok(at) = waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket) {
            waiting.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn poll(past: &mut Past<'_>) -> Poll<()> {
        Pin::new(past).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn who_waits_no_more_leaves_nothing_behind() {
        let signal = Signal::default();
        let mut waits: Vec<_> = (0..5).map(|_| signal.past(signal.count())).collect();
        for _ in 0..3 {
            assert!(waits.iter_mut().all(|past| poll(past).is_pending()));
        }
        assert_eq!(signal.waiting.borrow().len(), 5);
        for at in [2, 3, 0] {
            waits.remove(at);
        }
        assert_eq!(signal.waiting.borrow().len(), 2);
        signal.notify();
        assert!(!signal.has_waiting());
        assert!(waits.iter_mut().all(|past| poll(past).is_ready()));
        // Those who came after it happened wait on.
        let mut next = signal.past(signal.count());
        assert!(poll(&mut next).is_pending());
        drop(waits);
        assert!(signal.has_waiting());
        drop(next);
        assert!(!signal.has_waiting());
    }
}
