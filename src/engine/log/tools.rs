//! Looking at a log's files from outside, read-only: what is there, whether it is whole, what is in
//! it. Works on a stopped relay's log and beside a running one, of which it sees what was written when
//! it looked. Nothing here trusts a byte that it has not checked.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use ports::{LogRecord, RelaySeq};

use super::{
    LogConfig, LogError, LogPos,
    erase::Step,
    format::{FileKind, HEADER_BYTES, RECORD_BYTES, Record, parse_ws_header},
    lease::Lease,
    recovery::{self, read_any_header, read_checkpoint, read_header},
    scan::{Scan, scan},
    segment::{SPARE_NAMES, Segment, Trust, parse_name, path},
    storage::{Disk, Handle},
};

/// How often a segment is looked at again, if a relay is at work on it and something seems wrong.
const LOOKS: usize = 5;

/// A log's directory, looked at.
#[derive(Debug)]
pub struct LogFiles {
    dir: PathBuf,
    running: bool,
    lease: Option<Lease>,
    /// Why there is none, if it is not simply missing.
    lease_fault: Option<String>,
    names: BTreeMap<RelaySeq, Names>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) data: Option<PathBuf>,
    pub(super) index: Option<PathBuf>,
}

impl Names {
    /// The index, then the data.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (FileKind, &Path)> {
        let files = [(FileKind::Index, &self.index), (FileKind::Data, &self.data)];
        files.into_iter().filter_map(|(kind, file)| Some((kind, file.as_deref()?)))
    }
}

/// A segment, and where it starts and ends if it was read whole.
type Looked = (SegmentInfo, Option<(LogPos, LogPos)>);

/// What the lease says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// After an unclean stop numbering goes on behind this number.
    pub leased: RelaySeq,
    /// After a clean stop: the next number.
    pub clean_next: Option<RelaySeq>,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    pub path: PathBuf,
    pub first_seq: RelaySeq,
    /// As many as the index has; after a check: as many as are whole.
    pub events: u64,
    /// So many of them were erased; known after a check.
    pub erased: u64,
    pub data_bytes: u64,
    pub index_bytes: u64,
    /// Of the first and the last event, Unix microseconds; zero without events.
    pub oldest_micros: u64,
    pub newest_micros: u64,
    pub fault: Option<Fault>,
}

/// What is wrong with a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The first event that is not whole.
    pub seq: RelaySeq,
    pub what: String,
    /// A crash or a running relay leaves this, and the next start repairs it.
    pub torn: bool,
}

