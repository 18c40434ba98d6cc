//! The full and strict reading of a frame.

use super::{
    AccountEvent, Action, Body, CommitEvent, Event, FrameKind, IdentityEvent, Op, SyncEvent,
    check_size, read_header,
};
use crate::{
    cbor::{MapKeys, Reader},
    cid::Cid,
    error::{DecodeError, DecodeErrorKind as Kind},
};

/// The fields that all events share.
#[derive(Default)]
struct Common<'a> {
    seq: Option<u64>,
    seq_start: usize,
    seq_end: usize,
    did: Option<&'a str>,
    time: Option<&'a str>,
}

/// The payload of one event while it is read.
struct Payload<'a> {
    reader: Reader<'a>,
    keys: MapKeys<'a>,
    kind: FrameKind,
    common: Common<'a>,
}

/// Reads one of the four events: both objects canonical, required fields there and of their types,
/// nothing behind. Unknown fields are checked for form only.
pub fn parse(frame: &[u8]) -> Result<Event<'_>, DecodeError> {
    check_size(frame)?;
    let mut reader = Reader::new(frame);
    let header = read_header(&mut reader)?;
    let kind = match (header.op, header.t) {
        (1, Some(t)) => FrameKind::from_type(t),
        _ => None,
    };
    let kind = kind.ok_or(DecodeError::new(Kind::FrameUnknown, 0))?;
    let keys = reader.map()?;
    let mut payload = Payload { reader, keys, kind, common: Common::default() };
    let body = match kind {
        FrameKind::Commit => Body::Commit(payload.commit()?),
        FrameKind::Sync => Body::Sync(payload.sync()?),
        FrameKind::Identity => Body::Identity(payload.identity()?),
        FrameKind::Account => Body::Account(payload.account()?),
    };
    payload.reader.finish()?;
    let missing = payload.missing();
    let Common { seq, seq_start, seq_end, did, time } = payload.common;
    Ok(Event {
        seq: seq.ok_or(missing)?,
        seq_span: seq_start..seq_end,
        did: did.ok_or(missing)?,
        time: time.ok_or(missing)?,
        body,
    })
}

impl<'a> Payload<'a> {
    fn missing(&self) -> DecodeError {
        self.reader.error(Kind::FieldMissing)
    }

    /// The next field that is not one of the common ones.
    #[inline]
    fn next(&mut self) -> Result<Option<&'a str>, DecodeError> {
        while let Some(key) = self.keys.next(&mut self.reader)? {
            match key {
                "seq" => {
                    self.common.seq_start = self.reader.position();
                    self.common.seq = Some(self.reader.unsigned()?);
                    self.common.seq_end = self.reader.position();
                }
                "time" => self.common.time = Some(self.reader.text()?),
                _ if key == self.kind.did_field() => self.common.did = Some(self.reader.text()?),
                _ => return Ok(Some(key)),
            }
        }
        Ok(None)
    }

    fn commit(&mut self) -> Result<CommitEvent<'a>, DecodeError> {
        let (mut rev, mut since, mut commit, mut prev_data) = (None, None, None, None);
        let (mut blocks, mut ops, mut blobs) = (None, None, false);
        let (mut too_big, mut rebase) = (None, None);
        while let Some(key) = self.next()? {
            let reader = &mut self.reader;
            match key {
                "rev" => rev = Some(reader.text()?),
                "since" => since = Some(reader.nullable(Reader::text)?),
                "commit" => commit = Some(reader.link()?),
                "prevData" => prev_data = reader.nullable(Reader::link)?,
                "blocks" => blocks = Some(reader.byte_string()?),
                "ops" => ops = Some(Ops::read(reader)?),
                "blobs" => blobs = reader.nullable(read_blobs)?.is_some(),
                "tooBig" => too_big = Some(reader.boolean()?),
                "rebase" => rebase = Some(reader.boolean()?),
                _ => reader.skip()?,
            }
        }
        let missing = self.missing();
        Ok(CommitEvent {
            rev: rev.ok_or(missing)?,
            since: since.ok_or(missing)?,
            commit: commit.ok_or(missing)?,
            prev_data,
            blocks: blocks.ok_or(missing)?,
            ops: ops.ok_or(missing)?,
            too_big: too_big.unwrap_or(false),
            rebase: rebase.unwrap_or(false),
            lacks_defaults: too_big.is_none() || rebase.is_none() || !blobs,
        })
    }

    fn sync(&mut self) -> Result<SyncEvent<'a>, DecodeError> {
        let (mut rev, mut blocks) = (None, None);
        while let Some(key) = self.next()? {
            match key {
                "rev" => rev = Some(self.reader.text()?),
                "blocks" => blocks = Some(self.reader.byte_string()?),
                _ => self.reader.skip()?,
            }
        }
        let missing = self.missing();
        Ok(SyncEvent { rev: rev.ok_or(missing)?, blocks: blocks.ok_or(missing)? })
    }

    fn identity(&mut self) -> Result<IdentityEvent<'a>, DecodeError> {
        let mut handle = None;
        while let Some(key) = self.next()? {
            match key {
                "handle" => handle = self.reader.nullable(Reader::text)?,
                _ => self.reader.skip()?,
            }
        }
        Ok(IdentityEvent { handle })
    }

    fn account(&mut self) -> Result<AccountEvent<'a>, DecodeError> {
        let (mut active, mut status) = (None, None);
        while let Some(key) = self.next()? {
            match key {
                "active" => active = Some(self.reader.boolean()?),
                "status" => status = self.reader.nullable(Reader::text)?,
                _ => self.reader.skip()?,
            }
        }
        Ok(AccountEvent { active: active.ok_or(self.missing())?, status })
    }
}

