//! Serves one consumer: a place in the log that moves on as the kernel takes bytes.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::{Buf, Bytes};
use ports::{ConsumerEnd, ConsumerStart, RelaySeq};
use protocol::frame::{error_frame, info_frame};
use tungstenite::protocol::{
    CloseFrame,
    frame::{
        Frame,
        coding::{CloseCode, Data, OpCode},
    },
};

use super::{
    ConsumerLink, LiveBytes, Replay,
    client::listen,
    events::Walk,
    link::push_frame,
    replay::{Behind, Events, Sent},
};
use crate::{
    log::{Locate, LogPos, LogReader, MemorySlice, Slice},
    rt::{self, Signal, SocketReader, SocketWriter},
};

/// The most that is sent at once; who has sent so much without waiting lets others have their turn.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// So much is read from a file for a consumer who has no room for more.
const PIECE_BYTES_MIN: usize = 16 << 10;

/// Up to here a slice goes through the driver, which takes the writes of many consumers together.
const LIVE_BYTES: usize = 64 << 10;

/// How long to wait for a file to be checked before it is served.
const CHECKING_WAIT: Duration = Duration::from_millis(5);

/// The log as a shard shows it to its consumers.
pub trait Feed {
    fn log(&self) -> &LogReader;
    fn slice(&self, pos: LogPos) -> Slice;
    /// Happens when the log has grown, or the engine stops.
    fn grown(&self) -> &Signal;
    fn live(&self) -> &LiveBytes;
    fn replay(&self) -> &Replay;
    /// Consumers are to be sent away once they have everything.
    fn is_stopping(&self) -> bool;
}

