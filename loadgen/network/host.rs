//! One open stream of a host: which bytes go out next, and when. A plain state machine; the time
//! is an argument.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Network;
use crate::repo::frame;
use crate::wire::{self, Peer};

/// Most bytes in one write, unless a single message is longer.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// When a host that has all allowed events under way looks again.
const LOOK_AGAIN_NS: u64 = 2_000_000;

/// What a stream wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Send all of it, then ask again.
    Send(&'a [u8]),
    /// Nothing before this time.
    Until(u64),
    /// Nothing until another phase begins.
    Held,
    /// Send this and close.
    Close(Vec<u8>),
}

#[derive(Debug)]
pub struct HostSession {
    network: Arc<Network>,
    host: u32,
    /// Place of the next event in the host's stream.
    next: usize,
    /// The subscriber's cursor lies beyond our last event.
    future_cursor: bool,
}

impl HostSession {
    /// Opens a stream behind the cursor; without one, behind what the host has emitted so far.
    pub fn open(network: Arc<Network>, host: u32, cursor: Option<u64>) -> Self {
        let state = &network.hosts[host as usize];
        state.streams.fetch_add(1, Ordering::Relaxed);
        state.opened.fetch_add(1, Ordering::Relaxed);
        let log = &network.corpus.hosts[host as usize];
        let released = network.pace.phase().released(crate::clock::now_nanos());
        let emitted = log.events.partition_point(|&event| event < released);
        // The host's seqs are 1, 2, 3 …, so a cursor is the place of what follows it.
        let (next, future_cursor) = match cursor {
            None => (emitted, false),
            Some(cursor) if cursor > emitted as u64 => (emitted, true),
            Some(cursor) => (cursor as usize, false),
        };
        Self { network, host, next, future_cursor }
    }

    pub fn host(&self) -> u32 {
        self.host
    }

    pub fn step(&mut self, now_ns: u64) -> Step<'_> {
        if self.future_cursor {
            return Step::Close(future_cursor_refusal());
        }
        let log = &self.network.corpus.hosts[self.host as usize];
        let phase = self.network.pace.phase();
        let Some(&event) = log.events.get(self.next) else { return Step::Held };
        match phase.due(event) {
            None => return Step::Held,
            Some(due) if due > now_ns => return Step::Until(due),
            Some(_) => {}
        }
        let released = phase.released(now_ns).max(event + 1);
        let mut due_end = self.next + log.events[self.next..].partition_point(|&e| e < released);
        if phase.interval_ns == 0.0 && event >= phase.first && self.network.in_flight_max > 0 {
            let seen = self.network.hosts[self.host as usize].seen.load(Ordering::Relaxed);
            due_end = due_end.min(seen as usize + self.network.in_flight_max);
            if due_end <= self.next {
                return Step::Until(now_ns + LOOK_AGAIN_NS);
            }
        }
        let from = log.span(self.next..self.next).start as u64;
        let full = log.ends.partition_point(|&end| end <= from + BATCH_BYTES_MAX as u64);
        let end = due_end.min(full.max(self.next + 1));
        for &event in &log.events[self.next..end] {
            self.network.written_ns[event as usize].store(now_ns, Ordering::Relaxed);
        }
        let span = log.span(self.next..end);
        self.network.events_written.fetch_add((end - self.next) as u64, Ordering::Relaxed);
        self.network.bytes_written.fetch_add(span.len() as u64, Ordering::Relaxed);
        self.next = end;
        Step::Send(&log.bytes[span])
    }
}

impl Drop for HostSession {
    fn drop(&mut self) {
        self.network.hosts[self.host as usize].streams.fetch_sub(1, Ordering::Relaxed);
    }
}

fn future_cursor_refusal() -> Vec<u8> {
    let refusal = frame::error("FutureCursor", "Cursor in the future.");
    let mut out = Vec::new();
    wire::write_binary_header(refusal.len(), &mut out);
    out.extend(refusal);
    out.extend(wire::close_frame(1008, "FutureCursor", Peer::Server));
    out
}
