//! Connections to hosts: they are taken up again where they ended, and no host is besieged.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{Consumer, FakePds, FakePlc, Relay, corpus::Corpus};

#[test]
fn a_cut_connection_goes_on_at_the_cursor() {
    const CUTS: usize = 3;
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    relay.add_host(&hosts[0]);
    let frames = &corpus.hosts[0];
    let step = frames.len() / (CUTS + 1);
    for cut in 0..=CUTS {
        let end = if cut == CUTS { frames.len() } else { step * (cut + 1) };
        hosts[0].push_all(frames[step * cut..end].iter().cloned());
        consumer.wait_for(end);
        if cut < CUTS {
            hosts[0].cut();
            hosts[0].wait_for_connection(cut + 2);
        }
    }
    let cursors = hosts[0].cursors();
    assert_eq!(cursors[0], None, "the first connection is live");
    for (at, cursor) in cursors[1..].iter().enumerate() {
        // Not beyond what was taken; what is sent again is not passed on again.
        let last = frames[step * (at + 1) - 1].0;
        assert!(cursor.is_some_and(|cursor| cursor <= last), "{cursors:?}");
    }
    assert_eq!(consumer.count(), frames.len());
}

#[test]
fn a_restart_goes_on_at_the_stored_cursor() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let mut relay = Relay::start(&plc, &[]);
    relay.add_host(&hosts[0]);
    let frames = &corpus.hosts[0];
    hosts[0].push_all(frames[..100].iter().cloned());
    Consumer::connect(relay.api, Some(0)).wait_for(100);
    assert!(relay.terminate().success());
    relay.launch();
    hosts[0].wait_for_connection(2);
    assert_eq!(hosts[0].cursors()[1], Some(frames[99].0), "an orderly stop loses nothing");
    hosts[0].push_all(frames[100..].iter().cloned());
    let all = Consumer::connect(relay.api, Some(0)).wait_for(frames.len());
    assert_eq!(all.len(), frames.len());
}

#[test]
fn a_host_that_closes_at_once_is_not_dialed_in_a_loop() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    pds.set_slam(true);
    let relay = Relay::start(&plc, &[]);
    relay.add_host(&pds);
    pds.wait_for_connection(3);
    // The delays double: by the time of the third attempt there was no room for a dozen.
    assert!(pds.cursors().len() < 12, "{}", pds.cursors().len());
}

#[test]
fn a_host_that_was_refused_the_upgrade_is_tried_again() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    for status in [429, 503] {
        let relay = Relay::start(&plc, &[]);
        let before = hosts[0].cursors().len();
        hosts[0].set_refuse(Some(status));
        relay.add_host(&hosts[0]);
        hosts[0].set_refuse(None);
        hosts[0].wait_for_connection(before + 2);
    }
}

#[test]
fn the_relay_says_who_it_is() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let relay = Relay::start(&plc, &[]);
    relay.add_host(&pds);
    let agent = pds.user_agent();
    assert!(agent.starts_with("relayered/") && agent.contains("atproto-relay"), "{agent:?}");
}

#[test]
fn a_relay_is_not_taken_for_a_host() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    pds.set_server_header("indigo-relay (atproto-relay)");
    let relay = Relay::start(&plc, &[]);
    let reply = relay.request_crawl(&pds.hostname());
    assert!(matches!(reply.status, 400 | 403), "{reply:?}");
    assert_eq!(pds.open_connections(), 0);
}

#[test]
fn the_same_request_twice_makes_one_connection() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let relay = Relay::start(&plc, &[]);
    relay.add_host(&pds);
    for _ in 0..5 {
        assert_eq!(relay.request_crawl(&pds.hostname()).status, 200);
    }
    assert_eq!(pds.cursors().len(), 1);
}

#[test]
fn a_slow_host_does_not_hold_up_another() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    for pds in &hosts[..2] {
        relay.add_host(pds);
    }
    // Half a message, and then nothing.
    let mut message = Vec::new();
    harness::pds::write_message(&mut message, &corpus.hosts[0][0].1);
    hosts[0].send_raw(&message[..message.len() / 2]);
    hosts[1].push_all(corpus.hosts[1].iter().cloned());
    consumer.wait_for(corpus.hosts[1].len());
    hosts[0].send_raw(&message[message.len() / 2..]);
    hosts[0].push_all(corpus.hosts[0][1..].iter().cloned());
    consumer.wait_for(corpus.hosts[0].len() + corpus.hosts[1].len());
}
