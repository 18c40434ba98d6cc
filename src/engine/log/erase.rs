//! A take-down reaches the past: older #commit and #sync events of the account are erased, and all
//! else stays where and as it is.
//!
//! It begins with the record of an #account that the relay made itself. Before that record can be
//! seen, its number is the newest in [`Erasures`], and no segment or chunk is served any more until
//! it has been searched up to there ([`Segment::swept`]); the newest ones, and those for which a
//! reader waits, come first. What is found goes into [`Gaps`], which readers step over. Then, once
//! the take-down itself is on disk:
//!
//! 1. the records are flagged, and the index is synced: from here on no restart brings them back;
//! 2. the frames are overwritten, and the data file is synced;
//! 3. when that is done in all segments, the file `erased` says up to which number.
//!
//! A crash at any point leaves flagged records whose frames are not blank yet, or unflagged ones and
//! a file `erased` that is behind: the next start looks through the index from there for take-downs,
//! and does it all again. Doing it twice does no harm.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ports::{AccountId, EventKind, HostId, LocalStatus, LogRecord, RelaySeq, ring::Doorbell};

use super::{
    LogPos,
    format::{RECORD_BYTES, Record, get_u32, get_u64, put_u32, put_u64},
    memory::Chunk,
    segment::{Segment, Trust},
    shared::{Segments, Shared},
    storage::{Storage, replace_file, write_all_at},
    tail::did_in,
};

/// Between two tries when the disk does not let us, and until a take-down is synced.
const RETRY: Duration = Duration::from_millis(500);
/// How often the file `erased` is looked after while nothing is to do.
const IDLE: Duration = Duration::from_mins(1);
/// The file `erased` is written anew after so many numbers: so much a start has to look through.
const NOTE_EVERY: u64 = 50_000;
const RECORDS_PER_READ: u64 = 1024;
/// Behind everything.
const ANYWHERE: LogPos = LogPos(u64::MAX);

/// Erased frames of a segment or chunk: where each starts and ends, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps(Vec<(u32, u32)>);

/// What is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing is erased up to there.
    Clear(u64),
    /// Erased frames up to there.
    Erased(u64),
    /// The inside of an erased frame.
    Within,
}

impl Gaps {
    pub(super) fn push(&mut self, start: u64, end: u64) {
        self.0.push((start as u32, end as u32));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().copied()
    }

    /// These and some more, in order.
    pub(super) fn with(&self, more: &Self) -> Self {
        let mut both = [&self.0[..], &more.0[..]].concat();
        both.sort_unstable();
        both.dedup();
        Self(both)
    }

    pub(super) fn look(&self, at: u64) -> Look {
        let after = self.0.partition_point(|(start, _)| u64::from(*start) <= at);
        let next = |position: usize| self.0.get(position).map(|(start, _)| u64::from(*start));
        match after.checked_sub(1).map(|before| self.0[before]) {
            Some((start, _)) if u64::from(start) == at => {
                let mut position = after;
                let mut end = u64::from(self.0[after - 1].1);
                while next(position) == Some(end) {
                    end = u64::from(self.0[position].1);
                    position += 1;
                }
                Look::Erased(end)
            }
            Some((_, end)) if u64::from(end) > at => Look::Within,
            _ => Look::Clear(next(after).unwrap_or(u64::MAX)),
        }
    }
}

/// An account whose #commit and #sync events below a number are to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TakeDown {
    pub(super) seq: RelaySeq,
    pub(super) account: AccountId,
    /// Empty if it could not be read: then the account's number decides alone.
    pub(super) did: Box<str>,
}

impl TakeDown {
    pub(super) fn is(kind: EventKind, host: HostId, local: LocalStatus) -> bool {
        kind == EventKind::Account && host == HostId::RELAY && local == LocalStatus::Takendown
    }

    fn is_record(event: &LogRecord) -> bool {
        Self::is(event.kind, event.host, event.local)
    }
}

/// Take-downs that are not done.
#[derive(Debug)]
pub(super) struct Erasures {
    /// The number of the newest take-down that readers can see.
    newest: AtomicU64,
    pending: Mutex<Vec<TakeDown>>,
    /// The file `erased` says so: take-downs up to this number are done.
    noted: AtomicU64,
    bell: Arc<Doorbell>,
}

/// What one step of the eraser has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Idle,
    /// Some take-downs are done.
    Done,
    /// Nobody gets the events any more, but the take-down is not synced yet.
    Unsynced,
}

