//! SIGTERM: drain, flush, a close frame for consumers, exit code 0; and an ordinary start afterwards.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{Consumer, consumer, stage::Stage};

#[test]
fn sigterm_drains_and_the_next_start_goes_on() {
    let mut stage = Stage::new(&[]);
    stage.push(0..100);
    let before = Consumer::connect(stage.relay.api, Some(0));
    before.wait_for(300);
    let status = stage.relay.terminate();
    assert!(status.success(), "{status}\n{}", stage.relay.log());
    let end = before.wait_for_end();
    assert!(end.starts_with("1001"), "no close frame with code 1001 (going away), but {end:?}");

    stage.relay.launch();
    stage.push(100..usize::MAX);
    let all = Consumer::connect(stage.relay.api, Some(0)).wait_for(stage.corpus.event_count());
    stage.corpus.assert_complete(&all);
    assert!(all.starts_with(&before.frames()));
    // A clean stop leaves no hole in the numbers.
    let seqs: Vec<_> = all.iter().map(|frame| consumer::event(frame).seq).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
}
