use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use ecdsa::{Curve, sign::SigningKey};
use serde_json::json;

use super::*;
use crate::{
    dial::fake::{FakeHttp, Reply},
    store::DatabaseUrl,
};

fn did(number: u64) -> String {
    let digits: String = number.to_string().bytes().map(|digit| (digit + 49) as char).collect();
    format!("did:plc:{digits:a>24}")
}

fn did_key(number: u8) -> String {
    let key = SigningKey::from_bytes(Curve::K256, &[number; 32]).unwrap();
    key::did_key_string(&key.verifying_key())
}

fn operation(did: &str, key: u8, pds: &str, place: &Value, nullified: bool) -> Value {
    let mut line = json!({
        "did": did, "cid": "bafy", "nullified": nullified,
        "operation": {
            "type": "plc_operation", "prev": null, "sig": "x",
            "alsoKnownAs": ["at://Alice.test"],
            "verificationMethods": { "atproto": did_key(key) },
            "services": {
                "atproto_pds": { "type": "AtprotoPersonalDataServer", "endpoint": pds },
            },
        },
    });
    let name = if place.is_u64() { "seq" } else { "createdAt" };
    line[name] = place.clone();
    line
}

/// A directory with these operations, paged as `seq` says, or by their index.
async fn directory(lines: Vec<Value>, asked: Arc<Mutex<Vec<String>>>) -> FakeHttp {
    FakeHttp::start(move |path| {
        asked.lock().unwrap().push(path.to_owned());
        let query: HashMap<&str, &str> =
            path.split_once('?').unwrap().1.split('&').filter_map(|p| p.split_once('=')).collect();
        let after = query.get("after").map_or("", |after| *after);
        let place = |line: &Value| match line["seq"].as_u64() {
            Some(seq) => (seq, String::new()),
            None => (0, line["createdAt"].as_str().unwrap().to_owned()),
        };
        let after = (after.parse::<u64>().unwrap_or(0), after.to_owned());
        let numbered = lines.first().is_some_and(|line| line["seq"].is_u64());
        let above = lines.iter().filter(|line| {
            let place = place(line);
            if numbered { place.0 > after.0 } else { place.1 > after.1 }
        });
        let page: Vec<String> =
            above.take(query["count"].parse().unwrap()).map(Value::to_string).collect();
        Reply::json(page.join("\n"))
    })
    .await
}

fn config(plc: &FakeHttp) -> ImportConfig {
    ImportConfig { page: 3, ..ImportConfig::new(&format!("{}/", plc.url())) }
}

async fn stored(store: &Store, did: &str) -> Option<StoredIdentity> {
    store.account_as_of(did, ports::RelaySeq(0)).await.unwrap().identity
}

#[tokio::test]
async fn all_pages_are_taken_and_the_last_word_on_each_did_counts() {
    let numbered = |seq: u64| json!(seq * 10);
    let timed = |seq: u64| json!(format!("2026-01-01T00:00:00.00{seq}Z"));
    for place in [numbered as fn(u64) -> Value, timed] {
        let lines = vec![
            operation(&did(1), 1, "https://old.example.com", &place(1), false),
            operation(&did(2), 2, "https://pds.example.com", &place(2), false),
            operation(&did(1), 3, "https://pds.example.com/", &place(3), false),
            operation(&did(2), 4, "https://evil.example.com", &place(4), true),
            operation(&did(3), 5, "https://pds.example.com", &place(5), false),
        ];
        let asked = Arc::default();
        let plc = directory(lines, Arc::clone(&asked)).await;
        let store = Store::open(&DatabaseUrl::Memory).unwrap();
        let mut told = 0;
        let done = import(&config(&plc), &store, |_| told += 1).await.unwrap();
        assert_eq!((done.operations, done.identities, done.caught_up), (5, 3, true));
        assert_eq!((told, asked.lock().unwrap().len()), (2, 2));
        let first = stored(&store, &did(1)).await.unwrap();
        assert_eq!(first.pds.as_deref(), Some("pds.example.com"));
        assert_eq!(first.key, Some(key::parse_did_key(&did_key(3)).unwrap()));
        assert_eq!(first.handle.as_deref(), Some("alice.test"));
        let second = stored(&store, &did(2)).await.unwrap();
        assert_eq!(second.key, Some(key::parse_did_key(&did_key(2)).unwrap()));

        // The next run goes on behind the last one.
        let again = import(&config(&plc), &store, |_| {}).await.unwrap();
        assert_eq!((again.operations, again.caught_up), (0, true));
        let last = asked.lock().unwrap().last().unwrap().clone();
        let place = place(5);
        let place = place.as_str().map_or(place.to_string(), str::to_owned);
        assert_eq!(last, format!("/export?count=3&after={place}"));
    }
}

