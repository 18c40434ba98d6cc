//! Take-downs: what an operator takes down is gone for everyone, also from the past.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{fs, path::Path};

use harness::{Consumer, Relay, consumer, corpus::Corpus, eventually, forge, http, stage::Stage};
use protocol::frame::{self, Body, FrameKind};
use serde_json::json;

/// Hardly anything in memory, and several files: erased events stand in all places.
const SMALL: [&str; 4] = ["--log-memory", "2MiB", "--log-segment-bytes", "512KiB"];

fn operator(relay: &Relay, method: &str, did: &str) {
    let body = json!({ "did": did }).to_string();
    let reply = relay.admin("POST", &format!("/admin/repo/{method}"), &body);
    assert_eq!((reply.status, reply.json()), (200, json!({ "success": "true" })));
}

/// The account with the most events among the first `count` of each host.
fn busiest(corpus: &Corpus, count: usize) -> String {
    let events = |did: &str| {
        let first = corpus.hosts.iter().flat_map(|frames| frames.iter().take(count));
        first.filter(|(_, frame)| consumer::event(frame).did == did).count()
    };
    corpus.dids().max_by_key(|did| (events(did), *did)).unwrap().to_owned()
}

/// Whether it is a commit or sync of the account: what a take-down reaches.
fn is_content(frame: &[u8], did: &str) -> bool {
    let event = consumer::event(frame);
    event.did == did && matches!(event.body.kind(), FrameKind::Commit | FrameKind::Sync)
}

/// `active` and status of an #account of this account.
fn standing(frame: &[u8], did: &str) -> Option<(bool, Option<String>)> {
    let event = consumer::event(frame);
    match event.body {
        Body::Account(account) if event.did == did => {
            Some((account.active, account.status.map(str::to_owned)))
        }
        _ => None,
    }
}

fn is_taken_down(frame: &[u8], did: &str) -> bool {
    standing(frame, did) == Some((false, Some("takendown".to_owned())))
}

/// Bytes that are found in no file below the folder.
fn is_nowhere(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().all(|entry| {
        let path = entry.unwrap().path();
        let held = fs::read(&path).unwrap_or_default();
        !held.windows(bytes.len()).any(|window| window == bytes)
    })
}

/// Everything that a consumer gets from the start, up to and with the newest event given.
fn replay(relay: &Relay, newest: &[u8]) -> Vec<Vec<u8>> {
    let consumer = Consumer::connect(relay.api, Some(0));
    consumer.wait_until("the newest event", |got| got.last().is_some_and(|last| last == newest))
}

fn wait_until_erased(stage: &Stage) {
    eventually("the erasure", || {
        (stage.relay.metric("relayered_log_erasures_pending_count", "") < 1.0).then_some(())
    });
}

#[test]
fn a_take_down_reaches_the_past_and_its_reversal_lets_new_events_flow() {
    let mut stage = Stage::new(&SMALL);
    let longest = stage.longest();
    let (half, most) = (longest / 2, longest * 3 / 4);
    let did = busiest(&stage.corpus, half);
    let live = Consumer::connect(stage.relay.api, Some(0));
    stage.push(0..half);
    let before = live.wait_for(stage.count(half));
    let marked = before.iter().rfind(|frame| is_content(frame, &did)).unwrap();
    let secret = marked[consumer::event(marked).seq_span.end..].to_vec();
    let log = stage.relay.data_dir().join("log");
    // Consumers may have it a moment before the file.
    eventually("the files to hold what is looked for", || {
        (!is_nowhere(&log, &secret)).then_some(())
    });

    operator(&stage.relay, "takeDown", &did);
    let told = live.wait_until("#account", |got| got.iter().any(|f| is_taken_down(f, &did)));
    let newest = told.last().unwrap();
    let expected: Vec<_> = told.iter().filter(|f| !is_content(f, &did)).cloned().collect();
    assert!(expected.len() < told.len());
    // From the moment in which consumers know it, whether or not the disk has been overwritten.
    assert!(replay(&stage.relay, newest) == expected, "others' events and seqs stay as they are");
    let ask = |method: &str| {
        let target = format!("/xrpc/com.atproto.sync.{method}?did={did}");
        http::request(stage.relay.api, "GET", &target, &[], "").unwrap()
    };
    assert_eq!(ask("getRepoStatus").json()["status"], "takendown");
    let repo = ask("getRepo");
    assert_eq!((repo.status, repo.json()["error"].as_str()), (400, Some("RepoTakendown")));
    eventually("the bytes to be gone from the disk", || is_nowhere(&log, &secret).then_some(()));

    // Its host goes on with it; consumers hear nothing of that.
    stage.push(half..most);
    let more = live.wait_until("the others' events", |got| {
        got.iter().filter(|f| consumer::event(f).did != did).count()
            == others(&stage.corpus, &did, most)
    });
    assert!(more[told.len()..].iter().all(|frame| !is_content(frame, &did)));
    assert_eq!(more.iter().filter(|frame| is_taken_down(frame, &did)).count(), 1);

    stage.relay.kill();
    stage.relay.launch();
    wait_until_erased(&stage);
    let newest = more.last().unwrap();
    let expected: Vec<_> = more
        .iter()
        .enumerate()
        .filter(|(at, frame)| *at >= told.len() || !is_content(frame, &did))
        .map(|(_, frame)| frame.clone())
        .collect();
    assert!(replay(&stage.relay, newest) == expected, "a restart brings nothing back");
    assert!(is_nowhere(&log, &secret));

    operator(&stage.relay, "reverseTakedown", &did);
    let live = Consumer::connect(stage.relay.api, Some(consumer::event(newest).seq));
    let back = live.wait_for(1);
    assert_eq!(standing(&back[0], &did), Some((true, None)));
    stage.push(most..longest);
    let after = live.wait_until("the rest of all accounts", |got| {
        got.len() == 1 + stage.corpus.event_count() - stage.count(most)
    });
    let sent = stage.corpus.hosts.iter().flat_map(|frames| frames.iter().skip(most));
    let sent = sent.filter(|(_, frame)| is_content(frame, &did)).count();
    assert!(sent > 0, "the account has events in the last part");
    assert_eq!(after.iter().filter(|frame| is_content(frame, &did)).count(), sent);
}

