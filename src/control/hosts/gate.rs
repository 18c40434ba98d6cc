//! How often somebody may do something: a pace for each key, in bounded memory.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use crate::bucket::TokenBucket;

#[derive(Debug)]
pub(super) struct Gate<K> {
    per_second: f64,
    burst: f64,
    keys_max: usize,
    buckets: HashMap<K, TokenBucket>,
    /// For all who find no place any more: a crowd without end shares one pace.
    crowd: TokenBucket,
}

impl<K: Eq + Hash> Gate<K> {
    pub(super) fn new(burst: u32, interval: Duration, keys_max: usize, now: Instant) -> Self {
        let per_second = 1.0 / interval.as_secs_f64();
        let burst = f64::from(burst);
        let crowd = TokenBucket::new(per_second * 16.0, burst * 16.0, now);
        Self { per_second, burst, keys_max, buckets: HashMap::new(), crowd }
    }

    /// Lets through, or says how long to wait.
    pub(super) fn pass(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        if self.buckets.len() >= self.keys_max && !self.buckets.contains_key(&key) {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        let bucket = if self.buckets.len() < self.keys_max || self.buckets.contains_key(&key) {
            let (rate, burst) = (self.per_second, self.burst);
            self.buckets.entry(key).or_insert_with(|| TokenBucket::new(rate, burst, now))
        } else {
            &mut self.crowd
        };
        if bucket.take(now) {
            return Ok(());
        }
        Err(bucket.next(now).saturating_duration_since(now).max(Duration::from_millis(1)))
    }
}

/// Whom an address stands for: an IPv6 subscriber has a /64 at least.
pub(super) fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_pace() {
        let start = Instant::now();
        let mut gate = Gate::new(3, Duration::from_secs(10), 100, start);
        for _ in 0..3 {
            assert_eq!(gate.pass('a', start), Ok(()));
        }
        let wait = gate.pass('a', start).unwrap_err();
        assert!((9..=10).contains(&wait.as_secs()), "{wait:?}");
        assert_eq!(gate.pass('b', start), Ok(()));
        assert_eq!(gate.pass('a', start + wait), Ok(()));
        assert!(gate.pass('a', start + wait).is_err());
    }

    #[test]
    fn a_crowd_without_end_takes_no_more_memory_and_no_more_than_its_share() {
        let start = Instant::now();
        let mut gate = Gate::new(2, Duration::from_mins(1), 10, start);
        let passed = (0..10_000).filter(|key| gate.pass(*key, start).is_ok()).count();
        assert_eq!(passed, 10 + 32);
        assert_eq!(gate.buckets.len(), 10);
        // Who was there before is not affected, and places get free.
        assert!(gate.pass(3, start).is_ok());
        let later = start + Duration::from_mins(3);
        assert!(gate.pass(20_000, later).is_ok());
        assert_eq!(gate.buckets.len(), 1);
    }

    #[test]
    fn an_ipv6_subscriber_is_one_client() {
        let of = |text: &str| client(text.parse().unwrap());
        assert_eq!(of("2001:4860::1:2:3:4"), of("2001:4860::ffff"));
        assert_ne!(of("2001:4860:0:1::1"), of("2001:4860::1"));
        assert_eq!(of("::ffff:10.1.2.3"), of("10.1.2.3"));
        assert_ne!(of("10.1.2.3"), of("10.1.2.4"));
    }
}
