//! The engine's settings.

use std::time::Duration;

use rustls::pki_types::CertificateDer;

use crate::{
    fanout::ConsumerTimes,
    log::LogConfig,
    rt::Driver,
    upstream::{LinkTimes, WindowLimits},
};

#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// At least one.
    pub shards: usize,
    /// Bind shard N to core N.
    pub pin: bool,
    pub driver: Driver,
    pub log: LogConfig,
    pub limits: Limits,
    pub links: LinkTimes,
    pub consumers: ConsumerTimes,
    /// How the relay names itself to hosts.
    pub user_agent: String,
    /// Certificates to trust beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl EngineConfig {
    pub fn new(log: LogConfig) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            shards: cores,
            pin: true,
            driver: Driver::Auto,
            log,
            limits: Limits::default(),
            links: LinkTimes::default(),
            consumers: ConsumerTimes::default(),
            user_agent: format!("relayered/{} (atproto-relay)", env!("CARGO_PKG_VERSION")),
            extra_roots: Vec::new(),
        }
    }
}

/// What may be in our hands. Above it the sender is made to wait; nothing is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For each host.
    pub host_window: WindowLimits,
    /// A WebSocket message from a host.
    pub message_bytes_max: usize,
    /// How long a frame waits for an identity.
    pub parked_wait: Duration,
    /// A DID document is asked for again when it is older.
    pub identity_ttl: Duration,
    /// Frames that wait for identities, for each shard.
    pub parked_bytes_max: usize,
    /// Events that were read although their hosts are above their event rates, for each shard.
    pub paced_bytes_max: usize,
    /// Accounts in memory, over all shards.
    pub accounts_memory_bytes: u64,
    /// Each ring between two shards, and each shard's own queue.
    pub mesh: RingLimits,
    /// Each ring from a shard to the sequencer.
    pub verified: RingLimits,
}

/// What an account takes in memory, its place in the index included.
const ACCOUNT_BYTES: u64 = 160;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLimits {
    pub items: usize,
    pub bytes: usize,
}

impl Limits {
    /// How many accounts one of so many shards may have in memory.
    pub fn accounts_max(&self, shards: usize) -> usize {
        let bytes = self.accounts_memory_bytes / shards.max(1) as u64;
        usize::try_from(bytes / ACCOUNT_BYTES).unwrap_or(usize::MAX).max(1)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // An event that waits for the directory holds up the cursor and not the host: so many may
            // come behind it. For each a few bytes are kept.
            host_window: WindowLimits { items: 1 << 18, bytes: 16 << 20 },
            message_bytes_max: protocol::frame::FRAME_BYTES_MAX,
            // Nothing is lost while the directory is away for an hour; the window and the bytes below are
            // the bounds.
            parked_wait: Duration::from_mins(75),
            identity_ttl: Duration::from_hours(24),
            parked_bytes_max: 256 << 20,
            paced_bytes_max: 128 << 20,
            accounts_memory_bytes: 4 << 30,
            // Small enough that what was read is still in the processor's cache when it is verified.
            mesh: RingLimits { items: 1 << 10, bytes: 256 << 10 },
            verified: RingLimits { items: 1 << 10, bytes: 512 << 10 },
        }
    }
}
