//! The event log as the control plane sees it: records of the index, never frames.

use std::{io, sync::Arc, time::Duration};

use crate::{
    AccountId, EventKind, HostId, HostSeq, LocalStatus, RelaySeq, RepoHead, UpstreamStatus,
};

/// One event in the log: all that SQL needs to hold of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRecord {
    pub seq: RelaySeq,
    pub kind: EventKind,
    pub account: AccountId,
    /// The account's host from this event on; [`HostId::RELAY`] if the relay made the event.
    pub host: HostId,
    pub host_seq: HostSeq,
    /// Unix microseconds at which the relay numbered the event.
    pub time_micros: u64,
    /// The account's statuses after this event.
    pub upstream: UpstreamStatus,
    pub local: LocalStatus,
    /// For #commit and #sync: the account's head after this event.
    pub head: Option<RepoHead>,
}

/// Where the log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// The oldest event still there; `None` while the log is empty.
    pub oldest: Option<RelaySeq>,
    /// The newest event that consumers can get.
    pub newest: RelaySeq,
    /// The newest event that survives power loss.
    pub synced: RelaySeq,
    /// Bytes on disk, frames and index.
    pub bytes: u64,
}

/// Reads the log's index. Implemented by the engine; used to keep SQL in step with the log.
pub trait LogTail: Send {
    fn bounds(&self) -> LogBounds;

    /// Appends to `records` at most `count` synced records with a number above `after`, in order.
    fn read_after(
        &mut self,
        after: RelaySeq,
        count: usize,
        records: &mut Vec<LogRecord>,
    ) -> io::Result<()>;

    /// The DID in the frame of a record (reads the frame).
    fn did_of(&mut self, seq: RelaySeq) -> io::Result<String>;

    /// Records up to this one are needed no more, even after a power loss. Those above it stay in the
    /// log, whatever its window.
    fn release(&mut self, through: RelaySeq);
}

/// How much of the log is kept: what is older, or beyond the bytes, goes in whole segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogWindow {
    pub age: Duration,
    /// Of all files together; `None`: no limit.
    pub bytes: Option<u64>,
}

/// How the log is with its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHealth {
    /// Events are taken. While it is `false` hosts are made to wait, and everything is served that
    /// was taken before; it becomes `true` by itself once the disk takes bytes again.
    pub writable: bool,
    /// Why it is not writable.
    pub why: Option<Arc<String>>,
    /// Room that the file system has left for the relay; `None` if it does not tell.
    pub free_bytes: Option<u64>,
    pub stats: LogStats,
}

/// Counted since the log was opened; `segments` and `erasures_pending` are as of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LogStats {
    pub events: u64,
    pub bytes: u64,
    pub batches: u64,
    pub write_errors: u64,
    pub syncs: u64,
    pub sync_errors: u64,
    pub sync_micros: u64,
    pub sync_micros_max: u64,
    pub segments: u64,
    pub segments_removed: u64,
    pub segments_damaged: u64,
    /// Events of accounts that were taken down, overwritten on disk.
    pub events_erased: u64,
    /// Take-downs whose older events are not all overwritten yet. Nobody gets those any more.
    pub erasures_pending: u64,
}

/// What control may change of the log while it runs, and how the log is. Never waits for the disk.
pub trait LogControl: Send + Sync {
    fn bounds(&self) -> LogBounds;

    fn window(&self) -> LogWindow;

    /// Takes effect within about a second.
    fn set_window(&self, window: LogWindow);

    fn health(&self) -> LogHealth;
}
