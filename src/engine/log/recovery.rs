//! Opening a log: what a crash can leave is repaired, anything else is refused with a remedy.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::Path,
    sync::Arc,
    time::Duration,
};

use ports::{RelaySeq, ring::Doorbell};

use super::{
    LogConfig, LogError, LogPos, LogWriter,
    backup::check_restored,
    erase::{self, Erasures},
    format::{
        CHECKPOINT_BYTES, CHECKPOINT_OFFSETS, FileKind, HEADER_BYTES, Header, HeaderFault,
        RECORD_BYTES, decode_checkpoint,
    },
    lease::{self, CleanStop, Lease},
    rebuild::rebuild,
    scan::scan,
    segment::{Extent, SPARE_NAMES, Segment, Trust, parse_name, path},
    shared::{Segments, Shared, Start},
    storage::{Handle, Storage, write_all_at},
};

pub(super) fn open(
    mut config: LogConfig,
    storage: Arc<dyn Storage>,
) -> Result<LogWriter, LogError> {
    config.chunks_in_memory = config.chunks_in_memory.max(2);
    config.lease_size = config.lease_size.max(1);
    let dir = &config.dir;
    fs::create_dir_all(dir).map_err(|error| LogError::io("create", dir, error))?;
    let lock = lock(dir)?;
    check_restored(dir)?;
    let lease = Lease::read(dir);
    let recovery = Recovery { storage: &*storage, dir };
    let found = lease.as_ref().ok().copied().flatten();
    recovery.adopt_spare(found)?;
    let segments = recovery.segments(found)?;
    let end = segments.last().map(|last| (last.end_seq(MAX.0), last.end_pos(MAX.1)));
    let (end_seq, end_pos) = end.unwrap_or((RelaySeq(0), LogPos(0)));
    let next = lease::next_seq(&config, lease?, end_seq)?;
    let lease = Lease {
        leased: RelaySeq(next.0 + config.lease_size - 1),
        active: segments.last().map(|last| last.first_seq),
        torn_from: next,
        clean: None,
    };
    let written = lease.write(&*storage, dir);
    if let Err(error) = &written
        && storage.sync_dir(dir).is_err()
    {
        // With the lease the names of what was recovered would have become durable.
        let error = std::io::Error::new(error.kind(), error.to_string());
        return Err(LogError::io("write", &lease::path(dir), error));
    }
    // What is there can be served. No number is given out before there is room for the lease.
    let lease =
        if written.is_ok() { lease } else { Lease { leased: RelaySeq(next.0 - 1), ..lease } };
    let erased = erase::read_noted(dir);
    for segment in &segments {
        segment.set_swept(erased.0);
    }
    let (pending, readable_from) = erase::pending_after(erased, &segments);
    let erasures = Erasures::new(erased, pending);
    let start = Start {
        head: (RelaySeq(next.0 - 1), end_pos),
        segments,
        lease,
        lease_size: config.lease_size,
        window: config.replay_window,
        window_bytes: config.replay_bytes,
        erasures,
        readable_from,
        followed: config.followed,
    };
    let shared = Arc::new(Shared::new(storage, dir.clone(), start));
    if let Err(error) = written {
        shared.note_lease_failed(&error);
    }
    Ok(LogWriter::new(shared, config, next, lock))
}

/// How long to wait for whoever has the lock.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Behind every event; for the ends of segments that are closed.
const MAX: (RelaySeq, LogPos) = (RelaySeq(u64::MAX - 1), LogPos(u64::MAX));

/// Keeps a second process out. The kernel frees the lock when this one ends, however it ends.
fn lock(dir: &Path) -> Result<File, LogError> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| LogError::io("open", &path, error))?;
    let pause = Doorbell::new();
    for tries in 0.. {
        match file.try_lock() {
            Ok(()) => break,
            // A tool that has a look, or a process that is just ending.
            Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => pause.wait(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(LogError::Locked { path: dir.into() }),
            Err(TryLockError::Error(error)) => return Err(LogError::io("lock", &path, error)),
        }
    }
    Ok(file)
}

struct Recovery<'a> {
    storage: &'a dyn Storage,
    dir: &'a Path,
}

#[derive(Clone, Copy, Default)]
struct Found {
    data: bool,
    index: bool,
}

