//! Group sync: everything written is made durable at an interval, and the lease is renewed, off the
//! writer's thread.

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
    erase::blank_events,
    format::{RECORD_BYTES, Record, blank_frame},
    lease::{CleanStop, Lease},
    memory::{Seen, chunk_at},
    segment::Segment,
    shared::{Segments, Shared, Spare, micros},
    storage::write_all_at,
};

/// How long to wait before a failed sync is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Only a bound on a sleep that a bell ends.
const LONG: Duration = Duration::from_hours(1);

#[derive(Debug)]
pub(super) struct SyncState {
    /// As it is on disk.
    lease: Lease,
    /// Which checkpoint place to write next.
    turn: u64,
}

impl SyncState {
    pub(super) fn new(lease: Lease) -> Self {
        Self { lease, turn: 0 }
    }
}

impl Shared {
    pub(super) fn lock_sync(&self) -> MutexGuard<'_, SyncState> {
        self.sync_state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes everything durable that is visible now, and renews the lease if that is due.
    pub(super) fn sync_to_head(&self) -> io::Result<()> {
        let mut state = self.lock_sync();
        // First: without it the writer would soon have to wait.
        let renewed = self.renew_lease(&mut state);
        let head = self.head.load();
        // Loaded behind the head, so it has all segments up to there.
        let segments = self.segments.load_full();
        let before = self.synced_seq.load(Ordering::Acquire);
        let synced = self.sync_segments(&mut state, &segments, head);
        self.sync_failed.store(synced.is_err(), Ordering::Release);
        if synced.is_ok() {
            self.clear_fault();
        }
        let released = synced.and_then(|()| self.release_last(&mut state, &segments, head));
        drop(state);
        if self.synced_seq.load(Ordering::Acquire) > before {
            self.ring_synced();
            if self.erasures.pending() > 0 {
                // The eraser waits for a take-down to be synced.
                self.erasures.ring();
            }
        }
        renewed.and(released)
    }

    /// In the log's order: a segment counts only when all before it is on disk.
    fn sync_segments(
        &self,
        state: &mut SyncState,
        segments: &Segments,
        head: (RelaySeq, LogPos),
    ) -> io::Result<()> {
        let synced = self.synced().0;
        let done = segments.partition_point(|segment| {
            segment.is_settled() && segment.end_seq(head.0) <= synced.next()
        });
        for segment in &segments[done..] {
            let end = (RelaySeq(segment.end_seq(head.0).0 - 1), segment.end_pos(head.1));
            let unsynced = end.0 >= segment.first_seq && end.0 > self.synced().0;
            self.sync_segment(segment, end)?;
            self.settle(state, segment)?;
            if unsynced {
                self.note_synced(end);
                // Only a help for the next start: failing here is noticed at the next real write.
                let count = end.0.0 + 1 - segment.first_seq.0;
                let _ = segment.write_checkpoint(&*self.storage, count, state.turn);
                state.turn += 1;
            }
        }
        Ok(())
    }

    /// Makes a segment's existence durable; its content is already. From here on it must be there.
    fn settle(&self, state: &mut SyncState, segment: &Segment) -> io::Result<()> {
        if segment.is_settled() {
            return Ok(());
        }
        let spare = segment.has_spare_names();
        let first = segment.first_seq;
        let result = (|| {
            segment.take_names(&*self.storage, &self.dir)?;
            self.storage.sync_dir(&self.dir)?;
            let lease = Lease { active: Some(first), torn_from: first, ..state.lease };
            self.write_lease(state, lease)
        })();
        if spare && !segment.has_spare_names() {
            *self.lock_spare() = Spare::None;
            self.keeper_bell.ring();
        }
        match &result {
            Ok(()) => segment.set_settled(),
            Err(error) => self.report_fault("make a segment in", error),
        }
        result
    }

    /// Lets go of a last segment that was closed for its age.
    fn release_last(
        &self,
        state: &mut SyncState,
        segments: &Segments,
        head: (RelaySeq, LogPos),
    ) -> io::Result<()> {
        let Some(last) = segments.last() else { return Ok(()) };
        if !self.release_wanted.load(Ordering::Acquire) {
            return Ok(());
        }
        if !last.is_open() && state.lease.active == Some(last.first_seq) {
            let lease = Lease { active: None, torn_from: last.end_seq(head.0), ..state.lease };
            self.write_lease(state, lease)?;
            self.keeper_bell.ring();
        }
        self.release_wanted.store(false, Ordering::Release);
        Ok(())
    }

    /// Renews the lease if half of it is used up.
    fn renew_lease(&self, state: &mut SyncState) -> io::Result<()> {
        if !self.lease_wanted.load(Ordering::Acquire) {
            return Ok(());
        }
        let leased = RelaySeq(self.head.load().0.0 + self.lease_size).max(state.lease.leased);
        let result = self.write_lease(state, Lease { leased, ..state.lease });
        self.lease_failed.store(result.is_err(), Ordering::Release);
        if let Err(error) = &result {
            self.report_fault("renew the lease in", error);
        } else {
            self.lease_wanted.store(false, Ordering::Release);
            self.ring_synced();
        }
        result
    }

    /// The lease could not be written when the log was opened.
    pub(super) fn note_lease_failed(&self, error: &io::Error) {
        self.lease_failed.store(true, Ordering::Release);
        self.lease_wanted.store(true, Ordering::Release);
        self.report_fault("write the lease in", error);
    }

    fn write_lease(&self, state: &mut SyncState, lease: Lease) -> io::Result<()> {
        if lease != state.lease {
            lease.write(&*self.storage, &self.dir)?;
            state.lease = lease;
            self.removable_below.store(lease.insists_from().0, Ordering::Release);
            self.leased.store(lease.leased.0, Ordering::Release);
        }
        Ok(())
    }

