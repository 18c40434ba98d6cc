//! Appending: numbers, frames into memory, then one write to each of the two files of a segment.

use std::{
    fs::File,
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    thread::{Builder, JoinHandle},
};

use ports::{
    AccountId, EventKind, HostId, HostSeq, LocalStatus, LogRecord, RelaySeq, RepoHead,
    UpstreamStatus, ring::Doorbell,
};

use protocol::frame::{Skim, skim, write_seq};

use super::{
    LogConfig, LogError, LogPos, LogReader,
    erase::{self, TakeDown},
    format::{Header, Record, SEGMENT_BYTES_LIMIT, ws_header},
    keeper,
    lease::CleanStop,
    memory::{Chunk, OpenChunk},
    segment::{Extent, Files, Segment},
    shared::{Shared, Spare},
    storage::write_all_at,
    sync,
};

/// An event to be numbered and appended.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub kind: EventKind,
    pub account: AccountId,
    pub host: HostId,
    pub host_seq: HostSeq,
    pub upstream: UpstreamStatus,
    pub local: LocalStatus,
    pub head: Option<RepoHead>,
    /// Event header and body, with any integer as `seq`.
    pub frame: &'a [u8],
    /// The bytes of that integer.
    pub seq_span: Range<u32>,
    /// Unix microseconds, for the index.
    pub time_micros: u64,
}

/// The event was not taken; try again with the same one.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("the log's files can't be written: {0}")]
    Io(#[from] io::Error),
    /// The last sync failed, or the lease is used up: wait for the bell.
    #[error("waiting for the disk to sync")]
    Behind,
}

/// The one writer of a log.
#[derive(Debug)]
pub struct LogWriter {
    shared: Arc<Shared>,
    config: LogConfig,
    /// Up to here numbers may be given out; the lease may have been renewed since.
    leased: RelaySeq,
    next_seq: RelaySeq,
    chunk: Option<OpenChunk>,
    /// Chunks that left the window, to be used again when nobody reads them.
    spare: Vec<Arc<Chunk>>,
    segment: Option<Arc<Segment>>,
    /// The open chunk has an event that a take-down could reach.
    chunk_has_commits: bool,
    /// Files for a new segment whose headers could not be written yet.
    made: Option<Files>,
    staged: Staged,
    /// Scratch for the integer that is put into a frame.
    seq_bytes: Vec<u8>,
    /// Which checkpoint place to write next, if this thread syncs.
    turn: u64,
    threads: Vec<JoinHandle<()>>,
    /// Keeps other processes out for as long as this one may write.
    _lock: File,
}

/// What is numbered and in memory, but not yet written to the files.
#[derive(Debug, Default)]
struct Staged {
    count: u64,
    /// Where the first staged frame starts in the chunk.
    start: usize,
    records: Vec<u8>,
    oldest_micros: u64,
    newest_micros: u64,
    take_downs: Vec<TakeDown>,
}

impl LogWriter {
    pub(super) fn new(
        shared: Arc<Shared>,
        config: LogConfig,
        next_seq: RelaySeq,
        lock: File,
    ) -> Self {
        // Memory that is new to the process costs more than all else that is done with an event.
        let spare = (0..config.chunks_in_memory)
            .map(|_| OpenChunk::new(LogPos(0), config.chunk_bytes).seal())
            .collect();
        Self {
            leased: RelaySeq(shared.leased.load(Ordering::Acquire)),
            shared,
            config,
            next_seq,
            chunk: None,
            spare,
            segment: None,
            chunk_has_commits: false,
            made: None,
            staged: Staged::default(),
            seq_bytes: Vec::new(),
            turn: 0,
            threads: Vec::new(),
            _lock: lock,
        }
    }

