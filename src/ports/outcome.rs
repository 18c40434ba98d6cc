//! How a frame ends: forwarded, or refused for exactly one reason.

/// The four kinds of events which carry a sequence number (`com.atproto.sync.subscribeRepos`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    Commit = 1,
    Sync = 2,
    Identity = 3,
    Account = 4,
}

impl EventKind {
    pub const ALL: [Self; 4] = [Self::Commit, Self::Sync, Self::Identity, Self::Account];

    /// Position in a table with one cell for each kind.
    pub fn index(self) -> usize {
        self as usize - 1
    }

    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    /// The value of the metric label `kind`, and the header's `t` without its `#`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Sync => "sync",
            Self::Identity => "identity",
            Self::Account => "account",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// Why a frame was not forwarded. The label is that of the metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum RefusalReason { $($(#[$doc])* $name,)* }

        impl RefusalReason {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// Not two strict DAG-CBOR objects, or a required field is missing or of the wrong type.
    FrameMalformed => "frame-malformed",
    /// A WebSocket message above 5,000,000 bytes.
    FrameTooLarge => "frame-too-large",
    /// A text message: not part of event stream version 0.
    FrameText => "frame-text",
    /// An `op` or `t` that this relay does not know.
    FrameUnknown => "frame-unknown",
    /// A sequence number at or below one already seen on the same connection.
    SeqOrder => "seq-order",
    /// Already handled before a reconnect or a restart.
    Duplicate => "duplicate",
    DidSyntax => "did-syntax",
    TimeSyntax => "time-syntax",
    RevSyntax => "rev-syntax",
    /// More than five minutes ahead of the relay's clock.
    RevFuture => "rev-future",
    /// At or below the account's last rev: harmless, never held against the host.
    RevStale => "rev-stale",
    AccountInactive => "account-inactive",
    AccountTakendown => "account-takendown",
    /// The account is above its host's limit.
    AccountThrottled => "account-throttled",
    /// The DID document names another PDS than the host that sent the event.
    HostMismatch => "host-mismatch",
    /// The directory says that there is no such DID, or the document is not usable.
    IdentityNotFound => "identity-not-found",
    /// The directory could not be asked for as long as an event may wait.
    IdentityUnavailable => "identity-unavailable",
    /// The document has no usable `#atproto` key.
    KeyMissing => "key-missing",
    BlocksTooLarge => "blocks-too-large",
    OpsTooMany => "ops-too-many",
    CarMalformed => "car-malformed",
    /// A block's bytes do not hash to its CID.
    BlockHash => "block-hash",
    CommitMissing => "commit-missing",
    CommitMalformed => "commit-malformed",
    /// The event's did, rev or commit CID differ from the signed commit.
    CommitMismatch => "commit-mismatch",
    SignatureInvalid => "signature-invalid",
    OpInvalid => "op-invalid",
    RecordMissing => "record-missing",
    RecordTooLarge => "record-too-large",
    RecordMalformed => "record-malformed",
    TreeMalformed => "tree-malformed",
    /// Undoing the operations does not lead to `prevData`.
    InversionMismatch => "inversion-mismatch",
    /// Strict mode: a commit of a known account without `prevData`.
    PrevDataMissing => "prev-data-missing",
    /// An #identity that changed nothing, from a host that does not hold the account, or that comes
    /// again.
    IdentityUnchanged => "identity-unchanged",
    /// An #account that comes again, or whose host's word does not count at present.
    StatusUnchanged => "status-unchanged",
}

impl RefusalReason {
    pub const COUNT: usize = Self::ALL.len();

    /// Position in a table with one cell for each reason.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether it counts against the host that sent the frame.
    ///
    /// Not what happens to good hosts: events that come twice or late, that hit a state which the host
    /// cannot know, that belong to an account which has just moved, that older versions of the
    /// protocol allowed, or for which the directory is to blame.
    pub fn is_fault(self) -> bool {
        match self {
            Self::FrameMalformed
            | Self::FrameTooLarge
            | Self::FrameText
            | Self::DidSyntax
            | Self::TimeSyntax
            | Self::RevSyntax
            | Self::RevFuture
            | Self::BlocksTooLarge
            | Self::OpsTooMany
            | Self::CarMalformed
            | Self::BlockHash
            | Self::CommitMissing
            | Self::CommitMalformed
            | Self::CommitMismatch
            | Self::SignatureInvalid
            | Self::OpInvalid
            | Self::RecordMissing
            | Self::RecordTooLarge
            | Self::RecordMalformed
            | Self::TreeMalformed
            | Self::InversionMismatch => true,
            Self::FrameUnknown
            | Self::SeqOrder
            | Self::Duplicate
            | Self::RevStale
            | Self::AccountInactive
            | Self::AccountTakendown
            | Self::AccountThrottled
            | Self::HostMismatch
            | Self::IdentityNotFound
            | Self::IdentityUnavailable
            | Self::KeyMissing
            | Self::PrevDataMissing
            | Self::IdentityUnchanged
            | Self::StatusUnchanged => false,
        }
    }
}

/// What was passed on although it is not quite what the specification asks for. Each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Remark {
    /// `prevData` or the previous rev are not what we hold for the account.
    Discontinuous,
    /// Lenient mode: no `prevData`, so the tree could not be checked.
    TreeWaived,
    /// A #commit without deprecated fields that the lexicon requires: they were filled in.
    Completed,
}

impl Remark {
    pub const ALL: [Self; 3] = [Self::Discontinuous, Self::TreeWaived, Self::Completed];
    pub const COUNT: usize = Self::ALL.len();

    pub fn index(self) -> usize {
        self as usize
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Discontinuous => "discontinuous",
            Self::TreeWaived => "tree-waived",
            Self::Completed => "completed",
        }
    }
}
