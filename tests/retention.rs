//! The window moves while the relay runs: who is in a part that goes is moved on, and told so.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{thread, time::Duration};

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
        // It reads only the first event for now, so it stays in the oldest segments, of which the
        // sockets do not hold much.
        let mut behind = RawConsumer::connect(stage.relay.api, "?cursor=0");
        let first = behind.next_answering();
        assert_eq!(first, Got::Event(half[0].clone()));
        set(&stage.relay, &json!({ "replay_bytes": NARROW_BYTES }));
        stage.relay.wait_for_retention(NARROW_BYTES);
        let mut before = vec![half[0].clone()];
        let told = loop {
            match behind.next_answering() {
                Got::Event(frame) => before.push(frame),
                other => break other,
            }
        };
        assert_eq!(told, Got::Info("OutdatedCursor".into()), "driver {driver}");
        let after = events(&mut behind, newest);
        assert!(half.starts_with(&before) && half.ends_with(&after), "driver {driver}");
        assert!(before.len() + after.len() < half.len());
        assert!(outdated(&stage.relay, newest) == after);
        // It holds after a kill, too, and until it is taken back. What had left the log had been taken
        // note of: hosts that send it again are not believed.
        drop(quick);
        stage.relay.kill();
        stage.relay.launch();
        let settings = stage.relay.admin("GET", "/admin/settings", "").json();
        assert_eq!(settings["replay_bytes"], NARROW_BYTES);
        set(&stage.relay, &json!({ "replay_bytes": 0 }));
        stage.push(end / 2..end);
        let oldest = Consumer::connect(stage.relay.api, Some(seq(&after[0]) - 1));
        let rest = stage.corpus.event_count() - half.len();
        let all = oldest.wait_for(after.len() + rest);
        assert!(all.starts_with(&after), "driver {driver}");
        stage.corpus.assert_complete(&[&half[..], &all[after.len()..]].concat());
    }
}

/// Reads to the newest event at some speed: what came before the word that a place was gone, and what
/// behind it.
fn read_on(
    mut consumer: RawConsumer,
    (bytes, pause): (usize, u64),
    newest: u64,
) -> [Vec<Vec<u8>>; 2] {
    let mut parts = [Vec::new(), Vec::new()];
    let mut part = 0;
    loop {
        while let Some(got) = consumer.take_read() {
            match got {
                Got::Event(frame) if seq(&frame) == newest => {
                    parts[part].push(frame);
                    return parts;
                }
                Got::Event(frame) => parts[part].push(frame),
                Got::Info(name) if name == "OutdatedCursor" && part == 0 => part = 1,
                other => panic!("{other:?} at {bytes} bytes a read"),
            }
        }
        assert!(consumer.read_some(bytes), "the end of the stream at {bytes} bytes a read");
        if pause > 0 {
            thread::park_timeout(Duration::from_millis(pause));
        }
    }
}

#[test]
fn readers_of_all_speeds_are_moved_on_once_when_the_window_is_narrowed() {
    /// Bytes a read, and the pause between two reads.
    const SPEEDS: [(usize, u64); 5] =
        [(1 << 18, 0), (1 << 16, 2), (4096, 0), (50_000, 20), (997, 0)];
    let stage = Stage::new(&SMALL);
    let quick = Consumer::connect(stage.relay.api, Some(0));
    let end = stage.longest();
    stage.push(0..end / 2);
    let half = quick.wait_for(stage.count(end / 2));
    let newest = seq(&half[half.len() - 1]) + (stage.corpus.event_count() - half.len()) as u64;
    let read = |cursor, speed| {
        let mut consumer = RawConsumer::connect(stage.relay.api, &format!("?cursor={cursor}"));
        // It has its place.
        assert!(consumer.read_some(1));
        (cursor, speed, thread::spawn(move || read_on(consumer, speed, newest)))
    };
    let middle = seq(&half[half.len() / 2]);
    let readers: Vec<_> =
        SPEEDS.into_iter().flat_map(|speed| [read(0, speed), read(middle, speed)]).collect();
    // Narrow, and wide again before more comes.
    set(&stage.relay, &json!({ "replay_bytes": NARROW_BYTES }));
    stage.relay.wait_for_retention(NARROW_BYTES);
    set(&stage.relay, &json!({ "replay_bytes": 0 }));
    stage.push(end / 2..end);
    let all = quick.wait_for(stage.corpus.event_count());
    stage.corpus.assert_complete(&all);
    for (cursor, speed, reader) in readers {
        let [before, after] = reader.join().unwrap();
        let wanted: Vec<_> = all.iter().filter(|frame| seq(frame) > cursor).cloned().collect();
        assert!(wanted.starts_with(&before) && wanted.ends_with(&after), "{speed:?} from {cursor}");
        let told = before.last() != all.last();
        assert!(told || before.len() == wanted.len(), "{speed:?} from {cursor}: not told of a gap");
    }
}

#[test]
fn a_limit_of_age_can_be_raised_while_it_runs() {
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
    // All of it gets too old.
    stage.relay.wait_for_retention(0);
    let mut told = RawConsumer::connect(stage.relay.api, "?cursor=1");
    assert_eq!(told.next_answering(), Got::Info("OutdatedCursor".into()));
    set(&stage.relay, &json!({ "replay_window_seconds": 3600 }));
    let rest = stage.corpus.event_count() - half.len();
    stage.push(end / 2..end);
    let first = Consumer::connect(stage.relay.api, Some(newest)).wait_for(rest);
    let newest = seq(&first[first.len() - 1]);
    assert!(events(&mut told, newest) == first);
    // Nothing new comes for longer than the first window.
    for _ in 0..3 {
        let Got::Ping(payload) = told.next() else { panic!("a ping was expected") };
        told.send(0x8a, &payload);
    }
    assert!(outdated(&stage.relay, newest) == first);
    stage.corpus.assert_complete(&[half, first].concat());
}
