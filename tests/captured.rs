//! Frames captured from real PDSes, and real directory documents: all pass unchanged but for `seq`,
//! except those which must be refused.
//!
//! One account lives through everything there is: creation, posts, another handle, deactivation,
//! take-down, migration to another PDS, deletion. A second one posts, and a third one lives on
//! another implementation, with revs of the year 1970.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use harness::{Consumer, FakePds, FakePlc, Relay, consumer, plc, skipped};
use protocol::frame::{self, Skim};
use serde_json::Value;

const MOVING: &str = "did:plc:7gsk3jwakq5ekyt3hfe2bll3";
const STAYING: &str = "did:plc:jxez6oruacp4rzleeldguf7x";
const OTHER_KIND: &str = "did:plc:eku4g36wpgkdhyoifkbjgpz3";

/// When the frames were captured: Unix seconds of 2026-11-24T23:10:00Z.
const CAPTURED_AT: u64 = 1_795_561_800;

fn read(name: &str) -> String {
    let path = format!("{}/tests/data/captured/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

struct Capture(Vec<(u64, Vec<u8>)>);

impl Capture {
    fn load(name: &str) -> Self {
        let text = read(name);
        let frames = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let hex = line["hex"].as_str().unwrap().as_bytes();
            let bytes = data_encoding::HEXLOWER.decode(hex).unwrap();
            (consumer::event(&bytes).seq, bytes)
        });
        Self(frames.collect())
    }

    fn frames(&self, seqs: impl IntoIterator<Item = u64>) -> Vec<(u64, Vec<u8>)> {
        let find = |seq| self.0.iter().find(|(found, _)| *found == seq).unwrap().clone();
        seqs.into_iter().map(find).collect()
    }
}

/// The document of the moving account after its operation number `step` in the directory's log.
fn moving_document(step: usize, pds: &FakePds) -> String {
    let log: Value = serde_json::from_str(&read("plc-log-7gsk3jwakq5ekyt3hfe2bll3.json")).unwrap();
    let operation = &log[step];
    let key = operation["verificationMethods"]["atproto"].as_str().unwrap();
    let handle = operation["alsoKnownAs"][0].as_str().unwrap().trim_start_matches("at://");
    plc::document(MOVING, key.trim_start_matches("did:key:"), handle, &pds.url())
}

/// A document as the real directory gave it, old key type and all, with another place for its PDS.
fn real_document(name: &str, pds: &FakePds) -> String {
    let mut document: Value = serde_json::from_str(&read(name)).unwrap();
    document["service"][0]["serviceEndpoint"] = pds.url().into();
    document.to_string()
}

/// Pushes frames, and waits until those that pass have come out unchanged, and nothing else.
struct Play {
    consumer: Consumer,
    received: usize,
}

impl Play {
    fn step(&mut self, pds: &FakePds, frames: &[(u64, Vec<u8>)], refused: &[u64]) {
        pds.push_all(frames.iter().cloned());
        let passing: Vec<_> = frames.iter().filter(|(seq, _)| !refused.contains(seq)).collect();
        let all = self.consumer.wait_for(self.received + passing.len());
        for ((seq, expected), got) in passing.iter().zip(&all[self.received..]) {
            assert!(
                consumer::without_seq(got) == consumer::without_seq(expected),
                "in place of the host's event {seq} came {}",
                consumer::describe(got)
            );
        }
        self.received += passing.len();
    }
}

#[test]
fn real_frames_pass_unchanged() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    if now < CAPTURED_AT {
        // Their revs lie in the future, so the relay is right to refuse them.
        return skipped("real_frames_pass_unchanged", "the clock stands before November 2026");
    }
    let directory = FakePlc::start();
    let [a, b, c] = std::array::from_fn(|_| FakePds::start());
    let (on_a, on_b) = (Capture::load("pdsA.jsonl"), Capture::load("pdsB.jsonl"));
    directory.put(STAYING, real_document("plc-doc-jxez6oruacp4rzleeldguf7x.json", &a));
    directory.put(OTHER_KIND, real_document("plc-doc-eku4g36wpgkdhyoifkbjgpz3.json", &c));
    directory.put(MOVING, moving_document(0, &a));
    let relay = Relay::start(&directory, &[]);
    for pds in [&a, &b, &c] {
        relay.add_host(pds);
    }
    let consumer = Consumer::connect(relay.api, Some(0));
    let mut play = Play { consumer, received: 0 };

    // Creation: the #sync has the rev of the commit before it, so it says nothing new.
    play.step(&a, &on_a.frames(40..=46), &[43]);
    // Another handle, deactivated and back (with a #sync of the last rev), taken down and back.
    directory.put(MOVING, moving_document(1, &a));
    play.step(&a, &on_a.frames(47..=53), &[51]);
    // The directory names the new host, and only that one is heard from here on: what the old one
    // says last is refused.
    directory.put(MOVING, moving_document(2, &b));
    play.step(&b, &on_b.frames([11]), &[]);
    play.step(&a, &on_a.frames(54..=63), &[54, 58]);
    // The new host's #sync still carries the old host's commit, signed with the old key. It must
    // not do harm to the good commit behind it.
    play.step(&b, &on_b.frames(12..=15), &[13]);
    // A commit before anything else, its #sync with the same rev, and always `since` null.
    play.step(&c, &Capture::load("arroba-frames.jsonl").frames(1..=9), &[4]);

    let replay = Consumer::connect(relay.api, Some(0)).wait_for(play.received);
    assert!(replay == play.consumer.frames(), "something more came, or the replay differs");
}

#[test]
fn the_error_frame_of_a_real_pds_is_understood() {
    let line: Value = serde_json::from_str(&read("future-cursor-error.jsonl")).unwrap();
    let hex = line["hex"].as_str().unwrap().as_bytes();
    let frame = data_encoding::HEXLOWER.decode(hex).unwrap();
    assert!(matches!(frame::skim(&frame), Ok(Skim::Error { error: "FutureCursor", .. })));
}