impl Recovery<'_> {
    /// All segments, closed, each starting where the one before ends.
    fn segments(&self, lease: Option<Lease>) -> Result<Segments, LogError> {
        let mut found = self.list()?;
        if let Some(active) = lease.and_then(|lease| lease.active)
            && !found.contains_key(&active)
        {
            return Err(LogError::Missing { path: path(self.dir, active, FileKind::Data) });
        }
        self.finish_removals(&mut found, lease)?;
        let clean = lease.and_then(|lease| lease.clean);
        let torn = found.split_off(&torn_from(&found, lease));
        let mut segments = Segments::new();
        for (first, files) in found {
            let segment = self.sealed(first, files)?;
            self.join(&segments, &segment)?;
            segments.push(Arc::new(segment));
        }
        match clean {
            Some(_) => self.last_of_clean_stop(torn, lease, &mut segments)?,
            None => self.torn(torn, lease, &mut segments)?,
        }
        if let (Some(clean), Some(last)) = (clean, segments.last()) {
            self.check_clean_end(clean, last)?;
        }
        Ok(segments)
    }

    /// After a clean stop the last segment is as whole as the others, or was never written to.
    fn last_of_clean_stop(
        &self,
        last: BTreeMap<RelaySeq, Found>,
        lease: Option<Lease>,
        segments: &mut Segments,
    ) -> Result<(), LogError> {
        for (first, files) in last {
            if !self.give_up_if_empty(first, files, lease)? {
                let segment = self.sealed(first, files)?;
                self.join(segments, &segment)?;
                segments.push(Arc::new(segment));
            }
        }
        Ok(())
    }

    /// Segments that may be torn. The first of them is cut behind its last good event; one behind it
    /// goes if the one before has lost anything, as the log would have a gap there.
    fn torn(
        &self,
        torn: BTreeMap<RelaySeq, Found>,
        lease: Option<Lease>,
        segments: &mut Segments,
    ) -> Result<(), LogError> {
        // Where the next segment has to start: known if the lease says so, else anywhere.
        let mut expected = lease.map(|lease| lease.torn_from).filter(|seq| seq.0 > 0);
        for (first, files) in torn {
            let settled =
                lease.is_none_or(|lease| lease.torn_from.0 == 0 || lease.active == Some(first));
            if self.give_up_if_empty(first, files, lease)? {
                continue;
            }
            if !settled && !self.goes_on(first, files, expected, segments)? {
                let path = path(self.dir, first, FileKind::Data);
                tracing::warn!(path = %path.display(), "removed a segment that was never synced");
                self.give_up(first, files, lease)?;
                continue;
            }
            if let Some(segment) = self.last(first, files, lease)? {
                self.join(segments, &segment)?;
                expected = Some(segment.end_seq(MAX.0));
                segments.push(Arc::new(segment));
            }
        }
        Ok(())
    }

    /// Whether a segment that was never synced is there and starts just where the log ends.
    fn goes_on(
        &self,
        first: RelaySeq,
        files: Found,
        expected: Option<RelaySeq>,
        segments: &Segments,
    ) -> Result<bool, LogError> {
        if !files.data || !files.index || expected.is_some_and(|expected| expected != first) {
            return Ok(false);
        }
        let data = self.open(&path(self.dir, first, FileKind::Data))?;
        match read_header(&data, FileKind::Data, first) {
            Ok(header) => Ok(segments.last().is_none_or(|last| last.end_pos(MAX.1) == header.base)
                && self.open_index(header)?.is_some()),
            Err(LogError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A segment may have been in use before its files were renamed. Spare files that were not in
    /// use are removed.
    fn adopt_spare(&self, lease: Option<Lease>) -> Result<(), LogError> {
        let unclean = lease.is_some_and(|lease| lease.clean.is_none());
        for (kind, name) in SPARE_NAMES {
            let spare = self.dir.join(name);
            let header = match self.storage.open(&spare) {
                Ok(handle) => read_any_header(&handle, kind)?,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(LogError::io("open", &spare, error)),
            };
            let target = header.map(|header| path(self.dir, header.first_seq, kind));
            let result = match target.filter(|target| unclean && !target.exists()) {
                Some(target) => self.storage.rename(&spare, &target),
                None => self.storage.remove(&spare),
            };
            result.map_err(|error| LogError::io("put away", &spare, error))?;
        }
        Ok(())
    }

    /// The window's end goes data file first: an index alone at the front is the rest of a removal.
    fn finish_removals(
        &self,
        found: &mut BTreeMap<RelaySeq, Found>,
        lease: Option<Lease>,
    ) -> Result<(), LogError> {
        while let Some(oldest) = found.first_entry() {
            let first = *oldest.key();
            let wanted = lease.is_none_or(|lease| lease.active == Some(first));
            if oldest.get().data || wanted {
                break;
            }
            let path = path(self.dir, first, FileKind::Index);
            self.storage.remove(&path).map_err(|error| LogError::io("remove", &path, error))?;
            oldest.remove();
        }
        Ok(())
    }

    fn list(&self) -> Result<BTreeMap<RelaySeq, Found>, LogError> {
        let failed = |error| LogError::io("list", self.dir, error);
        let mut found = BTreeMap::<RelaySeq, Found>::new();
        for entry in fs::read_dir(self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some((first, kind)) = parse_name(name) {
                let files = found.entry(first).or_default();
                match kind {
                    FileKind::Data => files.data = true,
                    FileKind::Index => files.index = true,
                }
            }
        }
        Ok(found)
    }

    /// A segment must start where the one before it ends: else something is missing in between.
    fn join(&self, before: &Segments, segment: &Segment) -> Result<(), LogError> {
        let Some(before) = before.last() else { return Ok(()) };
        let (end_seq, end_pos) = (before.end_seq(MAX.0), before.end_pos(MAX.1));
        if segment.first_seq < end_seq || segment.base < end_pos {
            return Err(damaged(&segment.data, segment.first_seq, "overlaps the segment before"));
        }
        if segment.base > end_pos {
            return Err(LogError::Missing { path: path(self.dir, end_seq, FileKind::Data) });
        }
        Ok(())
    }

    fn check_clean_end(&self, clean: CleanStop, last: &Segment) -> Result<(), LogError> {
        let (end_seq, end_pos) = (last.end_seq(MAX.0), last.end_pos(MAX.1));
        if (end_seq, end_pos) == (clean.end_seq, clean.end_pos) {
            return Ok(());
        }
        if end_seq < clean.end_seq {
            return Err(LogError::Missing { path: path(self.dir, end_seq, FileKind::Data) });
        }
        Err(damaged(&last.data, clean.end_seq, "goes on behind the end of a clean stop"))
    }

    /// A segment that was closed, or the last one after a clean stop: it must be whole.
    fn sealed(&self, first: RelaySeq, files: Found) -> Result<Segment, LogError> {
        if !files.data {
            return Err(LogError::Missing { path: path(self.dir, first, FileKind::Data) });
        }
        let data = self.open(&path(self.dir, first, FileKind::Data))?;
        let header = read_header(&data, FileKind::Data, first)?;
        let index = if files.index { self.open_index(header)? } else { None };
        if let Some(index) = index {
            let segment = Segment::new(header, data.clone(), index, Trust::Unknown);
            if let Some(extent) = quick_extent(&segment)? {
                segment.close(extent);
                return Ok(segment);
            }
        }
        let (segment, extent) = self.rebuild(header, data, false)?;
        segment.close(extent);
        Ok(segment)
    }

    /// The last segment after a crash: cut behind the last event that is whole.
    fn last(
        &self,
        first: RelaySeq,
        files: Found,
        lease: Option<Lease>,
    ) -> Result<Option<Segment>, LogError> {
        let data_path = path(self.dir, first, FileKind::Data);
        if !files.data {
            return Err(LogError::Missing { path: data_path });
        }
        let data = self.open(&data_path)?;
        let header = read_header(&data, FileKind::Data, first)?;
        let index = if files.index { self.open_index(header)? } else { None };
        let (segment, extent) = match index {
            Some(index) => self.cut(header, data, index)?,
            None => self.rebuild(header, data, true)?,
        };
        if extent.end_seq == first {
            drop(segment);
            self.give_up(first, Found { data: true, index: true }, lease)?;
            return Ok(None);
        }
        segment.close(extent);
        segment.set_trust(Trust::Good);
        Ok(Some(segment))
    }

    /// Removes a last segment that was made, but never written to.
    fn give_up_if_empty(
        &self,
        first: RelaySeq,
        files: Found,
        lease: Option<Lease>,
    ) -> Result<bool, LogError> {
        let length = |there, kind| {
            if there { length(&path(self.dir, first, kind)) } else { Ok(0) }
        };
        let empty = length(files.data, FileKind::Data)? <= HEADER_BYTES
            && length(files.index, FileKind::Index)? <= HEADER_BYTES;
        if empty {
            self.give_up(first, files, lease)?;
        }
        Ok(empty)
    }

    /// Removes a last segment which has no whole event.
    fn give_up(&self, first: RelaySeq, files: Found, lease: Option<Lease>) -> Result<(), LogError> {
        let failed = |error| LogError::io("remove the empty segment in", self.dir, error);
        if let Some(lease) = lease.filter(|lease| lease.active == Some(first)) {
            Lease { active: None, ..lease }.write(self.storage, self.dir).map_err(failed)?;
        }
        for (there, kind) in [(files.data, FileKind::Data), (files.index, FileKind::Index)] {
            if there {
                self.storage.remove(&path(self.dir, first, kind)).map_err(failed)?;
            }
        }
        self.storage.sync_dir(self.dir).map_err(failed)
    }

    /// Checks every event; cuts off what is torn; makes the rest durable.
    fn cut(
        &self,
        header: Header,
        data: Handle,
        index: Handle,
    ) -> Result<(Segment, Extent), LogError> {
        let failed = |error| LogError::io("read", &data.path, error);
        let count = index.len().map_err(failed)?.saturating_sub(HEADER_BYTES) / RECORD_BYTES;
        let synced = read_checkpoint(&index).map_err(failed)?;
        let segment = Segment::new(header, data.clone(), index.clone(), Trust::Unknown);
        let scan = scan(&segment, count).map_err(failed)?;
        let extent = scan.extent;
        let good = extent.end_seq.0 - header.first_seq.0;
        if good < synced {
            // A crash can't have done this: these events were on disk.
            let what = scan.fault.unwrap_or("records are missing in the index");
            return Err(damaged(&data, extent.end_seq, what));
        }
        let (data_end, index_end) =
            (segment.data_offset(extent.end_pos), segment.record_offset(extent.end_seq));
        let mut cut = 0;
        let (data_from, index_from) = match segment.record(RelaySeq(header.first_seq.0 + synced)) {
            Ok(first) if synced < good => {
                let pos = header.base.plus(u64::from(first.offset));
                (segment.data_offset(pos), segment.record_offset(first.event.seq))
            }
            _ => (data_end, index_end),
        };
        if synced == 0 {
            // With a checkpoint they are on disk; on a full disk nothing is written that need not be.
            segment.write_headers(self.storage).map_err(failed)?;
        }
        for (handle, from, end) in [(&data, data_from, data_end), (&index, index_from, index_end)] {
            let failed = |error| LogError::io("cut", &handle.path, error);
            let len = handle.len().map_err(failed)?;
            if len != end {
                cut += len.saturating_sub(end);
                self.storage.set_len(handle, end).map_err(failed)?;
            }
            self.write_again(handle, from, end).map_err(failed)?;
            self.storage.sync(handle).map_err(failed)?;
        }
        segment.add_gaps(&scan.gaps);
        erase::blank_events(self.storage, &segment, &scan.unblanked).map_err(failed)?;
        if cut > 0 {
            let (path, why) = (data.path.display(), scan.fault.unwrap_or("bytes without a record"));
            tracing::warn!(%path, end_seq = %extent.end_seq, bytes = cut, why, "cut off a torn tail");
        }
        Ok((segment, extent))
    }

    /// Writes what was not synced for certain once more. If a sync failed before the crash, the
    /// kernel may show bytes that never reached the disk, and count them as clean.
    fn write_again(&self, handle: &Handle, mut from: u64, end: u64) -> std::io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        while from < end {
            let len = (end - from).min(buffer.len() as u64) as usize;
            handle.read_exact_at(&mut buffer[..len], from)?;
            write_all_at(self.storage, handle, &buffer[..len], from)?;
            from += len as u64;
        }
        Ok(())
    }

    fn rebuild(
        &self,
        header: Header,
        data: Handle,
        torn: bool,
    ) -> Result<(Segment, Extent), LogError> {
        let path = path(self.dir, header.first_seq, FileKind::Index);
        tracing::warn!(path = %path.display(), "index missing or damaged: making it anew");
        let rebuilt = rebuild(self.storage, header, &data, &path)
            .map_err(|error| LogError::io("rebuild", &path, error))?;
        let failed = |error| LogError::io("cut", &data.path, error);
        let segment = Segment::new(header, data.clone(), rebuilt.index, Trust::Good);
        let end = segment.data_offset(rebuilt.extent.end_pos);
        if end != data.len().map_err(failed)? {
            if !torn {
                return Err(damaged(&data, rebuilt.extent.end_seq, "not a frame of that number"));
            }
            self.storage.set_len(&data, end).map_err(failed)?;
        }
        if torn {
            segment.write_headers(self.storage).map_err(failed)?;
            self.write_again(&data, HEADER_BYTES, end).map_err(failed)?;
        }
        self.storage.sync(&data).map_err(failed)?;
        segment.add_gaps(&rebuilt.gaps);
        erase::blank_events(self.storage, &segment, &rebuilt.unblanked).map_err(failed)?;
        Ok((segment, rebuilt.extent))
    }

    fn open(&self, path: &Path) -> Result<Handle, LogError> {
        self.storage.open(path).map_err(|error| LogError::io("open", path, error))
    }

    /// The index file, if it belongs to the data file.
    fn open_index(&self, data: Header) -> Result<Option<Handle>, LogError> {
        let index = self.open(&path(self.dir, data.first_seq, FileKind::Index))?;
        match read_header(&index, FileKind::Index, data.first_seq) {
            Ok(header) if header == data => Ok(Some(index)),
            Err(error @ LogError::Newer { .. }) => Err(error),
            _ => Ok(None),
        }
    }
}

/// From which segment on files may be torn; the last one, if the lease does not say.
fn torn_from(found: &BTreeMap<RelaySeq, Found>, lease: Option<Lease>) -> RelaySeq {
    let said = lease.map(|lease| lease.torn_from).filter(|seq| seq.0 > 0);
    said.or_else(|| found.keys().next_back().copied()).unwrap_or(RelaySeq(0))
}

fn length(path: &Path) -> Result<u64, LogError> {
    Ok(fs::metadata(path).map_err(|error| LogError::io("look at", path, error))?.len())
}

fn damaged(handle: &Handle, seq: RelaySeq, what: &'static str) -> LogError {
    LogError::Damaged { path: handle.path.to_path_buf(), seq: seq.0, what }
}

pub(super) fn read_header(
    handle: &Handle,
    kind: FileKind,
    first: RelaySeq,
) -> Result<Header, LogError> {
    match read_any_header(handle, kind)? {
        Some(header) if header.first_seq == first => Ok(header),
        _ => Err(damaged(handle, first, "no valid file header")),
    }
}

/// `None` if the file does not start with a valid header.
pub(super) fn read_any_header(handle: &Handle, kind: FileKind) -> Result<Option<Header>, LogError> {
    let mut bytes = [0; Header::BYTES];
    match handle.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
            return Err(LogError::io("read", &handle.path, error));
        }
        _ => {}
    }
    match Header::decode(kind, &bytes) {
        Ok(header) => Ok(Some(header)),
        Err(HeaderFault::Newer(found)) => {
            Err(LogError::Newer { path: handle.path.to_path_buf(), found })
        }
        Err(HeaderFault::Damaged) => Ok(None),
    }
}

