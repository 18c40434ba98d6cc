//! The accounts of a shard in memory: one slot of at most 160 bytes each, key included.

use std::collections::HashMap;

use ecdsa::VerifyingKey;
use foldhash::quality::RandomState;
use ports::{AccountId, AccountState, HostId, Identity, LocalStatus, RepoHead, UpstreamStatus};

use super::{
    did::{DidKey, DidRef, PLC_BYTES},
    limit::{Seconds, Used},
};

/// Stands where a host does if the DID document names none that this relay knows: no frame comes
/// from it.
const NO_HOST: HostId = HostId(u32::MAX);

/// What the relay holds of an account while frames come in for it.
///
/// The commit's own CID is not here: nothing is compared with it, it goes on with the event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    id: AccountId,
    /// Meaningful with [`Account::HEAD`].
    rev: u64,
    data: [u8; 32],
    key: Option<VerifyingKey>,
    host: HostId,
    /// Hash of the handle that the document claims; zero for none.
    handle: u32,
    fetched_at: Seconds,
    pub(super) limits: Limits,
    pub(super) upstream: UpstreamStatus,
    pub(super) local: LocalStatus,
    flags: u8,
}

/// What the account has used of its limits on fresh look-ups, by who caused them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    /// #identity events of its own host.
    pub(super) announced: Used,
    /// Signatures that do not fit, and documents past their time.
    pub(super) doubted: Used,
    /// Events of hosts that do not hold the account.
    pub(super) foreign: Used,
}

/// One slot for each of 100 million accounts.
const _: () = assert!(size_of::<([u8; PLC_BYTES], Account)>() <= 160);

/// What is known of an account's DID document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The directory has not answered yet.
    Unknown,
    Known,
    /// The directory says that there is none (any more).
    Gone,
}

impl Account {
    const HEAD: u8 = 1;
    const KNOWN: u8 = 2;
    const GONE: u8 = 4;
    /// The host announced a change that was not looked up.
    const OUTDATED: u8 = 8;
    /// There is an entry for the account among the waits.
    const WAITS: u8 = 16;

    pub(super) fn new(state: &AccountState) -> Self {
        let mut account = Self {
            id: state.id,
            rev: 0,
            data: [0; 32],
            key: None,
            host: state.host,
            handle: 0,
            fetched_at: Seconds::default(),
            limits: Limits::default(),
            upstream: state.upstream,
            local: state.local,
            flags: 0,
        };
        if let Some(head) = &state.head {
            account.move_to(head);
        }
        account
    }

    pub(super) fn id(&self) -> AccountId {
        self.id
    }

    /// The host that holds the account: as stored, or as the document says since.
    pub(super) fn host(&self) -> HostId {
        self.host
    }

    pub(super) fn key(&self) -> Option<&VerifyingKey> {
        self.key.as_ref()
    }

    pub(super) fn rev(&self) -> Option<u64> {
        self.has(Self::HEAD).then_some(self.rev)
    }

    /// Digest of the MST root that the account's last commit left.
    pub(super) fn data(&self) -> Option<&[u8; 32]> {
        self.has(Self::HEAD).then_some(&self.data)
    }

    pub(super) fn move_to(&mut self, head: &RepoHead) {
        self.rev = head.rev;
        self.data = head.data;
        self.flags |= Self::HEAD;
    }

    pub(super) fn standing(&self) -> Standing {
        if self.has(Self::GONE) {
            Standing::Gone
        } else if self.has(Self::KNOWN) {
            Standing::Known
        } else {
            Standing::Unknown
        }
    }

    /// Takes over a document; `handle` is the hash of its handle. Whether it differs from the one
    /// before (which there must have been) in what a relay looks at.
    pub(super) fn learn(&mut self, identity: &Identity, handle: u32) -> bool {
        let host = identity.host.unwrap_or(NO_HOST);
        let was_known = self.standing() != Standing::Unknown;
        let changed = was_known
            && (self.has(Self::GONE)
                || self.key != identity.key
                || self.handle != handle
                || self.host != host);
        self.key = identity.key;
        self.host = host;
        self.handle = handle;
        self.fetched_at = Seconds::from_unix(identity.fetched_at);
        self.flags = self.flags & !(Self::GONE | Self::OUTDATED) | Self::KNOWN;
        changed
    }

    /// There is no document. The account stays with the host that last had it, which may still
    /// tell that it is deleted. Whether that is news.
    pub(super) fn lose_identity(&mut self, now: Seconds) -> bool {
        let changed = self.standing() == Standing::Known;
        self.key = None;
        self.handle = 0;
        self.fetched_at = now;
        self.flags = self.flags & !(Self::KNOWN | Self::OUTDATED) | Self::GONE;
        changed
    }

    pub(super) fn claims(&self, handle: u32) -> bool {
        self.handle != 0 && self.handle == handle
    }

    /// The document should be fetched again, without anyone having to wait for it.
    pub(super) fn identity_is_old(&self, ttl: u32, now: Seconds) -> bool {
        self.has(Self::OUTDATED) || now.distance(self.fetched_at) >= ttl
    }

    pub(super) fn mark_outdated(&mut self) {
        self.flags |= Self::OUTDATED;
    }

    pub(super) fn waits(&self) -> bool {
        self.has(Self::WAITS)
    }

    pub(super) fn set_waits(&mut self, waits: bool) {
        self.flags = if waits { self.flags | Self::WAITS } else { self.flags & !Self::WAITS };
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// All accounts of the shard. The hashers are seeded anew in each process, as DIDs are chosen by
/// strangers.
#[derive(Debug, Default)]
pub(super) struct Table {
    plc: HashMap<[u8; PLC_BYTES], Account, RandomState>,
    other: HashMap<Box<str>, Account, RandomState>,
}

impl Table {
    pub(super) fn get(&self, did: DidRef<'_>) -> Option<&Account> {
        match did {
            DidRef::Plc(id) => self.plc.get(&id),
            DidRef::Other(did) => self.other.get(did),
        }
    }

    pub(super) fn get_mut(&mut self, did: DidRef<'_>) -> Option<&mut Account> {
        match did {
            DidRef::Plc(id) => self.plc.get_mut(&id),
            DidRef::Other(did) => self.other.get_mut(did),
        }
    }

    /// Adds the account unless it is there already: what is here is newer than what is stored.
    pub(super) fn add(&mut self, did: &DidKey, state: &AccountState) {
        match did {
            DidKey::Plc(id) => self.plc.entry(*id).or_insert_with(|| Account::new(state)),
            DidKey::Other(did) => {
                self.other.entry(did.clone()).or_insert_with(|| Account::new(state))
            }
        };
    }

    pub(super) fn len(&self) -> usize {
        self.plc.len() + self.other.len()
    }
}
