//! Consumers at all speeds: who makes progress gets everything, who makes none is told and let go.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{thread, time::Duration};

use harness::{
    Consumer, Relay, consumer,
    raw::{Got, RawConsumer},
    stage::Stage,
};

/// A window that the corpus is several times larger than, in small files and hardly in memory.
const NARROW: [&str; 6] =
    ["--replay-bytes", "2MiB", "--log-segment-bytes", "256KiB", "--log-memory", "2MiB"];

const NARROW_BYTES: u32 = 2 << 20;

/// Lets the hosts send a part of their streams: hundredths of the longest.
fn push(stage: &Stage, from: usize, to: usize) {
    stage.push(stage.longest() * from / 100..stage.longest() * to / 100);
}

/// How many events are in a part.
fn count(stage: &Stage, to: usize) -> usize {
    stage.count(stage.longest() * to / 100)
}

/// A consumer without a cursor, that has its place at the newest event.
fn live(relay: &Relay) -> RawConsumer {
    let mut consumer = RawConsumer::connect(relay.api, "");
    consumer.send(0x89, b"live?");
    assert_eq!(consumer.next(), Got::Pong(b"live?".into()));
    consumer
}

/// Reads all events up to something else.
fn events(consumer: &mut RawConsumer) -> (Vec<Vec<u8>>, Got) {
    let mut frames = Vec::new();
    loop {
        match consumer.next_answering() {
            Got::Event(frame) => frames.push(frame),
            other => return (frames, other),
        }
    }
}

fn assert_too_slow(mut consumer: RawConsumer, end: Got) {
    assert_eq!(end, Got::Error("ConsumerTooSlow".into()));
    assert_eq!(consumer.next(), Got::Close(1008, "ConsumerTooSlow".into()));
    assert_eq!(consumer.next(), Got::End);
}

#[test]
fn readers_of_all_speeds_get_everything() {
    /// Bytes a read, and the pause between two reads.
    const SPEEDS: [(usize, u64); 7] =
        [(1 << 18, 0), (1 << 16, 1), (1 << 16, 10), (4096, 0), (5000, 1), (100_000, 20), (997, 0)];
    for driver in ["auto", "epoll"] {
        let small = ["--log-memory", "2MiB", "--log-segment-bytes", "1MiB", "--driver", driver];
        let stage = Stage::new(&[&small[..], &["--consumer-stall-time", "1s"]].concat());
        let quick = Consumer::connect(stage.relay.api, Some(0));
        push(&stage, 0, 50);
        quick.wait_for(count(&stage, 50));
        // Some begin in a backlog, and all are live while the other half comes.
        let readers: Vec<_> = SPEEDS
            .into_iter()
            .map(|(bytes, pause)| {
                let mut consumer = RawConsumer::connect(stage.relay.api, "?cursor=0");
                let wanted = stage.corpus.event_count();
                thread::spawn(move || {
                    let mut frames = Vec::new();
                    while frames.len() < wanted && consumer.read_some(bytes) {
                        while let Some(Got::Event(frame)) = consumer.take_read() {
                            frames.push(frame);
                        }
                        if pause > 0 {
                            thread::park_timeout(Duration::from_millis(pause));
                        }
                    }
                    frames
                })
            })
            .collect();
        push(&stage, 50, 100);
        let all = quick.wait_for(stage.corpus.event_count());
        stage.corpus.assert_complete(&all);
        for (reader, speed) in readers.into_iter().zip(SPEEDS) {
            assert!(reader.join().unwrap() == all, "{speed:?}, driver {driver}");
        }
    }
}

#[test]
fn a_window_smaller_than_an_event_gets_everything_and_holds_up_nobody() {
    /// The kernel makes it the least that it allows: some two thousand bytes.
    const WINDOW_BYTES: usize = 1;
    for driver in ["auto", "epoll"] {
        let small = ["--log-memory", "2MiB", "--log-segment-bytes", "1MiB", "--driver", driver];
        let stage = Stage::new(&small);
        let quick = Consumer::connect(stage.relay.api, Some(0));
        push(&stage, 0, 50);
        let half = quick.wait_for(count(&stage, 50));
        let near = consumer::event(&half[half.len() - 20]).seq;
        let tiny =
            |query: &str| RawConsumer::connect_with_window(stage.relay.api, query, WINDOW_BYTES);
        let mut live = tiny("");
        live.send(0x89, b"live?");
        assert_eq!(live.next(), Got::Pong(b"live?".into()));
        let behind = [(tiny("?cursor=0"), 0), (tiny(&format!("?cursor={near}")), half.len() - 19)];
        push(&stage, 50, 100);
        let all = quick.wait_for(stage.corpus.event_count());
        stage.corpus.assert_complete(&all);
        for (mut consumer, from) in behind.into_iter().chain([(live, half.len())]) {
            for expected in &all[from..from + 60] {
                let got = consumer.next_answering();
                assert!(
                    got == Got::Event(expected.clone()),
                    "driver {driver}, from {from}: {got:?}"
                );
            }
        }
    }
}