impl LogFiles {
    /// Looks at a directory.
    ///
    /// # Errors
    /// If it can't be read, is no log, or is of a newer version.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        let names = list(dir)?;
        let (lease, lease_fault) = match Lease::read(dir) {
            Ok(None) if !names.is_empty() => (None, Some("it is missing".to_owned())),
            Ok(lease) => (lease, None),
            Err(error @ LogError::Lease { .. }) => (None, Some(error.to_string())),
            Err(error) => return Err(error),
        };
        Ok(Self { dir: dir.into(), running: is_locked(dir)?, lease, lease_fault, names })
    }

    /// A relay has the log open.
    pub fn is_running(&self) -> bool {
        self.running
    }

    pub fn lease(&self) -> Option<LeaseInfo> {
        self.lease.map(|lease| LeaseInfo {
            leased: lease.leased,
            clean_next: lease.clean.map(|clean| clean.next),
        })
    }

    /// What is wrong with one segment, as far as its own files tell.
    pub(super) fn fault_of(&self, first: RelaySeq) -> Result<Option<Fault>, LogError> {
        let Some(names) = self.names.get(&first) else { return Ok(None) };
        let Some((info, _)) = self.look(first, names, true)? else { return Ok(None) };
        Ok(info.fault)
    }

    /// What is there, oldest first, from the files' lengths and ends.
    ///
    /// # Errors
    /// If a file can't be read.
    pub fn segments(&self) -> Result<Vec<SegmentInfo>, LogError> {
        let mut found = Vec::new();
        for (&first, names) in &self.names {
            found.extend(self.look(first, names, false)?.map(|(info, _)| info));
        }
        Ok(found)
    }

    /// Reads everything and holds it against its checksums; `each` gets every segment as it is done.
    /// Whether all segments are well, but for what a crash may leave, and what is wrong with the lease
    /// or between it and the segments.
    ///
    /// # Errors
    /// If a file can't be read.
    pub fn verify(
        &self,
        mut each: impl FnMut(&SegmentInfo),
    ) -> Result<(bool, Option<String>), LogError> {
        let mut whole = true;
        let mut before: Option<(RelaySeq, LogPos)> = None;
        for (&first, names) in &self.names {
            let Some((mut info, ends)) = self.look_calmly(first, names)? else { continue };
            if let (Some((base, _)), Some((seq, end))) = (ends, before)
                && info.fault.is_none()
                && base != end
            {
                let what = "does not start where the segment before ends: one is missing".into();
                info.fault = Some(Fault { seq, what, torn: false });
            }
            // Behind a fault nobody knows where the next segment should start.
            before = ends
                .filter(|_| info.fault.is_none())
                .map(|(_, end)| (RelaySeq(first.0 + info.events), end));
            whole &= info.fault.as_ref().is_none_or(|fault| fault.torn);
            each(&info);
        }
        Ok((whole, self.lease_fault(before)))
    }

    /// What is wrong with the lease, given the number and the place behind the newest event.
    fn lease_fault(&self, end: Option<(RelaySeq, LogPos)>) -> Option<String> {
        let Some(lease) = self.lease else { return self.lease_fault.clone() };
        if let Some(active) = lease.active.filter(|active| !self.names.contains_key(active)) {
            let path = path(&self.dir, active, FileKind::Data);
            return Some(format!("it insists on {}, which is missing", path.display()));
        }
        let (clean, (end_seq, end_pos)) = (lease.clean?, end?);
        if (clean.end_seq, clean.end_pos) == (end_seq, end_pos) {
            return None;
        }
        let (stopped, found) = (clean.end_seq.0, end_seq.0);
        Some(format!("a clean stop was made at seq {stopped}, but the segments end at {found}"))
    }

    /// Looks at one segment, again if a relay at work has moved its files meanwhile.
    fn look_calmly(&self, first: RelaySeq, names: &Names) -> Result<Option<Looked>, LogError> {
        let mut looked = self.look(first, names, true)?;
        for _ in 0..LOOKS {
            let faulty = looked.as_ref().is_some_and(|(info, _)| info.fault.is_some());
            if !self.running || (looked.is_some() && !faulty) {
                break;
            }
            let Some(names) = list(&self.dir)?.remove(&first) else { return Ok(None) };
            looked = self.look(first, &names, true)?;
        }
        Ok(looked)
    }

    /// Gives every event from `from` on, with its message (event header and body; none if it was
    /// erased), until `each` says `false`.
    ///
    /// # Errors
    /// If a file can't be read, or an event is damaged: which is named.
    pub fn dump(
        &self,
        from: RelaySeq,
        mut each: impl FnMut(&LogRecord, Option<&[u8]>) -> bool,
    ) -> Result<(), LogError> {
        for (position, (&first, names)) in self.names.iter().enumerate() {
            let next = self.names.keys().nth(position + 1);
            if next.is_some_and(|next| *next <= from) {
                continue;
            }
            let Some(segment) = open_segment(first, names)? else { continue };
            let failed = |error| LogError::io("read", &segment.index.path, error);
            let count = record_count(&segment).map_err(failed)?;
            for seq in from.max(first).0..first.0 + count {
                let (record, frame) = match read_event(&segment, RelaySeq(seq)) {
                    Ok(event) => event,
                    // The end of what a crash, or a relay at work, has left.
                    Err(_) if self.may_be_torn(first) => return Ok(()),
                    Err(error) => return Err(error),
                };
                let used = parse_ws_header(&frame).map_or(0, |(used, _)| used);
                if !each(&record.event, (!record.erased).then_some(&frame[used..])) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Looks at one segment; `None` if it was removed meanwhile.
    fn look(
        &self,
        first: RelaySeq,
        names: &Names,
        whole: bool,
    ) -> Result<Option<Looked>, LogError> {
        let mut info = SegmentInfo {
            path: names.data.clone().unwrap_or_else(|| path(&self.dir, first, FileKind::Data)),
            first_seq: first,
            events: 0,
            erased: 0,
            data_bytes: length(names.data.as_deref()),
            index_bytes: length(names.index.as_deref()),
            oldest_micros: 0,
            newest_micros: 0,
            fault: None,
        };
        let segment = match open_segment(first, names) {
            Ok(Some(segment)) => segment,
            Ok(None) => return Ok(None),
            Err(error @ (LogError::Damaged { .. } | LogError::Missing { .. })) => {
                let what = error.to_string();
                info.fault = Some(Fault { seq: first, what, torn: false });
                return Ok(Some((info, None)));
            }
            Err(error) => return Err(error),
        };
        let failed = |error| LogError::io("read", &segment.data.path, error);
        if whole {
            let scan = check(&segment).map_err(failed)?;
            fill(&mut info, &segment, &scan, self.may_be_torn(first)).map_err(failed)?;
            // A relay at work has not finished its last write; it is not torn.
            info.fault = info.fault.filter(|fault| !(self.running && fault.torn));
            return Ok(Some((info, Some((segment.base, scan.extent.end_pos)))));
        }
        info.events = record_count(&segment).map_err(failed)?;
        if let Some(last) = info.events.checked_sub(1) {
            let time = |seq| segment.record(RelaySeq(seq)).map(|record| record.event.time_micros);
            info.oldest_micros = time(first.0).unwrap_or(0);
            info.newest_micros = time(first.0 + last).unwrap_or(0);
        }
        Ok(Some((info, None)))
    }

    /// Whether a crash, or a relay at work, can leave this segment without its end.
    fn may_be_torn(&self, first: RelaySeq) -> bool {
        let last = self.names.keys().next_back() == Some(&first);
        match self.lease {
            Some(lease) if lease.clean.is_some() => false,
            Some(lease) if lease.torn_from.0 > 0 => first >= lease.torn_from,
            _ => last,
        }
    }
}

/// Repairs what a start of the relay would repair, and leaves the log as after a clean stop. Gives
/// the next number.
///
/// # Errors
/// If a relay is running, or the log is damaged beyond what a crash can do.
pub fn repair(dir: &Path) -> Result<RelaySeq, LogError> {
    let writer = recovery::open(LogConfig::new(dir), Arc::new(Disk))?;
    let next = writer.next_seq();
    while writer.reader().shared.erase().map_err(|error| LogError::io("erase in", dir, error))?
        != Step::Idle
    {}
    writer.close().map_err(|error| {
        LogError::io("close the log in", dir, std::io::Error::other(error.to_string()))
    })?;
    Ok(next)
}

pub(super) fn list(dir: &Path) -> Result<BTreeMap<RelaySeq, Names>, LogError> {
    let failed = |error| LogError::io("list", dir, error);
    let mut names = BTreeMap::<RelaySeq, Names>::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let known = parse_name(name).or_else(|| in_use_spare(&file, name));
        if let Some((first, kind)) = known {
            let found = names.entry(first).or_default();
            match kind {
                FileKind::Data => found.data = Some(file),
                FileKind::Index => found.index = Some(file),
            }
        }
    }
    Ok(names)
}

/// A spare file that is in use already says so by its header.
fn in_use_spare(file: &Path, name: &str) -> Option<(RelaySeq, FileKind)> {
    let (kind, _) = SPARE_NAMES.into_iter().find(|(_, spare)| *spare == name)?;
    let handle = open_file(file).ok()??;
    let header = read_any_header(&handle, kind).ok()??;
    Some((header.first_seq, kind))
}

fn is_locked(dir: &Path) -> Result<bool, LogError> {
    let path = dir.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(LogError::io("open", &path, error)),
    };
    // Given back when the file is closed, at the end of this function.
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(LogError::io("lock", &path, error)),
    }
}

