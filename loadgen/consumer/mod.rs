//! One consumer of a relay's stream: a plain state machine that takes bytes, counts events, and can
//! compare each with the corpus. No IO here: the drivers move the bytes.

mod tracker;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use tracker::Tracker;

use crate::histogram::Histogram;
use crate::network::Network;
use crate::wire::{self, ClientHandshake, Message, MessageReader, Peer, WireError};

/// Room for the bytes of one read.
const BUFFER_BYTES: usize = 256 * 1024;

/// What a consumer has seen, readable at any time from any thread.
#[derive(Debug, Default)]
pub struct ConsumerReport {
    pub connected: AtomicBool,
    pub closed: AtomicBool,
    pub events: AtomicU64,
    pub bytes: AtomicU64,
    /// Hash over all frames in order: equal for consumers that got the same bytes.
    pub digest: AtomicU64,
    /// Highest seq so far.
    pub last_seq: AtomicU64,
    /// Seqs that did not rise.
    pub seq_faults: AtomicU64,
    /// Events that came although an earlier one of the same account had not.
    pub lost: AtomicU64,
    pub repeated: AtomicU64,
    /// Frames that are not as the host sent them but for their seq, or of an unknown account.
    pub altered: AtomicU64,
    /// From the host's write to the read here.
    pub latency: Histogram,
    /// From when the event was due to the read here.
    pub latency_from_due: Histogram,
}

impl ConsumerReport {
    /// Violations of any kind.
    pub fn faults(&self) -> u64 {
        [&self.seq_faults, &self.lost, &self.repeated, &self.altered]
            .map(|count| count.load(Ordering::Relaxed))
            .iter()
            .sum()
    }
}

/// What a consumer does with each event.
#[derive(Clone, Debug)]
pub enum Watch {
    /// Counts and hashes.
    Count,
    /// Compares each event with the corpus and measures how long it took.
    Compare(Arc<Network>),
}

#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("closed by the relay with code {0}: {1}")]
    Closed(u16, String),
    #[error("text message")]
    Text,
}

#[derive(Debug)]
pub struct ConsumerSession {
    handshake: Option<ClientHandshake>,
    head: Vec<u8>,
    reader: MessageReader,
    tracker: Option<Tracker>,
    hasher: foldhash::fast::FixedState,
    outbound: Vec<u8>,
    pub report: Arc<ConsumerReport>,
}

impl ConsumerSession {
    /// `url` is the whole URL of the stream, with its cursor.
    pub fn new(url: &str, watch: &Watch, report: Arc<ConsumerReport>) -> Result<Self, WireError> {
        let handshake = ClientHandshake::new(url)?;
        let tracker = match watch {
            Watch::Count => None,
            Watch::Compare(network) => Some(Tracker::new(Arc::clone(network), Arc::clone(&report))),
        };
        Ok(Self {
            outbound: handshake.request.clone(),
            handshake: Some(handshake),
            head: Vec::new(),
            reader: MessageReader::new(Peer::Server, BUFFER_BYTES),
            tracker,
            hasher: foldhash::fast::FixedState::default(),
            report,
        })
    }

    /// Bytes to send: the request at first, pongs later.
    pub fn take_outbound(&mut self) -> Option<Vec<u8>> {
        (!self.outbound.is_empty()).then(|| std::mem::take(&mut self.outbound))
    }

    /// Where to read the next bytes into.
    pub fn space(&mut self) -> &mut [u8] {
        self.reader.space()
    }

    /// Takes the bytes that were read into [`Self::space`] at that time.
    pub fn handle_read(&mut self, bytes: usize, now_ns: u64) -> Result<(), ConsumerError> {
        if self.handshake.is_some() {
            let read = self.reader.space()[..bytes].to_vec();
            return self.handle_handshake(&read, now_ns);
        }
        self.reader.filled(bytes);
        self.handle_messages(now_ns)
    }

    fn handle_handshake(&mut self, bytes: &[u8], now_ns: u64) -> Result<(), ConsumerError> {
        self.head.extend_from_slice(bytes);
        let Some(handshake) = &self.handshake else { return Ok(()) };
        let Some(head_len) = handshake.check(&self.head)? else { return Ok(()) };
        self.handshake = None;
        let head = std::mem::take(&mut self.head);
        self.reader.push(&head[head_len..]);
        self.report.connected.store(true, Ordering::Release);
        self.handle_messages(now_ns)
    }

    fn handle_messages(&mut self, now_ns: u64) -> Result<(), ConsumerError> {
        let mut batch =
            Batch { digest: self.report.digest.load(Ordering::Relaxed), ..Batch::default() };
        let result = self.handle_batch(&mut batch, now_ns);
        self.report.digest.store(batch.digest, Ordering::Relaxed);
        self.report.bytes.fetch_add(batch.bytes, Ordering::Relaxed);
        self.report.events.fetch_add(batch.events, Ordering::Release);
        result
    }

    fn handle_batch(&mut self, batch: &mut Batch, now_ns: u64) -> Result<(), ConsumerError> {
        while let Some(message) = self.reader.poll_message()? {
            match message {
                Message::Binary(frame) => {
                    batch.events += 1;
                    batch.bytes += frame.len() as u64;
                    batch.digest = batch.digest.rotate_left(1) ^ self.hasher.hash_one(frame);
                    if let Some(tracker) = &mut self.tracker {
                        tracker.handle_frame(frame, now_ns);
                    }
                }
                Message::Ping(payload) => {
                    let pong = wire::control_frame(wire::OP_PONG, payload, Peer::Client);
                    self.outbound.extend(pong);
                }
                Message::Pong => {}
                Message::Text(_) => return Err(ConsumerError::Text),
                Message::Close(code, reason) => {
                    let reason = String::from_utf8_lossy(reason).into_owned();
                    return Err(ConsumerError::Closed(code, reason));
                }
            }
        }
        Ok(())
    }
}

/// What one read brought, before it is told to the report.
#[derive(Default)]
struct Batch {
    events: u64,
    bytes: u64,
    digest: u64,
}

impl Drop for ConsumerSession {
    fn drop(&mut self) {
        self.report.closed.store(true, Ordering::Release);
    }
}
