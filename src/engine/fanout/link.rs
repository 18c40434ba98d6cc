//! [`ConsumerLink`]: what the tasks of a consumer and its shard share of it.

use std::{
    cell::{Cell, RefCell},
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ports::{ConsumerEnd, ConsumerId, ConsumerProgress, RelaySeq};
use tungstenite::protocol::frame::Frame;

use crate::{
    log::LogPos,
    rt::{SharedSocket, Signal, SocketHandle},
};

/// A relay that stops does not wait longer than this for consumers to hang up.
const SHUTDOWN_LINGER: Duration = Duration::from_millis(500);

/// What the kernel keeps for a consumer who does not read. It leaves room in a socket's buffer for last
/// words, and bounds the memory that slow consumers cost.
const UNSENT_BYTES_MAX: u32 = 256 << 10;

/// When a consumer is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerTimes {
    /// Without a byte acknowledged, although there are some to acknowledge.
    pub stall: Duration,
    /// So long nothing was sent: then a ping. So long no answer to it: then the end.
    pub ping: Duration,
    /// How long the last words may take.
    pub linger: Duration,
}

impl Default for ConsumerTimes {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(30),
            ping: Duration::from_secs(30),
            linger: Duration::from_secs(5),
        }
    }
}

#[derive(Debug)]
pub struct ConsumerLink {
    id: ConsumerId,
    handle: SocketHandle,
    /// Something for the writing task to look at.
    wake: Signal,
    ending: Cell<Option<ConsumerEnd>>,
    /// After this the socket is shut, whatever is still to be said.
    linger_end: Cell<Option<Instant>>,
    /// The client has closed its side.
    deaf: Cell<bool>,
    ping: Cell<bool>,
    /// The payload of the newest ping that is to be answered.
    pong: RefCell<Option<Bytes>>,
    /// An unanswered ping of ours.
    pinged: Cell<Option<Instant>>,
    /// The writing task waits for the kernel to take bytes.
    writing: Cell<bool>,
    sent_at: Cell<Instant>,
    written: Cell<u64>,
    acknowledged: Cell<u64>,
    acknowledged_at: Cell<Instant>,
    pos: Cell<LogPos>,
    /// A place and the number of the last event before it.
    known: Cell<(LogPos, RelaySeq)>,
    first: Cell<RelaySeq>,
    reported: Cell<u64>,
}

impl ConsumerLink {
    pub fn new(
        id: ConsumerId,
        handle: SocketHandle,
        head: (RelaySeq, LogPos),
        now: Instant,
    ) -> Self {
        handle.limit_unsent(UNSENT_BYTES_MAX);
        Self {
            id,
            handle,
            wake: Signal::default(),
            ending: Cell::new(None),
            linger_end: Cell::new(None),
            deaf: Cell::new(false),
            ping: Cell::new(false),
            pong: RefCell::default(),
            pinged: Cell::new(None),
            writing: Cell::new(false),
            sent_at: Cell::new(now),
            written: Cell::new(0),
            acknowledged: Cell::new(0),
            acknowledged_at: Cell::new(now),
            pos: Cell::new(head.1),
            known: Cell::new((head.1, head.0)),
            first: Cell::new(head.0),
            reported: Cell::new(0),
        }
    }

    pub fn id(&self) -> ConsumerId {
        self.id
    }

    pub(super) fn wake(&self) -> &Signal {
        &self.wake
    }

    /// Ends the stream for this reason, unless it is ending for another already.
    pub fn end(&self, reason: ConsumerEnd) {
        if self.ending.get().is_none() {
            self.ending.set(Some(reason));
            // For the last words, though the peer takes nothing at present.
            self.handle.make_room();
            self.wake.notify();
        }
    }

    /// Shuts the socket, whatever is still to be said.
    pub fn cut(&self) {
        self.end(ConsumerEnd::Shutdown);
        self.handle.shutdown();
    }

    pub(super) fn ending(&self) -> Option<ConsumerEnd> {
        self.ending.get()
    }

    /// The client is not there any more.
    pub(super) fn note_deaf(&self) {
        self.deaf.set(true);
        self.end(ConsumerEnd::Left);
        self.wake.notify();
    }

    pub(super) fn is_deaf(&self) -> bool {
        self.deaf.get()
    }

    /// The client said something, so it is alive.
    pub(super) fn note_heard(&self) {
        self.pinged.set(None);
    }

