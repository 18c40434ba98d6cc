//! The accounts of a shard in memory: one slot of at most 152 bytes each, key included, and 7 or so
//! for its place in the index.

use ecdsa::VerifyingKey;
use ports::{AccountId, AccountState, HostId, Identity, RelaySeq, RepoHead, UpstreamStatus};
use protocol::syntax::Tid;

use super::{
    did::{DidKey, DidRef, PLC_BYTES},
    limit::{Seconds, Used},
    slots::{Slot, Slots},
    status::{Heard, Status},
};

/// Stands where a host does if the DID document names none that this relay knows: no frame comes
/// from it.
const NO_HOST: HostId = HostId(u32::MAX);

/// So much of a tree's digest is kept. It is compared with what a commit says of the tree before,
/// to remark whether events are missing in between; nothing is let through by it.
const DATA_BYTES: usize = 16;

/// What the relay holds of an account while frames come in for it.
///
/// The commit's own CID is not here: nothing is compared with it, it goes on with the event. Numbers
/// of 8 bytes are kept in halves, which saves what their alignment would cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    /// The low 48 bits of the row's number: rows are counted.
    id: [u8; 6],
    flags: u8,
    /// Meaningful with [`Account::HEAD`].
    rev: [u32; 2],
    data: [u8; DATA_BYTES],
    key: Option<VerifyingKey>,
    host: HostId,
    /// Hash of the handle that the document claims; zero for none.
    handle: u32,
    fetched_at: Seconds,
    /// The host's time of the last #identity or #account that was passed on, in
    /// [`Account::TICK_MICROS`]; zero for none.
    notice_at: u32,
    /// The collections that were reported, by the numbers of the frequent ones.
    collections: [u32; 2],
    pub(super) limits: Limits,
    status: Status,
}

/// What the account has used of its limits on look-ups, by who caused them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    /// #identity events of its own host.
    pub(super) announced: Used,
    /// Signatures that do not fit, and documents past their time.
    pub(super) doubted: Used,
    /// Events of hosts that do not hold the account.
    pub(super) foreign: Used,
    /// Commits while its host calls it inactive.
    pub(super) inactive: Used,
}

/// One slot for each of 100 million accounts.
const _: () = assert!(size_of::<Slot<[u8; PLC_BYTES]>>() <= 152);

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
    /// It was used since the hand of the clock last passed.
    const USED: u8 = 32;
    /// It has come to another host, which has not spoken of its status yet.
    const MOVED: u8 = 64;

    /// 65 ms: differences of up to four years fit into 31 bits.
    const TICK_MICROS: i64 = 1 << 16;

    pub(super) fn new(state: &AccountState) -> Self {
        let [id @ .., _, _] = state.id.0.to_le_bytes();
        let mut account = Self {
            id,
            flags: Self::USED,
            rev: [0; 2],
            data: [0; DATA_BYTES],
            key: None,
            host: state.host,
            handle: 0,
            fetched_at: Seconds::default(),
            notice_at: 0,
            collections: [0; 2],
            limits: Limits::default(),
            status: Status::new(state),
        };
        if let Some(head) = &state.head {
            account.move_to(head);
        }
        account
    }

    pub(super) fn id(&self) -> AccountId {
        let mut bytes = [0; 8];
        bytes[..self.id.len()].copy_from_slice(&self.id);
        AccountId(u64::from_le_bytes(bytes))
    }

    /// The host that holds the account: as stored, or as the document says since.
    pub(super) fn host(&self) -> HostId {
        self.host
    }

    pub(super) fn key(&self) -> Option<&VerifyingKey> {
        self.key.as_ref()
    }

    pub(super) fn rev(&self) -> Option<u64> {
        let [low, high] = self.rev;
        self.has(Self::HEAD).then_some(u64::from(high) << 32 | u64::from(low))
    }

    /// Whether the account's last commit left a tree with another root than this digest; `None` if
    /// there was no commit yet.
    pub(super) fn left_other_than(&self, data: &[u8; 32]) -> Option<bool> {
        self.has(Self::HEAD).then(|| self.data != data[..DATA_BYTES])
    }

    pub(super) fn move_to(&mut self, head: &RepoHead) {
        self.rev = [head.rev as u32, (head.rev >> 32) as u32];
        self.data.copy_from_slice(&head.data[..DATA_BYTES]);
        self.flags |= Self::HEAD;
    }

    pub(super) fn status(&self) -> Status {
        self.status
    }

    pub(super) fn status_mut(&mut self) -> &mut Status {
        &mut self.status
    }

    /// The host's #account. The first one of a host that the account has come to is always news.
    pub(super) fn hear(&mut self, said: UpstreamStatus, word: u16) -> Heard {
        let heard = self.status.hear(said, word);
        let moved = self.has(Self::MOVED);
        self.set(Self::MOVED, false);
        if moved { Heard::News } else { heard }
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
        if self.host != host {
            self.set(Self::MOVED, true);
        }
        self.key = identity.key;
        self.host = host;
        self.handle = handle;
        self.fetched_at = Seconds::from_unix(identity.fetched_at);
        self.set(Self::GONE | Self::OUTDATED, false);
        self.set(Self::KNOWN, true);
        changed
    }

    /// There is no document. The account stays with the host that last had it, which may still
    /// tell that it is deleted. Whether that is news.
    pub(super) fn lose_identity(&mut self, now: Seconds) -> bool {
        let changed = self.standing() == Standing::Known;
        self.key = None;
        self.handle = 0;
        self.fetched_at = now;
        self.set(Self::KNOWN | Self::OUTDATED, false);
        self.set(Self::GONE, true);
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
        self.set(Self::OUTDATED, true);
    }

    /// Whether an #identity or #account of this time is later than the last one that was passed on.
    /// One whose time cannot be told is not known to be.
    pub(super) fn is_later_notice(&self, micros: Option<i64>) -> bool {
        let Some(at) = micros.map(Self::tick) else { return false };
        self.notice_at == 0 || (at.wrapping_sub(self.notice_at) as i32) > 0
    }

    /// Whether an #identity or #account of this time, from a host that has gone back in its stream, may
    /// have been passed on before. Times of notices are not stored: without one, what is older than
    /// the account's rev is taken for old.
    pub(super) fn is_old_news(&self, micros: Option<i64>) -> bool {
        let before_rev = || {
            let rev = self.rev().map(|rev| Tid::from_u64(rev).micros());
            rev.is_some_and(|rev| micros.is_none_or(|at| at < rev as i64))
        };
        !self.is_later_notice(micros) || (self.notice_at == 0 && before_rev())
    }

    pub(super) fn note_notice(&mut self, micros: Option<i64>) {
        if self.is_later_notice(micros) {
            self.notice_at = micros.map_or(0, Self::tick);
        }
    }

    fn tick(micros: i64) -> u32 {
        ((micros / Self::TICK_MICROS) as u32).max(1)
    }

    /// Adds to the collections that were reported; gives those that are new.
    pub(super) fn note_collections(&mut self, mask: u64) -> u64 {
        let [low, high] = self.collections;
        let before = u64::from(high) << 32 | u64::from(low);
        let after = before | mask;
        self.collections = [after as u32, (after >> 32) as u32];
        after & !before
    }

    pub(super) fn waits(&self) -> bool {
        self.has(Self::WAITS)
    }

    pub(super) fn set_waits(&mut self, waits: bool) {
        self.set(Self::WAITS, waits);
    }

    pub(super) fn note_used(&mut self) {
        self.set(Self::USED, true);
    }

    /// Whether the account was used since this was last asked.
    fn take_used(&mut self) -> bool {
        let used = self.has(Self::USED);
        self.set(Self::USED, false);
        used
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flags: u8, on: bool) {
        self.flags = if on { self.flags | flags } else { self.flags & !flags };
    }
}

