//! A shard: one thread with its hosts, its accounts and its consumers, and the loop that drives
//! them.
//!
//! - *Runs on*: the thread `shard-NN`, one a core.
//! - *Takes*: commands from control; frames and tickets from the other shards; the sequencer's
//!   progress. All of them ring one bell.
//! - *Gives*: frames and tickets to the other shards, verified events to the sequencer, reports.
//! - *Limits*: so many frames a turn, then everything else of the thread gets its turn; rings are
//!   bounded, and a full one stops those who feed it.
//! - *Invariants*: the loop never waits for room. State is touched only between two awaits, and by
//!   this thread alone.

mod core;
mod hosts;
mod mesh;
mod reports;
mod stop;
mod turn;

use std::{
    future::poll_fn,
    rc::{Rc, Weak},
    task::Poll,
    time::Duration,
};

pub use self::{
    core::{Core, ShardEnds},
    mesh::{MeshEnds, Return},
    stop::{Phase, Stop},
};
use crate::rt;

/// Deadlines, pings and reports are looked at this often.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// Runs a shard until the engine stops.
pub async fn run(core: Rc<Core>) {
    rt::spawn(sweep(Rc::downgrade(&core)));
    loop {
        let more = core.turn();
        if core.is_done() {
            return;
        }
        if more || !ring_waited(&core).await {
            rt::yield_now().await;
        }
    }
}

/// Waits for the bell. False if it had been rung before: then nobody else had a turn.
async fn ring_waited(core: &Core) -> bool {
    let mut waited = false;
    poll_fn(|cx| match core.bell().poll_rung(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => {
            waited = true;
            Poll::Pending
        }
    })
    .await;
    waited
}

/// Holds nothing while it sleeps: it does not keep the state of a shard that has stopped.
async fn sweep(core: Weak<Core>) {
    loop {
        rt::sleep(SWEEP_INTERVAL).await;
        let Some(core) = core.upgrade() else { return };
        core.sweep();
        core.bell().ring();
    }
}
