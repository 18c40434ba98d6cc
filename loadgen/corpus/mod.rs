//! A corpus: events of many accounts on many hosts, signed and framed before anything is measured.
//!
//! Each host's stream lies in memory exactly as it goes over the wire, WebSocket headers included,
//! so that serving any number of events is one write.

mod cache;
mod generate;
pub mod verify;

use std::collections::HashMap;
use std::ops::Range;

use ecdsa::{Curve, VerifyingKey};

pub use cache::{load_or_generate, read, write};
pub use generate::generate;

use crate::wire;

/// What to make. The same spec gives the same corpus, byte for byte.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CorpusSpec {
    pub seed: u64,
    pub accounts: u32,
    pub hosts: u32,
    /// Events besides the first commit of each account, which opens the corpus.
    pub events: u32,
    /// Records in each account's repository before its first event.
    pub prefill: u32,
    /// Share of accounts with P-256 keys; the others have secp256k1.
    pub p256_share: f64,
    /// Shares of events that are no commits. Each deactivation is followed by an activation.
    pub identity_share: f64,
    pub deactivate_share: f64,
    pub sync_share: f64,
}

impl Default for CorpusSpec {
    fn default() -> Self {
        Self {
            seed: 1,
            accounts: 1000,
            hosts: 20,
            events: 50_000,
            prefill: 300,
            p256_share: 0.2,
            identity_share: 0.01,
            deactivate_share: 0.01,
            sync_share: 0.008,
        }
    }
}

impl CorpusSpec {
    pub fn total_events(&self) -> u32 {
        self.accounts + self.events
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum EventKind {
    Commit,
    Sync,
    Identity,
    Deactivate,
    Activate,
}

/// One event. Its number in [`Corpus::events`] is its place in the order in which all hosts
/// together emit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EventMeta {
    pub account: u32,
    pub host: u32,
    /// Place in the host's stream; the host's seq is one more.
    pub index: u32,
    pub kind: EventKind,
    /// Where the seq stands in the frame.
    pub seq_start: u32,
    pub seq_len: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorpusAccount {
    pub did: String,
    pub handle: String,
    pub host: u32,
    pub curve: Curve,
    pub key: VerifyingKey,
    /// Numbers of its events, in order.
    pub events: Vec<u32>,
}

/// The stream of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostLog {
    /// WebSocket messages back to back.
    pub bytes: Vec<u8>,
    /// Where each message ends.
    pub ends: Vec<u64>,
    /// Numbers of its events, rising.
    pub events: Vec<u32>,
}

#[derive(Debug, PartialEq)]
pub struct Corpus {
    pub spec: CorpusSpec,
    pub accounts: Vec<CorpusAccount>,
    pub hosts: Vec<HostLog>,
    pub events: Vec<EventMeta>,
}

/// What a corpus holds, in numbers.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct CorpusSummary {
    pub events: usize,
    pub accounts: usize,
    pub hosts: usize,
    pub bytes: usize,
    pub mean_frame_bytes: f64,
    pub commits: usize,
    pub syncs: usize,
    pub identities: usize,
    pub account_events: usize,
    pub p256_accounts: usize,
}

impl HostLog {
    /// Bytes of the messages with these places in the stream.
    pub fn span(&self, range: Range<usize>) -> Range<usize> {
        let from = range.start.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        let to = range.end.checked_sub(1).map_or(0, |last| self.ends[last] as usize);
        from..to.max(from)
    }
}

impl Corpus {
    /// The event's frame without the WebSocket header.
    pub fn frame(&self, event: u32) -> &[u8] {
        let meta = &self.events[event as usize];
        let log = &self.hosts[meta.host as usize];
        let message = &log.bytes[log.span(meta.index as usize..meta.index as usize + 1)];
        &message[wire::binary_header_len(message)..]
    }

    pub fn accounts_by_did(&self) -> DidIndex {
        let accounts = self.accounts.iter().enumerate();
        accounts.map(|(index, account)| (account.did.as_bytes().into(), index as u32)).collect()
    }

    pub fn summary(&self) -> CorpusSummary {
        let count = |kinds: &[EventKind]| {
            self.events.iter().filter(|event| kinds.contains(&event.kind)).count()
        };
        let bytes = self.hosts.iter().map(|host| host.bytes.len()).sum();
        CorpusSummary {
            events: self.events.len(),
            accounts: self.accounts.len(),
            hosts: self.hosts.len(),
            bytes,
            mean_frame_bytes: bytes as f64 / self.events.len().max(1) as f64,
            commits: count(&[EventKind::Commit]),
            syncs: count(&[EventKind::Sync]),
            identities: count(&[EventKind::Identity]),
            account_events: count(&[EventKind::Deactivate, EventKind::Activate]),
            p256_accounts: self.accounts.iter().filter(|a| a.curve == Curve::P256).count(),
        }
    }
}

/// Account numbers by DID.
pub type DidIndex = HashMap<Box<[u8]>, u32, foldhash::fast::FixedState>;

#[cfg(test)]
mod tests;
