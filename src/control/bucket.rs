//! A pace: so many at once, and so many in a time.

use std::time::{Duration, Instant};

/// A token bucket: `rate` a second on average, up to `burst` at once.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    pub(crate) fn new(rate: f64, burst: f64, now: Instant) -> Self {
        Self { rate: rate.max(0.001), burst: burst.max(1.0), tokens: burst.max(1.0), at: now }
    }

    /// When the next token is there: now, or later.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        let missing = 1.0 - self.level(now);
        if missing <= 0.0 { now } else { now + Duration::from_secs_f64(missing / self.rate) }
    }

    /// Takes one if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.tokens = self.level(now);
        self.at = self.at.max(now);
        // Room for rounding, so that the time told by `next` is surely late enough.
        let there = self.tokens >= 1.0 - 1e-6;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Takes what was used already, be it more than there is: the debt is paid off before anything
    /// else. Whether there was enough.
    pub(crate) fn spend(&mut self, count: u64, now: Instant) -> bool {
        self.tokens = self.level(now) - count as f64;
        self.at = self.at.max(now);
        self.tokens >= 0.0
    }

    /// Leaves at most this share of the burst.
    pub(crate) fn drain_to(&mut self, share: f64, now: Instant) {
        self.tokens = self.burst * share;
        self.at = self.at.max(now);
    }

    /// Whether nothing of it is in use.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.level(now) >= self.burst
    }

    fn level(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens + elapsed * self.rate).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_keeps_the_pace() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10.0, 3.0, start);
        let taken = (0..5).filter(|_| bucket.take(start)).count();
        assert_eq!(taken, 3);
        let mut now = start;
        for _ in 0..100 {
            now = bucket.next(now);
            assert!(bucket.take(now));
        }
        let elapsed = now.duration_since(start).as_secs_f64();
        assert!((elapsed - 10.0).abs() < 0.01, "{elapsed}");
    }

    #[test]
    fn a_debt_is_paid_off_first() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1.0, 10.0, start);
        assert!(bucket.spend(10, start));
        assert!(!bucket.spend(5, start));
        assert_eq!(bucket.next(start), start + Duration::from_secs(6));
        assert!(bucket.is_full(start + Duration::from_secs(15)));
        assert!(!bucket.is_full(start + Duration::from_secs(14)));
        bucket.drain_to(0.5, start);
        assert!(bucket.spend(5, start) && !bucket.spend(1, start));
    }
}
