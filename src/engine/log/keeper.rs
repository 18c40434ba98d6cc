//! The thread `log-keeper`: removes segments that are out of the window, and checks segments of
//! earlier runs before their bytes are served for the first time.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use super::{
    format::FileKind,
    scan::scan,
    segment::{self, Segment, Trust},
    shared::{Shared, micros},
};

const INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn run(shared: &Shared) {
    while !shared.stop.load(Ordering::SeqCst) {
        shared.keeper_bell.wait(INTERVAL);
        shared.check_wanted();
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, micros);
        shared.remove_old(now);
    }
}

impl Shared {
    /// Checks every segment that a reader waits for, the newest first.
    pub(super) fn check_wanted(&self) {
        let segments = self.segments.load_full();
        for segment in segments.iter().rev() {
            if segment.trust() == Trust::Wanted && !self.stop.load(Ordering::Relaxed) {
                self.check(segment);
            }
        }
    }

    fn check(&self, segment: &Arc<Segment>) {
        let head = self.head.load();
        let count = segment.end_seq(head.0).0 - segment.first_seq.0;
        let result = scan(segment, count);
        let (seq, what) = match result {
            Ok(scan) => match scan.fault {
                None => return segment.set_trust(Trust::Good),
                Some(fault) => (scan.extent.end_seq, fault.to_owned()),
            },
            Err(error) => (segment.first_seq, error.to_string()),
        };
        segment.set_trust(Trust::Damaged);
        self.counters.segments_damaged.fetch_add(1, Ordering::Relaxed);
        let readable = segment.end_pos(head.1);
        self.readable_from.fetch_max(readable.0, Ordering::AcqRel);
        let path = segment.data.path.display();
        tracing::error!(%path, %seq, what, "damaged segment: the log is served from behind it on");
    }

    /// Removes segments, oldest first, as long as the window's limits ask for it.
    pub(super) fn remove_old(&self, now_micros: u64) {
        while let Some(segment) = self.expired(now_micros) {
            // Out of the list first: readers that come now find the window without it.
            self.segments.rcu(|segments| {
                segments
                    .iter()
                    .filter(|held| !Arc::ptr_eq(held, &segment))
                    .cloned()
                    .collect::<Vec<_>>()
            });
            self.counters.segments_removed.fetch_add(1, Ordering::Relaxed);
            for kind in [FileKind::Data, FileKind::Index] {
                let path = segment::path(&self.dir, segment.first_seq, kind);
                if let Err(error) = self.storage.remove(&path) {
                    tracing::warn!(path = %path.display(), %error, "can't remove an old segment");
                }
            }
        }
    }

    /// The oldest segment, if it may go and must.
    fn expired(&self, now_micros: u64) -> Option<Arc<Segment>> {
        let segments = self.segments.load();
        let oldest = segments.first()?;
        if oldest.is_open() || oldest.first_seq.0 == self.active.load(Ordering::Acquire) {
            return None;
        }
        let window = self.window_micros.load(Ordering::Relaxed);
        let old = oldest.newest_micros() < now_micros.saturating_sub(window);
        let head = self.head.load();
        let bytes: u64 = segments.iter().map(|segment| segment.file_bytes(head)).sum();
        let large = bytes > self.window_bytes.load(Ordering::Relaxed);
        (old || large).then(|| Arc::clone(oldest))
    }
}
