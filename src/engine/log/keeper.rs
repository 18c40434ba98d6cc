//! The thread `log-keeper`: removes segments that are out of the window, makes the files of the next
//! segment, and checks segments of earlier runs before their bytes are served for the first time.

use std::{
    io::{self, ErrorKind},
    mem::take,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use ports::RelaySeq;

use super::{
    format::FileKind,
    scan::{Scan, scan},
    segment::{self, Files, SPARE_NAMES, Segment, Trust},
    shared::{Segments, Shared, Spare, micros},
};

const INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn run(shared: &Shared) {
    while !shared.stop.load(Ordering::SeqCst) {
        shared.measure_room();
        shared.prepare_spare();
        shared.keeper_bell.wait(INTERVAL);
        shared.check_wanted();
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, micros);
        shared.remove_old(now);
    }
}

impl Shared {
    /// Makes the files of the next segment ahead of need: making files can take long on a busy disk.
    pub(super) fn prepare_spare(&self) {
        if !matches!(*self.lock_spare(), Spare::None) {
            return;
        }
        // Without them the writer makes its own, and tells what is wrong if it can't.
        if let Ok(files) = Files::create_spare(&*self.storage, &self.dir) {
            *self.lock_spare() = Spare::Ready(files);
        }
    }

    /// At the end: files that nobody needed.
    pub(super) fn drop_spare(&self) {
        if let Spare::Ready(_) = take(&mut *self.lock_spare()) {
            for (_, name) in SPARE_NAMES {
                // The next start removes what is left of them.
                let _ = self.storage.remove(&self.dir.join(name));
            }
        }
    }

    /// Checks every segment that a reader waits for, the newest first.
    pub(super) fn check_wanted(&self) {
        let segments = self.segments.load_full();
        for segment in segments.iter().rev() {
            if segment.trust() == Trust::Wanted && !self.stop.load(Ordering::Relaxed) {
                self.check(segment);
            }
        }
    }

    fn check(&self, segment: &Segment) {
        let head = self.head.load();
        let count = segment.end_seq(head.0).0 - segment.first_seq.0;
        let result = loop {
            let blankings = segment.blankings();
            let result = scan(segment, count);
            // Frames that are being overwritten look damaged.
            let faulty = result.as_ref().map_or(true, |scan| scan.fault.is_some());
            if !faulty || blankings == segment.blankings() {
                break result;
            }
        };
        match result {
            Ok(Scan { fault: None, gaps, unblanked, .. }) => {
                segment.add_gaps(&gaps);
                segment.set_trust(Trust::Good);
                if let Err(error) = self.blank(segment, &unblanked) {
                    let path = segment.data.path.display();
                    tracing::warn!(%path, %error, "erased events can't be overwritten");
                }
            }
            Ok(Scan { fault: Some(fault), extent, .. }) => {
                self.condemn(segment, extent.end_seq, fault);
            }
            Err(error) => self.condemn(segment, segment.first_seq, &error.to_string()),
        }
    }

    /// Serves nothing of a segment and of what is before it any more.
    pub(super) fn condemn(&self, segment: &Segment, seq: RelaySeq, what: &str) {
        if segment.trust() == Trust::Damaged {
            return;
        }
        segment.set_trust(Trust::Damaged);
        self.counters.segments_damaged.fetch_add(1, Ordering::Relaxed);
        let readable = segment.end_pos(self.head.pos());
        self.readable_from.fetch_max(readable.0, Ordering::AcqRel);
        let path = segment.data.path.display();
        tracing::error!(%path, %seq, what, "damaged segment: the log is served from behind it on");
    }

    /// Removes segments, oldest first, as far as the window's limits ask for it.
    pub(super) fn remove_old(&self, now_micros: u64) {
        let expired = self.expired(now_micros);
        let Some(last) = expired.last() else { return };
        // All of it is out of the window at once, however long the removal takes: readers in it are
        // moved on once.
        self.readable_from.fetch_max(last.end_pos(self.head.pos()).0, Ordering::AcqRel);
        for segment in expired {
            if !self.may_remove(&segment) {
                return;
            }
            if let Err(error) = self.remove_files(&segment) {
                let path = segment.data.path.display();
                tracing::warn!(%path, %error, "can't remove an old segment; trying again later");
                return;
            }
            self.segments.rcu(|segments| {
                let kept = segments.iter().filter(|held| !Arc::ptr_eq(held, &segment));
                kept.cloned().collect::<Vec<_>>()
            });
            self.counters.segments_removed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn may_remove(&self, segment: &Segment) -> bool {
        let released = self.released.load(Ordering::Acquire);
        segment.first_seq.0 < self.removable_below.load(Ordering::Acquire)
            && segment.end_seq(self.head.load().0).0 <= released.saturating_add(1)
    }

    /// In this order, and each for certain before the next segment: what a crash leaves over is
    /// recognised as such. Readers in the files can finish: they have them open.
    fn remove_files(&self, segment: &Segment) -> io::Result<()> {
        for kind in [FileKind::Data, FileKind::Index] {
            match self.storage.remove(&segment::path(&self.dir, segment.first_seq, kind)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.storage.sync_dir(&self.dir)
    }

    /// The oldest segments, as far as they are too old or too much.
    fn expired(&self, now_micros: u64) -> Segments {
        let segments = self.segments.load();
        let window_bytes = self.window_bytes.load(Ordering::Relaxed);
        let window = self.window_micros.load(Ordering::Relaxed);
        let since = now_micros.saturating_sub(window);
        let head = self.head.load();
        let mut bytes: u64 = segments.iter().map(|segment| segment.file_bytes(head)).sum();
        let expired = segments.iter().take_while(|segment| {
            let must_go = segment.newest_micros() < since || bytes > window_bytes;
            bytes -= segment.file_bytes(head);
            must_go && !segment.is_open()
        });
        expired.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use ports::LogTail;
    use tempfile::tempdir;

    use super::*;
    use crate::log::{
        Locate, LogConfig, LogPos, LogReader, Slice,
        tests::{append, config, open_quiet},
    };

    #[test]
    fn what_was_not_released_stays_but_is_not_served() {
        let dir = tempdir().unwrap();
        let window = Duration::from_secs(100);
        let config = LogConfig { replay_window: window, followed: true, ..config(dir.path()) };
        let mut writer = open_quiet(config).unwrap();
        let mut reader = writer.reader();
        append(&mut writer, 200, 900);
        reader.shared.sync_to_head().unwrap();
        let before = reader.shared.segments.load().len();
        let oldest = |reader: &LogReader| reader.shared.segments.load()[0].first_seq.0;
        reader.shared.remove_old(500_000_000);
        assert_eq!(reader.shared.segments.load().len(), before);
        assert!(matches!(reader.locate(3).unwrap(), Locate::Outdated(_)));
        assert!(matches!(reader.view().slice(LogPos(0)), Slice::Gone));
        let mut records = Vec::new();
        reader.read_after(RelaySeq(0), 10, &mut records).unwrap();
        assert_eq!(records.len(), 10);
        for released in [1, 100, 150] {
            reader.release(RelaySeq(released));
            reader.shared.remove_old(500_000_000);
            let oldest = oldest(&reader);
            assert!(oldest <= released + 1 && oldest + 20 > released, "{oldest}, {released}");
        }
        reader.release(RelaySeq(200));
        reader.shared.remove_old(500_000_000);
        assert_eq!(reader.shared.segments.load().len(), 1, "the open one");
        writer.close().unwrap();
    }
}
