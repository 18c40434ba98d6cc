//! The corpus is the same for the same seed, complete, and passes all checks.

use super::verify::{Verdict, Verifier, signature_cost};
use super::*;

fn spec() -> CorpusSpec {
    CorpusSpec { accounts: 12, hosts: 3, events: 400, prefill: 40, ..CorpusSpec::default() }
}

#[test]
fn deterministic_and_seeded() {
    let corpus = generate(&spec());
    assert_eq!(corpus, generate(&spec()));
    let other = generate(&CorpusSpec { seed: 2, ..spec() });
    assert_ne!(corpus.hosts, other.hosts);
}

#[test]
fn every_frame_passes_all_checks() {
    let corpus = generate(&spec());
    let mut verifier = Verifier::default();
    for (number, meta) in corpus.events.iter().enumerate() {
        let frame = corpus.frame(number as u32);
        let account = &corpus.accounts[meta.account as usize];
        assert_eq!(verifier.check(frame, &account.key), Verdict::Good, "event {number}");
        let event = protocol::frame::parse(frame).unwrap();
        assert_eq!(event.did, account.did);
        assert_eq!(event.seq, u64::from(meta.index) + 1);
        assert_eq!(event.seq_span.start, meta.seq_start as usize);
    }
}

#[test]
fn streams_and_accounts_list_each_event_once() {
    let corpus = generate(&spec());
    let total = spec().total_events();
    assert_eq!(corpus.events.len(), total as usize);
    let mut by_host: Vec<u32> = corpus.hosts.iter().flat_map(|host| host.events.clone()).collect();
    by_host.sort_unstable();
    assert!(by_host.into_iter().eq(0..total));
    let mut by_account: Vec<u32> =
        corpus.accounts.iter().flat_map(|account| account.events.clone()).collect();
    by_account.sort_unstable();
    assert!(by_account.into_iter().eq(0..total));
    let kinds = corpus.summary();
    assert!(kinds.identities > 0 && kinds.syncs > 0 && kinds.account_events > 0, "{kinds:?}");
}

#[test]
fn frames_have_the_size_of_real_ones() {
    let spec = CorpusSpec { accounts: 20, hosts: 2, events: 600, ..CorpusSpec::default() };
    let mean = generate(&spec).summary().mean_frame_bytes;
    assert!((2_900.0..3_900.0).contains(&mean), "mean frame of {mean} bytes");
}

#[test]
fn signatures_are_timed() {
    let corpus = generate(&spec());
    let cost = signature_cost(&corpus, 12, 412, 100);
    assert_eq!(cost.events, 100);
    assert!(cost.signatures > 80 && cost.micros_per_event > 0.0, "{cost:?}");
}

#[test]
fn cached_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("corpus");
    let corpus = load_or_generate(&spec(), Some(&path));
    assert_eq!(read(&path, &spec()).unwrap().unwrap(), corpus);
    let other = CorpusSpec { seed: 2, ..spec() };
    assert!(read(&path, &other).unwrap().is_none(), "another spec is another corpus");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(read(&path, &spec()).is_err());
}
