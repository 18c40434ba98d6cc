//! The rows of the store, as the rest of the control plane sees them.

use ecdsa::VerifyingKey;
use ports::{AccountState, HostId, HostSeq, Strictness};

/// A host's standing, in the words of `com.atproto.sync.defs#hostStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum HostStatus {
    #[default]
    Active,
    /// Dropped until it asks to be crawled again.
    Idle,
    /// Unreachable for long; tried again on a request to crawl it.
    Offline,
    /// Held back by a limit.
    Throttled,
    /// Never to be connected.
    Banned,
}

impl HostStatus {
    pub const ALL: [Self; 5] =
        [Self::Active, Self::Idle, Self::Offline, Self::Throttled, Self::Banned];

    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Offline => "offline",
            Self::Throttled => "throttled",
            Self::Banned => "banned",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.label() == word)
    }
}

/// What a host's state machine is to remember over a restart. Times are Unix seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostMemory {
    /// When the status ends by itself; `None`: never, or nobody can tell.
    pub status_until: Option<u64>,
    /// Failed attempts in a row.
    pub failures: u32,
    /// When the host is to be tried next.
    pub next_attempt_at: Option<u64>,
    /// Quarantines that are not forgiven yet.
    pub quarantine_count: u32,
    /// Well-formed commits in a row.
    pub well_formed: u64,
    /// Since when the host is held to strict rules because it has shown that it keeps them.
    pub strictness_since: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRow {
    pub id: HostId,
    /// `name` or `name:port`, normalised.
    pub hostname: String,
    pub tls: bool,
    pub status: HostStatus,
    pub status_reason: Option<String>,
    /// Unix seconds.
    pub status_since: u64,
    pub trusted: bool,
    /// `None`: the relay's default.
    pub strictness: Option<Strictness>,
    /// Every event up to this one is in the log or was refused.
    pub cursor: Option<HostSeq>,
    pub account_count: u64,
    pub account_limit: u64,
    /// Event rates; `None`: derived from the account limit.
    pub per_second: Option<u64>,
    pub per_hour: Option<u64>,
    pub per_day: Option<u64>,
    pub alerts_silenced: bool,
    pub last_error: Option<String>,
    /// Unix seconds.
    pub last_error_at: Option<u64>,
    pub memory: HostMemory,
    /// Unix seconds.
    pub created_at: u64,
}

/// A host to insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewHost {
    pub hostname: String,
    pub tls: bool,
    pub trusted: bool,
    pub account_limit: u64,
    pub by_admin: bool,
}

/// Changes to a host; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPatch {
    pub tls: Option<bool>,
    /// The new status and why. `status_since` moves only if the status really changes.
    pub status: Option<(HostStatus, Option<String>)>,
    pub trusted: Option<bool>,
    pub strictness: Option<Option<Strictness>>,
    /// Sets or clears the cursor, forwards or backwards: the operator's wish.
    pub cursor: Option<Option<HostSeq>>,
    pub account_limit: Option<u64>,
    pub per_second: Option<Option<u64>>,
    pub per_hour: Option<Option<u64>>,
    pub per_day: Option<Option<u64>>,
    pub alerts_silenced: Option<bool>,
    pub memory: Option<HostMemory>,
    /// The last fault; its time is set along with it.
    pub last_error: Option<String>,
}

/// A DID document, reduced to what is kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredIdentity {
    pub key: Option<VerifyingKey>,
    /// The PDS that the document names: `name` or `name:port`.
    pub pds: Option<String>,
    pub pds_tls: bool,
    pub handle: Option<String>,
    /// Unix seconds.
    pub fetched_at: u64,
}

/// What the store knows of a DID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredAccount {
    /// `None`: no account of this relay.
    pub state: Option<AccountState>,
    /// Also without an account, if the directory's export was imported.
    pub identity: Option<StoredIdentity>,
}

/// How many accounts a host has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountCounts {
    pub all: u64,
    /// Those that take one of the places which the host's limit gives: neither deleted nor throttled.
    pub counted: u64,
    pub throttled: u64,
    pub takendown: u64,
    pub deleted: u64,
}

/// Which hosts to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFilter {
    /// Part of the name.
    pub text: Option<String>,
    pub status: Option<HostStatus>,
    /// Leave out those of which nothing was ever heard and that are not tried now.
    pub heard: bool,
}

/// An account's row together with its DID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    pub did: String,
    pub state: AccountState,
}
