//! Our own complete verification of frames, for the corpus, for tests and for consumers that check;
//! and the bare cost of the signature checks, which the relay's cost is held against.

use std::thread;

use ecdsa::VerifyingKey;
use protocol::car::BlockTable;
use protocol::cid::Cid;
use protocol::frame::{self, Body, CommitEvent, SyncEvent};
use protocol::{commit, mst};

use super::{Corpus, EventKind};
use crate::procfs;

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Not a well-formed frame, CAR or commit.
    Malformed(String),
    /// The frame's fields say something else than the signed commit.
    Fields,
    Signature,
    /// The operations don't lead from `prevData` to the commit's tree.
    Tree(String),
}

/// Checks frames one after the other; holds the room that this takes.
#[derive(Default)]
pub struct Verifier {
    table: BlockTable,
    scratch: mst::Scratch,
    unsigned: Vec<u8>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

impl Verifier {
    pub fn check(&mut self, frame: &[u8], key: &VerifyingKey) -> Verdict {
        let event = match frame::parse(frame) {
            Ok(event) => event,
            Err(error) => return Verdict::Malformed(error.to_string()),
        };
        match event.body {
            Body::Commit(body) => self.check_commit(event.did, &body, key),
            Body::Sync(body) => self.check_sync(event.did, &body, key),
            Body::Identity(_) | Body::Account(_) => Verdict::Good,
        }
    }

    fn check_commit(&mut self, did: &str, body: &CommitEvent<'_>, key: &VerifyingKey) -> Verdict {
        let blocks = match self.table.load(body.blocks) {
            Ok(blocks) => blocks,
            Err(error) => return Verdict::Malformed(error.to_string()),
        };
        let Some(block) = blocks.get(&body.commit) else { return Verdict::Fields };
        let signed = match commit::parse(block) {
            Ok(signed) => signed,
            Err(error) => return Verdict::Malformed(error.to_string()),
        };
        if blocks.root() != body.commit || signed.did != did || signed.rev != body.rev {
            return Verdict::Fields;
        }
        if body.ops.iter().any(|op| op.cid.is_some_and(|cid| blocks.get(&cid).is_none())) {
            return Verdict::Fields;
        }
        if !signature_holds(&signed, key, &mut self.unsigned) {
            return Verdict::Signature;
        }
        let before = match mst::invert(signed.data, body.ops, &blocks, &mut self.scratch) {
            Ok(before) => before,
            Err(error) => return Verdict::Tree(error.to_string()),
        };
        let expected: Option<Cid> = match (body.prev_data, body.since) {
            (None, None) => Some(mst::EMPTY_ROOT),
            (prev_data, _) => prev_data,
        };
        match expected {
            Some(expected) if expected == before => Verdict::Good,
            Some(_) => Verdict::Tree("prevData differs".into()),
            None => Verdict::Tree("prevData missing".into()),
        }
    }

    fn check_sync(&mut self, did: &str, body: &SyncEvent<'_>, key: &VerifyingKey) -> Verdict {
        let blocks = match self.table.load(body.blocks) {
            Ok(blocks) => blocks,
            Err(error) => return Verdict::Malformed(error.to_string()),
        };
        let Some(block) = blocks.get(&blocks.root()) else { return Verdict::Fields };
        let signed = match commit::parse(block) {
            Ok(signed) => signed,
            Err(error) => return Verdict::Malformed(error.to_string()),
        };
        if signed.did != did || signed.rev != body.rev {
            return Verdict::Fields;
        }
        if signature_holds(&signed, key, &mut self.unsigned) {
            Verdict::Good
        } else {
            Verdict::Signature
        }
    }
}

fn signature_holds(
    signed: &commit::Commit<'_>,
    key: &VerifyingKey,
    unsigned: &mut Vec<u8>,
) -> bool {
    unsigned.clear();
    signed.unsigned_bytes(unsigned);
    ecdsa::verify(key, unsigned, signed.sig)
}

/// The mean cost of bare signature checks with parsed keys, as CPU time of each event.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct SignatureCost {
    /// Events looked at, those without a signature included.
    pub events: usize,
    pub signatures: usize,
    /// On one thread, alone, one by one.
    pub micros_per_event: f64,
    /// The same through the batch interface.
    pub batch_micros_per_event: f64,
    /// One by one on all cores at once, as a busy relay does it: cores that share parts slow each
    /// other down.
    pub all_cores_micros_per_event: f64,
}

struct Signed {
    key: VerifyingKey,
    message: Vec<u8>,
    signature: [u8; 64],
}

/// Signatures for one call of the batch interface, as a busy shard has them in a turn.
const BATCH: usize = 64;

/// Times the signature checks of up to `sample` events, evenly spread over those from `first` to
/// `end`, and nothing else.
pub fn signature_cost(corpus: &Corpus, first: u32, end: u32, sample: usize) -> SignatureCost {
    let step = ((end - first) as usize / sample.max(1)).max(1);
    let events: Vec<u32> = (first..end).step_by(step).collect();
    let signed: Vec<Signed> =
        events.iter().filter_map(|&event| signed_bytes(corpus, event)).collect();
    let per_event = |nanos: u64| nanos as f64 / 1000.0 / events.len().max(1) as f64;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let all: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(|| check_singly(&signed))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a check panicked")).sum()
    });
    SignatureCost {
        events: events.len(),
        signatures: signed.len(),
        micros_per_event: per_event(check_singly(&signed)),
        batch_micros_per_event: per_event(check_in_batches(&signed)),
        all_cores_micros_per_event: per_event(all / cores as u64),
    }
}

/// CPU time of checking all, one by one.
fn check_singly(signed: &[Signed]) -> u64 {
    let start = procfs::thread_cpu_nanos();
    for one in signed {
        let good = ecdsa::verify(&one.key, &one.message, &one.signature);
        assert!(good, "a signature of the corpus does not hold");
    }
    procfs::thread_cpu_nanos() - start
}

fn check_in_batches(signed: &[Signed]) -> u64 {
    let checks: Vec<ecdsa::Check<'_>> = signed
        .iter()
        .map(|one| ecdsa::Check { key: &one.key, message: &one.message, signature: &one.signature })
        .collect();
    let mut verdicts = Vec::with_capacity(BATCH);
    let start = procfs::thread_cpu_nanos();
    for batch in checks.chunks(BATCH) {
        ecdsa::verify_batch(batch, &mut verdicts);
    }
    procfs::thread_cpu_nanos() - start
}

fn signed_bytes(corpus: &Corpus, event: u32) -> Option<Signed> {
    let meta = &corpus.events[event as usize];
    if !matches!(meta.kind, EventKind::Commit | EventKind::Sync) {
        return None;
    }
    let blocks = match frame::parse(corpus.frame(event)).ok()?.body {
        Body::Commit(body) => body.blocks,
        Body::Sync(body) => body.blocks,
        Body::Identity(_) | Body::Account(_) => return None,
    };
    let mut table = BlockTable::default();
    let blocks = table.load(blocks).ok()?;
    let signed = commit::parse(blocks.get(&blocks.root())?).ok()?;
    let mut message = Vec::new();
    signed.unsigned_bytes(&mut message);
    let key = corpus.accounts[meta.account as usize].key;
    Some(Signed { key, message, signature: *signed.sig })
}