#[test]
fn every_kind_of_operation_is_understood() {
    let parse = |operation: Value| identity(operation.as_object().unwrap());
    let first = parse(json!({
        "type": "create", "signingKey": did_key(1), "recoveryKey": did_key(2),
        "handle": "bob.test", "service": "https://bsky.social", "prev": null, "sig": "x",
    }));
    assert_eq!(first.key, Some(key::parse_did_key(&did_key(1)).unwrap()));
    assert_eq!(
        (first.pds.as_deref(), first.handle.as_deref()),
        (Some("bsky.social"), Some("bob.test"))
    );
    for nothing in [
        json!({ "type": "plc_tombstone", "prev": "x" }),
        json!({}),
        json!({ "type": 7 }),
        json!({ "type": "plc_operation", "verificationMethods": [], "services": 1 }),
        json!({ "type": "plc_operation", "services": { "atproto_pds": {
            "type": "Other", "endpoint": "https://a.com" } } }),
        json!({ "type": "plc_operation", "verificationMethods": { "atproto": "did:key:zzz" } }),
    ] {
        let identity = parse(nothing);
        assert_eq!((identity.key, identity.pds, identity.handle), (None, None, None));
    }
}

#[test]
fn lines_that_are_no_operations_are_counted_and_stepped_over() {
    let good = operation(&did(1), 1, "https://a.com", &json!(7), false).to_string();
    let bad = ["{", "[]", "null", r#"{"did":"did:web:a.com"}"#, r#"{"did":"did:plc:short"}"#];
    let page = Page::parse(&format!("{}\n\n{good}\n{}", bad.join("\n"), "x"));
    assert_eq!((page.lines, page.malformed, page.identities.len()), (7, 6, 1));
    assert_eq!(page.last.as_deref(), Some("7"));
}

#[tokio::test]
async fn a_directory_in_trouble_is_waited_for_or_given_up() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&asked);
    let good = operation(&did(1), 1, "https://a.com", &json!(7), false).to_string();
    let plc = FakeHttp::start(move |_| match counting.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(429).with_header("retry-after: 0"),
        1 => Reply::status(500).with_header("retry-after: 0"),
        2 => Reply::json(good.clone()),
        _ => Reply::json(""),
    })
    .await;
    let store = Store::open(&DatabaseUrl::Memory).unwrap();
    let mut troubles = Vec::new();
    let done = import(&config(&plc), &store, |progress| troubles.extend(progress.trouble.clone()))
        .await
        .unwrap();
    assert_eq!(troubles, ["HTTP status 429", "HTTP status 500"]);
    assert_eq!(done.identities, 1);
    let html =
        FakeHttp::start(|_| Reply::json("<html>\nbusy\n</html>").with_header("retry-after: 0"))
            .await;
    let impatient = ImportConfig { failures_max: 1, ..config(&html) };
    let failed = import(&impatient, &store, |_| {}).await;
    assert!(matches!(failed, Err(ImportError::Directory(_))), "{failed:?}");
}
