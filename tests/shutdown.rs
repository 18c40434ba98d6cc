//! SIGTERM: drain, flush, a close frame for consumers, exit code 0; and an ordinary start afterwards. Also
//! in mid-stream, where everything is on its way: nothing is lost or sent twice, and no number is left out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{Consumer, consumer, dice::number, stage::Stage};

/// `RELAYERED_TEST_STOPS=100` makes it as many.
const STOPS: u64 = 6;

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

#[test]
fn sigterms_in_mid_stream_lose_and_repeat_nothing_and_leave_no_hole() {
    let stops = number("RELAYERED_TEST_STOPS").unwrap_or(STOPS) as usize;
    let mut stage = Stage::new(&["--log-segment-bytes", "256KiB", "--log-memory", "2MiB"]);
    // A host of which nothing has come yet has no place to go on from.
    stage.push(0..1);
    let mut held = Consumer::connect(stage.relay.api, Some(0)).wait_for(stage.hosts.len());
    let end = stage.longest();
    for stop in 1..=stops {
        let cursor = consumer::event(held.last().unwrap()).seq;
        let live = Consumer::connect(stage.relay.api, Some(cursor));
        let at = |stop: usize| 1 + (end - 1) * stop / (stops + 1);
        stage.push(at(stop - 1)..at(stop));
        // Some of it has come out; the rest is in the relay, or on its way to it, or still at the hosts.
        live.wait_for(1);
        assert!(stage.relay.terminate().success(), "{}", stage.relay.log());
        let told = live.wait_for_end();
        assert!(told.starts_with("1001"), "{told}");
        held.extend(live.frames());
        stage.relay.launch();
    }
    stage.push(1 + (end - 1) * stops / (stops + 1)..end);
    let all = Consumer::connect(stage.relay.api, Some(0)).wait_for(stage.corpus.event_count());
    stage.corpus.assert_complete(&all);
    assert!(all.starts_with(&held), "who was there until each goodbye has missed nothing");
    let seqs: Vec<_> = all.iter().map(|frame| consumer::event(frame).seq).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
}