/// Serves a consumer until it ends; the reason is why.
pub async fn serve<F: Feed>(
    feed: Rc<F>,
    link: Rc<ConsumerLink>,
    socket: (SocketReader, SocketWriter),
    received: Vec<u8>,
    start: ConsumerStart,
) -> ConsumerEnd {
    let (reader, writer) = socket;
    rt::spawn(listen(Rc::clone(&link), reader, received));
    let pos = feed.log().head_pos();
    let mut consumer = Consumer {
        feed,
        link,
        writer,
        pos,
        unyielded: 0,
        piece: PIECE_BYTES,
        was_live: false,
        moved_to: None,
    };
    let end = match consumer.run(start).await {
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
    /// Where the next event starts.
    pos: LogPos,
    /// Bytes sent since the others had their turn.
    unyielded: usize,
    /// Bytes to try to send at once: twice of what there was room for the last time.
    piece: usize,
    /// It has had everything once.
    was_live: bool,
    /// Where it went on after its place was gone.
    moved_to: Option<LogPos>,
}

impl<F: Feed> Consumer<F> {
    async fn run(&mut self, start: ConsumerStart) -> io::Result<ConsumerEnd> {
        let placed = match start {
            ConsumerStart::Cursor(cursor) => self.place(cursor).await?,
            ConsumerStart::Live(newest) => self.place_live(newest).await,
        };
        if let Some(end) = placed {
            return self.say_goodbye(end).await;
        }
        loop {
            let seen = (self.feed.grown().count(), self.link.wake().count());
            if let Some(end) = self.link.ending() {
                return self.say_goodbye(end).await;
            }
            if self.link.has_control() {
                let control = self.link.take_control();
                self.write(control).await?;
            }
            match self.feed.slice(self.pos) {
                Slice::CaughtUp if self.feed.is_stopping() => {
                    return self.say_goodbye(ConsumerEnd::Shutdown).await;
                }
                Slice::CaughtUp => self.wait(seen).await,
                Slice::Gone if self.may_move_on() => self.move_on().await?,
                Slice::Gone => return self.say_goodbye(ConsumerEnd::TooSlow).await,
                Slice::Checking => rt::sleep(CHECKING_WAIT).await,
                Slice::Erased(next) => self.step_over(next),
                Slice::Memory(slice) if slice.len() <= LIVE_BYTES => self.send_live(slice).await?,
                Slice::Memory(slice) if self.was_live => self.send_memory(slice).await?,
                Slice::Memory(slice) => self.send_behind(Behind::Memory(slice)).await?,
                Slice::File(slice) => self.send_behind(Behind::File(slice)).await?,
            }
            self.let_others().await;
        }
    }

    /// Goes on behind events that were erased.
    fn step_over(&mut self, next: LogPos) {
        self.pos = next;
        self.link.note_pos(next);
    }

    /// Places a consumer at the end of the log as it was when its handshake was answered: what has come
    /// since is the first that it gets. A reason if that can't be read.
    async fn place_live(&mut self, newest: RelaySeq) -> Option<ConsumerEnd> {
        self.was_live = true;
        let (head, head_pos) = self.feed.log().head();
        self.pos = head_pos;
        self.link.note_start(head_pos, head);
        if newest >= head {
            return None;
        }
        match self.locate(newest.0).await {
            Ok((Locate::At(pos), before)) => {
                self.pos = pos;
                self.link.note_start(pos, before);
                None
            }
            // All of it is out of the window already.
            Ok(_) => None,
            Err(error) => Some(unreadable(&error)),
        }
    }

    /// Where the events after a cursor start, and the number of the one before.
    async fn locate(&self, cursor: u64) -> io::Result<(Locate, RelaySeq)> {
        let log = self.feed.log().clone();
        let find = move || {
            let found = log.locate(cursor)?;
            let before = match found {
                Locate::At(pos) | Locate::Outdated(pos) => log.view().seq_at(pos)?,
                Locate::Future => RelaySeq(cursor),
            };
            Ok((found, before))
        };
        self.feed.replay().disk().run(find).await
    }

    /// Finds the place behind a cursor; a reason if there is none.
    async fn place(&mut self, cursor: u64) -> io::Result<Option<ConsumerEnd>> {
        let (found, before) = match self.locate(cursor).await {
            Ok(found) => found,
            Err(error) => return Ok(Some(unreadable(&error))),
        };
        match found {
            Locate::Future => return Ok(Some(ConsumerEnd::FutureCursor)),
            Locate::At(pos) => self.pos = pos,
            Locate::Outdated(pos) => {
                self.pos = pos;
                self.write(outdated()).await?;
            }
        }
        self.link.note_start(self.pos, before);
        Ok(None)
    }

    /// Whether a consumer whose place is gone goes on at the oldest event that is left.
    ///
    /// Who reads faster than the network writes can lose its place only once, and only when it starts
    /// close to the window's end. Who was live and fell behind all the way does not keep up, nor
    /// does whom it happens to again. (It has not happened again if nothing could be read at all.)
    fn may_move_on(&self) -> bool {
        !self.was_live && self.moved_to.is_none_or(|to| to == self.pos)
    }

    async fn move_on(&mut self) -> io::Result<()> {
        let again = self.moved_to.is_some();
        self.pos = self.feed.log().oldest();
        self.moved_to = Some(self.pos);
        if again {
            return Ok(());
        }
        self.write(outdated()).await
    }

    /// Sends what is new, as it stands in memory.
    async fn send_live(&mut self, slice: MemorySlice) -> io::Result<()> {
        let events = self.feed.live().of(self.pos, &slice);
        drop(slice);
        let mut end = events.len();
        let mut at = 0;
        self.link.set_writing(true);
        while at < end {
            let count = self.writer.write(events.slice(at..end)).await?;
            at += count;
            self.note_written(count);
            if self.link.has_words() && end == events.len() {
                end = Walk::default().to(at, &events).end();
            }
        }
        self.link.set_writing(false);
        self.move_by(end);
        Ok(())
    }

    /// Sends what is in memory to a consumer who was live and has fallen behind a little.
    async fn send_memory(&mut self, slice: MemorySlice) -> io::Result<()> {
        let mut at = 0;
        loop {
            let piece = slice.len().min(at + PIECE_BYTES);
            let count = self.link.write_now(&slice[at..piece])?;
            at += count;
            self.note_written(count);
            if at < piece || at == slice.len() || self.link.has_words() {
                break;
            }
            self.let_others().await;
            if slice.is_stale() {
                break;
            }
        }
        if at < slice.len() {
            // Not the whole chunk waits until there is room, but the rest of one event.
            let least = if slice.is_stale() { at } else { at + 1 };
            let end = Walk::default().to(least, &slice).end();
            let rest = Bytes::copy_from_slice(&slice[at..end]);
            drop(slice);
            self.write(rest).await?;
            at = end;
        }
        self.move_by(at);
        Ok(())
    }

    /// Sends to a consumer who replays.
    async fn send_behind(&mut self, behind: Behind) -> io::Result<()> {
        let feed = Rc::clone(&self.feed);
        let cold = if let Behind::File(slice) = &behind { Some(slice.clone()) } else { None };
        let mut sent = feed.replay().send(&self.link, behind, self.piece, false).await?;
        if let (Sent::Cold, Some(slice)) = (&sent, cold) {
            let cold = slice.clone();
            if let Err(error) = feed.replay().disk().run(move || cold.warm()).await {
                self.link.end(unreadable(&error));
                return Ok(());
            }
            let warm = Behind::File(slice);
            sent = feed.replay().send(&self.link, warm, self.piece, true).await?;
        }
        match sent {
            Sent::Cold => {}
            Sent::Unreadable(error) => self.link.end(unreadable(&error)),
            Sent::Events(Events { bytes, rest, seq }) => {
                let all = bytes + rest.len();
                self.piece = (2 * bytes).clamp(PIECE_BYTES_MIN, PIECE_BYTES);
                self.link.note_written(bytes, rt::now());
                self.write(rest).await?;
                self.pos = self.pos.plus(all as u64);
                if let Some(seq) = seq {
                    self.link.note_known(self.pos, seq);
                }
            }
        }
        Ok(())
    }

    fn note_written(&mut self, count: usize) {
        self.unyielded += count;
        self.link.note_written(count, rt::now());
    }

    fn move_by(&mut self, bytes: usize) {
        self.pos = self.pos.plus(bytes as u64);
        self.link.note_pos(self.pos);
        let (seq, head) = self.feed.log().head();
        if head == self.pos {
            self.link.note_known(self.pos, seq);
        }
    }

    /// Writes all bytes, however long that takes.
    async fn write(&mut self, mut bytes: Bytes) -> io::Result<()> {
        self.link.set_writing(true);
        while !bytes.is_empty() {
            let count = self.writer.write(bytes.clone()).await?;
            bytes.advance(count);
            self.note_written(count);
        }
        self.link.set_writing(false);
        Ok(())
    }

    async fn let_others(&mut self) {
        if self.unyielded >= PIECE_BYTES {
            self.unyielded = 0;
            self.feed.replay().turn().await;
        }
    }

    /// Until there is more to send, or something else to do.
    async fn wait(&mut self, (grown, woken): (u64, u64)) {
        self.unyielded = 0;
        self.was_live = true;
        if self.feed.log().head_pos() != self.pos {
            return;
        }
        let mut grown = pin!(self.feed.grown().past(grown));
        let mut woken = pin!(self.link.wake().past(woken));
        poll_fn(|cx| match grown.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => woken.as_mut().poll(cx),
        })
        .await;
    }

    /// Says why the stream ends, as far as the peer still takes it.
    async fn say_goodbye(&mut self, end: ConsumerEnd) -> io::Result<ConsumerEnd> {
        self.link.end(end);
        if self.link.is_deaf() {
            return Ok(end);
        }
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
            ConsumerEnd::Silent => (CloseCode::Policy, "no answer to a ping"),
            ConsumerEnd::Shutdown => (CloseCode::Away, "the relay is shutting down"),
            ConsumerEnd::Unreadable => (CloseCode::Error, "the relay cannot read its log there"),
            ConsumerEnd::Protocol => (CloseCode::Protocol, ""),
            ConsumerEnd::Left => (CloseCode::Normal, ""),
        };
        push_frame(&mut words, Frame::close(Some(CloseFrame { code, reason: reason.into() })));
        self.write(words.into()).await?;
        Ok(end)
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

fn outdated() -> Bytes {
    let message = "events after the cursor are gone; the oldest that are left follow";
    message_frame(info_frame("OutdatedCursor", message))
}

fn unreadable(error: &io::Error) -> ConsumerEnd {
    tracing::error!(%error, "a consumer's place in the log can't be read");
    ConsumerEnd::Unreadable
}

/// A binary message.
fn message_frame(payload: Vec<u8>) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + 4);
    push_frame(&mut out, Frame::message(payload, OpCode::Data(Data::Binary), true));
    out.into()
}
