//! Serves one consumer: a place in the log that moves on as the kernel takes bytes.

use std::{future::poll_fn, io, rc::Rc, task::Poll, time::Duration};

use bytes::{Buf, Bytes};
use ports::{ConsumerEnd, RelaySeq};
use protocol::frame::{error_frame, info_frame};
use tungstenite::protocol::{
    CloseFrame,
    frame::{
        Frame,
        coding::{CloseCode, Data, OpCode},
    },
};

use super::{ConsumerLink, client::listen, link::push_frame};
use crate::{
    log::{FileSlice, Locate, LogPos, Slice},
    rt::{self, ReplayFile, Signal, SocketReader, SocketWriter},
};

/// The most that is sent at once.
const SLICE_BYTES_MAX: usize = 256 << 10;

/// A writer that was never made to wait lets the others run after so many bytes.
const TURN_BYTES: usize = 1 << 20;

/// How long to wait for a file to be checked before it is served.
const CHECKING_WAIT: Duration = Duration::from_millis(5);

/// The log as a shard shows it to its consumers.
pub trait Feed {
    fn head(&self) -> (RelaySeq, LogPos);
    /// # Errors
    /// If the index can't be read.
    fn locate(&self, cursor: u64) -> io::Result<Locate>;
    fn slice(&self, pos: LogPos, bytes_max: usize) -> Slice;
    /// # Errors
    /// If the index can't be read, or the place is gone.
    fn boundary_at_or_after(&self, pos: LogPos) -> io::Result<LogPos>;
    /// The number of the last event before a place, if the index can be read there.
    fn seq_at(&self, pos: LogPos) -> Option<RelaySeq>;
    /// Happens when the log has grown, or the engine stops.
    fn grown(&self) -> &Signal;
    /// Consumers are to be sent away once they have everything.
    fn is_stopping(&self) -> bool;
}

/// Serves a consumer until it ends; the reason is why.
pub async fn serve<F: Feed>(
    feed: Rc<F>,
    link: Rc<ConsumerLink>,
    socket: (SocketReader, SocketWriter),
    received: Vec<u8>,
    cursor: Option<u64>,
) -> ConsumerEnd {
    let (reader, writer) = socket;
    rt::spawn(listen(Rc::clone(&link), reader, received));
    let pos = feed.head().1;
    let mut consumer =
        Consumer { feed, link, writer, pos, file: None, unyielded: 0, at_boundary: true };
    let end = match consumer.run(cursor).await {
        Ok(end) => end,
        // The connection is broken: nobody hears why.
        Err(_) => consumer.link.ending().unwrap_or(ConsumerEnd::Left),
    };
    consumer.link.end(end);
    consumer.link.shutdown_write();
    consumer.hung_up().await;
    end
}

struct Consumer<F> {
    feed: Rc<F>,
    link: Rc<ConsumerLink>,
    writer: SocketWriter,
    pos: LogPos,
    file: Option<ReplayFile>,
    unyielded: usize,
    /// `pos` is known to be where an event starts.
    at_boundary: bool,
}

impl<F: Feed> Consumer<F> {
    async fn run(&mut self, cursor: Option<u64>) -> io::Result<ConsumerEnd> {
        if let Some(end) = self.place(cursor).await? {
            return self.say_goodbye(end).await;
        }
        loop {
            let seen = (self.feed.grown().count(), self.link.wake().count());
            if let Some(end) = self.link.ending() {
                return self.say_goodbye(end).await;
            }
            if self.link.has_control() && self.find_boundary() {
                let control = self.link.take_control();
                self.write(control, None).await?;
                continue;
            }
            match self.feed.slice(self.pos, self.slice_bytes()) {
                Slice::CaughtUp if self.feed.is_stopping() => {
                    return self.say_goodbye(ConsumerEnd::Shutdown).await;
                }
                Slice::CaughtUp => self.wait(seen).await,
                Slice::Gone => return self.say_goodbye(ConsumerEnd::TooSlow).await,
                Slice::Checking => rt::sleep(CHECKING_WAIT).await,
                Slice::Memory(slice) => {
                    self.write(Bytes::from_owner(slice), Some(self.pos)).await?;
                }
                Slice::File(slice) => self.write_file(slice).await?,
            }
        }
    }

    /// Finds the consumer's place; a reason if there is none.
    async fn place(&mut self, cursor: Option<u64>) -> io::Result<Option<ConsumerEnd>> {
        let (head, head_pos) = self.feed.head();
        let Some(cursor) = cursor else {
            self.pos = head_pos;
            self.link.note_start(head_pos, head);
            return Ok(None);
        };
        match self.feed.locate(cursor)? {
            Locate::Future => return Ok(Some(ConsumerEnd::FutureCursor)),
            Locate::At(pos) => self.pos = pos,
            Locate::Outdated(pos) => {
                self.pos = pos;
                let message = "events after the cursor are gone; the oldest that are left follow";
                let info = message_frame(info_frame("OutdatedCursor", message));
                self.write(info, None).await?;
            }
        }
        let before = self.feed.seq_at(self.pos).unwrap_or(RelaySeq(cursor));
        self.link.note_start(self.pos, before);
        Ok(None)
    }

    /// Whether `pos` is where an event starts; looks it up if that is not known.
    fn find_boundary(&mut self) -> bool {
        if !self.at_boundary {
            let boundary = self.feed.boundary_at_or_after(self.pos);
            self.at_boundary = boundary.is_ok_and(|boundary| boundary == self.pos);
        }
        self.at_boundary
    }

