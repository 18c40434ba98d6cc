//! What a host may: nonsense up to its budget.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{
    Consumer, FakePds, FakePlc, Relay,
    author::{Author, TIME},
    consumer, eventually, json,
};
use protocol::frame::Body;
use serde_json::{Value, json};

struct Lab {
    plc: FakePlc,
    pds: FakePds,
    relay: Relay,
    consumer: Consumer,
    seq: u64,
}

impl Lab {
    fn new(arguments: &[&str]) -> Self {
        let (plc, pds) = (FakePlc::start(), FakePds::start());
        let relay = Relay::start(&plc, arguments);
        let consumer = Consumer::connect(relay.api, None);
        relay.add_host(&pds);
        Self { plc, pds, relay, consumer, seq: 0 }
    }

    fn author(&self, number: u64) -> Author {
        let author = Author::new((10 << 20) + number);
        author.register(&self.plc, &self.pds);
        author
    }

    fn send(&mut self, kind: &str, body: &Value) {
        self.seq += 1;
        let mut body = body.clone();
        body["seq"] = self.seq.into();
        self.pds.push(self.seq, json::event(kind, &body));
    }

    fn post(&mut self, author: &mut Author) {
        let body = author.post();
        self.send("commit", &body);
    }

    /// What has come out of an account, in order: `commit`, or a status.
    fn told(&self, author: &Author) -> Vec<String> {
        let frames = self.consumer.frames();
        let events = frames.iter().map(|frame| consumer::event(frame));
        let own = events.filter(|event| event.did == author.did);
        own.map(|event| match event.body {
            Body::Commit(_) => "commit".to_owned(),
            Body::Account(body) if body.active => "active".to_owned(),
            Body::Account(body) => body.status.unwrap_or("inactive").to_owned(),
            other => format!("{other:?}"),
        })
        .collect()
    }

    fn wait_for(&self, author: &Author, told: &[&str]) {
        eventually(&format!("{told:?}, not {:?}", self.told(author)), || {
            (self.told(author) == told).then_some(())
        });
    }

    fn row(&self) -> Value {
        self.relay.admin("GET", "/admin/pds/list", "").json()[0].clone()
    }
}

#[test]
fn a_flood_of_nonsense_ends_in_quarantine_and_the_quarantine_by_itself() {
    const FLOOD: u64 = 6000;
    let mut lab = Lab::new(&[]);
    let mut author = lab.author(1);
    lab.post(&mut author);
    lab.wait_for(&author, &["commit"]);
    for _ in 0..FLOOD {
        lab.send("identity", &json!({ "did": author.did, "time": format!("{TIME}x") }));
    }
    let row = eventually("the quarantine", || {
        let row = lab.row();
        (row["Status"] == "throttled").then_some(row)
    });
    assert_eq!(row["StatusReason"], "quarantine-invalid-events");
    lab.pds.wait_for_hang_up();
    lab.post(&mut author);
    lab.wait_for(&author, &["commit", "commit"]);
    eventually("the end of the quarantine", || (lab.row()["Status"] == "active").then_some(()));
    assert!(lab.pds.cursors().len() <= 3, "{:?}", lab.pds.cursors());
}