    /// Only the newest ping needs an answer.
    pub(super) fn owe_pong(&self, payload: Bytes) {
        *self.pong.borrow_mut() = Some(payload);
        self.wake.notify();
    }

    pub(super) fn has_control(&self) -> bool {
        self.ping.get() || self.pong.borrow().is_some()
    }

    /// The control frames that are due.
    pub(super) fn take_control(&self) -> Bytes {
        let mut out = Vec::new();
        if let Some(payload) = self.pong.borrow_mut().take() {
            push_frame(&mut out, Frame::pong(payload));
        }
        if self.ping.take() {
            push_frame(&mut out, Frame::ping(Bytes::new()));
        }
        out.into()
    }

    /// There is something to say that does not come from the log.
    pub(super) fn has_words(&self) -> bool {
        self.has_control() || self.ending.get().is_some()
    }

    /// Hands bytes to the kernel as far as it takes them at once.
    pub(super) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.handle.write_now(bytes)
    }

    /// For a thread that writes while this one does not.
    pub(super) fn share_socket(&self) -> io::Result<SharedSocket> {
        self.handle.share()
    }

    pub(super) fn set_writing(&self, writing: bool) {
        self.writing.set(writing);
    }

    pub(super) fn note_written(&self, bytes: usize, now: Instant) {
        self.written.set(self.written.get() + bytes as u64);
        self.sent_at.set(now);
    }

    pub(super) fn note_start(&self, pos: LogPos, seq: RelaySeq) {
        self.pos.set(pos);
        self.known.set((pos, seq));
        self.first.set(seq);
    }

    pub(super) fn note_pos(&self, pos: LogPos) {
        self.pos.set(pos);
    }

    pub(super) fn note_known(&self, pos: LogPos, seq: RelaySeq) {
        self.pos.set(pos);
        self.known.set((pos, seq));
    }

    /// What is to be reported, if it moved. `look_up` finds the last number before a place.
    pub fn progress(
        &self,
        look_up: impl FnOnce(LogPos) -> Option<RelaySeq>,
    ) -> Option<ConsumerProgress> {
        let written = self.written.get();
        if written == self.reported.get() {
            return None;
        }
        self.reported.set(written);
        let pos = self.pos.get();
        let (known, seq) = self.known.get();
        let seq = if pos == known { seq } else { look_up(pos).unwrap_or(seq) };
        self.known.set((pos, seq));
        Some(ConsumerProgress {
            id: self.id,
            seq,
            events_sent: seq.0.saturating_sub(self.first.get().0),
            bytes_sent: written,
        })
    }

    pub fn written(&self) -> u64 {
        self.written.get()
    }

    pub(super) fn shutdown_write(&self) {
        self.handle.shutdown_write();
    }

    /// Deadlines and pings; called about twice a second.
    pub fn tick(&self, now: Instant, times: &ConsumerTimes) {
        if let Some(end) = self.linger_end.get() {
            if now >= end {
                self.handle.shutdown();
            }
            return;
        }
        if let Some(end) = self.ending.get() {
            let most = if end == ConsumerEnd::Shutdown { SHUTDOWN_LINGER } else { times.linger };
            self.linger_end.set(Some(now + times.linger.min(most)));
            return;
        }
        if self.is_stalled(now, times) {
            self.end(ConsumerEnd::TooSlow);
        } else if self.pinged.get().is_some_and(|at| now.duration_since(at) >= times.ping) {
            self.end(ConsumerEnd::Silent);
        } else if self.pinged.get().is_none()
            && !self.writing.get()
            && now.duration_since(self.sent_at.get()) >= times.ping
        {
            self.pinged.set(Some(now));
            self.ping.set(true);
            self.wake.notify();
        }
    }

    fn is_stalled(&self, now: Instant, times: &ConsumerTimes) -> bool {
        let written = self.written.get();
        if !self.writing.get() && self.acknowledged.get() == written {
            self.acknowledged_at.set(now);
            return false;
        }
        // A broken connection is found by the tasks.
        let open = self.handle.unacknowledged().unwrap_or(0) as u64;
        let acknowledged = written.saturating_sub(open);
        if acknowledged > self.acknowledged.get() || (open == 0 && !self.writing.get()) {
            self.acknowledged.set(acknowledged);
            self.acknowledged_at.set(now);
        }
        now.duration_since(self.acknowledged_at.get()) >= times.stall
    }
}

pub(super) fn push_frame(out: &mut Vec<u8>, frame: Frame) {
    // Writing to memory does not fail.
    let _ = frame.format(out);
}
