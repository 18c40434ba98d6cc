//! The event log as the control plane sees it: records of the index, never frames.

use std::io;

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
}
