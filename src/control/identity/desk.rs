//! The identity desk: answers from the cache, joins those who ask the same, and decides what is
//! fetched when. Pure: no IO, time is an argument.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use ecdsa::VerifyingKey;
use ports::HostId;
use protocol::{did_doc::Endpoint, syntax::did};

use super::{IdentityConfig, IdentityStats, queue::FairQueue};
use crate::{bucket::TokenBucket, cache::Cache};

/// A DID document as far as a relay needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub key: Option<VerifyingKey>,
    /// Absent: the account has no PDS.
    pub pds: Option<Endpoint>,
    pub handle: Option<Box<str>>,
    /// Unix seconds.
    pub fetched_at: u64,
}

/// How a fetch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FetchOutcome {
    Found(Document),
    /// A definite no.
    NotFound,
    /// No answer worth the name.
    Unavailable {
        retry_after: Option<Duration>,
    },
}

/// What those who asked are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) result: AnswerResult,
    /// Fetched for this question.
    pub(super) fresh: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AnswerResult {
    Found(Arc<Document>),
    NotFound,
    Unavailable,
}

/// How much a cached document is worth to who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// One from the cache will do.
    Any,
    /// There may be something newer: worth a moment, but not to wait for a directory in trouble.
    Newer,
    /// What is known will not do: worth all the time that there is.
    Other,
}

/// A question.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) did: &'a str,
    pub(super) sender: HostId,
    pub(super) need: Need,
    /// What the store holds, and how old it is.
    pub(super) stored: Option<(Document, Duration)>,
}

/// A directory to ask, with places for requests under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Plc = 0,
    Web = 1,
}

/// What a DID's last fetch led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Found,
    NotFound,
    Failed,
}

#[derive(Debug)]
struct Entry {
    /// The last good document, also while newer fetches fail.
    document: Option<Arc<Document>>,
    verdict: Verdict,
    /// Until then the verdict stands without asking again.
    expires: Instant,
    /// Fetches on demand are paid for in advance up to then; `None`: the document came from the store.
    paid_until: Option<Instant>,
    /// Since when every fetch has failed.
    failing_since: Option<Instant>,
}

impl Entry {
    fn result(&self, need: Need) -> AnswerResult {
        match (self.verdict, &self.document) {
            (Verdict::Found, Some(document)) => AnswerResult::Found(Arc::clone(document)),
            (Verdict::NotFound, _) => AnswerResult::NotFound,
            // The old document is better than none, unless it is known not to do.
            (Verdict::Failed, Some(document)) if need == Need::Any => {
                AnswerResult::Found(Arc::clone(document))
            }
            _ => AnswerResult::Unavailable,
        }
    }
}

/// A DID that is being found out about.
#[derive(Debug)]
struct Pending<T> {
    /// Nobody, where an old document is being renewed.
    waiters: Vec<Waiter<T>>,
    sender: HostId,
    method: Method,
    state: State,
    /// Then it is given up if nobody waits, unless a request is under way.
    deadline: Instant,
}

#[derive(Debug)]
struct Waiter<T> {
    ticket: T,
    need: Need,
    /// Then it waits no longer, unless a request is under way.
    deadline: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Fetched or failed a moment ago: to be queued then.
    Delayed(Instant),
    Queued,
    InFlight,
}

#[derive(Debug)]
struct Lane {
    queue: FairQueue<Box<str>>,
    in_flight: usize,
    in_flight_max: usize,
    by_sender: HashMap<HostId, usize>,
    by_sender_max: usize,
    bucket: TokenBucket,
    /// Failures since the last reply; only counted for a directory shared by all.
    failures: u32,
    /// Nothing is sent before.
    open_at: Instant,
    shared: bool,
}

/// So many failures in a row mean that the directory is in trouble.
const FAILURES_TROUBLE: u32 = 5;
/// The longest pause between trials of a directory in trouble that names no time itself.
const TROUBLE_PAUSE_MAX: Duration = Duration::from_secs(5);

impl Lane {
    fn in_trouble(&self) -> bool {
        self.failures >= FAILURES_TROUBLE
    }

    fn next_send(&self, now: Instant) -> Option<Instant> {
        let places = if self.in_trouble() { 1 } else { self.in_flight_max };
        if self.in_flight >= places || !self.queue.has(|sender| self.is_free(sender)) {
            return None;
        }
        Some(self.bucket.next(now).max(self.open_at))
    }

