//! Interoperability vectors of keys and signatures, and hostile text.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use data_encoding::HEXLOWER;
use ecdsa::sign::SigningKey;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn vectors(name: &str) -> Vec<Value> {
    let path = format!("{}/../../tests/data/crypto/{name}", env!("CARGO_MANIFEST_DIR"));
    let json = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&json).unwrap()
}

fn base64(value: &Value) -> Vec<u8> {
    STANDARD_NO_PAD.decode(value.as_str().unwrap().trim_end_matches('=')).unwrap()
}

#[test]
fn signature_vectors() {
    let vectors = vectors("signature-fixtures.json");
    assert_eq!(vectors.len(), 6);
    for vector in vectors {
        let curve = match vector["algorithm"].as_str().unwrap() {
            "ES256" => Curve::P256,
            "ES256K" => Curve::K256,
            other => panic!("{other}"),
        };
        let key = parse_did_key(vector["publicKeyDid"].as_str().unwrap()).unwrap();
        assert_eq!(key.curve(), curve);
        assert_eq!(did_key_string(&key), vector["publicKeyDid"].as_str().unwrap());
        let bare = vector["publicKeyMultibase"].as_str().unwrap();
        assert_eq!(parse_legacy_multibase(curve, bare), Ok(key));

        let signature: Result<[u8; 64], _> = base64(&vector["signatureBase64"]).try_into();
        let der = vector["tags"].as_array().unwrap().contains(&"der-encoded".into());
        assert_eq!(signature.is_err(), der);
        let verdict = signature.is_ok_and(|signature| {
            ecdsa::verify(&key, &base64(&vector["messageBase64"]), &signature)
        });
        assert_eq!(verdict, vector["validSignature"].as_bool().unwrap(), "{}", vector["comment"]);
    }
}

#[test]
fn did_keys_of_private_keys() {
    let mut count = 0;
    for vector in vectors("w3c_didkey_K256.json") {
        let secret = HEXLOWER.decode(vector["privateKeyBytesHex"].as_str().unwrap().as_bytes());
        check_pair(Curve::K256, &secret.unwrap(), &vector);
        count += 1;
    }
    for vector in vectors("w3c_didkey_P256.json") {
        let secret = bs58::decode(vector["privateKeyBytesBase58"].as_str().unwrap()).into_vec();
        check_pair(Curve::P256, &secret.unwrap(), &vector);
        count += 1;
    }
    assert_eq!(count, 6);
}

fn check_pair(curve: Curve, secret: &[u8], vector: &Value) {
    let expected = vector["publicDidKey"].as_str().unwrap();
    let key = SigningKey::from_bytes(curve, secret.try_into().unwrap()).unwrap().verifying_key();
    assert_eq!(did_key_string(&key), expected);
    assert_eq!(parse_did_key(expected), Ok(key));
}

fn multibase(bytes: &[u8]) -> String {
    format!("z{}", bs58::encode(bytes).into_string())
}

#[test]
fn other_spellings_are_refused() {
    let key = SigningKey::from_seed(Curve::K256, b"spellings").verifying_key();
    let text = multibase_string(&key);
    assert_eq!(parse_multibase(&text), Ok(key));

    assert_eq!(parse_did_key(&text), Err(KeyError::Prefix));
    assert_eq!(parse_did_key(&format!("DID:KEY:{text}")), Err(KeyError::Prefix));
    assert_eq!(parse_multibase(""), Err(KeyError::Multibase));
    assert_eq!(parse_multibase("z"), Err(KeyError::Codec));
    assert_eq!(parse_multibase(&text[1..]), Err(KeyError::Multibase));
    assert_eq!(parse_multibase(&format!("Z{}", &text[1..])), Err(KeyError::Multibase));
    assert_eq!(parse_multibase(&format!("{text} ")), Err(KeyError::Multibase));
    assert_eq!(parse_multibase(&format!("{text}0")), Err(KeyError::Multibase));
    assert_eq!(parse_multibase(&"z1".repeat(60)), Err(KeyError::Multibase));
    assert_eq!(parse_multibase(&format!("z{}", "z".repeat(100))), Err(KeyError::Multibase));

    // Ed25519's codec; a bare point; a long point behind the codec; a short one; a bad point.
    let point = key.to_sec1_compressed();
    assert_eq!(
        parse_multibase(&multibase(&[&[0xed, 1][..], &point].concat())),
        Err(KeyError::Codec)
    );
    assert_eq!(parse_multibase(&multibase(&point)), Err(KeyError::Codec));
    let long = [&CODEC_K256[..], &key.to_sec1_uncompressed()].concat();
    assert_eq!(parse_multibase(&multibase(&long)), Err(KeyError::Codec));
    let short = [&CODEC_K256[..], &point[..32]].concat();
    assert_eq!(parse_multibase(&multibase(&short)), Err(KeyError::Codec));
    let bad = [&CODEC_K256[..], &[2], &[0xff; 32]].concat();
    assert_eq!(
        parse_multibase(&multibase(&bad)),
        Err(KeyError::Point(ecdsa::KeyError::NotOnCurve))
    );
    assert_eq!(
        parse_legacy_multibase(Curve::K256, &text),
        Err(KeyError::Point(ecdsa::KeyError::Form))
    );
}

proptest! {
    #[test]
    fn keys_survive_as_text(k256: bool, seed: [u8; 8]) {
        let curve = if k256 { Curve::K256 } else { Curve::P256 };
        let key = SigningKey::from_seed(curve, &seed).verifying_key();
        prop_assert_eq!(parse_did_key(&did_key_string(&key)), Ok(key));
        let long = multibase(&key.to_sec1_uncompressed());
        prop_assert_eq!(parse_legacy_multibase(curve, &long), Ok(key));
        let short = multibase(&key.to_sec1_compressed());
        prop_assert_eq!(parse_legacy_multibase(curve, &short), Ok(key));
        let prefix = if k256 { "did:key:zQ3s" } else { "did:key:zDn" };
        prop_assert!(did_key_string(&key).starts_with(prefix));
    }

    #[test]
    fn arbitrary_text_never_panics(text in "(did:key:)?z?[1-9A-HJ-NP-Za-km-z]{0,120}|\\PC*") {
        for key in [parse_did_key(&text), parse_multibase(&text)].into_iter().flatten() {
            prop_assert!(did_key_string(&key).ends_with(&text));
        }
        let _ = parse_legacy_multibase(Curve::K256, &text);
        let _ = parse_legacy_multibase(Curve::P256, &text);
    }
}
