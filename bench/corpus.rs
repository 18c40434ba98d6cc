//! The commits of `tests/data/corpus`, taken apart beforehand so that each step can be measured alone.

use std::{collections::HashMap, fs, path::PathBuf};

use ecdsa::{Check, VerifyingKey};
use protocol::{
    car::BlockTable,
    cid::Cid,
    commit, did_doc,
    frame::{self, Body},
};
use serde_json::Value;

pub(crate) struct Commit {
    pub(crate) frame: Vec<u8>,
    pub(crate) blocks: Vec<u8>,
    /// The signed commit block, and what was signed.
    pub(crate) block: Vec<u8>,
    pub(crate) unsigned: Vec<u8>,
    pub(crate) signature: [u8; 64],
    pub(crate) key: VerifyingKey,
    /// The root of the tree after the commit.
    pub(crate) data: Cid,
}

impl Commit {
    pub(crate) fn check(&self) -> Check<'_> {
        Check { key: &self.key, message: &self.unsigned, signature: &self.signature }
    }
}

/// # Panics
/// If the corpus is not there or not what it should be.
pub(crate) fn commits() -> Vec<Commit> {
    let keys = keys();
    let mut table = BlockTable::default();
    let mut commits = Vec::new();
    for host in 0..3 {
        let bytes = read(&format!("hosts/{host}.frames"));
        let mut rest = bytes.as_slice();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let (bytes, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
            rest = tail;
            commits.extend(take_apart(bytes, &keys, &mut table));
        }
    }
    commits
}

fn take_apart(
    bytes: &[u8],
    keys: &HashMap<String, VerifyingKey>,
    table: &mut BlockTable,
) -> Option<Commit> {
    let event = frame::parse(bytes).expect("corpus frame");
    let Body::Commit(body) = event.body else { return None };
    let blocks = table.load(body.blocks).expect("corpus CAR");
    let block = blocks.get(&body.commit).expect("commit block").to_vec();
    let object = commit::parse(&block).expect("corpus commit");
    let mut unsigned = Vec::new();
    object.unsigned_bytes(&mut unsigned);
    Some(Commit {
        frame: bytes.to_vec(),
        blocks: body.blocks.to_vec(),
        signature: *object.sig,
        data: object.data,
        key: keys[event.did],
        unsigned,
        block: block.clone(),
    })
}

fn keys() -> HashMap<String, VerifyingKey> {
    let documents: HashMap<String, Value> =
        serde_json::from_slice(&read("plc.json")).expect("corpus documents");
    let key = |did: &str, document: &Value| {
        let document = did_doc::parse(document.to_string().as_bytes(), did).expect("DID document");
        document.key.expect("signing key")
    };
    documents.iter().map(|(did, document)| (did.clone(), key(did, document))).collect()
}

fn read(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/corpus").join(name);
    fs::read(path).expect("the corpus in tests/data")
}