    fn pop(&mut self) -> Option<(HostId, Box<str>)> {
        let (by_sender, max) = (&self.by_sender, self.by_sender_max);
        self.queue.pop(|sender| by_sender.get(&sender).is_none_or(|count| *count < max))
    }

    fn is_free(&self, sender: HostId) -> bool {
        self.by_sender.get(&sender).is_none_or(|count| *count < self.by_sender_max)
    }

    fn begin(&mut self, sender: HostId) {
        self.in_flight += 1;
        *self.by_sender.entry(sender).or_default() += 1;
    }

    fn end(&mut self, sender: HostId) {
        self.in_flight -= 1;
        if let Some(count) = self.by_sender.get_mut(&sender) {
            *count -= 1;
            if *count == 0 {
                self.by_sender.remove(&sender);
            }
        }
    }

    fn note(&mut self, outcome: &FetchOutcome, now: Instant) {
        if !self.shared {
            return;
        }
        let FetchOutcome::Unavailable { retry_after } = outcome else {
            self.failures = 0;
            return;
        };
        if let Some(pause) = retry_after {
            self.open_at = self.open_at.max(now + *pause);
        }
        // Requests that were under way together count once.
        if self.failures < FAILURES_TROUBLE || now >= self.open_at {
            self.failures = self.failures.saturating_add(1);
            if let Some(level) = self.failures.checked_sub(FAILURES_TROUBLE) {
                let pause = Duration::from_secs(1 << level.min(4)).min(TROUBLE_PAUSE_MAX);
                self.open_at = self.open_at.max(now + pause);
            }
        }
    }
}

/// `T` is whatever the driver needs to give an answer back.
#[derive(Debug)]
pub(super) struct Desk<T> {
    config: IdentityConfig,
    cache: Cache<Entry>,
    pending: HashMap<Box<str>, Pending<T>>,
    lanes: [Lane; 2],
    /// When a DID is to be queued or given up; what no longer holds is stepped over.
    timers: BinaryHeap<Reverse<(Instant, Box<str>)>>,
    answers: VecDeque<(T, Answer)>,
    stats: IdentityStats,
}

impl<T> Desk<T> {
    pub(super) fn new(config: IdentityConfig, now: Instant) -> Self {
        let lane = |in_flight_max, by_sender_max, rate: f64, burst: f64, shared| Lane {
            queue: FairQueue::new(config.queue_per_sender_max, config.queue_max),
            in_flight: 0,
            in_flight_max,
            by_sender: HashMap::new(),
            by_sender_max,
            bucket: TokenBucket::new(rate, burst, now),
            failures: 0,
            open_at: now,
            shared,
        };
        let plc_rate = f64::from(config.plc_requests_per_second);
        let (plc, web) = (config.plc_in_flight_max, config.web_in_flight_max);
        let lanes = [
            lane(plc, plc.div_ceil(2), plc_rate, plc_rate, true),
            // Each did:web is a server of its sender's choice, which may be slow on purpose.
            lane(web, web.div_ceil(8), 1e6, 1e6, false),
        ];
        Self {
            cache: Cache::new(config.cache_entries_max),
            config,
            pending: HashMap::new(),
            lanes,
            timers: BinaryHeap::new(),
            answers: VecDeque::new(),
            stats: IdentityStats::default(),
        }
    }

    /// Takes a question; the answer comes out of [`Desk::poll_answer`], now or later.
    pub(super) fn handle_ask(&mut self, mut ask: Ask<'_>, ticket: T, now: Instant) {
        let Some(method) = method(ask.did) else {
            let answer = Answer { result: AnswerResult::NotFound, fresh: false };
            self.answers.push_back((ticket, answer));
            return;
        };
        self.take_stored(ask.did, ask.stored.take(), now);
        if let Some((result, current)) = self.cached(ask.did, ask.need, method, now) {
            self.stats.hits += 1;
            self.answers.push_back((ticket, Answer { result, fresh: false }));
            if !current && !self.pending.contains_key(ask.did) {
                self.begin(&ask, method, None, now);
            }
            return;
        }
        let deadline = now + self.patience(ask.need, method);
        let waiter = Waiter { ticket, need: ask.need, deadline };
        if let Some(pending) = self.pending.get_mut(ask.did) {
            self.stats.joined += 1;
            pending.waiters.push(waiter);
            self.timers.push(Reverse((deadline, ask.did.into())));
            return;
        }
        self.begin(&ask, method, Some(waiter), now);
    }

