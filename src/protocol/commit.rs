//! The commit object of a repository, version 3: what an account signs.

use std::ops::Range;

use crate::{
    cbor::{self, Reader},
    cid::Cid,
    error::{DecodeError, DecodeErrorKind as Kind},
};

const VERSION: i64 = 3;

/// A commit. Fields that this version does not know are kept in the signed bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit<'a> {
    pub did: &'a str,
    pub rev: &'a str,
    pub data: Cid,
    pub prev: Option<Cid>,
    pub sig: &'a [u8; 64],
    block: &'a [u8],
    pairs: u32,
    pairs_start: usize,
    /// Key and value of `sig` in the block.
    sig_span: Range<usize>,
}

/// Reads a commit block: strict DAG-CBOR, all fields of version 3 present.
pub fn parse(block: &[u8]) -> Result<Commit<'_>, DecodeError> {
    let mut reader = Reader::new(block);
    let mut keys = reader.map()?;
    let (pairs, pairs_start) = (keys.remaining(), reader.position());
    let (mut did, mut rev, mut data, mut prev, mut sig, mut version) =
        (None, None, None, None, None, None);
    let mut sig_span = 0..0;
    loop {
        let start = reader.position();
        let Some(key) = keys.next(&mut reader)? else { break };
        match key {
            "did" => did = Some(reader.text()?),
            "rev" => rev = Some(reader.text()?),
            "sig" => {
                let error = reader.error(Kind::FieldInvalid);
                sig = Some(reader.byte_string()?.try_into().map_err(|_| error)?);
                sig_span = start..reader.position();
            }
            "data" => data = Some(reader.link()?),
            "prev" => prev = Some(reader.nullable(Reader::link)?),
            "version" => version = Some(reader.integer()?),
            _ => reader.skip()?,
        }
    }
    reader.finish()?;
    let missing = DecodeError::new(Kind::FieldMissing, 0);
    let links_fit = [data, prev.flatten()].iter().flatten().all(Cid::is_dag_cbor);
    if version.ok_or(missing)? != VERSION || !links_fit {
        return Err(DecodeError::new(Kind::FieldInvalid, 0));
    }
    Ok(Commit {
        did: did.ok_or(missing)?,
        rev: rev.ok_or(missing)?,
        data: data.ok_or(missing)?,
        prev: prev.ok_or(missing)?,
        sig: sig.ok_or(missing)?,
        block,
        pairs,
        pairs_start,
        sig_span,
    })
}

impl Commit<'_> {
    /// Replaces `out` by the bytes that were signed: the whole map without `sig`.
    pub fn unsigned_bytes(&self, out: &mut Vec<u8>) {
        out.clear();
        cbor::write::map(out, u64::from(self.pairs) - 1);
        out.extend_from_slice(&self.block[self.pairs_start..self.sig_span.start]);
        out.extend_from_slice(&self.block[self.sig_span.end..]);
    }
}

/// Writes a commit for signing (`sig` absent) or for a block (`sig` present).
pub fn write(
    out: &mut Vec<u8>,
    did: &str,
    rev: &str,
    data: &Cid,
    prev: Option<&Cid>,
    sig: Option<&[u8; 64]>,
) {
    cbor::write::map(out, 5 + u64::from(sig.is_some()));
    cbor::write::text(out, "did");
    cbor::write::text(out, did);
    cbor::write::text(out, "rev");
    cbor::write::text(out, rev);
    if let Some(sig) = sig {
        cbor::write::text(out, "sig");
        cbor::write::byte_string(out, sig);
    }
    cbor::write::text(out, "data");
    cbor::write::link(out, data);
    cbor::write::text(out, "prev");
    match prev {
        Some(prev) => cbor::write::link(out, prev),
        None => cbor::write::null(out),
    }
    cbor::write::text(out, "version");
    cbor::write::integer(out, VERSION);
}
