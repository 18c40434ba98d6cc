//! Whatever one host sends: good events around it arrive, other hosts do not notice, memory stays bounded.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use harness::{
    Consumer, FakePds, Relay,
    corpus::Corpus,
    pds::{write_frame, write_message},
};

/// What the relay may grow by under any of these: its limits on one host's buffers, and slack.
const GROWTH_BYTES_MAX: usize = 96 << 20;

struct Case {
    name: &'static str,
    bytes: fn() -> Vec<u8>,
}

fn message(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message(&mut bytes, payload);
    bytes
}

/// A message header for a #commit, with the given body behind it.
fn commit_with_body(body: &[u8]) -> Vec<u8> {
    let mut frame = b"\xa2\x61t\x67#commit\x62op\x01".to_vec();
    frame.extend_from_slice(body);
    message(&frame)
}

const CASES: &[Case] = &[
    Case {
        name: "garbage",
        bytes: || (0..=255_u8).cycle().take(100_000).map(|b| b ^ 0x5a).collect(),
    },
    Case {
        name: "messages of noise",
        bytes: || (1..200_u32).flat_map(|n| message(&n.to_le_bytes().repeat(n as usize))).collect(),
    },
    Case { name: "empty message", bytes: || message(&[]) },
    Case { name: "truncated body", bytes: || commit_with_body(b"\xa1\x63seq") },
    Case {
        name: "a byte string of 2^63 bytes",
        bytes: || commit_with_body(b"\xa1\x66blocks\x5b\x7f\xff\xff\xff\xff\xff\xff\xff"),
    },
    Case {
        name: "an array of 2^32 items",
        bytes: || commit_with_body(b"\xa1\x63ops\x9a\xff\xff\xff\xff"),
    },
    Case { name: "a map of 2^32 entries", bytes: || commit_with_body(b"\xba\xff\xff\xff\xff") },
    Case {
        name: "a million nested arrays",
        bytes: || {
            let mut body = b"\xa1\x61x".to_vec();
            body.extend(std::iter::repeat_n(0x81, 1_000_000));
            commit_with_body(&body)
        },
    },
    Case {
        name: "a million nested maps",
        bytes: || commit_with_body(&b"\xa1\x61x".repeat(1_000_000)),
    },
    Case {
        name: "a million nested tags",
        bytes: || {
            let mut body = b"\xa1\x61x".to_vec();
            body.extend(b"\xd8\x2a".repeat(1_000_000));
            commit_with_body(&body)
        },
    },
    Case {
        name: "a text message",
        bytes: || {
            let mut bytes = Vec::new();
            write_frame(&mut bytes, 0x81, b"hello");
            bytes
        },
    },
    Case { name: "an unknown operation", bytes: || message(b"\xa1\x62op\x05\xa0") },
    Case {
        name: "an unknown type",
        bytes: || message(b"\xa2\x61t\x67#handle\x62op\x01\xa1\x63seq\x01"),
    },
    Case { name: "a message of 40 MB", bytes: || message(&vec![0x61; 40_000_000]) },
    Case {
        name: "a declared message of 2^63-1 bytes",
        bytes: || b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(),
    },
    Case {
        name: "a length with the top bit set",
        bytes: || b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
    },
    Case {
        name: "200,000 fragments without end",
        bytes: || {
            let mut bytes = Vec::new();
            write_frame(&mut bytes, 0x02, &[0; 64]);
            for _ in 0..200_000 {
                write_frame(&mut bytes, 0x00, &[0; 64]);
            }
            bytes
        },
    },
    Case {
        name: "empty fragments without end",
        bytes: || {
            let mut bytes = b"\x02\x00".to_vec();
            bytes.extend(b"\x00\x00".repeat(1_000_000));
            bytes
        },
    },
    Case { name: "a continuation of nothing", bytes: || b"\x80\x01a".to_vec() },
    Case {
        name: "a message inside a fragmented message",
        bytes: || b"\x02\x01a\x82\x01b".to_vec(),
    },
    Case { name: "reserved bits", bytes: || b"\xf2\x01a".to_vec() },
    Case { name: "a reserved opcode", bytes: || b"\x83\x01a".to_vec() },
    Case { name: "a masked message", bytes: || b"\x82\x81\x00\x00\x00\x00a".to_vec() },
    Case {
        name: "a ping of 126 bytes",
        bytes: || {
            let mut bytes = Vec::new();
            write_frame(&mut bytes, 0x89, &[0; 126]);
            bytes
        },
    },
    Case { name: "a fragmented ping", bytes: || b"\x09\x01a".to_vec() },
    Case { name: "100,000 pings", bytes: || b"\x89\x04ping".repeat(100_000) },
    Case { name: "a close frame of one byte", bytes: || b"\x88\x01\x00".to_vec() },
    Case {
        name: "an error frame",
        bytes: || message(b"\xa1\x62op\x20\xa1\x65error\x6fConsumerTooSlow"),
    },
    Case { name: "an error frame without an error", bytes: || message(b"\xa1\x62op\x20\xa0") },
];

const GOOD: usize = 20;

fn push_good(pds: &FakePds, corpus: &Corpus, host: usize, skip: usize) {
    pds.push_all(corpus.hosts[host].iter().skip(skip).take(GOOD).cloned());
}

fn play(case: &Case, corpus: &Corpus) {
    eprintln!("case: {}", case.name);
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &["--log-level", "info"]);
    let consumer = Consumer::connect(relay.api, None);
    for host in [0, 1] {
        relay.add_host(&hosts[host]);
        push_good(&hosts[host], corpus, host, 0);
    }
    consumer.wait_for(2 * GOOD);
    let before = relay.resident_bytes();

    hosts[1].send_raw(&(case.bytes)());
    push_good(&hosts[0], corpus, 0, GOOD);
    consumer.wait_for(3 * GOOD);
    // Behind the bad bytes on the same connection, or on the next one.
    push_good(&hosts[1], corpus, 1, GOOD);
    let frames = consumer.wait_for(4 * GOOD);
    assert_eq!(frames.len(), 4 * GOOD, "{}", case.name);

    let grown = relay.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{}: grown by {grown} bytes", case.name);
}

/// The cases mostly wait for reconnects: some of them at once, each with a relay of its own.
#[test]
fn good_events_around_bad_bytes_arrive() {
    const AT_ONCE: usize = 6;
    let corpus = Corpus::load();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = CASES.get(next.fetch_add(1, Ordering::SeqCst)) {
                    play(case, &corpus);
                }
            });
        }
    });
}

/// A host whose stored stream holds messages that can't be taken sends them again at each reconnect.
#[test]
fn bad_messages_in_the_middle_of_a_stream_are_stepped_over() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let pds = &hosts[0];
    let frames = &corpus.hosts[0];
    let relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    relay.add_host(pds);
    pds.push_all(frames[..10].iter().cloned());
    consumer.wait_for(10);
    // Under the seq of the last good frame, so that a reconnect behind it meets them again.
    let last = frames[9].0;
    pds.push(last + 1, vec![0x5a; 1000]);
    pds.push(last + 1, vec![0xa1; 6_000_000]);
    pds.push_all(frames[10..20].iter().cloned());
    consumer.wait_for(20);
    pds.cut();
    pds.push_all(frames[20..30].iter().cloned());
    consumer.wait_for(30);
}
