//! When to try a sibling again. Given the time, does no IO.

use std::time::{Duration, Instant};

/// How long to wait after failures in a row.
#[derive(Clone, Copy, Debug)]
pub struct PaceConfig {
    /// After the first failure; doubled with each further one.
    pub first: Duration,
    pub longest: Duration,
}

impl Default for PaceConfig {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_mins(5) }
    }
}

/// One sibling's pace: at once while all goes well, ever slower while it does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    config: PaceConfig,
    failures: u32,
    not_before: Option<Instant>,
}

impl Pace {
    /// `failures`: attempts at the first change of the queue that failed before the last restart.
    /// The first attempt is made at once all the same: whoever starts a relay wants to see it work.
    pub(crate) fn new(config: PaceConfig, failures: u32) -> Self {
        Self { config, failures, not_before: None }
    }

    /// When the next attempt may be made; `None`: at once.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn handle_success(&mut self) {
        (self.failures, self.not_before) = (0, None);
    }

    /// Returns how long to wait. What the sibling asked for is honoured up to the longest wait.
    pub(crate) fn handle_failure(&mut self, asked: Option<Duration>, now: Instant) -> Duration {
        let doubled = self.config.first.saturating_mul(1 << self.failures.min(20));
        let wait = doubled.max(asked.unwrap_or_default()).min(self.config.longest);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + wait);
        wait
    }

    /// The operator wants to see it now.
    pub(crate) fn hurry(&mut self) {
        self.not_before = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let config = PaceConfig { first: Duration::from_secs(1), longest: Duration::from_secs(10) };
        let (mut pace, now) = (Pace::new(config, 0), Instant::now());
        assert_eq!(pace.not_before(), None);
        let waits: Vec<u64> = (0..6).map(|_| pace.handle_failure(None, now).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert_eq!(pace.not_before(), Some(now + Duration::from_secs(10)));
        pace.hurry();
        assert_eq!((pace.not_before(), pace.failures()), (None, 6));
        pace.handle_success();
        assert_eq!(pace.handle_failure(None, now).as_secs(), 1);
    }

    #[test]
    fn a_sibling_may_ask_for_more_time() {
        let (mut pace, now) = (Pace::new(PaceConfig::default(), 0), Instant::now());
        assert_eq!(pace.handle_failure(Some(Duration::from_secs(30)), now).as_secs(), 30);
        assert_eq!(pace.handle_failure(Some(Duration::from_hours(9)), now).as_secs(), 300);
    }

    #[test]
    fn a_restart_goes_on_where_it_was() {
        let (mut pace, now) = (Pace::new(PaceConfig::default(), 3), Instant::now());
        assert_eq!(pace.not_before(), None);
        assert_eq!(pace.handle_failure(None, now).as_secs(), 8);
    }

    proptest! {
        #[test]
        fn waits_never_shrink_while_it_fails(failures in 0_u32..2000) {
            let (mut pace, now) = (Pace::new(PaceConfig::default(), failures), Instant::now());
            let first = pace.handle_failure(None, now);
            let second = pace.handle_failure(None, now);
            prop_assert!(first <= second && second <= PaceConfig::default().longest);
            prop_assert!(first >= PaceConfig::default().first);
        }
    }
}