    fn patience(&self, need: Need, method: Method) -> Duration {
        match (need, method) {
            (Need::Any, _) => self.config.queue_wait_max,
            (Need::Newer, _) => self.config.newer_wait_max,
            (Need::Other, Method::Plc) => self.config.other_wait_max,
            (Need::Other, Method::Web) => self.config.web_wait_max,
        }
    }

    fn begin(&mut self, ask: &Ask<'_>, method: Method, waiter: Option<Waiter<T>>, now: Instant) {
        let pending = Pending {
            waiters: waiter.into_iter().collect(),
            sender: ask.sender,
            method,
            state: State::Delayed(self.due(ask.did, ask.need, now)),
            deadline: now + self.patience(ask.need, method),
        };
        self.timers.push(Reverse((pending.deadline, ask.did.into())));
        self.delay(ask.did.into(), pending, now);
    }

    /// Puts a DID that is to be fetched into its queue, or notes when to.
    fn delay(&mut self, did: Box<str>, mut pending: Pending<T>, now: Instant) {
        match pending.state {
            State::Delayed(due) if due > now => self.timers.push(Reverse((due, did.clone()))),
            _ => {
                pending.state = State::Queued;
                if !self.lane(pending.method).queue.push(pending.sender, did.clone()) {
                    return self.give_up(&did, pending.waiters);
                }
            }
        }
        self.pending.insert(did, pending);
    }

    /// From when on the DID may be fetched (again).
    fn due(&mut self, did: &str, need: Need, now: Instant) -> Instant {
        let ahead = self.config.fresh_gap * self.config.fresh_burst.saturating_sub(1);
        let paid_until = self.cache.get(did).and_then(|entry| entry.paid_until);
        paid_until.filter(|_| need != Need::Any).and_then(|at| at.checked_sub(ahead)).unwrap_or(now)
    }

    fn give_up(&mut self, did: &str, waiters: impl IntoIterator<Item = Waiter<T>>) {
        for waiter in waiters {
            self.stats.turned_away += 1;
            let result = self.fallback(did, waiter.need);
            self.answers.push_back((waiter.ticket, Answer { result, fresh: false }));
        }
    }

    /// The next DID to fetch, which thereby is under way.
    pub(super) fn poll_fetch(&mut self, now: Instant) -> Option<(Box<str>, Method)> {
        for lane in &mut self.lanes {
            while lane.next_send(now).is_some_and(|at| at <= now) {
                let Some((_, did)) = lane.pop() else { break };
                // Those who gave up waiting are in the queue but no longer here.
                let Some(pending) = self.pending.get_mut(&did) else { continue };
                if pending.state != State::Queued {
                    continue;
                }
                pending.state = State::InFlight;
                lane.bucket.take(now);
                lane.begin(pending.sender);
                return Some((did, pending.method));
            }
        }
        None
    }

    pub(super) fn handle_fetched(&mut self, did: &str, outcome: FetchOutcome, now: Instant) {
        let Some(pending) = self.pending.remove(did) else { return };
        let lane = self.lane(pending.method);
        lane.end(pending.sender);
        lane.note(&outcome, now);
        let cached = self.cache.get(did);
        let paid_until = cached.as_ref().and_then(|entry| entry.paid_until);
        let paid_until = paid_until.map_or(now, |at| at.max(now)) + self.config.fresh_gap;
        let failing_since = cached.as_ref().and_then(|entry| entry.failing_since).unwrap_or(now);
        let previous = cached.and_then(|entry| entry.document.take());
        // The directory is waited for; a server of the account's own that is not there is an answer.
        let gone = pending.method == Method::Web
            && previous.is_none()
            && now.saturating_duration_since(failing_since) >= self.config.web_wait_max;
        let (verdict, document, ttl) = match outcome {
            FetchOutcome::Found(document) => {
                self.stats.found += 1;
                (Verdict::Found, Some(Arc::new(document)), self.config.ttl_found)
            }
            FetchOutcome::Unavailable { .. } if gone => {
                self.stats.unavailable += 1;
                (Verdict::NotFound, None, self.config.ttl_not_found)
            }
            FetchOutcome::NotFound => {
                self.stats.not_found += 1;
                (Verdict::NotFound, None, self.config.ttl_not_found)
            }
            FetchOutcome::Unavailable { .. } => {
                self.stats.unavailable += 1;
                (Verdict::Failed, previous, self.config.ttl_failed)
            }
        };
        let failed = verdict == Verdict::Failed;
        let entry = Entry {
            document,
            verdict,
            expires: now + ttl,
            paid_until: Some(paid_until),
            failing_since: (failed || gone).then_some(failing_since),
        };
        let again = now + self.config.fresh_gap;
        let mut insisting = Vec::new();
        for waiter in pending.waiters {
            if failed && waiter.need != Need::Any && again < waiter.deadline {
                insisting.push(waiter);
                continue;
            }
            let answer = Answer { result: entry.result(waiter.need), fresh: !failed };
            self.answers.push_back((waiter.ticket, answer));
        }
        self.cache.insert(did, entry);
        if !insisting.is_empty() {
            // What was known will not do: the directory's trouble is sat out.
            let state = State::Delayed(again);
            self.delay(did.into(), Pending { waiters: insisting, state, ..pending }, now);
        }
    }

