//! `relayered plc-import` and the relay that starts with what it brought.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    collections::HashMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use harness::{Consumer, FakePds, Relay, author::Author, http, json};
use protocol::key;
use serde_json::json;

/// A directory that gives nothing but its export, two lines a page.
fn directory(lines: Vec<String>) -> (String, Arc<AtomicUsize>) {
    let others = Arc::<AtomicUsize>::default();
    let counting = Arc::clone(&others);
    let address = http::serve(move |request, stream| {
        if request.path() != "/export" {
            counting.fetch_add(1, Ordering::SeqCst);
            return http::reply(stream, 503, "application/json", "{}");
        }
        let after = request.query("after").and_then(|after| after.parse().ok()).unwrap_or(0);
        let page: Vec<_> = lines.iter().skip(after).take(2).cloned().collect();
        http::reply(stream, 200, "application/jsonlines", &page.join("\n"));
    });
    (format!("http://{address}"), others)
}

fn operation(seq: usize, author: &Author, pds: &FakePds) -> String {
    json!({
        "seq": seq, "did": author.did, "cid": "bafy", "nullified": false,
        "createdAt": "2026-01-01T00:00:00.000Z",
        "operation": {
            "type": "plc_operation", "prev": null, "sig": "x", "rotationKeys": [],
            "alsoKnownAs": [format!("at://{}", author.handle())],
            "verificationMethods": { "atproto": key::did_key_string(&author.key.verifying_key()) },
            "services": {
                "atproto_pds": { "type": "AtprotoPersonalDataServer", "endpoint": pds.url() },
            },
        },
    })
    .to_string()
}

#[test]
fn a_relay_starts_with_the_directory_away() {
    let pds = FakePds::start();
    let mut authors: Vec<Author> = (1..=5).map(Author::new).collect();
    let lines = (1..).zip(&authors).map(|(seq, author)| operation(seq, author, &pds)).collect();
    let (plc, asked) = directory(lines);
    let data = tempfile::tempdir().unwrap();
    let import = |data: &std::path::Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_relayered"))
            .env_clear()
            .current_dir(data)
            .args(["plc-import", "--plc-host", &plc, "--data-dir"])
            .arg(data.join("data"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // A page is a thousand; this directory gives two, which looks like the end of it.
    let mut seen: HashMap<String, usize> = HashMap::new();
    while seen.values().sum::<usize>() < 4 {
        *seen.entry(import(data.path())).or_default() += 1;
    }
    assert_eq!(seen["2 identities from 2 operations\n"], 2, "{seen:?}");
    assert_eq!(seen["1 identities from 1 operations\n"], 1);
    assert_eq!(seen["0 identities from 0 operations\n"], 1);

    let relay = Relay::start_in(data, &plc, &[]);
    let consumer = Consumer::connect(relay.api, None);
    relay.add_host(&pds);
    for (seq, author) in (1..).zip(&mut authors) {
        let mut body = author.post();
        body["seq"] = seq.into();
        pds.push(seq, json::event("commit", &body));
    }
    assert_eq!(consumer.wait_for(5).len(), 5);
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody had to be asked for");
}
