//! What each fuzz target does with its input. The functions are plain, so that the crate's tests
//! run them too: over the corpora, and over seeded mutations of them.

use ecdsa::{Curve, VerifyingKey};
use ipld_core::ipld::Ipld;
use protocol::{
    Cid,
    car::{self, BlockMap, BlockTable, CarReader},
    cbor::{self, DEPTH_MAX, Reader},
    commit,
    did_doc::{self, Endpoint},
    frame::{self, Action, Body, Ops, Skim},
    key,
    mst::{self, MstError, Scratch, Unhashed, tree::Tree},
    syntax,
};

/// The strict cursor against the library, both ways, and records against both.
pub fn cbor(data: &[u8]) {
    let mut reader = Reader::new(data);
    let strict = reader.skip().and_then(|()| reader.finish());
    let record = cbor::check_record(data);
    assert!(strict.is_err() || record.is_ok(), "strict, but not well-formed");
    let oracle: Option<Ipld> = serde_ipld_dagcbor::from_slice(data).ok();
    let canonical = oracle
        .as_ref()
        .is_some_and(|ipld| serde_ipld_dagcbor::to_vec(ipld).is_ok_and(|bytes| bytes == data));
    if strict.is_ok() {
        assert!(canonical, "accepted what the library refuses or writes otherwise");
    } else if let Some(ipld) = oracle {
        assert!(!canonical || !allowed(&ipld, DEPTH_MAX), "refused {strict:?}: {ipld:?}");
    }
}

/// Whether a value is within what the cursor allows beyond the canonical form.
pub fn allowed(ipld: &Ipld, depth: u32) -> bool {
    match ipld {
        Ipld::Null | Ipld::Bool(_) | Ipld::String(_) | Ipld::Bytes(_) => true,
        Ipld::Integer(value) => i64::try_from(*value).is_ok(),
        Ipld::Float(_) => false,
        Ipld::Link(cid) => Cid::parse(&cid.to_bytes()).is_ok(),
        Ipld::List(items) => depth > 0 && items.iter().all(|item| allowed(item, depth - 1)),
        Ipld::Map(pairs) => {
            depth > 0
                && pairs
                    .iter()
                    .all(|(key, item)| key.len() <= cbor::KEY_BYTES_MAX && allowed(item, depth - 1))
        }
    }
}

/// Skim and parse agree, rewrites stay readable, and a commit's blocks and operations are survived.
pub fn frame(data: &[u8]) {
    let skim = frame::skim(data);
    let Ok(event) = frame::parse(data) else { return };
    let kind = event.body.kind();
    assert_eq!(skim, Ok(Skim::Event { kind, did: event.did, seq: event.seq }));
    let mut seq = Vec::new();
    frame::write_seq(event.seq, &mut seq);
    assert_eq!(seq, data[event.seq_span.clone()]);
    match &event.body {
        Body::Commit(body) => {
            assert_eq!(body.ops.iter().count(), body.ops.len());
            let whole = frame::with_defaults(data).unwrap_or_default();
            assert_eq!(whole == data, !body.lacks_defaults);
            assert!(matches!(
                frame::parse(&whole).map(|event| event.body),
                Ok(Body::Commit(body)) if !body.lacks_defaults
            ));
            let mut table = BlockTable::default();
            if let Ok(map) = table.load(body.blocks)
                && let Some(commit) = map.get(&map.root()).and_then(|data| commit::parse(data).ok())
            {
                let _ = invert(commit.data, body.ops, &map, &mut Scratch::default());
            }
        }
        Body::Identity(body) => {
            let bare = frame::without_handle(data).unwrap_or_default();
            assert!(body.handle.is_none() || bare.len() < data.len());
            assert!(matches!(
                frame::parse(&bare).map(|event| event.body),
                Ok(Body::Identity(body)) if body.handle.is_none()
            ));
        }
        Body::Sync(_) | Body::Account(_) => {}
    }
}

/// What the table holds is what the reader gives, with hashes that fit.
pub fn car(data: &[u8]) {
    let Ok(reader) = CarReader::new(data) else { return };
    let blocks: Result<Vec<_>, _> = reader.collect();
    let mut table = BlockTable::default();
    match (table.load(data), blocks) {
        (Ok(map), Ok(blocks)) => {
            for block in blocks {
                assert!(block.cid.matches(block.data));
                assert_eq!(map.get(&block.cid), Some(block.data));
            }
        }
        (Ok(_), Err(error)) => panic!("the table took what the reader refuses: {error}"),
        (Err(_), _) => {}
    }
}

