//! Times in replies.

use protocol::syntax::datetime;

/// Unix seconds as RFC 3339 in UTC.
pub(crate) fn rfc3339(unix_seconds: u64) -> String {
    datetime::from_unix_micros(unix_seconds.saturating_mul(1_000_000)).replace(".000Z", "Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn known_times() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_764_034_537, "2025-11-25T01:35:37Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