    /// The mark of a clean stop; nothing is written after it.
    pub(super) fn write_clean_stop(&self, clean: CleanStop) -> io::Result<()> {
        let state = self.lock_sync();
        let lease = Lease { clean: Some(clean), torn_from: RelaySeq(0), ..state.lease };
        lease.write(&*self.storage, &self.dir)
    }

    fn ring_synced(&self) {
        if let Some(bell) = self.synced_bell.get() {
            bell.ring();
        }
    }

    fn sync_segment(&self, segment: &Segment, end: (RelaySeq, LogPos)) -> io::Result<()> {
        let started = Instant::now();
        let result = (|| {
            if segment.is_suspect() {
                self.write_again(segment, end)?;
            }
            self.storage.sync(&segment.data)?;
            self.storage.sync(&segment.index)
        })();
        let took = micros(started.elapsed());
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.sync_micros.fetch_add(took, Ordering::Relaxed);
        self.counters.sync_micros_max.fetch_max(took, Ordering::Relaxed);
        segment.set_suspect(result.is_err());
        if let Err(error) = &result {
            self.counters.sync_errors.fetch_add(1, Ordering::Relaxed);
            self.report_fault("sync", error);
        }
        result
    }

    /// Writes what is not synced once more to the same place: from memory, or, where it has left
    /// memory, from the files, if they still show it as it was.
    fn write_again(&self, segment: &Segment, end: (RelaySeq, LogPos)) -> io::Result<()> {
        if !segment.is_settled() {
            segment.write_headers(&*self.storage)?;
        }
        let first = self.synced().0.next().max(segment.first_seq);
        if first > end.0 {
            return Ok(());
        }
        let (records, bytes) = unsynced_records(segment, first, end.0)?;
        let chunks = self.chunks.load();
        let mut records = records.iter().peekable();
        let mut from = segment.base.plus(records.peek().map_or(0, |first| first.offset.into()));
        let mut erased = Vec::new();
        while from < end.1 {
            let seen = chunk_at(&chunks, from)
                .and_then(|chunk| chunk.look(from, (end.1.0 - from.0) as usize));
            if let Some(Seen::Bytes(slice)) = &seen {
                write_all_at(&*self.storage, &segment.data, slice, segment.data_offset(from))?;
                from = from.plus(slice.len() as u64);
            } else {
                let record = records.peek().ok_or(ErrorKind::UnexpectedEof)?;
                if !self.write_frame_again(segment, record)? {
                    if seen.is_none() {
                        return Err(segment.damaged(record.event.seq));
                    }
                    // Lost, but its account was taken down: nobody would have got it.
                    erased.push(**record);
                }
                from = segment.base.plus(record.end());
            }
            while records.next_if(|record| segment.base.plus(record.end()) <= from).is_some() {}
        }
        write_all_at(&*self.storage, &segment.index, &bytes, segment.record_offset(first))?;
        blank_events(&*self.storage, segment, &erased)
    }

    /// From the file; `false` if it does not show the frame as it was.
    fn write_frame_again(&self, segment: &Segment, record: &Record) -> io::Result<bool> {
        let offset = segment.data_offset(segment.base.plus(record.offset.into()));
        let mut frame = vec![0; record.len as usize];
        segment.data.read_exact_at(&mut frame, offset)?;
        if record.erased {
            frame = blank_frame(record.len as usize);
        } else if crc32c::crc32c(&frame) != record.frame_crc {
            return Ok(false);
        }
        write_all_at(&*self.storage, &segment.data, &frame, offset)?;
        Ok(true)
    }

    fn has_sync_work(&self) -> bool {
        self.head.load().0.0 > self.synced_seq.load(Ordering::SeqCst)
            || self.lease_wanted.load(Ordering::SeqCst)
            || self.release_wanted.load(Ordering::SeqCst)
    }

    /// Has `log-sync` work at once.
    pub(super) fn urge_sync(&self) {
        let known = self.sync_urgent.swap(true, Ordering::SeqCst);
        if self.sync_idle.swap(false, Ordering::SeqCst) || !known {
            self.sync_bell.ring();
        }
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
        if self.fault.load().is_some() && !self.lease_failed.load(Ordering::Acquire) {
            self.fault.store(None);
            tracing::info!("the log can be written again");
        }
    }
}

/// The records from `first` to `last`, and the bytes that they are.
fn unsynced_records(
    segment: &Segment,
    first: RelaySeq,
    last: RelaySeq,
) -> io::Result<(Vec<Record>, Vec<u8>)> {
    let count = last.0 + 1 - first.0;
    let mut bytes = vec![0; (count * RECORD_BYTES) as usize];
    segment.index.read_exact_at(&mut bytes, segment.record_offset(first))?;
    let (arrays, _) = bytes.as_chunks::<{ RECORD_BYTES as usize }>();
    let records = (first.0..).zip(arrays).map(|(seq, bytes)| {
        Record::decode(bytes)
            .filter(|record| record.event.seq.0 == seq)
            .ok_or_else(|| segment.damaged(RelaySeq(seq)))
    });
    let records = records.collect::<io::Result<_>>()?;
    Ok((records, bytes))
}

/// The body of the thread `log-sync`.
pub(super) fn run(shared: &Shared, interval: Duration) {
    while !shared.stop.load(Ordering::SeqCst) {
        shared.sync_idle.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // The writer publishes, then looks at `sync_idle`: one of the two sees the other.
        if !shared.has_sync_work() {
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
