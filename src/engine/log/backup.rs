//! Copies of a log: taken beside a running relay, and put back.
//!
//! Segments that are closed are linked where that is possible: they do not change any more, but for
//! events of accounts that are taken down later, which are then erased in the copy, too. The newest is
//! copied: first its index, then its data, so that every record has its frame.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use ports::RelaySeq;

use super::{
    LogError, erase,
    lease::Lease,
    storage::{Disk, Storage},
    tools::{self, LogFiles, Names},
};

/// How often the newest segment is copied, if what came out was not whole.
const TRIES: usize = 5;

/// What a copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub segments: u64,
    /// So many of them share their bytes with the log.
    pub linked: u64,
    /// Every number that was given out before the copy was complete is below this or equal.
    pub leased: RelaySeq,
}

/// Copies the log in `from`, whether a relay is running on it or not, to a new directory. The database
/// has to be copied before: it may be behind its log, not ahead of it.
///
/// # Errors
/// If a file can't be read or written, `to` holds a log, or the log is damaged.
pub fn backup(from: &Path, to: &Path) -> Result<Copied, LogError> {
    make_empty(to)?;
    // Older than the segments: then erasures are done once more, which does no harm.
    erase::copy_noted(from, to).map_err(|error| LogError::io("copy to", to, error))?;
    let names = tools::list(from)?;
    let mut copied = Copied { segments: 0, linked: 0, leased: RelaySeq(0) };
    let newest = names.keys().next_back().copied();
    for (&first, files) in &names {
        let linked = if Some(first) == newest {
            copy_newest(first, files, to)?;
            false
        } else {
            match keep(first, files, to) {
                // The window has moved on meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound && copied.segments == 0 => {
                    continue;
                }
                result => result.map_err(|error| LogError::io("copy to", to, error))?,
            }
        };
        copied.segments += 1;
        copied.linked += u64::from(linked);
    }
    let lease = read_lease(from)?;
    copied.leased = lease.leased.max(newest.unwrap_or(RelaySeq(0)));
    let torn_from = newest.unwrap_or(RelaySeq(copied.leased.0 + 1));
    let lease = Lease { leased: copied.leased, active: newest, torn_from, clean: None };
    lease.write(&Disk, to).map_err(|error| LogError::io("write the lease in", to, error))?;
    Ok(copied)
}

/// Puts a copy's events into a directory that holds no log yet. A relay refuses it before
/// [`restore_lease`].
///
/// # Errors
/// If a file can't be read or written, or `to` holds a log.
pub fn restore_events(from: &Path, to: &Path) -> Result<(), LogError> {
    read_lease(from)?;
    make_empty(to)?;
    let failed = |error| LogError::io("copy to", to, error);
    fs::write(mark(to), b"").map_err(failed)?;
    Disk.sync_dir(to).map_err(failed)?;
    for (_, files) in tools::list(from)? {
        for (_, file) in files.in_order() {
            let name = file.file_name().unwrap_or_default();
            copy_synced(file, &to.join(name)).map_err(failed)?;
        }
    }
    erase::copy_noted(from, to).map_err(failed)?;
    Disk.sync_dir(to).map_err(failed)
}

/// The last step. Numbering will go on `margin` above all that had been given out when the copy was made;
/// gives the number before the next.
///
/// # Errors
/// If a file can't be read or written.
pub fn restore_lease(from: &Path, to: &Path, margin: u64) -> Result<RelaySeq, LogError> {
    let lease = read_lease(from)?;
    let leased = RelaySeq(lease.leased.0.saturating_add(margin));
    let lease = Lease { leased, ..lease };
    lease.write(&Disk, to).map_err(|error| LogError::io("write the lease in", to, error))?;
    fs::remove_file(mark(to))
        .and_then(|()| Disk.sync_dir(to))
        .map_err(|error| LogError::io("finish the restore in", to, error))?;
    Ok(leased)
}

/// There while a log is being put back.
fn mark(dir: &Path) -> PathBuf {
    dir.join("restoring")
}

/// Refuses what a restore has left that did not come to its end.
pub(super) fn check_restored(dir: &Path) -> Result<(), LogError> {
    if mark(dir).exists() {
        return Err(LogError::HalfRestored { path: dir.into() });
    }
    Ok(())
}

fn read_lease(from: &Path) -> Result<Lease, LogError> {
    Lease::read(from)?
        .ok_or_else(|| LogError::Lease { path: super::lease::path(from), what: "missing" })
}

fn make_empty(to: &Path) -> Result<(), LogError> {
    fs::create_dir_all(to).map_err(|error| LogError::io("create", to, error))?;
    let mut entries = fs::read_dir(to).map_err(|error| LogError::io("list", to, error))?;
    if entries.next().is_some() {
        let error = io::Error::new(ErrorKind::AlreadyExists, "it is not empty");
        return Err(LogError::io("copy to", to, error));
    }
    Ok(())
}

/// The newest segment is being written to, and events in it may be erased meanwhile: it is copied until
/// the copy is whole.
fn copy_newest(first: RelaySeq, files: &Names, to: &Path) -> Result<(), LogError> {
    let failed = |error| LogError::io("copy to", to, error);
    for tries in 1.. {
        for (kind, file) in files.in_order() {
            copy_synced(file, &super::segment::path(to, first, kind)).map_err(failed)?;
        }
        match LogFiles::open(to)?.fault_of(first)? {
            Some(fault) if !fault.torn && tries < TRIES => {}
            Some(fault) if !fault.torn => {
                let path = super::segment::path(to, first, super::format::FileKind::Data);
                let what = "the newest segment is damaged, or changes faster than it can be copied";
                return Err(LogError::Damaged { path, seq: fault.seq.0, what });
            }
            _ => break,
        }
    }
    Ok(())
}

/// Links the two files of a closed segment, or copies them; whether they are linked.
fn keep(first: RelaySeq, files: &Names, to: &Path) -> io::Result<bool> {
    let mut linked = true;
    for (kind, file) in files.in_order() {
        let target = super::segment::path(to, first, kind);
        match fs::hard_link(file, &target) {
            // The relay may not have come to it yet.
            Ok(()) => fs::File::open(&target)?.sync_all()?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Both or none.
                for (kind, _) in files.in_order() {
                    let _ = fs::remove_file(super::segment::path(to, first, kind));
                }
                return Err(error);
            }
            // Another file system, or one without links.
            Err(_) => {
                copy_synced(file, &target)?;
                linked = false;
            }
        }
    }
    Ok(linked)
}

fn copy_synced(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::File::open(to)?.sync_all()
}
