//! One segment: a data file, its index file, and what is known of them.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use ports::RelaySeq;

use super::{
    erase::Gaps,
    format::{
        CHECKPOINT_OFFSETS, FileKind, HEADER_BYTES, Header, LogPos, RECORD_BYTES, Record,
        encode_checkpoint,
    },
    storage::{Handle, Storage, write_all_at},
};

/// The files of a segment that is not in use yet, under names that wait for the first number.
pub(super) const SPARE_NAMES: [(FileKind, &str); 2] =
    [(FileKind::Data, "spare.log"), (FileKind::Index, "spare.index")];

const OPEN: u64 = u64::MAX;

/// Whether a segment's bytes may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Trust {
    /// Written by this process, or checked by it.
    Good = 0,
    /// From an earlier run, and not yet looked at.
    Unknown = 1,
    /// A reader waits for the check.
    Wanted = 2,
    Damaged = 3,
}

/// Two files without content.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) data: Handle,
    pub(super) index: Handle,
    /// They have the spare names.
    pub(super) spare: bool,
}

impl Files {
    /// Makes a pair with the spare names.
    pub(super) fn create_spare(storage: &dyn Storage, dir: &Path) -> io::Result<Self> {
        let [data, index] = SPARE_NAMES.map(|(_, name)| create(storage, &dir.join(name)));
        Ok(Self { data: data?, index: index?, spare: true })
    }

    /// Makes a pair with the names of a segment.
    pub(super) fn create(storage: &dyn Storage, dir: &Path, first: RelaySeq) -> io::Result<Self> {
        let data = create(storage, &path(dir, first, FileKind::Data))?;
        let index = create(storage, &path(dir, first, FileKind::Index))?;
        Ok(Self { data, index, spare: false })
    }
}

/// Makes a file. What has its name is left over from an attempt which failed; it holds no event.
fn create(storage: &dyn Storage, path: &Path) -> io::Result<Handle> {
    match storage.remove(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => storage.create(path),
    }
}

#[derive(Debug)]
pub(super) struct Segment {
    header: Header,
    pub(super) first_seq: RelaySeq,
    pub(super) base: LogPos,
    pub(super) data: Handle,
    pub(super) index: Handle,
    /// The first number behind the segment, `OPEN` while it grows.
    end_seq: AtomicU64,
    end_pos: AtomicU64,
    /// Time of the first and of the newest event; zero while there is none.
    oldest_micros: AtomicU64,
    newest_micros: AtomicU64,
    trust: AtomicU8,
    /// The files still have the spare names.
    spare: AtomicBool,
    /// Its files, headers and names are on disk, and the lease knows of it.
    settled: AtomicBool,
    /// A sync of its files failed. The kernel may count the pages as clean although they never
    /// reached the disk, so what is not synced is written again before the next try.
    suspect: AtomicBool,
    /// Frames that readers step over, counted from the first frame.
    gaps: ArcSwap<Gaps>,
    /// The take-downs up to this number have been looked for in it.
    swept: AtomicU64,
    /// A reader waits for that.
    sweep_wanted: AtomicBool,
    /// It has erased frames that were not overwritten yet.
    unblanked: AtomicBool,
    /// How often frames began to be overwritten: bytes read meanwhile may be damaged.
    blankings: AtomicU64,
}

/// What is known of a segment's content when it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) end_seq: RelaySeq,
    pub(super) end_pos: LogPos,
    pub(super) oldest_micros: u64,
    pub(super) newest_micros: u64,
}

impl Segment {
    /// Starts a segment in files that were made for it; nothing is synced.
    pub(super) fn begin(
        storage: &dyn Storage,
        dir: &Path,
        header: Header,
        files: &Files,
    ) -> io::Result<Self> {
        // In messages they have the names which they will have soon.
        let handle = |file: &Handle, kind| Handle {
            file: file.file.clone(),
            path: path(dir, header.first_seq, kind).into(),
        };
        let data = handle(&files.data, FileKind::Data);
        let index = handle(&files.index, FileKind::Index);
        let segment = Self::new(header, data, index, Trust::Good);
        segment.write_headers(storage)?;
        segment.spare.store(files.spare, Ordering::Release);
        segment.settled.store(false, Ordering::Release);
        Ok(segment)
    }

