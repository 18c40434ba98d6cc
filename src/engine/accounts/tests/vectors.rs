//! Frames that others made: the relay-conformance cases, the corpus of the reference library, and
//! frames captured from real hosts.

use std::{fs, path::PathBuf};

use ports::{HostId, Identity, IdentityAnswer, RefusalReason as Reason};
use protocol::{
    did_doc,
    frame::{self, Skim},
    key,
};
use serde_json::Value;

use super::kit::*;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

fn read(name: &str) -> Vec<u8> {
    let path = path(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cases(name: &str) -> Vec<Value> {
    serde_json::from_slice(&read(name)).unwrap()
}

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

/// A directory in which the account has this key, whatever is not a did:plc about its DID.
fn publish_key(net: &mut Net, did: &str, signing_key: &str) {
    let identity = Identity {
        key: Some(key::parse_did_key(signing_key).unwrap()),
        host: Some(PDS),
        handle: None,
        fetched_at: 0,
    };
    net.directory.insert(did.to_owned(), IdentityAnswer::Found(identity));
}

/// A key for accounts whose frames are not signed.
const ANY_KEY: &str = "did:key:zQ3shiQGPSkqCeUnVhNviXhfBnpuR8kcavEv31Ek7royzXa2p";

/// What the relay does with a conformance case; `None`: it is forwarded.
///
/// It is what the corpus expects of a strict relay, but for the cases with a reason beside them.
fn expected(id: &str, strict: &str) -> Option<Reason> {
    match id {
        // The data model of the AT Protocol has no floats.
        "drisl/float64-ok-payload" => Some(Reason::FrameMalformed),
        // Records are not the relay's business beyond being CBOR.
        "commit/record-no-type" | "commit/record-not-map" => None,
        // Deprecated flags: to be ignored.
        "commit/too-big" | "sync11/commit-rebase-flag" => None,
        "commit/cid-mismatch" => Some(Reason::BlockHash),
        "commit/missing-block" => Some(Reason::RecordMissing),
        "commit/bad-signature" | "sync11/sync-event-bad-sig" => Some(Reason::SignatureInvalid),
        "sync11/commit2-missing-prevdata" => Some(Reason::PrevDataMissing),
        "sync11/commit2-wrong-prevdata" => Some(Reason::InversionMismatch),
        "sync11/commit2-rev-rollback" => Some(Reason::RevStale),
        _ if strict == "accept" => None,
        // A frame that is no event, or a broken one.
        _ => Some(Reason::FrameMalformed),
    }
}

#[test]
fn relay_conformance_single_frames() {
    for case in cases("relay-conformance/corpus.json") {
        let id = case["id"].as_str().unwrap();
        let frame = hex(&case["hex"]);
        let mut net = Net::new();
        if let Ok(Skim::Event { did, .. }) = frame::skim(&frame) {
            publish_key(&mut net, did, ANY_KEY);
        }
        let fate = net.run(PDS, &frame);
        match expected(id, case["expect"]["strict"].as_str().unwrap()) {
            None => assert_eq!(fate.sent().frame, frame, "{id}"),
            Some(reason) => assert_eq!(fate, Fate::Refused(reason), "{id}"),
        }
    }
}

#[test]
fn relay_conformance_signed_commits() {
    for case in cases("relay-conformance/corpus-commit.json") {
        let id = case["id"].as_str().unwrap();
        let frame = hex(&case["hex"]);
        let mut net = Net::new();
        let did = case["repoDid"].as_str().unwrap();
        publish_key(&mut net, did, case["signingKey"].as_str().unwrap());
        let fate = net.run(PDS, &frame);
        match expected(id, case["expect"]["strict"].as_str().unwrap()) {
            None => assert_eq!(fate.sent().frame, frame, "{id}"),
            Some(reason) => assert_eq!(fate, Fate::Refused(reason), "{id}"),
        }
    }
}

#[test]
fn relay_conformance_stateful_cases() {
    for case in cases("relay-conformance/corpus-sync.json") {
        let id = case["id"].as_str().unwrap();
        let mut net = Net::new();
        let did = case["repoDid"].as_str().unwrap();
        publish_key(&mut net, did, case["signingKey"].as_str().unwrap());
        for step in case["frames"].as_array().unwrap() {
            let frame = hex(&step["hex"]);
            let fate = net.run(PDS, &frame);
            let expected = match step["role"].as_str().unwrap() {
                "setup" => None,
                _ => expected(id, case["expect"]["strict"].as_str().unwrap()),
            };
            match expected {
                None => assert_eq!(fate.sent().frame, frame, "{id}"),
                Some(reason) => assert_eq!(fate, Fate::Refused(reason), "{id}"),
            }
        }
    }
}

struct Corpus {
    /// In the order of the network: host and frame.
    events: Vec<(HostId, Vec<u8>)>,
    net: Net,
}

/// The reference-made corpus, and a directory that knows its accounts.
fn corpus() -> Corpus {
    let mut hosts: Vec<_> = (0..3)
        .map(|host| {
            let bytes = read(&format!("corpus/hosts/{host}.frames"));
            let mut frames = Vec::new();
            let mut rest = &bytes[..];
            while let Some((length, tail)) = rest.split_first_chunk::<4>() {
                let (frame, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
                frames.push(frame.to_vec());
                rest = tail;
            }
            frames.into_iter()
        })
        .collect();
    let order = read("corpus/order.u16");
    let events = order
        .chunks_exact(2)
        .map(|host| u16::from_le_bytes([host[0], host[1]]))
        .map(|host| (HostId(u32::from(host) + 1), hosts[usize::from(host)].next().unwrap()))
        .collect();
    let mut net = Net::new();
    let documents: serde_json::Map<String, Value> =
        serde_json::from_slice(&read("corpus/plc.json")).unwrap();
    for (did, document) in documents {
        let document = did_doc::parse(document.to_string().as_bytes(), &did).unwrap();
        let port = document.pds.unwrap().host.rsplit(':').next().unwrap().parse::<u32>().unwrap();
        let identity = Identity {
            key: document.key,
            host: Some(HostId(port - 21_000 + 1)),
            handle: document.handle.map(Into::into),
            fetched_at: 0,
        };
        net.directory.insert(did, IdentityAnswer::Found(identity));
    }
    Corpus { events, net }
}

#[test]
fn the_reference_corpus_comes_out_complete_and_unchanged() {
    let Corpus { events, mut net } = corpus();
    for turn in events.chunks(37) {
        let tickets: Vec<usize> = turn.iter().map(|(host, frame)| net.send(*host, frame)).collect();
        net.settle();
        for ((_, frame), ticket) in turn.iter().zip(tickets) {
            let sent = net.fates[ticket].sent();
            assert!(sent.frame == *frame, "frame {ticket} was changed");
            assert!(!sent.tree_waived && !sent.discontinuous, "frame {ticket}");
        }
    }
    assert_eq!(net.fates.len(), 2_081);
    assert_eq!(net.accounts.take_tally().refused.iter().sum::<u64>(), 0);
}

fn captured(name: &str) -> Vec<Vec<u8>> {
    let text = String::from_utf8(read(&format!("captured/{name}"))).unwrap();
    let line = |line: &str| hex(&serde_json::from_str::<Value>(line).unwrap()["hex"]);
    text.lines().map(line).collect()
}

/// Signing keys of a captured account over time, from its operation log.
fn captured_keys(did: &str) -> Vec<String> {
    let id = did.rsplit(':').next().unwrap();
    let log: Vec<Value> = cases(&format!("captured/plc-log-{id}.json"));
    log.iter()
        .filter_map(|op| {
            let key = op["verificationMethods"]["atproto"].as_str();
            Some(key.or(op["signingKey"].as_str())?.to_owned())
        })
        .collect()
}

/// Publishes the account with its key of the time, and with the handle that the frame names.
fn publish_captured(net: &mut Net, event: &frame::Event<'_>, host: HostId, key_index: usize) {
    let keys = captured_keys(event.did);
    let handle = match &event.body {
        frame::Body::Identity(identity) => identity.handle.map(Into::into),
        _ => None,
    };
    let key = key::parse_did_key(keys.get(key_index).unwrap_or(&keys[keys.len() - 1])).unwrap();
    let identity = Identity { key: Some(key), host: Some(host), handle, fetched_at: 0 };
    net.directory.insert(event.did.to_owned(), IdentityAnswer::Found(identity));
}

#[test]
fn frames_of_a_real_pds_pass_unchanged_and_a_migration_goes_through() {
    let mut net = Net::new();
    let mut forwarded = 0;
    for bytes in captured("pdsA.jsonl") {
        let event = frame::parse(&bytes).unwrap();
        publish_captured(&mut net, &event, PDS, 0);
        match net.run(PDS, &bytes) {
            Fate::Forwarded(sent) => {
                assert!(sent.frame == bytes && !sent.discontinuous && !sent.tree_waived);
                forwarded += 1;
            }
            // After creation and reactivation the real PDS repeats the last commit as #sync.
            Fate::Refused(Reason::RevStale) => {
                assert!(matches!(event.body, frame::Body::Sync(_)));
            }
            other => panic!("{other:?}: {event:?}"),
        }
    }
    assert!(forwarded >= 18, "{forwarded}");
    // The account moves to B under a new key. B's first #sync holds A's commit, and a rev that is
    // not the commit's: it must not pass, and must not harm.
    let mut fates = Vec::new();
    for bytes in captured("pdsB.jsonl") {
        let event = frame::parse(&bytes).unwrap();
        let last = captured_keys(event.did).len() - 1;
        publish_captured(&mut net, &event, OTHER_PDS, last);
        fates.push(net.run(OTHER_PDS, &bytes));
    }
    let kinds: Vec<bool> = fates.iter().map(|fate| matches!(fate, Fate::Forwarded(_))).collect();
    assert_eq!(kinds, [true, true, false, true, true], "{fates:?}");
    assert_eq!(fates[2].refused(), Reason::CommitMismatch);
    assert!(!fates[3].sent().discontinuous);
}

#[test]
fn frames_of_another_implementation_pass_unchanged() {
    let mut net = Net::new();
    let mut synced = 0;
    for bytes in captured("arroba-frames.jsonl") {
        let event = frame::parse(&bytes).unwrap();
        publish_captured(&mut net, &event, PDS, 0);
        match net.run(PDS, &bytes) {
            Fate::Forwarded(sent) => {
                assert!(sent.frame == bytes && !sent.discontinuous && !sent.tree_waived);
            }
            Fate::Refused(Reason::RevStale) if matches!(event.body, frame::Body::Sync(_)) => {
                synced += 1;
            }
            other => panic!("{other:?}: {event:?}"),
        }
    }
    assert_eq!(synced, 1);
}
