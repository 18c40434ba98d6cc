//! Frames against the relay's own parsers: shape, signature, and the tree undone to `prevData`.

use protocol::frame::{self as wire_frame, Body};

use super::*;
use crate::corpus::verify::{Verdict, Verifier};
use crate::random::Random;

const START: u64 = 1_750_000_000_000_000;

fn stamp(seq: u64) -> Stamp {
    Stamp { seq, micros: START + seq * 1000 }
}

/// Runs a life of an account and gives its frames.
fn life(seed: u64, curve: Curve, steps: u64) -> (Account, Vec<Vec<u8>>) {
    let mut account = Account::new(seed, 0, curve);
    let mut random = Random::new(seed);
    let mut paths: Vec<String> = Vec::new();
    let mut frames = vec![account.commit(stamp(1), &[])];
    for seq in 2..steps + 2 {
        let at = stamp(seq);
        let action = if paths.is_empty() { 0 } else { random.below(4) };
        frames.push(match action {
            0 | 1 => {
                let path = record::path(&mut random, at.micros);
                let record = record::record(&mut random, &path, at.micros);
                paths.push(path.clone());
                account.create(at, &path, &record)
            }
            2 => {
                let path = random.pick(&paths).clone();
                account.update(at, &path, &record::record(&mut random, &path, at.micros))
            }
            _ => {
                let path = paths.swap_remove(random.below(paths.len() as u64) as usize);
                account.delete(at, &path)
            }
        });
    }
    (account, frames)
}

#[test]
fn a_life_passes_all_checks() {
    for curve in [Curve::K256, Curve::P256] {
        let (account, frames) = life(3, curve, 300);
        let key = account.verifying_key();
        let mut verifier = Verifier::default();
        for (index, bytes) in frames.iter().enumerate() {
            assert_eq!(verifier.check(bytes, &key), Verdict::Good, "frame {index}");
            let event = wire_frame::parse(bytes).unwrap();
            assert_eq!(event.seq, index as u64 + 1);
            assert_eq!(event.did, account.did());
        }
    }
}

#[test]
fn each_event_continues_the_one_before() {
    let (account, frames) = life(4, Curve::K256, 50);
    let mut last_rev: Option<String> = None;
    for bytes in &frames {
        let Body::Commit(commit) = wire_frame::parse(bytes).unwrap().body else {
            panic!("only commits here")
        };
        assert_eq!(commit.since.map(str::to_owned), last_rev);
        assert!(last_rev.as_deref() < Some(commit.rev));
        last_rev = Some(commit.rev.to_owned());
    }
    assert_eq!(account.rev(), last_rev);
}

#[test]
fn other_kinds_are_well_formed() {
    let mut account = Account::new(1, 2, Curve::P256);
    account.commit(stamp(1), &[]);
    let key = account.verifying_key();
    let mut verifier = Verifier::default();
    for bytes in [
        account.sync(stamp(2)),
        account.identity(stamp(3)),
        account.deactivate(stamp(4)),
        account.activate(stamp(5)),
    ] {
        assert_eq!(verifier.check(&bytes, &key), Verdict::Good);
    }
    let other = Account::new(9, 9, Curve::P256).verifying_key();
    let sync = account.sync(stamp(6));
    assert_eq!(verifier.check(&sync, &other), Verdict::Signature);
}

#[test]
fn a_rev_never_repeats_even_if_the_clock_stands() {
    let mut account = Account::new(1, 1, Curve::K256);
    let at = Stamp { seq: 1, micros: START };
    account.commit(at, &[]);
    let first = account.rev();
    account.commit(at, &[]);
    assert!(account.rev() > first);
}

#[test]
fn falsified_drafts_are_found_out() {
    let mut account = Account::new(1, 1, Curve::K256);
    let key = account.verifying_key();
    let mut verifier = Verifier::default();
    account.create(stamp(1), "app.bsky.feed.post/3kaaaaaaaaaa2", &[0xa0]);
    let write = Write::Create { path: "app.bsky.feed.post/3kaaaaaaaaab2", record: &[0xa0] };
    let mut draft = account.draft(stamp(2), &[write]);
    assert_eq!(verifier.check(&draft.encode(), &key), Verdict::Good);
    draft.prev_data = Some(protocol::mst::EMPTY_ROOT);
    assert!(matches!(verifier.check(&draft.encode(), &key), Verdict::Tree(_)));
}

#[test]
fn documents_name_key_and_host() {
    let account = Account::new(5, 6, Curve::K256);
    let json = account.document("http://localhost:4000");
    let document = protocol::did_doc::parse(json.as_bytes(), account.did()).unwrap();
    assert_eq!(document.key, Some(account.verifying_key()));
    let pds = document.pds.unwrap();
    assert_eq!((pds.tls, pds.host.as_str()), (false, "localhost:4000"));
    assert_eq!(document.handle.as_deref(), Some("user6.test"));
    assert_eq!(account.did().len(), 32);
    assert!(protocol::syntax::did::is_plc(account.did()));
}
