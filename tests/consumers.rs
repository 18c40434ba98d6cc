//! Consumers do not get in each other's way, and each gets all it asked for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{
    Consumer, Relay, consumer,
    corpus::Corpus,
    http,
    raw::{Got, RawConsumer, SUBSCRIBE},
};

#[test]
fn who_does_not_read_holds_up_nobody_and_loses_nothing() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    let slow: Vec<_> = (0..3).map(|_| RawConsumer::connect(relay.api, "?cursor=0")).collect();
    let quick = Consumer::connect(relay.api, Some(0));
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        relay.add_host(pds);
        pds.push_all(frames.iter().cloned());
    }
    let all = quick.wait_for(corpus.event_count());
    corpus.assert_complete(&all);
    for mut consumer in slow {
        for expected in &all {
            assert_eq!(consumer.next_answering(), Got::Event(expected.clone()));
        }
    }
}

#[test]
fn who_comes_in_the_middle_of_a_stream_gets_a_seamless_rest() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    for pds in &hosts {
        relay.add_host(pds);
    }
    let first = Consumer::connect(relay.api, Some(0));
    let mut late = Vec::new();
    let chunk = 50;
    for at in (0..).map(|at| at * chunk).take_while(|at| *at < 800) {
        for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
            pds.push_all(frames.iter().skip(at).take(chunk).cloned());
        }
        first.wait_for(1);
        let newest = first.frames().last().map(|frame| consumer::event(frame).seq).unwrap();
        late.push((newest, Consumer::connect(relay.api, Some(newest))));
    }
    let all = first.wait_for(corpus.event_count());
    corpus.assert_complete(&all);
    for (cursor, consumer) in late {
        let at = all.iter().position(|frame| consumer::event(frame).seq == cursor).unwrap() + 1;
        assert!(consumer.wait_for(all.len() - at) == all[at..], "from {cursor}");
    }
}

#[test]
fn many_consumers_come_and_go() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    relay.add_host(&hosts[0]);
    let frames = &corpus.hosts[0];
    let lasting = Consumer::connect(relay.api, None);
    for (at, (seq, frame)) in frames.iter().enumerate() {
        hosts[0].push(*seq, frame.clone());
        if at % 20 == 0 {
            drop(Consumer::connect(relay.api, Some(0)));
        }
    }
    assert_eq!(lasting.wait_for(frames.len()).len(), frames.len());
    drop(lasting);
    harness::eventually("the relay to see that all have gone", || {
        (relay.metric("relayered_consumer_connections_count", "") == 0.0).then_some(())
    });
}

#[test]
fn what_is_not_a_handshake_is_answered_in_words() {
    let plc = harness::FakePlc::start();
    let relay = Relay::start(&plc, &[]);
    let reply = relay.get(SUBSCRIBE);
    assert_eq!(reply.status, 426, "{reply:?}");
    let post = http::request(relay.api, "POST", SUBSCRIBE, &[], "").unwrap();
    assert_eq!(post.status, 405, "{post:?}");
}
