//! Numbering: verified events of all shards become one sequence in the log.
//!
//! - *Runs on*: the thread `sequencer`.
//! - *Takes*: [`Verified`] events, from one ring for each shard.
//! - *Gives*: numbered events in the [`log`](crate::log), and for each shard how many of its events
//!   are appended and how many are synced ([`LaneProgress`]).
//! - *Limits*: a batch of so many events and bytes; while the log can't be written nothing is taken
//!   from the rings, so that they fill up and the hosts are made to wait.
//! - *Invariants*: events of one ring keep their order. Each gets one number. It never waits for a
//!   consumer, and never for a batch to fill.
//!
//! A batch is whatever the rings hold when the thread looks: one event on a quiet day, hundreds in
//! a flood. Bells are rung once for a batch.

mod progress;

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use ports::{
    RelaySeq,
    ring::{Doorbell, Receiver, Weight},
};

pub use progress::LaneProgress;

use crate::{
    accounts::Verified,
    log::{AppendError, Entry, LogWriter},
};

const BATCH_ITEMS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// So many events of one ring, then the next ring's turn.
const LANE_ITEMS_MAX: usize = 64;
const MAINTAIN_INTERVAL: Duration = Duration::from_secs(1);
/// Between two tries to write to a disk that is full or broken.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// Batches that are remembered separately until they are synced; beyond, they are merged.
const MARKS_MAX: usize = 1024;

/// What can be numbered: verified events only.
pub trait Sequence: Weight + Send + 'static {
    fn entry(&self, time_micros: u64) -> Entry<'_>;
}

impl Sequence for Verified {
    fn entry(&self, time_micros: u64) -> Entry<'_> {
        let span = self.seq_span();
        Entry {
            kind: self.kind(),
            account: self.account(),
            host: self.host(),
            host_seq: self.host_seq(),
            upstream: self.upstream(),
            local: self.local(),
            head: self.head(),
            frame: self.frame(),
            seq_span: span.start as u32..span.end as u32,
            time_micros,
        }
    }
}

/// One shard's way in.
#[derive(Debug)]
pub struct Lane<T> {
    pub events: Receiver<T>,
    pub progress: Arc<LaneProgress>,
}

/// The running sequencer.
#[derive(Debug)]
pub struct Sequencer {
    thread: JoinHandle<bool>,
    stop: Arc<AtomicBool>,
    bell: Arc<Doorbell>,
}

impl Sequencer {
    /// Starts the thread. `bell` is the receiver's bell of all the lanes' rings.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn start<T: Sequence>(
        mut writer: LogWriter,
        lanes: Vec<Lane<T>>,
        bell: Arc<Doorbell>,
        core: Option<usize>,
    ) -> io::Result<Self> {
        writer.set_synced_bell(Arc::clone(&bell));
        let stop = Arc::new(AtomicBool::new(false));
        let work = Work::new(writer, lanes);
        let (thread_bell, thread_stop) = (Arc::clone(&bell), Arc::clone(&stop));
        let body = move || {
            if let Some(id) = core {
                core_affinity::set_for_current(core_affinity::CoreId { id });
            }
            work.run(&thread_bell, &thread_stop)
        };
        let thread = Builder::new().name("sequencer".into()).spawn(body)?;
        Ok(Self { thread, stop, bell })
    }

    /// Appends what the rings hold (the senders must have stopped), syncs, marks the log as cleanly
    /// stopped and ends the thread. `false` if the disk did not let it: the log is as after a crash
    /// then.
    pub fn stop(self) -> bool {
        self.stop.store(true, Ordering::SeqCst);
        self.bell.ring();
        self.thread.join().unwrap_or(false)
    }
}

/// How a turn ended.
enum Turn {
    Worked,
    Idle,
    /// The log took nothing; there is no use in trying before this time.
    Blocked(Instant),
}

struct Work<T> {
    writer: LogWriter,
    lanes: Vec<Lane<T>>,
    /// Events of each lane that are numbered, but not yet visible.
    staged: Vec<u64>,
    /// What the log did not take.
    held: Option<(usize, T)>,
    /// The lane whose turn comes first.
    turn: usize,
    marks: VecDeque<Mark>,
}

/// Once `seq` is synced, so many events of each lane are.
struct Mark {
    seq: RelaySeq,
    appended: Box<[u64]>,
}

impl<T: Sequence> Work<T> {
    fn new(writer: LogWriter, lanes: Vec<Lane<T>>) -> Self {
        let staged = vec![0; lanes.len()];
        Self { writer, lanes, staged, held: None, turn: 0, marks: VecDeque::new() }
    }

