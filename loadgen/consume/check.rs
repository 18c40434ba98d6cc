//! Checks a stream as a careful consumer would, from nothing but the frames and the DID documents.

use std::collections::HashMap;

use ecdsa::VerifyingKey;
use protocol::did_doc;
use protocol::frame::{Body, Event};
use protocol::syntax::Tid;

use crate::client;
use crate::corpus::verify::{Verdict, Verifier};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("seq does not rise: {before}, then this")]
    Seq { before: u64 },
    #[error("rev does not rise: {before}, then {now}")]
    Rev { before: String, now: String },
    #[error("rev is no TID: {0}")]
    RevSyntax(String),
    #[error("frame does not pass: {0:?}")]
    Frame(Verdict),
}

#[derive(Debug)]
pub struct Checker {
    plc: Option<String>,
    verifier: Verifier,
    last_seq: u64,
    revs: HashMap<String, Tid>,
    keys: HashMap<String, VerifyingKey>,
    /// Events whose signature could not be checked for lack of a DID document.
    pub unresolved: u64,
}

impl Checker {
    /// Without a directory, signatures are not checked.
    pub fn new(plc: Option<String>) -> Self {
        Self {
            plc,
            verifier: Verifier::default(),
            last_seq: 0,
            revs: HashMap::new(),
            keys: HashMap::new(),
            unresolved: 0,
        }
    }

    pub fn check(&mut self, event: &Event<'_>, frame: &[u8]) -> Vec<Violation> {
        let mut violations = Vec::new();
        if event.seq <= self.last_seq {
            violations.push(Violation::Seq { before: self.last_seq });
        }
        self.last_seq = event.seq;
        match &event.body {
            Body::Commit(commit) => violations.extend(self.check_rev(event.did, commit.rev)),
            Body::Sync(sync) => violations.extend(self.check_rev(event.did, sync.rev)),
            Body::Identity(_) => {
                // What it says may have changed is asked for again.
                self.keys.remove(event.did);
                return violations;
            }
            Body::Account(_) => return violations,
        }
        violations.extend(self.check_frame(event.did, frame));
        violations
    }

    fn check_rev(&mut self, did: &str, rev: &str) -> Option<Violation> {
        let Some(now) = Tid::parse(rev) else { return Some(Violation::RevSyntax(rev.into())) };
        match self.revs.insert(did.to_owned(), now) {
            Some(before) if before >= now => {
                Some(Violation::Rev { before: before.to_string(), now: now.to_string() })
            }
            _ => None,
        }
    }

    fn check_frame(&mut self, did: &str, frame: &[u8]) -> Option<Violation> {
        let cached = self.keys.contains_key(did);
        let Some(key) = self.key(did) else {
            self.unresolved += 1;
            return None;
        };
        let mut verdict = self.verifier.check(frame, &key);
        if verdict == Verdict::Signature && cached {
            // The key may have been changed since we asked.
            self.keys.remove(did);
            if let Some(key) = self.key(did) {
                verdict = self.verifier.check(frame, &key);
            }
        }
        (verdict != Verdict::Good).then_some(Violation::Frame(verdict))
    }

    fn key(&mut self, did: &str) -> Option<VerifyingKey> {
        if let Some(key) = self.keys.get(did) {
            return Some(*key);
        }
        let plc = self.plc.as_deref()?;
        let answer = match client::get(&format!("{}/{did}", plc.trim_end_matches('/'))) {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => {
                tracing::warn!("{did}: directory answers {}", answer.status);
                return None;
            }
            Err(error) => {
                tracing::warn!("{did}: {error}");
                return None;
            }
        };
        let key = did_doc::parse(answer.body.as_bytes(), did).ok()?.key?;
        self.keys.insert(did.to_owned(), key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::corpus::{CorpusSpec, generate};
    use crate::driver::{DriverChoice, start};
    use crate::network::Network;

    fn checked(order: impl Fn(usize) -> Vec<u32>) -> Vec<(u32, Violation)> {
        let spec =
            CorpusSpec { accounts: 4, hosts: 1, events: 80, prefill: 5, ..CorpusSpec::default() };
        let network = Arc::new(Network::new(Arc::new(generate(&spec)), 0));
        let driver = start(DriverChoice::Threads, &network, 0, 1).unwrap();
        let mut checker = Checker::new(Some(network.plc_url()));
        let mut violations = Vec::new();
        for number in order(network.corpus.events.len()) {
            let bytes = network.corpus.frame(number);
            let event = protocol::frame::parse(bytes).unwrap();
            violations.extend(checker.check(&event, bytes).into_iter().map(|v| (number, v)));
        }
        assert_eq!(checker.unresolved, 0);
        drop(driver);
        violations
    }

    #[test]
    fn a_good_stream_passes() {
        assert_eq!(checked(|total| (0..total as u32).collect()), []);
    }

    #[test]
    fn a_repeated_event_is_told() {
        // The first events are commits, one of each account.
        let violations = checked(|_| vec![0, 1, 1]);
        assert!(
            matches!(
                violations[..],
                [(1, Violation::Seq { before: 2 }), (1, Violation::Rev { .. })]
            ),
            "{violations:?}"
        );
    }
}
