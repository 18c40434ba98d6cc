//! The newest part of the log in memory: chunks that one thread fills and all threads read.
//!
//! # Why this is sound
//! A chunk's bytes are zeroed when it is allocated, so reading any of them is reading initialised
//! memory. They are split by `published`: below it nobody writes any more and anybody may read;
//! at and above it nobody reads and only the one [`OpenChunk`] writes. `published` only grows while
//! the chunk is shared, and is stored (release) after the bytes, and loaded (acquire) before them.
//! There is one `OpenChunk` for a chunk: it is made together with the chunk, or out of a chunk to
//! which no other reference exists, and it is not `Clone`.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ops::{Deref, Range},
    ptr::NonNull,
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    LogPos,
    erase::{Gaps, Look},
    format::blank_frame,
};

#[derive(Debug)]
pub(super) struct Chunk {
    base: LogPos,
    bytes: NonNull<u8>,
    capacity: usize,
    published: AtomicUsize,
    /// Frames that readers step over, counted from the chunk's first byte.
    gaps: Gaps,
    /// The take-downs up to this number have been looked for in it.
    swept: AtomicU64,
    /// It held what must not stay in memory.
    wipe: AtomicBool,
}

// SAFETY: the pointer is owned by the chunk alone; shared access is ruled by `published` (see the
// module's documentation), which is atomic.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn layout(capacity: usize) -> Layout {
        Layout::array::<u8>(capacity).expect("a chunk is far smaller than the address space")
    }

    fn allocate(base: LogPos, capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let layout = Self::layout(capacity);
        // SAFETY: the layout has at least one byte.
        let bytes = unsafe { alloc(layout) };
        let Some(bytes) = NonNull::new(bytes) else { handle_alloc_error(layout) };
        // Written rather than asked for as zeros: the pages are there before the first event.
        // SAFETY: freshly allocated with this capacity.
        unsafe { bytes.write_bytes(0, capacity) };
        Self {
            base,
            bytes,
            capacity,
            published: AtomicUsize::new(0),
            gaps: Gaps::default(),
            swept: AtomicU64::new(0),
            wipe: AtomicBool::new(false),
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn base(&self) -> LogPos {
        self.base
    }

    /// The place behind the last byte that may be read.
    pub(super) fn end(&self) -> LogPos {
        self.base.plus(self.published.load(Ordering::Acquire) as u64)
    }

    pub(super) fn is_swept(&self, through: u64) -> bool {
        self.swept.load(Ordering::Acquire) >= through
    }

    pub(super) fn set_swept(&self, through: u64) {
        self.swept.fetch_max(through, Ordering::AcqRel);
    }

    /// Whether all of these are stepped over already.
    pub(super) fn has_gaps(&self, gaps: &Gaps) -> bool {
        self.gaps.with(gaps) == self.gaps
    }

    /// What must not stay in memory is in it, and goes with it.
    pub(super) fn is_to_be_wiped(&self) -> bool {
        self.wipe.load(Ordering::Acquire)
    }

    /// A copy of a chunk that is sealed, with these frames blank. The chunk itself is wiped when its
    /// last reader is done with it: what readers hold stays as it is.
    pub(super) fn erased_copy(&self, more: &Gaps) -> Arc<Self> {
        let mut copy = OpenChunk::new(self.base, self.capacity);
        let mut from = 0;
        for (start, end) in more.iter() {
            copy.put(self.read(from..start as usize));
            copy.put(&blank_frame((end - start) as usize));
            from = end as usize;
        }
        copy.put(self.read(from..self.published.load(Ordering::Acquire)));
        copy.publish();
        let mut copy = copy.seal();
        let unique = Arc::get_mut(&mut copy).expect("nobody else has seen it yet");
        unique.gaps = self.gaps.with(more);
        self.wipe.store(true, Ordering::Release);
        copy
    }

    /// What readers may have from `pos` on: at most `bytes_max` bytes, or what to step over. `None`
    /// if the place is not in this chunk.
    pub(super) fn look(self: &Arc<Self>, pos: LogPos, bytes_max: usize) -> Option<Seen> {
        let slice = MemorySlice::new(self, pos, bytes_max)?;
        Some(match self.gaps.look(slice.start as u64) {
            Look::Clear(until) => {
                let mut slice = slice;
                slice.end = slice.end.min(usize::try_from(until).unwrap_or(usize::MAX));
                Seen::Bytes(slice)
            }
            Look::Erased(end) => Seen::Erased(self.base.plus(end)),
            Look::Within => Seen::Within,
        })
    }

    fn read(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.published.load(Ordering::Acquire));
        // SAFETY: the range lies below `published`: initialised, inside the allocation, and never
        // written again while this reference to the chunk exists.
        unsafe { slice::from_raw_parts(self.bytes.as_ptr().add(range.start), range.len()) }
    }
}

