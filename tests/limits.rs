//! What a host or a stranger may cost: beyond it they are slowed down or left alone, others are not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{FakePds, FakePlc, Relay, corpus::Corpus, http, pds::write_message};
use serde_json::json;

/// Otherwise hosts may do as much as they like, as far as tests go.
const UNTRUSTED: &[&str] = &["--trusted-domains", "*.example"];

/// A request to crawl without a key.
fn ask(relay: &Relay, hostname: &str) -> http::Response {
    let body = json!({ "hostname": hostname }).to_string();
    let headers = [("Content-Type", "application/json")];
    http::request(relay.api, "POST", "/xrpc/com.atproto.sync.requestCrawl", &headers, &body)
        .unwrap()
}

fn retry_after(reply: &http::Response) -> u64 {
    reply.headers["retry-after"].parse().unwrap()
}

#[test]
fn a_stranger_who_asks_without_end_is_told_to_wait_and_the_operator_is_not() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let relay = Relay::start(&plc, UNTRUSTED);
    let refused = harness::eventually("the stranger to be refused", || {
        let reply = ask(&relay, &pds.hostname());
        (reply.status != 200).then_some(reply)
    });
    assert_eq!(
        (refused.status, refused.json()["error"].as_str()),
        (429, Some("RateLimitExceeded"))
    );
    assert!(retry_after(&refused) >= 1);
    assert_eq!(relay.request_crawl(&pds.hostname()).status, 200);
    assert_eq!((pds.describe_requests(), pds.cursors().len()), (1, 1));
}

#[test]
fn a_flood_of_events_that_are_no_events_ends_in_quarantine_also_over_a_restart() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let mut relay = Relay::start(&plc, UNTRUSTED);
    relay.add_host(&hosts[0]);
    let mut flood = Vec::new();
    for _ in 0..8000 {
        write_message(&mut flood, b"\xa2\x61t\x67#commit\x62op\x01\xa0");
    }
    hosts[0].send_raw(&flood);
    hosts[0].wait_for_hang_up();
    let refused = ask(&relay, &hosts[0].hostname());
    assert_eq!(
        (refused.status, refused.json()["error"].as_str()),
        (429, Some("RateLimitExceeded"))
    );
    assert!(retry_after(&refused) >= 1);
    assert!(relay.terminate().success());
    relay.launch();
    // Another host is not affected; this one comes back by itself.
    relay.add_host(&hosts[1]);
    hosts[0].wait_for_connection(2);
}
