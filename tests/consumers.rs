//! Consumers do not get in each other's way, and each gets all it asked for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use harness::{Consumer, Relay, consumer, corpus::Corpus, http};

const SUBSCRIBE: &str = "/xrpc/com.atproto.sync.subscribeRepos";

/// A consumer that has made the handshake and reads nothing.
fn stalled(relay: &Relay, cursor: u64) -> TcpStream {
    let mut stream = TcpStream::connect(relay.api).unwrap();
    stream.set_read_timeout(Some(harness::patience())).unwrap();
    write!(
        stream,
        "GET {SUBSCRIBE}?cursor={cursor} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        relay.api
    )
    .unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream
}

/// Reads binary messages as they stand on the wire, stepping over pings.
fn read_messages(mut stream: TcpStream, count: usize) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let mut head = [0; 2];
        stream.read_exact(&mut head).unwrap();
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                stream.read_exact(&mut length).unwrap();
                u64::from_be_bytes(length) as usize
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).unwrap();
        match head[0] {
            0x82 => messages.push(payload),
            0x89 => {}
            other => panic!("a frame that begins with {other:#x}"),
        }
    }
    messages
}

#[test]
fn who_does_not_read_holds_up_nobody_and_loses_nothing() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    let slow: Vec<_> = (0..3).map(|_| stalled(&relay, 0)).collect();
    let quick = Consumer::connect(relay.api, Some(0));
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        relay.add_host(pds);
        pds.push_all(frames.iter().cloned());
    }
    let all = quick.wait_for(corpus.event_count());
    corpus.assert_complete(&all);
    for stream in slow {
        assert!(read_messages(stream, all.len()) == all, "a slow consumer got something else");
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
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for cursor in ["x", "1.5", "99999999999999999999999"] {
        let target = format!("{SUBSCRIBE}?cursor={cursor}");
        let reply = http::request(relay.api, "GET", &target, &upgrade, "").unwrap();
        assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some("InvalidRequest")));
    }
}