/// What is at a place in a chunk.
#[derive(Debug)]
pub(super) enum Seen {
    Bytes(MemorySlice),
    /// Erased frames up to there.
    Erased(LogPos),
    /// The inside of an erased frame.
    Within,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if *self.wipe.get_mut() {
            for at in 0..self.capacity {
                // SAFETY: inside the allocation, and nobody else has a reference any more. Volatile,
                // as plain writes before the memory is given back may be left out.
                unsafe { self.bytes.as_ptr().add(at).write_volatile(0) };
            }
        }
        // SAFETY: allocated in `allocate` with the same layout, and freed only here.
        unsafe { dealloc(self.bytes.as_ptr(), Self::layout(self.capacity)) }
    }
}

/// The writing end of a chunk.
#[derive(Debug)]
pub(super) struct OpenChunk {
    chunk: Arc<Chunk>,
    filled: usize,
}

impl OpenChunk {
    pub(super) fn new(base: LogPos, capacity: usize) -> Self {
        Self { chunk: Arc::new(Chunk::allocate(base, capacity)), filled: 0 }
    }

    /// Takes a used chunk, if nobody reads it any more; otherwise gives it back.
    pub(super) fn reuse(mut chunk: Arc<Chunk>, base: LogPos) -> Result<Self, Arc<Chunk>> {
        match Arc::get_mut(&mut chunk) {
            Some(unique) => {
                unique.base = base;
                *unique.published.get_mut() = 0;
                unique.gaps = Gaps::default();
                *unique.swept.get_mut() = 0;
                *unique.wipe.get_mut() = false;
                Ok(Self { chunk, filled: 0 })
            }
            None => Err(chunk),
        }
    }

    pub(super) fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }

    /// The place behind the last byte written, published or not.
    pub(super) fn end(&self) -> LogPos {
        self.chunk.base.plus(self.filled as u64)
    }

    pub(super) fn room(&self) -> usize {
        self.chunk.capacity - self.filled
    }

    /// # Panics
    /// If there is no room.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room());
        // SAFETY: the target lies inside the allocation and at or above `published`, where only
        // this `OpenChunk` reads or writes; the source is a reference, so it can't overlap.
        unsafe {
            let target = self.chunk.bytes.as_ptr().add(self.filled);
            target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        self.filled += bytes.len();
    }

    /// What was written from `start` on (counted from the chunk's first byte).
    pub(super) fn written_from(&self, start: usize) -> &[u8] {
        assert!(start <= self.filled);
        // SAFETY: everything below `filled` is initialised; it is written only through `&mut self`,
        // which the returned borrow shuts out.
        unsafe { slice::from_raw_parts(self.chunk.bytes.as_ptr().add(start), self.filled - start) }
    }

    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    /// Shows everything written so far to readers.
    pub(super) fn publish(&mut self) {
        self.chunk.published.store(self.filled, Ordering::Release);
    }

    /// Ends writing; what was not published is forgotten.
    pub(super) fn seal(self) -> Arc<Chunk> {
        self.chunk
    }
}