    /// Queues what may be fetched again, and lets those go who have waited for too long.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while self.timers.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, did))) = self.timers.pop() else { return };
            let Some(pending) = self.pending.get_mut(&did) else { continue };
            if pending.state == State::InFlight {
                continue;
            }
            let over: Vec<_> =
                pending.waiters.extract_if(.., |waiter| waiter.deadline <= now).collect();
            let done = pending.waiters.is_empty() && pending.deadline <= now;
            let done = done || (pending.waiters.is_empty() && !over.is_empty());
            let due = matches!(pending.state, State::Delayed(due) if due <= now);
            if done || due {
                let pending = self.pending.remove(&did);
                if let Some(pending) = pending.filter(|_| !done) {
                    self.delay(did.clone(), pending, now);
                }
            }
            self.give_up(&did, over);
        }
    }

    pub(super) fn poll_answer(&mut self) -> Option<(T, Answer)> {
        self.answers.pop_front()
    }

    pub(super) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        self.lanes.iter().filter_map(|lane| lane.next_send(now)).chain(timer).min()
    }

    pub(super) fn stats(&self) -> IdentityStats {
        IdentityStats {
            cached: self.cache.len() as u64,
            queued: self.lanes.iter().map(|lane| lane.queue.len() as u64).sum(),
            in_flight: self.lanes.iter().map(|lane| lane.in_flight as u64).sum(),
            directory_in_trouble: self.lanes.iter().any(Lane::in_trouble),
            ..self.stats.clone()
        }
    }

    fn lane(&mut self, method: Method) -> &mut Lane {
        let [plc, web] = &mut self.lanes;
        match method {
            Method::Plc => plc,
            Method::Web => web,
        }
    }

    /// What the store holds is as good as the cache, as far as it is not too old.
    fn take_stored(&mut self, did: &str, stored: Option<(Document, Duration)>, now: Instant) {
        let Some((document, age)) = stored else { return };
        if self.cache.get(did).is_none() {
            let entry = Entry {
                document: Some(Arc::new(document)),
                verdict: Verdict::Found,
                expires: now + self.config.ttl_found.saturating_sub(age),
                paid_until: None,
                failing_since: None,
            };
            self.cache.insert(did, entry);
        }
    }

    /// What the cache has for the question, and whether that is up to date.
    fn cached(
        &mut self,
        did: &str,
        need: Need,
        method: Method,
        now: Instant,
    ) -> Option<(AnswerResult, bool)> {
        let lane = self.lane(method);
        let closed = lane.in_trouble() && now < lane.open_at;
        let stale_max = self.config.stale_max;
        let entry = self.cache.get(did)?;
        match need {
            Need::Other => return None,
            // The directory is known to be down: there is nothing newer to be had.
            Need::Newer if closed => return Some((AnswerResult::Unavailable, true)),
            Need::Newer => return None,
            Need::Any => {}
        }
        let current = now < entry.expires;
        // An old document is used at once and renewed meanwhile: should it no longer fit, the
        // signature or the host will tell.
        let stale = entry.document.is_some() && (closed || now < entry.expires + stale_max);
        (current || stale).then(|| (entry.result(need), current || closed))
    }

    fn fallback(&mut self, did: &str, need: Need) -> AnswerResult {
        match self.cache.get(did).and_then(|entry| entry.document.clone()) {
            Some(document) if need == Need::Any => AnswerResult::Found(document),
            _ => AnswerResult::Unavailable,
        }
    }
}

/// How to resolve the DID; `None` if it can't be, whatever a directory may say.
fn method(text: &str) -> Option<Method> {
    if did::is_plc(text) {
        return Some(Method::Plc);
    }
    did::web_authority(text).map(|_| Method::Web)
}

#[cfg(test)]
mod tests;
