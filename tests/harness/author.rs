//! Accounts whose commits tests write and sign, so that any part of them can be spoilt.
//!
//! An event is a JSON value without its seq, as in [`super::json`]; what is left alone in it is what
//! an honest host would send.

use std::collections::BTreeMap;

use data_encoding::BASE64_NOPAD;
use ecdsa::{Curve, sign::SigningKey};
use protocol::{Cid, car, cbor::write, commit, key, mst::tree::Tree, syntax::Tid};
use serde_json::{Value, json};

use super::{FakePds, FakePlc, plc};

/// Of all events; it is only for show.
pub const TIME: &str = "2026-01-01T00:00:00.000Z";

pub struct Author {
    pub did: String,
    pub key: SigningKey,
    tree: Tree,
    records: BTreeMap<String, Cid>,
    rev: Option<u64>,
    data: Option<Cid>,
    count: u64,
    /// The last commit block.
    head: Option<(Cid, Vec<u8>)>,
}

/// A commit to come: what is signed, and what goes with it.
#[derive(Clone)]
pub struct Draft {
    pub did: String,
    pub rev: String,
    pub since: Option<String>,
    pub data: Cid,
    pub prev: Option<Cid>,
    pub prev_data: Option<Cid>,
    pub ops: Vec<Value>,
    /// Without the commit itself.
    pub blocks: Vec<(Cid, Vec<u8>)>,
}

impl Author {
    /// The n-th account; a number is one account in a test.
    pub fn new(number: u64) -> Self {
        Self::with_did(&did(number), number)
    }

    pub fn with_did(did: &str, number: u64) -> Self {
        let curve = if number.is_multiple_of(2) { Curve::K256 } else { Curve::P256 };
        Self {
            did: did.to_owned(),
            key: SigningKey::from_seed(curve, &number.to_le_bytes()),
            tree: Tree::default(),
            records: BTreeMap::new(),
            rev: None,
            data: None,
            count: 0,
            head: None,
        }
    }

    pub fn document(&self, pds_url: &str) -> String {
        let key = key::multibase_string(&self.key.verifying_key());
        plc::document(&self.did, &key, &self.handle(), pds_url)
    }

    pub fn handle(&self) -> String {
        format!("{}.test", &self.did[8..14])
    }

    pub fn register(&self, plc: &FakePlc, pds: &FakePds) {
        plc.put(&self.did, self.document(&pds.url()));
    }

    pub fn rev(&self) -> String {
        Tid::from_u64(self.rev.unwrap_or(0)).to_string()
    }

    pub fn data(&self) -> Option<Cid> {
        self.data
    }

    /// Changes the repository and writes down what an honest commit of it would say.
    pub fn draft(&mut self, changes: &[(&str, Option<Vec<u8>>)]) -> Draft {
        let (mut ops, mut blocks) = (Vec::new(), Vec::new());
        for (path, record) in changes {
            let before = self.records.get(*path).copied();
            let after = record.as_ref().map(|record| Cid::of_dag_cbor(record));
            let action = match (before, after) {
                (_, None) => "delete",
                (None, _) => "create",
                (Some(_), Some(_)) => "update",
            };
            match after {
                Some(cid) => {
                    self.tree.insert(path.as_bytes(), cid);
                    self.records.insert((*path).to_owned(), cid);
                    blocks.push((cid, record.clone().unwrap_or_default()));
                }
                None => {
                    self.tree.remove(path.as_bytes());
                    self.records.remove(*path);
                }
            }
            let mut op = json!({ "action": action, "path": path, "cid": nullable(after) });
            if let Some(before) = before {
                op["prev"] = link(before);
            }
            ops.push(op);
        }
        let keys: Vec<&[u8]> = changes.iter().map(|(path, _)| path.as_bytes()).collect();
        blocks.extend(self.tree.proof(&keys));
        let next = match self.rev {
            Some(rev) => rev + 1024,
            None => Tid::from_parts(1_700_000_000_000_000, 1).as_u64(),
        };
        let draft = Draft {
            did: self.did.clone(),
            rev: Tid::from_u64(next).to_string(),
            since: self.rev.map(|rev| Tid::from_u64(rev).to_string()),
            data: self.tree.root(),
            prev: None,
            prev_data: self.data,
            ops,
            blocks,
        };
        self.rev = Some(next);
        self.data = Some(draft.data);
        draft
    }

