//! [`Verified`]: an event that may be sent on, and [`Finished`]: how a frame ended.

use std::ops::Range;

use bytes::Bytes;
use ports::{
    AccountId, EventKind, HostId, HostSeq, LocalStatus, RefusalReason, Remark, RepoHead, ShardId,
    UpstreamStatus, ring::Weight,
};

use super::table::Account;
use crate::upstream::RawFrame;

/// The signature is the account's: only a check makes this.
#[derive(Debug)]
pub(super) struct SignatureOk(());

impl SignatureOk {
    /// From what `ecdsa` says of the account's key, the signed bytes and the signature.
    pub(super) fn from_verdict(verdict: bool) -> Option<Self> {
        verdict.then_some(Self(()))
    }
}

/// How far the commit's tree was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TreeOk {
    /// Undoing the operations leads to `prevData`, or to the empty tree for a first commit.
    Checked,
    /// Lenient mode, and the host does not tell enough to check it.
    Waived,
}

/// What was checked of the event. There is no way to a [`Verified`] without it.
#[derive(Debug)]
pub(super) enum Evidence {
    Commit { signature: SignatureOk, tree: TreeOk, discontinuous: bool, head: RepoHead },
    Sync { signature: SignatureOk, head: RepoHead },
    Identity,
    Account,
}

impl Evidence {
    fn head(&self) -> Option<RepoHead> {
        match self {
            Self::Commit { signature: SignatureOk(()), head, .. }
            | Self::Sync { signature: SignatureOk(()), head } => Some(*head),
            Self::Identity | Self::Account => None,
        }
    }
}

/// The account as it is after the event.
#[derive(Clone, Copy, Debug)]
pub(super) struct After {
    pub(super) account: AccountId,
    pub(super) upstream: UpstreamStatus,
    pub(super) local: LocalStatus,
}

/// Where in the bytes to send on the sequence number stands, and those bytes if they are not the
/// frame's own.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) seq_span: Range<u32>,
    pub(super) rewritten: Option<Bytes>,
}

/// An event that has passed every check and is to be numbered. Made in this module only.
#[derive(Debug)]
pub struct Verified {
    frame: Bytes,
    seq_span: Range<u32>,
    kind: EventKind,
    home: ShardId,
    host: HostId,
    account: AccountId,
    host_seq: HostSeq,
    ticket: u64,
    head: Option<RepoHead>,
    upstream: UpstreamStatus,
    local: LocalStatus,
    discontinuous: bool,
    tree_waived: bool,
    completed: bool,
}

impl After {
    pub(super) fn of(account: &Account) -> Self {
        let status = account.status();
        Self { account: account.id(), upstream: status.upstream(), local: status.local() }
    }
}

impl Verified {
    pub(super) fn new(raw: RawFrame, out: Outgoing, after: After, evidence: &Evidence) -> Self {
        let (discontinuous, tree_waived) = match evidence {
            Evidence::Commit { tree, discontinuous, .. } => {
                (*discontinuous, *tree == TreeOk::Waived)
            }
            Evidence::Sync { .. } | Evidence::Identity | Evidence::Account => (false, false),
        };
        Self {
            completed: raw.kind() == EventKind::Commit && out.rewritten.is_some(),
            seq_span: out.seq_span,
            kind: raw.kind(),
            home: raw.home(),
            host: raw.host(),
            account: after.account,
            host_seq: raw.host_seq(),
            ticket: raw.ticket(),
            head: evidence.head(),
            upstream: after.upstream,
            local: after.local,
            discontinuous,
            tree_waived,
            frame: out.rewritten.unwrap_or_else(|| raw.into_bytes()),
        }
    }

    /// An #account that the relay makes itself. It has no place in the window of any host; `shard` is
    /// the one that made it.
    pub(super) fn by_relay(out: Outgoing, after: After, shard: ShardId) -> Self {
        Self {
            frame: out.rewritten.unwrap_or_default(),
            seq_span: out.seq_span,
            kind: EventKind::Account,
            home: shard,
            host: HostId::RELAY,
            account: after.account,
            host_seq: HostSeq(0),
            ticket: 0,
            head: None,
            upstream: after.upstream,
            local: after.local,
            discontinuous: false,
            tree_waived: false,
            completed: false,
        }
    }

    /// The frame to send on: as it came, or rewritten where it must not be passed on as it came.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The bytes of the `seq` integer within the frame.
    pub fn seq_span(&self) -> Range<usize> {
        self.seq_span.start as usize..self.seq_span.end as usize
    }

    pub fn kind(&self) -> EventKind {
        self.kind
    }

    pub fn account(&self) -> AccountId {
        self.account
    }

    /// The host that sent the event. It holds the account, but for an #identity, which any host may
    /// send if the document has changed; [`HostId::RELAY`] for what the relay makes itself.
    pub fn host(&self) -> HostId {
        self.host
    }

    pub fn host_seq(&self) -> HostSeq {
        self.host_seq
    }

    /// The shard that has the host's connection.
    pub fn home(&self) -> ShardId {
        self.home
    }

    /// The frame's place in the window of its host.
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    /// The account's head after a #commit or #sync.
    pub fn head(&self) -> Option<RepoHead> {
        self.head
    }

    pub fn upstream(&self) -> UpstreamStatus {
        self.upstream
    }

    pub fn local(&self) -> LocalStatus {
        self.local
    }

    /// Whether the event is passed on although `remark` is to be made of it.
    pub fn has_remark(&self, remark: Remark) -> bool {
        match remark {
            Remark::Discontinuous => self.discontinuous,
            Remark::TreeWaived => self.tree_waived,
            Remark::Completed => self.completed,
        }
    }

    /// What goes back to the host's window once the event stands in the synced log.
    pub fn finished(&self) -> Finished {
        Finished {
            host: self.host,
            home: self.home,
            ticket: self.ticket,
            outcome: Outcome::Forwarded,
        }
    }
}

impl Weight for Verified {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.frame.len()
    }
}

/// A frame has ended; goes to the shard that has the host's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    pub host: HostId,
    pub home: ShardId,
    pub ticket: u64,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Forwarded,
    Refused(RefusalReason),
}

impl Weight for Finished {
    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}

/// Stage types cross threads.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Verified>();
    is_send::<Finished>();
};
