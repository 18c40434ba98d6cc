//! One account: its DID, its key, its repository, and the frames that come of changing it.

use ecdsa::sign::SigningKey;
use ecdsa::{Curve, VerifyingKey};
use protocol::cid::Cid;
use protocol::mst::tree::Tree;
use protocol::syntax::Tid;

use super::car::CarWriter;
use super::cbor;
use super::document::{did_document, plc_did};
use super::frame::{self, CommitDraft, OpDraft};
use crate::clock;

/// What the host gives to an event: its number in the host's stream, and its time, from which the
/// rev is made. Both are the caller's, so that the same calls always give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub seq: u64,
    /// Microseconds since 1970.
    pub micros: u64,
}

/// One change of a record. Records are DAG-CBOR.
#[derive(Clone, Copy, Debug)]
pub enum Write<'a> {
    Create { path: &'a str, record: &'a [u8] },
    Update { path: &'a str, record: &'a [u8] },
    Delete { path: &'a str },
}

#[derive(Debug)]
pub struct Account {
    did: String,
    handle: String,
    key: SigningKey,
    tree: Tree,
    /// Rev and root of the newest commit.
    head: Option<(Tid, Cid)>,
    active: bool,
}

impl<'a> Write<'a> {
    fn path(&self) -> &'a str {
        match self {
            Self::Create { path, .. } | Self::Update { path, .. } | Self::Delete { path } => path,
        }
    }

    fn record(&self) -> Option<&'a [u8]> {
        match self {
            Self::Create { record, .. } | Self::Update { record, .. } => Some(record),
            Self::Delete { .. } => None,
        }
    }
}

impl Account {
    /// An account with an empty repository and no commit yet.
    pub fn new(seed: u64, index: u64, curve: Curve) -> Self {
        Self {
            did: plc_did(seed, index),
            handle: format!("user{index}.test"),
            key: SigningKey::from_seed(curve, format!("loadgen key {seed} {index}").as_bytes()),
            tree: Tree::default(),
            head: None,
            active: true,
        }
    }

    pub fn did(&self) -> &str {
        &self.did
    }

    pub fn handle(&self) -> &str {
        &self.handle
    }

    pub fn curve(&self) -> Curve {
        self.key.curve()
    }

    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    pub fn verifying_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// The DID document with the present key and handle; `pds` is a URL without a path.
    pub fn document(&self, pds: &str) -> String {
        did_document(&self.did, &self.handle, &self.key.verifying_key(), pds)
    }

    pub fn is_active(&self) -> bool {
        self.active
    }

    pub fn rev(&self) -> Option<String> {
        self.head.map(|(rev, _)| rev.to_string())
    }

    /// The root of the newest commit.
    pub fn data(&self) -> Option<Cid> {
        self.head.map(|(_, data)| data)
    }

    pub fn contains(&self, path: &str) -> bool {
        self.tree.get(path.as_bytes()).is_some()
    }

