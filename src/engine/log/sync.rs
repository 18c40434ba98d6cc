//! Group sync: everything written is made durable at an interval, off the writer's thread.

use std::{
    io::{self, ErrorKind},
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{Ordering, fence},
    },
    time::{Duration, Instant},
};

use ports::RelaySeq;

use super::{
    LogPos,
    format::{RECORD_BYTES, Record},
    memory::{MemorySlice, chunk_at},
    segment::Segment,
    shared::{Shared, micros},
    storage::write_all_at,
};

/// How long to wait before a failed sync is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Only a bound on a sleep that a bell ends.
const LONG: Duration = Duration::from_hours(1);

#[derive(Debug, Default)]
pub(super) struct SyncState {
    /// A sync failed. The kernel may count the pages as clean although they never reached the disk,
    /// so they are written again before the next try.
    suspect: bool,
    /// Which checkpoint place to write next.
    turn: u64,
}

impl Shared {
    fn lock_sync(&self) -> MutexGuard<'_, SyncState> {
        self.sync_state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes everything durable that is visible now.
    pub(super) fn sync_to_head(&self) -> io::Result<()> {
        let mut state = self.lock_sync();
        let (seq, pos) = self.head.load();
        if seq.0 <= self.synced_seq.load(Ordering::Acquire) {
            return Ok(());
        }
        // A segment is synced before the next is made: all that is not synced is in one segment.
        let segments = self.segments.load();
        let Some(segment) = Self::segment_of(&segments, seq) else { return Ok(()) };
        self.sync_segment(&mut state, segment, (seq, pos))?;
        self.note_synced((seq, pos));
        // Only a help for the next start: failing here is noticed at the next real write.
        let _ =
            segment.write_checkpoint(&*self.storage, seq.0 + 1 - segment.first_seq.0, state.turn);
        state.turn += 1;
        drop(state);
        if let Some(bell) = self.synced_bell.get() {
            bell.ring();
        }
        Ok(())
    }

    fn sync_segment(
        &self,
        state: &mut SyncState,
        segment: &Segment,
        head: (RelaySeq, LogPos),
    ) -> io::Result<()> {
        let started = Instant::now();
        let result = (|| {
            if state.suspect {
                self.write_again(segment, head)?;
            }
            self.storage.sync(&segment.data)?;
            self.storage.sync(&segment.index)
        })();
        let took = micros(started.elapsed());
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.sync_micros.fetch_add(took, Ordering::Relaxed);
        self.counters.sync_micros_max.fetch_max(took, Ordering::Relaxed);
        state.suspect = result.is_err();
        self.sync_failed.store(result.is_err(), Ordering::Release);
        if let Err(error) = &result {
            self.counters.sync_errors.fetch_add(1, Ordering::Relaxed);
            self.report_fault("sync", error);
        } else {
            self.clear_fault();
        }
        result
    }

    /// Writes what is not synced once more, from memory, to the same place.
    fn write_again(&self, segment: &Segment, head: (RelaySeq, LogPos)) -> io::Result<()> {
        let (synced_seq, synced_pos) = self.synced();
        let chunks = self.chunks.load();
        let mut pos = synced_pos.max(segment.base);
        while pos < head.1 {
            // A chunk leaves memory only after it was synced.
            let slice = chunk_at(&chunks, pos)
                .and_then(|chunk| MemorySlice::new(chunk, pos, (head.1.0 - pos.0) as usize))
                .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "events not in memory"))?;
            write_all_at(&*self.storage, &segment.data, &slice, segment.data_offset(pos))?;
            pos = pos.plus(slice.len() as u64);
        }
        let first = RelaySeq((synced_seq.0 + 1).max(segment.first_seq.0));
        let count = head.0.0 + 1 - first.0;
        let mut records = vec![0; (count * RECORD_BYTES) as usize];
        let offset = segment.record_offset(first);
        segment.index.read_exact_at(&mut records, offset)?;
        let (chunks, _) = records.as_chunks::<{ RECORD_BYTES as usize }>();
        for (seq, bytes) in (first.0..).zip(chunks) {
            if Record::decode(bytes).is_none_or(|record| record.event.seq.0 != seq) {
                return Err(segment.damaged(RelaySeq(seq)));
            }
        }
        write_all_at(&*self.storage, &segment.index, &records, offset)
    }

    pub(super) fn report_fault(&self, doing: &str, error: &io::Error) {
        let text = format!("{doing} {}: {error}", self.dir.display());
        let known = self.fault.load();
        if known.as_ref().is_none_or(|known| **known != text) {
            tracing::error!(%text, "the log can't be written; events are held back until it can");
            self.fault.store(Some(Arc::new(text)));
        }
    }

    pub(super) fn clear_fault(&self) {
        if self.fault.load().is_some() {
            self.fault.store(None);
            tracing::info!("the log can be written again");
        }
    }
}

/// The body of the thread `log-sync`.
pub(super) fn run(shared: &Shared, interval: Duration) {
    while !shared.stop.load(Ordering::SeqCst) {
        shared.sync_idle.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // The writer publishes, then looks at `sync_idle`: one of the two sees the other.
        if shared.head.load().0.0 <= shared.synced_seq.load(Ordering::SeqCst) {
            shared.sync_bell.wait(LONG);
            continue;
        }
        shared.sync_idle.store(false, Ordering::SeqCst);
        wait_until(shared, Instant::now() + interval);
        if shared.sync_to_head().is_err() {
            wait_until(shared, Instant::now() + RETRY);
        }
    }
}

/// Sleeps until the time is up, or somebody is in a hurry.
fn wait_until(shared: &Shared, deadline: Instant) {
    loop {
        let hurry = shared.sync_urgent.swap(false, Ordering::SeqCst);
        let left = deadline.saturating_duration_since(Instant::now());
        if hurry || left.is_zero() || shared.stop.load(Ordering::SeqCst) {
            return;
        }
        shared.sync_bell.wait(left);
    }
}
