//! Accounts: what the relay holds of each, and the verification of their events.
//!
//! - *Runs on*: the shard that owns the account (by the hash of its DID); pure, synchronous, the
//!   time is an argument.
//! - *Takes*: [`RawFrame`]s of any host, `AccountAnswer`s of the directory and of the store.
//! - *Gives*: [`Verified`] events for the sequencer, [`Finished`] tickets for refused frames,
//!   [`AccountLookup`] questions.
//! - *Limits*: one question out for a DID; a frame waits for an answer at most `parked_wait`; parked
//!   frames take at most `parked_bytes_max`; fresh look-ups of an account are rationed.
//! - *Invariants*: every frame ends as exactly one `Verified` or one refused `Finished`; events of
//!   one account come out in the order in which they came in, with rising revs; what was refused
//!   has changed nothing.
//!
//! A turn has three steps. All frames are checked by themselves (`check`: form, syntax, blocks,
//! operations). Then the signatures of all of them are verified as one batch, which is what makes
//! them cheap. Then each frame in its order is held against its account (`judge`), which may move
//! the account, or park the frame until control has looked something up (`wait`). Keys change only
//! between turns, so a verdict on a signature holds whatever else happens in the turn: how frames
//! fall into turns has no influence on what becomes of them.

mod answer;
mod check;
mod did;
mod judge;
mod limit;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod turn;
mod verified;
mod wait;

use std::{collections::VecDeque, time::Duration};

use ecdsa::Check;
use ports::{AccountLookup, RefusalReason, ShardId, Tally};

pub use self::verified::{Finished, Outcome, Verified};
use self::{
    answer::Strangers,
    check::{Checked, Checker},
    did::{DidKey, DidRef},
    table::Table,
    tally::Counter,
    wait::{Looked, Pending, Waits},
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
}

impl AccountsConfig {
    pub fn new(shard: ShardId) -> Self {
        Self {
            shard,
            parked_wait: Duration::from_mins(1),
            parked_bytes_max: 256 << 20,
            identity_ttl: Duration::from_hours(24),
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
    counter: Counter,
    /// Frames that have waited: they go before the ones in the inbox.
    resumed: Vec<Pending>,
    inbox: Vec<Pending>,
    verified: VecDeque<Verified>,
    finished: VecDeque<Finished>,
    scratch: Scratch,
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
            table: Table::default(),
            waits: Waits::new(config.shard),
            strangers: Strangers::default(),
            checker: Checker::default(),
            counter: Counter::default(),
            resumed: Vec::new(),
            inbox: Vec::new(),
            verified: VecDeque::new(),
            finished: VecDeque::new(),
            scratch: Scratch::default(),
        }
    }

    /// Takes a frame in for the next turn.
    pub fn handle_frame(&mut self, frame: RawFrame) {
        self.counter.received(&frame);
        self.inbox.push(Pending { frame, deadline: None, looked: Looked::NotYet });
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
