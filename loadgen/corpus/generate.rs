//! Makes a corpus on all cores. The schedule (which account acts when) comes first, from the seed
//! alone; then each core takes whole hosts and makes their streams in order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ecdsa::Curve;

use super::{Corpus, CorpusAccount, CorpusSpec, EventKind, EventMeta, HostLog};
use crate::random::Random;
use crate::repo::{Account, Stamp, Write, record};
use crate::wire;

/// 2025-06-01. Revs may be old; they must only rise.
const EPOCH_MICROS: u64 = 1_748_736_000_000_000;
const MICROS_PER_EVENT: u64 = 500;
/// Handles hardly ever change. A relay rightly paces who asks for a new look-up all the time.
const IDENTITIES_MAX: u32 = 2;

const SHARE_UPDATE: f64 = 0.08;
const SHARE_DELETE: f64 = 0.10;
const SHARE_MULTI: f64 = 0.018;
const SHARE_EMPTY: f64 = 0.002;

/// What one host's stream becomes before the parts are joined.
struct HostPart {
    host: u32,
    log: HostLog,
    accounts: Vec<(u32, CorpusAccount)>,
    events: Vec<(u32, EventMeta)>,
}

/// An account with what the generator must remember of it.
struct Actor {
    account: Account,
    random: Random,
    paths: Vec<String>,
    /// Whether its opening commit is out.
    opened: bool,
    identities: u32,
}

