//! [`HostLink`]: what the reader of a connection and its shard share of it.
//!
//! All writing to a host (requests, pings, pongs, a close) goes through here, and never waits: bytes
//! that the kernel does not take at once are kept, and tried again at the next occasion. A host that
//! lets more than a little pile up is not reading, and is let go.

use std::{
    cell::{Cell, RefCell},
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, Instant},
};

use ports::{HostFault, HostId, Strictness};
use tungstenite::protocol::{CloseFrame, frame::Frame};

use super::tls::TlsSession;
use crate::rt::{Signal, SocketHandle};

/// Bytes that may wait for the host to read them.
const UNSENT_BYTES_MAX: usize = 64 << 10;

/// When a connection is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTimes {
    /// From the socket to the first frame's place: TLS and the handshake.
    pub open: Duration,
    pub ping: Duration,
    /// Nothing was received, although pings were sent.
    pub silence: Duration,
}

impl Default for LinkTimes {
    fn default() -> Self {
        Self {
            open: Duration::from_secs(15),
            ping: Duration::from_secs(30),
            silence: Duration::from_secs(90),
        }
    }
}

#[derive(Debug)]
pub struct HostLink {
    host: HostId,
    handle: SocketHandle,
    tls: RefCell<Option<Box<TlsSession>>>,
    unsent: RefCell<Vec<u8>>,
    strictness: Cell<Strictness>,
    /// The first fault is why it ends.
    fault: RefCell<Option<HostFault>>,
    started: Instant,
    opened: Cell<bool>,
    progressed: Cell<bool>,
    /// We do not read, because there is no room: silence says nothing about the host.
    paused: Cell<bool>,
    heard: Cell<Instant>,
    pinged: Cell<Instant>,
    mask: Cell<u32>,
    /// Happens when the host's window has room again, and when the connection is ended.
    room: Signal,
}

impl HostLink {
    pub fn new(
        host: HostId,
        handle: SocketHandle,
        strictness: Strictness,
        tls: Option<TlsSession>,
        now: Instant,
    ) -> Self {
        Self {
            host,
            handle,
            tls: RefCell::new(tls.map(Box::new)),
            unsent: RefCell::default(),
            strictness: Cell::new(strictness),
            fault: RefCell::default(),
            started: now,
            opened: Cell::new(false),
            progressed: Cell::new(false),
            paused: Cell::new(false),
            heard: Cell::new(now),
            pinged: Cell::new(now),
            mask: Cell::new(RandomState::new().build_hasher().finish() as u32),
            room: Signal::default(),
        }
    }

    pub fn host(&self) -> HostId {
        self.host
    }

    pub fn room(&self) -> &Signal {
        &self.room
    }

    pub fn strictness(&self) -> Strictness {
        self.strictness.get()
    }

    pub fn set_strictness(&self, strictness: Strictness) {
        self.strictness.set(strictness);
    }

    pub fn progressed(&self) -> bool {
        self.progressed.get()
    }

    pub(super) fn note_progress(&self) {
        self.progressed.set(true);
    }

    pub(super) fn note_open(&self, now: Instant) {
        self.opened.set(true);
        self.heard.set(now);
        self.pinged.set(now);
    }

    pub(super) fn note_heard(&self, now: Instant) {
        self.heard.set(now);
    }

    /// Whether we stopped reading for lack of room; the deadline starts anew when we go on.
    pub(super) fn set_paused(&self, paused: bool, now: Instant) {
        self.paused.set(paused);
        self.heard.set(now);
    }

    /// Ends the connection for this reason, unless it is ending for another already.
    pub fn end(&self, fault: HostFault) {
        self.fault.borrow_mut().get_or_insert(fault);
        self.handle.shutdown();
        self.room.notify();
    }

    pub fn is_ending(&self) -> bool {
        self.fault.borrow().is_some()
    }

    pub(super) fn take_fault(&self) -> Option<HostFault> {
        self.fault.borrow_mut().take()
    }

    pub(super) fn tls(&self) -> &RefCell<Option<Box<TlsSession>>> {
        &self.tls
    }

    /// Sends a close frame, if the kernel takes it.
    pub(super) fn close(&self, frame: Option<CloseFrame>) {
        self.write_frame(Frame::close(frame));
    }

    pub(super) fn pong(&self, payload: bytes::Bytes) {
        self.write_frame(Frame::pong(payload));
    }

    fn write_frame(&self, mut frame: Frame) {
        // Clients mask. The key need not be a secret here: there is no proxy to be fooled by
        // what we send, which is nothing but echoed pings.
        let mask = self.mask.get().wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
        self.mask.set(mask);
        frame.header_mut().mask = Some(mask.to_be_bytes());
        let mut bytes = Vec::new();
        if frame.format(&mut bytes).is_ok() {
            self.write(&bytes);
        }
    }

    /// Sends bytes of the WebSocket layer or above.
    pub(super) fn write(&self, bytes: &[u8]) {
        match self.tls.borrow_mut().as_mut() {
            Some(session) => {
                if let Err(fault) = session.write(bytes) {
                    self.end(fault);
                    return;
                }
            }
            None => self.unsent.borrow_mut().extend_from_slice(bytes),
        }
        self.flush();
    }

    /// Tries to send what waits, be it ours or the TLS session's.
    pub(super) fn flush(&self) {
        let mut unsent = self.unsent.borrow_mut();
        if let Some(session) = self.tls.borrow_mut().as_mut() {
            session.take_output(&mut unsent);
        }
        while !unsent.is_empty() {
            match self.handle.write_now(&unsent) {
                Ok(0) => break,
                Ok(sent) => drop(unsent.drain(..sent)),
                Err(error) => {
                    self.end(HostFault::Io(error.to_string().into()));
                    return;
                }
            }
        }
        if unsent.len() > UNSENT_BYTES_MAX {
            self.end(HostFault::Io("the host does not read what is sent to it".into()));
        }
    }

    /// Pings, retries and deadlines; called about twice a second.
    pub fn tick(&self, now: Instant, times: &LinkTimes) {
        if self.is_ending() {
            return;
        }
        let silent = !self.paused.get() && now.duration_since(self.heard.get()) >= times.silence;
        let stuck = !self.opened.get() && now.duration_since(self.started) >= times.open;
        if silent || stuck {
            self.end(HostFault::Silent);
            return;
        }
        if self.opened.get() && now.duration_since(self.pinged.get()) >= times.ping {
            self.pinged.set(now);
            self.write_frame(Frame::ping(bytes::Bytes::new()));
        } else if !self.unsent.borrow().is_empty() {
            self.flush();
        }
    }
}
