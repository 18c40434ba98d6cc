//! DID documents in odd forms, of directories and of servers that hosts run themselves.

use ecdsa::{Curve, sign::SigningKey};
use ports::RefusalReason::{self, HostMismatch, IdentityNotFound, KeyMissing, SignatureInvalid};
use protocol::key;
use serde_json::{Value, json};

use crate::{
    harness::{author::Author, eventually},
    stage::{Case, Stage},
};

/// A new account whose document the case has changed.
fn with_document(stage: &mut Stage<'_>, change: impl FnOnce(&mut Value, &Author)) -> Author {
    let author = stage.stranger();
    let mut document: Value = serde_json::from_str(&author.document(&stage.pds.url())).unwrap();
    change(&mut document, &author);
    stage.net.plc.put(&author.did, document.to_string());
    author
}

fn fine(stage: &mut Stage<'_>, change: impl FnOnce(&mut Value, &Author)) {
    let mut author = with_document(stage, change);
    let body = author.post();
    stage.good("commit", &body);
}

fn useless(stage: &mut Stage<'_>, reason: RefusalReason, change: impl FnOnce(&mut Value, &Author)) {
    let mut author = with_document(stage, change);
    let body = author.post();
    stage.bad(reason, "commit", &body);
}

fn endpoint(stage: &mut Stage<'_>, url: Value, reason: RefusalReason) {
    useless(stage, reason, |document, _| document["service"][0]["serviceEndpoint"] = url);
}

fn multikey(seed: &[u8]) -> Value {
    let key = SigningKey::from_seed(Curve::K256, seed);
    json!(key::multibase_string(&key.verifying_key()))
}

/// An account of the server that the case's host is.
fn web_author(stage: &Stage<'_>) -> Author {
    let author = Author::with_did(&stage.pds.web_did(), 5);
    stage.pds.set_document(Some(author.document(&stage.pds.url())));
    author
}

