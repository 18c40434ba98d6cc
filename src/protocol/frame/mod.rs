//! Frames of `com.atproto.sync.subscribeRepos`: two DAG-CBOR objects, header and payload.
//!
//! There are two ways to read one. [`skim`] finds out what a frame is and whose account it speaks
//! of, so that it can be carried to where the account lives; [`parse`] reads and checks all of it.
//! A frame is never encoded again: a relay puts its own `seq` in the place of the host's
//! ([`Event::seq_span`], [`write_seq`]), and the cold-path rewrites in this module copy every byte
//! that they don't have to change.

mod parse;
mod rewrite;

use std::ops::Range;

pub use parse::{Ops, OpsIter, parse};
pub use rewrite::{account_frame, error_frame, info_frame, with_defaults, without_handle};

use crate::{
    cbor::{self, Reader},
    cid::Cid,
    error::{DecodeError, DecodeErrorKind as Kind},
};

/// A frame's size limit, header and payload together.
pub const FRAME_BYTES_MAX: usize = 5_000_000;
/// `blocks` of a #commit.
pub const COMMIT_BLOCKS_BYTES_MAX: usize = 2_000_000;
/// `blocks` of a #sync.
pub const SYNC_BLOCKS_BYTES_MAX: usize = 10_000;
/// Operations of a #commit.
pub const OPS_MAX: usize = 200;
/// A record block of a #commit.
pub const RECORD_BYTES_MAX: usize = 1_048_576;

/// The events that carry a `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    Commit,
    Sync,
    Identity,
    Account,
}

impl FrameKind {
    /// The kind for the header's `t`.
    pub fn from_type(t: &str) -> Option<Self> {
        match t {
            "#commit" => Some(Self::Commit),
            "#sync" => Some(Self::Sync),
            "#identity" => Some(Self::Identity),
            "#account" => Some(Self::Account),
            _ => None,
        }
    }

    /// The payload's field for the account's DID.
    fn did_field(self) -> &'static str {
        match self {
            Self::Commit => "repo",
            _ => "did",
        }
    }
}

/// What a frame is, as far as its place in the relay depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skim<'a> {
    Event { kind: FrameKind, did: &'a str, seq: u64 },
    Info { name: &'a str, message: Option<&'a str> },
    Error { error: &'a str, message: Option<&'a str> },
    Unknown { t: Option<&'a str>, op: i64 },
}

/// A frame that has been read in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    pub seq: u64,
    /// The bytes of the `seq` integer in the frame.
    pub seq_span: Range<usize>,
    pub did: &'a str,
    pub time: &'a str,
    pub body: Body<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    Commit(CommitEvent<'a>),
    Sync(SyncEvent<'a>),
    Identity(IdentityEvent<'a>),
    Account(AccountEvent<'a>),
}

impl Body<'_> {
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Commit(_) => FrameKind::Commit,
            Self::Sync(_) => FrameKind::Sync,
            Self::Identity(_) => FrameKind::Identity,
            Self::Account(_) => FrameKind::Account,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitEvent<'a> {
    pub rev: &'a str,
    pub since: Option<&'a str>,
    pub commit: Cid,
    pub prev_data: Option<Cid>,
    pub blocks: &'a [u8],
    pub ops: Ops<'a>,
    pub too_big: bool,
    pub rebase: bool,
    /// Deprecated fields that the lexicon still requires are missing: [`with_defaults`] adds them.
    pub lacks_defaults: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncEvent<'a> {
    pub rev: &'a str,
    pub blocks: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityEvent<'a> {
    pub handle: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountEvent<'a> {
    pub active: bool,
    pub status: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Create,
    Update,
    Delete,
}

/// One change of a record. A CID is there unless the record was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op<'a> {
    pub action: Action,
    pub path: &'a str,
    pub cid: Option<Cid>,
    /// The record's CID before the commit; absent for a create, and from old hosts.
    pub prev: Option<Cid>,
}

/// The header: `op`, and `t` if `op` is 1.
struct Header<'a> {
    op: i64,
    t: Option<&'a str>,
}

fn read_header<'a>(reader: &mut Reader<'a>) -> Result<Header<'a>, DecodeError> {
    let mut keys = reader.map()?;
    let (mut op, mut t) = (None, None);
    while let Some(key) = keys.next(reader)? {
        match key {
            "op" => op = Some(reader.integer()?),
            "t" => t = Some(reader.text()?),
            _ => reader.skip()?,
        }
    }
    let missing = reader.error(Kind::FieldMissing);
    let op = op.ok_or(missing)?;
    if op == 1 && t.is_none() { Err(missing) } else { Ok(Header { op, t }) }
}

fn check_size(frame: &[u8]) -> Result<(), DecodeError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(DecodeError::new(Kind::FrameTooLarge, FRAME_BYTES_MAX));
    }
    Ok(())
}

/// Reads the header, and of the payload as much as it takes to know the account and the `seq`.
/// What it has read is strict; what stands behind it is left to [`parse`].
pub fn skim(frame: &[u8]) -> Result<Skim<'_>, DecodeError> {
    check_size(frame)?;
    let mut reader = Reader::new(frame);
    let header = read_header(&mut reader)?;
    match (header.op, header.t) {
        (1, Some("#info")) => {
            let (name, message) = read_notice(&mut reader, "name")?;
            Ok(Skim::Info { name, message })
        }
        (1, Some(t)) => match FrameKind::from_type(t) {
            Some(kind) => skim_event(&mut reader, kind),
            None => Ok(Skim::Unknown { t: Some(t), op: 1 }),
        },
        (-1, _) => {
            let (error, message) = read_notice(&mut reader, "error")?;
            Ok(Skim::Error { error, message })
        }
        (op, t) => Ok(Skim::Unknown { t, op }),
    }
}

fn skim_event<'a>(reader: &mut Reader<'a>, kind: FrameKind) -> Result<Skim<'a>, DecodeError> {
    let mut keys = reader.map()?;
    let (mut did, mut seq) = (None, None);
    while let Some(key) = keys.next(reader)? {
        match key {
            "seq" => seq = Some(reader.unsigned()?),
            _ if key == kind.did_field() => did = Some(reader.text()?),
            _ => reader.skip()?,
        }
        if let (Some(did), Some(seq)) = (did, seq) {
            return Ok(Skim::Event { kind, did, seq });
        }
    }
    Err(reader.error(Kind::FieldMissing))
}

/// The payload of `#info` (field `name`) or of an error frame (field `error`).
fn read_notice<'a>(
    reader: &mut Reader<'a>,
    field: &str,
) -> Result<(&'a str, Option<&'a str>), DecodeError> {
    let mut keys = reader.map()?;
    let (mut name, mut message) = (None, None);
    while let Some(key) = keys.next(reader)? {
        match key {
            "message" => message = reader.nullable(Reader::text)?,
            _ if key == field => name = Some(reader.text()?),
            _ => reader.skip()?,
        }
    }
    reader.finish()?;
    Ok((name.ok_or(reader.error(Kind::FieldMissing))?, message))
}

/// Appends a `seq` as it stands in a frame: a canonical CBOR integer of 1 to 9 bytes.
#[inline]
pub fn write_seq(seq: u64, out: &mut Vec<u8>) {
    cbor::write::unsigned(out, seq);
}
