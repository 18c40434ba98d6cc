//! What a host may: how many accounts, how many events, and who is trusted.

use ports::HostLimits;

use crate::store::HostRow;

/// The account limit of trusted hosts.
pub(super) const TRUSTED_ACCOUNT_LIMIT: u64 = 10_000_000;

/// The event rates in force for a host: those of its row, otherwise those that its account limit
/// stands for. A trusted host has none but those of its row.
pub(super) fn event_limits(row: &HostRow) -> HostLimits {
    let limit = row.account_limit;
    let derived = |rate: u64| (!row.trusted).then_some(rate);
    let rate = |set: Option<u64>, derived: Option<u64>| {
        set.or(derived).map(|rate| u32::try_from(rate).unwrap_or(u32::MAX))
    };
    HostLimits {
        per_second: rate(row.per_second, derived(50_u64.saturating_add(limit / 1000))),
        per_hour: rate(row.per_hour, derived(2500_u64.saturating_add(limit))),
        per_day: rate(row.per_day, derived(20_000_u64.saturating_add(limit.saturating_mul(10)))),
    }
}

/// Whether a pattern covers the name: `*`, the name itself, or `*.domain` for names below it.
pub(super) fn is_trusted<'a>(
    patterns: impl IntoIterator<Item = &'a String>,
    hostname: &str,
) -> bool {
    patterns.into_iter().any(|pattern| match pattern.strip_prefix('*') {
        Some(suffix) => hostname.ends_with(suffix),
        None => hostname == pattern,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::registry::tests::row;
    use crate::store::HostStatus;

    #[test]
    fn rates_follow_from_the_account_limit_unless_they_are_set() {
        let rates = |limit: u64, trusted: bool, per_hour: Option<u64>| {
            let row =
                HostRow { account_limit: limit, trusted, per_hour, ..row(1, HostStatus::Active) };
            let limits = event_limits(&row);
            (limits.per_second, limits.per_hour, limits.per_day)
        };
        assert_eq!(rates(100, false, None), (Some(50), Some(2600), Some(21_000)));
        assert_eq!(rates(5999, false, None), (Some(55), Some(8499), Some(79_990)));
        assert_eq!(rates(100, false, Some(0)), (Some(50), Some(0), Some(21_000)));
        assert_eq!(rates(10_000_000, true, None), (None, None, None));
        assert_eq!(rates(10_000_000, true, Some(7)), (None, Some(7), None));
        let most = rates(u64::MAX, false, None);
        assert_eq!(most, (Some(u32::MAX), Some(u32::MAX), Some(u32::MAX)));
    }

    #[test]
    fn trust_is_by_name_or_below_a_domain() {
        let patterns = ["*.host.bsky.network".to_owned(), "pds.a.com".to_owned()];
        assert!(is_trusted(&patterns, "morel.us-east.host.bsky.network"));
        assert!(!is_trusted(&patterns, "host.bsky.network"));
        assert!(!is_trusted(&patterns, "evilhost.bsky.network"));
        assert!(is_trusted(&patterns, "pds.a.com"));
        assert!(!is_trusted(&patterns, "x.pds.a.com"));
        assert!(is_trusted(&["*".to_owned()], "any.com"));
    }
}
