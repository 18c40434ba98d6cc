//! What hosts say of accounts and identities, and of accounts that are not theirs.

use ports::RefusalReason::{
    AccountInactive, BlocksTooLarge, CommitMismatch, CommitMissing, FrameMalformed, HostMismatch,
    IdentityNotFound, IdentityUnchanged, KeyMissing, RevStale, SignatureInvalid, StatusUnchanged,
};
use protocol::Cid;
use serde_json::json;

use crate::{
    harness::{
        FakePds,
        author::{Author, car},
        json,
    },
    stage::{Case, Stage},
};

/// Another host that the relay knows.
fn other_host(stage: &Stage<'_>) -> FakePds {
    let pds = FakePds::start();
    stage.net.relay.add_host(&pds);
    pds
}

fn push(pds: &FakePds, seq: u64, kind: &str, body: &serde_json::Value) {
    let mut body = body.clone();
    body["seq"] = seq.into();
    pds.push(seq, json::event(kind, &body));
}

/// An account that has said something already.
fn settled(stage: &mut Stage<'_>) -> Author {
    let mut author = stage.author();
    let body = author.post();
    stage.good("commit", &body);
    stage.settle();
    author
}

pub(crate) const CASES: &[Case] = &[
    ("an account that nobody knows", |stage| {
        let mut stranger = stage.stranger();
        let body = stranger.post();
        stage.bad(IdentityNotFound, "commit", &body);
        stage.bad(IdentityNotFound, "account", &stranger.account(true, None));
    }),
    ("an account that its document gives to another host", |stage| {
        let mut author = stage.stranger();
        stage.net.plc.put(&author.did, author.document("https://pds.example.com"));
        let body = author.post();
        stage.bad(HostMismatch, "commit", &body);
    }),
    ("documents that are of no use", |stage| {
        for document in [
            r#"{"id":"did:plc:other"}"#.to_owned(),
            "[]".to_owned(),
            format!("{{\"id\":\"{}\"}}", stage.alice.did),
        ] {
            let mut author = stage.stranger();
            let usable = document.contains(&stage.alice.did);
            let document = document.replace(&stage.alice.did, &author.did);
            if document == "[]" {
                // What is not JSON of the right kind may be a proxy's page: it is asked for again.
                continue;
            }
            assert!(usable || document.contains("other"));
            stage.net.plc.put(&author.did, document);
            let body = author.post();
            stage.bad(IdentityNotFound, "commit", &body);
        }
    }),
    ("a document without a key", |stage| {
        let mut author = stage.stranger();
        let mut document: serde_json::Value =
            serde_json::from_str(&author.document(&stage.pds.url())).unwrap();
        document["verificationMethod"] = json!([]);
        stage.net.plc.put(&author.did, document.to_string());
        let body = author.post();
        stage.bad(KeyMissing, "commit", &body);
    }),
    ("the endpoint of a document in another spelling", |stage| {
        let mut author = stage.stranger();
        let url = stage.pds.url().replace("http://localhost", "HTTP://LOCALHOST") + "/";
        stage.net.plc.put(&author.did, author.document(&url));
        let body = author.post();
        stage.good("commit", &body);
    }),
    ("a handle that the document claims, and one that it does not", |stage| {
        let handle = stage.alice.handle();
        stage.good("identity", &stage.alice.identity(Some(&handle)));
        stage.settle();
        let plain = stage.alice.identity(None);
        stage.good_as("identity", &stage.alice.identity(Some("bsky.app")), &plain);
    }),
    ("an #identity for another host's account that has not changed", |stage| {
        let author = settled(stage);
        let other = other_host(stage);
        push(&other, 1, "identity", &author.identity(Some("evil.test")));
        stage.refused(IdentityUnchanged, 1);
    }),
    ("all kinds of events for another host's account", |stage| {
        let mut author = settled(stage);
        let other = other_host(stage);
        let post = author.post();
        push(&other, 1, "commit", &post);
        push(&other, 2, "sync", &author.sync());
        push(&other, 3, "account", &author.account(false, Some("deleted")));
        stage.refused(HostMismatch, 3);
        stage.good("commit", &post);
    }),
    ("a key that has changed, with an #identity", |stage| {
        let mut author = settled(stage);
        author.key = ecdsa::sign::SigningKey::from_seed(ecdsa::Curve::P256, b"new");
        author.register(&stage.net.plc, &stage.pds);
        stage.good("identity", &author.identity(None));
        let body = author.post();
        stage.good("commit", &body);
    }),
    ("a key that has changed without a word", |stage| {
        let mut author = settled(stage);
        author.key = ecdsa::sign::SigningKey::from_seed(ecdsa::Curve::K256, b"newer");
        author.register(&stage.net.plc, &stage.pds);
        let body = author.post();
        stage.good("commit", &body);
    }),
    ("a key that is no longer the account's", |stage| {
        let mut author = settled(stage);
        let old = author.key.clone();
        author.key = ecdsa::sign::SigningKey::from_seed(ecdsa::Curve::K256, b"newest");
        author.register(&stage.net.plc, &stage.pds);
        let body = author.post();
        stage.good("commit", &body);
        let draft = author.draft_post();
        let body = author.seal_with(&draft, &old);
        stage.bad(SignatureInvalid, "commit", &body);
        let body = author.post();
        stage.good("commit", &body);
    }),
    ("an account that moves, and what its old host says after that", |stage| {
        let mut author = settled(stage);
        let other = other_host(stage);
        author.register(&stage.net.plc, &other);
        let post = author.post();
        push(&other, 1, "commit", &post);
        stage.expect("commit", &post);
        stage.settle();
        stage.bad(HostMismatch, "account", &author.account(false, Some("deactivated")));
        let post = author.post();
        push(&other, 2, "commit", &post);
        stage.expect("commit", &post);
    }),
    ("an account that moves to a host that the relay does not know yet", |stage| {
        let mut author = settled(stage);
        let other = FakePds::start();
        author.register(&stage.net.plc, &other);
        stage.net.relay.add_host(&other);
        let post = author.post();
        push(&other, 1, "commit", &post);
        stage.expect("commit", &post);
    }),
    ("status words of the future", |stage| {
        stage.good("account", &stage.alice.account(true, Some("sparkling")));
    }),
    ("an account that lags, and one that is slowed down, and yet are active", |stage| {
        let mut author = settled(stage);
        for word in ["desynchronized", "throttled"] {
            stage.good("account", &author.account(true, Some(word)));
            let body = author.post();
            stage.good("commit", &body);
        }
        stage.good("account", &author.account(true, None));
    }),
    ("an account that is not active without a reason", |stage| {
        let mut author = settled(stage);
        stage.good("account", &author.account(false, None));
        let body = author.post();
        stage.bad(AccountInactive, "commit", &body);
        stage.good("account", &author.account(true, None));
        let body = author.post();
        stage.good("commit", &body);
    }),
    ("one word of the future after the other", |stage| {
        let mut author = settled(stage);
        for word in ["sparkling", "still", "sparkling"] {
            stage.good("account", &author.account(false, Some(word)));
            let body = author.post();
            stage.bad(AccountInactive, "commit", &body);
        }
        stage.good("account", &author.account(true, None));
        let body = author.post();
        stage.good("commit", &body);
    }),
    ("a status that is no text", |stage| {
        for status in [json!(5), json!(true), json!({}), json!([])] {
            let mut body = stage.alice.account(false, None);
            body["status"] = status;
            stage.bad(FrameMalformed, "account", &body);
        }
    }),
    ("the same word again, as old as before, and later", |stage| {
        let author = settled(stage);
        let first = author.account(false, Some("deactivated"));
        stage.good("account", &first);
        stage.bad(StatusUnchanged, "account", &first);
        let mut later = first.clone();
        later["time"] = json!("2026-01-01T00:00:09.000Z");
        stage.good("account", &later);
        stage.bad(StatusUnchanged, "account", &later);
        stage.bad(StatusUnchanged, "account", &first);
    }),
    ("an account that is deleted and made anew", |stage| {
        let mut author = settled(stage);
        stage.good("account", &author.account(false, Some("deleted")));
        let body = author.post();
        stage.bad(AccountInactive, "commit", &body);
        stage.good("identity", &author.identity(None));
        stage.good("account", &author.account(true, None));
        author.post();
        stage.good("sync", &author.sync());
        let body = author.post();
        stage.good("commit", &body);
    }),
    ("an account that moves while its old host lets it sleep", |stage| {
        let mut author = settled(stage);
        stage.good("account", &author.account(false, Some("deactivated")));
        stage.settle();
        let other = other_host(stage);
        author.register(&stage.net.plc, &other);
        let active = author.account(true, None);
        push(&other, 1, "account", &active);
        stage.expect("account", &active);
        let post = author.post();
        push(&other, 2, "commit", &post);
        stage.expect("commit", &post);
        stage.settle();
        stage.bad(HostMismatch, "account", &author.account(false, Some("deleted")));
    }),
    ("an account whose new host announces it by its identity", |stage| {
        let mut author = settled(stage);
        let other = other_host(stage);
        author.register(&stage.net.plc, &other);
        let told = author.identity(None);
        push(&other, 1, "identity", &told);
        stage.expect("identity", &told);
        let post = author.post();
        push(&other, 2, "commit", &post);
        stage.expect("commit", &post);
        stage.settle();
        let post = author.post();
        stage.bad(HostMismatch, "commit", &post);
    }),
    ("a migrated repository's #sync, which the old key has signed", |stage| {
        let mut author = settled(stage);
        let other = other_host(stage);
        let stale = author.sync();
        author.key = ecdsa::sign::SigningKey::from_seed(ecdsa::Curve::K256, b"of the new host");
        author.register(&stage.net.plc, &other);
        let active = author.account(true, None);
        push(&other, 1, "account", &active);
        stage.expect("account", &active);
        let mut sync = stale.clone();
        sync["rev"] = json!("3kzzzzzzzzz22");
        push(&other, 2, "sync", &sync);
        stage.refused(CommitMismatch, 1);
        let post = author.post();
        push(&other, 3, "commit", &post);
        stage.expect("commit", &post);
        stage.settle();
    }),
    ("handles that are none", |stage| {
        let plain = stage.alice.identity(None);
        let long = "a.".repeat(2000) + "test";
        for handle in ["", "x", "handle.invalid", "a b.test", "\u{e4}.test", long.as_str()] {
            let claimed = stage.alice.identity(Some(handle));
            stage.good_as("identity", &claimed, &plain);
        }
        let mut body = stage.alice.identity(None);
        body["handle"] = json!(5);
        stage.bad(FrameMalformed, "identity", &body);
    }),
    ("a handle in another spelling", |stage| {
        let handle = stage.alice.handle().to_uppercase();
        stage.good("identity", &stage.alice.identity(Some(&handle)));
    }),
    ("#identity of an account that sleeps", |stage| {
        let author = settled(stage);
        stage.good("account", &author.account(false, Some("deactivated")));
        stage.good("identity", &author.identity(None));
        stage.good("account", &author.account(true, None));
    }),
    ("a #sync of an account that sleeps", |stage| {
        let mut author = settled(stage);
        stage.good("account", &author.account(false, Some("suspended")));
        author.post();
        stage.bad(AccountInactive, "sync", &author.sync());
        stage.good("account", &author.account(true, None));
        author.post();
        stage.good("sync", &author.sync());
    }),
    ("a #sync without its commit, and one of another", |stage| {
        let mut author = settled(stage);
        author.post();
        let mut sync = author.sync();
        sync["blocks"] = car(&Cid::of_dag_cbor(b"\xa0"), &[]);
        stage.bad(CommitMissing, "sync", &sync);
        let mut other = settled(stage);
        other.post();
        let mut sync = other.sync();
        sync["did"] = json!(author.did);
        stage.bad(CommitMismatch, "sync", &sync);
        stage.good("sync", &author.sync());
    }),
    ("an #account without its word on activity", |stage| {
        let body = json!({ "did": stage.alice.did, "time": crate::harness::author::TIME });
        stage.bad(FrameMalformed, "account", &body);
        let mut body = stage.alice.account(true, None);
        body["active"] = json!("yes");
        stage.bad(FrameMalformed, "account", &body);
    }),
    ("an account that sleeps and wakes", |stage| {
        let mut author = settled(stage);
        for word in [Some("deactivated"), Some("suspended"), Some("takendown"), Some("deleted")] {
            stage.good("account", &author.account(false, word));
            stage.good("account", &author.account(true, None));
            let body = author.post();
            stage.good("commit", &body);
        }
    }),
    ("a commit of an account that sleeps", |stage| {
        let mut author = settled(stage);
        stage.good("account", &author.account(false, Some("deactivated")));
        stage.net_status(&author, r#"{"active":false,"status":"deactivated"}"#);
        let body = author.post();
        stage.bad(AccountInactive, "commit", &body);
        stage.good("account", &author.account(true, None));
        let body = author.post();
        stage.good("commit", &body);
    }),
    ("a #sync with the rev of the last commit, and an older one", |stage| {
        let mut author = settled(stage);
        let old = author.sync();
        stage.bad(RevStale, "sync", &old);
        let body = author.post();
        stage.good("commit", &body);
        stage.bad(RevStale, "sync", &old);
        stage.bad(RevStale, "sync", &author.sync());
    }),
    ("a #sync with something new", |stage| {
        let mut author = settled(stage);
        author.post();
        stage.good("sync", &author.sync());
        let body = author.post();
        stage.good("commit", &body);
    }),
    ("a #sync before anything else", |stage| {
        let mut author = stage.author();
        author.post();
        stage.good("sync", &author.sync());
    }),
    ("a #sync signed by nobody", |stage| {
        let mut author = settled(stage);
        let draft = author.draft_post();
        let other = ecdsa::sign::SigningKey::from_seed(ecdsa::Curve::K256, b"nobody");
        author.seal_with(&draft, &other);
        stage.bad(SignatureInvalid, "sync", &author.sync());
    }),
    ("a #sync that says another rev than its commit", |stage| {
        let mut author = settled(stage);
        author.post();
        let mut sync = author.sync();
        sync["rev"] = json!("3jzfcijpj2z2a");
        stage.bad(CommitMismatch, "sync", &sync);
    }),
    ("a #sync with more than ten thousand bytes", |stage| {
        let mut author = settled(stage);
        author.post();
        let mut sync = author.sync();
        let junk = vec![7_u8; 10_001];
        sync["blocks"] = car(&Cid::of_dag_cbor(&junk), &[(Cid::of_dag_cbor(&junk), junk)]);
        stage.bad(BlocksTooLarge, "sync", &sync);
    }),
    ("everything twice after a reconnect", |stage| {
        let mut author = settled(stage);
        let handle = author.handle();
        stage.good("identity", &author.identity(Some(&handle)));
        stage.good("account", &author.account(false, Some("deactivated")));
        stage.good("account", &author.account(true, None));
        let body = author.post();
        stage.good("commit", &body);
        stage.settle();
        let before = stage.pds.cursors().len();
        stage.pds.cut();
        stage.pds.wait_for_connection(before + 1);
    }),
    ("three hundred accounts that nobody knows", |stage| {
        let before = stage.net.plc.requests_in_all();
        for _ in 0..300 {
            let stranger = stage.stranger();
            stage.bad(IdentityNotFound, "account", &stranger.account(true, None));
            stage.bad(IdentityNotFound, "account", &stranger.account(true, None));
        }
        let body = stage.alice.post();
        stage.good("commit", &body);
        stage.settle();
        let asked = stage.net.plc.requests_in_all() - before;
        assert!(asked <= 900, "{asked} questions");
    }),
    ("forged commits for accounts of others", |stage| {
        let before = stage.net.plc.requests_in_all();
        let victim = settled(stage);
        let mut forger = Author::with_did(&victim.did, 1);
        // Its first one would be as old as the victim's.
        forger.post();
        for _ in 0..100 {
            let body = forger.post();
            stage.bad(SignatureInvalid, "commit", &body);
        }
        stage.settle();
        let asked = stage.net.plc.requests_in_all() - before;
        assert!(asked <= 8, "{asked} questions");
    }),
];
