//! All hosts: rows, state machines, the schedule of attempts, and what is to be written.
//!
//! Synchronous and without IO: inputs are `handle_*`, outputs are queued effects which the driver
//! carries out.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ports::{
    HostFault, HostId, HostProgress, HostSeq, HostSocket, ShardCommand, SlowReason, Strictness,
};

use super::{
    budget::BudgetConfig,
    entry::{Clock, Entry, HostLive},
    limits::{TRUSTED_ACCOUNT_LIMIT, is_trusted},
    machine::{Attempt, Reason, RetryConfig},
};
use crate::{
    dial::HostAddress,
    store::{HostPatch, HostRow, HostStatus},
};

/// Which host a name is. Written by the registry, read by identity look-ups.
#[derive(Clone, Debug, Default)]
pub struct HostNames(Arc<Mutex<HashMap<Box<str>, HostId>>>);

impl HostNames {
    /// The host with this normalised name (`name`, or `name:port`).
    pub fn id(&self, hostname: &str) -> Option<HostId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hostname).copied()
    }

    pub(crate) fn insert(&self, hostname: &str, id: HostId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(hostname.into(), id);
    }
}

/// What the driver is to do.
#[derive(Debug)]
pub(super) enum Effect {
    Dial {
        host: HostId,
        attempt: Attempt,
        address: HostAddress,
    },
    /// To the host's home shard.
    Command(HostId, ShardCommand),
    /// What changed is to be written now rather than in a while.
    Flush,
}

