//! Frames that wait for an answer of control, in the order in which they came, and the questions
//! that are out.
//!
//! Of each DID there are two queues: one for the host that holds the account (for all, while the
//! account is not known), one for other hosts. What a stranger sends never holds up the account's
//! own events.
//!
//! The bytes that wait are bounded in all, and each host may take up a quarter of what is free: so
//! there is always room for one that has not taken any yet, whatever the others do.

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

/// What a waiting frame costs beside its bytes.
const FRAME_OVERHEAD_BYTES: usize = 512;

/// While the directory gives no answer, a host may have so many bytes waiting for it in this shard:
/// a fraction of its window, so that its other accounts go on meanwhile.
const HOPELESS_BYTES_MAX: usize = 4 << 20;

/// While the directory can't be asked about a signature that does not fit, an event behind it that is
/// signed with the known key tells that the key still holds: the answer is waited for so much longer.
const DOUBT_WAIT_MAX: Duration = Duration::from_secs(5);

/// A frame that is on its way through the stage.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) frame: RawFrame,
    /// Until when it may wait; `None` for one that has not waited yet.
    pub(super) deadline: Option<WallTime>,
    pub(super) looked: Looked,
    /// The question that is out was asked while it waited: the answer is news to it.
    asked: bool,
    /// It waits as its signature does not fit the key that is known.
    pub(super) doubted: bool,
}

impl Pending {
    pub(super) fn new(frame: RawFrame) -> Self {
        Self { frame, deadline: None, looked: Looked::default(), asked: false, doubted: false }
    }

    pub(super) fn is_over(&self, now: WallTime) -> bool {
        self.deadline.is_none_or(|deadline| deadline <= now)
    }
}

/// What has been looked up for a frame: of each kind it gets one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// The document was fetched anew (or could not be); with whether it had changed.
    pub(super) document: Option<bool>,
    /// The host was asked for the account's status.
    pub(super) host: bool,
}

impl Looked {
    pub(super) fn document(changed: bool) -> Self {
        Self { document: Some(changed), host: false }
    }

    /// All that can be had.
    pub(super) const EXHAUSTED: Self = Self { document: Some(false), host: true };

    fn add(&mut self, other: Self) {
        self.document = other.document.or(self.document);
        self.host |= other.host;
    }
}

/// Whose frames a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Of the host that holds the account, or of any while that is not known.
    Own = 0,
    Foreign = 1,
}

impl Lane {
    pub(super) const ALL: [Self; 2] = [Self::Own, Self::Foreign];
}

/// A question to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// The host whose event causes it.
    pub(super) sender: HostId,
    pub(super) why: LookupWhy,
    pub(super) fresh: bool,
    pub(super) state_wanted: bool,
}

/// One DID with a question out, or to be asked again. Without frames, nobody waits for the answer.
#[derive(Debug, Default)]
struct Wait {
    lanes: [VecDeque<Pending>; 2],
    /// The question that is out.
    asked: Option<Ask>,
    retry: Option<(WallTime, Ask)>,
    retries: u32,
    timer: Option<WallTime>,
}

impl Wait {
    fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// Control has not said yet what is stored of the account: its database may be away for as long
    /// as it likes, and nothing is refused for that.
    fn waits_for_store(&self) -> bool {
        self.asked.is_some_and(|ask| ask.state_wanted)
    }
}

#[derive(Debug)]
pub(super) struct Waits {
    shard: ShardId,
    bytes_max: usize,
    by_did: HashMap<DidKey, Wait, RandomState>,
    timers: BTreeSet<(WallTime, DidKey)>,
    lookups: VecDeque<AccountLookup>,
    frames: u64,
    bytes: usize,
    by_host: HashMap<HostId, usize, RandomState>,
}

impl Waits {
    pub(super) fn new(shard: ShardId, bytes_max: usize) -> Self {
        Self {
            shard,
            bytes_max,
            by_did: HashMap::default(),
            timers: BTreeSet::new(),
            lookups: VecDeque::new(),
            frames: 0,
            bytes: 0,
            by_host: HashMap::default(),
        }
    }

