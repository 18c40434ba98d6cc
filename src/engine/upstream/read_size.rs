//! How much to read at once: little for a host that says little, more for one that has more; and where
//! to: memory that was read into before, and is free again, costs less than what the system has to
//! clear first.

use std::{cell::RefCell, collections::VecDeque};

use bytes::BytesMut;

const SIZE_MIN: usize = 16 << 10;
/// Larger reads save no time, and what they bring falls out of the processor's cache before its turn.
const SIZE_MAX: usize = 64 << 10;

/// Memory for reads of the largest size, behind the beginning of a frame that was cut off.
const BUFFER_BYTES: usize = SIZE_MAX + SIZE_MAX / 4;

/// After so many reads that needed a quarter at most, half will do.
const SMALL_READS: u8 = 16;

#[derive(Debug)]
pub(super) struct ReadSize {
    size: usize,
    small: u8,
}

impl Default for ReadSize {
    fn default() -> Self {
        Self { size: SIZE_MIN, small: 0 }
    }
}

/// Read buffers of a shard that are full, and whose frames may still be somewhere on their way.
#[derive(Debug, Default)]
pub struct ReadBuffers {
    spent: RefCell<VecDeque<BytesMut>>,
}

impl ReadBuffers {
    /// At most 5 MB.
    const KEPT: usize = 64;
    /// So many are tried: the frames of those that were full first are gone first.
    const TRIES: usize = 4;

    /// An empty buffer of at least this capacity.
    fn take(&self, capacity: usize) -> BytesMut {
        let mut spent = self.spent.borrow_mut();
        for _ in 0..Self::TRIES.min(spent.len()) {
            let Some(mut buffer) = spent.pop_front() else { break };
            // Not while a frame of it is alive.
            if buffer.try_reclaim(capacity) {
                return buffer;
            }
            spent.push_back(buffer);
        }
        BytesMut::with_capacity(capacity)
    }

    fn give(&self, mut buffer: BytesMut) {
        let mut spent = self.spent.borrow_mut();
        if spent.len() < Self::KEPT {
            buffer.clear();
            spent.push_back(buffer);
        }
    }
}

impl ReadSize {
    /// Makes room behind what the buffer holds.
    ///
    /// A buffer that is to become `wanted` long grows towards it by doubling: memory comes with the
    /// bytes, not with their announcement.
    pub(super) fn make_room(&self, buffer: &mut BytesMut, wanted: usize, buffers: &ReadBuffers) {
        let missing = wanted.saturating_sub(buffer.len());
        let room = missing.clamp(self.size / 4, self.size.max(buffer.len()));
        if buffer.capacity() - buffer.len() >= room {
            return;
        }
        let room = room.max(self.size);
        if self.size < SIZE_MAX || buffer.len() + room > BUFFER_BYTES {
            buffer.reserve(room);
        } else if !buffer.try_reclaim(room) {
            let mut fresh = buffers.take(BUFFER_BYTES);
            fresh.extend_from_slice(buffer);
            buffers.give(std::mem::replace(buffer, fresh));
        }
    }

    /// A read gave `count` bytes where there was room for `room`.
    pub(super) fn note(&mut self, count: usize, room: usize) {
        if count == room {
            self.size = (self.size * 2).min(SIZE_MAX);
            self.small = 0;
        } else if count > self.size / 4 {
            self.small = 0;
        } else {
            self.small += 1;
            if self.small == SMALL_READS {
                self.small = 0;
                self.size = (self.size / 2).max(SIZE_MIN);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_full_reads_and_shrinks_with_small_ones() {
        let mut size = ReadSize::default();
        for _ in 0..9 {
            size.note(100, 100);
        }
        assert_eq!(size.size, SIZE_MAX);
        for _ in 0..200 {
            size.note(100, 5000);
        }
        assert_eq!(size.size, SIZE_MIN);
    }

    #[test]
    fn memory_is_used_again_once_no_frame_is_left_in_it() {
        let (buffers, mut size) = (ReadBuffers::default(), ReadSize::default());
        size.size = SIZE_MAX;
        let mut buffer = BytesMut::new();
        let mut frames = VecDeque::new();
        let mut places = std::collections::BTreeSet::new();
        for turn in 0..100u8 {
            size.make_room(&mut buffer, 0, &buffers);
            let rest = buffer.len();
            let room = buffer.capacity() - rest;
            assert!((SIZE_MAX / 4..=BUFFER_BYTES).contains(&room));
            buffer.extend_from_slice(&vec![turn; room]);
            // All but the beginning of the next frame.
            let frame = buffer.split_to(rest + room - 1000).freeze();
            places.insert(buffer.as_ptr() as usize);
            frames.push_back((turn, rest, frame));
            if frames.len() > 5 {
                let (turn, rest, frame) = frames.pop_front().unwrap();
                assert!(frame[..rest].iter().all(|byte| *byte == turn.wrapping_sub(1)));
                assert!(frame[rest..].iter().all(|byte| *byte == turn));
            }
        }
        assert!(places.len() <= 10, "{} places for six buffers in use", places.len());
        assert!(buffers.spent.borrow().len() <= ReadBuffers::KEPT);
    }

    #[test]
    fn a_declared_length_is_followed_slowly() {
        let size = ReadSize::default();
        let mut buffer = BytesMut::new();
        size.make_room(&mut buffer, 5_000_000, &ReadBuffers::default());
        assert!(buffer.capacity() <= 2 * SIZE_MIN);
        let mut reads = 0;
        while buffer.len() < 5_000_000 {
            let room = buffer.capacity() - buffer.len();
            buffer.extend_from_slice(&vec![0; room.min(5_000_000 - buffer.len())]);
            size.make_room(&mut buffer, 5_000_000, &ReadBuffers::default());
            assert!(buffer.capacity() <= 4 * buffer.len().max(SIZE_MIN));
            reads += 1;
        }
        assert!(reads < 20);
    }
}
