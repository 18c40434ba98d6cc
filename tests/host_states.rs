//! What becomes of hosts over time: a first contact that may not lose anything, a host that numbers
//! anew, one that is flooded with nonsense, one that is full; and who may change any of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{Consumer, FakePds, FakePlc, Relay, author::Author, http, json};
use serde_json::{Value, json};

fn push(pds: &FakePds, seq: u64, kind: &str, body: &Value) {
    let mut body = body.clone();
    body["seq"] = seq.into();
    pds.push(seq, json::event(kind, &body));
}

fn author(number: u64, plc: &FakePlc, pds: &FakePds) -> Author {
    let author = Author::new(number);
    author.register(plc, pds);
    author
}

/// As anybody may ask.
fn public_request(relay: &Relay, pds: &FakePds) -> http::Response {
    let body = json!({ "hostname": pds.hostname() }).to_string();
    let headers = [("Content-Type", "application/json")];
    let target = "/xrpc/com.atproto.sync.requestCrawl";
    http::request(relay.api, "POST", target, &headers, &body).unwrap()
}

fn row(relay: &Relay, pds: &FakePds) -> Value {
    let list = relay.admin("GET", "/admin/pds/list", "").json();
    let rows = list.as_array().unwrap();
    rows.iter().find(|row| row["Host"] == pds.hostname()).unwrap().clone()
}

fn wait_for_status(relay: &Relay, pds: &FakePds, status: &str) -> Value {
    harness::eventually(&format!("{status} as the host's status"), || {
        let row = row(relay, pds);
        (row["Status"] == status).then_some(row)
    })
}

#[test]
fn nothing_is_missed_from_the_first_connection_on() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let mut alice = author(1, &plc, &pds);
    let mut relay = Relay::start(&plc, &[]);
    // From before the first contact: not asked for.
    push(&pds, 1, "commit", &alice.post());
    relay.add_host(&pds);
    relay.kill();
    push(&pds, 2, "commit", &alice.post());
    relay.launch();
    let frames = Consumer::connect(relay.api, Some(0)).wait_for(1);
    assert!(pds.cursors().last().unwrap().is_some(), "{:?}", pds.cursors());
    // From its oldest, as nothing had been seen.
    assert!(!frames.is_empty());
    // Killed again, with something in the log.
    relay.kill();
    push(&pds, 3, "commit", &alice.post());
    relay.launch();
    let consumer = Consumer::connect(relay.api, Some(0));
    let frames = consumer.wait_until("the last commit", |frames| {
        frames.last().is_some_and(|frame| harness::describe_rev(frame) == alice.rev())
    });
    let revs: Vec<String> = frames.iter().map(|frame| harness::describe_rev(frame)).collect();
    let mut once = revs.clone();
    once.dedup();
    assert_eq!(revs, once, "each once");
    assert!(revs.len() >= 2);
}

#[test]
fn a_host_that_numbers_anew_is_taken_up_from_its_beginning_when_asked_to() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let mut alice = author(1, &plc, &pds);
    let mut relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    relay.add_host(&pds);
    push(&pds, 500, "commit", &alice.post());
    consumer.wait_for(1);
    harness::eventually("the cursor", || (row(&relay, &pds)["Cursor"] == 500).then_some(()));
    // A stranger's request does not touch a host that is well.
    assert_eq!(public_request(&relay, &pds).status, 200);
    assert_eq!(pds.cursors().len(), 1);

    pds.forget();
    push(&pds, 1, "commit", &alice.post());
    pds.cut();
    let told = wait_for_status(&relay, &pds, "idle");
    assert_eq!(told["StatusReason"], "future-cursor");
    // Over a restart, too.
    assert!(relay.terminate().success());
    relay.launch();
    assert_eq!(wait_for_status(&relay, &pds, "idle")["StatusReason"], "future-cursor");
    let consumer = Consumer::connect(relay.api, Some(0));
    let before = pds.cursors().len();
    assert_eq!(public_request(&relay, &pds).status, 200);
    pds.wait_for_connection(before + 1);
    assert_eq!(pds.cursors()[before], Some(0));
    push(&pds, 2, "commit", &alice.post());
    consumer.wait_for(3);
    wait_for_status(&relay, &pds, "active");
    harness::eventually("the new cursor", || (row(&relay, &pds)["Cursor"] == 2).then_some(()));
}

/// Its commits are known by their revs, and what it says of accounts by its time.
#[test]
fn what_a_host_tells_again_under_new_numbers_does_not_come_twice() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let mut alice = author(3, &plc, &pds);
    let relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    relay.add_host(&pds);
    let mut stream = vec![("commit", alice.post())];
    for (second, active) in [(1, false), (2, true)] {
        let mut told = alice.account(active, (!active).then_some("deactivated"));
        told["time"] = json!(format!("2026-01-01T00:00:0{second}.000Z"));
        stream.push(("account", told));
    }
    stream.push(("commit", alice.post()));
    for (seq, (kind, body)) in (500..).zip(&stream) {
        push(&pds, seq, kind, body);
    }
    consumer.wait_for(stream.len());
    pds.forget();
    stream.push(("commit", alice.post()));
    for (seq, (kind, body)) in (1..).zip(&stream) {
        push(&pds, seq, kind, body);
    }
    pds.cut();
    wait_for_status(&relay, &pds, "idle");
    assert_eq!(public_request(&relay, &pds).status, 200);
    let frames = consumer.wait_for(stream.len());
    assert_eq!(harness::describe_rev(frames.last().unwrap()), alice.rev());
    assert_eq!(frames.len(), stream.len());
}

#[test]
fn a_refused_request_leaves_no_trace() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let relay = Relay::start(&plc, &["--new-hosts-per-day-limit", "0"]);
    let refused = public_request(&relay, &pds);
    assert_eq!(
        (refused.status, refused.json()["error"].as_str()),
        (429, Some("RateLimitExceeded"))
    );
    assert!(refused.headers["retry-after"].parse::<u64>().unwrap() > 0, "{refused:?}");
    assert_eq!((pds.describe_requests(), pds.cursors().len()), (0, 0));
    assert_eq!(relay.admin("GET", "/admin/pds/list", "").json(), json!([]));
    let status = format!(
        "/xrpc/com.atproto.sync.getHostStatus?hostname={}",
        pds.hostname().replace(':', "%3A")
    );
    assert_eq!(relay.get(&status).json()["error"], "HostNotFound");
}

#[test]
fn one_host_is_not_asked_again_and_again_for_strangers() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    pds.set_server_header("some-relay (atproto-relay)");
    let relay = Relay::start(&plc, &[]);
    let mut limited = 0;
    for _ in 0..40 {
        let refused = public_request(&relay, &pds);
        limited += usize::from(refused.status == 429);
        assert!(matches!(refused.status, 400 | 429), "{refused:?}");
    }
    assert!(pds.describe_requests() <= 10, "{}", pds.describe_requests());
    assert!(limited >= 30, "{limited}");
    assert_eq!(pds.cursors().len(), 0);
}
