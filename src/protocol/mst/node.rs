//! The strict reading and the writing of tree nodes:
//! `{e: [{k: suffix, p: prefix length, t: link or null, v: link}, …], l: link or null}`.

use super::{
    MstError,
    unhashed::{Hole, Link},
};
use crate::{
    cbor::{self, LINK_PREFIX, Reader},
    cid::{CID_BYTES, Cid, Codec},
};

/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Keys of one node. A node has four on average; the chance of more than some hundred is nil.
pub const ENTRIES_MAX: usize = 1_024;
/// Bytes of all the keys that one inversion may read.
const ARENA_BYTES_MAX: usize = 4 << 20;

/// Keys are prefix-compressed in nodes; here they stand in full, until the event is done.
#[derive(Debug, Default)]
pub(super) struct KeyArena {
    bytes: Vec<u8>,
}

/// A key in the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyRef {
    start: u32,
    length: u32,
}

/// An entry of a node that has been read. CIDs are left in the block, by offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: KeyRef,
    value: u32,
    /// Zero: no link.
    link: u32,
}

impl KeyArena {
    pub(super) fn clear(&mut self) {
        const BYTES_KEPT: usize = 256 << 10;
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_KEPT);
    }

    #[inline]
    pub(super) fn get(&self, key: KeyRef) -> &[u8] {
        &self.bytes[key.start as usize..][..key.length as usize]
    }

    /// Adds the first `prefix` bytes of `previous`, and `suffix`.
    #[inline]
    pub(super) fn push(
        &mut self,
        previous: KeyRef,
        prefix: usize,
        suffix: &[u8],
    ) -> Result<KeyRef, MstError> {
        let length = prefix + suffix.len();
        if length > KEY_BYTES_MAX {
            return Err(MstError::Malformed);
        }
        if self.bytes.len() + length > ARENA_BYTES_MAX {
            return Err(MstError::TooLarge);
        }
        let key = KeyRef { start: self.bytes.len() as u32, length: length as u32 };
        let from = previous.start as usize;
        self.bytes.extend_from_within(from..from + prefix);
        self.bytes.extend_from_slice(suffix);
        Ok(key)
    }
}

impl Entry {
    #[inline]
    pub(super) fn value(&self, block: &[u8]) -> Result<Cid, MstError> {
        cid_at(block, self.value)
    }

    #[inline]
    pub(super) fn link(&self, block: &[u8]) -> Result<Option<Cid>, MstError> {
        link_at(block, self.link)
    }
}

#[inline]
pub(super) fn link_at(block: &[u8], offset: u32) -> Result<Option<Cid>, MstError> {
    if offset == 0 { Ok(None) } else { cid_at(block, offset).map(Some) }
}

#[inline]
fn cid_at(block: &[u8], offset: u32) -> Result<Cid, MstError> {
    let bytes = block.get(offset as usize..offset as usize + CID_BYTES);
    Cid::parse(bytes.unwrap_or_default()).map_err(|_| MstError::Malformed)
}

#[inline]
fn literal(reader: &mut Reader<'_>, bytes: &[u8]) -> Result<(), MstError> {
    if reader.literal(bytes) { Ok(()) } else { Err(MstError::Malformed) }
}

/// Reads a link and gives the offset of its CID.
#[inline]
fn link(reader: &mut Reader<'_>) -> Result<u32, MstError> {
    literal(reader, &LINK_PREFIX)?;
    let offset = reader.position() as u32;
    reader.raw(CID_BYTES).map_err(|_| MstError::Malformed)?;
    Ok(offset)
}

#[inline]
fn link_or_null(reader: &mut Reader<'_>) -> Result<u32, MstError> {
    if reader.null() { Ok(0) } else { link(reader) }
}

/// The head of a node: how many entries follow.
#[inline]
fn head(reader: &mut Reader<'_>) -> Result<usize, MstError> {
    literal(reader, b"\xa2\x61e")?;
    let count = reader.array().map_err(|_| MstError::Malformed)? as usize;
    if count > ENTRIES_MAX { Err(MstError::Malformed) } else { Ok(count) }
}

/// One entry's suffix, prefix length, link and value.
#[inline]
fn entry<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], usize, u32, u32), MstError> {
    literal(reader, b"\xa4\x61k")?;
    let suffix = reader.byte_string().map_err(|_| MstError::Malformed)?;
    literal(reader, b"\x61p")?;
    let prefix = reader.unsigned().map_err(|_| MstError::Malformed)? as usize;
    literal(reader, b"\x61t")?;
    let right = link_or_null(reader)?;
    literal(reader, b"\x61v")?;
    let value = link(reader)?;
    Ok((suffix, prefix, right, value))
}

