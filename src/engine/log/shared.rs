//! What the writer, the readers and the log's threads share: atomics and lists swapped whole.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use ports::{LogStats, RelaySeq, ring::Doorbell};

use super::{
    LogPos,
    erase::Erasures,
    lease::Lease,
    memory::Chunks,
    segment::{Files, Segment},
    storage::Storage,
    sync::SyncState,
};

pub(super) type Segments = Vec<Arc<Segment>>;

pub(super) struct Shared {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) dir: PathBuf,
    pub(super) head: Head,
    pub(super) synced_seq: AtomicU64,
    pub(super) synced_pos: AtomicU64,
    pub(super) chunks: ArcSwap<Chunks>,
    /// Oldest first; only the last one can be open.
    pub(super) segments: ArcSwap<Segments>,
    /// Up to here numbers may be given out: the lease on disk says so.
    pub(super) leased: AtomicU64,
    pub(super) lease_size: u64,
    /// Half of the lease is used up.
    pub(super) lease_wanted: AtomicBool,
    /// Segments that start below this may be removed: the lease on disk does not insist on them.
    pub(super) removable_below: AtomicU64,
    /// Segments with events above this may not be removed: whoever follows the log needs them.
    pub(super) released: AtomicU64,
    /// The last segment was closed for its age: the lease is to insist on it no longer.
    pub(super) release_wanted: AtomicBool,
    /// Files for the next segment, made ahead.
    pub(super) spare: Mutex<Spare>,
    /// Nothing before this place is served: it is damaged, or comes before what is.
    pub(super) readable_from: AtomicU64,
    pub(super) window_micros: AtomicU64,
    /// `u64::MAX`: no limit.
    pub(super) window_bytes: AtomicU64,
    /// Held while syncing: two threads syncing one file could each see only half of an error.
    pub(super) sync_state: Mutex<SyncState>,
    /// The last sync failed; nothing is appended until one succeeds.
    pub(super) sync_failed: AtomicBool,
    /// The lease could not be renewed.
    pub(super) lease_failed: AtomicBool,
    pub(super) sync_bell: Arc<Doorbell>,
    /// `log-sync` sleeps and has to be rung for the next event.
    pub(super) sync_idle: AtomicBool,
    /// Sync now, not at the end of the interval.
    pub(super) sync_urgent: AtomicBool,
    /// Rung whenever more has been synced.
    pub(super) synced_bell: OnceLock<Arc<Doorbell>>,
    pub(super) keeper_bell: Arc<Doorbell>,
    pub(super) erasures: Erasures,
    pub(super) stop: AtomicBool,
    pub(super) counters: Counters,
    pub(super) fault: ArcSwapOption<String>,
    /// What the file system has left, as of the keeper's last look; `ROOM_UNKNOWN` if it did not say.
    pub(super) room_bytes: AtomicU64,
}

pub(super) const ROOM_UNKNOWN: u64 = u64::MAX;

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("dir", &self.dir).field("head", &self.head.load()).finish()
    }
}

/// The files for the next segment.
#[derive(Debug, Default)]
pub(super) enum Spare {
    #[default]
    None,
    Ready(Files),
    /// In use, but not renamed yet: the names are not free.
    Taken,
}

/// Where a log stands when it is opened.
pub(super) struct Start {
    pub(super) head: (RelaySeq, LogPos),
    pub(super) segments: Segments,
    pub(super) lease: Lease,
    pub(super) lease_size: u64,
    pub(super) window: Duration,
    pub(super) window_bytes: Option<u64>,
    pub(super) erasures: Erasures,
    pub(super) readable_from: LogPos,
    pub(super) followed: bool,
}

impl Shared {
    pub(super) fn new(storage: Arc<dyn Storage>, dir: PathBuf, start: Start) -> Self {
        let (seq, pos) = start.head;
        Self {
            storage,
            dir,
            head: Head::new(seq, pos),
            synced_seq: AtomicU64::new(seq.0),
            synced_pos: AtomicU64::new(pos.0),
            chunks: ArcSwap::from_pointee(Vec::new()),
            segments: ArcSwap::from_pointee(start.segments),
            leased: AtomicU64::new(start.lease.leased.0),
            lease_size: start.lease_size,
            lease_wanted: AtomicBool::new(false),
            removable_below: AtomicU64::new(start.lease.insists_from().0),
            released: AtomicU64::new(if start.followed { 0 } else { u64::MAX }),
            release_wanted: AtomicBool::new(false),
            spare: Mutex::default(),
            readable_from: AtomicU64::new(start.readable_from.0),
            window_micros: AtomicU64::new(micros(start.window)),
            window_bytes: AtomicU64::new(start.window_bytes.unwrap_or(u64::MAX)),
            sync_state: Mutex::new(SyncState::new(start.lease)),
            sync_failed: AtomicBool::new(false),
            lease_failed: AtomicBool::new(false),
            sync_bell: Doorbell::new(),
            sync_idle: AtomicBool::new(false),
            sync_urgent: AtomicBool::new(false),
            synced_bell: OnceLock::new(),
            keeper_bell: Doorbell::new(),
            erasures: start.erasures,
            stop: AtomicBool::new(false),
            counters: Counters::default(),
            fault: ArcSwapOption::empty(),
            room_bytes: AtomicU64::new(ROOM_UNKNOWN),
        }
    }