    pub(super) fn start_threads(&mut self) -> Result<(), LogError> {
        let failed = |error| LogError::io("start a thread for", &self.config.dir, error);
        if !self.syncs_itself() {
            let (shared, interval) = (Arc::clone(&self.shared), self.config.sync_interval);
            let body = move || sync::run(&shared, interval);
            self.threads.push(Builder::new().name("log-sync".into()).spawn(body).map_err(failed)?);
        }
        let shared = Arc::clone(&self.shared);
        let body = move || keeper::run(&shared);
        self.threads.push(Builder::new().name("log-keeper".into()).spawn(body).map_err(failed)?);
        let shared = Arc::clone(&self.shared);
        let body = move || erase::run(&shared);
        self.threads.push(Builder::new().name("log-eraser".into()).spawn(body).map_err(failed)?);
        Ok(())
    }

    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// This bell is rung whenever more has been synced. Can be set once.
    pub fn set_synced_bell(&mut self, bell: Arc<Doorbell>) {
        let _ = self.shared.synced_bell.set(bell);
    }

    pub fn synced(&self) -> RelaySeq {
        self.shared.synced().0
    }

    /// The number that the next event gets.
    pub fn next_seq(&self) -> RelaySeq {
        self.next_seq
    }

    /// Numbers an event and stages it. It becomes visible with the next [`LogWriter::commit`].
    ///
    /// # Errors
    /// The event was not taken. Events staged before stay staged.
    pub fn append(&mut self, entry: &Entry<'_>) -> Result<RelaySeq, AppendError> {
        let span = entry.seq_span.start as usize..entry.seq_span.end as usize;
        let takes_down = TakeDown::is(entry.kind, entry.host, entry.local);
        if takes_down {
            self.seal_for_take_down()?;
        }
        let seq = self.next_seq;
        self.seq_bytes.clear();
        write_seq(seq.0, &mut self.seq_bytes);
        let message_len = entry.frame.len() - span.len() + self.seq_bytes.len();
        let (ws_bytes, ws_len) = ws_header(message_len);
        let len = ws_len + message_len;
        if !self.fits(len) {
            self.commit()?;
            self.make_room(len, entry.time_micros)?;
        }
        let (Some(chunk), Some(segment)) = (&mut self.chunk, &self.segment) else {
            unreachable!("make_room opens both")
        };
        if takes_down {
            chunk.chunk().set_swept(seq.0);
            self.staged.take_downs.push(take_down(seq, entry));
        }
        self.chunk_has_commits |= matches!(entry.kind, EventKind::Commit | EventKind::Sync);
        let start = chunk.filled();
        let offset = chunk.end().0 - segment.base.0;
        chunk.put(&ws_bytes[..ws_len]);
        chunk.put(&entry.frame[..span.start]);
        chunk.put(&self.seq_bytes);
        chunk.put(&entry.frame[span.end..]);
        let record = Record {
            event: LogRecord {
                seq,
                kind: entry.kind,
                account: entry.account,
                host: entry.host,
                host_seq: entry.host_seq,
                time_micros: entry.time_micros,
                upstream: entry.upstream,
                local: entry.local,
                head: entry.head,
            },
            offset: offset as u32,
            len: len as u32,
            frame_crc: crc32c::crc32c(chunk.written_from(start)),
            rebuilt: false,
            erased: false,
        };
        self.stage(&record, start);
        self.next_seq = seq.next();
        Ok(seq)
    }

    fn stage(&mut self, record: &Record, start: usize) {
        let staged = &mut self.staged;
        let time = record.event.time_micros;
        if staged.count == 0 {
            staged.start = start;
            staged.oldest_micros = time;
        }
        staged.count += 1;
        staged.newest_micros = staged.newest_micros.max(time);
        staged.records.extend_from_slice(&record.encode());
    }

    /// A take-down begins a new chunk, so that the eraser has only sealed ones before it to look into.
    fn seal_for_take_down(&mut self) -> Result<(), AppendError> {
        if self.chunk_has_commits {
            self.commit()?;
            self.chunk = None;
        }
        Ok(())
    }

    /// Whether a frame of `len` bytes can be staged as things are.
    fn fits(&self, len: usize) -> bool {
        let (Some(chunk), Some(segment)) = (&self.chunk, &self.segment) else { return false };
        let used = chunk.end().0 - segment.base.0;
        self.next_seq <= self.leased
            && chunk.room() >= len
            && (used == 0 || used + len as u64 <= self.segment_bytes_max())
    }

