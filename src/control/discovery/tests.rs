use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_refused_host_is_left_alone_for_longer_each_time_and_in_the_end_for_good(times in 1..40_u64) {
        let (this, next) = (pause_seconds(times), pause_seconds(times + 1));
        prop_assert!(this >= DAY_SECONDS && this <= next);
        prop_assert!(next <= REFUSED_SECONDS_KEPT);
        let refused = |retry_at| {
            Some(RefusedHost { retry_at, times, ..RefusedHost::default() })
        };
        prop_assert!(is_left_alone(refused(101), 100));
        prop_assert_eq!(is_left_alone(refused(100), 100), times >= REFUSALS_MAX);
        prop_assert!(!is_left_alone(None, 100));
    }
}

#[test]
fn a_relay_that_failed_is_asked_again_before_the_interval_is_over() {
    let day = Duration::from_hours(24);
    let mut last = Discovery::default();
    assert_eq!(due_at(&last, day), 0);
    last.last_at = 1000;
    assert_eq!(due_at(&last, day), 1000 + DAY_SECONDS);
    last.last_error = Some("no answer".into());
    assert_eq!(due_at(&last, day), 1000 + 3600);
    assert_eq!(due_at(&last, Duration::from_mins(1)), 1060);
}
