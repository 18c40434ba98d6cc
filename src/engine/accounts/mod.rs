//! Accounts: what the relay holds of each, and the verification of their events.
//!
//! - *Runs on*: the shard that owns the account (by the hash of its DID); pure, synchronous, the
//!   time is an argument.
//! - *Takes*: [`RawFrame`]s of any host, `AccountAnswer`s of the directory and of the store.
//! - *Gives*: [`Verified`] events for the sequencer, [`Finished`] tickets for refused frames,
//!   [`AccountLookup`] questions.
//! - *Limits*: one question out for a DID; a frame waits for an answer at most `parked_wait`; parked
//!   frames take at most `parked_bytes_max`, and no host more than a quarter of what is free;
//!   look-ups of an account are rationed; at most `accounts_max` accounts are in memory.
//! - *Invariants*: every frame ends as exactly one `Verified` or one refused `Finished`; events of
//!   one account come out in the order in which they came in, with rising revs; what was refused
//!   has changed nothing, but for the host's word on an account that the relay has taken down.
//!
//! A turn has three steps. All frames are checked by themselves (`check`: form, syntax, blocks,
//! operations). Then the signatures of all of them are verified as one batch, which is what makes
//! them cheap. Then each frame in its order is held against its account (`judge`), which may move
//! the account, or park the frame until control has looked something up (`wait`). Keys change only
//! between turns, so a verdict on a signature holds whatever else happens in the turn: how frames
//! fall into turns has no influence on what becomes of them.

mod announce;
mod answer;
mod charge;
mod check;
mod collections;
mod did;
mod judge;
mod limit;
mod slots;
mod status;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod turn;
mod verified;
mod wait;

use std::{collections::VecDeque, time::Duration};

use ecdsa::Check;
use ports::{
    AccountId, AccountLookup, HostProgress, LocalStatus, RefusalReason, RelaySeq, ShardId, Tally,
    UpstreamStatus,
};

pub use self::verified::{Finished, Outcome, Verified};
use self::{
    answer::Strangers,
    charge::Charges,
    check::{Checked, Checker},
    collections::Collections,
    did::{DidKey, DidRef},
    table::Table,
    tally::Counter,
    wait::{Ask, Pending, Waits},
};
use crate::upstream::RawFrame;

/// The time of day, in Unix microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(u64);

impl WallTime {
    pub fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    pub fn micros(self) -> u64 {
        self.0
    }

    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
    }
}

#[derive(Clone, Copy, Debug)]
pub struct AccountsConfig {
    pub shard: ShardId,
    /// How long a frame waits for an identity before it is refused.
    pub parked_wait: Duration,
    /// Bytes of frames that wait, over all accounts of the shard. Beyond it frames that would have
    /// to wait are refused: the directory must be out of order for this to happen.
    pub parked_bytes_max: usize,
    /// A DID document is fetched again when it is older.
    pub identity_ttl: Duration,
    /// Accounts in memory. Beyond it those are forgotten that were not used for the longest time.
    pub accounts_max: usize,
}

impl AccountsConfig {
    pub fn new(shard: ShardId) -> Self {
        Self {
            shard,
            parked_wait: Duration::from_mins(10),
            parked_bytes_max: 256 << 20,
            identity_ttl: Duration::from_hours(24),
            accounts_max: usize::MAX,
        }
    }
}

/// The accounts of one shard.
#[derive(Debug)]
pub struct Accounts {
    config: AccountsConfig,
    table: Table,
    waits: Waits,
    strangers: Strangers,
    checker: Checker,
    collections: Collections,
    counter: Counter,
    /// Frames that have waited: they go before the ones in the inbox.
    resumed: Vec<Pending>,
    inbox: Vec<Pending>,
    verified: VecDeque<Verified>,
    finished: VecDeque<Finished>,
    /// Local statuses that were set, and what hosts said that no event tells.
    local_set: Vec<(AccountId, LocalStatus)>,
    noted: VecDeque<Noted>,
    charges: Charges,
    /// How many events were verified since the start.
    emitted: u64,
    scratch: Scratch,
}

/// What a host said of an account while the relay's own word stood before it.
#[derive(Clone, Copy, Debug)]
struct Noted {
    account: AccountId,
    said: UpstreamStatus,
    /// How many events were verified by then.
    after: u64,
}

