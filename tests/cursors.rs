//! What a cursor gets: exactly the events behind it, then the live ones, or a word why not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{
    Consumer, FakePlc, Relay, consumer,
    corpus::HOSTS,
    raw::{Got, RawConsumer, refused},
    stage::Stage,
};
use protocol::frame::{Skim, skim};

/// So little stays in memory, and in one file, that replays read from several files.
const SMALL: [&str; 4] = ["--log-memory", "2MiB", "--log-segment-bytes", "512KiB"];

/// Lets the hosts send everything and gives what the relay makes of it.
fn push_all(stage: &Stage) -> Vec<Vec<u8>> {
    let all = Consumer::connect(stage.relay.api, Some(0));
    stage.push(0..usize::MAX);
    let all = all.wait_for(stage.corpus.event_count());
    stage.corpus.assert_complete(&all);
    all
}

fn seq(frame: &[u8]) -> u64 {
    consumer::event(frame).seq
}

/// The next `count` frames, which must be events.
fn events(consumer: &mut RawConsumer, count: usize) -> Vec<Vec<u8>> {
    let next = |_| match consumer.next_answering() {
        Got::Event(frame) => frame,
        other => panic!("an event was expected: {other:?}"),
    };
    (0..count).map(next).collect()
}

#[test]
fn every_cursor_gets_exactly_what_is_behind_it() {
    let stage = Stage::new(&[&SMALL[..], &["--initial-seq-number", "5000"]].concat());
    let all = push_all(&stage);
    let (oldest, newest) = (seq(&all[0]), seq(&all[all.len() - 1]));
    assert_eq!(oldest, 5000);
    // 4999 is the number before the oldest: nothing is missing behind it.
    for cursor in [0, oldest - 1, oldest, oldest + 1, oldest + 700, newest - 1] {
        let mut consumer = RawConsumer::connect(stage.relay.api, &format!("?cursor={cursor}"));
        let expected: Vec<_> = all.iter().filter(|frame| seq(frame) > cursor).cloned().collect();
        assert!(events(&mut consumer, expected.len()) == expected, "behind {cursor}");
    }
    for cursor in [1, oldest - 2] {
        let mut consumer = RawConsumer::connect(stage.relay.api, &format!("?cursor={cursor}"));
        assert_eq!(consumer.next(), Got::Info("OutdatedCursor".into()), "cursor {cursor}");
        assert!(events(&mut consumer, all.len()) == all, "behind {cursor}");
    }
}

#[test]
fn without_a_cursor_and_at_the_newest_event_it_is_live() {
    let stage = Stage::new(&[]);
    let first = Consumer::connect(stage.relay.api, Some(0));
    stage.push(0..10);
    let before = first.wait_for(10 * HOSTS);
    let newest = seq(&before[before.len() - 1]);
    let mut live = [
        RawConsumer::connect(stage.relay.api, ""),
        RawConsumer::connect(stage.relay.api, &format!("?cursor={newest}")),
        RawConsumer::connect(stage.relay.api, "?curso=1"),
    ];
    // They have their places once they are connected in the shards' eyes.
    stage.relay.wait_for_metric("relayered_consumer_connections_count", "", 4.0);
    for consumer in &mut live {
        consumer.send(0x89, b"there?");
        assert_eq!(consumer.next(), Got::Pong(b"there?".into()));
    }
    stage.push(10..20);
    let all = first.wait_for(20 * HOSTS);
    for consumer in &mut live {
        assert!(events(consumer, 10 * HOSTS) == all[before.len()..]);
    }
}

#[test]
fn a_cursor_in_the_future_is_an_error_and_the_end() {
    let stage = Stage::new(&[]);
    let assert_future = |cursor: u64| {
        let mut consumer = RawConsumer::connect(stage.relay.api, &format!("?cursor={cursor}"));
        assert_eq!(consumer.next(), Got::Error("FutureCursor".into()), "cursor {cursor}");
        assert_eq!(consumer.next(), Got::Close(1008, "FutureCursor".into()));
        assert_eq!(consumer.next(), Got::End);
    };
    // Before there is any event.
    assert_future(1);
    let all = push_all(&stage);
    let newest = seq(&all[all.len() - 1]);
    for cursor in [newest + 1, newest + 1_000_000, i64::MAX as u64, u64::MAX] {
        assert_future(cursor);
    }
    let mut newest = RawConsumer::connect(stage.relay.api, &format!("?cursor={newest}"));
    newest.send(0x89, b"");
    assert_eq!(newest.next(), Got::Pong(Vec::new()));
}

