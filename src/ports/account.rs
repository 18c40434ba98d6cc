//! Accounts as both planes know them, and the question for an account's state and identity.

use ecdsa::VerifyingKey;

use crate::{AccountId, Effective, HostId, RelaySeq, ShardId};

/// The account's status word, as in `com.atproto.sync.subscribeRepos#account`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum StatusWord {
    /// No status was given.
    #[default]
    None = 0,
    Takendown = 1,
    Suspended = 2,
    Deleted = 3,
    Deactivated = 4,
    Desynchronized = 5,
    Throttled = 6,
    /// A word that this relay does not know: tolerated, `active` decides.
    Other = 7,
}

impl StatusWord {
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Takendown,
            2 => Self::Suspended,
            3 => Self::Deleted,
            4 => Self::Deactivated,
            5 => Self::Desynchronized,
            6 => Self::Throttled,
            7 => Self::Other,
            _ => Self::None,
        }
    }

    pub fn parse(word: &str) -> Self {
        match word {
            "takendown" => Self::Takendown,
            "suspended" => Self::Suspended,
            "deleted" => Self::Deleted,
            "deactivated" => Self::Deactivated,
            "desynchronized" => Self::Desynchronized,
            "throttled" => Self::Throttled,
            _ => Self::Other,
        }
    }

    /// The word for replies and events; `None` where there is none to tell.
    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::None | Self::Other => None,
            Self::Takendown => Some("takendown"),
            Self::Suspended => Some("suspended"),
            Self::Deleted => Some("deleted"),
            Self::Deactivated => Some("deactivated"),
            Self::Desynchronized => Some("desynchronized"),
            Self::Throttled => Some("throttled"),
        }
    }
}

/// What the account's own host last said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamStatus {
    pub active: bool,
    pub word: StatusWord,
}

impl UpstreamStatus {
    pub const ACTIVE: Self = Self { active: true, word: StatusWord::None };

    /// One byte for the log index and SQL: the word, and bit 7 for `active`.
    pub fn code(self) -> u8 {
        self.word as u8 | if self.active { 0x80 } else { 0 }
    }

    pub fn from_code(code: u8) -> Self {
        Self { active: code & 0x80 != 0, word: StatusWord::from_code(code & 0x7f) }
    }
}

/// What this relay's operator (or a limit) says of the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum LocalStatus {
    #[default]
    Active = 0,
    Takendown = 1,
    /// Above its host's account limit.
    Throttled = 2,
}

impl LocalStatus {
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Takendown,
            2 => Self::Throttled,
            _ => Self::Active,
        }
    }
}

/// The last commit (or #sync) that moved the account's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepoHead {
    /// The rev (a TID) as the 64-bit number which it encodes.
    pub rev: u64,
    /// SHA-256 in the CID of the MST root (`data` of the commit).
    pub data: [u8; 32],
    /// SHA-256 in the commit's own CID.
    pub commit: [u8; 32],
}

/// An account's state, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountState {
    pub id: AccountId,
    pub host: HostId,
    pub upstream: UpstreamStatus,
    pub local: LocalStatus,
    /// What the account's last #account in the log told consumers; `None` if there is none yet. Where
    /// that is not what counts now, the shard tells them before anything else; where it is, an #account
    /// that says it again is no news.
    pub announced: Option<Effective>,
    /// `None` until the first commit or #sync.
    pub head: Option<RepoHead>,
}

/// The relay's own word on an account has changed: from control to the account's owner shard, which
/// makes one #account event of it if the effective status changes by it, or if it is a take-down: the
/// event log erases what is older than that event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetLocal {
    pub did: Box<str>,
    /// As stored, with the log followed to its end. Of an account that the shard holds only `local`
    /// counts.
    pub state: AccountState,
}

/// Why a shard asks for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookupWhy {
    /// The shard does not hold the account, or not its identity.
    State,
    /// The signature does not fit the key.
    Key,
    /// The event comes from another host than the one that holds the account.
    Host,
    /// The host announced a change (#identity).
    Announced,
    /// The document has passed its time.
    Old,
    /// A commit of an account that its host had called inactive: control asks the host's
    /// `getRepoStatus`.
    Inactive,
}

impl LookupWhy {
    pub const ALL: [Self; 6] =
        [Self::State, Self::Key, Self::Host, Self::Announced, Self::Old, Self::Inactive];

    /// The value of the metric label `why`.
    pub fn label(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Key => "key",
            Self::Host => "host",
            Self::Announced => "announced",
            Self::Old => "old",
            Self::Inactive => "inactive",
        }
    }
}

/// A shard asks for what it does not hold of an account. At most one is in flight for a DID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountLookup {
    pub did: Box<str>,
    /// The shard that owns the account and gets the answer.
    pub shard: ShardId,
    /// The host whose event caused the question: the budget it is charged to.
    pub sender: HostId,
    pub why: LookupWhy,
    /// A cached identity will not do: the key or the host did not fit, or the host announced a change.
    pub fresh: bool,
    /// The shard holds no state for the account: the answer must bring it.
    pub state_wanted: bool,
    /// The state must be as of this event of the log or a later one: the shard has forgotten
    /// accounts whose last event may have this number. 0: whatever is stored.
    pub as_of: RelaySeq,
}

/// What the DID document says, reduced to what a relay needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityAnswer {
    Found(Identity),
    /// A definite no: not registered, tombstoned, or a document without PDS.
    NotFound,
    /// No answer from the directory (time-out, 429, 5xx). Ask again later.
    Unavailable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The `#atproto` signing key, if the document has a usable one.
    pub key: Option<VerifyingKey>,
    /// The host that the document names, if this relay has a row for it.
    pub host: Option<HostId>,
    /// The first valid `at://` handle in `alsoKnownAs`. Not verified, only claimed.
    pub handle: Option<Box<str>>,
    /// Unix seconds at which the document was fetched.
    pub fetched_at: u64,
}

/// The answer to an [`AccountLookup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountAnswer {
    pub did: Box<str>,
    /// The stored state, or a new account's if the identity names the sender as its host.
    /// `None`: unknown account, and not to be created.
    pub state: Option<AccountState>,
    pub identity: IdentityAnswer,
    /// Whether the identity was fetched for this question rather than taken from the cache.
    pub fresh: bool,
    /// What the host says of the account, if that was asked ([`LookupWhy::Inactive`]) and answered.
    pub host_status: Option<UpstreamStatus>,
}