    /// How many frames are parked.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// Whether one more frame of this host may wait for this DID.
    pub(super) fn has_room(&self, did: &DidKey, frame: &RawFrame) -> bool {
        let taken = self.by_host.get(&frame.host()).copied().unwrap_or(0);
        let after = taken + cost(frame);
        let hopeless = self.by_did.get(did).is_some_and(|wait| wait.retries > 0);
        after <= self.bytes_max.saturating_sub(self.bytes) / 4
            && (!hopeless || after <= HOPELESS_BYTES_MAX)
    }

    pub(super) fn contains(&self, did: &DidKey) -> bool {
        self.by_did.contains_key(did)
    }

    pub(super) fn has_frames(&self, did: &DidKey, lane: Lane) -> bool {
        self.by_did.get(did).is_some_and(|wait| !wait.lanes[lane as usize].is_empty())
    }

    /// Whose frame is the first that waits in the account's own queue.
    pub(super) fn first_host(&self, did: &DidKey) -> Option<HostId> {
        Some(self.by_did.get(did)?.lanes[Lane::Own as usize].front()?.frame.host())
    }

    /// Parks the frame, behind those of its queue that are parked already.
    pub(super) fn park(&mut self, did: &DidKey, lane: Lane, pending: Pending) {
        let (host, bytes) = (pending.frame.host(), cost(&pending.frame));
        self.frames += 1;
        self.bytes += bytes;
        *self.by_host.entry(host).or_default() += bytes;
        self.by_did.entry(did.clone()).or_default().lanes[lane as usize].push_back(pending);
        self.arm(did);
    }

    /// Asks, unless a question for the DID is out already. Returns whether it was asked.
    pub(super) fn ask(&mut self, did: &DidKey, ask: Ask, as_of: RelaySeq) -> bool {
        let wait = self.by_did.entry(did.clone()).or_default();
        if wait.asked.is_some() {
            return false;
        }
        wait.asked = Some(ask);
        wait.retry = None;
        wait.lanes.iter_mut().flatten().for_each(|pending| pending.asked = true);
        self.lookups.push_back(AccountLookup {
            did: did.text(),
            shard: self.shard,
            sender: ask.sender,
            why: ask.why,
            fresh: ask.fresh,
            state_wanted: ask.state_wanted,
            as_of,
        });
        self.arm(did);
        true
    }

    pub(super) fn poll_lookup(&mut self) -> Option<AccountLookup> {
        self.lookups.pop_front()
    }

    /// The answer has come: the question that was out.
    pub(super) fn answered(&mut self, did: &DidKey) -> Option<Ask> {
        let ask = self.by_did.get_mut(did)?.asked.take();
        self.arm(did);
        ask
    }

    /// An answer of use: the next question without one is the first again.
    pub(super) fn note_answer(&mut self, did: &DidKey) {
        if let Some(wait) = self.by_did.get_mut(did) {
            wait.retries = 0;
        }
    }

    /// The question is asked again after a pause that grows.
    pub(super) fn retry_later(&mut self, did: &DidKey, ask: Ask, now: WallTime) {
        let Some(wait) = self.by_did.get_mut(did) else { return };
        let pause = RETRY_FIRST.saturating_mul(1 << wait.retries.min(8)).min(RETRY_MAX);
        wait.retries += 1;
        wait.retry = Some((now.after(pause), ask));
        self.arm(did);
    }

    /// The question is asked when this time has come, unless there is one out or to be asked sooner.
    pub(super) fn ask_at(&mut self, did: &DidKey, ask: Ask, at: WallTime) {
        let Some(wait) = self.by_did.get_mut(did) else { return };
        if wait.asked.is_none() && wait.retry.is_none_or(|(due, _)| at < due) {
            wait.retry = Some((at, ask));
            self.arm(did);
        }
    }

    /// The question that is due to be asked (again).
    pub(super) fn take_due(&mut self, did: &DidKey, now: WallTime) -> Option<Ask> {
        let wait = self.by_did.get_mut(did)?;
        let (_, ask) = wait.retry.take_if(|(at, _)| *at <= now)?;
        self.arm(did);
        Some(ask)
    }

