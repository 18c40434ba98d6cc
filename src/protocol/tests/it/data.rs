//! Files under `tests/data`, and small tools that several tests share.

use std::path::PathBuf;

use protocol::{
    Cid,
    car::{self, BlockMap},
    cbor,
    frame::{Action, Ops},
    mst,
};
use serde_json::Value;

/// An operation as a test writes it down.
#[derive(Clone, Debug)]
pub(crate) struct TestOp {
    pub(crate) action: Action,
    pub(crate) path: String,
    pub(crate) cid: Option<Cid>,
    pub(crate) prev: Option<Cid>,
}

pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data")).join(name)
}

pub(crate) fn read(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("tests/data/{name}: {error}"))
}

pub(crate) fn json(name: &str) -> Vec<Value> {
    serde_json::from_slice(&read(name)).unwrap()
}

pub(crate) fn cid(value: &Value) -> Cid {
    value.as_str().unwrap().parse().unwrap()
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// The frames of a file with one `{"hex": …}` a line.
pub(crate) fn hex_lines(name: &str) -> Vec<Vec<u8>> {
    let text = String::from_utf8(read(name)).unwrap();
    let frame = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        hex(line["hex"].as_str().unwrap())
    };
    text.lines().filter(|line| !line.is_empty()).map(frame).collect()
}

/// The frames of a corpus host: a length as `u32` big-endian, then the frame.
pub(crate) fn corpus_frames(host: usize) -> Vec<Vec<u8>> {
    let bytes = read(&format!("corpus/hosts/{host}.frames"));
    let mut rest = &bytes[..];
    let mut frames = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (frame, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        frames.push(frame.to_vec());
        rest = tail;
    }
    frames
}

/// Operations as the CBOR array that a frame holds.
pub(crate) fn encode_ops(ops: &[TestOp]) -> Vec<u8> {
    let mut out = Vec::new();
    cbor::write::array(&mut out, ops.len() as u64);
    for op in ops {
        cbor::write::map(&mut out, 3 + u64::from(op.prev.is_some()));
        cbor::write::text(&mut out, "cid");
        match &op.cid {
            Some(cid) => cbor::write::link(&mut out, cid),
            None => cbor::write::null(&mut out),
        }
        cbor::write::text(&mut out, "path");
        cbor::write::text(&mut out, &op.path);
        if let Some(prev) = &op.prev {
            cbor::write::text(&mut out, "prev");
            cbor::write::link(&mut out, prev);
        }
        cbor::write::text(&mut out, "action");
        cbor::write::text(
            &mut out,
            match op.action {
                Action::Create => "create",
                Action::Update => "update",
                Action::Delete => "delete",
            },
        );
    }
    out
}

pub(crate) fn encode_car<'a>(
    root: &Cid,
    blocks: impl IntoIterator<Item = &'a (Cid, Vec<u8>)>,
) -> Vec<u8> {
    let mut out = Vec::new();
    car::write_header(&mut out, root);
    for (cid, data) in blocks {
        car::write_block(&mut out, cid, data);
    }
    out
}

/// Undoes the operations, hashing at once, and holds it against hashing later, of two at a time.
pub(crate) fn invert(
    root: Cid,
    ops: Ops<'_>,
    blocks: &BlockMap<'_>,
    scratch: &mut mst::Scratch,
) -> Result<Cid, mst::MstError> {
    let at_once = mst::invert(root, ops, blocks, scratch);
    let mut unhashed = mst::Unhashed::default();
    let twice = [(); 2].map(|()| mst::invert_later(root, ops, blocks, scratch, &mut unhashed));
    unhashed.hash();
    for later in twice {
        // What went wrong may be told differently, but not whether.
        let later = later.ok().and_then(|undone| unhashed.root(&undone));
        assert_eq!(later, at_once.ok());
    }
    at_once
}
