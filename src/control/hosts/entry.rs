//! One host in the registry: its row, its state machine, and what is not written yet.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use ports::{
    HostFault, HostId, HostLimits, HostProgress, HostResume, HostSeq, HostSocket, SlowReason,
    Strictness,
};

use super::{
    budget::{Budget, BudgetConfig},
    limits::event_limits,
    machine::{Attempt, HostMachine, Past, Reason, RetryConfig, Standing},
};
use crate::{
    store::{HostMemory, HostPatch, HostRow, HostStatus},
    unix_now,
};

/// So many well-formed commits in a row, and a host that was held to lenient rules is held to
/// strict ones.
pub(super) const WELL_FORMED_ENOUGH: u64 = 100;

/// That a host is read more slowly than it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowed {
    pub why: SlowReason,
    /// Unix seconds at which it will be over, where that is known.
    pub until: Option<u64>,
}

/// What a host did since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostDeeds {
    pub invalid: u64,
    pub forced_lookups: u64,
    pub new_accounts: u64,
}

/// A host as the relay sees it now, beside its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLive {
    pub status: HostStatus,
    pub status_reason: Option<&'static str>,
    /// Unix seconds at which the status ends by itself: a quarantine, a used-up limit.
    pub status_until: Option<u64>,
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
    pub deeds: HostDeeds,
    /// The event rates in force.
    pub limits: HostLimits,
    pub slowed: Option<Slowed>,
    /// The rules in force: those of the row, otherwise the relay's, or strict ones once it has shown
    /// that it can keep them.
    pub strictness: Strictness,
    /// Quarantines that are not forgiven yet.
    pub quarantines: u32,
    /// Unix seconds: since when the connection stands, and when an event came last (since the
    /// process started).
    pub connected_since: Option<u64>,
    pub last_event_at: Option<u64>,
    pub last_error: Option<String>,
}

/// Translates between the two clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    instant: Instant,
    unix: u64,
}

impl Clock {
    pub(super) fn new(instant: Instant) -> Self {
        Self { instant, unix: unix_now() }
    }

    fn unix(self, at: Instant) -> u64 {
        self.unix + at.saturating_duration_since(self.instant).as_secs()
    }

    fn instant(self, unix: u64) -> Instant {
        self.instant + Duration::from_secs(unix.saturating_sub(self.unix).min(366 * 86_400))
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) row: HostRow,
    pub(super) machine: HostMachine,
    clock: Clock,
    budget: Budget,
    /// Events above the stored cursor that the log had at start.
    pub(super) emitted: Vec<HostSeq>,
    /// The connection to come is the first one ever: it begins at the live position.
    first_contact: bool,
    /// Waits until the store knows of the first contact.
    held: Option<(Attempt, TcpStream)>,
    received: u64,
    forwarded: u64,
    refused: u64,
    deeds: HostDeeds,
    slowed: Option<Slowed>,
    connected_since: Option<u64>,
    last_event_at: Option<u64>,
    pub(super) progress: Option<HostProgress>,
    /// An error that the row does not have yet.
    error: Option<String>,
    /// The stored cursor is not this one, and not for lack of progress.
    cursor_moved: bool,
    tls_moved: bool,
    /// What is remembered of the host is not what is stored.
    memory_moved: bool,
    /// The row could not be written: all of it that is kept here is written again.
    pub(super) unsure: bool,
}

impl Entry {
    pub(super) fn new(
        row: HostRow,
        emitted: Vec<HostSeq>,
        retry: RetryConfig,
        budget: BudgetConfig,
        seed: u64,
        clock: Clock,
        now: Instant,
    ) -> Self {
        let reason = Reason::parse(row.status_reason.as_deref());
        let standing = Standing { status: row.status, reason };
        let past = Past {
            failures: row.memory.failures,
            next_attempt: row.memory.next_attempt_at.map(|at| clock.instant(at)),
        };
        Self {
            machine: HostMachine::new(retry, standing, past, seed, now),
            budget: Budget::new(budget, row.account_limit, row.memory.quarantine_count, now),
            first_contact: row.cursor.is_none(),
            row,
            clock,
            emitted,
            held: None,
            received: 0,
            forwarded: 0,
            refused: 0,
            deeds: HostDeeds::default(),
            slowed: None,
            connected_since: None,
            last_event_at: None,
            progress: None,
            error: None,
            cursor_moved: false,
            tls_moved: false,
            memory_moved: false,
            unsure: false,
        }
    }

    pub(super) fn strictness(&self, default: Strictness) -> Strictness {
        let learnt = self.row.memory.strictness_since.map(|_| Strictness::Strict);
        self.row.strictness.or(learnt).unwrap_or(default)
    }