/// Room that is used again in each turn.
#[derive(Debug, Default)]
struct Scratch {
    frames: Vec<Pending>,
    checked: Vec<Result<Checked, RefusalReason>>,
    batch: Vec<Check<'static>>,
    batch_verdicts: Vec<bool>,
    /// For each frame: what its signature is, where it was looked at.
    verdicts: Vec<Option<bool>>,
}

impl Accounts {
    pub fn new(config: AccountsConfig) -> Self {
        Self {
            config,
            table: Table::new(config.accounts_max),
            waits: Waits::new(config.shard, config.parked_bytes_max),
            strangers: Strangers::default(),
            checker: Checker::default(),
            collections: Collections::default(),
            counter: Counter::default(),
            resumed: Vec::new(),
            inbox: Vec::new(),
            verified: VecDeque::new(),
            finished: VecDeque::new(),
            local_set: Vec::new(),
            noted: VecDeque::new(),
            charges: Charges::default(),
            emitted: 0,
            scratch: Scratch::default(),
        }
    }

    /// Takes a frame in for the next turn.
    pub fn handle_frame(&mut self, frame: RawFrame) {
        self.counter.received(&frame);
        self.inbox.push(Pending::new(frame));
    }

    /// An event to be numbered.
    pub fn poll_verified(&mut self) -> Option<Verified> {
        self.verified.pop_front()
    }

    /// A frame that was refused.
    pub fn poll_finished(&mut self) -> Option<Finished> {
        self.finished.pop_front()
    }

    /// A question for control.
    pub fn poll_lookup(&mut self) -> Option<AccountLookup> {
        self.waits.poll_lookup()
    }

    /// Local statuses that were set since the last time: what was to be told of them is among the
    /// verified events.
    pub fn take_local_set(&mut self) -> Vec<(AccountId, LocalStatus)> {
        std::mem::take(&mut self.local_set)
    }

    /// What hosts said of accounts while the relay's own word stood before it: no event of the log
    /// tells it. Given out once `synced` events are, and with them all earlier ones of the account.
    pub fn poll_noted(&mut self, synced: u64) -> Option<(AccountId, UpstreamStatus)> {
        let noted = self.noted.pop_front_if(|noted| noted.after <= synced)?;
        Some((noted.account, noted.said))
    }

    /// Collections that accounts turned out to have records in since the last time.
    pub fn take_collections(&mut self) -> Vec<(AccountId, Box<str>)> {
        self.collections.take()
    }

    /// What hosts have made us do since the last time.
    pub fn take_charges(&mut self) -> impl Iterator<Item = HostProgress> {
        self.charges.take()
    }

    /// So many of the verified events have been synced since the start, and the log's newest event
    /// is `head`: accounts may be forgotten whose events are all among them.
    pub fn note_synced(&mut self, count: u64, head: RelaySeq) {
        self.table.note_synced(count, head);
    }

    /// When [`Accounts::handle_timeout`] has something to do, if nothing else happens before.
    pub fn next_timeout(&self) -> Option<WallTime> {
        self.waits.next_timeout()
    }

    /// Whether frames are ready for [`Accounts::run_turn`].
    pub fn has_work(&self) -> bool {
        !self.inbox.is_empty() || !self.resumed.is_empty()
    }

    /// What was counted since the last time, and how many accounts and waiting frames there are.
    pub fn take_tally(&mut self) -> Tally {
        let mut tally = self.counter.take();
        tally.accounts = self.table.len() as u64;
        tally.parked = self.waits.frames() + self.resumed.len() as u64;
        tally
    }

    fn emit(&mut self, verified: Verified) {
        self.emitted += 1;
        self.verified.push_back(verified);
    }

    fn ask(&mut self, did: &DidKey, ask: Ask) {
        if self.waits.ask(did, ask, self.table.as_of()) {
            self.charges.note_question(ask.sender, ask.why);
        }
    }

    fn refuse(&mut self, frame: &RawFrame, reason: RefusalReason) {
        self.counter.refused(frame, reason);
        self.finished.push_back(Finished {
            host: frame.host(),
            home: frame.home(),
            ticket: frame.ticket(),
            outcome: Outcome::Refused(reason),
        });
    }

    /// Notes on the account, if it is known, whether there is an entry for it among the waits.
    fn mark_waits(&mut self, did: &DidKey) {
        let waits = self.waits.contains(did);
        if let Some(account) = self.table.get_mut(did.as_ref()) {
            account.set_waits(waits);
        }
    }
}

/// The DID of a frame as a key.
fn did_of(frame: &RawFrame) -> DidRef<'_> {
    DidRef::new(frame.did())
}
