//! Commands to a shard, and its reports.

use std::net::{SocketAddr, TcpStream};

use crate::{
    AccountAnswer, AccountId, AccountLookup, ConsumerId, EventKind, HostFault, HostId, HostLimits,
    HostProgress, HostSeq, HostSocket, LocalStatus, RefusalReason, RelaySeq, Remark, SetLocal,
    SlowReason, Strictness, UpstreamStatus, ring::Weight,
};

/// Control to shard.
#[derive(Debug)]
pub enum ShardCommand {
    /// A socket to a host whose home is this shard. An older connection of the host is replaced.
    Host(Box<HostSocket>),
    /// Close the connection to the host, if there is one.
    DropHost(HostId),
    SetStrictness(HostId, Strictness),
    /// To the host's home shard; holds until the next socket brings limits of its own.
    SetHostLimits(HostId, HostLimits),
    /// A consumer after the WebSocket handshake.
    Consumer(Box<ConsumerSocket>),
    DropConsumer(ConsumerId),
    Account(Box<AccountAnswer>),
    /// To the shard that owns the account ([`crate::owner_of`]).
    SetLocal(Box<SetLocal>),
}

/// Which events a consumer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerStart {
    /// It named a cursor: those with a greater seq.
    Cursor(u64),
    /// It named none: those that come after this one, the newest when its request was answered.
    Live(RelaySeq),
}

/// A consumer's socket, upgraded by control and served by a shard.
#[derive(Debug)]
pub struct ConsumerSocket {
    pub id: ConsumerId,
    /// Non-blocking, `TCP_NODELAY` set; the 101 reply has been written.
    pub stream: TcpStream,
    /// What the client sent behind its request head.
    pub received: Vec<u8>,
    pub start: ConsumerStart,
    pub remote: SocketAddr,
}

/// Shard to control.
#[derive(Debug)]
pub enum ShardReport {
    /// The WebSocket handshake with the host succeeded.
    HostOpen(HostId),
    HostClosed {
        host: HostId,
        fault: HostFault,
        /// At least one good event came on this connection.
        progressed: bool,
    },
    Progress(Vec<HostProgress>),
    /// The host is being read more slowly than it sends (`None`: no longer). When that begins, ends
    /// or changes, and at most about once a second for a host.
    HostSlowed {
        host: HostId,
        why: Option<SlowReason>,
        /// Unix seconds at which it will be over, where that is known.
        until: Option<u64>,
    },
    Lookup(Box<AccountLookup>),
    /// A [`ShardCommand::SetLocal`] was carried out: if an event had to be made of it, it is on its
    /// way to the log, before all later ones of the account.
    LocalSet {
        account: AccountId,
        local: LocalStatus,
    },
    /// What hosts said of accounts while the relay's own word stood before it: no event of the log tells
    /// it, so it is stored from here. All earlier events of these accounts are in the log and synced.
    Noted(Vec<(AccountId, UpstreamStatus)>),
    /// Collections in which accounts have created records, each for the first time since the shard
    /// holds the account: told again after a restart.
    Collections(Vec<(AccountId, Box<str>)>),
    Consumers(Vec<ConsumerProgress>),
    ConsumerClosed {
        id: ConsumerId,
        reason: ConsumerEnd,
    },
    Tally(Box<Tally>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerProgress {
    pub id: ConsumerId,
    /// The last event handed to the kernel in full.
    pub seq: RelaySeq,
    pub events_sent: u64,
    pub bytes_sent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConsumerEnd {
    /// The consumer closed or went away.
    Left,
    /// Closed by the operator.
    Kicked,
    /// `ConsumerTooSlow`: no byte taken within the limit, or its place fell out of the window.
    TooSlow,
    /// `FutureCursor`.
    FutureCursor,
    /// No pong within the limit.
    Silent,
    /// The consumer broke the WebSocket protocol.
    Protocol,
    /// The relay is shutting down.
    Shutdown,
    /// The log could not be read at its place.
    Unreadable,
}

impl ConsumerEnd {
    /// The value of the metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Kicked => "kicked",
            Self::TooSlow => "too-slow",
            Self::FutureCursor => "future-cursor",
            Self::Silent => "silent",
            Self::Protocol => "protocol",
            Self::Shutdown => "shutdown",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What a shard counted since its last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    pub received: [u64; 4],
    pub forwarded: [u64; 4],
    pub refused: [u64; RefusalReason::COUNT],
    pub remarks: [u64; Remark::COUNT],
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Accounts in memory, frames waiting for an identity, consumers: as of now, not since.
    pub accounts: u64,
    pub parked: u64,
    pub consumers: u64,
    pub hosts: u64,
    /// The last refusals, a few of each host.
    pub refusals: Vec<Refusal>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            received: [0; 4],
            forwarded: [0; 4],
            refused: [0; RefusalReason::COUNT],
            remarks: [0; Remark::COUNT],
            received_bytes: 0,
            sent_bytes: 0,
            accounts: 0,
            parked: 0,
            consumers: 0,
            hosts: 0,
            refusals: Vec::new(),
        }
    }
}

/// One refused frame, for those who ask why an event is not out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub host: HostId,
    pub host_seq: Option<HostSeq>,
    pub kind: Option<EventKind>,
    /// Absent where the frame was too broken to tell.
    pub did: Option<Box<str>>,
    pub reason: RefusalReason,
}

impl Weight for ShardCommand {
    fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Consumer(socket) => socket.received.len(),
                Self::Host(socket) => socket.resume.emitted.len() * size_of::<HostSeq>(),
                Self::SetLocal(set) => size_of::<SetLocal>() + set.did.len(),
                _ => 0,
            }
    }
}

impl Weight for ShardReport {
    fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Progress(hosts) => size_of_val(hosts.as_slice()),
                Self::Consumers(consumers) => size_of_val(consumers.as_slice()),
                Self::Noted(noted) => size_of_val(noted.as_slice()),
                Self::Collections(found) => found
                    .iter()
                    .map(|(_, collection)| size_of::<AccountId>() + 2 * collection.len())
                    .sum(),
                _ => 0,
            }
    }
}