fn read_blobs(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    for _ in 0..reader.array()? {
        reader.link()?;
    }
    Ok(())
}

/// The operations of a #commit: checked, and read again at each iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ops<'a> {
    /// The elements of the CBOR array, without its head.
    items: &'a [u8],
    count: u32,
}

impl<'a> Ops<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.array()?;
        let start = reader.position();
        for _ in 0..count {
            read_op(reader)?;
        }
        Ok(Self { items: reader.since(start), count })
    }

    /// Reads operations from the CBOR array that holds them in a frame.
    pub fn parse(array: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(array);
        let ops = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(ops)
    }

    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> OpsIter<'a> {
        OpsIter { reader: Reader::new(self.items), remaining: self.count }
    }
}

impl<'a> IntoIterator for &Ops<'a> {
    type Item = Op<'a>;
    type IntoIter = OpsIter<'a>;

    fn into_iter(self) -> OpsIter<'a> {
        self.iter()
    }
}

#[derive(Clone, Debug)]
pub struct OpsIter<'a> {
    reader: Reader<'a>,
    remaining: u32,
}

impl<'a> Iterator for OpsIter<'a> {
    type Item = Op<'a>;

    fn next(&mut self) -> Option<Op<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
        // The same bytes were read without error when the `Ops` was made.
        read_op(&mut self.reader).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining as usize, Some(self.remaining as usize))
    }
}

impl ExactSizeIterator for OpsIter<'_> {}

/// `{cid, path, prev?, action}`. A create or update has a CID, a delete has none.
fn read_op<'a>(reader: &mut Reader<'a>) -> Result<Op<'a>, DecodeError> {
    let invalid = reader.error(Kind::OpInvalid);
    let missing = reader.error(Kind::FieldMissing);
    let mut keys = reader.map()?;
    let (mut action, mut path, mut prev) = (None, None, None);
    let mut cid: Option<Option<Cid>> = None;
    while let Some(key) = keys.next(reader)? {
        match key {
            "cid" => cid = Some(reader.nullable(Reader::link)?),
            "path" => path = Some(reader.text()?),
            "prev" => prev = reader.nullable(Reader::link)?,
            "action" => {
                action = Some(match reader.text()? {
                    "create" => Action::Create,
                    "update" => Action::Update,
                    "delete" => Action::Delete,
                    _ => return Err(invalid),
                });
            }
            _ => reader.skip()?,
        }
    }
    let action = action.ok_or(missing)?;
    let cid = cid.ok_or(missing)?;
    if cid.is_none() != (action == Action::Delete) {
        return Err(invalid);
    }
    Ok(Op { action, path: path.ok_or(missing)?, cid, prev })
}