/// The signed bytes are the block without its signature.
pub fn commit(data: &[u8]) {
    let Ok(commit) = commit::parse(data) else { return };
    let mut unsigned = Vec::new();
    commit.unsigned_bytes(&mut unsigned);
    let whole: Result<Ipld, _> = serde_ipld_dagcbor::from_slice(data);
    let Ok(Ipld::Map(mut pairs)) = whole else { panic!("not a map") };
    assert_eq!(pairs.remove("sig"), Some(Ipld::Bytes(commit.sig.to_vec())));
    assert_eq!(serde_ipld_dagcbor::to_vec(&pairs).ok(), Some(unsigned));
}

/// Undoes operations, hashing at once, and holds it against hashing later.
fn invert(
    root: Cid,
    ops: Ops<'_>,
    blocks: &BlockMap<'_>,
    scratch: &mut Scratch,
) -> Result<Cid, MstError> {
    let at_once = mst::invert(root, ops, blocks, scratch);
    let mut unhashed = Unhashed::default();
    let later = mst::invert_later(root, ops, blocks, scratch, &mut unhashed);
    unhashed.hash();
    assert_eq!(later.ok().and_then(|undone| unhashed.root(&undone)), at_once.ok());
    at_once
}

/// A node from outside as the root of a tree, under operations of each kind.
pub fn node(data: &[u8]) {
    let root = Cid::of_dag_cbor(data);
    let value = Cid::of_dag_cbor(b"value");
    let mut blocks = Vec::new();
    car::write_header(&mut blocks, &root);
    car::write_block(&mut blocks, &root, data);
    let mut table = BlockTable::default();
    let Ok(map) = table.load(&blocks) else { panic!("a block with its own hash was refused") };
    let mut scratch = Scratch::default();
    for action in [Action::Create, Action::Update, Action::Delete] {
        let ops = encode_op(action, "com.example.record/3jqfcqzm3fo2j", &value);
        let Ok(ops) = Ops::parse(&ops) else { panic!("a good operation was refused") };
        let _ = invert(root, ops, &map, &mut scratch);
    }
}

/// The input is a program: it builds a tree, makes a commit, and damages the commit's blocks.
/// Whole blocks must lead back; damaged ones may do anything but panic or lead elsewhere unnoticed.
pub fn inversion(data: &[u8]) {
    let (build, rest) = data.split_at(data.len() / 2);
    let key = |byte: u8| format!("com.example.record/{byte:03}");
    let value = |byte: u8, turn: u8| Cid::of_dag_cbor(&[byte, turn]);
    let mut tree = Tree::default();
    for byte in build {
        tree.insert(key(*byte).as_bytes(), value(*byte, 0));
    }
    let before = tree.root();
    let mut ops = Vec::new();
    let mut changed = std::collections::BTreeSet::new();
    for byte in rest.iter().take(200).filter(|byte| changed.insert(**byte)) {
        let path = key(*byte);
        let action = match tree.get(path.as_bytes()) {
            None => Action::Create,
            Some(_) if byte % 3 == 0 => Action::Update,
            Some(_) => Action::Delete,
        };
        if action == Action::Delete {
            tree.remove(path.as_bytes());
        } else {
            tree.insert(path.as_bytes(), value(*byte, 1));
        }
        ops.push((action, path, *byte));
    }
    let mut array = Vec::new();
    cbor::write::array(&mut array, ops.len() as u64);
    for (action, path, byte) in &ops {
        write_op(&mut array, *action, path, &value(*byte, 1), &value(*byte, 0));
    }
    let Ok(array) = Ops::parse(&array) else { panic!("good operations were refused") };
    let after = tree.root();
    let keys: Vec<&[u8]> = ops.iter().map(|(_, path, _)| path.as_bytes()).collect();
    let mut blocks = tree.proof(&keys);
    let mut scratch = Scratch::default();
    let mut undo = |root: Cid, blocks: &[(Cid, Vec<u8>)]| {
        let mut bytes = Vec::new();
        car::write_header(&mut bytes, &root);
        for (cid, data) in blocks {
            car::write_block(&mut bytes, cid, data);
        }
        let mut table = BlockTable::default();
        let Ok(map) = table.load(&bytes) else { panic!("blocks with their hashes were refused") };
        invert(root, array, &map, &mut scratch)
    };
    assert_eq!(undo(after, &blocks), Ok(before));

    let sum = data.iter().fold(7usize, |sum, byte| sum.wrapping_mul(31) ^ usize::from(*byte));
    damage(&mut blocks, sum);
    let damaged = blocks[0].0;
    let _ = undo(damaged, &blocks);
}