    fn segment_bytes_max(&self) -> u64 {
        // With a small window, small segments: what goes goes in whole segments.
        let window = self.shared.window_bytes.load(Ordering::Relaxed);
        let share = (window / 8).max(1 << 20);
        self.config.segment_bytes_max.min(share).clamp(1 << 12, SEGMENT_BYTES_LIMIT)
    }

    /// Writes what is staged and shows it to readers.
    ///
    /// # Errors
    /// Everything stays staged; the next call tries again.
    pub fn commit(&mut self) -> Result<(), AppendError> {
        if self.staged.count == 0 {
            return Ok(());
        }
        let result = self.write_staged();
        if let Err(AppendError::Io(error)) = &result {
            self.shared.counters.write_errors.fetch_add(1, Ordering::Relaxed);
            self.shared.report_fault("write to", error);
            return result;
        }
        result?;
        self.shared.clear_fault();
        self.publish();
        Ok(())
    }

    fn write_staged(&self) -> Result<(), AppendError> {
        let syncs = self.syncs_itself();
        if !syncs && self.shared.sync_failed.load(Ordering::Acquire) {
            return Err(AppendError::Behind);
        }
        let (Some(chunk), Some(segment)) = (&self.chunk, &self.segment) else {
            unreachable!("events are staged in both")
        };
        if syncs && !segment.is_settled() {
            self.shared.sync_to_head()?;
        }
        let storage = &*self.shared.storage;
        // Who writes and syncs these files beside us must not see half of an error.
        let _state = syncs.then(|| self.shared.lock_sync());
        let start = self.staged.start;
        let offset = segment.data_offset(chunk.chunk().base().plus(start as u64));
        write_all_at(storage, &segment.data, chunk.written_from(start), offset)?;
        let first = RelaySeq(self.next_seq.0 - self.staged.count);
        write_all_at(storage, &segment.index, &self.staged.records, segment.record_offset(first))?;
        if syncs {
            storage.sync(&segment.data)?;
            storage.sync(&segment.index)?;
        }
        Ok(())
    }

    fn publish(&mut self) {
        let (Some(chunk), Some(segment)) = (&mut self.chunk, &self.segment) else {
            unreachable!("events are staged in both")
        };
        let (before, pos) = (chunk.chunk().end(), chunk.end());
        let seq = RelaySeq(self.next_seq.0 - 1);
        segment.note_time(self.staged.oldest_micros);
        segment.note_time(self.staged.newest_micros);
        chunk.publish();
        let takes_down = !self.staged.take_downs.is_empty();
        self.shared.erasures.begin(&mut self.staged.take_downs);
        self.shared.head.store(seq, pos);
        let counters = &self.shared.counters;
        counters.events.fetch_add(self.staged.count, Ordering::Relaxed);
        counters.bytes.fetch_add(pos.0 - before.0, Ordering::Relaxed);
        counters.batches.fetch_add(1, Ordering::Relaxed);
        self.staged.count = 0;
        self.staged.newest_micros = 0;
        self.staged.records.clear();
        if self.syncs_itself() {
            self.shared.note_synced((seq, pos));
            // Only a help for the next start.
            let count = seq.0 + 1 - segment.first_seq.0;
            let _ = segment.write_checkpoint(&*self.shared.storage, count, self.turn);
            self.turn += 1;
        } else {
            self.wake_sync(pos);
            self.watch_lease();
        }
        if takes_down {
            self.shared.erasures.ring();
        }
    }

    /// Rings `log-sync` if it sleeps, or if half of the memory waits for it.
    fn wake_sync(&self, pos: LogPos) {
        let shared = &self.shared;
        let unsynced = pos.0 - shared.synced_pos.load(Ordering::Acquire).min(pos.0);
        let memory = (self.config.chunk_bytes * self.config.chunks_in_memory) as u64;
        if unsynced > memory / 2 {
            shared.urge_sync();
        } else {
            fence(Ordering::SeqCst);
            if shared.sync_idle.load(Ordering::SeqCst) {
                shared.sync_idle.store(false, Ordering::SeqCst);
                shared.sync_bell.ring();
            }
        }
    }