/// How many of each host's first `count` events are of other accounts.
fn others(corpus: &Corpus, did: &str, count: usize) -> usize {
    let first = corpus.hosts.iter().flat_map(|frames| frames.iter().take(count));
    first.filter(|(_, frame)| consumer::event(frame).did != did).count()
}

#[test]
fn an_account_can_be_blocked_ahead_of_its_first_event() {
    let stage = Stage::new(&[]);
    let did = busiest(&stage.corpus, usize::MAX);
    let body = json!({ "did": did }).to_string();
    let unknown = stage.relay.admin("POST", "/admin/repo/takeDown", &body);
    assert_eq!((unknown.status, unknown.json()["error"].as_str()), (404, Some("RepoNotFound")));
    let body = json!({ "did": did, "force": true }).to_string();
    assert_eq!(stage.relay.admin("POST", "/admin/repo/takeDown", &body).status, 200);
    let list = stage.relay.admin("GET", "/admin/repo/takedowns?cursor=&size=500", "");
    assert_eq!(list.json(), json!({ "dids": [did] }));
    let consumer = Consumer::connect(stage.relay.api, Some(0));
    stage.push(0..usize::MAX);
    let all = consumer.wait_until("the others' events", |got| {
        got.iter().filter(|f| consumer::event(f).did != did).count()
            == others(&stage.corpus, &did, usize::MAX)
    });
    assert!(all.iter().all(|frame| !is_content(frame, &did)));
}

#[test]
fn what_its_host_has_taken_down_before_is_erased_too() {
    let stage = Stage::new(&SMALL);
    let did = busiest(&stage.corpus, usize::MAX);
    let live = Consumer::connect(stage.relay.api, Some(0));
    stage.push(0..usize::MAX);
    let before = live.wait_for(stage.corpus.event_count());
    let marked = before.iter().rfind(|frame| is_content(frame, &did)).unwrap();
    let secret = marked[consumer::event(marked).seq_span.end..].to_vec();
    let of = |frames: &Vec<(u64, Vec<u8>)>| {
        frames.iter().any(|(_, frame)| consumer::event(frame).did == did)
    };
    let host = stage.corpus.hosts.iter().position(of).unwrap();
    let next = stage.corpus.hosts[host].last().unwrap().0 + 1;
    let down = frame::account_frame(&did, "2026-11-25T00:00:00Z", false, Some("takendown"));
    stage.hosts[host].push(next, forge::renumber(&down, next));
    let downs = |got: &[Vec<u8>]| got.iter().filter(|frame| is_taken_down(frame, &did)).count();
    live.wait_until("the host's #account", |got| downs(got) == 1);

    operator(&stage.relay, "takeDown", &did);
    let told = live.wait_until("the relay's #account", |got| downs(got) == 2);
    let newest = told.last().unwrap();
    assert!(replay(&stage.relay, newest).iter().all(|frame| !is_content(frame, &did)));
    let log = stage.relay.data_dir().join("log");
    eventually("the bytes to be gone from the disk", || is_nowhere(&log, &secret).then_some(()));
}

#[test]
fn what_an_operator_was_answered_holds_over_a_kill() {
    let mut stage = Stage::new(&SMALL);
    stage.push(0..usize::MAX);
    Consumer::connect(stage.relay.api, Some(0)).wait_for(stage.corpus.event_count());
    let dids: Vec<String> = stage.corpus.dids().take(6).map(str::to_owned).collect();
    for did in &dids {
        operator(&stage.relay, "takeDown", did);
        stage.relay.kill();
        stage.relay.launch();
    }
    let all = Consumer::connect(stage.relay.api, Some(0)).wait_until("every #account", |got| {
        dids.iter().all(|did| got.iter().any(|frame| is_taken_down(frame, did)))
    });
    wait_until_erased(&stage);
    for did in &dids {
        let told = all.iter().filter(|frame| is_taken_down(frame, did)).count();
        assert_eq!(told, 1, "{did}");
    }
    let left = replay(&stage.relay, all.last().unwrap());
    assert!(left.iter().all(|frame| dids.iter().all(|did| !is_content(frame, did))));
}
