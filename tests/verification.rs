//! Nothing passes that was not verified: each event of a corpus comes with a spoilt twin before it,
//! and what comes out is the corpus.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use ecdsa::Curve;
use harness::{
    Consumer, Relay, consumer,
    corpus::{Corpus, HOSTS},
    forge::{Flaw, renumber, spoil},
};

/// Plays the corpus with a spoilt twin before each event that can have one. The corpus and nothing
/// else must come out, and each twin must be counted under one of the reasons.
fn twins(flaw_of: impl Fn(usize, &Corpus, &[u8]) -> Flaw, reasons: &[&str]) {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &["--log-level", "info"]);
    let consumer = Consumer::connect(relay.api, None);
    let mut spoilt = 0;
    let mut streams: [Vec<(u64, Vec<u8>)>; HOSTS] = Default::default();
    for (stream, frames) in streams.iter_mut().zip(&corpus.hosts) {
        for (at, (_, good)) in frames.iter().enumerate() {
            let seq = 2 * at as u64 + 10;
            if let Some(bad) = spoil(good, flaw_of(at, &corpus, good)) {
                spoilt += 1;
                stream.push((seq, renumber(&bad, seq)));
            }
            stream.push((seq + 1, renumber(good, seq + 1)));
        }
    }
    for (pds, stream) in hosts.iter().zip(streams) {
        relay.add_host(pds);
        pds.push_all(stream);
    }
    corpus.assert_complete(&consumer.wait_for(corpus.event_count()));
    assert!(spoilt > 1_000, "{spoilt}");
    let refused = || -> f64 {
        let reason = |reason| format!("reason=\"{reason}\"");
        reasons
            .iter()
            .map(|name| relay.metric("relayered_accounts_refusals_total", &reason(name)))
            .sum()
    };
    harness::eventually("all spoilt events to be counted under their reasons", || {
        (refused() >= f64::from(spoilt)).then_some(())
    });
    assert_eq!(consumer.count(), corpus.event_count());
}

#[test]
fn wrong_bits_are_refused() {
    // Somewhere in the blocks, never at the same place.
    twins(
        |at, _, frame| Flaw::Bit(at * 7919 + frame.len()),
        &["block-hash", "car-malformed", "commit-missing", "commit-mismatch", "commit-malformed"],
    );
}

#[test]
fn wrong_signatures_are_refused() {
    twins(|_, _, _| Flaw::Signature, &["signature-invalid"]);
}

#[test]
fn high_signatures_are_refused() {
    twins(
        |_, corpus, frame| Flaw::HighS(corpus.curve(consumer::event(frame).did)),
        &["signature-invalid"],
    );
}

#[test]
fn fields_that_the_signature_does_not_cover_are_checked() {
    twins(
        |at, _, frame| match at % 3 {
            0 if spoil(frame, Flaw::PrevData).is_some() => Flaw::PrevData,
            1 if spoil(frame, Flaw::Path).is_some() => Flaw::Path,
            _ => Flaw::Rev,
        },
        &[
            "inversion-mismatch",
            "tree-malformed",
            "op-invalid",
            "commit-mismatch",
            "record-missing",
            "rev-stale",
        ],
    );
}

#[test]
fn a_commit_under_another_name_is_refused() {
    // Nobody has that name, so there is no identity to hold it against.
    twins(|_, _, _| Flaw::Did, &["commit-mismatch", "identity-not-found", "did-syntax"]);
}

#[test]
fn the_curves_of_the_corpus_are_both_there() {
    let corpus = Corpus::load();
    let curves: Vec<_> = corpus.dids().map(|did| corpus.curve(did)).collect();
    assert!(curves.contains(&Curve::K256) && curves.contains(&Curve::P256));
}