/// Bytes of the log that stay as they are for as long as this is held.
#[derive(Clone, Debug)]
pub struct MemorySlice {
    chunk: Arc<Chunk>,
    start: usize,
    end: usize,
}

impl MemorySlice {
    /// At most `bytes_max` bytes from `pos` on; `None` if they are not in this chunk.
    pub(super) fn new(chunk: &Arc<Chunk>, pos: LogPos, bytes_max: usize) -> Option<Self> {
        let end = chunk.end();
        if pos < chunk.base || pos >= end {
            return None;
        }
        let start = (pos.0 - chunk.base.0) as usize;
        let available = (end.0 - pos.0) as usize;
        Some(Self { chunk: Arc::clone(chunk), start, end: start + available.min(bytes_max) })
    }
}

impl MemorySlice {
    /// Events in it have been erased since: what is left of it is not to be sent, but for the rest of
    /// an event that was begun.
    pub fn is_stale(&self) -> bool {
        self.chunk.is_to_be_wiped()
    }

    /// The slice without so many bytes at its start.
    #[must_use]
    pub fn after(mut self, bytes: usize) -> Self {
        self.start = self.end.min(self.start + bytes);
        self
    }
}

impl Deref for MemorySlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.chunk.read(self.start..self.end)
    }
}

impl AsRef<[u8]> for MemorySlice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// The chunks in memory, oldest first, without gaps between them.
pub(super) type Chunks = Vec<Arc<Chunk>>;

/// The chunk which has the byte at `pos`, or (at the end) would have it.
pub(super) fn chunk_at(chunks: &Chunks, pos: LogPos) -> Option<&Arc<Chunk>> {
    let after = chunks.partition_point(|chunk| chunk.base() <= pos);
    chunks.get(after.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_what_was_published_and_no_more() {
        let mut open = OpenChunk::new(LogPos(100), 8);
        open.put(b"abc");
        assert!(MemorySlice::new(open.chunk(), LogPos(100), 9).is_none());
        open.publish();
        open.put(b"de");
        let slice = MemorySlice::new(open.chunk(), LogPos(101), 9).unwrap();
        assert_eq!(&*slice, b"bc");
        assert_eq!(open.written_from(3), b"de");
        open.publish();
        assert_eq!(&*MemorySlice::new(open.chunk(), LogPos(100), 4).unwrap(), b"abcd");
        assert!(MemorySlice::new(open.chunk(), LogPos(105), 9).is_none());
        assert_eq!(&*slice, b"bc");
    }

    #[test]
    fn a_chunk_is_used_again_only_when_nobody_reads_it() {
        let mut open = OpenChunk::new(LogPos(0), 4);
        open.put(b"old!");
        open.publish();
        let slice = MemorySlice::new(open.chunk(), LogPos(0), 4).unwrap();
        let sealed = OpenChunk::reuse(open.seal(), LogPos(4)).unwrap_err();
        assert_eq!(&*slice, b"old!");
        drop(slice);
        let mut open = OpenChunk::reuse(sealed, LogPos(4)).unwrap();
        open.put(b"n");
        open.publish();
        assert_eq!(&*MemorySlice::new(open.chunk(), LogPos(4), 4).unwrap(), b"n");
    }

    #[test]
    fn bytes_written_by_one_thread_are_read_by_another() {
        let mut open = OpenChunk::new(LogPos(0), 1 << 16);
        let chunk = Arc::clone(open.chunk());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut pos = LogPos(0);
                while pos.0 < 1 << 16 {
                    if let Some(slice) = MemorySlice::new(&chunk, pos, 1000) {
                        let expected = (pos.0..).map(|at| at as u8);
                        assert!(slice.iter().copied().eq(expected.take(slice.len())));
                        pos = pos.plus(slice.len() as u64);
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
            for at in 0..1u32 << 16 {
                open.put(&[at as u8]);
                if at % 7 == 0 || at == 0xffff {
                    open.publish();
                }
            }
        });
    }
}