/// Into how many tables the indexes are cut: with 50 million accounts one of them holds 12,000.
const PLC_SEGMENTS: usize = 4096;
const OTHER_SEGMENTS: usize = 64;

/// All accounts of the shard, as far as they are in memory.
#[derive(Debug)]
pub(super) struct Table {
    plc: Slots<[u8; PLC_BYTES]>,
    other: Slots<Box<str>>,
    /// Above it accounts are forgotten.
    count_max: usize,
    rounds: [Round; 2],
    as_of: RelaySeq,
}

/// One round of the clock's hand.
///
/// An account is forgotten if it was not used since the hand passed it in the round before, that
/// is, since before this round began. Once all events are synced that had been verified by then,
/// the log holds everything that the store must know of such an account.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// How many events had been verified when it began.
    verified: u64,
    /// All of them are synced.
    open: bool,
}

impl Table {
    pub(super) fn new(count_max: usize) -> Self {
        Self {
            plc: Slots::new(PLC_SEGMENTS),
            other: Slots::new(OTHER_SEGMENTS),
            count_max,
            rounds: [Round::default(); 2],
            as_of: RelaySeq(0),
        }
    }

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
    /// `verified`: how many events of the shard have been verified so far. Whether it was added.
    pub(super) fn add(&mut self, did: &DidKey, state: &AccountState, verified: u64) -> bool {
        if self.get(did.as_ref()).is_some() {
            return false;
        }
        self.make_room(verified);
        match did {
            DidKey::Plc(id) => self.plc.insert(*id, Account::new(state)),
            DidKey::Other(did) => self.other.insert(did.clone(), Account::new(state)),
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.plc.len() + self.other.len()
    }

    /// So many events have been synced, and the log's newest number is `head`.
    pub(super) fn note_synced(&mut self, synced: u64, head: RelaySeq) {
        for round in &mut self.rounds {
            if !round.open && synced >= round.verified {
                round.open = true;
                self.as_of = self.as_of.max(head);
            }
        }
    }

    /// What is read from the store must be as of this event: it may be the last one of an account
    /// that was forgotten.
    pub(super) fn as_of(&self) -> RelaySeq {
        self.as_of
    }

    /// Forgets an account, or two if there are too many. While no round is open, there may be more
    /// than are wanted for as long as a sync takes.
    fn make_room(&mut self, verified: u64) {
        let Self { plc, other, rounds: [plc_round, other_round], count_max, .. } = self;
        // An eighth at most is for others than did:plc, of which there are few.
        let other_max = (*count_max / 8).max(1);
        let plc_max = count_max.saturating_sub(other.len().min(other_max)).max(1);
        if plc.len() >= plc_max {
            sweep(plc, plc_round, verified);
            sweep(plc, plc_round, verified);
        }
        if other.len() >= other_max {
            sweep(other, other_round, verified);
            sweep(other, other_round, verified);
        }
    }
}

fn sweep<K: std::hash::Hash + Eq>(slots: &mut Slots<K>, round: &mut Round, verified: u64) {
    let open = round.open;
    if slots.sweep(|account| !account.waits() && !account.take_used() && open) {
        *round = Round { verified, open: false };
    }
}
