//! The relay conformance corpus, as far as bytes alone decide. Where this relay's rules differ from
//! the opinion in the corpus, the case is named.

use protocol::{
    car::BlockTable,
    cbor, commit,
    frame::{self, Body, Skim},
    key,
    mst::{self, Scratch},
};
use serde_json::Value;

use crate::data;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Frame,
    Unknown,
    Blocks,
    Record,
    Signature,
    Inversion,
}

fn judge(frame: &[u8], case: &Value) -> Verdict {
    if let Ok(Skim::Unknown { .. }) = frame::skim(frame) {
        return Verdict::Unknown;
    }
    let Ok(event) = frame::parse(frame) else { return Verdict::Frame };
    let blocks = match &event.body {
        Body::Commit(body) => body.blocks,
        Body::Sync(body) => body.blocks,
        Body::Identity(_) | Body::Account(_) => return Verdict::Accepted,
    };
    let mut table = BlockTable::default();
    let Ok(map) = table.load(blocks) else { return Verdict::Blocks };
    let commit = commit::parse(map.get(&map.root()).unwrap()).unwrap();
    let mut unsigned = Vec::new();
    commit.unsigned_bytes(&mut unsigned);
    let key = key::parse_did_key(case["signingKey"].as_str().unwrap()).unwrap();
    if !ecdsa::verify(&key, &unsigned, commit.sig) {
        return Verdict::Signature;
    }
    if let Body::Commit(body) = &event.body {
        let record = |cid| map.get(&cid).is_some_and(|data| cbor::check_record(data).is_ok());
        if !body.ops.iter().filter_map(|op| op.cid).all(record) {
            return Verdict::Record;
        }
        let root = mst::invert(commit.data, body.ops, &map, &mut Scratch::default());
        if body.prev_data.is_some_and(|prev_data| root != Ok(prev_data)) {
            return Verdict::Inversion;
        }
    }
    Verdict::Accepted
}

#[test]
fn single_defect_frames() {
    for case in data::json("relay-conformance/corpus.json") {
        let id = case["id"].as_str().unwrap();
        let frame = data::hex(case["hex"].as_str().unwrap());
        let expected = match id {
            // The data model has no floats.
            "drisl/float64-ok-payload" => Verdict::Frame,
            "sync/unknown-type" => Verdict::Unknown,
            _ if case["expect"]["strict"] == "reject" => Verdict::Frame,
            _ => Verdict::Accepted,
        };
        assert_eq!(judge(&frame, &case), expected, "{id}");
    }
}

#[test]
fn commits() {
    for case in data::json("relay-conformance/corpus-commit.json") {
        let id = case["id"].as_str().unwrap();
        let frame = data::hex(case["hex"].as_str().unwrap());
        let expected = match id {
            "commit/valid" | "commit/record-unknown-type" => Verdict::Accepted,
            // A relay does not look into records, and ignores the deprecated flag.
            "commit/record-no-type" | "commit/record-not-map" | "commit/too-big" => {
                Verdict::Accepted
            }
            "commit/envelope-unordered" | "commit/envelope-float16" => Verdict::Frame,
            "commit/cid-mismatch" => Verdict::Blocks,
            "commit/missing-block" => Verdict::Record,
            "commit/bad-signature" => Verdict::Signature,
            _ => panic!("no expectation for {id}"),
        };
        assert_eq!(judge(&frame, &case), expected, "{id}");
    }
}

#[test]
fn sequences() {
    for case in data::json("relay-conformance/corpus-sync.json") {
        let id = case["id"].as_str().unwrap();
        for step in case["frames"].as_array().unwrap() {
            let frame = data::hex(step["hex"].as_str().unwrap());
            let verdict = judge(&frame, &case);
            let expected = match (id, step["role"].as_str().unwrap()) {
                ("sync11/sync-event-bad-sig", "test") => Verdict::Signature,
                ("sync11/commit2-wrong-prevdata", "test") => Verdict::Inversion,
                // A missing prevData, an old rev: seen only against the account's state.
                _ => Verdict::Accepted,
            };
            assert_eq!(verdict, expected, "{id}");
        }
    }
}