    /// Asks for a new lease when half of the numbers are used up.
    fn watch_lease(&mut self) {
        let half = self.shared.lease_size / 2;
        if self.next_seq.0 + half <= self.leased.0 {
            return;
        }
        self.leased = RelaySeq(self.shared.leased.load(Ordering::Acquire));
        if self.next_seq.0 + half > self.leased.0
            && !self.shared.lease_wanted.swap(true, Ordering::SeqCst)
        {
            self.shared.urge_sync();
        }
    }

    fn syncs_itself(&self) -> bool {
        self.config.sync_interval.is_zero()
    }

    /// Renews the lease, starts a segment, starts a chunk: whatever a frame of `len` bytes needs.
    fn make_room(&mut self, len: usize, now_micros: u64) -> Result<(), AppendError> {
        let result = self.try_make_room(len, now_micros);
        if let Err(AppendError::Io(error)) = &result {
            self.shared.counters.write_errors.fetch_add(1, Ordering::Relaxed);
            self.shared.report_fault("write to", error);
        }
        result
    }

    fn try_make_room(&mut self, len: usize, now_micros: u64) -> Result<(), AppendError> {
        if self.next_seq > self.leased {
            self.await_lease()?;
        }
        let end = self.shared.head.pos();
        if let Some(segment) = &self.segment {
            let used = end.0 - segment.base.0;
            if used > 0 && used + len as u64 > self.segment_bytes_max() {
                self.close_segment();
            }
        }
        if self.segment.is_none() {
            self.open_segment(end, now_micros)?;
        }
        if self.chunk.as_ref().is_none_or(|chunk| chunk.room() < len) {
            self.open_chunk(end, len);
        }
        Ok(())
    }

    /// No number is given out above what the lease on disk allows.
    fn await_lease(&mut self) -> Result<(), AppendError> {
        self.leased = RelaySeq(self.shared.leased.load(Ordering::Acquire));
        if self.next_seq <= self.leased {
            return Ok(());
        }
        self.shared.lease_wanted.store(true, Ordering::SeqCst);
        if !self.syncs_itself() {
            self.shared.urge_sync();
            return Err(AppendError::Behind);
        }
        self.shared.sync_to_head()?;
        self.leased = RelaySeq(self.shared.leased.load(Ordering::Acquire));
        Ok(())
    }

    /// Ends the open segment. Syncing it is the business of `log-sync`.
    fn close_segment(&mut self) {
        let Some(segment) = self.segment.take() else { return };
        let (seq, pos) = self.shared.head.load();
        segment.close(Extent {
            end_seq: seq.next(),
            end_pos: pos,
            oldest_micros: segment.oldest_micros(),
            newest_micros: segment.newest_micros(),
        });
    }

    /// Starts a segment in files that were made ahead, without waiting for the disk.
    fn open_segment(&mut self, base: LogPos, now_micros: u64) -> io::Result<()> {
        let (storage, dir) = (&*self.shared.storage, &self.config.dir);
        let files = match self.made.take().or_else(|| take_spare(&self.shared)) {
            Some(files) => files,
            None => Files::create(storage, dir, self.next_seq)?,
        };
        let header = Header { first_seq: self.next_seq, base, created_micros: now_micros };
        let begun = Segment::begin(storage, dir, header, &files);
        let segment = match begun {
            Ok(segment) => Arc::new(segment),
            Err(error) => {
                self.made = Some(files);
                return Err(error);
            }
        };
        segment.set_swept(self.shared.erasures.newest());
        self.shared.segments.rcu(|segments| {
            let mut segments = Vec::clone(segments);
            segments.push(Arc::clone(&segment));
            segments
        });
        self.segment = Some(segment);
        Ok(())
    }