    /// Signs the draft with the account's key.
    pub fn seal(&mut self, draft: &Draft) -> Value {
        let key = self.key.clone();
        self.seal_with(draft, &key)
    }

    pub fn seal_with(&mut self, draft: &Draft, key: &SigningKey) -> Value {
        let mut unsigned = Vec::new();
        let write_commit = |out: &mut Vec<u8>, sig| {
            commit::write(out, &draft.did, &draft.rev, &draft.data, draft.prev.as_ref(), sig);
        };
        write_commit(&mut unsigned, None);
        let mut block = Vec::new();
        write_commit(&mut block, Some(&key.sign(&unsigned)));
        self.event(draft, block)
    }

    /// The event around a commit block, be it one or not.
    pub fn event(&mut self, draft: &Draft, block: Vec<u8>) -> Value {
        let cid = Cid::of_dag_cbor(&block);
        self.head = Some((cid, block.clone()));
        let mut blocks = vec![(cid, block)];
        blocks.extend(draft.blocks.iter().cloned());
        let mut body = json!({
            "repo": draft.did, "rev": draft.rev, "since": draft.since, "time": TIME,
            "commit": link(cid), "ops": draft.ops, "blobs": [], "rebase": false,
            "tooBig": false, "blocks": car(&cid, &blocks),
        });
        if let Some(data) = draft.prev_data {
            body["prevData"] = link(data);
        }
        body
    }

    pub fn commit(&mut self, changes: &[(&str, Option<Vec<u8>>)]) -> Value {
        let draft = self.draft(changes);
        self.seal(&draft)
    }

    /// A commit with one new record.
    pub fn post(&mut self) -> Value {
        let draft = self.draft_post();
        self.seal(&draft)
    }

    pub fn draft_post(&mut self) -> Draft {
        self.count += 1;
        let path = format!("app.bsky.feed.post/{}", self.count);
        let record = record(self.count);
        self.draft(&[(&path, Some(record))])
    }

    /// The last commit as a #sync.
    ///
    /// # Panics
    /// If there is none.
    pub fn sync(&self) -> Value {
        let (cid, block) = self.head.clone().unwrap();
        let blocks = car(&cid, &[(cid, block)]);
        json!({ "did": self.did, "rev": self.rev(), "time": TIME, "blocks": blocks })
    }

    pub fn identity(&self, handle: Option<&str>) -> Value {
        let mut body = json!({ "did": self.did, "time": TIME });
        if let Some(handle) = handle {
            body["handle"] = json!(handle);
        }
        body
    }

    pub fn account(&self, active: bool, status: Option<&str>) -> Value {
        let mut body = json!({ "did": self.did, "time": TIME, "active": active });
        if let Some(status) = status {
            body["status"] = json!(status);
        }
        body
    }
}

/// A valid did:plc for each number.
pub fn did(number: u64) -> String {
    let digits = b"abcdefghijklmnopqrstuvwxyz234567";
    let letter = |place: u32| char::from(digits[(number >> (5 * place) & 31) as usize]);
    let id: String = (0..12).map(letter).collect();
    format!("did:plc:{id}222222222222")
}

/// A record with a number in it.
pub fn record(number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    write::map(&mut out, 1);
    write::text(&mut out, "n");
    write::unsigned(&mut out, number);
    out
}

pub fn link(cid: Cid) -> Value {
    json!({ "$link": cid.to_string() })
}

pub fn bytes(bytes: &[u8]) -> Value {
    json!({ "$bytes": BASE64_NOPAD.encode(bytes) })
}

pub fn car(root: &Cid, blocks: &[(Cid, Vec<u8>)]) -> Value {
    let mut out = Vec::new();
    car::write_header(&mut out, root);
    for (cid, data) in blocks {
        car::write_block(&mut out, cid, data);
    }
    bytes(&out)
}

fn nullable(cid: Option<Cid>) -> Value {
    cid.map_or(Value::Null, link)
}