    /// Fills the repository without an event, as if it had been written long before.
    pub fn prefill<'a>(&mut self, records: impl Iterator<Item = (&'a str, Cid)>, micros: u64) {
        for (path, cid) in records {
            self.tree.insert(path.as_bytes(), cid);
        }
        self.head = Some((Tid::from_parts(micros, 0), self.tree.root()));
    }

    /// A `#commit` frame with one create.
    pub fn create(&mut self, stamp: Stamp, path: &str, record: &[u8]) -> Vec<u8> {
        self.commit(stamp, &[Write::Create { path, record }])
    }

    /// A `#commit` frame with one update. The record must be there.
    pub fn update(&mut self, stamp: Stamp, path: &str, record: &[u8]) -> Vec<u8> {
        self.commit(stamp, &[Write::Update { path, record }])
    }

    /// A `#commit` frame with one delete. The record must be there.
    pub fn delete(&mut self, stamp: Stamp, path: &str) -> Vec<u8> {
        self.commit(stamp, &[Write::Delete { path }])
    }

    /// A `#commit` frame with any number of writes, also none; each path at most once.
    pub fn commit(&mut self, stamp: Stamp, writes: &[Write<'_>]) -> Vec<u8> {
        self.draft(stamp, writes).encode()
    }

    /// Commits the writes and gives the `#commit` with its fields open, for tests that falsify it.
    pub fn draft(&mut self, stamp: Stamp, writes: &[Write<'_>]) -> CommitDraft {
        let ops: Vec<OpDraft> = writes.iter().map(|write| self.apply(write)).collect();
        let before = self.head;
        let (rev, commit, block) = self.sign_head(stamp.micros);
        let keys: Vec<&[u8]> = writes.iter().map(|write| write.path().as_bytes()).collect();
        let mut car = CarWriter::new(&commit);
        car.block(&commit, &block);
        for (cid, node) in self.tree.proof(&keys) {
            car.block(&cid, &node);
        }
        for (op, record) in ops.iter().zip(writes.iter().map(Write::record)) {
            if let (Some(cid), Some(record)) = (&op.cid, record) {
                car.block(cid, record);
            }
        }
        CommitDraft {
            seq: stamp.seq,
            did: self.did.clone(),
            time: clock::datetime(stamp.micros),
            rev: rev.to_string(),
            since: before.map(|(rev, _)| rev.to_string()),
            commit,
            prev_data: before.map(|(_, data)| data),
            blocks: car.finish(),
            ops,
            too_big: false,
            rebase: false,
        }
    }

    /// Puts the write into the tree.
    fn apply(&mut self, write: &Write<'_>) -> OpDraft {
        let path = write.path();
        let cid = write.record().map(Cid::of_dag_cbor);
        let prev = match cid {
            Some(cid) => self.tree.insert(path.as_bytes(), cid),
            None => self.tree.remove(path.as_bytes()),
        };
        let action = match write {
            Write::Create { .. } => "create",
            Write::Update { .. } => "update",
            Write::Delete { .. } => "delete",
        };
        OpDraft { action, path: path.to_owned(), cid, prev }
    }

    /// Makes a new commit on the tree as it is: rev, CID and block.
    fn sign_head(&mut self, micros: u64) -> (Tid, Cid, Vec<u8>) {
        let data = self.tree.root();
        let rev = self.next_rev(micros);
        self.head = Some((rev, data));
        let block = commit_block(&self.key, &self.did, &rev.to_string(), &data);
        (rev, Cid::of_dag_cbor(&block), block)
    }

    /// The time's rev, or the least above the last one if the time has not moved on.
    fn next_rev(&self, micros: u64) -> Tid {
        let rev = Tid::from_parts(micros, 0);
        match self.head {
            Some((last, _)) if last >= rev => Tid::from_u64(last.as_u64() + 1),
            _ => rev,
        }
    }

    /// A `#sync` frame with a new commit on the tree as it is.
    pub fn sync(&mut self, stamp: Stamp) -> Vec<u8> {
        let (rev, commit, block) = self.sign_head(stamp.micros);
        let mut car = CarWriter::new(&commit);
        car.block(&commit, &block);
        let time = clock::datetime(stamp.micros);
        frame::sync(stamp.seq, &self.did, &time, &rev.to_string(), &car.finish())
    }

    /// An `#identity` frame with the present handle.
    pub fn identity(&self, stamp: Stamp) -> Vec<u8> {
        frame::identity(stamp.seq, &self.did, &clock::datetime(stamp.micros), Some(&self.handle))
    }

    /// An `#account` frame: deactivated.
    pub fn deactivate(&mut self, stamp: Stamp) -> Vec<u8> {
        self.set_status(stamp, false, Some("deactivated"))
    }

    /// An `#account` frame: active again.
    pub fn activate(&mut self, stamp: Stamp) -> Vec<u8> {
        self.set_status(stamp, true, None)
    }

    /// An `#account` frame with any status.
    pub fn set_status(&mut self, stamp: Stamp, active: bool, status: Option<&str>) -> Vec<u8> {
        self.active = active;
        frame::account(stamp.seq, &self.did, &clock::datetime(stamp.micros), active, status)
    }
}

/// A signed commit object, version 3.
pub fn commit_block(key: &SigningKey, did: &str, rev: &str, data: &Cid) -> Vec<u8> {
    let signature = key.sign(&commit_object(did, rev, data, None));
    commit_object(did, rev, data, Some(&signature))
}

fn commit_object(did: &str, rev: &str, data: &Cid, signature: Option<&[u8; 64]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    cbor::map(5 + usize::from(signature.is_some()), &mut out);
    cbor::text_field("did", did, &mut out);
    cbor::text_field("rev", rev, &mut out);
    if let Some(signature) = signature {
        cbor::text("sig", &mut out);
        cbor::bytes(signature, &mut out);
    }
    cbor::text("data", &mut out);
    cbor::link(data, &mut out);
    cbor::text("prev", &mut out);
    cbor::null(&mut out);
    cbor::text("version", &mut out);
    cbor::unsigned(3, &mut out);
    out
}
