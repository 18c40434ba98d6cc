//! The reference relay's own scenarios (`tests/data/relay-scenarios`): each message comes out or is
//! dropped, as marked.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::fs;

use harness::{Consumer, FakePds, FakePlc, Relay, consumer, json, plc};
use protocol::frame;
use serde_json::{Value, json};

/// The time of the event which ends a scenario; no event of the scenarios has it.
const END: &str = "2038-01-19T03:14:07.000Z";

struct Scenario(Value);

impl Scenario {
    fn load(name: &str) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/relay-scenarios");
        let path = format!("{folder}/{name}.json");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self(serde_json::from_str(&text).unwrap())
    }

    fn accounts(&self) -> impl Iterator<Item = &Value> {
        self.0["accounts"].as_array().unwrap().iter().map(|account| &account["identity"])
    }

    fn messages(&self) -> &[Value] {
        self.0["messages"].as_array().unwrap()
    }

    fn play(&self) {
        let (directory, pds) = (FakePlc::start(), FakePds::start());
        for identity in self.accounts() {
            let did = identity["did"].as_str().unwrap();
            let key = identity["keys"]["atproto"]["publicKeyMultibase"].as_str().unwrap();
            let handle = identity["handle"].as_str().unwrap();
            directory.put(did, plc::document(did, key, handle, &pds.url()));
        }
        let lenient = self.0["lenient"].as_bool().unwrap();
        let arguments: &[&str] = if lenient { &["--lenient-sync-validation"] } else { &[] };
        let relay = Relay::start(&directory, arguments);
        relay.add_host(&pds);

        let mut expected = Vec::new();
        let mut last = 0;
        for message in self.messages() {
            let frame = json::frame(&message["frame"]["header"], &message["frame"]["body"]);
            let seq = message["frame"]["body"]["seq"].as_u64().unwrap();
            if message["drop"] == false {
                expected.push(passed_on(&frame));
            }
            pds.push(seq, frame);
            last = last.max(seq);
        }
        // The events of an account come out in order: behind this one nothing is still to come.
        for identity in self.accounts() {
            last += 1;
            let body = json!({ "did": identity["did"], "seq": last, "time": END, "active": true });
            pds.push(last, json::event("account", &body));
        }

        let accounts = self.accounts().count();
        let received = Consumer::connect(relay.api, Some(0)).wait_until("the end", |frames| {
            frames.iter().filter(|frame| consumer::event(frame).time == END).count() == accounts
        });
        let received: Vec<_> = received
            .iter()
            .filter(|frame| consumer::event(frame).time != END)
            .map(|frame| consumer::without_seq(frame))
            .collect();
        assert_eq!(received.len(), expected.len(), "number of events\n{}", relay.log());
        for (at, (received, expected)) in received.iter().zip(&expected).enumerate() {
            assert!(received == expected, "event {at} has changed, or is another one");
        }
    }
}

/// What consumers must get for a frame, without its seq: the frame itself, with the deprecated
/// fields that the lexicon requires filled in where the host left them out.
fn passed_on(frame: &[u8]) -> Vec<u8> {
    match frame::with_defaults(frame) {
        Ok(filled) => consumer::without_seq(&filled),
        Err(_) => consumer::without_seq(frame),
    }
}

macro_rules! scenarios {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            Scenario::load(stringify!($name)).play();
        }
    )*};
}

scenarios! {
    account_lifecycle
    deactivation
    legacy
    post_lifecycle
    post_lifecycle_legacy
    rev_ordering
    seq_ordering
}

#[test]
fn no_scenario_is_left_out() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/relay-scenarios");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let count = files.filter(|name| name.to_string_lossy().ends_with(".json")).count();
    assert_eq!(count, 7);
}
