//! Frames that the relay makes or changes. Cold paths: results are owned.

use serde::Serialize;

use super::{FrameKind, parse, read_header};
use crate::{
    cbor::{self, Reader},
    error::{DecodeError, DecodeErrorKind as Kind},
};

/// One pair of the payload: its key, and the bytes of key and value as they stand in the frame.
struct Pair<'a> {
    key: &'a str,
    bytes: &'a [u8],
}

/// Splits a valid frame into its header's bytes and the pairs of its payload.
fn split(frame: &[u8]) -> Result<(&[u8], Vec<Pair<'_>>), DecodeError> {
    let mut reader = Reader::new(frame);
    read_header(&mut reader)?;
    let header = reader.since(0);
    let mut keys = reader.map()?;
    let mut pairs = Vec::new();
    loop {
        let start = reader.position();
        let Some(key) = keys.next(&mut reader)? else { break };
        reader.skip()?;
        pairs.push(Pair { key, bytes: reader.since(start) });
    }
    Ok((header, pairs))
}

fn join(header: &[u8], pairs: &[Pair<'_>], bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(header);
    cbor::write::map(&mut out, pairs.len() as u64);
    for pair in pairs {
        out.extend_from_slice(pair.bytes);
    }
    out
}

/// An #identity without its handle. All other bytes stay as they are.
pub fn without_handle(frame: &[u8]) -> Result<Vec<u8>, DecodeError> {
    if parse(frame)?.body.kind() != FrameKind::Identity {
        return Err(DecodeError::new(Kind::FieldInvalid, 0));
    }
    let (header, mut pairs) = split(frame)?;
    pairs.retain(|pair| pair.key != "handle");
    Ok(join(header, &pairs, frame.len()))
}

/// A #commit with the deprecated fields that the lexicon requires: `tooBig` and `rebase` false,
/// `blobs` empty where they are missing or null. All other bytes stay as they are.
pub fn with_defaults(frame: &[u8]) -> Result<Vec<u8>, DecodeError> {
    const DEFAULTS: [(&str, &[u8]); 3] =
        [("blobs", b"\x65blobs\x80"), ("rebase", b"\x66rebase\xf4"), ("tooBig", b"\x66tooBig\xf4")];
    const BLOBS_NULL: &[u8] = b"\x65blobs\xf6";
    if parse(frame)?.body.kind() != FrameKind::Commit {
        return Err(DecodeError::new(Kind::FieldInvalid, 0));
    }
    let (header, mut pairs) = split(frame)?;
    pairs.retain(|pair| pair.bytes != BLOBS_NULL);
    for (key, bytes) in DEFAULTS {
        let order = |pair: &Pair<'_>| (pair.key.len(), pair.key).cmp(&(key.len(), key));
        if let Err(place) = pairs.binary_search_by(order) {
            pairs.insert(place, Pair { key, bytes });
        }
    }
    Ok(join(header, &pairs, frame.len() + 32))
}

#[derive(Serialize)]
struct Header<'a> {
    op: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<&'a str>,
}

#[derive(Serialize)]
struct AccountBody<'a> {
    did: &'a str,
    seq: u64,
    time: &'a str,
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct InfoBody<'a> {
    name: &'a str,
    message: &'a str,
}

/// An #account of the relay's own, with 0 in the place of its `seq`.
pub fn account_frame(did: &str, time: &str, active: bool, status: Option<&str>) -> Vec<u8> {
    encode(1, Some("#account"), &AccountBody { did, seq: 0, time, active, status })
}

/// The last frame of a stream that ends with an error.
pub fn error_frame(error: &str, message: &str) -> Vec<u8> {
    encode(-1, None, &ErrorBody { error, message })
}

/// An #info frame; it has no `seq`.
pub fn info_frame(name: &str, message: &str) -> Vec<u8> {
    encode(1, Some("#info"), &InfoBody { name, message })
}

/// A frame that is made here rather than passed on: rare, so the library's encoder will do.
fn encode(op: i64, t: Option<&str>, body: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    serde_ipld_dagcbor::to_writer(&mut out, &Header { op, t })
        .and_then(|()| serde_ipld_dagcbor::to_writer(&mut out, body))
        .expect("texts and numbers are encoded into memory");
    out
}
