//! [`Replay`]: what the consumers of a shard share when they read from the log's files.
//!
//! The kernel copies from the page cache into one buffer, which stays in the processor's cache, and
//! from there into the socket. Two copies are not dearer than one from memory (see `bench/README.md`), and
//! what the kernel has taken is not changed any more when the file is: pages that were spliced into a
//! socket would be.

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind},
};

use bytes::Bytes;
use ports::RelaySeq;

use super::{ConsumerLink, consumer::PIECE_BYTES, events::Walk};
use crate::{
    log::{FileSlice, message_span},
    rt::{self, Offload},
};

/// So much goes out of a shard to those who are behind, then the others get their turn.
const PASS_BYTES: usize = 4 * PIECE_BYTES;

/// No header of a WebSocket frame that a server sends is longer.
const HEADER_BYTES_MAX: usize = 10;

#[derive(Debug)]
pub struct Replay {
    buffer: RefCell<Vec<u8>>,
    disk: Offload,
    /// The pass that `left` is about.
    pass: Cell<u64>,
    left: Cell<usize>,
}

/// What came of an attempt to send a piece of a file.
#[derive(Debug)]
pub(super) enum Sent {
    /// The piece has to be read from the disk first.
    Cold,
    /// The kernel took so many bytes, and of the event in which it stopped this is left. Behind that,
    /// this is the last number.
    Events { bytes: usize, rest: Bytes, seq: Option<RelaySeq> },
    /// This is not what was written there.
    Unreadable(io::Error),
}

impl Replay {
    pub fn new(disk: Offload) -> Self {
        Self { buffer: RefCell::default(), disk, pass: Cell::new(0), left: Cell::new(0) }
    }

    /// For what may wait for the disk.
    pub fn disk(&self) -> &Offload {
        &self.disk
    }

    /// Waits until a piece more may be sent without keeping others waiting. Whoever waits longest is
    /// first.
    pub(super) async fn turn(&self) {
        loop {
            if self.pass.get() != rt::passes() {
                self.pass.set(rt::passes());
                self.left.set(PASS_BYTES);
            }
            if let Some(left) = self.left.get().checked_sub(PIECE_BYTES) {
                return self.left.set(left);
            }
            rt::yield_now().await;
        }
    }

    /// Sends the events at the start of a piece, as far as they are in memory and the kernel takes
    /// them at once. After a `patient` read they are in memory: the thread waits for what is not.
    ///
    /// # Errors
    /// If the connection is broken.
    pub(super) fn send(
        &self,
        link: &ConsumerLink,
        slice: &FileSlice,
        patient: bool,
    ) -> io::Result<Sent> {
        let mut buffer = self.buffer.borrow_mut();
        let read = read(&mut buffer, slice, patient);
        if !slice.is_sound() {
            // An event in it may have been erased while it was read.
            return Ok(Sent::Cold);
        }
        match read {
            Ok(Some(len)) => send_events(link, &buffer[..len]),
            Ok(None) => Ok(Sent::Cold),
            Err(error) => Ok(Sent::Unreadable(error)),
        }
    }
}

/// Reads some whole events, at least one, and tells how many bytes they are. `None`: they are not in
/// memory.
fn read(buffer: &mut Vec<u8>, slice: &FileSlice, patient: bool) -> io::Result<Option<usize>> {
    let mut wanted = PIECE_BYTES;
    loop {
        if buffer.len() < wanted {
            buffer.resize(wanted, 0);
        }
        let target = &mut buffer[..wanted];
        let read =
            if patient { Some(slice.read_start(target)?) } else { slice.read_cached(target)? };
        let Some(read) = read else { return Ok(None) };
        let bytes = &buffer[..read];
        let whole = Walk::default().to(usize::MAX, bytes).end();
        if whole > 0 {
            return Ok(Some(whole));
        }
        match message_span(bytes) {
            Some(message) if message.end > slice.len() => return Err(not_an_event()),
            Some(message) if message.end > wanted => wanted = message.end,
            None if read >= HEADER_BYTES_MAX || patient => return Err(not_an_event()),
            _ => return Ok(None),
        }
    }
}

fn not_an_event() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "no event starts here")
}

/// Hands whole events to the kernel.
fn send_events(link: &ConsumerLink, events: &[u8]) -> io::Result<Sent> {
    let bytes = link.write_now(events)?;
    // Stopped at a boundary, there is no room: the next event waits for some.
    let walk = Walk::default().to(events.len().min(bytes + 1), events);
    let rest = Bytes::copy_from_slice(&events[bytes..walk.end()]);
    Ok(Sent::Events { bytes, rest, seq: walk.seq(events) })
}