    /// Writes what the files start with.
    pub(super) fn write_headers(&self, storage: &dyn Storage) -> io::Result<()> {
        for (handle, kind) in [(&self.data, FileKind::Data), (&self.index, FileKind::Index)] {
            write_all_at(storage, handle, &self.header.encode(kind), 0)?;
            if handle.len()? < HEADER_BYTES {
                storage.set_len(handle, HEADER_BYTES)?;
            }
        }
        Ok(())
    }

    pub(super) fn new(header: Header, data: Handle, index: Handle, trust: Trust) -> Self {
        Self {
            header,
            first_seq: header.first_seq,
            base: header.base,
            data,
            index,
            end_seq: AtomicU64::new(OPEN),
            end_pos: AtomicU64::new(OPEN),
            oldest_micros: AtomicU64::new(0),
            newest_micros: AtomicU64::new(0),
            trust: AtomicU8::new(trust as u8),
            spare: AtomicBool::new(false),
            settled: AtomicBool::new(true),
            suspect: AtomicBool::new(false),
            gaps: ArcSwap::default(),
            swept: AtomicU64::new(0),
            sweep_wanted: AtomicBool::new(false),
            unblanked: AtomicBool::new(false),
            blankings: AtomicU64::new(0),
        }
    }

    /// Gives the files their names, if they do not have them yet.
    pub(super) fn take_names(&self, storage: &dyn Storage, dir: &Path) -> io::Result<()> {
        if !self.spare.load(Ordering::Acquire) {
            return Ok(());
        }
        for (kind, name) in SPARE_NAMES {
            match storage.rename(&dir.join(name), &path(dir, self.first_seq, kind)) {
                // The one before this was renamed by an attempt that failed half way.
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.spare.store(false, Ordering::Release);
        Ok(())
    }

    pub(super) fn has_spare_names(&self) -> bool {
        self.spare.load(Ordering::Acquire)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    pub(super) fn set_settled(&self) {
        self.settled.store(true, Ordering::Release);
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    pub(super) fn set_suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Ordering::Release);
    }

    pub(super) fn gaps(&self) -> Arc<Gaps> {
        self.gaps.load_full()
    }

    /// From here on nobody gets these frames any more.
    pub(super) fn add_gaps(&self, more: &Gaps) {
        if !more.is_empty() {
            self.gaps.rcu(|gaps| gaps.with(more));
        }
    }

    pub(super) fn swept(&self) -> u64 {
        self.swept.load(Ordering::Acquire)
    }

    pub(super) fn set_swept(&self, through: u64) {
        self.swept.fetch_max(through, Ordering::AcqRel);
        self.sweep_wanted.store(false, Ordering::Release);
    }

    /// Asks for a look into it before all others; `false` if that has been asked for already.
    pub(super) fn want_sweep(&self) -> bool {
        !self.sweep_wanted.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_sweep_wanted(&self) -> bool {
        self.sweep_wanted.load(Ordering::Acquire)
    }

    pub(super) fn is_unblanked(&self) -> bool {
        self.unblanked.load(Ordering::Acquire)
    }

    pub(super) fn set_unblanked(&self, unblanked: bool) {
        self.unblanked.store(unblanked, Ordering::Release);
    }

    pub(super) fn blankings(&self) -> u64 {
        self.blankings.load(Ordering::SeqCst)
    }

    pub(super) fn note_blanking(&self) {
        self.blankings.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn close(&self, extent: Extent) {
        self.oldest_micros.store(extent.oldest_micros, Ordering::Relaxed);
        self.newest_micros.store(extent.newest_micros, Ordering::Relaxed);
        self.end_pos.store(extent.end_pos.0, Ordering::Release);
        self.end_seq.store(extent.end_seq.0, Ordering::Release);
    }

    pub(super) fn is_open(&self) -> bool {
        self.end_seq.load(Ordering::Acquire) == OPEN
    }

    /// The first number behind the segment's events, given the log's newest.
    pub(super) fn end_seq(&self, head: RelaySeq) -> RelaySeq {
        let end = self.end_seq.load(Ordering::Acquire);
        // A segment that was just made has no events, and numbers before it do not count.
        RelaySeq(end.min(head.0 + 1).max(self.first_seq.0))
    }

    pub(super) fn end_pos(&self, head: LogPos) -> LogPos {
        LogPos(self.end_pos.load(Ordering::Acquire).min(head.0).max(self.base.0))
    }

    pub(super) fn note_time(&self, micros: u64) {
        if self.oldest_micros.load(Ordering::Relaxed) == 0 {
            self.oldest_micros.store(micros, Ordering::Relaxed);
        }
        self.newest_micros.fetch_max(micros, Ordering::Relaxed);
    }

    pub(super) fn oldest_micros(&self) -> u64 {
        self.oldest_micros.load(Ordering::Relaxed)
    }

    pub(super) fn newest_micros(&self) -> u64 {
        self.newest_micros.load(Ordering::Relaxed)
    }

    pub(super) fn trust(&self) -> Trust {
        match self.trust.load(Ordering::Acquire) {
            0 => Trust::Good,
            1 => Trust::Unknown,
            2 => Trust::Wanted,
            _ => Trust::Damaged,
        }
    }

    pub(super) fn set_trust(&self, trust: Trust) {
        self.trust.store(trust as u8, Ordering::Release);
    }

    /// Asks for a check; `false` if it has been asked for already.
    pub(super) fn want(&self) -> bool {
        self.trust
            .compare_exchange(
                Trust::Unknown as u8,
                Trust::Wanted as u8,
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .is_ok()
    }

    /// Bytes of both files, given where the log ends.
    pub(super) fn file_bytes(&self, head: (RelaySeq, LogPos)) -> u64 {
        let records = self.end_seq(head.0).0 - self.first_seq.0;
        2 * HEADER_BYTES + (self.end_pos(head.1).0 - self.base.0) + records * RECORD_BYTES
    }

    /// Reads the record of an event that is in the segment.
    pub(super) fn record(&self, seq: RelaySeq) -> io::Result<Record> {
        // The second look is for a record that is being flagged at this moment.
        for _ in 0..2 {
            let mut bytes = [0; RECORD_BYTES as usize];
            self.index.read_exact_at(&mut bytes, self.record_offset(seq))?;
            if let Some(record) = Record::decode(&bytes).filter(|one| one.event.seq == seq) {
                return Ok(record);
            }
        }
        Err(self.damaged(seq))
    }

    pub(super) fn record_offset(&self, seq: RelaySeq) -> u64 {
        HEADER_BYTES + (seq.0 - self.first_seq.0) * RECORD_BYTES
    }

    /// Where a frame is in the data file.
    pub(super) fn data_offset(&self, pos: LogPos) -> u64 {
        HEADER_BYTES + (pos.0 - self.base.0)
    }

    pub(super) fn damaged(&self, seq: RelaySeq) -> io::Error {
        let message = format!("{}: record of seq {seq} is damaged", self.index.path.display());
        io::Error::new(ErrorKind::InvalidData, message)
    }

    /// The first number below `end` for which `beyond` says yes (and for all after it), or `end`.
    pub(super) fn search(
        &self,
        end: RelaySeq,
        beyond: impl Fn(&Record) -> bool,
    ) -> io::Result<RelaySeq> {
        let (mut low, mut high) = (self.first_seq.0, end.0);
        while low < high {
            let middle = low + (high - low) / 2;
            if beyond(&self.record(RelaySeq(middle))?) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(RelaySeq(low))
    }

    /// Notes in the index that its first `count` records and their frames are on disk for certain.
    /// It becomes durable with the next sync; losing it loses nothing but a check.
    pub(super) fn write_checkpoint(
        &self,
        storage: &dyn Storage,
        count: u64,
        turn: u64,
    ) -> io::Result<()> {
        let offset = CHECKPOINT_OFFSETS[(turn % 2) as usize];
        write_all_at(storage, &self.index, &encode_checkpoint(count), offset)
    }
}

pub(super) fn path(dir: &Path, first_seq: RelaySeq, kind: FileKind) -> PathBuf {
    let extension = match kind {
        FileKind::Data => "log",
        FileKind::Index => "index",
    };
    dir.join(format!("{:020}.{extension}", first_seq.0))
}

/// The first number and the kind that a file name stands for.
pub(super) fn parse_name(name: &str) -> Option<(RelaySeq, FileKind)> {
    let (digits, extension) = name.split_once('.')?;
    let kind = match extension {
        "log" => FileKind::Data,
        "index" => FileKind::Index,
        _ => return None,
    };
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((RelaySeq(digits.parse().ok()?), kind))
}
