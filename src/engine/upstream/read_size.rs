//! How much to read at once: little for a host that says little, more for one that has more.

use bytes::BytesMut;

const SIZE_MIN: usize = 16 << 10;
/// Larger reads save no time, and what they bring falls out of the processor's cache before its turn.
const SIZE_MAX: usize = 64 << 10;

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

impl ReadSize {
    /// Makes room behind what the buffer holds.
    ///
    /// A buffer that is to become `wanted` long grows towards it by doubling: memory comes with the
    /// bytes, not with their announcement.
    pub(super) fn make_room(&self, buffer: &mut BytesMut, wanted: usize) {
        let missing = wanted.saturating_sub(buffer.len());
        let room = missing.clamp(self.size / 4, self.size.max(buffer.len()));
        if buffer.capacity() - buffer.len() < room {
            buffer.reserve(room.max(self.size));
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
    fn a_declared_length_is_followed_slowly() {
        let size = ReadSize::default();
        let mut buffer = BytesMut::new();
        size.make_room(&mut buffer, 5_000_000);
        assert!(buffer.capacity() <= 2 * SIZE_MIN);
        let mut reads = 0;
        while buffer.len() < 5_000_000 {
            let room = buffer.capacity() - buffer.len();
            buffer.extend_from_slice(&vec![0; room.min(5_000_000 - buffer.len())]);
            size.make_room(&mut buffer, 5_000_000);
            assert!(buffer.capacity() <= 4 * buffer.len().max(SIZE_MIN));
            reads += 1;
        }
        assert!(reads < 20);
    }
}