pub(crate) const CASES: &[Case] = &[
    ("fields of the future", |stage| {
        fine(stage, |document, _| {
            document["proof"] = json!({ "a": [1, 2.5, null] });
            document["service"][0]["more"] = json!(true);
            document["verificationMethod"][0]["revoked"] = json!(null);
        });
    }),
    ("no context, no handle", |stage| {
        fine(stage, |document, _| {
            let fields = document.as_object_mut().unwrap();
            fields.remove("@context");
            fields.remove("alsoKnownAs");
        });
    }),
    ("names for others before the handle", |stage| {
        fine(stage, |document, author| {
            document["alsoKnownAs"] =
                json!(["https://a.test", "at://", "at://x", format!("at://{}", author.handle())]);
        });
    }),
    ("other keys and services before the right ones", |stage| {
        fine(stage, |document, author| {
            let key = json!({ "id": format!("{}#other", author.did), "type": "Multikey",
                "controller": author.did, "publicKeyMultibase": multikey(b"other") });
            document["verificationMethod"].as_array_mut().unwrap().insert(0, key);
            let labeler = json!({ "id": "#atproto_labeler", "type": "AtprotoLabeler",
                "serviceEndpoint": "https://labeler.example.com" });
            document["service"].as_array_mut().unwrap().insert(0, labeler);
        });
    }),
    ("ids without and with the DID", |stage| {
        fine(stage, |document, author| {
            document["verificationMethod"][0]["id"] = json!("#atproto");
            document["service"][0]["id"] = json!(format!("{}#atproto_pds", author.did));
        });
    }),
    ("two keys of the same name: the first one counts", |stage| {
        fine(stage, |document, _| {
            let mut second = document["verificationMethod"][0].clone();
            second["publicKeyMultibase"] = multikey(b"second");
            document["verificationMethod"].as_array_mut().unwrap().push(second);
        });
        useless(stage, SignatureInvalid, |document, _| {
            let mut first = document["verificationMethod"][0].clone();
            first["publicKeyMultibase"] = multikey(b"first");
            document["verificationMethod"].as_array_mut().unwrap().insert(0, first);
        });
    }),
    ("keys that are none", |stage| {
        for text in ["", "z", "zQ3", "m4A", "zQ3shabc!", "did:key:zQ3shokFTS3brHcDQrn82RUDfCZE"] {
            useless(stage, KeyMissing, |document, _| {
                document["verificationMethod"][0]["publicKeyMultibase"] = json!(text);
            });
        }
        let long = format!("z{}", "Q".repeat(100_000));
        useless(stage, KeyMissing, |document, _| {
            document["verificationMethod"][0]["publicKeyMultibase"] = json!(long);
        });
    }),
    ("a key of another's", |stage| {
        useless(stage, KeyMissing, |document, _| {
            document["verificationMethod"][0]["controller"] = json!("did:plc:other");
        });
    }),
    ("methods of verification that are no list", |stage| {
        for methods in [Value::Null, json!({}), json!("x"), json!([1, null, "x"])] {
            useless(stage, KeyMissing, |document, _| document["verificationMethod"] = methods);
        }
    }),
    ("services that are none", |stage| {
        for services in [Value::Null, json!({}), json!([]), json!([1, null, "x"])] {
            useless(stage, IdentityNotFound, |document, _| document["service"] = services);
        }
    }),
    ("endpoints that are none", |stage| {
        let url = stage.pds.url();
        for endpoint_url in [
            json!(null),
            json!(5),
            json!({ "uri": url }),
            json!(""),
            json!("ftp://pds.example.com"),
            json!("javascript:alert(1)"),
            json!(format!("{url}/path")),
            json!(format!("{url}?x=1")),
            json!(url.replace("://", "://user@")),
        ] {
            endpoint(stage, endpoint_url, IdentityNotFound);
        }
    }),
    ("endpoints of others", |stage| {
        for url in ["https://localhost:1", "http://127.0.0.1", "https://pds.example.com"] {
            endpoint(stage, json!(url), HostMismatch);
        }
    }),
    ("a document of many megabytes", |stage| {
        let mut author = with_document(stage, |document, _| {
            document["padding"] = json!("x".repeat(3 << 20));
        });
        // What the directory can't say now it may say later: the event waits.
        let body = author.post();
        stage.send("commit", &body);
        let plc = &stage.net.plc;
        eventually("the question", || (plc.requests(&author.did) > 0).then_some(()));
    }),
    ("a document of a million lists", |stage| {
        let mut author = stage.stranger();
        stage.net.plc.put(&author.did, "[".repeat(200_000));
        let body = author.post();
        stage.send("commit", &body);
        let plc = &stage.net.plc;
        eventually("the question", || (plc.requests(&author.did) > 0).then_some(()));
    }),
    ("an account of the host's own domain", |stage| {
        let mut author = web_author(stage);
        let (first, second) = (author.post(), author.post());
        stage.good("commit", &first);
        stage.good("commit", &second);
        let handle = author.handle();
        let told = author.identity(Some(&handle));
        stage.good("identity", &told);
        // It is gone for a moment: what is known will do.
        stage.settle();
        stage.pds.set_document(None);
        let third = author.post();
        stage.good("commit", &third);
    }),
    ("an account of the host's own domain without a document", |stage| {
        let mut author = web_author(stage);
        stage.pds.set_document(None);
        let body = author.post();
        stage.bad(IdentityNotFound, "commit", &body);
    }),
    ("a document of the host's own domain that is none", |stage| {
        let mut author = web_author(stage);
        stage.pds.set_document(Some("<html>".to_owned()));
        let body = author.post();
        stage.bad(IdentityNotFound, "commit", &body);
    }),
    ("a document of the host's own domain that is another's", |stage| {
        let mut author = web_author(stage);
        let other = stage.author();
        stage.pds.set_document(Some(other.document(&stage.pds.url())));
        let body = author.post();
        stage.bad(IdentityNotFound, "commit", &body);
    }),
    ("accounts of domains that are none", |stage| {
        for did in ["did:web:localhost%3A1:user", "did:web:[::1]", "did:web:a.com%2Fx", "did:web:"]
        {
            let mut author = Author::with_did(did, 6);
            let body = author.post();
            let reason = if did.contains('[') || did.ends_with(':') {
                RefusalReason::DidSyntax
            } else {
                IdentityNotFound
            };
            stage.bad(reason, "commit", &body);
        }
    }),
];
