//! A histogram of durations with logarithmic buckets: 16 to each doubling, so a percentile is at
//! most 1/16 too high. Any thread may record, and any may read while others record.

use std::sync::atomic::{AtomicU64, Ordering};

const SUB_BITS: u32 = 4;
const SUB_BUCKETS: usize = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUB_BUCKETS;

#[derive(Debug)]
pub struct Histogram {
    buckets: Vec<AtomicU64>,
    max: AtomicU64,
}

/// Percentiles in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), max: AtomicU64::new(0) }
    }
}

impl Histogram {
    pub fn record(&self, value: u64) {
        self.buckets[bucket(value)].fetch_add(1, Ordering::Relaxed);
        self.max.fetch_max(value, Ordering::Relaxed);
    }

    pub fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
        self.max.store(0, Ordering::Relaxed);
    }

    pub fn percentiles(&self) -> Percentiles {
        let counts: Vec<u64> =
            self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let max = self.max.load(Ordering::Relaxed);
        let at = |share: f64| {
            let rank = ((count as f64 * share).ceil() as u64).max(1);
            let mut seen = 0;
            for (index, bucket_count) in counts.iter().enumerate() {
                seen += bucket_count;
                if seen >= rank {
                    return upper_bound(index).min(max);
                }
            }
            max
        };
        Percentiles {
            count,
            p50_ns: at(0.50),
            p90_ns: at(0.90),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: max,
        }
    }
}

fn bucket(value: u64) -> usize {
    if value < SUB_BUCKETS as u64 {
        return value as usize;
    }
    let shift = 63 - SUB_BITS - value.leading_zeros();
    (shift as usize + 1) * SUB_BUCKETS + ((value >> shift) as usize - SUB_BUCKETS)
}

/// The largest value that falls into the bucket.
fn upper_bound(index: usize) -> u64 {
    if index < SUB_BUCKETS {
        return index as u64;
    }
    let shift = (index / SUB_BUCKETS - 1) as u32;
    let lower = ((SUB_BUCKETS + index % SUB_BUCKETS) as u64) << shift;
    lower + ((1u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_value_is_in_its_bucket(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let index = bucket(value);
            prop_assert!(value <= upper_bound(index));
            prop_assert!(index == 0 || value > upper_bound(index - 1));
            prop_assert!(upper_bound(index) - value <= value / 16);
        }
    }

    #[test]
    fn percentiles_of_a_ramp() {
        let histogram = Histogram::default();
        assert_eq!(histogram.percentiles(), Percentiles::default());
        for value in 1..=1000 {
            histogram.record(value * 1000);
        }
        let percentiles = histogram.percentiles();
        assert_eq!((percentiles.count, percentiles.max_ns), (1000, 1_000_000));
        assert!((500_000..=532_000).contains(&percentiles.p50_ns), "{percentiles:?}");
        assert!((990_000..=1_000_000).contains(&percentiles.p99_ns), "{percentiles:?}");
        histogram.clear();
        assert_eq!(histogram.percentiles(), Percentiles::default());
    }
}