    fn run(mut self, bell: &Doorbell, stop: &AtomicBool) -> bool {
        let mut maintain_at = Instant::now() + MAINTAIN_INTERVAL;
        loop {
            // Read before the rings: whatever was pushed before the stop is seen below.
            let stopping = stop.load(Ordering::SeqCst);
            let turn = self.run_turn();
            self.publish_synced();
            let now = Instant::now();
            if now >= maintain_at {
                maintain_at = now + MAINTAIN_INTERVAL;
                self.writer.maintain(wall_micros());
            }
            match turn {
                Turn::Worked => {}
                Turn::Idle if stopping => return self.finish(),
                // The last try was now: a disk that does not take it will not be waited for.
                Turn::Blocked(_) if stopping && !self.retry_for_a_while(bell) => return false,
                Turn::Idle => bell.wait(maintain_at.saturating_duration_since(now)),
                Turn::Blocked(until) => wait_until(bell, until, stop),
            }
        }
    }

    /// At a stop: a few more tries, for a disk which is only behind.
    fn retry_for_a_while(&mut self, bell: &Doorbell) -> bool {
        let deadline = Instant::now() + 4 * RETRY_INTERVAL;
        while Instant::now() < deadline {
            bell.wait(Duration::from_millis(20));
            if !matches!(self.run_turn(), Turn::Blocked(_)) {
                return true;
            }
        }
        false
    }

    fn run_turn(&mut self) -> Turn {
        match self.append_batch() {
            Ok(0) => Turn::Idle,
            Ok(_) => Turn::Worked,
            Err(AppendError::Io(_)) => Turn::Blocked(Instant::now() + RETRY_INTERVAL),
            // Ends with a sync, which rings the bell; the time is only a safeguard.
            Err(AppendError::Behind) => Turn::Blocked(Instant::now() + Duration::from_millis(5)),
        }
    }

    /// Numbers and appends what the rings hold, up to the limits of a batch; how many events.
    fn append_batch(&mut self) -> Result<usize, AppendError> {
        // What an earlier turn could not finish comes first.
        self.commit()?;
        let time_micros = wall_micros();
        let (mut items, mut bytes) = (0, 0);
        if let Some((lane, event)) = self.held.take() {
            bytes += self.append(lane, event, time_micros)?;
            items += 1;
        }
        let mut idle_lanes = 0;
        while idle_lanes < self.lanes.len() && items < BATCH_ITEMS_MAX && bytes < BATCH_BYTES_MAX {
            let lane = self.turn;
            self.turn = (self.turn + 1) % self.lanes.len();
            let before = items;
            while items - before < LANE_ITEMS_MAX && bytes < BATCH_BYTES_MAX {
                let Some(event) = self.lanes[lane].events.pop() else { break };
                bytes += self.append(lane, event, time_micros)?;
                items += 1;
            }
            idle_lanes = if items == before { idle_lanes + 1 } else { 0 };
        }
        self.commit()?;
        Ok(items)
    }

    fn append(&mut self, lane: usize, event: T, time_micros: u64) -> Result<usize, AppendError> {
        let bytes = event.weight();
        match self.writer.append(&event.entry(time_micros)) {
            Ok(_) => {
                self.staged[lane] += 1;
                Ok(bytes)
            }
            Err(error) => {
                self.held = Some((lane, event));
                Err(error)
            }
        }
    }

    /// Makes the staged events visible and tells the shards.
    fn commit(&mut self) -> Result<(), AppendError> {
        if self.staged.iter().all(|count| *count == 0) {
            return Ok(());
        }
        self.writer.commit()?;
        for (lane, staged) in self.lanes.iter().zip(&mut self.staged) {
            lane.progress.add_appended(*staged);
            *staged = 0;
        }
        self.mark();
        for lane in &self.lanes {
            lane.progress.ring_follower();
        }
        Ok(())
    }

    fn mark(&mut self) {
        let seq = RelaySeq(self.writer.next_seq().0 - 1);
        let appended = self.lanes.iter().map(|lane| lane.progress.appended()).collect();
        if self.marks.len() >= MARKS_MAX {
            self.marks.pop_back();
        }
        self.marks.push_back(Mark { seq, appended });
    }

    /// Tells the shards how many of their events are synced.
    fn publish_synced(&mut self) {
        let synced = self.writer.synced();
        let mut reached = None;
        while self.marks.front().is_some_and(|mark| mark.seq <= synced) {
            reached = self.marks.pop_front();
        }
        if let Some(mark) = reached {
            for (lane, count) in self.lanes.iter().zip(&mark.appended) {
                lane.progress.set_synced(*count);
            }
        }
    }

    fn finish(self) -> bool {
        let closed = self.writer.close();
        match &closed {
            Ok(()) => {
                for lane in &self.lanes {
                    lane.progress.set_synced(lane.progress.appended());
                }
            }
            Err(error) => tracing::error!(%error, "the log could not be closed in order"),
        }
        closed.is_ok()
    }
}

/// Rings that fill up ring the bell too; they are no reason to try a broken disk again.
fn wait_until(bell: &Doorbell, until: Instant, stop: &AtomicBool) {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || stop.load(Ordering::SeqCst) {
            return;
        }
        bell.wait(left);
    }
}

fn wall_micros() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_micros() as u64
}
