//! SIGTERM: drain, flush, a close frame for consumers, exit code 0; and an ordinary start afterwards.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{Consumer, Relay, consumer, corpus::Corpus};

#[test]
fn sigterm_drains_and_the_next_start_goes_on() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let mut relay = Relay::start(&plc, &[]);
    for pds in &hosts {
        relay.add_host(pds);
    }
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        pds.push_all(frames.iter().take(100).cloned());
    }
    let before = Consumer::connect(relay.api, Some(0));
    before.wait_for(300);
    let status = relay.terminate();
    assert!(status.success(), "{status}\n{}", relay.log());
    let end = before.wait_for_end();
    assert!(end.starts_with("1001"), "no close frame with code 1001 (going away), but {end:?}");

    relay.launch();
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        pds.push_all(frames.iter().skip(100).cloned());
    }
    let all = Consumer::connect(relay.api, Some(0)).wait_for(corpus.event_count());
    corpus.assert_complete(&all);
    assert!(all.starts_with(&before.frames()));
    // A clean stop leaves no hole in the numbers.
    let seqs: Vec<_> = all.iter().map(|frame| consumer::event(frame).seq).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
}
