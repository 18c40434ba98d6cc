//! Compares a relay's stream with the corpus: each event exactly once, in its account's order, and
//! the same bytes but for the seq. As the corpus was verified, so is what equals it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::frame::{self, Skim};

use super::ConsumerReport;
use crate::corpus::DidIndex;
use crate::network::Network;

#[derive(Debug)]
pub struct Tracker {
    network: Arc<Network>,
    report: Arc<ConsumerReport>,
    accounts: DidIndex,
    /// For each account, how many of its events have come or been given up.
    next: Vec<usize>,
}

impl Tracker {
    pub fn new(network: Arc<Network>, report: Arc<ConsumerReport>) -> Self {
        let accounts = network.corpus.accounts_by_did();
        let next = vec![0; network.corpus.accounts.len()];
        Self { network, report, accounts, next }
    }

    pub fn handle_frame(&mut self, frame: &[u8], now_ns: u64) {
        let Ok(Skim::Event { did, seq, .. }) = frame::skim(frame) else {
            return count(&self.report.altered, 1);
        };
        if seq <= self.report.last_seq.load(Ordering::Relaxed) {
            count(&self.report.seq_faults, 1);
        }
        self.report.last_seq.store(seq, Ordering::Relaxed);
        match self.accounts.get(did.as_bytes()) {
            Some(&account) => self.handle_event(account as usize, frame, now_ns),
            None => count(&self.report.altered, 1),
        }
    }

    fn handle_event(&mut self, account: usize, frame: &[u8], now_ns: u64) {
        let network = Arc::clone(&self.network);
        let events = &network.corpus.accounts[account].events;
        let next = self.next[account];
        match events.get(next) {
            Some(&event) if self.is_event(event, frame) => {
                self.next[account] = next + 1;
                self.measure(event, now_ns);
            }
            _ => self.handle_unexpected(account, events, frame),
        }
    }

    /// Finds the event elsewhere in the account's list: behind means repeated, ahead means that
    /// those between are lost.
    fn handle_unexpected(&mut self, account: usize, events: &[u32], frame: &[u8]) {
        let next = self.next[account];
        match events.iter().position(|&event| self.is_event(event, frame)) {
            Some(place) if place < next => count(&self.report.repeated, 1),
            Some(place) => {
                count(&self.report.lost, (place - next) as u64);
                self.next[account] = place + 1;
            }
            None => {
                count(&self.report.altered, 1);
                self.next[account] = (next + 1).min(events.len());
            }
        }
    }

    /// Whether the frame is this event with another seq.
    fn is_event(&self, event: u32, frame: &[u8]) -> bool {
        let sent = self.network.corpus.frame(event);
        let meta = &self.network.corpus.events[event as usize];
        let seq_start = meta.seq_start as usize;
        let tail = &sent[seq_start + usize::from(meta.seq_len)..];
        let Some(received_tail) = frame.len().checked_sub(tail.len()) else { return false };
        received_tail > seq_start
            && frame[..seq_start] == sent[..seq_start]
            && frame[received_tail..] == *tail
    }

    /// Takes down when it came, and lets its host go on.
    fn measure(&self, event: u32, now_ns: u64) {
        let written = self.network.written_ns[event as usize].load(Ordering::Relaxed);
        self.report.latency.record(now_ns.saturating_sub(written));
        let meta = &self.network.corpus.events[event as usize];
        let host = &self.network.hosts[meta.host as usize];
        host.seen.fetch_max(u64::from(meta.index) + 1, Ordering::Relaxed);
        let phase = self.network.pace.phase();
        if event >= phase.first
            && let Some(due) = phase.due(event)
        {
            self.report.latency_from_due.record(now_ns.saturating_sub(due));
        }
    }
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
