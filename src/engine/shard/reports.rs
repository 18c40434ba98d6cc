//! Reports to control. What matters is queued until there is room; sums are kept until it is asked
//! for them, so that a slow control thread costs nothing but detail.

use std::collections::VecDeque;

use ports::{Refusal, RefusalReason, ShardReport, Tally, ring::Sender};

use crate::refusals::keep;

#[derive(Debug)]
pub(super) struct Reports {
    ring: Sender<ShardReport>,
    /// Bounded by connections, consumers and questions in flight.
    backlog: VecDeque<ShardReport>,
    tally: Tally,
    /// Accounts, parked, consumers and hosts as they were last reported.
    gauges: [u64; 4],
}

impl Reports {
    pub(super) fn new(ring: Sender<ShardReport>) -> Self {
        Self { ring, backlog: VecDeque::new(), tally: Tally::default(), gauges: [0; 4] }
    }

    pub(super) fn send(&mut self, report: ShardReport) {
        self.backlog.push_back(report);
    }

    /// Whether nothing waits, so that sums may be sent too.
    pub(super) fn is_clear(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Moves what waits into the ring and wakes control. Once for a turn.
    pub(super) fn flush(&mut self) {
        if self.backlog.is_empty() {
            return;
        }
        while let Some(report) = self.backlog.pop_front() {
            if let Err(report) = self.ring.push(report) {
                self.backlog.push_front(report);
                break;
            }
        }
        self.ring.ring();
    }

    /// Counts a frame that never came to an account.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        if let Some(kind) = refusal.kind {
            self.tally.received[kind.index()] += 1;
        }
        self.tally.refused[refusal.reason.index()] += 1;
        // A duplicate is of no interest to anyone, and there may be many after a reconnect.
        if refusal.reason != RefusalReason::Duplicate {
            keep(&mut self.tally.refusals, refusal);
        }
    }

    /// Adds the accounts' count to ours and queues it, if there is anything new in it.
    pub(super) fn send_tally(&mut self, accounts: Tally, gauges: Gauges) {
        let mut tally = std::mem::take(&mut self.tally);
        add(&mut tally, accounts);
        tally.sent_bytes = gauges.sent_bytes;
        tally.consumers = gauges.consumers;
        tally.hosts = gauges.hosts;
        let now = [tally.accounts, tally.parked, tally.consumers, tally.hosts];
        let counted = tally.sent_bytes
            + tally.received.iter().sum::<u64>()
            + tally.forwarded.iter().sum::<u64>()
            + tally.refused.iter().sum::<u64>();
        if counted > 0 || now != self.gauges {
            self.gauges = now;
            self.send(ShardReport::Tally(Box::new(tally)));
        }
    }
}

/// What the shard itself knows for a tally.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gauges {
    pub(super) sent_bytes: u64,
    pub(super) consumers: u64,
    pub(super) hosts: u64,
}

fn add(tally: &mut Tally, other: Tally) {
    let pairs = tally.received.iter_mut().zip(other.received);
    let pairs = pairs.chain(tally.forwarded.iter_mut().zip(other.forwarded));
    let pairs = pairs.chain(tally.refused.iter_mut().zip(other.refused));
    let pairs = pairs.chain(tally.remarks.iter_mut().zip(other.remarks));
    for (sum, more) in pairs {
        *sum += more;
    }
    tally.received_bytes += other.received_bytes;
    tally.accounts = other.accounts;
    tally.parked = other.parked;
    for refusal in other.refusals {
        keep(&mut tally.refusals, refusal);
    }
}
