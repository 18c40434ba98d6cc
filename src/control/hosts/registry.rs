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
    HostFault, HostId, HostLimits, HostProgress, HostResume, HostSeq, HostSocket, ShardCommand,
    Strictness,
};

use super::machine::{Attempt, HostMachine, Reason, RetryConfig, Standing};
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

/// A host as the relay sees it now, beside its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLive {
    pub status: HostStatus,
    pub status_reason: Option<&'static str>,
    /// The WebSocket is open.
    pub connected: bool,
    /// `waiting`, `dialing`, `handshaking`, `open`, `stopping` or `barred`.
    pub phase: &'static str,
    /// Failed attempts in a row.
    pub failures: u32,
    /// Until the next attempt, if one is planned.
    pub next_attempt_in: Option<Duration>,
    pub cursor: Option<HostSeq>,
    /// Since the process started.
    pub received: u64,
    pub forwarded: u64,
    pub refused: u64,
    pub last_error: Option<String>,
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

#[derive(Debug)]
struct Entry {
    row: HostRow,
    machine: HostMachine,
    /// Events above the stored cursor that the log had at start.
    emitted: Vec<HostSeq>,
    received: u64,
    forwarded: u64,
    refused: u64,
    progress: Option<HostProgress>,
    /// An error that the row does not have yet.
    error: Option<String>,
    /// The stored cursor is not this one, and not for lack of progress.
    cursor_moved: bool,
    tls_moved: bool,
    /// The row could not be written: all of it that is kept here is written again.
    unsure: bool,
}