/// Flips bits of one node, and makes the nodes above it link to what it has become, so that it is
/// looked into. Parents come before their children.
fn damage(blocks: &mut [(Cid, Vec<u8>)], seed: usize) {
    let chosen = seed % blocks.len();
    let data = &mut blocks[chosen].1;
    let at = (seed / 8) % data.len();
    data[at] ^= (seed / 1024) as u8 | 1;
    for index in (0..=chosen).rev() {
        let (above, node) = blocks.split_at_mut(index);
        let (cid, data) = &mut node[0];
        let old = std::mem::replace(cid, Cid::of_dag_cbor(data));
        for (_, parent) in above {
            let at = parent.windows(36).position(|window| window == old.as_bytes());
            if let Some(at) = at {
                parent[at..at + 36].copy_from_slice(cid.as_bytes());
            }
        }
    }
}

fn encode_op(action: Action, path: &str, cid: &Cid) -> Vec<u8> {
    let mut array = Vec::new();
    cbor::write::array(&mut array, 1);
    write_op(&mut array, action, path, cid, cid);
    array
}

fn write_op(out: &mut Vec<u8>, action: Action, path: &str, cid: &Cid, prev: &Cid) {
    cbor::write::map(out, 3 + u64::from(action != Action::Create));
    cbor::write::text(out, "cid");
    match action {
        Action::Delete => cbor::write::null(out),
        Action::Create | Action::Update => cbor::write::link(out, cid),
    }
    cbor::write::text(out, "path");
    cbor::write::text(out, path);
    if action != Action::Create {
        cbor::write::text(out, "prev");
        cbor::write::link(out, prev);
    }
    cbor::write::text(out, "action");
    cbor::write::text(
        out,
        match action {
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
        },
    );
}

/// A document as if asked for by its own name: endpoint and handle read back as themselves.
pub fn did_doc(data: &[u8]) {
    let _ = did_doc::parse(data, "did:plc:jxez6oruacp4rzleeldguf7x");
    let did = serde_json::from_slice::<serde_json::Value>(data)
        .ok()
        .and_then(|json| json.get("id")?.as_str().map(str::to_owned));
    let Some(Ok(document)) = did.map(|did| did_doc::parse(data, &did)) else { return };
    if let Some(pds) = document.pds {
        assert_eq!(Endpoint::parse(&pds.to_string()), Some(pds));
    }
    if let Some(handle) = document.handle {
        assert!(syntax::handle::check(&handle));
    }
}

/// Text that is read as a key is the one spelling of it; a bare point has two.
pub fn key(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(key) = key::parse_did_key(text) {
        assert_eq!(key::did_key_string(&key), text);
    }
    if let Ok(key) = key::parse_multibase(text) {
        assert_eq!(key::multibase_string(&key), text);
    }
    for curve in [Curve::K256, Curve::P256] {
        if let Ok(key) = key::parse_legacy_multibase(curve, text) {
            assert_eq!(key::parse_multibase(&key::multibase_string(&key)), Ok(key));
        }
        if let Ok(key) = VerifyingKey::from_sec1(curve, data) {
            assert!(data == key.to_sec1_compressed() || data == key.to_sec1_uncompressed());
            assert_eq!(VerifyingKey::from_bytes(&key.to_bytes()), Ok(key));
        }
    }
}

/// All identifiers: what is accepted stays itself, and its parts are valid in themselves.
pub fn syntax(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(tid) = text.parse::<syntax::Tid>() {
        assert_eq!(tid.to_string(), text);
    }
    if syntax::datetime::unix_micros(text).is_some() {
        assert!(syntax::datetime::check(text));
    }
    if syntax::did::is_plc(text) || syntax::did::web_authority(text).is_some() {
        assert!(syntax::did::check(text).is_ok());
    }
    if let Some((collection, key)) = syntax::repo_path::split(text) {
        assert!(syntax::nsid::check(collection) && syntax::record_key::check(key));
        assert!(syntax::at_uri::check(&format!("at://did:web:example.com/{text}")));
    }
    if let Some(parts) = syntax::at_uri::split(text) {
        assert!(
            syntax::did::check(parts.authority).is_ok() || syntax::handle::check(parts.authority)
        );
    }
    if syntax::nsid::check(text) {
        let _ = syntax::nsid::is_normal(text);
    }
    let _ = syntax::handle::is_reserved(text);
    if let Some(endpoint) = Endpoint::parse(text) {
        assert_eq!(Endpoint::parse(&endpoint.to_string()), Some(endpoint));
    }
}
