//! [`Pace`]: how many events of a host may go on in a second, an hour and a day.
//!
//! Each rate is counted in windows that begin with an event: as many as the limit says pass, then none
//! until the window is over. So it is known until when a host is slowed down.

use ports::{HostLimits, SlowReason};

/// Length of the windows, in seconds, and what it is called when one is used up.
const WINDOWS: [(u64, SlowReason); 3] =
    [(1, SlowReason::PerSecond), (3600, SlowReason::PerHour), (86_400, SlowReason::PerDay)];

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Unix microseconds.
    began: u64,
    count: u32,
}

#[derive(Debug)]
pub struct Pace {
    limits: HostLimits,
    windows: [Window; 3],
}

impl Pace {
    pub fn new(limits: HostLimits) -> Self {
        Self { limits, windows: [Window::default(); 3] }
    }

    pub fn set_limits(&mut self, limits: HostLimits) {
        self.limits = limits;
    }

    /// Counts one more event, if there is room for it. `now`: Unix microseconds.
    pub fn take(&mut self, now: u64) -> bool {
        if self.slowed(now).is_some() {
            return false;
        }
        for (window, (seconds, _)) in self.windows.iter_mut().zip(WINDOWS) {
            if window.is_over(seconds, now) {
                *window = Window { began: now, count: 0 };
            }
            window.count = window.count.saturating_add(1);
        }
        true
    }

    /// An event that was counted did not go on after all.
    pub fn give_back(&mut self) {
        for window in &mut self.windows {
            window.count = window.count.saturating_sub(1);
        }
    }

    /// Why no event may go on now, and until when, in Unix seconds: the limit that holds longest.
    pub fn slowed(&self, now: u64) -> Option<(SlowReason, u64)> {
        let HostLimits { per_second, per_hour, per_day } = self.limits;
        let limits = [per_second, per_hour, per_day];
        let windows = self.windows.iter().zip(WINDOWS).zip(limits);
        let used_up = windows.filter_map(|((window, (seconds, why)), limit)| {
            let limit = limit?;
            let (began, count) =
                if window.is_over(seconds, now) { (now, 0) } else { (window.began, window.count) };
            (count >= limit).then(|| (why, (began / 1_000_000) + seconds + 1))
        });
        used_up.max_by_key(|(_, until)| *until)
    }
}

impl Window {
    /// Also when the clock was set back behind its beginning.
    fn is_over(self, seconds: u64, now: u64) -> bool {
        now.checked_sub(self.began).is_none_or(|age| age >= seconds * 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_800_000_000_000_000;

    fn passes(pace: &mut Pace, now: u64) -> u32 {
        let mut count = 0;
        while count < 1000 && pace.take(now) {
            count += 1;
        }
        count
    }

    #[test]
    fn so_many_pass_in_each_window_and_no_more() {
        let limits = HostLimits { per_second: Some(10), per_hour: Some(25), per_day: Some(40) };
        let mut pace = Pace::new(limits);
        let second = 1_000_000;
        assert_eq!(passes(&mut pace, START), 10);
        assert_eq!(pace.slowed(START), Some((SlowReason::PerSecond, START / second + 2)));
        assert_eq!(passes(&mut pace, START + second - 1), 0);
        assert_eq!(passes(&mut pace, START + second), 10);
        assert_eq!(passes(&mut pace, START + 2 * second), 5);
        assert_eq!(
            pace.slowed(START + 5 * second),
            Some((SlowReason::PerHour, START / second + 3601))
        );
        assert_eq!(passes(&mut pace, START + 3600 * second), 10);
        assert_eq!(passes(&mut pace, START + 3601 * second), 5);
        let day = Some((SlowReason::PerDay, START / second + 86_401));
        assert_eq!(pace.slowed(START + 3602 * second), day);
        assert_eq!(passes(&mut pace, START + 86_400 * second), 10);
    }

    #[test]
    fn limits_can_be_changed_lifted_and_set_to_nothing() {
        let mut pace = Pace::new(HostLimits::default());
        assert_eq!(passes(&mut pace, START), 1000);
        let none = HostLimits { per_hour: Some(0), ..HostLimits::default() };
        pace.set_limits(none);
        assert_eq!(passes(&mut pace, START), 0);
        assert_eq!(passes(&mut pace, START + 4_000_000_000), 0);
        pace.set_limits(HostLimits { per_hour: Some(1003), ..none });
        assert_eq!(passes(&mut pace, START), 3);
        pace.give_back();
        assert_eq!(passes(&mut pace, START), 1);
        // A clock that was set back does not hold up anybody for long.
        assert_eq!(passes(&mut pace, START - 1), 1000);
    }
}