#[test]
fn who_takes_nothing_is_told_so_even_if_it_reads_much_later() {
    for driver in ["auto", "epoll"] {
        let stage = Stage::new(&["--consumer-stall-time", "1s", "--driver", driver]);
        let quick = Consumer::connect(stage.relay.api, Some(0));
        let mut live = live(&stage.relay);
        push(&stage, 0, 100);
        let all = quick.wait_for(stage.corpus.event_count());
        let mut behind = RawConsumer::connect(stage.relay.api, "?cursor=0");
        // The relay is done with both before they read their first byte.
        stage.relay.wait_for_metric("relayered_consumer_ends_total", "too-slow", 2.0);
        for consumer in [&mut live, &mut behind] {
            let (frames, end) = events(consumer);
            assert!(!frames.is_empty() && frames.len() < all.len(), "{}", frames.len());
            assert!(all.starts_with(&frames), "not the beginning of the stream");
            assert_eq!(end, Got::Error("ConsumerTooSlow".into()), "driver {driver}");
            assert_eq!(consumer.next(), Got::Close(1008, "ConsumerTooSlow".into()));
            assert_eq!(consumer.next(), Got::End);
        }
        // It goes on where it was.
        let half = all.len() / 2;
        let newest = consumer::event(&all[half]).seq;
        let rest = Consumer::connect(stage.relay.api, Some(newest)).wait_for(all.len() - half - 1);
        assert!(rest == all[half + 1..]);
    }
}

#[test]
fn who_was_live_and_falls_out_of_the_window_is_too_slow() {
    let stage = Stage::new(&[&NARROW[..], &["--consumer-stall-time", "10m"]].concat());
    let quick = Consumer::connect(stage.relay.api, Some(0));
    let mut slow = live(&stage.relay);
    push(&stage, 0, 100);
    let all = quick.wait_for(stage.corpus.event_count());
    stage.relay.wait_for_retention(NARROW_BYTES);
    let (frames, end) = events(&mut slow);
    assert!(all.starts_with(&frames) && frames.len() < all.len() / 2, "{}", frames.len());
    assert_too_slow(slow, end);
}

#[test]
fn who_replays_is_moved_on_once_when_the_window_moves_on() {
    let stage = Stage::new(&[&NARROW[..], &["--consumer-stall-time", "10m"]].concat());
    let quick = Consumer::connect(stage.relay.api, Some(0));
    push(&stage, 0, 25);
    // More than the sockets hold of what is not read, so that nobody becomes live.
    quick.wait_for(count(&stage, 25));
    let mut behind: Vec<_> =
        (0..2).map(|_| RawConsumer::connect(stage.relay.api, "?cursor=0")).collect();
    push(&stage, 25, 60);
    quick.wait_for(count(&stage, 60));
    stage.relay.wait_for_retention(NARROW_BYTES);
    let mut slow = behind.remove(0);
    let mut keeps_up = behind.remove(0);
    let moved: Vec<_> = [&mut slow, &mut keeps_up]
        .map(|consumer| {
            let (frames, end) = events(consumer);
            assert_eq!(end, Got::Info("OutdatedCursor".into()));
            frames
        })
        .into();
    // One reads on, the other one stops again until its new place is gone as well.
    push(&stage, 60, 61);
    let (mut rest, newest) = (Vec::new(), quick.wait_for(count(&stage, 61)));
    while rest.last() != newest.last() {
        match keeps_up.next_answering() {
            Got::Event(frame) => rest.push(frame),
            other => panic!("{other:?}"),
        }
    }
    assert!(newest.starts_with(&moved[1]) && newest.ends_with(&rest));
    assert!(moved[1].len() + rest.len() < newest.len(), "nothing was left out");
    push(&stage, 61, 100);
    let all = quick.wait_for(stage.corpus.event_count());
    stage.relay.wait_for_retention(NARROW_BYTES);
    let (second, end) = events(&mut slow);
    assert!(all.starts_with(&moved[0]));
    assert!(!second.is_empty() && all.windows(second.len()).any(|part| part == second));
    assert_too_slow(slow, end);
}

#[test]
fn quiet_streams_are_pinged_and_silence_is_the_end() {
    let stage = Stage::new(&["--consumer-ping-interval", "600ms"]);
    let mut answers = RawConsumer::connect(stage.relay.api, "");
    let mut silent = RawConsumer::connect(stage.relay.api, "?cursor=0");
    let silence = thread::spawn(move || [silent.next(), silent.next(), silent.next()]);
    for _ in 0..4 {
        let Got::Ping(payload) = answers.next() else { panic!("a ping was expected") };
        answers.send(0x8a, &payload);
    }
    // Who answered is there still, and gets what comes.
    stage.push(0..1);
    assert!(matches!(answers.next_answering(), Got::Event(_)));
    let close = Got::Close(1008, "no answer to a ping".into());
    assert_eq!(silence.join().unwrap(), [Got::Ping(Vec::new()), close, Got::End]);
    stage.relay.wait_for_metric("relayered_consumer_ends_total", "silent", 1.0);
}
