//! Frames that wait for an answer of the directory, in the order in which they came, and the
//! questions that are out.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use foldhash::quality::RandomState;
use ports::{AccountLookup, HostId, LookupWhy, RelaySeq, ShardId};

use super::{WallTime, did::DidKey};
use crate::upstream::RawFrame;

/// Pause before a question without answer is asked again; doubles each time.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(16);

/// A frame that is on its way through the stage.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) frame: RawFrame,
    /// Until when it may wait; `None` for one that has not waited yet.
    pub(super) deadline: Option<WallTime>,
    pub(super) looked: Looked,
}

/// Whether a frame has already had the fresh look-up that it was parked for: it gets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    NotYet,
    /// With whether the document had changed.
    Done {
        changed: bool,
    },
}

/// A question to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// The host whose event causes it.
    pub(super) sender: HostId,
    pub(super) fresh: bool,
    pub(super) state_wanted: bool,
}

/// One DID with a question out, or to be asked again. Without frames, nobody waits for the answer.
#[derive(Debug, Default)]
struct Wait {
    frames: VecDeque<Pending>,
    /// The question that is out.
    asked: Option<Ask>,
    retry: Option<(WallTime, Ask)>,
    retries: u32,
    timer: Option<WallTime>,
}

#[derive(Debug)]
pub(super) struct Waits {
    shard: ShardId,
    by_did: HashMap<DidKey, Wait, RandomState>,
    timers: BTreeSet<(WallTime, DidKey)>,
    lookups: VecDeque<AccountLookup>,
    frames: u64,
    bytes: usize,
}

impl Waits {
    pub(super) fn new(shard: ShardId) -> Self {
        Self {
            shard,
            by_did: HashMap::default(),
            timers: BTreeSet::new(),
            lookups: VecDeque::new(),
            frames: 0,
            bytes: 0,
        }
    }

    /// How many frames are parked.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// How many bytes the parked frames take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn contains(&self, did: &DidKey) -> bool {
        self.by_did.contains_key(did)
    }

    pub(super) fn has_frames(&self, did: &DidKey) -> bool {
        self.by_did.get(did).is_some_and(|wait| !wait.frames.is_empty())
    }

    /// Whose frame is the first that waits.
    pub(super) fn first_host(&self, did: &DidKey) -> Option<HostId> {
        Some(self.by_did.get(did)?.frames.front()?.frame.host())
    }

    /// Parks the frame, behind those of its account that are parked already.
    pub(super) fn park(&mut self, did: &DidKey, pending: Pending) {
        self.frames += 1;
        self.bytes += pending.frame.bytes().len();
        self.by_did.entry(did.clone()).or_default().frames.push_back(pending);
        self.arm(did);
    }

    /// Asks, unless a question for the DID is out already.
    pub(super) fn ask(&mut self, did: &DidKey, ask: Ask) {
        let wait = self.by_did.entry(did.clone()).or_default();
        if wait.asked.is_some() {
            return;
        }
        wait.asked = Some(ask);
        wait.retry = None;
        self.lookups.push_back(AccountLookup {
            did: did.text(),
            shard: self.shard,
            sender: ask.sender,
            why: LookupWhy::State,
            as_of: RelaySeq(0),
            fresh: ask.fresh,
            state_wanted: ask.state_wanted,
        });
        self.arm(did);
    }

    pub(super) fn poll_lookup(&mut self) -> Option<AccountLookup> {
        self.lookups.pop_front()
    }

    /// The answer has come: the question that was out.
    pub(super) fn answered(&mut self, did: &DidKey) -> Option<Ask> {
        self.by_did.get_mut(did)?.asked.take()
    }

    /// The question is asked again after a pause that grows.
    pub(super) fn retry_later(&mut self, did: &DidKey, ask: Ask, now: WallTime) {
        let Some(wait) = self.by_did.get_mut(did) else { return };
        let pause = RETRY_FIRST.saturating_mul(1 << wait.retries.min(8)).min(RETRY_MAX);
        wait.retries += 1;
        wait.retry = Some((now.after(pause), ask));
        self.arm(did);
    }

    /// Asks again if it is time to.
    pub(super) fn retry(&mut self, did: &DidKey, now: WallTime) {
        let due = self.by_did.get(did).and_then(|wait| wait.retry);
        if let Some((_, ask)) = due.filter(|(at, _)| *at <= now) {
            self.ask(did, ask);
        }
    }

    /// Takes the first frame if `wanted` says so.
    pub(super) fn pop_if(
        &mut self,
        did: &DidKey,
        wanted: impl FnOnce(&Pending) -> bool,
    ) -> Option<Pending> {
        let wait = self.by_did.get_mut(did)?;
        let pending = wait.frames.pop_front_if(|pending| wanted(pending))?;
        self.frames -= 1;
        self.bytes -= pending.frame.bytes().len();
        self.arm(did);
        Some(pending)
    }

    /// Takes all frames, in order.
    pub(super) fn drain(&mut self, did: &DidKey) -> VecDeque<Pending> {
        let Some(wait) = self.by_did.get_mut(did) else { return VecDeque::new() };
        let frames = std::mem::take(&mut wait.frames);
        self.frames -= frames.len() as u64;
        self.bytes -= frames.iter().map(|pending| pending.frame.bytes().len()).sum::<usize>();
        self.arm(did);
        frames
    }

    /// Forgets the DID if no frame waits and no question is out; whether there is nothing (left).
    pub(super) fn forget_if_idle(&mut self, did: &DidKey) -> bool {
        let Some(wait) = self.by_did.get(did) else { return true };
        let idle = wait.frames.is_empty() && wait.asked.is_none();
        if idle {
            if let Some(at) = wait.timer {
                self.timers.remove(&(at, did.clone()));
            }
            self.by_did.remove(did);
        }
        idle
    }

    pub(super) fn next_timeout(&self) -> Option<WallTime> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A DID whose time has come. Its timer is off until something is done with the DID.
    pub(super) fn pop_due(&mut self, now: WallTime) -> Option<DidKey> {
        if self.timers.first()?.0 > now {
            return None;
        }
        let (_, did) = self.timers.pop_first()?;
        if let Some(wait) = self.by_did.get_mut(&did) {
            wait.timer = None;
        }
        Some(did)
    }

    /// Sets the DID's timer: the first frame's deadline, or the next try if that is sooner.
    fn arm(&mut self, did: &DidKey) {
        let Some(wait) = self.by_did.get_mut(did) else { return };
        let deadline = wait.frames.front().and_then(|pending| pending.deadline);
        let retry = wait.retry.map(|(at, _)| at);
        let at = deadline.into_iter().chain(retry).min();
        if wait.timer == at {
            return;
        }
        if let Some(at) = wait.timer {
            self.timers.remove(&(at, did.clone()));
        }
        wait.timer = at;
        if let Some(at) = at {
            self.timers.insert((at, did.clone()));
        }
    }
}