/// How many events of the segment were synced for certain.
pub(super) fn read_checkpoint(index: &Handle) -> std::io::Result<u64> {
    let mut count = 0;
    for offset in CHECKPOINT_OFFSETS {
        let mut bytes = [0; CHECKPOINT_BYTES];
        match index.read_exact_at(&mut bytes, offset) {
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(error),
            _ => count = count.max(decode_checkpoint(&bytes).unwrap_or(0)),
        }
    }
    Ok(count)
}

/// A closed segment's extent from its first and last record, if the files' lengths agree with them.
fn quick_extent(segment: &Segment) -> Result<Option<Extent>, LogError> {
    let failed = |error| LogError::io("read", &segment.index.path, error);
    let (data_len, index_len) =
        (segment.data.len().map_err(failed)?, segment.index.len().map_err(failed)?);
    let records = index_len.saturating_sub(HEADER_BYTES);
    if records == 0 || records % RECORD_BYTES != 0 {
        return Ok(None);
    }
    let end_seq = RelaySeq(segment.first_seq.0 + records / RECORD_BYTES);
    let (first, last) =
        (segment.record(segment.first_seq), segment.record(RelaySeq(end_seq.0 - 1)));
    let (Ok(first), Ok(last)) = (first, last) else { return Ok(None) };
    let end_pos = segment.base.plus(last.end());
    if segment.data_offset(end_pos) != data_len {
        return Ok(None);
    }
    Ok(Some(Extent {
        end_seq,
        end_pos,
        oldest_micros: first.event.time_micros,
        newest_micros: last.event.time_micros,
    }))
}
