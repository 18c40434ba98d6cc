//! Rate limits and times in the four bytes that an account can spare for each.

use super::WallTime;

/// A point in time, in whole seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seconds(u32);

impl Seconds {
    pub(super) fn from_unix(seconds: u64) -> Self {
        Self(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// The distance in time, whichever is the later: a clock that was set back must not make
    /// things last for years.
    pub(super) fn distance(self, other: Self) -> u32 {
        self.0.abs_diff(other.0)
    }
}

impl From<WallTime> for Seconds {
    fn from(time: WallTime) -> Self {
        Self::from_unix(time.micros() / 1_000_000)
    }
}

/// How much a limit allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) burst: u32,
    /// Seconds until one more is allowed.
    pub(super) interval: u32,
}

/// What was used of a limit: the time at which all of it is free again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used(u32);

impl Used {
    /// Takes one, if the rate has one left.
    pub(super) fn take(&mut self, rate: Rate, now: Seconds) -> bool {
        let Rate { burst, interval } = rate;
        let full = burst.saturating_mul(interval);
        // Further ahead than a used-up limit can be: the clock was set back.
        let free_at = if self.0 > now.0.saturating_add(full) { now.0 } else { self.0.max(now.0) };
        let next = free_at.saturating_add(interval);
        let allowed = next - now.0 <= full;
        if allowed {
            self.0 = next;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_for_each_interval() {
        let rate = Rate { burst: 3, interval: 10 };
        let mut used = Used::default();
        let at = |seconds: u32| Seconds(1_000_000 + seconds);
        assert!((0..3).all(|_| used.take(rate, at(0))));
        assert!(!used.take(rate, at(0)));
        assert!(!used.take(rate, at(9)));
        assert!(used.take(rate, at(10)));
        assert!(!used.take(rate, at(19)));
        assert!(used.take(rate, at(20)));
        assert!((0..3).all(|_| used.take(rate, at(1000))));
        assert!(!used.take(rate, at(1000)));
    }

    #[test]
    fn a_clock_set_back_does_not_close_the_limit() {
        let rate = Rate { burst: 1, interval: 60 };
        let mut used = Used::default();
        assert!(used.take(rate, Seconds(2_000_000)));
        assert!(used.take(rate, Seconds(1_000_000)));
        assert!(!used.take(rate, Seconds(1_000_001)));
    }
}
