//! Hosts that send more than they may, and hosts that go back in their numbering: nothing is lost, and
//! nothing comes twice.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{
    Consumer, FakePds, FakePlc, Relay,
    author::{Author, TIME},
    consumer,
    corpus::Corpus,
    eventually,
    forge::renumber,
    json,
};
use serde_json::{Value, json};

/// The host's record in the admin API.
fn record(relay: &Relay, pds: &FakePds) -> Value {
    let list = relay.admin("GET", "/admin/pds/list", "").json();
    let hosts = list.as_array().unwrap();
    hosts.iter().find(|host| host["Host"] == pds.hostname().as_str()).unwrap().clone()
}

fn set_limit(relay: &Relay, pds: &FakePds, limit: &str, value: usize) {
    let target = format!("/admin/pds/changeLimits?host={}&{limit}={value}", pds.hostname());
    assert_eq!(relay.admin("POST", &target, "").status, 200);
}

fn post(author: &mut Author, seq: u64) -> (u64, Vec<u8>) {
    let mut body = author.post();
    body["seq"] = seq.into();
    (seq, json::event("commit", &body))
}

#[test]
fn events_over_the_limit_of_a_host_wait_and_none_is_lost() {
    const LIMIT: usize = 50;
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    relay.add_host(&hosts[0]);
    relay.add_host(&hosts[1]);
    set_limit(&relay, &hosts[0], "per_day", LIMIT);
    let (slow, free) = (&corpus.hosts[0], &corpus.hosts[1]);
    hosts[0].push_all(slow.iter().cloned());
    eventually("the host to be slowed down", || {
        (record(&relay, &hosts[0])["SlowedBy"] == "per-day").then_some(())
    });
    assert!(record(&relay, &hosts[0])["SlowedUntil"].is_string());
    hosts[1].push_all(free.iter().cloned());
    assert_eq!(consumer.wait_for(LIMIT + free.len()).len(), LIMIT + free.len());

    // While it is blocked nothing of it goes on, whatever it may send.
    let host = format!("host={}", hosts[0].hostname());
    assert_eq!(relay.admin("POST", &format!("/admin/pds/block?{host}"), "").status, 200);
    hosts[0].wait_for_hang_up();
    set_limit(&relay, &hosts[0], "per_day", 1_000_000);
    assert_eq!(consumer.count(), LIMIT + free.len());
    assert_eq!(relay.admin("POST", &format!("/admin/pds/unblock?{host}"), "").status, 200);
    let all = consumer.wait_for(slow.len() + free.len());
    let own = |frames: &[(u64, Vec<u8>)]| {
        let mut frames: Vec<_> =
            frames.iter().map(|(_, frame)| consumer::without_seq(frame)).collect();
        frames.sort();
        frames
    };
    let got: Vec<_> = all.into_iter().map(|frame| (0, frame)).collect();
    assert!(own(&got) == own(&[&slow[..], &free[..]].concat()), "each once");
    eventually("the host to be slowed down no longer", || {
        record(&relay, &hosts[0])["SlowedBy"].is_null().then_some(())
    });
}

#[test]
fn the_import_of_one_account_holds_up_itself_and_not_its_host() {
    const IMPORT: u64 = 400;
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    let mut importer = Author::new(20 << 20);
    let mut others: Vec<_> = (1..=5).map(|number| Author::new((20 << 20) + number)).collect();
    importer.register(&plc, &pds);
    for other in &others {
        other.register(&plc, &pds);
    }
    relay.add_host(&pds);
    set_limit(&relay, &pds, "per_second", 20);
    let import: Vec<_> = (1..=IMPORT).map(|seq| post(&mut importer, seq)).collect();
    pds.push_all(import);
    let theirs = others.iter_mut().zip(IMPORT + 1..).map(|(other, seq)| post(other, seq));
    pds.push_all(theirs.collect::<Vec<_>>());
    let is_theirs = |frame: &Vec<u8>| consumer::event(frame).did != importer.did;
    let before = consumer.wait_until("the others", |got| {
        got.iter().filter(|frame| is_theirs(frame)).count() == others.len()
    });
    assert!(before.len() < IMPORT as usize / 2, "they waited for {} events", before.len());
    set_limit(&relay, &pds, "per_second", 1_000_000);
    let all = consumer.wait_for(IMPORT as usize + others.len());
    let revs: Vec<_> = all.iter().filter(|frame| !is_theirs(frame)).collect();
    let seqs: Vec<u64> = revs.iter().map(|frame| consumer::event(frame).seq).collect();
    assert!(seqs.is_sorted() && seqs.len() == IMPORT as usize);
}

