//! A corpus made by the reference library comes out complete, to several consumers alike.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{Consumer, Relay, corpus::Corpus};

#[test]
fn every_event_arrives_once_unchanged_and_in_order_at_every_consumer() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    let live: Vec<_> = (0..3).map(|_| Consumer::connect(relay.api, None)).collect();
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        relay.add_host(pds);
        pds.push_all(frames.iter().cloned());
    }
    let first = live[0].wait_for(corpus.event_count());
    corpus.assert_complete(&first);
    for consumer in &live[1..] {
        assert!(consumer.wait_for(corpus.event_count()) == first, "consumers differ");
    }
    // A replay gives the same bytes as the live stream did.
    let replayed = Consumer::connect(relay.api, Some(0)).wait_for(corpus.event_count());
    assert!(replayed == first, "the replay differs from the live stream");
}

#[test]
fn a_cursor_inside_the_window_goes_on_behind_it() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    relay.add_host(&hosts[0]);
    hosts[0].push_all(corpus.hosts[0].iter().cloned());
    let count = corpus.hosts[0].len();
    let all = Consumer::connect(relay.api, Some(0)).wait_for(count);
    for at in [0, 1, count / 2, count - 2] {
        let cursor = harness::consumer::event(&all[at]).seq;
        let rest = Consumer::connect(relay.api, Some(cursor)).wait_for(count - at - 1);
        assert!(rest == all[at + 1..], "cursor at event {at}");
    }
}

#[test]
fn a_cursor_above_the_newest_event_is_refused_in_words() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    relay.add_host(&hosts[0]);
    hosts[0].push_all(corpus.hosts[0].iter().take(3).cloned());
    Consumer::connect(relay.api, Some(0)).wait_for(3);
    let consumer = Consumer::connect(relay.api, Some(1 << 50));
    let end = consumer.wait_for_end();
    let frames = consumer.frames();
    let last = frames.last().map(|frame| protocol::frame::skim(frame));
    assert!(
        matches!(last, Some(Ok(protocol::frame::Skim::Error { error: "FutureCursor", .. }))),
        "{last:?}, ended: {end}"
    );
}