    /// Takes the queue's first frame if `wanted` says so.
    pub(super) fn pop_if(
        &mut self,
        did: &DidKey,
        lane: Lane,
        wanted: impl FnOnce(&Pending) -> bool,
    ) -> Option<Pending> {
        let wait = self.by_did.get_mut(did)?;
        let pending = wait.lanes[lane as usize].pop_front_if(|pending| wanted(pending))?;
        self.release(&pending.frame);
        self.arm(did);
        Some(pending)
    }

    /// Takes all frames, in order. Those that were there when the question was asked have had this
    /// look-up now; the others may know something newer.
    pub(super) fn answer(&mut self, did: &DidKey, looked: Looked, into: &mut Vec<Pending>) {
        self.drain(did, into, |pending| {
            if std::mem::take(&mut pending.asked) {
                pending.looked.add(looked);
            }
        });
    }

    /// Takes all frames, in order. Those that have waited long enough must do with what there is.
    pub(super) fn give_out(&mut self, did: &DidKey, now: WallTime, into: &mut Vec<Pending>) {
        self.drain(did, into, |pending| {
            if pending.is_over(now) {
                pending.looked = Looked::EXHAUSTED;
            }
        });
    }

    fn drain(&mut self, did: &DidKey, into: &mut Vec<Pending>, mut each: impl FnMut(&mut Pending)) {
        let Some(wait) = self.by_did.get_mut(did) else { return };
        let lanes = std::mem::take(&mut wait.lanes);
        for mut pending in lanes.into_iter().flatten() {
            self.release(&pending.frame);
            each(&mut pending);
            into.push(pending);
        }
        self.arm(did);
    }

    /// Forgets the DID if no frame waits and no question is out.
    pub(super) fn forget_if_idle(&mut self, did: &DidKey) {
        let Some(wait) = self.by_did.get(did) else { return };
        if wait.is_empty() && wait.asked.is_none() {
            if let Some(at) = wait.timer {
                self.timers.remove(&(at, did.clone()));
            }
            self.by_did.remove(did);
        }
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

    /// An event behind those that wait is signed with the known key.
    pub(super) fn note_key_holds(&mut self, did: &DidKey, now: WallTime) {
        let Some(wait) = self.by_did.get_mut(did) else { return };
        let first = wait.lanes[Lane::Own as usize].front_mut().filter(|first| first.doubted);
        let Some(first) = first else { return };
        first.deadline = first.deadline.min(Some(now.after(DOUBT_WAIT_MAX)));
        self.arm(did);
    }

    /// Whether the first frame of one of the queues has waited long enough.
    pub(super) fn is_over(&self, did: &DidKey, now: WallTime) -> bool {
        self.by_did.get(did).filter(|wait| !wait.waits_for_store()).is_some_and(|wait| {
            wait.lanes.iter().filter_map(VecDeque::front).any(|pending| pending.is_over(now))
        })
    }

    fn release(&mut self, frame: &RawFrame) {
        let bytes = cost(frame);
        self.frames -= 1;
        self.bytes -= bytes;
        if let Some(taken) = self.by_host.get_mut(&frame.host()) {
            *taken -= bytes;
            if *taken == 0 {
                self.by_host.remove(&frame.host());
            }
        }
    }

    /// Sets the DID's timer: a first frame's deadline, or the next try if that is sooner.
    fn arm(&mut self, did: &DidKey) {
        let Some(wait) = self.by_did.get_mut(did) else { return };
        let fronts = wait.lanes.iter().filter_map(VecDeque::front);
        let holds = wait.waits_for_store();
        let deadlines = fronts.filter_map(|pending| pending.deadline.filter(|_| !holds));
        let at = deadlines.chain(wait.retry.map(|(at, _)| at)).min();
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

fn cost(frame: &RawFrame) -> usize {
    frame.bytes().len() + FRAME_OVERHEAD_BYTES
}