    pub(super) fn lock_spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn synced(&self) -> (RelaySeq, LogPos) {
        // The place is stored first and loaded last, so it is never behind the number.
        let seq = RelaySeq(self.synced_seq.load(Ordering::Acquire));
        (seq, LogPos(self.synced_pos.load(Ordering::Acquire)))
    }

    pub(super) fn note_synced(&self, (seq, pos): (RelaySeq, LogPos)) {
        self.synced_pos.fetch_max(pos.0, Ordering::AcqRel);
        self.synced_seq.fetch_max(seq.0, Ordering::AcqRel);
    }

    /// The segment that has the byte at `pos`.
    pub(super) fn segment_at(segments: &Segments, pos: LogPos) -> Option<&Arc<Segment>> {
        let after = segments.partition_point(|segment| segment.base <= pos);
        segments.get(after.checked_sub(1)?)
    }

    /// The last segment that starts at or below `seq`.
    pub(super) fn segment_of(segments: &Segments, seq: RelaySeq) -> Option<&Arc<Segment>> {
        let after = segments.partition_point(|segment| segment.first_seq <= seq);
        segments.get(after.checked_sub(1)?)
    }

    pub(super) fn stats(&self) -> LogStats {
        let counters = &self.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            events: load(&counters.events),
            bytes: load(&counters.bytes),
            batches: load(&counters.batches),
            write_errors: load(&counters.write_errors),
            syncs: load(&counters.syncs),
            sync_errors: load(&counters.sync_errors),
            sync_micros: load(&counters.sync_micros),
            sync_micros_max: load(&counters.sync_micros_max),
            segments: self.segments.load().len() as u64,
            segments_removed: load(&counters.segments_removed),
            segments_damaged: load(&counters.segments_damaged),
            events_erased: load(&counters.events_erased),
            erasures_pending: self.erasures.pending() as u64,
        }
    }

    /// Asks the file system how much room is left.
    pub(super) fn measure_room(&self) {
        let room = rustix::fs::statvfs(&self.dir);
        let room = room.map_or(ROOM_UNKNOWN, |room| room.f_bavail.saturating_mul(room.f_frsize));
        self.room_bytes.store(room, Ordering::Relaxed);
    }

    pub(super) fn room_bytes(&self) -> Option<u64> {
        Some(self.room_bytes.load(Ordering::Relaxed)).filter(|room| *room != ROOM_UNKNOWN)
    }
}

/// A duration for comparing with event times.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) events: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) write_errors: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) sync_errors: AtomicU64,
    pub(super) sync_micros: AtomicU64,
    pub(super) sync_micros_max: AtomicU64,
    pub(super) segments_removed: AtomicU64,
    pub(super) segments_damaged: AtomicU64,
    pub(super) events_erased: AtomicU64,
}

/// The newest event's number and the place behind it, readable as a pair.
#[derive(Debug)]
pub(super) struct Head {
    /// Odd while the pair is being changed.
    version: AtomicU64,
    seq: AtomicU64,
    pos: AtomicU64,
}

impl Head {
    fn new(seq: RelaySeq, pos: LogPos) -> Self {
        Self { version: AtomicU64::new(0), seq: AtomicU64::new(seq.0), pos: AtomicU64::new(pos.0) }
    }

    /// Only the writer's thread stores.
    pub(super) fn store(&self, seq: RelaySeq, pos: LogPos) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.seq.store(seq.0, Ordering::Release);
        self.pos.store(pos.0, Ordering::Release);
        self.version.store(version + 2, Ordering::Release);
    }

    pub(super) fn load(&self) -> (RelaySeq, LogPos) {
        loop {
            let before = self.version.load(Ordering::Acquire);
            let pair = (self.seq.load(Ordering::Acquire), self.pos.load(Ordering::Acquire));
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                return (RelaySeq(pair.0), LogPos(pair.1));
            }
            // The writer was interrupted between three stores: let it run.
            std::thread::yield_now();
        }
    }

    pub(super) fn pos(&self) -> LogPos {
        LogPos(self.pos.load(Ordering::Acquire))
    }
}
