//! Reading the stream: places for cursors, and slices of bytes from memory or from the files.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ports::{LogBounds, LogControl, LogHealth, LogWindow, RelaySeq};

use super::{
    FileSlice, LogPos, MemorySlice,
    erase::Look,
    memory::{Chunk, Seen, chunk_at},
    segment::{Segment, Trust},
    shared::{Segments, Shared, micros},
};

/// A consumer's cursor, looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locate {
    /// The events after the cursor start here.
    At(LogPos),
    /// Events after the cursor are gone; here is the oldest that is left.
    Outdated(LogPos),
    /// This number has not been given out yet.
    Future,
}

/// What comes next at a place in the log where an event starts; it ends where one ends.
#[derive(Clone, Debug)]
pub enum Slice {
    /// Nothing yet: the place is the head.
    CaughtUp,
    /// The place is no longer in the window, or inside of an event that was erased.
    Gone,
    /// The file there comes from an earlier run and is being checked, or an account was just taken
    /// down and its events are being looked for: try again in a few milliseconds.
    Checking,
    /// What was here is of an account that was taken down: go on at this place, where an event starts.
    Erased(LogPos),
    Memory(MemorySlice),
    File(FileSlice),
}

impl From<Seen> for Slice {
    fn from(seen: Seen) -> Self {
        match seen {
            Seen::Bytes(slice) => Self::Memory(slice),
            Seen::Erased(end) => Self::Erased(end),
            Seen::Within => Self::Gone,
        }
    }
}

/// Knows the log, from any thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The newest number that was given out and the place behind its event.
    ///
    /// After an unclean stop the number is the last of the lease until the first event comes.
    pub fn head(&self) -> (RelaySeq, LogPos) {
        self.shared.head.load()
    }

    /// The place behind the newest event: one atomic load.
    pub fn head_pos(&self) -> LogPos {
        self.shared.head.pos()
    }

    pub fn bounds(&self) -> LogBounds {
        let head = self.head();
        let segments = self.shared.segments.load();
        let oldest =
            self.readable(&segments).find(|segment| segment.end_seq(head.0) > segment.first_seq);
        LogBounds {
            oldest: oldest.map(|segment| segment.first_seq),
            newest: head.0,
            synced: self.shared.synced().0,
            bytes: segments.iter().map(|segment| segment.file_bytes(head)).sum(),
        }
    }

    /// Where the events after `cursor` start.
    ///
    /// # Errors
    /// If the index can't be read or is damaged there.
    pub fn locate(&self, cursor: u64) -> io::Result<Locate> {
        let head = self.head();
        if cursor >= head.0.0 {
            return Ok(if cursor > head.0.0 { Locate::Future } else { Locate::At(head.1) });
        }
        let segments = self.shared.segments.load();
        let mut held = self.readable(&segments);
        let Some(oldest) = held.next() else {
            return Ok(if cursor == 0 { Locate::At(head.1) } else { Locate::Outdated(head.1) });
        };
        let wanted = RelaySeq(cursor + 1);
        if wanted < oldest.first_seq {
            // Zero asks for whatever there is, so it is never too old.
            let pos = oldest.base;
            return Ok(if cursor == 0 { Locate::At(pos) } else { Locate::Outdated(pos) });
        }
        let Some(segment) = Shared::segment_of(&segments, wanted) else {
            return Ok(Locate::Outdated(oldest.base));
        };
        let pos = if wanted < segment.end_seq(head.0) {
            segment.base.plus(u64::from(segment.record(wanted)?.offset))
        } else {
            // A number that was skipped: the next event is the first of the next segment.
            segment.end_pos(head.1)
        };
        Ok(Locate::At(pos))
    }

    /// The place of the oldest event that can be had, or the head.
    pub fn oldest(&self) -> LogPos {
        let segments = self.shared.segments.load();
        let oldest = self.readable(&segments).next().map(|segment| segment.base);
        oldest.unwrap_or_else(|| self.shared.head.pos())
    }

    fn readable<'a>(&self, segments: &'a Segments) -> impl Iterator<Item = &'a Arc<Segment>> {
        let from = LogPos(self.shared.readable_from.load(Ordering::Acquire));
        segments.iter().skip_while(move |segment| segment.base < from)
    }

    pub fn view(&self) -> LogView {
        LogView { shared: Arc::clone(&self.shared), chunk: None }
    }
}

impl LogControl for LogReader {
    fn bounds(&self) -> LogBounds {
        self.bounds()
    }

