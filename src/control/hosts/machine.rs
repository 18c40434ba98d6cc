//! One host's connection: when to dial, when to wait, when to leave it alone.
//!
//! A pure state machine: no IO, time is an argument. It answers for two promises to PDS operators: at
//! most one connection (or attempt) at any time, and no more than a few attempts a minute, whatever
//! the host does; a host that was away is found again without anybody's help.

use std::time::{Duration, Instant};

use ports::HostFault;

use crate::store::HostStatus;

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub struct RetryConfig {
    /// The ceiling of the first delay; it doubles with each failure. Delays are drawn from a
    /// quarter of the ceiling up to all of it, so that a crowd of hosts spreads out.
    pub first: Duration,
    pub max: Duration,
    /// So many failures in a row make a host offline.
    pub offline_after: u32,
    /// Between attempts at a host that is offline or idle.
    pub slow: Duration,
    /// The slow pace becomes daily after so many slow attempts.
    pub daily_after: u32,
    pub daily: Duration,
    /// A connection that lived shorter than this, or brought no event, does not clear the back-off
    /// altogether.
    pub stable: Duration,
    /// A request to crawl brings no attempt sooner than this after the last one.
    pub request_gap: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(2),
            max: Duration::from_mins(5),
            offline_after: 15,
            slow: Duration::from_hours(1),
            daily_after: 24,
            daily: Duration::from_hours(24),
            stable: Duration::from_mins(1),
            request_gap: Duration::from_secs(2),
        }
    }
}

/// Failures that remain on the count after a connection that was short but brought events, or
/// brought none but held.
const FAILURES_LEFT_MAX: u32 = 2;

/// Why a host has the status that it has; stored as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing to explain.
    None,
    /// Attempts failed; the last error says how.
    Unreachable,
    /// The host answered `FutureCursor`: it began a new numbering, or lost its data.
    FutureCursor,
    /// The host's `Server` header says that it is a relay.
    Relay,
    /// Disconnected by the operator, but not blocked.
    Stopped,
    Blocked,
    DomainBan,
    /// Quarantine: more events that are its fault than a host may send,
    InvalidEvents,
    /// more look-ups of identities than it may cause,
    ForcedLookups,
    /// or more accounts at once than it may bring.
    NewAccounts,
}

impl Reason {
    const ALL: [Self; 10] = [
        Self::None,
        Self::Unreachable,
        Self::FutureCursor,
        Self::Relay,
        Self::Stopped,
        Self::Blocked,
        Self::DomainBan,
        Self::InvalidEvents,
        Self::ForcedLookups,
        Self::NewAccounts,
    ];

    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Unreachable => Some("unreachable"),
            Self::FutureCursor => Some("future-cursor"),
            Self::Relay => Some("relay"),
            Self::Stopped => Some("stopped-by-operator"),
            Self::Blocked => Some("blocked-by-operator"),
            Self::DomainBan => Some("domain-ban"),
            Self::InvalidEvents => Some("quarantine-invalid-events"),
            Self::ForcedLookups => Some("quarantine-forced-lookups"),
            Self::NewAccounts => Some("quarantine-new-accounts"),
        }
    }

    /// The reason stored with a status; what is not known explains nothing.
    pub fn parse(label: Option<&str>) -> Self {
        Self::ALL.into_iter().find(|reason| reason.label() == label).unwrap_or(Self::None)
    }
}

/// What a host's row says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) status: HostStatus,
    pub(super) reason: Reason,
}

impl Standing {
    pub(super) const ACTIVE: Self = Self { status: HostStatus::Active, reason: Reason::None };

    fn banned(reason: Reason) -> Self {
        Self { status: HostStatus::Banned, reason }
    }

    fn idle(reason: Reason) -> Self {
        Self { status: HostStatus::Idle, reason }
    }
}

/// What was stored of a host's misfortunes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    pub(super) failures: u32,
    /// When it was to be tried next.
    pub(super) next_attempt: Option<Instant>,
}

/// What follows when the shard has closed the connection that it was told to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Bar,
    Wait(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection; the next attempt is due.
    Waiting {
        due: Instant,
    },
    /// Name resolution and TCP.
    Dialing,
    /// The shard has the socket: TLS and WebSocket handshake.
    Handed,
    Open {
        since: Instant,
    },
    /// The shard was told to close, its report is awaited: only then may another attempt be made.
    Stopping {
        then: Then,
    },
    Barred,
}

/// An attempt to connect; results of another attempt than the current one count for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt(u64);

#[derive(Debug)]
pub(super) struct HostMachine {
    config: RetryConfig,
    phase: Phase,
    standing: Standing,
    failures: u32,
    /// Left alone until then, whoever asks but the operator.
    quarantine: Option<Instant>,
    attempt: u64,
    last_attempt_at: Option<Instant>,
    /// The host's numbering is to be taken up from its beginning at the next connection.
    reset: bool,
    random: u64,
}

