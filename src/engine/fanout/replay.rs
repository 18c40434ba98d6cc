//! [`Replay`]: sends to those who are behind, on threads of its own, which are nicer than all others: a
//! copy of megabytes keeps no live event waiting, and gets the processor when nothing else wants it.
//!
//! The kernel copies from the page cache into one buffer, which stays in the processor's cache, and
//! from there into the socket. Two copies are not dearer than one from memory (see `bench/README.md`), and
//! what the kernel has taken is not changed any more when the file is: pages that were spliced into a
//! socket would be.

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind},
    ops::ControlFlow,
    time::Duration,
};

use bytes::Bytes;
use ports::RelaySeq;

use super::{ConsumerLink, consumer::PIECE_BYTES, events::Walk};
use crate::{
    log::{FileSlice, MemorySlice, message_span},
    rt::{self, Offload, SharedSocket},
};

/// So much goes from a shard's own thread to those who are a little behind, then the others get their
/// turn.
const PASS_BYTES: usize = 4 * PIECE_BYTES;

/// So much a consumer gets before it is the next one's turn.
const JOB_BYTES: usize = 4 * PIECE_BYTES;

/// How long to wait when no more files can be open.
const CROWDED_WAIT: Duration = Duration::from_millis(50);

/// No header of a WebSocket frame that a server sends is longer.
const HEADER_BYTES_MAX: usize = 10;

#[derive(Debug)]
pub struct Replay {
    disk: Offload,
    senders: Offload,
    /// The pass that `left` is about.
    pass: Cell<u64>,
    left: Cell<usize>,
}

/// What a consumer who is behind gets next.
#[derive(Debug)]
pub(super) enum Behind {
    File(FileSlice),
    Memory(MemorySlice),
}

/// What came of an attempt to send some of it.
#[derive(Debug)]
pub(super) enum Sent {
    /// It has to be read from the disk first.
    Cold,
    Events(Events),
    /// This is not what was written there.
    Unreadable(io::Error),
}

/// Events that were sent, or nearly so.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// So many bytes the kernel took.
    pub(super) bytes: usize,
    /// This is left of the event in which it stopped.
    pub(super) rest: Bytes,
    /// The last number behind that.
    pub(super) seq: Option<RelaySeq>,
}

impl Replay {
    pub fn new(disk: Offload, senders: Offload) -> Self {
        Self { disk, senders, pass: Cell::new(0), left: Cell::new(0) }
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

    /// Sends the events at the start of it, `piece` bytes at a time, as far as they are in memory and
    /// the kernel takes them at once. After a `patient` read they are in memory: the thread waits for
    /// what is not.
    ///
    /// # Errors
    /// If the connection is broken.
    pub(super) async fn send(
        &self,
        link: &ConsumerLink,
        behind: Behind,
        piece: usize,
        patient: bool,
    ) -> io::Result<Sent> {
        let Ok(socket) = link.share_socket() else {
            // As many files are open as may be; other consumers are done with theirs soon.
            rt::sleep(CROWDED_WAIT).await;
            return Ok(Sent::Events(Events::default()));
        };
        let job = Job { socket, piece, patient, done: Events::default() };
        self.senders.run(move || job.run(behind)).await
    }
}

/// Work of a sending thread for one consumer.
struct Job {
    socket: SharedSocket,
    piece: usize,
    patient: bool,
    done: Events,
}

impl Job {
    fn run(mut self, mut behind: Behind) -> io::Result<Sent> {
        loop {
            let before = self.done.bytes;
            let step = match &behind {
                Behind::File(slice) => self.send_file(slice)?,
                Behind::Memory(slice) => self.send_memory(slice)?,
            };
            match step {
                ControlFlow::Continue(()) => {}
                // What was sent before that is told first.
                ControlFlow::Break(_) if before > 0 => return Ok(Sent::Events(self.done)),
                ControlFlow::Break(sent) => return Ok(sent),
            }
            let sent = self.done.bytes - before;
            if sent == 0 || !self.done.rest.is_empty() || self.done.bytes >= JOB_BYTES {
                return Ok(Sent::Events(self.done));
            }
            behind = match behind {
                Behind::File(slice) => Behind::File(slice.after(sent)),
                Behind::Memory(slice) => Behind::Memory(slice.after(sent)),
            };
        }
    }

    fn send_file(&mut self, slice: &FileSlice) -> io::Result<ControlFlow<Sent>> {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        if slice.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        BUFFER.with_borrow_mut(|buffer| {
            let read = read(buffer, slice, self.piece, self.patient);
            if !slice.is_sound() {
                // An event in it may have been erased while it was read.
                return Ok(ControlFlow::Break(Sent::Cold));
            }
            match read {
                Ok(Some(len)) => self.send_events(&buffer[..len]).map(ControlFlow::Continue),
                Ok(None) => Ok(ControlFlow::Break(Sent::Cold)),
                Err(error) => Ok(ControlFlow::Break(Sent::Unreadable(error))),
            }
        })
    }

    fn send_memory(&mut self, slice: &MemorySlice) -> io::Result<ControlFlow<Sent>> {
        if !slice.is_stale() {
            let whole = Walk::default().to(self.piece, slice).end();
            self.send_events(&slice[..whole])?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Hands whole events to the kernel.
    fn send_events(&mut self, events: &[u8]) -> io::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let bytes = self.socket.write_now(events)?;
        // Stopped at a boundary, there is no room: the next event waits for some.
        let walk = Walk::default().to(events.len().min(bytes + 1), events);
        self.done.bytes += bytes;
        self.done.rest = Bytes::copy_from_slice(&events[bytes..walk.end()]);
        self.done.seq = walk.seq(events);
        Ok(())
    }
}

/// Reads some whole events, at least one, and tells how many bytes they are. `None`: they are not in
/// memory.
fn read(
    buffer: &mut Vec<u8>,
    slice: &FileSlice,
    piece: usize,
    patient: bool,
) -> io::Result<Option<usize>> {
    let mut wanted = piece;
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
