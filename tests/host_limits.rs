//! What a host may: accounts up to its limit, nonsense up to its budget; and what brings accounts back
//! that were held back.

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
        let untrusted = ["--trusted-domains", "*.example"];
        let relay = Relay::start(&plc, &[&untrusted[..], arguments].concat());
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

    fn refused(&self, reason: &str, count: u64) {
        let label = format!("reason=\"{reason}\"");
        self.relay.wait_for_metric("relayered_accounts_refusals_total", &label, count as f64);
    }
}

#[test]
fn accounts_above_the_limit_wait_for_places_and_get_them_in_their_order() {
    let mut lab = Lab::new(&["--default-account-limit", "2"]);
    let mut authors: Vec<Author> = (0..5).map(|number| lab.author(number)).collect();
    for author in &mut authors {
        lab.post(author);
        // One after the other, so that they have an order.
        let count = lab.consumer.count();
        lab.consumer.wait_for(count.max(1));
        eventually("the account", || (!lab.told(author).is_empty()).then_some(()));
    }
    for (number, author) in authors.iter().enumerate() {
        lab.wait_for(author, if number < 2 { &["commit"] } else { &["throttled"] });
    }
    lab.refused("account-throttled", 3);
    let status = format!("/xrpc/com.atproto.sync.getRepoStatus?did={}", authors[2].did);
    let told = lab.relay.get(&status).json();
    assert_eq!((&told["active"], &told["status"]), (&json!(false), &json!("throttled")));

    // A deleted account frees its place for the one that has waited longest.
    lab.send("account", &authors[0].account(false, Some("deleted")));
    lab.wait_for(&authors[0], &["commit", "deleted"]);
    lab.wait_for(&authors[2], &["throttled", "active"]);
    let mut third = authors.remove(2);
    lab.post(&mut third);
    lab.wait_for(&third, &["throttled", "active", "commit"]);

    // A higher limit has places for all.
    let body = json!({ "host": lab.pds.hostname(), "repo_limit": 10 }).to_string();
    assert_eq!(lab.relay.admin("POST", "/admin/pds/changeLimits", &body).status, 200);
    for author in &mut authors[2..] {
        lab.wait_for(author, &["throttled", "active"]);
        lab.post(author);
        lab.wait_for(author, &["throttled", "active", "commit"]);
    }
    // A lower one takes nothing away.
    let body = json!({ "host": lab.pds.hostname(), "repo_limit": 1 }).to_string();
    assert_eq!(lab.relay.admin("POST", "/admin/pds/changeLimits", &body).status, 200);
    lab.post(&mut authors[1]);
    lab.wait_for(&authors[1], &["commit", "commit"]);
    let mut late = lab.author(99);
    lab.post(&mut late);
    lab.wait_for(&late, &["throttled"]);
}

#[test]
fn an_account_that_its_host_calls_active_comes_back_with_its_commits() {
    let mut lab = Lab::new(&[]);
    let mut author = lab.author(1);
    lab.post(&mut author);
    lab.send("account", &author.account(false, Some("deactivated")));
    lab.wait_for(&author, &["commit", "deactivated"]);
    // The host knows of no such account, or says that it sleeps: the commit is refused.
    lab.post(&mut author);
    lab.refused("account-inactive", 1);
    // It has forgotten to say that the account is back, and says so when it is asked.
    let status = json!({ "did": author.did, "active": true, "rev": author.rev() });
    lab.pds.set_status(&author.did, status.to_string());
    eventually("the account to come back", || {
        lab.post(&mut author);
        (lab.told(&author).len() > 3).then_some(())
    });
    let told = lab.told(&author);
    assert_eq!(told[..4], ["commit", "deactivated", "active", "commit"], "{told:?}");
    assert!(told[4..].iter().all(|event| event == "commit"), "{told:?}");
}

#[test]
fn a_flood_of_nonsense_ends_in_quarantine_and_the_quarantine_by_itself() {
    const FLOOD: u64 = 6000;
    let mut lab = Lab::new(&[]);
    let mut author = lab.author(1);
    lab.post(&mut author);
    lab.wait_for(&author, &["commit"]);
    // Else its event rates would hold it back.
    let rates = "per_second=100000&per_hour=100000&per_day=100000";
    let target = format!("/admin/pds/changeLimits?host={}&{rates}", lab.pds.hostname());
    assert_eq!(lab.relay.admin("POST", &target, "").status, 200);
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

#[test]
fn a_lenient_host_that_has_shown_that_it_can_is_held_to_the_strict_rules() {
    let mut lab = Lab::new(&["--lenient-sync-validation"]);
    let mut author = lab.author(1);
    lab.post(&mut author);
    // An old host: passed on, and the count begins anew.
    let mut old = lab.author(2);
    lab.post(&mut old);
    let mut legacy = old.post();
    legacy.as_object_mut().unwrap().remove("prevData");
    lab.send("commit", &legacy);
    // What is reported together with the old one does not count.
    eventually("the host to be held to the strict rules", || {
        lab.post(&mut author);
        lab.relay.log().contains("keeps the strict rules").then_some(())
    });
    eventually("a commit of the old form to be refused", || {
        let mut legacy = old.post();
        legacy.as_object_mut().unwrap().remove("prevData");
        lab.send("commit", &legacy);
        let label = "reason=\"prev-data-missing\"";
        (lab.relay.metric("relayered_accounts_refusals_total", label) >= 1.0).then_some(())
    });
}
