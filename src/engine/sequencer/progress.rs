//! How far the sequencer is with the events of one shard.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use ports::ring::Doorbell;

/// Written by the sequencer, read by the shard. Events of a shard are appended and synced in the
/// order in which it pushed them, so two counts tell it all.
#[derive(Debug)]
pub struct LaneProgress {
    appended: AtomicU64,
    synced: AtomicU64,
    follows: AtomicBool,
    bell: Arc<Doorbell>,
}

impl LaneProgress {
    /// `bell` is the shard's.
    pub fn new(bell: Arc<Doorbell>) -> Arc<Self> {
        Arc::new(Self {
            appended: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            follows: AtomicBool::new(false),
            bell,
        })
    }

    /// Events that the shard pushed and consumers can see, since the start.
    pub fn appended(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    /// Events that the shard pushed and power loss can't take away, since the start.
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Whether the shard wants its bell rung for every batch (it has consumers), and not only when
    /// some of its own events are synced.
    pub fn set_follows(&self, follows: bool) {
        self.follows.store(follows, Ordering::SeqCst);
    }

    pub(super) fn add_appended(&self, count: u64) {
        self.appended.fetch_add(count, Ordering::Release);
    }

    pub(super) fn set_synced(&self, count: u64) {
        if self.synced.swap(count, Ordering::AcqRel) != count {
            self.bell.ring();
        }
    }

    pub(super) fn ring_follower(&self) {
        if self.follows.load(Ordering::SeqCst) {
            self.bell.ring();
        }
    }
}