impl Erasures {
    pub(super) fn new(noted: RelaySeq, pending: Vec<TakeDown>) -> Self {
        Self {
            newest: AtomicU64::new(pending.last().map_or(0, |last| last.seq.0)),
            pending: Mutex::new(pending),
            noted: AtomicU64::new(noted.0),
            bell: Doorbell::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<TakeDown>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has not been searched up to this number must not be served.
    pub(super) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Before readers can see the take-downs.
    pub(super) fn begin(&self, take_downs: &mut Vec<TakeDown>) {
        if let Some(last) = take_downs.last() {
            self.newest.store(last.seq.0, Ordering::Release);
            self.lock().append(take_downs);
        }
    }

    pub(super) fn ring(&self) {
        self.bell.ring();
    }

    pub(super) fn pending(&self) -> usize {
        self.lock().len()
    }
}

/// Who is to be erased, for looking up.
pub(super) struct Wanted {
    by_account: HashMap<AccountId, (RelaySeq, Box<str>)>,
    by_did: HashMap<Box<str>, RelaySeq>,
    newest: RelaySeq,
}

impl Wanted {
    fn new(take_downs: &[TakeDown]) -> Self {
        let mut wanted = Self {
            by_account: HashMap::new(),
            by_did: HashMap::new(),
            newest: take_downs.last().map_or(RelaySeq(0), |last| last.seq),
        };
        for one in take_downs {
            wanted.by_account.insert(one.account, (one.seq, one.did.clone()));
            if !one.did.is_empty() {
                wanted.by_did.insert(one.did.clone(), one.seq);
            }
        }
        wanted
    }

    /// Whether an event has to go. Accounts have other numbers after a database was lost, so the DID
    /// in the frame counts where there is one.
    fn has(&self, segment: &Segment, record: &Record) -> bool {
        let event = &record.event;
        if !matches!(event.kind, EventKind::Commit | EventKind::Sync) {
            return false;
        }
        if record.rebuilt && event.account == AccountId(0) {
            return did_in(segment, record)
                .is_some_and(|did| self.by_did.get(&*did).is_some_and(|seq| event.seq < *seq));
        }
        let Some((seq, did)) = self.by_account.get(&event.account) else { return false };
        event.seq < *seq
            && (record.erased
                || did.is_empty()
                || did_in(segment, record).is_none_or(|found| *found == **did))
    }

    /// All events of a segment that have to go.
    fn find(&self, segment: &Segment) -> io::Result<Found> {
        let end = segment.end_seq(self.newest).min(self.newest);
        let mut events = Vec::new();
        let damaged = each_record(segment, segment.first_seq, end, |record| {
            if self.has(segment, record) {
                events.push(*record);
            }
        })?;
        Ok(Found { events, damaged })
    }
}

/// Events of a segment.
struct Found {
    events: Vec<Record>,
    /// The first number whose record is damaged, so that nobody knows whose event it is.
    damaged: Option<RelaySeq>,
}

/// Reads records of a segment, from one number to below another, and gives the first number whose
/// record is damaged.
fn each_record(
    segment: &Segment,
    mut from: RelaySeq,
    end: RelaySeq,
    mut each: impl FnMut(&Record),
) -> io::Result<Option<RelaySeq>> {
    let mut damaged = None;
    while from < end {
        let many = (end.0 - from.0).min(RECORDS_PER_READ) as usize;
        let mut bytes = vec![[0; RECORD_BYTES as usize]; many];
        segment.index.read_exact_at(bytes.as_flattened_mut(), segment.record_offset(from))?;
        for bytes in &bytes {
            match Record::decode(bytes).filter(|record| record.event.seq == from) {
                Some(record) => each(&record),
                None => damaged = damaged.or(Some(from)),
            }
            from = from.next();
        }
    }
    Ok(damaged)
}

impl Shared {
    /// One step on the way of all take-downs that are not done.
    pub(super) fn erase(&self) -> io::Result<Step> {
        let Some(wanted) = self.hide_pending() else { return Ok(Step::Idle) };
        if self.synced().0 < wanted.newest {
            self.urge_sync();
            return Ok(Step::Unsynced);
        }
        for segment in self.segments.load_full().iter().filter(|segment| segment.is_unblanked()) {
            self.blank(segment, &wanted.find(segment)?.events)?;
            segment.set_unblanked(false);
        }
        self.erasures.lock().retain(|one| one.seq > wanted.newest);
        self.note_erased(wanted.newest)?;
        Ok(Step::Done)
    }

    /// Nobody gets the events any more; `None` if no take-down is pending.
    pub(super) fn hide_pending(&self) -> Option<Wanted> {
        let wanted = Wanted::new(&self.erasures.lock());
        (wanted.newest.0 > 0).then(|| {
            self.hide(&wanted);
            wanted
        })
    }

    /// Makes readers step over the events: first in memory, then for whoever waits, then for all.
    fn hide(&self, wanted: &Wanted) {
        let newest = wanted.newest.0;
        let memory = self.chunks.load().first().map_or(LogPos(u64::MAX), |chunk| chunk.base());
        let segments = self.segments.load_full();
        for segment in segments.iter().rev().take_while(|one| one.end_pos(ANYWHERE) > memory) {
            self.hide_in_segment(wanted, segment);
        }
        self.hide_in_memory(&segments, newest);
        let unswept = || segments.iter().rev().filter(|segment| segment.swept() < newest);
        while let Some(next) = unswept().next() {
            let waited_for = unswept().find(|segment| segment.is_sweep_wanted());
            self.hide_in_segment(wanted, waited_for.unwrap_or(next));
        }
    }

    fn hide_in_segment(&self, wanted: &Wanted, segment: &Segment) {
        if segment.swept() >= wanted.newest.0 {
            return;
        }
        match wanted.find(segment) {
            Ok(Found { events, damaged }) => {
                let mut gaps = Gaps::default();
                for one in &events {
                    gaps.push(one.offset.into(), one.end());
                }
                if !gaps.is_empty() {
                    segment.set_unblanked(true);
                    segment.add_gaps(&gaps);
                }
                if let Some(seq) = damaged {
                    self.condemn(segment, seq, "wrong checksum of a record");
                }
            }
            Err(error) => self.condemn(segment, segment.first_seq, &error.to_string()),
        }
        segment.set_swept(wanted.newest.0);
    }

    /// Puts copies without the erased frames in the place of chunks. They are sealed: with the
    /// take-down a new chunk began. What no segment tells of any more leaves memory.
    fn hide_in_memory(&self, segments: &Segments, newest: u64) {
        let oldest = segments.first().map_or(self.head.pos(), |first| first.base);
        let oldest = oldest.max(LogPos(self.readable_from.load(Ordering::Acquire)));
        for chunk in self.chunks.load_full().iter().filter(|chunk| !chunk.is_swept(newest)) {
            let gaps = gaps_in(segments, chunk);
            if chunk.base() < oldest {
                self.replace_chunk(chunk, None);
            } else if !chunk.has_gaps(&gaps) {
                let copy = chunk.erased_copy(&gaps);
                copy.set_swept(newest);
                self.replace_chunk(chunk, Some(&copy));
            } else {
                chunk.set_swept(newest);
            }
        }
    }

    fn replace_chunk(&self, chunk: &Arc<Chunk>, by: Option<&Arc<Chunk>>) {
        self.chunks.rcu(|chunks| {
            let replace = |held| if Arc::ptr_eq(held, chunk) { by } else { Some(held) };
            chunks.iter().filter_map(replace).cloned().collect::<Vec<_>>()
        });
    }

    /// Flags the records and overwrites the frames of events in one segment, for certain.
    pub(super) fn blank(&self, segment: &Segment, found: &[Record]) -> io::Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        // Nobody else writes old bytes again, or syncs these files, meanwhile.
        let _state = self.lock_sync();
        let result = blank_events(&*self.storage, segment, found);
        if result.is_err() {
            segment.set_suspect(true);
        }
        result?;
        self.counters.events_erased.fetch_add(found.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Puts down that take-downs up to a number are done, if there is none left among them.
    pub(super) fn note_erased(&self, through: RelaySeq) -> io::Result<()> {
        let noted = RelaySeq(self.erasures.noted.load(Ordering::Acquire));
        if through <= noted || self.erasures.lock().first().is_some_and(|one| one.seq <= through) {
            return Ok(());
        }
        replace_file(&*self.storage, &path(&self.dir), &encode(through))?;
        self.erasures.noted.store(through.0, Ordering::Release);
        Ok(())
    }

    /// So that a start has little to look through, although nobody is taken down.
    fn note_idle(&self) -> io::Result<()> {
        // First the place, then the look whether something is pending up to there.
        let synced = self.synced().0;
        if synced.0 < self.erasures.noted.load(Ordering::Acquire) + NOTE_EVERY {
            return Ok(());
        }
        self.note_erased(synced)
    }
}

/// The erased frames of a chunk, from the segments.
fn gaps_in(segments: &Segments, chunk: &Chunk) -> Gaps {
    let (base, end) = (chunk.base(), chunk.end());
    let mut gaps = Gaps::default();
    for segment in segments.iter().filter(|segment| segment.base < end) {
        for (start, stop) in segment.gaps().iter() {
            let start = segment.base.plus(u64::from(start));
            let stop = segment.base.plus(u64::from(stop));
            if start >= base && stop <= end {
                gaps.push(start.0 - base.0, stop.0 - base.0);
            }
        }
    }
    gaps
}

pub(super) fn blank_events(
    storage: &dyn Storage,
    segment: &Segment,
    found: &[Record],
) -> io::Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let erased: Vec<_> = found.iter().map(Record::erase).collect();
    for (record, _) in &erased {
        let offset = segment.record_offset(record.event.seq);
        write_all_at(storage, &segment.index, &record.encode(), offset)?;
    }
    storage.sync(&segment.index)?;
    segment.note_blanking();
    for (record, blank) in &erased {
        let offset = segment.data_offset(segment.base.plus(record.offset.into()));
        write_all_at(storage, &segment.data, blank, offset)?;
    }
    storage.sync(&segment.data)
}

/// The take-downs above a number, from the index, and the place behind what is damaged there: it could
/// hold one, so nothing before it may be served.
pub(super) fn pending_after(noted: RelaySeq, segments: &Segments) -> (Vec<TakeDown>, LogPos) {
    let (mut pending, mut readable_from) = (Vec::new(), LogPos(0));
    for segment in segments {
        let end = segment.end_seq(RelaySeq(u64::MAX - 1));
        let from = noted.next().max(segment.first_seq);
        let read = each_record(segment, from, end, |record| {
            if TakeDown::is_record(&record.event) {
                let did = did_in(segment, record).unwrap_or_default();
                let LogRecord { seq, account, .. } = record.event;
                pending.push(TakeDown { seq, account, did });
            }
        });
        if !matches!(read, Ok(None)) {
            let path = segment.index.path.display();
            tracing::error!(%path, "damaged index: the log is served from behind this segment on");
            segment.set_trust(Trust::Damaged);
            readable_from = segment.end_pos(ANYWHERE);
        }
    }
    (pending, readable_from)
}

const MAGIC: &[u8; 8] = b"rlyreras";
/// Another one is no valid file: all take-downs are done again then, which does no harm.
const VERSION: u32 = 1;
const BYTES: usize = 32;

fn path(dir: &Path) -> PathBuf {
    dir.join("erased")
}

fn encode(through: RelaySeq) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[..8].copy_from_slice(MAGIC);
    put_u32(&mut out, 8, VERSION);
    put_u64(&mut out, 16, through.0);
    let crc = crc32c::crc32c(&out[..BYTES - 4]);
    put_u32(&mut out, BYTES - 4, crc);
    out
}

/// Takes the file `erased` along, if there is one.
pub(super) fn copy_noted(from: &Path, to: &Path) -> io::Result<()> {
    match fs::copy(path(from), path(to)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Up to which number take-downs are done. Without a valid file: none, so that all are done again.
pub(super) fn read_noted(dir: &Path) -> RelaySeq {
    let Ok(bytes) = fs::read(path(dir)) else { return RelaySeq(0) };
    let whole = bytes.len() == BYTES
        && &bytes[..8] == MAGIC
        && get_u32(&bytes, 8) == VERSION
        && crc32c::crc32c(&bytes[..BYTES - 4]) == get_u32(&bytes, BYTES - 4);
    RelaySeq(if whole { get_u64(&bytes, 16) } else { 0 })
}

/// The body of the thread `log-eraser`.
pub(super) fn run(shared: &Shared) {
    let mut told = String::new();
    while !shared.stop.load(Ordering::SeqCst) {
        let wait = match shared.erase().and_then(|step| shared.note_idle().map(|()| step)) {
            // More may have come meanwhile.
            Ok(Step::Done) => continue,
            Ok(Step::Idle) => IDLE,
            Ok(Step::Unsynced) => RETRY,
            Err(error) => {
                let text = error.to_string();
                if text != told {
                    tracing::warn!(%error, "events of a taken-down account can't be overwritten \
                        yet: nobody gets them, and it is tried again");
                    told = text;
                }
                RETRY
            }
        };
        shared.erasures.bell.wait(wait);
    }
}