/// A host that was restored from a backup, or whose database was made anew: its numbers begin again.
#[test]
fn a_host_whose_numbers_begin_again_is_followed_by_revs() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let mut relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    let mut author = Author::new(21 << 20);
    author.register(&plc, &pds);
    relay.add_host(&pds);
    let off = json!({ "did": author.did, "time": TIME, "active": false, "status": "deactivated",
        "seq": 1002 });
    let on = json!({ "did": author.did, "time": "2026-01-01T00:00:01.000Z", "active": true,
        "seq": 1003 });
    let off = (1002, json::event("account", &off));
    let on = (1003, json::event("account", &on));
    let first = post(&mut author, 1001);
    let second = post(&mut author, 1004);
    pds.push_all([first.clone(), off.clone(), on.clone(), second.clone()]);
    assert_eq!(consumer.wait_for(4).len(), 4);
    eventually("the cursor", || (record(&relay, &pds)["Cursor"] == 1004).then_some(()));

    // Its old events come again under low numbers, and one more.
    let old = [first, off, on, second].into_iter().zip(1..);
    let mut stream: Vec<_> = old.map(|((_, frame), seq)| (seq, renumber(&frame, seq))).collect();
    stream.push(post(&mut author, 5));
    pds.start_over(stream.clone());
    let got = consumer.wait_for(5);
    assert_eq!(got.len(), 5);
    let last = got.last().unwrap();
    assert!(consumer::without_seq(last) == consumer::without_seq(&stream[4].1));
    eventually("the cursor to follow", || (record(&relay, &pds)["Cursor"] == 5).then_some(()));

    // Over a restart it goes on from there, also through the numbers of old.
    pds.heed_cursors();
    assert!(relay.terminate().success());
    relay.launch();
    let consumer = Consumer::connect(relay.api, Some(consumer::event(last).seq));
    let more: Vec<_> = (6..=8).chain(1001..=1005).map(|seq| post(&mut author, seq)).collect();
    pds.push_all(more.clone());
    let got = consumer.wait_for(more.len());
    let same = got.iter().zip(&more);
    assert!(same.clone().count() == more.len());
    for (got, (_, sent)) in same {
        assert!(consumer::without_seq(got) == consumer::without_seq(sent));
    }
}

/// A number out of nowhere, or one that comes again, must not cost the events behind it.
#[test]
fn numbers_that_fall_back_on_a_connection_are_followed_and_a_single_one_is_not() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    let mut author = Author::new(22 << 20);
    author.register(&plc, &pds);
    relay.add_host(&pds);
    let mut good = vec![post(&mut author, 10)];
    pds.push_all(good.clone());
    let mut stray = author.identity(None);
    stray["seq"] = 7.into();
    pds.push(7, json::event("identity", &stray));
    for seq in [11, (1 << 52) + 1, 12, 13, 14] {
        good.push(post(&mut author, seq));
    }
    pds.push_all(good[1..].iter().cloned());
    let got = consumer.wait_for(good.len());
    let sent: Vec<_> = good.iter().map(|(_, frame)| consumer::without_seq(frame)).collect();
    let got: Vec<_> = got.iter().map(|frame| consumer::without_seq(frame)).collect();
    assert!(got == sent);
    eventually("the cursor", || (record(&relay, &pds)["Cursor"] == 14).then_some(()));
    assert_eq!(pds.cursors().len(), 1);
    // The next connection begins there, too.
    pds.cut();
    pds.wait_for_connection(2);
    assert_eq!(pds.cursors()[1], Some(14));
}
