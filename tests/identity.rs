//! Events wait for the identity of their account, in order and not for ever; who has none is not
//! heard, and nobody waits for others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::thread;

use harness::{Consumer, Fault, Relay, consumer, corpus::Corpus};
use protocol::frame::Body;

/// The accounts of the first host, in the order of their first events.
fn accounts(corpus: &Corpus) -> Vec<String> {
    let mut dids: Vec<String> = Vec::new();
    for (_, frame) in &corpus.hosts[0] {
        let did = consumer::event(frame).did;
        if !dids.iter().any(|known| known == did) {
            dids.push(did.to_owned());
        }
    }
    dids
}

#[test]
fn events_wait_in_order_while_the_directory_is_in_trouble() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    plc.set_fault(Fault::Status(503));
    let relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        relay.add_host(pds);
        pds.push_all(frames.iter().cloned());
    }
    harness::eventually("the directory to be asked", || (plc.requests_in_all() > 3).then_some(()));
    assert_eq!(consumer.count(), 0, "something came out unverified");
    plc.set_fault(Fault::None);
    corpus.assert_complete(&consumer.wait_for(corpus.event_count()));
}

#[test]
fn each_kind_of_trouble_is_waited_out() {
    let corpus = Corpus::load();
    let wait_out = |fault| {
        let (plc, hosts) = corpus.network();
        plc.set_fault(fault);
        let relay = Relay::start(&plc, &[]);
        let consumer = Consumer::connect(relay.api, None);
        relay.add_host(&hosts[0]);
        hosts[0].push_all(corpus.hosts[0].iter().take(100).cloned());
        harness::eventually("a question", || (plc.requests_in_all() > 0).then_some(()));
        plc.set_fault(Fault::None);
        assert_eq!(consumer.wait_for(100).len(), 100, "{fault:?}");
    };
    thread::scope(|scope| {
        for fault in [Fault::Status(429), Fault::Status(500), Fault::Garbage, Fault::Hang] {
            scope.spawn(move || wait_out(fault));
        }
    });
}

#[test]
fn accounts_without_identity_are_not_heard_and_nobody_waits_for_them() {
    let corpus = Corpus::load();
    for status in [404, 410] {
        let (plc, hosts) = corpus.network();
        let unknown = accounts(&corpus).swap_remove(0);
        plc.remove(&unknown);
        plc.set_gone(&unknown, status);
        let relay = Relay::start(&plc, &[]);
        let consumer = Consumer::connect(relay.api, None);
        relay.add_host(&hosts[0]);
        hosts[0].push_all(corpus.hosts[0].iter().cloned());
        let of_unknown =
            corpus.hosts[0].iter().filter(|(_, frame)| consumer::event(frame).did == unknown);
        let refused = of_unknown.count();
        let frames = consumer.wait_for(corpus.hosts[0].len() - refused);
        assert!(frames.iter().all(|frame| consumer::event(frame).did != unknown));
        relay.wait_for_metric(
            "relayered_accounts_refusals_total",
            "reason=\"identity-not-found\"",
            refused as f64,
        );
        assert_eq!(consumer.count(), corpus.hosts[0].len() - refused);
        assert!(plc.requests(&unknown) <= 3, "{} questions", plc.requests(&unknown));
    }
}

#[test]
fn one_question_for_an_account_however_many_events() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    relay.add_host(&hosts[0]);
    hosts[0].push_all(corpus.hosts[0].iter().cloned());
    consumer.wait_for(corpus.hosts[0].len());
    for did in accounts(&corpus) {
        let announced = corpus.hosts[0].iter().filter(|(_, frame)| {
            let event = consumer::event(frame);
            event.did == did && matches!(event.body, Body::Identity(_))
        });
        let limit = 1 + announced.count();
        assert!(plc.requests(&did) <= limit, "{} questions for {did}", plc.requests(&did));
    }
}

#[test]
fn events_from_another_host_than_the_account_s_own_are_refused() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    for pds in &hosts[..2] {
        relay.add_host(pds);
    }
    // The second host repeats all that the first one is about to say.
    let foreign = corpus.hosts[0].len();
    hosts[1].push_all(corpus.hosts[0].iter().cloned());
    relay.wait_for_metric(
        "relayered_accounts_refusals_total",
        "reason=\"host-mismatch\"",
        foreign as f64,
    );
    assert_eq!(consumer.count(), 0);
    hosts[0].push_all(corpus.hosts[0].iter().cloned());
    let frames = consumer.wait_for(foreign);
    assert_eq!(frames.len(), foreign);
}

#[test]
fn a_key_that_changed_without_notice_is_found_out() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    // The directory has another account's key at first: the relay learns a key that does not fit.
    let dids = accounts(&corpus);
    let right = corpus.document(&dids[0], &hosts[0].url());
    let wrong = right.replace(&corpus.multibase_key(&dids[0]), &corpus.multibase_key(&dids[1]));
    plc.put(&dids[0], wrong);
    let relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    relay.add_host(&hosts[0]);
    let rest: Vec<_> = corpus.hosts[0]
        .iter()
        .filter(|(_, frame)| {
            let event = consumer::event(frame);
            event.did == dids[0] && !matches!(event.body, Body::Identity(_))
        })
        .cloned()
        .collect();
    let signed =
        |(_, frame): &(u64, Vec<u8>)| matches!(consumer::event(frame).body, Body::Commit(_));
    let first = rest.iter().position(signed).unwrap();
    hosts[0].push_all(rest[..=first].iter().cloned());
    relay.wait_for_metric("relayered_accounts_refusals_total", "reason=\"signature-invalid\"", 1.0);
    let before = consumer.count();
    // From now on the right key is there, and an #identity says so.
    plc.put(&dids[0], right);
    let (seq, _) = rest[first];
    let body = serde_json::json!({
        "did": dids[0], "seq": seq + 1, "time": "2026-01-01T00:00:00.000Z",
    });
    hosts[0].push(seq + 1, harness::json::event("identity", &body));
    let again: Vec<_> = rest[first..]
        .iter()
        .enumerate()
        .map(|(at, (_, frame))| {
            let seq = seq + 2 + at as u64;
            (seq, harness::forge::renumber(frame, seq))
        })
        .collect();
    let count = again.len();
    hosts[0].push_all(again);
    // The #identity, then all events from the one that was refused.
    consumer.wait_for(before + 1 + count);
}

#[test]
fn the_directory_can_be_away_from_the_start() {
    // Nothing listens there any more: connections are refused.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let corpus = Corpus::load();
    let (_, hosts) = corpus.network();
    let relay = Relay::start_prepared(&format!("http://{address}"), &[], |_| {});
    let consumer = Consumer::connect(relay.api, None);
    relay.add_host(&hosts[0]);
    hosts[0].push_all(corpus.hosts[0].iter().take(10).cloned());
    relay.wait_for_metric("relayered_accounts_parked_count", "", 1.0);
    assert_eq!(consumer.count(), 0);
    assert_eq!(relay.get("/xrpc/_health").status, 200);
}