fn length(path: Option<&Path>) -> u64 {
    path.and_then(|path| fs::metadata(path).ok()).map_or(0, |metadata| metadata.len())
}

/// `None` if the file is gone.
fn open_file(path: &Path) -> Result<Option<Handle>, LogError> {
    match File::open(path) {
        Ok(file) => Ok(Some(Handle { file: Arc::new(file), path: path.into() })),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io("open", path, error)),
    }
}

/// `None` if the segment was removed since the directory was listed.
fn open_segment(first: RelaySeq, names: &Names) -> Result<Option<Segment>, LogError> {
    let (data, index) = match (&names.data, &names.index) {
        (Some(data), Some(index)) => (data, index),
        (Some(one), None) => return Err(LogError::Missing { path: one.with_extension("index") }),
        (None, other) => {
            let path = other.as_deref().unwrap_or(Path::new(".")).with_extension("log");
            return Err(LogError::Missing { path });
        }
    };
    let (Some(data), Some(index)) = (open_file(data)?, open_file(index)?) else {
        return Ok(None);
    };
    let header = read_header(&data, FileKind::Data, first)?;
    if read_header(&index, FileKind::Index, first)? != header {
        let what = "the index belongs to another data file";
        return Err(LogError::Damaged { path: index.path.to_path_buf(), seq: first.0, what });
    }
    Ok(Some(Segment::new(header, data, index, Trust::Unknown)))
}

