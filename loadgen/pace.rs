//! When each event is due: all at once, or evenly spread at a fixed total rate.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// A run of events that are let out together. Events before `first` have been let out, those from
/// `end` on are held back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    pub first: u32,
    pub end: u32,
    pub start_ns: u64,
    /// Time between two events of all hosts together; zero for full speed.
    pub interval_ns: f64,
}

/// The phase that is on, for all hosts.
#[derive(Debug)]
pub struct Pace {
    phase: ArcSwap<Phase>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { phase: ArcSwap::from_pointee(Phase::held(0)) }
    }
}

impl Phase {
    /// Everything before `first` is out, nothing else.
    pub fn held(first: u32) -> Self {
        Self { first, end: first, start_ns: 0, interval_ns: 0.0 }
    }

    pub fn full_speed(first: u32, end: u32, start_ns: u64) -> Self {
        Self { first, end, start_ns, interval_ns: 0.0 }
    }

    pub fn at_rate(first: u32, end: u32, start_ns: u64, events_per_second: f64) -> Self {
        Self { first, end, start_ns, interval_ns: 1e9 / events_per_second }
    }

    /// When the event is due; `None` if it is held back.
    pub fn due(&self, event: u32) -> Option<u64> {
        if event >= self.end {
            return None;
        }
        let Some(place) = event.checked_sub(self.first) else { return Some(0) };
        Some(self.start_ns + (f64::from(place) * self.interval_ns) as u64)
    }

    /// How many events of all hosts are out at that time, counted from the first of the corpus.
    pub fn released(&self, now_ns: u64) -> u32 {
        if now_ns < self.start_ns {
            return self.first;
        }
        if self.interval_ns == 0.0 {
            return self.end;
        }
        let places = ((now_ns - self.start_ns) as f64 / self.interval_ns) as u64 + 1;
        self.first + places.min(u64::from(self.end - self.first)) as u32
    }
}

impl Pace {
    pub fn set(&self, phase: Phase) {
        self.phase.store(Arc::new(phase));
    }

    pub fn phase(&self) -> Phase {
        **self.phase.load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times() {
        let phase = Phase::at_rate(10, 20, 1000, 1e6);
        assert_eq!(phase.due(9), Some(0));
        assert_eq!(phase.due(10), Some(1000));
        assert_eq!(phase.due(13), Some(4000));
        assert_eq!(phase.due(20), None);
        assert_eq!(phase.released(999), 10);
        assert_eq!(phase.released(1000), 11);
        assert_eq!(phase.released(4000), 14);
        assert_eq!(phase.released(1_000_000), 20);
        assert_eq!(Phase::held(7).released(5), 7);
        assert_eq!(Phase::full_speed(0, 7, 50).released(50), 7);
    }
}
