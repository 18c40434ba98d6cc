//! All rings of the engine, made in one place, so that each end is given to exactly one thread.

use std::sync::Arc;

use ports::{
    ShardCommand, ShardId, ShardReport,
    ring::{Doorbell, Receiver, Sender, ring},
};

use crate::{accounts::Verified, config::Limits, sequencer::LaneProgress, shard::MeshEnds};

/// Commands and reports are few; but a burst of consumers or answers should not have to wait.
const CONTROL_ITEMS: usize = 1 << 12;
const CONTROL_BYTES: usize = 16 << 20;
/// Tickets are small, and each one that waits is in flight.
const RETURN_ITEMS: usize = 1 << 13;
const RETURN_BYTES: usize = usize::MAX / 2;

pub(super) struct Rings {
    pub(super) bells: Vec<Arc<Doorbell>>,
    pub(super) commands: Vec<Sender<ShardCommand>>,
    pub(super) reports: Vec<Receiver<ShardReport>>,
    pub(super) shards: Vec<ShardRings>,
    pub(super) lanes: Vec<(Receiver<Verified>, Arc<LaneProgress>)>,
}

/// One shard's ends.
pub(super) struct ShardRings {
    pub(super) shard: ShardId,
    pub(super) bell: Arc<Doorbell>,
    pub(super) commands: Receiver<ShardCommand>,
    pub(super) reports: Sender<ShardReport>,
    pub(super) mesh: MeshEnds,
    pub(super) verified: Sender<Verified>,
    pub(super) progress: Arc<LaneProgress>,
}

impl Rings {
    pub(super) fn new(
        count: usize,
        limits: &Limits,
        control: &Arc<Doorbell>,
        sequencer: &Arc<Doorbell>,
    ) -> Self {
        let bells: Vec<_> = (0..count).map(|_| Doorbell::new()).collect();
        let mut rings = Self {
            bells: bells.clone(),
            commands: Vec::new(),
            reports: Vec::new(),
            shards: Vec::new(),
            lanes: Vec::new(),
        };
        for ((index, bell), mesh) in bells.iter().enumerate().zip(mesh(&bells, limits)) {
            let (command_in, commands) = ring(CONTROL_ITEMS, CONTROL_BYTES, bell, control);
            let (reports, report_out) = ring(CONTROL_ITEMS, CONTROL_BYTES, control, bell);
            let (items, bytes) = (limits.verified.items, limits.verified.bytes);
            let (verified, events) = ring(items, bytes, sequencer, bell);
            let progress = LaneProgress::new(Arc::clone(bell));
            rings.commands.push(command_in);
            rings.reports.push(report_out);
            rings.lanes.push((events, Arc::clone(&progress)));
            rings.shards.push(ShardRings {
                shard: ShardId(index as u16),
                bell: Arc::clone(bell),
                commands,
                reports,
                mesh,
                verified,
                progress,
            });
        }
        rings
    }
}

/// A ring of frames and one of tickets from each shard to each other one.
fn mesh(bells: &[Arc<Doorbell>], limits: &Limits) -> Vec<MeshEnds> {
    let count = bells.len();
    let none = || MeshEnds {
        frames_out: Vec::new(),
        frames_in: Vec::new(),
        returns_out: Vec::new(),
        returns_in: Vec::new(),
    };
    let mut ends: Vec<_> = (0..count).map(|_| none()).collect();
    for from in 0..count {
        for to in 0..count {
            // Row by row: the outgoing ends of `from` and the incoming ones of `to` both get their
            // places in order.
            if from == to {
                ends[from].frames_out.push(None);
                ends[from].returns_out.push(None);
                ends[to].frames_in.push(None);
                ends[to].returns_in.push(None);
                continue;
            }
            let (receiver, sender) = (&bells[to], &bells[from]);
            let (out, inbox) = ring(limits.mesh.items, limits.mesh.bytes, receiver, sender);
            ends[from].frames_out.push(Some(out));
            ends[to].frames_in.push(Some(inbox));
            let (out, inbox) = ring(RETURN_ITEMS, RETURN_BYTES, receiver, sender);
            ends[from].returns_out.push(Some(out));
            ends[to].returns_in.push(Some(inbox));
        }
    }
    ends
}