    /// Chunks leave memory whether or not they are synced: what they hold is in the files.
    fn open_chunk(&mut self, base: LogPos, len: usize) {
        self.chunk = None;
        self.chunk_has_commits = false;
        let chunk = self.new_chunk(base, len);
        chunk.chunk().set_swept(self.shared.erasures.newest());
        let kept = self.config.chunks_in_memory.max(2) - 1;
        let before = self.shared.chunks.rcu(|chunks| {
            let kept = chunks.iter().skip(chunks.len().saturating_sub(kept));
            kept.chain([chunk.chunk()]).cloned().collect::<Vec<_>>()
        });
        let gone = before.len().saturating_sub(kept);
        self.spare.extend(before[..gone].iter().cloned());
        self.chunk = Some(chunk);
    }

    /// A chunk from the spares if one is free and large enough, else a fresh one.
    fn new_chunk(&mut self, base: LogPos, len: usize) -> OpenChunk {
        let capacity = self.config.chunk_bytes.max(len);
        let chunk_bytes = self.config.chunk_bytes;
        self.spare.retain(|one| one.capacity() == chunk_bytes && !one.is_to_be_wiped());
        if capacity == chunk_bytes {
            // What was replaced in the list may still be held by a reader for a moment.
            for _ in 0..self.spare.len() {
                match OpenChunk::reuse(self.spare.swap_remove(0), base) {
                    Ok(open) => return open,
                    Err(spare) => self.spare.push(spare),
                }
            }
        }
        self.spare.truncate(self.config.chunks_in_memory);
        OpenChunk::new(base, capacity)
    }

    /// To be called about once a second: closes a segment whose events begin to be too old, so that
    /// they can go although no new ones come.
    pub fn maintain(&mut self, now_micros: u64) {
        let segments = self.shared.segments.load_full();
        let Some(last) = segments.last() else { return };
        let oldest = last.oldest_micros();
        let age = now_micros.saturating_sub(oldest);
        if self.shared.removable_below.load(Ordering::Acquire) != last.first_seq.0
            || self.staged.count > 0
            || oldest == 0
            || age <= self.shared.window_micros.load(Ordering::Relaxed) / 8
        {
            return;
        }
        self.close_segment();
        // The segment may be removed only when the lease does not insist on it any more.
        self.shared.release_wanted.store(true, Ordering::SeqCst);
        if self.syncs_itself() {
            // A failure shows in the log's fault; the next second tries again.
            let _ = self.shared.sync_to_head();
        } else {
            self.shared.urge_sync();
        }
    }

    /// Writes and syncs everything, stops the threads and leaves the mark of a clean stop.
    ///
    /// # Errors
    /// The log is as after a crash then: whole, but the numbering skips the rest of the lease.
    pub fn close(mut self) -> Result<(), AppendError> {
        self.commit()?;
        self.stop_threads();
        self.shared.sync_to_head()?;
        let (head_seq, end_pos) = self.shared.head.load();
        let segments = self.shared.segments.load();
        let last = segments.iter().rfind(|last| last.end_seq(head_seq) > last.first_seq);
        let end_seq = last.map_or(RelaySeq(0), |last| last.end_seq(head_seq));
        let clean = CleanStop { next: self.next_seq, end_seq, end_pos };
        self.shared.drop_spare();
        if let Err(error) = self.shared.note_erased(head_seq) {
            tracing::warn!(%error, "the next start looks for take-downs once more");
        }
        self.shared.write_clean_stop(clean)?;
        Ok(())
    }

    fn stop_threads(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.sync_bell.ring();
        self.shared.keeper_bell.ring();
        self.shared.erasures.ring();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

fn take_down(seq: RelaySeq, entry: &Entry<'_>) -> TakeDown {
    let did = match skim(entry.frame) {
        Ok(Skim::Event { did, .. }) => did.into(),
        _ => Box::default(),
    };
    TakeDown { seq, account: entry.account, did }
}

/// The files that were made ahead, if they are ready.
fn take_spare(shared: &Shared) -> Option<Files> {
    let mut spare = shared.lock_spare();
    match std::mem::take(&mut *spare) {
        Spare::Ready(files) => {
            *spare = Spare::Taken;
            Some(files)
        }
        other => {
            *spare = other;
            None
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.stop_threads();
    }
}
