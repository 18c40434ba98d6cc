//! [`LiveBytes`]: what is sent to the live consumers of a shard, copied once for all of them.
//!
//! Whoever waits for a slow peer holds on to a few events, and not to the chunk of the log's memory in
//! which they stand, which could then not be used again.

use std::cell::RefCell;

use bytes::Bytes;

use crate::log::{LogPos, MemorySlice};

/// The events that were sent last, and their place.
#[derive(Debug, Default)]
pub struct LiveBytes(RefCell<Option<(LogPos, Bytes)>>);

impl LiveBytes {
    /// The slice, which starts at `pos`, as bytes of their own. Bytes of the same place and length are the
    /// same: where an event was erased since, slices end.
    pub(super) fn of(&self, pos: LogPos, slice: &MemorySlice) -> Bytes {
        let mut last = self.0.borrow_mut();
        if let Some((at, bytes)) = &*last
            && (*at, bytes.len()) == (pos, slice.len())
        {
            return bytes.clone();
        }
        let bytes = Bytes::copy_from_slice(slice);
        *last = Some((pos, bytes.clone()));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{LogConfig, LogReader, LogWriter, Sample, Slice};

    fn append(writer: &mut LogWriter) {
        writer.append(&Sample::new(900).entry(1)).unwrap();
        writer.commit().unwrap();
    }

    fn slice(log: &LogReader, pos: LogPos) -> MemorySlice {
        match log.view().slice(pos) {
            Slice::Memory(slice) => slice,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn consumers_at_one_place_share_one_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, log) = crate::log::open(LogConfig::new(dir.path())).unwrap();
        let start = log.head_pos();
        append(&mut writer);
        let second = log.head_pos();
        let live = LiveBytes::default();
        let first = live.of(start, &slice(&log, start));
        assert_eq!(first, slice(&log, start)[..]);
        assert_eq!(live.of(start, &slice(&log, start)).as_ptr(), first.as_ptr());
        // More has come: another slice at the same place, and one at another.
        append(&mut writer);
        let both = live.of(start, &slice(&log, start));
        assert!(both.starts_with(&first) && both.len() > first.len());
        assert_eq!(live.of(second, &slice(&log, second)), both[first.len()..]);
        writer.close().unwrap();
    }
}