    pub(super) fn limits(&self) -> HostLimits {
        event_limits(&self.row)
    }

    /// A connected socket, on its way to the shard. `None`: it is held until the store knows that
    /// from this connection on nothing may be missed ([`Entry::release`]), or is not wanted.
    pub(super) fn dialed(
        &mut self,
        attempt: Attempt,
        stream: TcpStream,
        default: Strictness,
    ) -> Option<HostSocket> {
        if self.first_contact && self.row.cursor.is_none() {
            // The host may go away before its first event, or this process may: the connection
            // after that starts from the host's oldest.
            self.move_cursor(Some(HostSeq(0)));
            self.held = Some((attempt, stream));
            return None;
        }
        self.hand_over(attempt, stream, default)
    }

    /// What was to be written is in the store: the socket that waited for that, if its cursor was
    /// part of it.
    pub(super) fn release(&mut self, default: Strictness) -> Option<HostSocket> {
        if self.cursor_moved || self.unsure {
            return None;
        }
        let (attempt, stream) = self.held.take()?;
        self.hand_over(attempt, stream, default)
    }

    fn hand_over(
        &mut self,
        attempt: Attempt,
        stream: TcpStream,
        default: Strictness,
    ) -> Option<HostSocket> {
        if !self.machine.handle_dialed(attempt) {
            return None;
        }
        let reset = self.machine.reset_wanted();
        let cursor = if self.first_contact { None } else { self.row.cursor };
        Some(HostSocket {
            host: self.row.id,
            hostname: self.row.hostname.as_str().into(),
            tls: self.row.tls,
            stream,
            strictness: self.strictness(default),
            limits: self.limits(),
            resume: HostResume {
                cursor,
                emitted: if reset { Vec::new() } else { self.emitted.clone() },
                reset,
            },
        })
    }

    pub(super) fn open(&mut self, now: Instant) {
        self.machine.handle_open(now);
        self.emitted = Vec::new();
        self.first_contact = false;
        self.connected_since = Some(self.clock.unix(now));
    }

    pub(super) fn close(&mut self, fault: &HostFault, progressed: bool, now: Instant) {
        self.machine.handle_closed(fault, progressed, now);
        self.connected_since = None;
        self.slowed = None;
        if *fault != HostFault::Stopped {
            self.note_error(fault_text(fault));
        }
        if self.machine.reset_wanted() && self.machine.standing().reason == Reason::FutureCursor {
            self.move_cursor(Some(HostSeq(0)));
        }
        self.withdraw_first_contact();
    }

    pub(super) fn dial_failed(&mut self, attempt: Attempt, error: String, now: Instant) {
        self.machine.handle_dial_failed(attempt, now);
        self.note_error(error);
    }

    /// The first connection did not come about: the next one is still the first.
    fn withdraw_first_contact(&mut self) {
        if self.first_contact && self.row.cursor == Some(HostSeq(0)) {
            self.move_cursor(None);
        }
    }

    /// Counts what the host did; a quarantine if that was too much. Whether the shard is to be told
    /// to close the connection, and whether the rules for the host have become strict.
    pub(super) fn take_progress(
        &mut self,
        progress: HostProgress,
        default: Strictness,
        now: Instant,
    ) -> Taken {
        self.received += progress.received;
        self.forwarded += progress.forwarded;
        self.refused += progress.refused;
        self.deeds.invalid += progress.invalid;
        self.deeds.forced_lookups += progress.forced_lookups;
        self.deeds.new_accounts += progress.new_accounts;
        if progress.received > 0 {
            self.last_event_at = Some(self.clock.unix(now));
        }
        let mut taken = Taken::default();
        // Of the numbering that the host has left, or above a cursor that the operator set back.
        if !self.machine.reset_wanted()
            && progress.cursor.is_some()
            && progress.cursor != self.row.cursor
        {
            self.row.cursor = progress.cursor;
            self.progress = Some(progress);
            taken.moved = true;
        }
        taken.now_strict = self.learn_strictness(&progress, default, now);
        if self.machine.quarantined_for(now).is_none()
            && let Some((reason, delay)) = self.budget.charge(&progress, now)
        {
            self.note_error(reason.label().unwrap_or_default().to_owned());
            taken.quarantined = true;
            taken.drop = self.machine.handle_quarantine(reason, delay, now);
        }
        taken
    }

