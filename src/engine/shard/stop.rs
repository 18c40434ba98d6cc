//! Stopping in phases: each begins when all shards have done the one before.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};

use ports::ring::Doorbell;

/// How far the engine has gone in stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    Running = 0,
    /// Connections to hosts are ended; nothing new is pushed.
    Deaf = 1,
    /// What was pushed is verified and handed to the sequencer.
    Drained = 2,
    /// The log is complete: tickets go home.
    Settled = 3,
    /// All tickets are home, so the last report is complete; consumers get the rest and a close frame.
    Parting = 4,
    /// Consumers that are still there are cut off.
    Cut = 5,
}

impl Phase {
    fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Running,
            1 => Self::Deaf,
            2 => Self::Drained,
            3 => Self::Settled,
            4 => Self::Parting,
            _ => Self::Cut,
        }
    }
}

/// Shared by the shards and whoever stops them.
#[derive(Debug)]
pub struct Stop {
    phase: AtomicU8,
    /// How many shards have done each phase.
    done: [AtomicUsize; 6],
    /// Rung when a shard has done a phase.
    bell: Arc<Doorbell>,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(0),
            done: [const { AtomicUsize::new(0) }; 6],
            bell: Doorbell::new(),
        }
    }
}

impl Stop {
    pub fn phase(&self) -> Phase {
        Phase::from_code(self.phase.load(Ordering::Acquire))
    }

    /// Begins a phase; the shards' bells are to be rung.
    pub fn begin(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// One more shard has done a phase.
    pub fn note_done(&self, phase: Phase) {
        self.done[phase as usize].fetch_add(1, Ordering::AcqRel);
        self.bell.ring();
    }

    pub fn done(&self, phase: Phase) -> usize {
        self.done[phase as usize].load(Ordering::Acquire)
    }

    pub fn bell(&self) -> &Doorbell {
        &self.bell
    }
}