/// Appends a node's entries and gives the offset of its left link (zero: none). Keys rise, and
/// prefixes are as long as they can be; layers and bounds are the caller's to check.
pub(super) fn read(
    block: &[u8],
    keys: &mut KeyArena,
    entries: &mut Vec<Entry>,
) -> Result<u32, MstError> {
    let mut reader = Reader::new(block);
    let count = head(&mut reader)?;
    let mut previous = KeyRef::default();
    for _ in 0..count {
        let (suffix, prefix, link, value) = entry(&mut reader)?;
        // The first byte behind the shared prefix must rise: by that the prefix is maximal and the
        // key is above the one before. A key that extends the one before rises by any byte.
        let length = previous.length as usize;
        let first = *suffix.first().ok_or(MstError::Malformed)?;
        if prefix > length || (prefix < length && first <= keys.get(previous)[prefix]) {
            return Err(MstError::Malformed);
        }
        previous = keys.push(previous, prefix, suffix)?;
        entries.push(Entry { key: previous, value, link });
    }
    literal(&mut reader, b"\x61l")?;
    let left = link_or_null(&mut reader)?;
    reader.finish().map_err(|_| MstError::Malformed)?;
    Ok(left)
}

/// The first key of a node, which stands there in full; `None` for a node without entries.
pub(super) fn first_key(block: &[u8]) -> Result<Option<&[u8]>, MstError> {
    let mut reader = Reader::new(block);
    if head(&mut reader)? == 0 {
        return Ok(None);
    }
    let (suffix, ..) = entry(&mut reader)?;
    Ok(Some(suffix))
}

/// Encodes one node, entry by entry.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeWriter {
    /// Room for the head, then the entries.
    bytes: Vec<u8>,
    count: usize,
    /// Offsets are within `bytes`.
    holes: Vec<Hole>,
}

/// Map head, key `e`, and an array head of up to three bytes.
const HEAD_ROOM: usize = 6;

impl NodeWriter {
    pub(super) fn clear(&mut self) {
        const BYTES_KEPT: usize = 16 << 10;
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_KEPT);
        self.count = 0;
        self.holes.clear();
    }

    #[inline]
    pub(super) fn entry(&mut self, previous: &[u8], key: &[u8], value: &Cid, right: Option<&Link>) {
        let out = &mut self.bytes;
        if self.count == 0 {
            out.clear();
            out.extend_from_slice(&[0; HEAD_ROOM]);
        }
        let prefix = if self.count == 0 { 0 } else { common_prefix(previous, key) };
        out.extend_from_slice(b"\xa4\x61k");
        cbor::write::byte_string(out, &key[prefix..]);
        out.extend_from_slice(b"\x61p");
        cbor::write::unsigned(out, prefix as u64);
        out.extend_from_slice(b"\x61t");
        link_to(out, &mut self.holes, right);
        out.extend_from_slice(b"\x61v");
        cbor::write::link(out, value);
        self.count += 1;
    }

    /// The node's bytes, complete but for the digests in its holes. The writer must be cleared
    /// before it is used again.
    pub(super) fn finish(&mut self, left: Option<&Link>) -> (&[u8], &[Hole]) {
        let out = &mut self.bytes;
        if self.count == 0 {
            out.clear();
            out.extend_from_slice(&[0; HEAD_ROOM]);
        }
        out.extend_from_slice(b"\x61l");
        link_to(out, &mut self.holes, left);
        let count = self.count;
        let array: &[u8] = match count {
            0..24 => &[0x80 | count as u8],
            24..0x100 => &[0x98, count as u8],
            _ => &[0x99, (count >> 8) as u8, count as u8],
        };
        let start = HEAD_ROOM - 3 - array.len();
        out[start..start + 3].copy_from_slice(b"\xa2\x61e");
        out[start + 3..HEAD_ROOM].copy_from_slice(array);
        self.holes.iter_mut().for_each(|hole| hole.offset -= start as u32);
        (&self.bytes[start..], &self.holes)
    }
}

fn link_to(out: &mut Vec<u8>, holes: &mut Vec<Hole>, link: Option<&Link>) {
    match link {
        Some(Link::Cid(cid)) => cbor::write::link(out, cid),
        Some(Link::Node(node)) => {
            const DIGEST: [u8; 32] = [0; 32];
            cbor::write::link(out, &Cid::from_digest(Codec::DagCbor, DIGEST));
            holes.push(Hole { offset: (out.len() - DIGEST.len()) as u32, node: *node });
        }
        None => cbor::write::null(out),
    }
}

#[inline]
fn common_prefix(first: &[u8], second: &[u8]) -> usize {
    first.iter().zip(second).take_while(|(a, b)| a == b).count()
}