    /// How much to send next: with a control frame due, only to the end of the event.
    fn slice_bytes(&self) -> usize {
        if !self.link.has_control() {
            return SLICE_BYTES_MAX;
        }
        match self.feed.boundary_at_or_after(self.pos) {
            Ok(boundary) if boundary > self.pos => {
                ((boundary.0 - self.pos.0) as usize).min(SLICE_BYTES_MAX)
            }
            _ => SLICE_BYTES_MAX,
        }
    }

    async fn write_file(&mut self, slice: FileSlice) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) if file.is_of(&slice.file) => file,
            _ => ReplayFile::new(&slice.file)?,
        };
        let bytes = file.read_at(slice.offset, slice.len).await?;
        self.file = Some(file);
        if bytes.is_empty() {
            // The file is shorter than the index says: never go round in circles on that.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.write(bytes.freeze(), Some(self.pos)).await
    }

    /// Writes all bytes. If they are the log's from a place on, the place moves along, and an end
    /// in between cuts them off behind the event that was begun.
    async fn write(&mut self, mut bytes: Bytes, place: Option<LogPos>) -> io::Result<()> {
        self.link.set_writing(true);
        let result = self.write_all(&mut bytes, place).await;
        self.link.set_writing(false);
        result?;
        if place.is_some() {
            // A slice ends where what was published ended, or within an event.
            let (seq, head) = self.feed.head();
            self.at_boundary = head == self.pos;
            if self.at_boundary {
                self.link.note_known(self.pos, seq);
            }
        }
        if self.unyielded >= TURN_BYTES {
            self.unyielded = 0;
            rt::yield_now().await;
        }
        Ok(())
    }

    async fn write_all(&mut self, bytes: &mut Bytes, place: Option<LogPos>) -> io::Result<()> {
        let mut cut = false;
        while !bytes.is_empty() {
            let count = self.writer.write(bytes.clone()).await?;
            bytes.advance(count);
            self.unyielded += count;
            self.link.note_written(count, rt::now());
            if place.is_some() {
                self.pos = self.pos.plus(count as u64);
                self.link.note_pos(self.pos);
                if self.link.ending().is_some() && !cut {
                    cut = true;
                    let boundary = self.feed.boundary_at_or_after(self.pos)?;
                    bytes.truncate((boundary.0 - self.pos.0) as usize);
                }
            }
        }
        Ok(())
    }

    /// Until there is more to send, or something else to do.
    async fn wait(&mut self, (grown, woken): (u64, u64)) {
        self.unyielded = 0;
        if self.feed.head().1 != self.pos {
            return;
        }
        poll_fn(|cx| match self.feed.grown().poll_past(grown, cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.link.wake().poll_past(woken, cx),
        })
        .await;
    }

    /// Says why the stream ends, at the end of an event, as far as the peer still takes it.
    async fn say_goodbye(&mut self, end: ConsumerEnd) -> io::Result<ConsumerEnd> {
        self.link.end(end);
        if end == ConsumerEnd::Silent || self.link.is_deaf() {
            return Ok(end);
        }
        self.finish_event().await?;
        let mut words = Vec::new();
        let (code, reason) = match end {
            ConsumerEnd::TooSlow => {
                let message =
                    "the consumer does not keep up; reconnect with the last seq as cursor";
                words.extend(message_frame(error_frame("ConsumerTooSlow", message)));
                (CloseCode::Policy, "ConsumerTooSlow")
            }
            ConsumerEnd::FutureCursor => {
                let message = "the cursor is above the newest event";
                words.extend(message_frame(error_frame("FutureCursor", message)));
                (CloseCode::Policy, "FutureCursor")
            }
            ConsumerEnd::Kicked => (CloseCode::Policy, "closed by the operator"),
            ConsumerEnd::Shutdown => (CloseCode::Away, "the relay is shutting down"),
            ConsumerEnd::Protocol => (CloseCode::Protocol, ""),
            ConsumerEnd::Left | ConsumerEnd::Silent => (CloseCode::Normal, ""),
        };
        push_frame(&mut words, Frame::close(Some(CloseFrame { code, reason: reason.into() })));
        self.write(words.into(), None).await?;
        Ok(end)
    }

    /// Sends the rest of an event that was begun. If the place is gone, so is the rest.
    async fn finish_event(&mut self) -> io::Result<()> {
        while !self.find_boundary() {
            let boundary = self.feed.boundary_at_or_after(self.pos)?;
            let missing = (boundary.0 - self.pos.0) as usize;
            match self.feed.slice(self.pos, missing) {
                Slice::Memory(slice) => {
                    self.write(Bytes::from_owner(slice), Some(self.pos)).await?;
                }
                Slice::File(slice) => self.write_file(slice).await?,
                Slice::Checking => rt::sleep(CHECKING_WAIT).await,
                Slice::CaughtUp => return Ok(()),
                Slice::Gone => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        Ok(())
    }

    /// Waits for the peer to close its side, or the linger time to run out.
    async fn hung_up(&mut self) {
        loop {
            let woken = self.link.wake().count();
            if self.link.is_deaf() {
                return;
            }
            self.link.wake().past(woken).await;
        }
    }
}

/// A binary message.
fn message_frame(payload: Vec<u8>) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + 4);
    push_frame(&mut out, Frame::message(payload, OpCode::Data(Data::Binary), true));
    out.into()
}