#[derive(Debug)]
pub(super) struct Registry {
    retry: RetryConfig,
    dials_max: usize,
    default_strictness: Strictness,
    seed: u64,
    entries: HashMap<HostId, Entry>,
    names: HostNames,
    bans: BTreeSet<String>,
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
        retry: RetryConfig,
        dials_max: usize,
        default_strictness: Strictness,
        seed: u64,
        bans: Vec<String>,
    ) -> Self {
        Self {
            retry,
            dials_max,
            default_strictness,
            seed,
            entries: HashMap::new(),
            names: HostNames::default(),
            bans: bans.into_iter().collect(),
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
        let reason = Reason::parse(row.status_reason.as_deref());
        let standing = Standing { status: row.status, reason };
        let seed = self.seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let machine = HostMachine::new(self.retry, standing, seed, now);
        self.names.insert(&row.hostname, id);
        let entry = Entry {
            row,
            machine,
            emitted,
            received: 0,
            forwarded: 0,
            refused: 0,
            progress: None,
            error: None,
            cursor_moved: false,
            tls_moved: false,
            unsure: false,
        };
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
            entry.row.tls = tls;
            entry.tls_moved = true;
            self.changed.insert(id);
        }
        entry.machine.handle_request(now);
        self.plan(id);
    }

    /// As if a request had come for every host with this status.
    pub(super) fn recrawl(&mut self, status: HostStatus, now: Instant) -> u64 {
        let mut ids: Vec<HostId> = Vec::new();
        for (id, entry) in &mut self.entries {
            if entry.machine.standing().status == status && status != HostStatus::Banned {
                entry.machine.handle_request(now);
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
        while self.dialing < self.dials_max && !self.stopped {
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
        if self.dialing >= self.dials_max || self.stopped {
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
        let strictness = self.default_strictness;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if self.stopped || !entry.machine.handle_dialed(attempt) {
            return;
        }
        let reset = entry.machine.reset_wanted();
        let emitted = if reset { Vec::new() } else { entry.emitted.clone() };
        let socket = HostSocket {
            host: id,
            hostname: entry.row.hostname.as_str().into(),
            tls: entry.row.tls,
            stream,
            strictness: entry.row.strictness.unwrap_or(strictness),
            limits: HostLimits::default(),
            resume: HostResume { cursor: entry.row.cursor, emitted, reset },
        };
        let command = ShardCommand::Host(Box::new(socket));
        self.effects.push_back(Effect::Command(id, command));
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
        entry.machine.handle_dial_failed(attempt, now);
        entry.note_error(error);
        self.changed.insert(id);
        self.plan(id);
    }

    pub(super) fn handle_open(&mut self, id: HostId, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.machine.handle_open(now);
        entry.emitted = Vec::new();
        if entry.row.cursor.is_none() {
            // From here on nothing may be missed, and the host may go away before its first event:
            // then the next connection after a restart starts from the host's oldest.
            entry.move_cursor(Some(HostSeq(0)));
        }
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
        entry.machine.handle_closed(fault, progressed, now);
        if *fault != HostFault::Stopped {
            entry.note_error(fault_text(fault));
        }
        if entry.machine.reset_wanted() && entry.machine.standing().reason == Reason::FutureCursor {
            entry.move_cursor(Some(HostSeq(0)));
        }
        self.changed.insert(id);
        self.plan(id);
    }

    pub(super) fn handle_progress(&mut self, progress: HostProgress) {
        let Some(entry) = self.entries.get_mut(&progress.host) else { return };
        entry.received += progress.received;
        entry.forwarded += progress.forwarded;
        entry.refused += progress.refused;
        // Of the numbering that the host has left, or above a cursor that the operator set back.
        if entry.machine.reset_wanted() {
            return;
        }
        if progress.cursor.is_some() && progress.cursor != entry.row.cursor {
            entry.row.cursor = progress.cursor;
            entry.progress = Some(progress);
            self.moved.insert(progress.host);
        }
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

    /// Moves a host's cursor by the operator's wish, and reconnects.
    pub(super) fn reset_cursor(&mut self, id: HostId, cursor: HostSeq, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.move_cursor(Some(cursor));
        if entry.machine.handle_reset(now) {
            self.drop_connection(id);
        }
        self.changed.insert(id);
        self.plan(id);
        true
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

    /// The row as it is in the store after a change made by the operator.
    pub(super) fn handle_row(&mut self, row: HostRow) {
        let id = row.id;
        let default = self.default_strictness;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let strictness = row.strictness.unwrap_or(default);
        if strictness != entry.row.strictness.unwrap_or(default) {
            let command = ShardCommand::SetStrictness(id, strictness);
            self.effects.push_back(Effect::Command(id, command));
        }
        // What this module itself keeps is newer here than in the row.
        entry.row = HostRow { cursor: entry.row.cursor, tls: entry.row.tls, ..row };
    }

    /// The last batch did not come to the store.
    pub(super) fn write_again(&mut self, hosts: Vec<HostId>) {
        for id in hosts {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.unsure = true;
                self.changed.insert(id);
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
    pub(super) fn take_batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        for id in std::mem::take(&mut self.changed) {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let patch = entry.take_patch();
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
        self.entries.get(&id).map(|entry| entry.live(now))
    }

    pub(super) fn live_all(&self, now: Instant) -> HashMap<HostId, HostLive> {
        self.entries.iter().map(|(id, entry)| (*id, entry.live(now))).collect()
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

impl Entry {
    fn note_error(&mut self, error: String) {
        self.row.last_error = Some(error.clone());
        self.error = Some(error);
    }

    fn move_cursor(&mut self, cursor: Option<HostSeq>) {
        self.row.cursor = cursor;
        self.progress = None;
        self.cursor_moved = true;
    }

    /// Brings the row up to the machine; the difference is the patch.
    fn take_patch(&mut self) -> HostPatch {
        let standing = self.machine.standing();
        let reason = standing.reason.label();
        let mut patch = HostPatch { last_error: self.error.take(), ..HostPatch::default() };
        let unsure = std::mem::take(&mut self.unsure);
        if std::mem::take(&mut self.tls_moved) || unsure {
            patch.tls = Some(self.row.tls);
        }
        if unsure
            || self.row.status != standing.status
            || self.row.status_reason.as_deref() != reason
        {
            tracing::info!(
                host = self.row.hostname,
                status = standing.status.label(),
                reason,
                "host status"
            );
            self.row.status = standing.status;
            self.row.status_reason = reason.map(str::to_owned);
            patch.status = Some((standing.status, self.row.status_reason.clone()));
        }
        if std::mem::take(&mut self.cursor_moved) || unsure {
            patch.cursor = Some(self.row.cursor);
        }
        patch
    }

    fn live(&self, now: Instant) -> HostLive {
        let standing = self.machine.standing();
        HostLive {
            status: standing.status,
            status_reason: standing.reason.label(),
            connected: self.machine.is_open(),
            phase: self.machine.phase_label(),
            failures: self.machine.failures(),
            next_attempt_in: self
                .machine
                .next_timeout()
                .map(|due| due.saturating_duration_since(now)),
            // Zero stands for a host that has sent nothing yet.
            cursor: self.row.cursor.filter(|cursor| cursor.0 > 0),
            received: self.received,
            forwarded: self.forwarded,
            refused: self.refused,
            last_error: self.row.last_error.clone(),
        }
    }
}

/// The fault with its particulars, for the row and the admin API.
fn fault_text(fault: &HostFault) -> String {
    match fault {
        HostFault::Tls(text) | HostFault::Io(text) | HostFault::ErrorFrame(text) => {
            format!("{}: {text}", fault.label())
        }
        HostFault::Handshake { status } => format!("handshake: HTTP status {status}"),
        HostFault::Protocol(text) => format!("protocol: {text}"),
        HostFault::Stopped
        | HostFault::Relay
        | HostFault::Closed
        | HostFault::Silent
        | HostFault::TooLarge => fault.label().to_owned(),
    }
}

#[cfg(test)]
mod tests;
