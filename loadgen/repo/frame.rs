//! Event frames (header object, then body object) with all fields open, so that a test can
//! falsify any of them before the frame is encoded.

use protocol::cid::Cid;

use super::cbor;

/// A `#commit` before it is encoded.
#[derive(Clone, Debug)]
pub struct CommitDraft {
    pub seq: u64,
    pub did: String,
    pub time: String,
    pub rev: String,
    pub since: Option<String>,
    pub commit: Cid,
    /// Left out of the frame if `None`.
    pub prev_data: Option<Cid>,
    /// CAR v1.
    pub blocks: Vec<u8>,
    pub ops: Vec<OpDraft>,
    pub too_big: bool,
    pub rebase: bool,
}

/// One operation of a `#commit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpDraft {
    /// `create`, `update` or `delete`.
    pub action: &'static str,
    pub path: String,
    pub cid: Option<Cid>,
    /// Left out of the frame if `None`.
    pub prev: Option<Cid>,
}

impl CommitDraft {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.blocks.len() + 512 + 160 * self.ops.len());
        self.encode_into(&mut out);
        out
    }

    pub fn encode_into(&self, out: &mut Vec<u8>) {
        header("#commit", out);
        cbor::map(11 + usize::from(self.prev_data.is_some()), out);
        cbor::text("ops", out);
        cbor::array(self.ops.len(), out);
        for op in &self.ops {
            op.encode_into(out);
        }
        cbor::text_field("rev", &self.rev, out);
        cbor::text("seq", out);
        cbor::unsigned(self.seq, out);
        cbor::text_field("repo", &self.did, out);
        cbor::text_field("time", &self.time, out);
        cbor::text("blobs", out);
        cbor::array(0, out);
        cbor::text("since", out);
        cbor::text_or_null(self.since.as_deref(), out);
        cbor::text("blocks", out);
        cbor::bytes(&self.blocks, out);
        cbor::text("commit", out);
        cbor::link(&self.commit, out);
        cbor::text("rebase", out);
        cbor::boolean(self.rebase, out);
        cbor::text("tooBig", out);
        cbor::boolean(self.too_big, out);
        if let Some(prev_data) = &self.prev_data {
            cbor::text("prevData", out);
            cbor::link(prev_data, out);
        }
    }
}

impl OpDraft {
    fn encode_into(&self, out: &mut Vec<u8>) {
        cbor::map(3 + usize::from(self.prev.is_some()), out);
        cbor::text("cid", out);
        cbor::link_or_null(self.cid.as_ref(), out);
        cbor::text_field("path", &self.path, out);
        if let Some(prev) = &self.prev {
            cbor::text("prev", out);
            cbor::link(prev, out);
        }
        cbor::text_field("action", self.action, out);
    }
}

/// `{"t": t, "op": 1}`
fn header(t: &str, out: &mut Vec<u8>) {
    cbor::map(2, out);
    cbor::text_field("t", t, out);
    cbor::text("op", out);
    cbor::unsigned(1, out);
}

pub fn sync(seq: u64, did: &str, time: &str, rev: &str, blocks: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(blocks.len() + 256);
    header("#sync", &mut out);
    cbor::map(5, &mut out);
    cbor::text_field("did", did, &mut out);
    cbor::text_field("rev", rev, &mut out);
    cbor::text("seq", &mut out);
    cbor::unsigned(seq, &mut out);
    cbor::text_field("time", time, &mut out);
    cbor::text("blocks", &mut out);
    cbor::bytes(blocks, &mut out);
    out
}

pub fn identity(seq: u64, did: &str, time: &str, handle: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    header("#identity", &mut out);
    cbor::map(3 + usize::from(handle.is_some()), &mut out);
    cbor::text_field("did", did, &mut out);
    cbor::text("seq", &mut out);
    cbor::unsigned(seq, &mut out);
    cbor::text_field("time", time, &mut out);
    if let Some(handle) = handle {
        cbor::text_field("handle", handle, &mut out);
    }
    out
}

pub fn account(seq: u64, did: &str, time: &str, active: bool, status: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    header("#account", &mut out);
    cbor::map(4 + usize::from(status.is_some()), &mut out);
    cbor::text_field("did", did, &mut out);
    cbor::text("seq", &mut out);
    cbor::unsigned(seq, &mut out);
    cbor::text_field("time", time, &mut out);
    cbor::text("active", &mut out);
    cbor::boolean(active, &mut out);
    if let Some(status) = status {
        cbor::text_field("status", status, &mut out);
    }
    out
}

/// `#info`, which has no seq.
pub fn info(name: &str, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    header("#info", &mut out);
    cbor::map(2, &mut out);
    cbor::text_field("name", name, &mut out);
    cbor::text_field("message", message, &mut out);
    out
}

/// An error frame: `{"op": -1}`, then name and message. The stream ends behind it.
pub fn error(name: &str, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    cbor::map(1, &mut out);
    cbor::text("op", &mut out);
    cbor::integer(-1, &mut out);
    cbor::map(2, &mut out);
    cbor::text_field("error", name, &mut out);
    cbor::text_field("message", message, &mut out);
    out
}
