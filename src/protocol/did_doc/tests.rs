//! Real documents, and documents that only look like it.

use ecdsa::sign::SigningKey;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const DID: &str = "did:plc:7iza6de2dwap2sbkpav7c6c6";

fn captured(name: &str) -> Vec<u8> {
    let path = format!("{}/../../tests/data/captured/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn parse_value(document: &Value) -> DidDocument {
    parse(document.to_string().as_bytes(), DID).unwrap()
}

fn key(seed: &str) -> VerifyingKey {
    SigningKey::from_seed(Curve::K256, seed.as_bytes()).verifying_key()
}

fn method(id: &str, seed: &str) -> Value {
    json!({
        "id": id, "type": "Multikey", "controller": DID,
        "publicKeyMultibase": key::multibase_string(&key(seed)),
    })
}

fn service(id: &str, endpoint: &str) -> Value {
    json!({ "id": id, "type": "AtprotoPersonalDataServer", "serviceEndpoint": endpoint })
}

/// The signing key of the newest entry in a PLC log.
fn key_of_log(name: &str) -> VerifyingKey {
    let log: Value = serde_json::from_slice(&captured(name)).unwrap();
    let last = log.as_array().unwrap().last().unwrap();
    let text = last["verificationMethods"]["atproto"].as_str().or(last["signingKey"].as_str());
    key::parse_did_key(text.unwrap()).unwrap()
}

#[test]
fn documents_of_the_real_directory() {
    let check = |id: &str, handle: &str, host: &str| {
        let did = format!("did:plc:{id}");
        let document = parse(&captured(&format!("plc-doc-{id}.json")), &did).unwrap();
        assert_eq!(document.handle.as_deref(), Some(handle));
        assert_eq!(document.pds, Some(Endpoint { tls: false, host: host.into() }));
        assert_eq!(document.key, Some(key_of_log(&format!("plc-log-{id}.json"))));
    };
    check("eku4g36wpgkdhyoifkbjgpz3", "erin.test", "localhost:30120");
    check("jxez6oruacp4rzleeldguf7x", "dora17908.test", "localhost:30110");

    let p256: Value = serde_json::from_slice(&captured("plc-doc-p256.json")).unwrap();
    let did = p256["did"].as_str().unwrap();
    let document = parse(p256["doc"].to_string().as_bytes(), did).unwrap();
    let expected = key::parse_did_key(p256["signingKey"].as_str().unwrap()).unwrap();
    assert_eq!(expected.curve(), Curve::P256);
    assert_eq!(document.key, Some(expected));

    // The reply for a tombstoned DID is JSON, and no document.
    let gone = captured("plc-doc-7gsk3jwakq5ekyt3hfe2bll3.json");
    assert_eq!(parse(&gone, "did:plc:7gsk3jwakq5ekyt3hfe2bll3"), Err(DidDocError::Id));
}

#[test]
fn the_first_valid_entry_counts() {
    let mut foreign = method(&format!("{DID}#atproto"), "foreign");
    foreign["controller"] = "did:plc:another".into();
    let mut typeless = method("#atproto", "typeless");
    typeless["type"] = "JsonWebKey2020".into();
    let mut keyless = method("#atproto", "keyless");
    keyless["publicKeyMultibase"] = Value::Null;
    let document = json!({
        "id": DID,
        "alsoKnownAs": [7, "https://alice.test", "at://not_a_handle", "at://Alice.Test", "at://b.test"],
        "verificationMethod": [
            null,
            "#atproto",
            method("#atproto_label", "label"),
            method("did:plc:another#atproto", "another"),
            method("atproto", "bare"),
            foreign,
            typeless,
            keyless,
            method(&format!("{DID}#atproto"), "right"),
            method("#atproto", "second"),
        ],
        "service": [
            [],
            service("#atproto_labeler", "https://labeler.test"),
            { "id": "#atproto_pds", "type": "Other", "serviceEndpoint": "https://other.test" },
            { "id": "#atproto_pds", "type": "AtprotoPersonalDataServer",
              "serviceEndpoint": ["https://list.test"] },
            service("#atproto_pds", "https://path.test/path"),
            service(&format!("{DID}#atproto_pds"), "https://PDS.Test:443/"),
            service("#atproto_pds", "https://second.test"),
        ],
        "unknown": { "deep": [[[]]] },
    });
    assert_eq!(
        parse_value(&document),
        DidDocument {
            key: Some(key("right")),
            pds: Some(Endpoint { tls: true, host: "pds.test".into() }),
            handle: Some("alice.test".into()),
        }
    );
}

#[test]
fn missing_or_odd_lists_mean_nothing_usable() {
    let nothing = DidDocument { key: None, pds: None, handle: None };
    for document in [
        json!({ "id": DID }),
        json!({ "id": DID, "alsoKnownAs": null, "verificationMethod": {}, "service": "x" }),
        json!({ "id": DID, "alsoKnownAs": "at://alice.test", "service": service("#atproto_pds", "https://a.test") }),
    ] {
        assert_eq!(parse_value(&document), nothing, "{document}");
    }
}

#[test]
fn bare_points_of_both_curves_and_forms() {
    for (curve, kind) in [
        (Curve::K256, "EcdsaSecp256k1VerificationKey2019"),
        (Curve::P256, "EcdsaSecp256r1VerificationKey2019"),
    ] {
        let key = SigningKey::from_seed(curve, b"legacy").verifying_key();
        let parse_point = |point: &[u8]| {
            let mut entry = method("#atproto", "");
            entry["type"] = kind.into();
            entry["publicKeyMultibase"] = format!("z{}", bs58::encode(point).into_string()).into();
            parse_value(&json!({ "id": DID, "verificationMethod": [entry] })).key
        };
        assert_eq!(parse_point(&key.to_sec1_uncompressed()), Some(key));
        assert_eq!(parse_point(&key.to_sec1_compressed()), Some(key));
        assert_eq!(parse_point(&key.to_sec1_uncompressed()[1..]), None);
        assert_eq!(parse_point(&[]), None);
    }
}

#[test]
fn not_a_document() {
    let check = |text: &str, expected| assert_eq!(parse(text.as_bytes(), DID), Err(expected));
    check("", DidDocError::Json);
    check("[]", DidDocError::Json);
    check("\"did\"", DidDocError::Json);
    check("{\"id\":", DidDocError::Json);
    check(&format!("{{\"id\":\"{DID}\"}} x"), DidDocError::Json);
    check("{}", DidDocError::Id);
    check("{\"id\":null}", DidDocError::Id);
    check("{\"id\":\"did:plc:another\"}", DidDocError::Id);
    check(&format!("{{\"id\":\"{DID} \"}}"), DidDocError::Id);
    check(&"[".repeat(1_000_000), DidDocError::Json);
    check(&format!("{{\"x\":{}", "{\"a\":".repeat(100_000)), DidDocError::Json);
    assert_eq!(parse(b"{\"id\":\"\xff\"}", DID), Err(DidDocError::Json));
}

#[test]
fn endpoints() {
    let check = |url: &str, expected: Option<(bool, &str)>| {
        let expected = expected.map(|(tls, host)| Endpoint { tls, host: host.into() });
        assert_eq!(Endpoint::parse(url), expected, "{url}");
    };
    check("https://pds.example.com", Some((true, "pds.example.com")));
    check("https://PDS.Example.COM/", Some((true, "pds.example.com")));
    check("HTTPS://pds.example.com", Some((true, "pds.example.com")));
    check("https://pds.example.com:443", Some((true, "pds.example.com")));
    check("https://pds.example.com:80", Some((true, "pds.example.com:80")));
    check("https://pds.example.com:8443/", Some((true, "pds.example.com:8443")));
    check("http://localhost:2583", Some((false, "localhost:2583")));
    check("http://localhost:80", Some((false, "localhost")));
    check("http://127.0.0.1:2583", Some((false, "127.0.0.1:2583")));
    check("http://[::1]:2583", Some((false, "[::1]:2583")));
    check("http://[0:0::1]/", Some((false, "[::1]")));
    check("https://a.b:00443", Some((true, "a.b")));

    for bad in [
        "",
        "pds.example.com",
        "//pds.example.com",
        "https:pds.example.com",
        "https:/pds.example.com",
        "wss://pds.example.com",
        "ftp://pds.example.com",
        "https://",
        "https:///",
        "https://pds.example.com//",
        "https://pds.example.com/path",
        "https://pds.example.com?query",
        "https://pds.example.com/?query",
        "https://pds.example.com#fragment",
        "https://user@pds.example.com",
        "https://user:password@pds.example.com",
        "https://pds.example.com:",
        "https://pds.example.com:0",
        "https://pds.example.com:65536",
        "https://pds.example.com:+443",
        "https://pds.example.com:4 43",
        "https://pds.example.com:443:443",
        "https://pds.example.com.",
        "https://.example.com",
        "https://pds..example.com",
        "https://-pds.example.com",
        "https://pds_.example.com",
        "https://pds example.com",
        "https://b\u{fc}cher.example.com",
        "https://pds.example.com\\@other.test",
        "https://256.1.1.1",
        "https://127.1",
        "https://2130706433",
        "https://0x7f000001",
        "https://127.0.0.0X1",
        "https://[::1",
        "https://[::1]x",
        "https://[::g]",
        " https://pds.example.com",
        "https://pds.example.com\n",
    ] {
        check(bad, None);
    }
    check(
        &format!("https://{}.com", "a".repeat(63)),
        Some((true, &format!("{}.com", "a".repeat(63)))),
    );
    check(&format!("https://{}.com", "a".repeat(64)), None);
    check(&format!("https://{}com", "a.".repeat(126)), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = parse(&bytes, DID);
    }

    #[test]
    fn arbitrary_entries_never_panic(id in "(did:plc:7iza6de2dwap2sbkpav7c6c6)?#?[a-z_]{0,12}", text in "\\PC{0,30}") {
        let _ = parse_value(&json!({
            "id": DID, "alsoKnownAs": [text],
            "verificationMethod": [{ "id": id, "type": "Multikey", "controller": DID, "publicKeyMultibase": text }],
            "service": [service(&id, &text)],
        }));
    }

    #[test]
    fn endpoints_survive_as_text(
        url in "https?://[a-zA-Z0-9.-]{1,20}(:[0-9]{1,6})?/?|https?://\\PC*|https?://[0-9.:\\[\\]]{1,20}",
    ) {
        if let Some(endpoint) = Endpoint::parse(&url) {
            prop_assert_eq!(Endpoint::parse(&endpoint.to_string()), Some(endpoint));
        }
    }
}
