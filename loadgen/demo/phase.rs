//! One phase: lets its events out, shows how it goes, and measures.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel;

use super::replay::{Manner, Readers, Replayed};
use super::{Stage, report};
use crate::driver::PHASE_NOTICE;
use crate::histogram::Percentiles;
use crate::pace::Phase;
use crate::{clock, procfs};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PhasePlan {
    pub(super) name: &'static str,
    pub(super) first: u32,
    pub(super) end: u32,
    /// Events a second; `None` for full speed.
    pub(super) rate: Option<f64>,
    /// Consumers that join before it.
    pub(super) consumers: u32,
    /// Readers of the whole log beside it.
    pub(super) readers: Option<(u32, Manner)>,
}

#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct PhaseResult {
    pub(super) name: &'static str,
    pub(super) events: u32,
    pub(super) consumers: usize,
    /// All events arrived at all consumers.
    pub(super) complete: bool,
    /// From the first event's time to the last arrival.
    pub(super) seconds: f64,
    pub(super) events_per_second: f64,
    pub(super) relay_micros_per_event: Option<f64>,
    pub(super) loadgen_micros_per_event: Option<f64>,
    pub(super) latency: Percentiles,
    /// Counted from when each event was due instead of when it was written.
    pub(super) latency_from_due: Percentiles,
    /// CPU of the relay's threads for each event, by name, in microseconds.
    pub(super) relay_threads: BTreeMap<String, f64>,
    pub(super) replayed: Option<Replayed>,
}

/// CPU times at one moment.
struct Sample {
    relay: Option<u64>,
    own: Option<u64>,
    threads: BTreeMap<String, u64>,
}

impl Sample {
    fn take(pid: Option<u32>) -> Self {
        let mut threads = BTreeMap::new();
        for (name, nanos) in pid.map(procfs::threads_cpu_nanos).unwrap_or_default() {
            *threads.entry(name).or_default() += nanos;
        }
        Self {
            relay: pid.and_then(procfs::process_cpu_nanos),
            own: procfs::process_cpu_nanos(std::process::id()),
            threads,
        }
    }
}

/// What a live line is the difference to.
pub(super) struct Tick {
    pub(super) at: Instant,
    pub(super) written: u64,
    pub(super) received: u64,
    pub(super) relay: Option<u64>,
    pub(super) own: Option<u64>,
}

impl Tick {
    fn take(stage: &Stage<'_>) -> Self {
        Self {
            at: Instant::now(),
            written: stage.network.events_written.load(Ordering::Relaxed),
            received: stage.witness.events.load(Ordering::Relaxed),
            relay: stage.relay.pid.and_then(procfs::process_cpu_nanos),
            own: procfs::process_cpu_nanos(std::process::id()),
        }
    }
}

pub(super) fn run(stage: &Stage<'_>, plan: &PhasePlan) -> PhaseResult {
    let events = plan.end - plan.first;
    stage.witness.latency.clear();
    stage.witness.latency_from_due.clear();
    let others_before: Vec<u64> =
        stage.others.iter().map(|other| other.events.load(Ordering::Acquire)).collect();
    let before = Sample::take(stage.relay.pid);
    let start_ns = clock::now_nanos() + PHASE_NOTICE.as_nanos() as u64;
    let start = Instant::now() + PHASE_NOTICE;
    stage.network.pace.set(match plan.rate {
        Some(rate) => Phase::at_rate(plan.first, plan.end, start_ns, rate),
        None => Phase::full_speed(plan.first, plan.end, start_ns),
    });
    let readers = plan.readers.map(|(count, manner)| Readers::start(stage, count, manner));
    let readers = readers.transpose().unwrap_or_else(|error| {
        tracing::error!("the readers could not be started: {error}");
        None
    });
    let arrived = || {
        if let Some(readers) = &readers {
            readers.note_newest(stage.witness.last_seq.load(Ordering::Relaxed));
        }
        let others = stage.others.iter().zip(&others_before);
        let others = others.map(|(other, before)| other.events.load(Ordering::Acquire) - before);
        let witness = stage.witness.events.load(Ordering::Acquire);
        (witness >= u64::from(plan.end), others.min().is_none_or(|least| least >= events.into()))
    };
    let complete = watch(stage, plan, || arrived() == (true, true));
    let seconds = start.elapsed().as_secs_f64();
    let replayed = readers.map(|readers| readers.finish(stage));
    let after = Sample::take(stage.relay.pid);
    let per_event = |before: Option<u64>, after: Option<u64>| {
        let used = after?.checked_sub(before?)?;
        Some(used as f64 / 1000.0 / f64::from(events))
    };
    let threads = after.threads.iter().map(|(name, nanos)| {
        let used = nanos.saturating_sub(before.threads.get(name).copied().unwrap_or(0));
        (name.clone(), used as f64 / 1000.0 / f64::from(events))
    });
    PhaseResult {
        name: plan.name,
        events,
        consumers: 1 + stage.others.len(),
        complete,
        seconds,
        events_per_second: f64::from(events) / seconds,
        relay_micros_per_event: per_event(before.relay, after.relay),
        loadgen_micros_per_event: per_event(before.own, after.own),
        latency: stage.witness.latency.percentiles(),
        latency_from_due: stage.witness.latency_from_due.percentiles(),
        relay_threads: threads.filter(|(_, micros)| *micros >= 0.01).collect(),
        replayed,
    }
}

/// CPU time of the relay, in nanoseconds.
pub(super) fn process_cpu(pid: Option<u32>) -> Option<u64> {
    pid.and_then(procfs::process_cpu_nanos)
}

/// Shows a line each second until everything has arrived; false if nothing moves any more.
fn watch(stage: &Stage<'_>, plan: &PhasePlan, done: impl Fn() -> bool) -> bool {
    let ticks = channel::tick(Duration::from_millis(5));
    let (mut last, mut moved_at) = (Tick::take(stage), Instant::now());
    let mut moved = 0;
    while !done() {
        if ticks.recv().is_err() {
            return false;
        }
        let received: u64 = stage
            .others
            .iter()
            .chain([&stage.witness])
            .map(|consumer| consumer.events.load(Ordering::Relaxed))
            .sum();
        if received != moved {
            (moved, moved_at) = (received, Instant::now());
        } else if moved_at.elapsed() > stage.options.patience {
            return false;
        }
        if last.at.elapsed() >= Duration::from_secs(1) {
            let now = Tick::take(stage);
            let refused = stage.relay.refusals().iter().map(|(_, count)| count).sum();
            let latency = stage.witness.latency.percentiles();
            stage.say(&report::live_text(plan.name, &last, &now, &latency, refused));
            last = now;
        }
    }
    true
}