/// What is to be written to the store.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) progress: Vec<HostProgress>,
    pub(super) patches: Vec<(HostId, HostPatch)>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.progress.is_empty() && self.patches.is_empty()
    }

    pub(super) fn hosts(&self) -> Vec<HostId> {
        let moved = self.progress.iter().map(|progress| progress.host);
        moved.chain(self.patches.iter().map(|(host, _)| *host)).collect()
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RegistryConfig {
    pub(super) retry: RetryConfig,
    pub(super) budget: BudgetConfig,
    pub(super) dials_max: usize,
    /// Of a host that has none of its own.
    pub(super) strictness: Strictness,
    pub(super) account_limit: u64,
}

#[derive(Debug)]
pub(super) struct Registry {
    config: RegistryConfig,
    clock: Clock,
    seed: u64,
    entries: HashMap<HostId, Entry>,
    names: HostNames,
    bans: BTreeSet<String>,
    /// Patterns of names whose hosts are trusted.
    trusted: Vec<String>,
    /// Attempts by time. An entry whose machine has another time by now counts for nothing.
    schedule: BinaryHeap<Reverse<(Instant, HostId)>>,
    dialing: usize,
    stopped: bool,
    effects: VecDeque<Effect>,
    moved: BTreeSet<HostId>,
    changed: BTreeSet<HostId>,
}

impl Registry {
    pub(super) fn new(
        config: RegistryConfig,
        seed: u64,
        bans: Vec<String>,
        trusted: Vec<String>,
        now: Instant,
    ) -> Self {
        Self {
            config,
            clock: Clock::new(now),
            seed,
            entries: HashMap::new(),
            names: HostNames::default(),
            bans: bans.into_iter().collect(),
            trusted,
            schedule: BinaryHeap::new(),
            dialing: 0,
            stopped: false,
            effects: VecDeque::new(),
            moved: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    pub(super) fn names(&self) -> HostNames {
        self.names.clone()
    }

    /// Takes up a row of the store. A row that is known already stays as it is.
    pub(super) fn add(&mut self, row: HostRow, emitted: Vec<HostSeq>, now: Instant) {
        let id = row.id;
        if self.entries.contains_key(&id) {
            return;
        }
        let seed = self.seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.names.insert(&row.hostname, id);
        let RegistryConfig { retry, budget, .. } = self.config;
        let entry = Entry::new(row, emitted, retry, budget, seed, self.clock, now);
        self.entries.insert(id, entry);
        self.apply_ban(id, now);
        self.plan(id);
    }

    pub(super) fn id(&self, hostname: &str) -> Option<HostId> {
        self.names.id(hostname)
    }

    pub(super) fn is_banned(&self, hostname: &str) -> bool {
        let known = self.id(hostname).and_then(|id| self.entries.get(&id));
        let status = known.map(|entry| entry.machine.standing().status);
        status == Some(HostStatus::Banned) || self.is_domain_banned(hostname)
    }

    /// Whether the name or a domain above it is banned.
    fn is_domain_banned(&self, hostname: &str) -> bool {
        let mut name = hostname;
        loop {
            if self.bans.contains(name) {
                return true;
            }
            match name.split_once('.') {
                Some((_, parent)) => name = parent,
                None => return false,
            }
        }
    }

    pub(super) fn is_healthy(&self, id: HostId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.machine.is_healthy())
    }

    /// A checked request to crawl a known host; `tls` as the asker spelled it.
    pub(super) fn handle_request(&mut self, id: HostId, tls: bool, admin: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        // Anybody may bring a host up to TLS, as it has been seen to answer so; only the operator
        // may take it down.
        if entry.row.tls != tls && (tls || admin) && !entry.machine.is_healthy() {
            entry.set_tls(tls);
            self.changed.insert(id);
        }
        entry.machine.handle_request(admin, now);
        self.plan(id);
    }

    /// As if a request had come for every host with this status.
    pub(super) fn recrawl(&mut self, status: HostStatus, now: Instant) -> u64 {
        let mut ids: Vec<HostId> = Vec::new();
        for (id, entry) in &mut self.entries {
            if entry.machine.standing().status == status && status != HostStatus::Banned {
                entry.machine.handle_request(true, now);
                ids.push(*id);
            }
        }
        for id in &ids {
            self.plan(*id);
        }
        ids.len() as u64
    }

    /// Starts attempts that are due, as many as there is room for.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while self.dialing < self.config.dials_max && !self.stopped {
            match self.schedule.peek() {
                Some(Reverse((due, _))) if *due <= now => {}
                _ => return,
            }
            let Some(Reverse((due, id))) = self.schedule.pop() else { return };
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if entry.machine.next_timeout() != Some(due) {
                continue;
            }
            if let Some(attempt) = entry.machine.poll_dial(now) {
                self.dialing += 1;
                let address =
                    HostAddress { hostname: entry.row.hostname.clone(), tls: entry.row.tls };
                self.effects.push_back(Effect::Dial { host: id, attempt, address });
            }
        }
    }

    /// When [`Registry::handle_timeout`] has something to do; `None` while all slots are taken.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        if self.dialing >= self.config.dials_max || self.stopped {
            return None;
        }
        self.schedule.peek().map(|Reverse((due, _))| *due)
    }

    pub(super) fn handle_dialed(
        &mut self,
        id: HostId,
        attempt: Attempt,
        stream: std::net::TcpStream,
    ) {
        self.dialing = self.dialing.saturating_sub(1);
        let strictness = self.config.strictness;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if self.stopped {
            return;
        }
        let (before, socket) = (entry.row.cursor, entry.dialed(attempt, stream, strictness));
        if entry.row.cursor != before {
            // A first contact: the socket waits for the store.
            self.changed.insert(id);
            self.effects.push_back(Effect::Flush);
        }
        self.hand_over(id, socket);
    }

    /// These hosts' rows are in the store.
    pub(super) fn handle_stored(&mut self, hosts: &[HostId]) {
        for id in hosts {
            if self.stopped {
                return;
            }
            let Some(entry) = self.entries.get_mut(id) else { continue };
            let socket = entry.release(self.config.strictness);
            self.hand_over(*id, socket);
        }
    }

    fn hand_over(&mut self, id: HostId, socket: Option<HostSocket>) {
        if let Some(socket) = socket {
            self.effects.push_back(Effect::Command(id, ShardCommand::Host(Box::new(socket))));
        }
    }

    pub(super) fn handle_dial_failed(
        &mut self,
        id: HostId,
        attempt: Attempt,
        error: String,
        now: Instant,
    ) {
        self.dialing = self.dialing.saturating_sub(1);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.dial_failed(attempt, error, now);
        self.changed.insert(id);
        self.plan(id);
    }

    pub(super) fn handle_open(&mut self, id: HostId, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.open(now);
        self.changed.insert(id);
    }

    pub(super) fn handle_closed(
        &mut self,
        id: HostId,
        fault: &HostFault,
        progressed: bool,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.close(fault, progressed, now);
        self.changed.insert(id);
        self.plan(id);
    }

    pub(super) fn handle_progress(&mut self, progress: HostProgress, now: Instant) {
        let id = progress.host;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let taken = entry.take_progress(progress, self.config.strictness, now);
        if taken.moved {
            self.moved.insert(id);
        }
        if taken.now_strict {
            tracing::info!(
                host = entry.row.hostname,
                "keeps the strict rules, and is held to them"
            );
            let command = ShardCommand::SetStrictness(id, Strictness::Strict);
            self.effects.push_back(Effect::Command(id, command));
            self.changed.insert(id);
        }
        if taken.drop {
            self.drop_connection(id);
        }
        if taken.quarantined {
            self.changed.insert(id);
            self.plan(id);
        }
    }

    pub(super) fn handle_slowed(
        &mut self,
        id: HostId,
        why: Option<SlowReason>,
        until: Option<u64>,
    ) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.set_slowed(why, until);
        }
    }

    /// How long the host is still in quarantine.
    pub(super) fn quarantined_for(&self, id: HostId, now: Instant) -> Option<Duration> {
        self.entries.get(&id)?.machine.quarantined_for(now)
    }

    /// Blocks a host. Returns false if there is no such host.
    pub(super) fn block(&mut self, id: HostId, reason: Reason) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        if entry.machine.handle_block(reason) {
            self.drop_connection(id);
        }
        self.changed.insert(id);
        true
    }

    /// Lifts a block; a ban of the host's domain stays in force.
    pub(super) fn unblock(&mut self, id: HostId, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.machine.handle_unblock(now);
        self.apply_ban(id, now);
        self.changed.insert(id);
        self.plan(id);
        true
    }

    /// Disconnects a host without blocking it. Returns whether it was connected.
    pub(super) fn stop(&mut self, id: HostId) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let connected = entry.machine.handle_stop();
        if connected {
            self.drop_connection(id);
            self.changed.insert(id);
        }
        connected
    }

    /// Moves a host's cursor by the operator's wish, and reconnects. `None`: at the live position.
    pub(super) fn reset_cursor(
        &mut self,
        id: HostId,
        cursor: Option<HostSeq>,
        now: Instant,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        if entry.reset_cursor(cursor, now) {
            self.drop_connection(id);
        }
        self.changed.insert(id);
        self.plan(id);
        true
    }

    /// Replaces the patterns of trusted names. Returns the hosts whose trust changes by it, and what
    /// is to be stored for them.
    pub(super) fn set_trusted(&mut self, trusted: Vec<String>) -> Vec<(HostId, HostPatch)> {
        let before = std::mem::replace(&mut self.trusted, trusted);
        let account_limit = self.config.account_limit;
        let patches = self.entries.values().filter_map(|entry| {
            let name = entry.row.hostname.as_str();
            let (was, is) = (is_trusted(&before, name), is_trusted(&self.trusted, name));
            let limit = entry.row.account_limit;
            let limit = match (was, is) {
                (false, true) => limit.max(TRUSTED_ACCOUNT_LIMIT),
                // A limit that the operator set stays.
                (true, false) if limit == TRUSTED_ACCOUNT_LIMIT => account_limit,
                (true, false) => limit,
                _ => return None,
            };
            let patch =
                HostPatch { trusted: Some(is), account_limit: Some(limit), ..HostPatch::default() };
            Some((entry.id(), patch))
        });
        patches.collect()
    }

    pub(super) fn is_trusted(&self, hostname: &str) -> bool {
        is_trusted(&self.trusted, hostname)
    }

    /// Replaces the banned domains: live connections of newly banned ones are cut, hosts that were
    /// out only for a ban that is gone come back.
    pub(super) fn set_bans(&mut self, bans: Vec<String>, now: Instant) {
        self.bans = bans.into_iter().collect();
        let ids: Vec<HostId> = self.entries.keys().copied().collect();
        for id in ids {
            self.apply_ban(id, now);
        }
    }

    fn apply_ban(&mut self, id: HostId, now: Instant) {
        let Some(entry) = self.entries.get(&id) else { return };
        let banned = self.is_domain_banned(&entry.row.hostname);
        let standing = entry.machine.standing();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if banned && standing.status != HostStatus::Banned {
            self.block(id, Reason::DomainBan);
        } else if !banned && standing.reason == Reason::DomainBan {
            entry.machine.handle_unblock(now);
            self.changed.insert(id);
            self.plan(id);
        }
    }

    /// Sets the strictness of hosts without one of their own, if it is given; returns what holds.
    pub(super) fn set_default_strictness(&mut self, strictness: Option<Strictness>) -> Strictness {
        let before = self.config.strictness;
        let Some(now) = strictness else { return before };
        self.config.strictness = now;
        for (id, entry) in &self.entries {
            if entry.strictness(before) != entry.strictness(now) {
                let command = ShardCommand::SetStrictness(*id, entry.strictness(now));
                self.effects.push_back(Effect::Command(*id, command));
            }
        }
        now
    }

    /// The row as it is in the store after a change made by the operator.
    pub(super) fn handle_row(&mut self, row: HostRow, now: Instant) {
        let id = row.id;
        let default = self.config.strictness;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (strictness, limits) = (entry.strictness(default), entry.limits());
        entry.replace_row(row, now);
        if strictness != entry.strictness(default) {
            let command = ShardCommand::SetStrictness(id, entry.strictness(default));
            self.effects.push_back(Effect::Command(id, command));
        }
        if limits != entry.limits() {
            let command = ShardCommand::SetHostLimits(id, entry.limits());
            self.effects.push_back(Effect::Command(id, command));
        }
        self.changed.insert(id);
    }

    /// The last batch did not come to the store.
    pub(super) fn write_again(&mut self, hosts: &[HostId]) {
        for id in hosts {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.unsure = true;
                self.changed.insert(*id);
            }
        }
    }

    /// No more attempts: the relay is shutting down.
    pub(super) fn stop_dialing(&mut self) {
        self.stopped = true;
    }

    pub(super) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What changed since the last batch.
    pub(super) fn take_batch(&mut self, now: Instant) -> Batch {
        let mut batch = Batch::default();
        for id in std::mem::take(&mut self.changed) {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let patch = entry.take_patch(now);
            if patch != HostPatch::default() {
                batch.patches.push((id, patch));
            }
        }
        for id in std::mem::take(&mut self.moved) {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            batch.progress.extend(entry.progress.take());
        }
        batch
    }

    pub(super) fn live(&self, id: HostId, now: Instant) -> Option<HostLive> {
        let default = self.config.strictness;
        self.entries.get(&id).map(|entry| entry.live(default, now))
    }

    pub(super) fn live_all(&self, now: Instant) -> HashMap<HostId, HostLive> {
        let default = self.config.strictness;
        self.entries.iter().map(|(id, entry)| (*id, entry.live(default, now))).collect()
    }

    fn drop_connection(&mut self, id: HostId) {
        self.effects.push_back(Effect::Command(id, ShardCommand::DropHost(id)));
    }

    fn plan(&mut self, id: HostId) {
        let due = self.entries.get(&id).and_then(|entry| entry.machine.next_timeout());
        if let Some(due) = due {
            self.schedule.push(Reverse((due, id)));
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