    fn window(&self) -> LogWindow {
        let bytes = self.shared.window_bytes.load(Ordering::Relaxed);
        LogWindow {
            age: Duration::from_micros(self.shared.window_micros.load(Ordering::Relaxed)),
            bytes: (bytes != u64::MAX).then_some(bytes),
        }
    }

    fn set_window(&self, window: LogWindow) {
        self.shared.window_micros.store(micros(window.age), Ordering::Relaxed);
        self.shared.window_bytes.store(window.bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.shared.keeper_bell.ring();
    }

    fn health(&self) -> LogHealth {
        let why = self.shared.fault.load_full();
        LogHealth {
            writable: why.is_none(),
            why,
            free_bytes: self.shared.room_bytes(),
            stats: self.shared.stats(),
        }
    }
}

/// A reading place for slices; one for each shard, as it remembers the chunk that it read last.
#[derive(Debug)]
pub struct LogView {
    shared: Arc<Shared>,
    chunk: Option<Arc<Chunk>>,
}

impl LogView {
    /// The place behind the newest event.
    pub fn head_pos(&self) -> LogPos {
        self.shared.head.pos()
    }

    /// What is at `pos`, as far as it lies together: in a chunk of memory, or in a file.
    pub fn slice(&mut self, pos: LogPos) -> Slice {
        let head = self.shared.head.pos();
        if pos >= head {
            return Slice::CaughtUp;
        }
        self.memory(pos).unwrap_or_else(|| self.file(pos, head))
    }

    fn memory(&mut self, pos: LogPos) -> Option<Slice> {
        let take_down = self.shared.erasures.newest();
        // A chunk that another one has replaced is not searched for that take-down.
        let known = self.chunk.as_ref().filter(|chunk| chunk.is_swept(take_down));
        if let Some(seen) = known.and_then(|chunk| chunk.look(pos, usize::MAX)) {
            return Some(seen.into());
        }
        let chunks = self.shared.chunks.load();
        let chunk = chunk_at(&chunks, pos)?;
        let seen = chunk.look(pos, usize::MAX)?;
        if !chunk.is_swept(take_down) {
            return Some(Slice::Checking);
        }
        self.chunk = Some(Arc::clone(chunk));
        Some(seen.into())
    }

    fn file(&self, pos: LogPos, head: LogPos) -> Slice {
        if pos.0 < self.shared.readable_from.load(Ordering::Acquire) {
            return Slice::Gone;
        }
        let segments = self.shared.segments.load();
        let Some(segment) = Shared::segment_at(&segments, pos) else { return Slice::Gone };
        let end = segment.end_pos(head);
        if pos >= end {
            return Slice::Gone;
        }
        match segment.trust() {
            Trust::Good => self.checked_file(segment, pos, (end.0 - pos.0) as usize),
            Trust::Damaged => Slice::Gone,
            Trust::Wanted => Slice::Checking,
            Trust::Unknown => {
                if segment.want() {
                    self.shared.keeper_bell.ring();
                }
                Slice::Checking
            }
        }
    }

    fn checked_file(&self, segment: &Arc<Segment>, pos: LogPos, len: usize) -> Slice {
        // Before the gaps: what is overwritten from here on makes the slice unsound.
        let blankings = segment.blankings();
        if segment.swept() < self.shared.erasures.newest() {
            if segment.want_sweep() {
                self.shared.erasures.ring();
            }
            return Slice::Checking;
        }
        let at = pos.0 - segment.base.0;
        match segment.gaps().look(at) {
            Look::Erased(end) => Slice::Erased(segment.base.plus(end)),
            Look::Within => Slice::Gone,
            Look::Clear(until) => Slice::File(FileSlice {
                file: Arc::clone(&segment.data.file),
                offset: segment.data_offset(pos),
                len: len.min(usize::try_from(until - at).unwrap_or(usize::MAX)),
                blankings: Some((Arc::clone(segment), blankings)),
            }),
        }
    }

    /// The number of the last event which lies wholly before `pos`.
    ///
    /// # Errors
    /// If the index can't be read or is damaged there, or the place is gone.
    pub fn seq_at(&self, pos: LogPos) -> io::Result<RelaySeq> {
        let head = self.shared.head.load();
        if pos >= head.1 {
            return Ok(head.0);
        }
        let segments = self.shared.segments.load();
        let segment = segment_with(&segments, pos)?;
        let within = pos.0 - segment.base.0;
        let seq = segment.search(segment.end_seq(head.0), |record| record.end() > within)?;
        Ok(RelaySeq(seq.0 - 1))
    }
}

fn segment_with(segments: &Segments, pos: LogPos) -> io::Result<&Arc<Segment>> {
    Shared::segment_at(segments, pos)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the place is out of the window"))
}