    /// Whether the host has just shown that it keeps the strict rules.
    fn learn_strictness(
        &mut self,
        progress: &HostProgress,
        default: Strictness,
        now: Instant,
    ) -> bool {
        if self.strictness(default) == Strictness::Strict || self.row.strictness.is_some() {
            return false;
        }
        if progress.waived > 0 {
            self.row.memory.well_formed = 0;
            return false;
        }
        self.row.memory.well_formed += progress.well_formed;
        let enough = self.row.memory.well_formed >= WELL_FORMED_ENOUGH;
        if enough {
            self.row.memory.strictness_since = Some(self.clock.unix(now));
            self.memory_moved = true;
        }
        enough
    }

    pub(super) fn set_slowed(&mut self, why: Option<SlowReason>, until: Option<u64>) {
        self.slowed = why.map(|why| Slowed { why, until });
    }

    pub(super) fn set_tls(&mut self, tls: bool) {
        self.row.tls = tls;
        self.tls_moved = true;
    }

    pub(super) fn note_error(&mut self, error: String) {
        self.row.last_error = Some(error.clone());
        self.error = Some(error);
    }

    pub(super) fn move_cursor(&mut self, cursor: Option<HostSeq>) {
        self.row.cursor = cursor;
        self.progress = None;
        self.cursor_moved = true;
    }

    /// The operator's wish. Without a cursor the host is taken up at its live position.
    pub(super) fn reset_cursor(&mut self, cursor: Option<HostSeq>, now: Instant) -> bool {
        self.first_contact = cursor.is_none();
        self.move_cursor(cursor);
        self.machine.handle_reset(now)
    }

    /// The row as the operator has changed it; what is kept here is newer than what it says.
    pub(super) fn replace_row(&mut self, row: HostRow, now: Instant) {
        if row.account_limit != self.row.account_limit {
            self.budget.set_account_limit(row.account_limit, now);
        }
        let mut memory = self.row.memory;
        if self.row.strictness != row.strictness {
            // What the operator says of the rules begins a new count.
            (memory.well_formed, memory.strictness_since) = (0, None);
            self.memory_moved = true;
        }
        self.row = HostRow {
            cursor: self.row.cursor,
            tls: self.row.tls,
            status: self.row.status,
            status_reason: self.row.status_reason.clone(),
            memory,
            ..row
        };
    }

    /// Brings the row up to the machine; the difference is the patch.
    pub(super) fn take_patch(&mut self, now: Instant) -> HostPatch {
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
        self.patch_memory(&mut patch, unsure, now);
        patch
    }

    /// What the machine and the budget are to remember over a restart.
    fn patch_memory(&mut self, patch: &mut HostPatch, unsure: bool, now: Instant) {
        let plan = match self.machine.standing().status {
            // It is tried at once after a restart anyway.
            HostStatus::Active | HostStatus::Banned => None,
            HostStatus::Idle | HostStatus::Offline | HostStatus::Throttled => {
                self.machine.next_timeout()
            }
        };
        let until = self.machine.quarantined_for(now).map(|left| self.clock.unix(now + left));
        let memory = HostMemory {
            status_until: until,
            failures: if plan.is_some() { self.machine.failures() } else { 0 },
            next_attempt_at: plan.map(|at| self.clock.unix(at)).or(until),
            quarantine_count: self.budget.count(),
            ..self.row.memory
        };
        if memory != self.row.memory || std::mem::take(&mut self.memory_moved) || unsure {
            self.row.memory = memory;
            patch.memory = Some(memory);
        }
    }

    pub(super) fn live(&self, default: Strictness, now: Instant) -> HostLive {
        let standing = self.machine.standing();
        let spent = self.slowed.filter(|slowed| {
            matches!(slowed.why, SlowReason::PerHour | SlowReason::PerDay)
                && standing.status == HostStatus::Active
        });
        let quarantine = self.machine.quarantined_for(now);
        HostLive {
            status: if spent.is_some() { HostStatus::Throttled } else { standing.status },
            status_reason: spent.map(|slowed| slowed.why.label()).or(standing.reason.label()),
            status_until: match spent {
                Some(slowed) => slowed.until,
                None => quarantine.map(|left| self.clock.unix(now + left)),
            },
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
            deeds: self.deeds,
            limits: self.limits(),
            slowed: self.slowed,
            strictness: self.strictness(default),
            quarantines: self.budget.count(),
            connected_since: self.connected_since,
            last_event_at: self.last_event_at,
            last_error: self.row.last_error.clone(),
        }
    }

    pub(super) fn id(&self) -> HostId {
        self.row.id
    }
}

/// What came of a report of progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) moved: bool,
    pub(super) now_strict: bool,
    pub(super) quarantined: bool,
    pub(super) drop: bool,
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