impl HostMachine {
    /// A host as it was stored. Active ones are due at once, others when they were to be tried
    /// anyway, or within the slow interval.
    pub(super) fn new(
        config: RetryConfig,
        standing: Standing,
        past: Past,
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut machine = Self {
            config,
            phase: Phase::Barred,
            standing,
            failures: past.failures,
            quarantine: None,
            attempt: 0,
            last_attempt_at: None,
            reset: standing.reason == Reason::FutureCursor,
            random: seed,
        };
        let latest = now + config.daily;
        let planned = past.next_attempt.map(|at| at.min(latest));
        machine.phase = match standing.status {
            HostStatus::Banned => Phase::Barred,
            HostStatus::Active => Phase::Waiting { due: now },
            HostStatus::Throttled => {
                machine.quarantine = planned.filter(|at| *at > now);
                Phase::Waiting { due: planned.unwrap_or(now) }
            }
            HostStatus::Idle | HostStatus::Offline => {
                machine.failures = machine.failures.max(config.offline_after);
                let share = machine.draw();
                Phase::Waiting {
                    due: match planned {
                        // Overdue, with many others after a long stop of the relay.
                        Some(at) if at <= now => now + (config.slow / 30).mul_f64(share),
                        Some(at) => at,
                        None => now + config.slow.mul_f64(share),
                    },
                }
            }
        };
        machine
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// How long the host is still left alone.
    pub(super) fn quarantined_for(&self, now: Instant) -> Option<Duration> {
        let left = self.quarantine?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Connected or about to be: a request to crawl changes nothing.
    pub(super) fn is_healthy(&self) -> bool {
        matches!(self.phase, Phase::Open { .. } | Phase::Handed | Phase::Dialing)
    }

    /// Whether the next connection takes up the host's numbering from its beginning.
    pub(super) fn reset_wanted(&self) -> bool {
        self.reset
    }

    pub(super) fn phase_label(&self) -> &'static str {
        match self.phase {
            Phase::Waiting { .. } => "waiting",
            Phase::Dialing => "dialing",
            Phase::Handed => "handshaking",
            Phase::Open { .. } => "open",
            Phase::Stopping { .. } => "stopping",
            Phase::Barred => "barred",
        }
    }

    /// When [`HostMachine::poll_dial`] has something to say.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { due } => Some(due),
            _ => None,
        }
    }

    /// Whether an attempt is to be made now; if so, it has begun.
    pub(super) fn poll_dial(&mut self, now: Instant) -> Option<Attempt> {
        match self.phase {
            Phase::Waiting { due } if due <= now => {
                self.phase = Phase::Dialing;
                self.attempt += 1;
                self.last_attempt_at = Some(now);
                Some(Attempt(self.attempt))
            }
            _ => None,
        }
    }

    /// Somebody asked for the host to be crawled: an attempt is due at once, or as soon as is decent.
    /// Only the operator ends a quarantine.
    pub(super) fn handle_request(&mut self, admin: bool, now: Instant) {
        if self.quarantined_for(now).is_some() && !admin {
            return;
        }
        self.quarantine = None;
        if let Phase::Waiting { due } = self.phase {
            let soonest = self.last_attempt_at.map_or(now, |at| at + self.config.request_gap);
            self.phase = Phase::Waiting { due: due.min(soonest.max(now)) };
        }
    }

    /// TCP is up. Whether to hand the socket to the shard; if not, it is to be dropped.
    #[must_use]
    pub(super) fn handle_dialed(&mut self, attempt: Attempt) -> bool {
        let current = self.phase == Phase::Dialing && attempt.0 == self.attempt;
        if current {
            self.phase = Phase::Handed;
        }
        current
    }

    pub(super) fn handle_dial_failed(&mut self, attempt: Attempt, now: Instant) {
        if self.phase == Phase::Dialing && attempt.0 == self.attempt {
            self.fail(now);
        }
    }

    /// The WebSocket handshake succeeded.
    pub(super) fn handle_open(&mut self, now: Instant) {
        if self.phase == Phase::Handed {
            self.phase = Phase::Open { since: now };
            self.standing = Standing::ACTIVE;
            self.reset = false;
            self.quarantine = None;
        }
    }

    pub(super) fn handle_closed(&mut self, fault: &HostFault, progressed: bool, now: Instant) {
        let since = match self.phase {
            Phase::Stopping { then: Then::Bar } => {
                self.phase = Phase::Barred;
                return;
            }
            Phase::Stopping { then: Then::Wait(delay) } => {
                self.phase = Phase::Waiting { due: now + delay };
                return;
            }
            Phase::Open { since } => since,
            Phase::Handed => now,
            Phase::Waiting { .. } | Phase::Dialing | Phase::Barred => return,
        };
        let stable = now.saturating_duration_since(since) >= self.config.stable;
        self.failures = match (progressed, stable) {
            (true, true) => 0,
            // A quiet host behind a proxy that closes idle connections is not a dead one.
            (true, false) | (false, true) => self.failures.min(FAILURES_LEFT_MAX),
            (false, false) => self.failures,
        };
        match fault {
            // Ended on our side: that says nothing about the host.
            HostFault::Stopped => self.wait(self.config.first, now),
            HostFault::ErrorFrame(name) if &**name == "FutureCursor" => {
                self.standing = Standing::idle(Reason::FutureCursor);
                self.reset = true;
                self.wait(self.config.slow, now);
            }
            HostFault::Relay => {
                self.standing = Standing::idle(Reason::Relay);
                self.wait(self.config.daily, now);
            }
            _ => self.fail(now),
        }
    }

    /// Leaves the host alone for a while. Whether the shard is to be told to close a connection.
    #[must_use]
    pub(super) fn handle_quarantine(
        &mut self,
        reason: Reason,
        delay: Duration,
        now: Instant,
    ) -> bool {
        if self.standing.status == HostStatus::Banned {
            return false;
        }
        let end = now + delay;
        self.standing = Standing { status: HostStatus::Throttled, reason };
        self.quarantine = Some(end);
        let (phase, connected) = match self.phase {
            Phase::Handed | Phase::Open { .. } => {
                (Phase::Stopping { then: Then::Wait(delay) }, true)
            }
            Phase::Stopping { .. } => (Phase::Stopping { then: Then::Wait(delay) }, false),
            // A dial under way comes to nothing.
            Phase::Waiting { .. } | Phase::Dialing => (Phase::Waiting { due: end }, false),
            Phase::Barred => (Phase::Barred, false),
        };
        self.phase = phase;
        connected
    }

    /// No connection until unblocked. Whether the shard is to be told to close one.
    #[must_use]
    pub(super) fn handle_block(&mut self, reason: Reason) -> bool {
        self.standing = Standing::banned(reason);
        self.quarantine = None;
        match self.phase {
            Phase::Waiting { .. } | Phase::Dialing | Phase::Barred => {
                self.phase = Phase::Barred;
                false
            }
            Phase::Stopping { .. } => {
                self.phase = Phase::Stopping { then: Then::Bar };
                false
            }
            Phase::Handed | Phase::Open { .. } => {
                self.phase = Phase::Stopping { then: Then::Bar };
                true
            }
        }
    }

    /// Lifts a block: an attempt is due at once.
    pub(super) fn handle_unblock(&mut self, now: Instant) {
        if self.standing.status != HostStatus::Banned {
            return;
        }
        self.standing = Standing::ACTIVE;
        self.failures = 0;
        self.phase = match self.phase {
            Phase::Stopping { .. } => Phase::Stopping { then: Then::Wait(Duration::ZERO) },
            _ => Phase::Waiting { due: now },
        };
    }

    /// Disconnects without blocking; the host comes back at the slow pace or on request. Whether the
    /// shard is to be told to close a connection.
    #[must_use]
    pub(super) fn handle_stop(&mut self) -> bool {
        if !matches!(self.phase, Phase::Handed | Phase::Open { .. }) {
            return false;
        }
        self.standing = Standing::idle(Reason::Stopped);
        self.phase = Phase::Stopping { then: Then::Wait(self.config.slow) };
        true
    }

    /// The operator moved the cursor: the next connection takes it up, and is made at once. Whether
    /// the shard is to be told to close a connection.
    #[must_use]
    pub(super) fn handle_reset(&mut self, now: Instant) -> bool {
        self.reset = true;
        self.quarantine = None;
        match self.phase {
            Phase::Handed | Phase::Open { .. } => {
                self.phase = Phase::Stopping { then: Then::Wait(Duration::ZERO) };
                true
            }
            Phase::Waiting { .. } => {
                self.phase = Phase::Waiting { due: now };
                false
            }
            // The resume is put together when the socket is handed over.
            Phase::Dialing | Phase::Stopping { .. } | Phase::Barred => false,
        }
    }

    fn fail(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let offline_for = self.failures.checked_sub(self.config.offline_after);
        match offline_for {
            None => {
                let ceiling = self
                    .config
                    .first
                    .saturating_mul(1 << (self.failures - 1).min(20))
                    .min(self.config.max);
                self.wait(ceiling, now);
            }
            Some(slow_attempts) => {
                // A host that is idle for a reason of its own stays so.
                if self.standing.status != HostStatus::Idle {
                    self.standing =
                        Standing { status: HostStatus::Offline, reason: Reason::Unreachable };
                }
                let daily = slow_attempts >= self.config.daily_after;
                self.wait(if daily { self.config.daily } else { self.config.slow }, now);
            }
        }
    }

    fn wait(&mut self, ceiling: Duration, now: Instant) {
        let share = 0.25 + 0.75 * self.draw();
        self.phase = Phase::Waiting { due: now + ceiling.mul_f64(share) };
    }

    /// A number in [0, 1): SplitMix64, so that a seed replays a run.
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests;