#[test]
fn what_is_no_number_of_zero_or_more_is_refused_before_the_upgrade() {
    let plc = FakePlc::start();
    let relay = Relay::start(&plc, &[]);
    for cursor in [
        "",
        "-1",
        "-0",
        "+1",
        "%2B1",
        "%201",
        "1%20",
        "1.0",
        "1e3",
        "0x10",
        "x",
        "null",
        "1,2",
        "%D9%A1",
        "%FF",
        "%00",
        "18446744073709551616",
        "99999999999999999999999",
        "1&cursor=2",
    ] {
        let reply = refused(relay.api, &format!("?cursor={cursor}"));
        assert_eq!(reply.status, 400, "cursor={cursor}: {reply:?}");
        assert_eq!(reply.json()["error"], "InvalidRequest", "cursor={cursor}");
        assert!(!reply.headers.contains_key("upgrade"), "cursor={cursor}: {reply:?}");
    }
    assert!(relay.metric("relayered_consumer_connections_count", "") < 1.0);
}

#[test]
fn the_seam_between_replay_and_live_has_no_gap_repeat_or_reorder() {
    for driver in ["auto", "epoll"] {
        let stage = Stage::new(&[&SMALL[..], &["--driver", driver]].concat());
        let first = Consumer::connect(stage.relay.api, Some(0));
        let (step, rounds) = (35, 20);
        let mut late = Vec::new();
        for round in 0..rounds {
            let end = if round + 1 == rounds { usize::MAX } else { (round + 1) * step };
            stage.push(round * step..end);
            // While these are on their way: from the start, from the middle, from the newest.
            first.wait_for(round * step);
            let so_far = first.frames();
            let middle = so_far.get(so_far.len() / 2).map_or(0, |frame| seq(frame));
            let newest = so_far.last().map_or(0, |frame| seq(frame));
            for cursor in [0, middle, newest] {
                late.push((cursor, Consumer::connect(stage.relay.api, Some(cursor))));
            }
        }
        let all = first.wait_for(stage.corpus.event_count());
        stage.corpus.assert_complete(&all);
        for (cursor, consumer) in late {
            let expected: Vec<_> = all.iter().filter(|frame| seq(frame) > cursor).collect();
            let got = consumer.wait_for(expected.len());
            assert!(got.iter().eq(expected), "behind {cursor}, driver {driver}");
        }
    }
}

#[test]
fn a_cursor_older_than_the_window_gets_what_is_left_of_it() {
    let window = ["--replay-bytes", "2MiB", "--log-memory", "2MiB"];
    let stage = Stage::new(&[&window[..], &["--log-segment-bytes", "256KiB"]].concat());
    let all = push_all(&stage);
    stage.relay.wait_for_retention(2 << 20);
    let mut consumer = RawConsumer::connect(stage.relay.api, "?cursor=1");
    assert_eq!(consumer.next(), Got::Info("OutdatedCursor".into()));
    let Got::Event(oldest) = consumer.next() else { panic!("the oldest event was expected") };
    let at = all.iter().position(|frame| *frame == oldest).unwrap();
    assert!(at > 0);
    assert!(events(&mut consumer, all.len() - at - 1) == all[at + 1..]);
    // Zero asks for whatever there is: nothing is missing from that.
    let everything = Consumer::connect(stage.relay.api, Some(0));
    let newest = &all[all.len() - 1];
    let everything = everything.wait_until("the newest", |got| got.last() == Some(newest));
    assert!(everything.iter().all(|frame| matches!(skim(frame), Ok(Skim::Event { .. }))));
    assert!(all.ends_with(&everything));
}
