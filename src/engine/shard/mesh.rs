//! The rings between shards: frames to the owners of accounts, tickets back to the homes of hosts.
//!
//! A shard's frames to itself go through a plain queue with the same limits.

use std::collections::VecDeque;

use ports::{
    HostId, ShardId, owner_of,
    ring::{Receiver, Sender, Weight},
};

use crate::{accounts::Finished, config::RingLimits, upstream::RawFrame};

/// A ticket on its way back to the host's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// The event is in the sequencer's ring: its bytes are no longer the host's.
    Passed {
        host: HostId,
        ticket: u64,
    },
    Finished(Finished),
}

impl Weight for Return {
    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}

/// The ends which one shard holds. Where a vector has a place for the shard itself, it is `None`.
#[derive(Debug)]
pub struct MeshEnds {
    pub frames_out: Vec<Option<Sender<RawFrame>>>,
    pub frames_in: Vec<Option<Receiver<RawFrame>>>,
    pub returns_out: Vec<Option<Sender<Return>>>,
    pub returns_in: Vec<Option<Receiver<Return>>>,
}

#[derive(Debug)]
pub(super) struct Mesh {
    shard: ShardId,
    ends: MeshEnds,
    local: VecDeque<RawFrame>,
    local_bytes: usize,
    local_limits: RingLimits,
    /// Shards that were pushed to since the last flush.
    touched: Vec<bool>,
    /// Tickets for which the ring had no room: bounded by what is in flight.
    backlog: Vec<VecDeque<Return>>,
    /// A push found no room.
    starved: bool,
    /// Whose inbox is looked at first next time.
    turn: usize,
}

impl Mesh {
    pub(super) fn new(shard: ShardId, ends: MeshEnds, local_limits: RingLimits) -> Self {
        let count = ends.frames_out.len();
        Self {
            shard,
            ends,
            local: VecDeque::new(),
            local_bytes: 0,
            local_limits,
            touched: vec![false; count],
            backlog: vec![VecDeque::new(); count],
            starved: false,
            turn: 0,
        }
    }

    pub(super) fn push(&mut self, frame: RawFrame) -> Result<(), RawFrame> {
        let owner = owner_of(frame.did(), self.touched.len());
        let index = usize::from(owner.0);
        let result = match &mut self.ends.frames_out[index] {
            Some(ring) => ring.push(frame),
            None => self.push_local(frame),
        };
        match &result {
            Ok(()) => self.touched[index] = true,
            Err(_) => self.starved = true,
        }
        result
    }

    fn push_local(&mut self, frame: RawFrame) -> Result<(), RawFrame> {
        let bytes = self.local_bytes + frame.weight();
        let full = self.local.len() >= self.local_limits.items || bytes > self.local_limits.bytes;
        if full && !self.local.is_empty() {
            return Err(frame);
        }
        self.local_bytes = bytes;
        self.local.push_back(frame);
        Ok(())
    }

    /// Wakes the shards that were pushed to. Returns whether the shard itself has to be woken.
    pub(super) fn flush(&mut self) -> bool {
        let mut own = false;
        for (index, touched) in self.touched.iter_mut().enumerate() {
            if std::mem::take(touched) {
                match &self.ends.frames_out[index] {
                    Some(ring) => ring.ring(),
                    None => own = true,
                }
            }
        }
        own
    }

    /// Takes at most `count` frames, from each inbox in its turn.
    pub(super) fn take_frames(&mut self, count: usize, mut take: impl FnMut(RawFrame)) {
        let inboxes = self.touched.len();
        let mut left = count;
        let mut empty = 0;
        while left > 0 && empty < inboxes {
            let index = self.turn % inboxes;
            self.turn = (index + 1) % inboxes;
            let share = (count / inboxes).clamp(1, left);
            let mut taken = 0;
            while taken < share {
                let Some(frame) = self.pop_frame(index) else { break };
                take(frame);
                taken += 1;
            }
            left -= taken;
            empty = if taken == 0 { empty + 1 } else { 0 };
        }
    }

    fn pop_frame(&mut self, index: usize) -> Option<RawFrame> {
        match &mut self.ends.frames_in[index] {
            Some(ring) => ring.pop(),
            None => {
                let frame = self.local.pop_front()?;
                self.local_bytes -= frame.weight();
                Some(frame)
            }
        }
    }

    pub(super) fn has_frames(&self) -> bool {
        !self.local.is_empty() || self.ends.frames_in.iter().flatten().any(|ring| !ring.is_empty())
    }

    /// Whether it is worth for waiting readers to try again. For the shard's own queue they are
    /// called in batches: when half of it is free.
    pub(super) fn take_starved(&mut self) -> bool {
        let ready = self.local.len() <= self.local_limits.items / 2
            && self.local_bytes <= self.local_limits.bytes / 2;
        ready && std::mem::take(&mut self.starved)
    }

    /// Sends a ticket home; what is for the shard itself is given back.
    pub(super) fn send_home(&mut self, home: ShardId, item: Return) -> Option<Return> {
        if home == self.shard {
            return Some(item);
        }
        let index = usize::from(home.0);
        if let Some(queue) = self.backlog.get_mut(index) {
            queue.push_back(item);
        }
        None
    }

    /// Moves tickets from the backlog into the rings and wakes their receivers. Returns whether all
    /// of them went.
    pub(super) fn flush_returns(&mut self) -> bool {
        let mut all = true;
        for (queue, ring) in self.backlog.iter_mut().zip(&mut self.ends.returns_out) {
            let Some(ring) = ring.as_mut().filter(|_| !queue.is_empty()) else { continue };
            while let Some(item) = queue.pop_front() {
                if let Err(item) = ring.push(item) {
                    queue.push_front(item);
                    all = false;
                    break;
                }
            }
            ring.ring();
        }
        all
    }

    pub(super) fn pop_return(&mut self) -> Option<Return> {
        self.ends.returns_in.iter_mut().flatten().find_map(Receiver::pop)
    }
}
