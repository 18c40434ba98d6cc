//! The window moves while the relay runs: who is in a part that goes is moved on, and told so.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{
    Consumer, Relay, consumer,
    raw::{Got, RawConsumer},
    stage::Stage,
};
use serde_json::json;

/// Segments go whole, so they are small; and hardly anything is in memory.
const SMALL: [&str; 4] = ["--log-segment-bytes", "256KiB", "--log-memory", "2MiB"];

const NARROW_BYTES: u32 = 1 << 20;

fn set(relay: &Relay, settings: &serde_json::Value) {
    let reply = relay.admin("POST", "/admin/settings", &settings.to_string());
    assert_eq!(reply.status, 200, "{reply:?}");
}

fn seq(frame: &[u8]) -> u64 {
    consumer::event(frame).seq
}

/// The events up to the one with that number; something else on the way is not in order.
fn events(consumer: &mut RawConsumer, newest: u64) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while frames.last().is_none_or(|frame: &Vec<u8>| seq(frame) < newest) {
        match consumer.next_answering() {
            Got::Event(frame) => frames.push(frame),
            other => panic!("{other:?} behind {:?}", frames.last().map(|frame| seq(frame))),
        }
    }
    frames
}

/// What a consumer gets whose cursor is too old, told so first.
fn outdated(relay: &Relay, newest: u64) -> Vec<Vec<u8>> {
    let mut consumer = RawConsumer::connect(relay.api, "?cursor=1");
    assert_eq!(consumer.next_answering(), Got::Info("OutdatedCursor".into()));
    events(&mut consumer, newest)
}

#[test]
fn a_limit_of_bytes_holds_at_once_and_moves_readers_on() {
    for driver in ["auto", "epoll"] {
        let mut stage = Stage::new(&[&SMALL[..], &["--driver", driver]].concat());
        let quick = Consumer::connect(stage.relay.api, Some(0));
        let end = stage.longest();
        stage.push(0..end / 2);
        let half = quick.wait_for(stage.count(end / 2));
        let newest = seq(&half[half.len() - 1]);
        // It reads nothing for now, so it stays in what the sockets do not hold of the oldest segments.
        let mut behind = RawConsumer::connect(stage.relay.api, "?cursor=0");
        set(&stage.relay, &json!({ "replay_bytes": NARROW_BYTES }));
        stage.relay.wait_for_retention(NARROW_BYTES);
        let mut before = Vec::new();
        let told = loop {
            match behind.next_answering() {
                Got::Event(frame) => before.push(frame),
                other => break other,
            }
        };
        assert_eq!(told, Got::Info("OutdatedCursor".into()), "driver {driver}");
        let after = events(&mut behind, newest);
        assert!(half.starts_with(&before) && half.ends_with(&after), "driver {driver}");
        assert!(!before.is_empty() && before.len() + after.len() < half.len());
        assert!(outdated(&stage.relay, newest) == after);
        // It holds after a kill, too, and until it is taken back.
        drop(quick);
        stage.relay.kill();
        stage.relay.launch();
        assert_eq!(
            stage.relay.admin("GET", "/admin/settings", "").json()["replay_bytes"],
            NARROW_BYTES
        );
        set(&stage.relay, &json!({ "replay_bytes": 0 }));
        stage.push(end / 2..end);
        let oldest = Consumer::connect(stage.relay.api, Some(seq(&after[0]) - 1));
        let rest = stage.corpus.event_count() - half.len();
        let all = oldest.wait_for(after.len() + rest);
        assert!(all.starts_with(&after), "driver {driver}");
        stage.corpus.assert_complete(&[&half[..], &all[after.len()..]].concat());
    }
}

#[test]
fn a_limit_of_age_can_be_raised_while_the_old_events_are_going() {
    let ping = ["--consumer-ping-interval", "600ms"];
    let mut stage = Stage::new(&SMALL);
    let quick = Consumer::connect(stage.relay.api, Some(0));
    let end = stage.longest();
    stage.push(0..end / 2);
    let half = quick.wait_for(stage.count(end / 2));
    let newest = seq(&half[half.len() - 1]);
    assert!(stage.relay.terminate().success());
    stage.set_arguments(&[&SMALL[..], &ping, &["--replay-window", "1s"]].concat());
    stage.relay.launch();
    // All of it gets too old, and what is in closed segments goes.
    stage.relay.wait_for_retention(512 << 10);
    let left = outdated(&stage.relay, newest);
    assert!(left.len() < half.len() && half.ends_with(&left));
    set(&stage.relay, &json!({ "replay_window_seconds": 3600 }));
    stage.push(end / 2..end);
    let rest = stage.corpus.event_count() - half.len();
    let first = Consumer::connect(stage.relay.api, Some(newest)).wait_for(rest);
    // Nothing new comes for longer than the first window.
    let mut quiet = RawConsumer::connect(stage.relay.api, "");
    for _ in 0..3 {
        let Got::Ping(payload) = quiet.next() else { panic!("a ping was expected") };
        quiet.send(0x8a, &payload);
    }
    let newest = seq(&first[first.len() - 1]);
    assert!(outdated(&stage.relay, newest).ends_with(&first));
    stage.corpus.assert_complete(&[half, first].concat());
}