pub fn generate(spec: &CorpusSpec) -> Corpus {
    let schedule = schedule(spec);
    let mut events_of_host = vec![Vec::new(); spec.hosts as usize];
    for (event, account) in schedule.iter().enumerate() {
        events_of_host[(account % spec.hosts) as usize].push(event as u32);
    }
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut parts: Vec<HostPart> = thread::scope(|scope| {
        let work = || {
            let mut parts = Vec::new();
            loop {
                let host = next.fetch_add(1, Ordering::Relaxed);
                let Some(events) = events_of_host.get(host) else { return parts };
                parts.push(generate_host(spec, host as u32, events, &schedule));
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("generator panicked"));
        joined.flatten().collect()
    });
    parts.sort_by_key(|part| part.host);
    join(spec, parts)
}

/// The account that acts at each place: each once in order, then at random.
fn schedule(spec: &CorpusSpec) -> Vec<u32> {
    let mut random = Random::for_part(spec.seed, u64::MAX);
    let accounts = f64::from(spec.accounts);
    // Accounts differ in how busy they are: with 1000 of them, the first has 1 % of the events.
    let drawn = (0..spec.events).map(|_| {
        let share = random.unit();
        (share * share.sqrt() * accounts) as u32
    });
    (0..spec.accounts).chain(drawn).collect()
}

fn join(spec: &CorpusSpec, parts: Vec<HostPart>) -> Corpus {
    let mut accounts: Vec<(u32, CorpusAccount)> = Vec::with_capacity(spec.accounts as usize);
    let mut events: Vec<(u32, EventMeta)> = Vec::with_capacity(spec.total_events() as usize);
    let mut hosts = Vec::with_capacity(parts.len());
    for part in parts {
        accounts.extend(part.accounts);
        events.extend(part.events);
        hosts.push(part.log);
    }
    accounts.sort_by_key(|(index, _)| *index);
    events.sort_by_key(|(number, _)| *number);
    Corpus {
        spec: spec.clone(),
        accounts: accounts.into_iter().map(|(_, account)| account).collect(),
        hosts,
        events: events.into_iter().map(|(_, event)| event).collect(),
    }
}

fn generate_host(spec: &CorpusSpec, host: u32, events: &[u32], schedule: &[u32]) -> HostPart {
    let mut actors: Vec<Actor> = Vec::new();
    let mut accounts: Vec<(u32, CorpusAccount)> = Vec::new();
    for index in (host..spec.accounts).step_by(spec.hosts as usize) {
        let actor = Actor::new(spec, index);
        accounts.push((index, actor.describe(host)));
        actors.push(actor);
    }
    let mut part = HostPart { host, log: HostLog::default(), accounts, events: Vec::new() };
    part.log.bytes.reserve(events.len() * 3600);
    for (index, &event) in events.iter().enumerate() {
        let account = schedule[event as usize];
        let slot = (account / spec.hosts) as usize;
        let stamp = Stamp { seq: index as u64 + 1, micros: event_micros(event) };
        let (kind, frame) = actors[slot].next_frame(spec, stamp);
        let (seq_start, seq_len) = seq_span(&frame);
        wire::write_binary_header(frame.len(), &mut part.log.bytes);
        part.log.bytes.extend_from_slice(&frame);
        part.log.ends.push(part.log.bytes.len() as u64);
        part.log.events.push(event);
        part.accounts[slot].1.events.push(event);
        let index = index as u32;
        part.events.push((event, EventMeta { account, host, index, kind, seq_start, seq_len }));
    }
    part.log.bytes.shrink_to_fit();
    part
}

fn event_micros(event: u32) -> u64 {
    EPOCH_MICROS + u64::from(event) * MICROS_PER_EVENT
}

/// Where the seq integer stands, as the relay's own parser sees it.
fn seq_span(frame: &[u8]) -> (u32, u8) {
    let event = protocol::frame::parse(frame).expect("a frame made here is well-formed");
    (event.seq_span.start as u32, event.seq_span.len() as u8)
}

impl Actor {
    fn new(spec: &CorpusSpec, index: u32) -> Self {
        let mut random = Random::for_part(spec.seed, u64::from(index));
        let curve = if random.chance(spec.p256_share) { Curve::P256 } else { Curve::K256 };
        let mut account = Account::new(spec.seed, u64::from(index), curve);
        let mut paths = Vec::with_capacity(spec.prefill as usize + 64);
        let mut micros = EPOCH_MICROS - u64::from(spec.prefill) * 86_400_000_000;
        for _ in 0..spec.prefill {
            micros += 1 + random.below(86_400_000_000 - 1);
            paths.push(record::path(&mut random, micros));
        }
        let cids: Vec<_> = paths.iter().map(|_| record::earlier_record(&mut random)).collect();
        account.prefill(paths.iter().map(String::as_str).zip(cids), EPOCH_MICROS - 1);
        Self { account, random, paths, opened: false, identities: 0 }
    }

    fn describe(&self, host: u32) -> CorpusAccount {
        CorpusAccount {
            did: self.account.did().to_owned(),
            handle: self.account.handle().to_owned(),
            host,
            curve: self.account.curve(),
            key: self.account.verifying_key(),
            events: Vec::new(),
        }
    }

    fn next_frame(&mut self, spec: &CorpusSpec, stamp: Stamp) -> (EventKind, Vec<u8>) {
        if !self.account.is_active() {
            return (EventKind::Activate, self.account.activate(stamp));
        }
        let mut share = if self.opened { self.random.unit() } else { 1.0 };
        self.opened = true;
        if share < spec.identity_share {
            if self.identities < IDENTITIES_MAX {
                self.identities += 1;
                return (EventKind::Identity, self.account.identity(stamp));
            }
            share = 1.0;
        }
        share -= spec.identity_share;
        if share < spec.deactivate_share {
            return (EventKind::Deactivate, self.account.deactivate(stamp));
        }
        share -= spec.deactivate_share;
        let writes = self.writes(stamp.micros);
        let writes: Vec<Write<'_>> = writes.iter().map(PlannedWrite::borrow).collect();
        if share < spec.sync_share {
            // Changes that consumers never see as operations, as after a repair.
            drop(self.account.commit(stamp, &writes));
            let later = Stamp { micros: stamp.micros + 1, ..stamp };
            return (EventKind::Sync, self.account.sync(later));
        }
        (EventKind::Commit, self.account.commit(stamp, &writes))
    }

    fn writes(&mut self, micros: u64) -> Vec<PlannedWrite> {
        let share = self.random.unit();
        if share < SHARE_EMPTY {
            return Vec::new();
        }
        if share < SHARE_EMPTY + SHARE_UPDATE && !self.paths.is_empty() {
            return vec![self.update(micros)];
        }
        if share < SHARE_EMPTY + SHARE_UPDATE + SHARE_DELETE && !self.paths.is_empty() {
            return vec![self.delete()];
        }
        let multi = share > 1.0 - SHARE_MULTI;
        let count = if multi { 2 + self.random.below(9) } else { 1 };
        let mut writes = Vec::new();
        if multi && self.paths.len() > 2 {
            // Taken out of the known paths, so that nothing else touches it in this commit.
            let (update, delete) = (self.update(micros), self.delete());
            if update.path != delete.path {
                writes.push(update);
            }
            writes.push(delete);
        }
        for offset in 0..count {
            writes.push(self.create(micros + offset));
        }
        writes
    }

    fn create(&mut self, micros: u64) -> PlannedWrite {
        let mut path = record::path(&mut self.random, micros);
        while self.account.contains(&path) {
            path = record::path(&mut self.random, micros);
        }
        let record = record::record(&mut self.random, &path, micros);
        self.paths.push(path.clone());
        PlannedWrite { path, record: Some(record), create: true }
    }

    fn update(&mut self, micros: u64) -> PlannedWrite {
        let path = self.random.pick(&self.paths).clone();
        let record = record::record(&mut self.random, &path, micros);
        PlannedWrite { path, record: Some(record), create: false }
    }

    fn delete(&mut self) -> PlannedWrite {
        let slot = self.random.below(self.paths.len() as u64) as usize;
        let path = self.paths.swap_remove(slot);
        PlannedWrite { path, record: None, create: false }
    }
}

struct PlannedWrite {
    path: String,
    record: Option<Vec<u8>>,
    create: bool,
}

impl PlannedWrite {
    fn borrow(&self) -> Write<'_> {
        let path = self.path.as_str();
        match &self.record {
            Some(record) if self.create => Write::Create { path, record },
            Some(record) => Write::Update { path, record },
            None => Write::Delete { path },
        }
    }
}
