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
    /// Seconds until one more is allowed; an even number. All together an hour at most.
    pub(super) interval: u32,
}

/// What was used of a limit: the time at which all of it is free again, in units of
/// [`Used::UNIT_SECONDS`], modulo 2^16. A time that has been over for 36 hours looks like one to come;
/// that it then falls into the few minutes in which it matters is rare, and does little.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used(u16);

impl Used {
    const UNIT_SECONDS: u32 = 2;

    /// Takes one, if the rate has one left.
    pub(super) fn take(&mut self, rate: Rate, now: Seconds) -> bool {
        self.take_or_wait(rate, now) == 0
    }

    /// Takes one and gives 0, or gives the seconds after which there will be one.
    pub(super) fn take_or_wait(&mut self, rate: Rate, now: Seconds) -> u32 {
        let interval = (rate.interval / Self::UNIT_SECONDS) as u16;
        let full = interval * rate.burst as u16;
        let now = (now.0 / Self::UNIT_SECONDS) as u16;
        // Further ahead than a used-up limit can be: it is over, or the clock was set back.
        let ahead = Some(self.0.wrapping_sub(now)).filter(|ahead| *ahead <= full).unwrap_or(0);
        if ahead + interval > full {
            return u32::from(ahead + interval - full) * Self::UNIT_SECONDS;
        }
        self.0 = now.wrapping_add(ahead + interval);
        0
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
