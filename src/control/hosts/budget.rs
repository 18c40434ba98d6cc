//! What a host may cost the relay. Over budget it is left alone for a while: quarantine.
//!
//! Pure: time is an argument. The budgets are wide: an honest host with a broken account, an old
//! version or a mass migration stays within them. They are there for floods.

use std::time::{Duration, Instant};

use ports::HostProgress;

use super::machine::Reason;
use crate::bucket::TokenBucket;

/// So many at once, and so many an hour.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    pub burst: u32,
    pub per_hour: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct BudgetConfig {
    /// Events that were refused for a fault of the host's. This one and the others are for a host
    /// with an account limit below 1000, and grow with the limit.
    pub invalid: Allowance,
    /// Look-ups of identities that its events forced.
    pub lookups: Allowance,
    /// Accounts that this relay had not heard of.
    pub accounts: Allowance,
    /// The first quarantine; each further one is twice as long.
    pub quarantine_first: Duration,
    pub quarantine_max: Duration,
    /// So long without a quarantine takes one off the count.
    pub forgiven_after: Duration,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            invalid: Allowance { burst: 5000, per_hour: 18_000 },
            lookups: Allowance { burst: 2000, per_hour: 7200 },
            accounts: Allowance { burst: 2000, per_hour: 3600 },
            quarantine_first: Duration::from_secs(10),
            quarantine_max: Duration::from_hours(6),
            forgiven_after: Duration::from_hours(1),
        }
    }
}

/// The budgets of one host.
#[derive(Debug)]
pub(super) struct Budget {
    config: BudgetConfig,
    invalid: TokenBucket,
    lookups: TokenBucket,
    accounts: TokenBucket,
    /// Quarantines that are not forgiven yet.
    count: u32,
    /// Since when the present count holds.
    since: Instant,
}

impl Budget {
    /// `count` as it was stored.
    pub(super) fn new(config: BudgetConfig, account_limit: u64, count: u32, now: Instant) -> Self {
        let scale = 1.0 + account_limit as f64 / 1000.0;
        let bucket = |allowance: Allowance| {
            let per_second = f64::from(allowance.per_hour) / 3600.0;
            TokenBucket::new(per_second * scale, f64::from(allowance.burst) * scale, now)
        };
        Self {
            invalid: bucket(config.invalid),
            lookups: bucket(config.lookups),
            accounts: bucket(config.accounts),
            config,
            count,
            since: now,
        }
    }

    /// The budgets for another account limit; what was used of the old ones is forgotten.
    pub(super) fn set_account_limit(&mut self, account_limit: u64, now: Instant) {
        *self =
            Self { since: self.since, ..Self::new(self.config, account_limit, self.count, now) };
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Counts what the host did. If that is more than it may: why, and for how long it is to be
    /// left alone.
    pub(super) fn charge(
        &mut self,
        progress: &HostProgress,
        now: Instant,
    ) -> Option<(Reason, Duration)> {
        let invalid = self.invalid.spend(progress.invalid, now);
        let lookups = self.lookups.spend(progress.forced_lookups, now);
        let accounts = self.accounts.spend(progress.new_accounts, now);
        let reason = match (invalid, lookups, accounts) {
            (true, true, true) => return None,
            (false, ..) => Reason::InvalidEvents,
            (_, false, _) => Reason::ForcedLookups,
            _ => Reason::NewAccounts,
        };
        // What it begins with when it is back is not all of it, and the debt is forgotten.
        for bucket in [&mut self.invalid, &mut self.lookups, &mut self.accounts] {
            bucket.drain_to(0.5, now);
        }
        self.forgive(now);
        let factor = 1_u32.checked_shl(self.count).unwrap_or(u32::MAX);
        let delay = self.config.quarantine_first.saturating_mul(factor);
        let delay = delay.min(self.config.quarantine_max);
        self.count = self.count.saturating_add(1);
        self.since = now + delay;
        Some((reason, delay))
    }

    fn forgive(&mut self, now: Instant) {
        let quiet = now.saturating_duration_since(self.since);
        let steps = quiet.as_secs() / self.config.forgiven_after.as_secs().max(1);
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.count = self.count.saturating_sub(steps);
    }
}

#[cfg(test)]
mod tests {
    use ports::HostId;

    use super::*;

    fn did(invalid: u64, forced_lookups: u64, new_accounts: u64) -> HostProgress {
        HostProgress { invalid, forced_lookups, new_accounts, ..HostProgress::new(HostId(1)) }
    }

    fn budget(count: u32, now: Instant) -> Budget {
        Budget::new(BudgetConfig::default(), 0, count, now)
    }

    #[test]
    fn each_kind_has_its_own_budget() {
        let now = Instant::now();
        for (progress, reason) in [
            (did(5001, 0, 0), Reason::InvalidEvents),
            (did(0, 2001, 0), Reason::ForcedLookups),
            (did(0, 0, 2001), Reason::NewAccounts),
        ] {
            let mut budget = budget(0, now);
            assert_eq!(budget.charge(&did(5000, 2000, 2000), now), None);
            let over = budget.charge(&progress, now);
            assert_eq!(over, Some((reason, Duration::from_secs(10))));
        }
    }

    #[test]
    fn what_a_broken_account_costs_is_within_the_budget_for_ever() {
        let mut now = Instant::now();
        let mut budget = budget(0, now);
        for _ in 0..10_000 {
            now += Duration::from_secs(1);
            assert_eq!(budget.charge(&did(4, 1, 0), now), None);
        }
    }

    #[test]
    fn a_host_that_does_not_mend_its_ways_waits_longer_each_time() {
        let mut now = Instant::now();
        let mut budget = budget(0, now);
        let mut delays = Vec::new();
        for _ in 0..20 {
            let (_, delay) = budget.charge(&did(6000, 0, 0), now).unwrap();
            now += delay;
            delays.push(delay.as_secs());
        }
        assert_eq!(delays[..5], [10, 20, 40, 80, 160]);
        assert_eq!(delays[19], 6 * 3600);
        assert_eq!(budget.count(), 20);
        // And is forgiven one by one.
        now += Duration::from_hours(18);
        assert_eq!(budget.charge(&did(6000, 0, 0), now).unwrap().1, Duration::from_secs(40));
    }

    #[test]
    fn a_restart_forgets_no_quarantine_and_big_hosts_have_more() {
        let now = Instant::now();
        assert_eq!(budget(3, now).charge(&did(6000, 0, 0), now).unwrap().1.as_secs(), 80);
        let mut big = Budget::new(BudgetConfig::default(), 9000, 0, now);
        assert_eq!(big.charge(&did(50_000, 0, 0), now), None);
        assert!(big.charge(&did(1, 0, 0), now).is_some());
        big.set_account_limit(99_000, now);
        assert_eq!((big.charge(&did(500_000, 0, 0), now), big.count()), (None, 1));
    }
}