fn record_count(segment: &Segment) -> std::io::Result<u64> {
    Ok(segment.index.len()?.saturating_sub(HEADER_BYTES) / RECORD_BYTES)
}

fn check(segment: &Segment) -> std::io::Result<Scan> {
    scan(segment, record_count(segment)?)
}

/// Puts down what a check has found.
fn fill(info: &mut SegmentInfo, segment: &Segment, scan: &Scan, torn: bool) -> std::io::Result<()> {
    info.events = scan.extent.end_seq.0 - segment.first_seq.0;
    info.erased = scan.gaps.iter().count() as u64;
    info.oldest_micros = scan.extent.oldest_micros;
    info.newest_micros = scan.extent.newest_micros;
    let fault = scan.fault.map(str::to_owned).or_else(|| {
        let surplus = info.data_bytes.saturating_sub(segment.data_offset(scan.extent.end_pos));
        let partial = info.index_bytes.saturating_sub(HEADER_BYTES) % RECORD_BYTES;
        (surplus + partial > 0).then(|| format!("{surplus} bytes without a record"))
    });
    // What is below a checkpoint was on disk: no crash takes that away.
    let synced = read_checkpoint(&segment.index)?;
    let fault = fault.or_else(|| (info.events < synced).then(|| "records are missing".into()));
    info.fault = fault.map(|what| Fault {
        seq: scan.extent.end_seq,
        what,
        torn: torn && info.events >= synced,
    });
    if let (None, Some(event)) = (&info.fault, scan.unblanked.first()) {
        // Readers step over it all the same.
        let what = "an erased event is not overwritten yet".into();
        info.fault = Some(Fault { seq: event.event.seq, what, torn: true });
    }
    Ok(())
}

fn read_event(segment: &Segment, seq: RelaySeq) -> Result<(Record, Vec<u8>), LogError> {
    let failed = |error| LogError::io("read", &segment.index.path, error);
    let damaged =
        |what| LogError::Damaged { path: segment.data.path.to_path_buf(), seq: seq.0, what };
    let mut bytes = [0; RECORD_BYTES as usize];
    segment.index.read_exact_at(&mut bytes, segment.record_offset(seq)).map_err(failed)?;
    let record = Record::decode(&bytes)
        .filter(|record| record.event.seq == seq)
        .ok_or_else(|| damaged("wrong checksum of a record"))?;
    let offset = HEADER_BYTES + u64::from(record.offset);
    let len = segment.data.len().map_err(failed)?;
    if offset + u64::from(record.len) > len {
        return Err(damaged("a frame is cut off"));
    }
    let mut frame = vec![0; record.len as usize];
    segment.data.read_exact_at(&mut frame, offset).map_err(failed)?;
    if !record.erased && crc32c::crc32c(&frame) != record.frame_crc {
        return Err(damaged("wrong checksum of a frame"));
    }
    Ok((record, frame))
}
