//! Consumers do not get in each other's way, and each gets all it asked for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{
    Consumer, Relay, consumer,
    corpus::Corpus,
    http,
    raw::{Got, RawConsumer, SUBSCRIBE},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A connection each.
fn raise_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

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
fn who_names_no_cursor_gets_all_that_comes_after_the_handshake() {
    const CONSUMERS: usize = 40;
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &["--shards", "4"]);
    for pds in &hosts {
        relay.add_host(pds);
    }
    let first = Consumer::connect(relay.api, Some(0));
    let longest = corpus.hosts.iter().map(Vec::len).max().unwrap();
    let mut live = Vec::new();
    for at in 0..CONSUMERS {
        let part = |count: usize| at * count / CONSUMERS..(at + 1) * count / CONSUMERS;
        live.push((first.count(), RawConsumer::connect(relay.api, "")));
        for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
            let range = part(longest);
            let range = range.start.min(frames.len())..range.end.min(frames.len());
            pds.push_all(frames[range].iter().cloned());
        }
        // Half of them come while nothing does.
        if at % 2 == 0 {
            let sent = corpus.hosts.iter().map(|frames| frames.len().min(part(longest).end)).sum();
            first.wait_for(sent);
        }
    }
    let all = first.wait_for(corpus.event_count());
    for (at, (seen, mut consumer)) in live.into_iter().enumerate() {
        let Got::Event(frame) = consumer.next_answering() else { panic!("an event") };
        let place = all.iter().position(|event| *event == frame).unwrap();
        if at % 2 == 1 {
            assert_eq!(place, seen, "the first event behind the handshake");
        }
        for expected in &all[place + 1..] {
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
fn thousands_of_idle_consumers_cost_little_memory_and_get_what_comes() {
    const CONSUMERS: usize = 2000;
    const BYTES_MAX: usize = 32 << 10;
    raise_files_limit();
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    relay.add_host(&hosts[0]);
    let frames = &corpus.hosts[0];
    let (first, rest) = frames.split_at(20);
    let lasting = Consumer::connect(relay.api, Some(0));
    hosts[0].push_all(first.iter().cloned());
    lasting.wait_for(first.len());
    let before = relay.resident_bytes();
    let mut idle: Vec<_> = (0..CONSUMERS)
        .map(|index| RawConsumer::connect(relay.api, if index % 2 == 0 { "" } else { "?cursor=0" }))
        .collect();
    relay.wait_for_metric("relayered_consumer_connections_count", "", (CONSUMERS + 1) as f64);
    // Whoever replays has everything.
    for consumer in idle.iter_mut().skip(1).step_by(2) {
        for expected in lasting.frames() {
            assert_eq!(consumer.next_answering(), Got::Event(expected));
        }
    }
    let each = relay.resident_bytes().saturating_sub(before) / CONSUMERS;
    assert!(each < BYTES_MAX, "{each} bytes of memory for each consumer");
    hosts[0].push_all(rest[..5].iter().cloned());
    let all = lasting.wait_for(first.len() + 5);
    for consumer in &mut idle {
        for expected in &all[first.len()..] {
            assert_eq!(consumer.next_answering(), Got::Event(expected.clone()));
        }
    }
    drop((idle, lasting));
    harness::eventually("the relay to see that all have gone", || {
        (relay.metric("relayered_consumer_connections_count", "") < 1.0).then_some(())
    });
}

#[test]
fn consumers_that_came_and_went_on_a_quiet_relay_have_cost_nothing() {
    const CONSUMERS: usize = 1500;
    const BYTES_MAX: usize = 1 << 20;
    const ROUNDS_MAX: usize = 8;
    raise_files_limit();
    let plc = harness::FakePlc::start();
    let relay = Relay::start(&plc, &[]);
    let come_and_go = || {
        let idle: Vec<_> = (0..CONSUMERS).map(|_| RawConsumer::connect(relay.api, "")).collect();
        relay.wait_for_metric("relayered_consumer_connections_count", "", CONSUMERS as f64);
        drop(idle);
        harness::eventually("the relay to see that all have gone", || {
            (relay.metric("relayered_consumer_connections_count", "") < 1.0).then_some(())
        });
        relay.resident_bytes()
    };
    // Memory that was used once is used again, sooner or later. What is lost, is lost each time.
    let mut bytes = vec![come_and_go()];
    while bytes.len() < ROUNDS_MAX {
        bytes.push(come_and_go());
        if bytes[bytes.len() - 1] < bytes[bytes.len() - 2] + BYTES_MAX {
            return;
        }
    }
    panic!("memory grows with each round: {bytes:?}");
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
