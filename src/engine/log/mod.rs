//! The event log: numbered events on disk and in memory, byte for byte as consumers get them.
//!
//! - *Runs on*: the sequencer's thread writes, and waits for no sync; any thread reads; `log-sync`
//!   syncs to disk and renews the lease; `log-keeper` removes what is too old, makes the next segment's
//!   files, and checks files from earlier runs before they are read; `log-eraser` overwrites the older
//!   events of accounts that were taken down.
//! - *Takes*: [`Entry`]s, which get their `seq` here.
//! - *Gives*: slices of the stream ([`LogView`]) and records of the index ([`ports::LogTail`]).
//! - *Limits*: a fixed number of chunks in memory; segments by size; the window by age and bytes.
//! - *Invariants*: a number is given out once, over any crash. Nothing is shown to readers before it
//!   is written; nothing counts as synced before the disk has said so, for it and all before it. Only
//!   segments from `torn_from` in the lease on can be torn. Bytes of an earlier run are not served before their checksums were checked.
//!
//! The files are described in `FORMAT.md`. All writes go through [`storage::Storage`], so that the
//! simulation can fail, lose and reorder them. A failed write takes nothing back and loses nothing:
//! the batch stays staged, the caller tries again, and the same bytes go to the same place.

pub mod backup;
mod erase;
#[cfg(test)]
mod erase_tests;
mod file_slice;
mod format;
mod keeper;
mod lease;
mod memory;
mod reader;
mod rebuild;
mod recovery;
mod scan;
mod segment;
mod shared;
mod storage;
mod sync;
mod tail;
pub mod tools;
mod writer;

#[cfg(test)]
mod ahead_tests;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use file_slice::FileSlice;
pub use format::{LogPos, message_span};
pub use memory::MemorySlice;
pub use reader::{Locate, LogReader, LogView, Slice};
pub use writer::{AppendError, Entry, LogWriter};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Made if it is not there. One process at a time.
    pub dir: PathBuf,
    /// A segment is closed before it would grow beyond this.
    pub segment_bytes_max: u64,
    pub chunk_bytes: usize,
    /// Consumers further behind than this many chunks are served from the files.
    pub chunks_in_memory: usize,
    /// How long an event may be visible before it is synced to disk. Zero: every batch is synced
    /// before it is shown.
    pub sync_interval: Duration,
    /// Events older than this may go.
    pub replay_window: Duration,
    /// The log's files may not be larger than this together.
    pub replay_bytes: Option<u64>,
    /// No number below this is given out.
    pub initial_seq: u64,
    /// Segments stay, whatever the window, until who follows the log has released their events.
    pub followed: bool,
    /// Somebody else knows that numbers up to this one were given out. If the log does not, it was lost,
    /// or replaced by an older one.
    pub known_seq: u64,
    /// How many numbers are reserved ahead; an unclean stop skips at most so many.
    pub lease_size: u64,
}

impl LogConfig {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes_max: 256 << 20,
            // A slow consumer holds on to the chunk that it is reading: small ones, then.
            chunk_bytes: 1 << 20,
            chunks_in_memory: 64,
            sync_interval: Duration::from_millis(100),
            replay_window: Duration::from_hours(72),
            replay_bytes: None,
            initial_seq: 1,
            followed: false,
            known_seq: 0,
            // Renewed at half, so a disk may take long to say that it has the next one.
            lease_size: 400_000,
        }
    }
}

/// Why the log can't be opened. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{op} {}: {source}", path.display())]
    Io { op: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the restore into {} did not come to its end: empty the data directory and restore again",
        path.display()
    )]
    HalfRestored { path: PathBuf },
    #[error("{} is in use by another process: stop it, or choose another data directory", path.display())]
    Locked { path: PathBuf },
    #[error(
        "{} has format version {found}; this program reads up to {}: use the newer program",
        path.display(),
        format::VERSION
    )]
    Newer { path: PathBuf, found: u32 },
    #[error(
        "{} is {what}, so it is not known which numbers were given out; restore it, or remove it and \
         start with an initial seq above every number that this relay ever gave out",
        path.display()
    )]
    Lease { path: PathBuf, what: &'static str },
    #[error(
        "{} is damaged at seq {seq} ({what}); restore it from a backup, or give up its events and \
         all older ones: remove this segment (.log and .index) and every older one, and, if it is \
         the newest, also `lease`, and start with an initial seq above every number ever given out",
        path.display()
    )]
    Damaged { path: PathBuf, seq: u64, what: &'static str },
    #[error(
        "{} is missing: the log has a gap there; restore it from a backup, or give up the events \
         before the gap: remove every older segment, and, if it was the newest, also `lease`, and \
         start with an initial seq above every number ever given out",
        path.display()
    )]
    Missing { path: PathBuf },
}

impl LogError {
    fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { op, path: path.into(), source }
    }
}

#[cfg(test)]
pub(crate) use faults::{Fault, FaultyDisk};
#[cfg(test)]
pub(crate) use tests::Sample;

/// Opens the log, repairing what a crash has left, and starts its two threads.
///
/// # Errors
/// If the directory can't be read or written, is in use, or is damaged beyond what a crash can do.
pub fn open(config: LogConfig) -> Result<(LogWriter, LogReader), LogError> {
    open_on(config, Arc::new(storage::Disk))
}

fn open_on(
    config: LogConfig,
    storage: Arc<dyn storage::Storage>,
) -> Result<(LogWriter, LogReader), LogError> {
    let mut writer = recovery::open(config, storage)?;
    writer.start_threads()?;
    let reader = writer.reader();
    Ok((writer, reader))
}

#[cfg(test)]
pub(crate) fn open_faulty(config: LogConfig, disk: &Arc<FaultyDisk>) -> (LogWriter, LogReader) {
    open_on(config, Arc::<FaultyDisk>::clone(disk))
        .expect("the disk is sound when the log is opened")
}
