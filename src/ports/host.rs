//! Upstream hosts as both planes know them.

use std::net::TcpStream;

use crate::{HostId, HostSeq, RelaySeq};

/// How strictly a host's commits are held to Sync 1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Strictness {
    #[default]
    Strict,
    /// Commits without `prevData` are passed on and counted.
    Lenient,
}

/// A connected TCP socket to a host, handed to the host's home shard, which does TLS (if asked),
/// the WebSocket handshake and all that follows.
#[derive(Debug)]
pub struct HostSocket {
    pub host: HostId,
    /// `name` or `name:port`, normalised: for the `Host` header and TLS server name.
    pub hostname: Box<str>,
    pub tls: bool,
    /// Non-blocking, `TCP_NODELAY` set.
    pub stream: TcpStream,
    pub strictness: Strictness,
    pub limits: HostLimits,
    /// Where to go on if the shard has not had this host since the process started, or knows no
    /// cursor of it yet.
    pub resume: HostResume,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostResume {
    /// The stored cursor. `None`: connect without one, at the live position.
    pub cursor: Option<HostSeq>,
    /// Events above the cursor that are in the log already: they are not taken again.
    pub emitted: Vec<HostSeq>,
    /// The host began a new numbering (it answered `FutureCursor`): the shard forgets the cursor and
    /// the window that it holds of the host and takes `cursor` instead.
    pub reset: bool,
}

/// How many events of a host are taken in a time. What is above is not dropped: the host's socket
/// is not read until there is room again. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostLimits {
    pub per_second: Option<u32>,
    pub per_hour: Option<u32>,
    pub per_day: Option<u32>,
}

/// Why a host is read more slowly than it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlowReason {
    PerSecond,
    PerHour,
    PerDay,
    /// As many of its events as may be are in our hands: they wait for identities, for the log, or
    /// behind other events of the same few accounts.
    Queue,
}

impl SlowReason {
    pub const ALL: [Self; 4] = [Self::PerSecond, Self::PerHour, Self::PerDay, Self::Queue];

    /// As told by the API, and the value of the metric label `why`.
    pub fn label(self) -> &'static str {
        match self {
            Self::PerSecond => "per-second",
            Self::PerHour => "per-hour",
            Self::PerDay => "per-day",
            Self::Queue => "queue",
        }
    }
}

/// How far the relay is with a host; sent about every half second for hosts that moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostProgress {
    pub host: HostId,
    /// Every event up to this one was refused, or is in the log and synced to disk.
    pub cursor: Option<HostSeq>,
    /// No event above `cursor` stands in the log at or below this number: where a restart starts
    /// to look for events that it must not take twice. 0: the number that is stored holds still.
    pub log_floor: RelaySeq,
    /// Frames received since the last progress report of this host.
    pub received: u64,
    pub forwarded: u64,
    pub refused: u64,
    /// Of the refused ones those that are the host's fault ([`RefusalReason::is_fault`]).
    ///
    /// [`RefusalReason::is_fault`]: crate::RefusalReason::is_fault
    pub invalid: u64,
    /// Questions to directories that its events forced: documents fetched anew, or of DIDs that
    /// turned out not to be its accounts.
    pub forced_lookups: u64,
    /// Accounts that its events made known to this relay.
    pub new_accounts: u64,
    /// Of the forwarded ones the commits whose tree was checked against their `prevData`,
    pub well_formed: u64,
    /// and those that were let off that check, as the host is held to lenient rules.
    pub waived: u64,
    /// The host has begun a lower numbering: `cursor` and `log_floor` replace what is stored, be it
    /// higher or not.
    pub renumbered: bool,
}

impl HostProgress {
    /// Of a host with which nothing has happened yet.
    pub fn new(host: HostId) -> Self {
        Self {
            host,
            cursor: None,
            log_floor: RelaySeq(0),
            received: 0,
            forwarded: 0,
            refused: 0,
            invalid: 0,
            forced_lookups: 0,
            new_accounts: 0,
            well_formed: 0,
            waived: 0,
            renumbered: false,
        }
    }
}

/// Why a connection to a host ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// Ended on our side: blocked, replaced, shutting down.
    Stopped,
    Tls(Box<str>),
    /// The upgrade was refused with this HTTP status, or the reply was not HTTP (0).
    Handshake {
        status: u16,
    },
    /// The reply's `Server` header says that this is a relay.
    Relay,
    /// The host closed in order (a close frame, or end of stream).
    Closed,
    Io(Box<str>),
    /// Nothing received within the read deadline.
    Silent,
    /// The WebSocket layer is broken (bad opcode, mask, length, fragmentation).
    Protocol(&'static str),
    /// A message above the limit.
    TooLarge,
    /// The host sent an error frame with this name (`FutureCursor`, `ConsumerTooSlow`, …).
    ErrorFrame(Box<str>),
}

impl HostFault {
    /// The value of the metric label `fault`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Tls(_) => "tls",
            Self::Handshake { .. } => "handshake",
            Self::Relay => "relay",
            Self::Closed => "closed",
            Self::Io(_) => "io",
            Self::Silent => "silent",
            Self::Protocol(_) => "protocol",
            Self::TooLarge => "too-large",
            Self::ErrorFrame(_) => "error-frame",
        }
    }
}
