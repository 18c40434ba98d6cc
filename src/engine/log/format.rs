//! Bytes on disk: file headers, index records, checkpoints, WebSocket headers (see `FORMAT.md`).

use std::{fmt, ops::Range};

use ports::{
    AccountId, EventKind, HostId, HostSeq, LocalStatus, LogRecord, RelaySeq, RepoHead,
    UpstreamStatus,
};

/// The version that this code writes, and the newest that it reads.
pub(super) const VERSION: u32 = 2;
/// Frames and records start here, so that the header's sectors are never written again.
pub(super) const HEADER_BYTES: u64 = 4096;
pub(super) const RECORD_BYTES: u64 = 128;
/// Offsets within a segment are 32 bits wide; a segment ends before one could overflow.
pub(super) const SEGMENT_BYTES_LIMIT: u64 = 1 << 31;
/// The longest WebSocket header that a server sends: two bytes and a 64-bit length.
const WS_HEADER_BYTES_MAX: usize = 10;

const HEADER_USED: usize = 64;
const DATA_MAGIC: &[u8; 8] = b"rlyrdata";
const INDEX_MAGIC: &[u8; 8] = b"rlyrindx";
const CHECKPOINT_MAGIC: &[u8; 8] = b"rlyrsync";
/// Two places, written in turn and in different sectors: one of them is always whole.
pub(super) const CHECKPOINT_OFFSETS: [u64; 2] = [1024, 2048];
pub(super) const CHECKPOINT_BYTES: usize = 32;

/// A place in the log: bytes of frames since the log's first one, over all segments.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPos(pub u64);

impl LogPos {
    /// The place `bytes` further on.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

impl fmt::Debug for LogPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogPos({})", self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Data,
    Index,
}

/// The header of a data or an index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) first_seq: RelaySeq,
    pub(super) base: LogPos,
    pub(super) created_micros: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Damaged,
    /// Written by a newer program.
    Newer(u32),
}

impl Header {
    pub(super) fn encode(&self, kind: FileKind) -> [u8; HEADER_USED] {
        let mut out = [0; HEADER_USED];
        out[..8].copy_from_slice(magic(kind));
        put_u32(&mut out, 8, VERSION);
        put_u32(&mut out, 12, HEADER_BYTES as u32);
        put_u64(&mut out, 16, self.first_seq.0);
        put_u64(&mut out, 24, self.base.0);
        put_u64(&mut out, 32, self.created_micros);
        put_u32(&mut out, 40, if kind == FileKind::Index { RECORD_BYTES as u32 } else { 0 });
        let crc = crc32c::crc32c(&out[..HEADER_USED - 4]);
        put_u32(&mut out, HEADER_USED - 4, crc);
        out
    }

    pub(super) fn decode(kind: FileKind, bytes: &[u8; HEADER_USED]) -> Result<Self, HeaderFault> {
        if &bytes[..8] != magic(kind) {
            return Err(HeaderFault::Damaged);
        }
        if crc32c::crc32c(&bytes[..HEADER_USED - 4]) != get_u32(bytes, HEADER_USED - 4) {
            return Err(HeaderFault::Damaged);
        }
        let version = get_u32(bytes, 8);
        if version > VERSION {
            return Err(HeaderFault::Newer(version));
        }
        if get_u32(bytes, 12) != HEADER_BYTES as u32 {
            return Err(HeaderFault::Damaged);
        }
        Ok(Self {
            first_seq: RelaySeq(get_u64(bytes, 16)),
            base: LogPos(get_u64(bytes, 24)),
            created_micros: get_u64(bytes, 32),
        })
    }

    pub(super) const BYTES: usize = HEADER_USED;
}

fn magic(kind: FileKind) -> &'static [u8; 8] {
    match kind {
        FileKind::Data => DATA_MAGIC,
        FileKind::Index => INDEX_MAGIC,
    }
}

/// How many records of a segment were on disk for certain when this was written.
pub(super) fn encode_checkpoint(count: u64) -> [u8; CHECKPOINT_BYTES] {
    let mut out = [0; CHECKPOINT_BYTES];
    out[..8].copy_from_slice(CHECKPOINT_MAGIC);
    put_u64(&mut out, 8, count);
    let crc = crc32c::crc32c(&out[..CHECKPOINT_BYTES - 4]);
    put_u32(&mut out, CHECKPOINT_BYTES - 4, crc);
    out
}

pub(super) fn decode_checkpoint(bytes: &[u8; CHECKPOINT_BYTES]) -> Option<u64> {
    let whole = &bytes[..8] == CHECKPOINT_MAGIC
        && crc32c::crc32c(&bytes[..CHECKPOINT_BYTES - 4]) == get_u32(bytes, CHECKPOINT_BYTES - 4);
    whole.then(|| get_u64(bytes, 8))
}

/// One event in an index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) event: LogRecord,
    /// Where the frame starts, counted from the segment's first frame.
    pub(super) offset: u32,
    /// Bytes in the data file: WebSocket header, event header, body.
    pub(super) len: u32,
    /// CRC-32C of those bytes.
    pub(super) frame_crc: u32,
    /// Made anew from the data file: account, host and the host's seq are not known.
    pub(super) rebuilt: bool,
    /// Its account was taken down: the frame is blank, or will be, and nobody gets it.
    pub(super) erased: bool,
}

const FLAG_HEAD: u8 = 1;
const FLAG_REBUILT: u8 = 2;
const FLAG_ERASED: u8 = 4;

impl Record {
    /// Where the next frame starts, counted from the segment's first frame.
    pub(super) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.len)
    }

    pub(super) fn encode(&self) -> [u8; RECORD_BYTES as usize] {
        let mut out = [0; RECORD_BYTES as usize];
        let event = &self.event;
        put_u32(&mut out, 4, self.frame_crc);
        put_u64(&mut out, 8, event.seq.0);
        put_u32(&mut out, 16, self.offset);
        put_u32(&mut out, 20, self.len);
        put_u64(&mut out, 24, event.time_micros);
        put_u64(&mut out, 32, event.account.0);
        put_u64(&mut out, 40, event.host_seq.0);
        put_u32(&mut out, 56, event.host.0);
        out[60] = event.kind as u8;
        out[61] = event.upstream.code();
        out[62] = event.local as u8;
        let mut flags = if self.rebuilt { FLAG_REBUILT } else { 0 };
        if self.erased {
            flags |= FLAG_ERASED;
        }
        if let Some(head) = &event.head {
            flags |= FLAG_HEAD;
            put_u64(&mut out, 48, head.rev);
            out[64..96].copy_from_slice(&head.data);
            out[96..128].copy_from_slice(&head.commit);
        }
        out[63] = flags;
        let crc = crc32c::crc32c(&out[4..]);
        put_u32(&mut out, 0, crc);
        out
    }

    /// `None` if the bytes are not what [`Record::encode`] made.
    pub(super) fn decode(bytes: &[u8; RECORD_BYTES as usize]) -> Option<Self> {
        if crc32c::crc32c(&bytes[4..]) != get_u32(bytes, 0) {
            return None;
        }
        let flags = bytes[63];
        let head = (flags & FLAG_HEAD != 0).then(|| {
            let mut head = RepoHead { rev: get_u64(bytes, 48), data: [0; 32], commit: [0; 32] };
            head.data.copy_from_slice(&bytes[64..96]);
            head.commit.copy_from_slice(&bytes[96..128]);
            head
        });
        let event = LogRecord {
            seq: RelaySeq(get_u64(bytes, 8)),
            kind: EventKind::from_code(bytes[60])?,
            account: AccountId(get_u64(bytes, 32)),
            host: HostId(get_u32(bytes, 56)),
            host_seq: HostSeq(get_u64(bytes, 40)),
            time_micros: get_u64(bytes, 24),
            upstream: UpstreamStatus::from_code(bytes[61]),
            local: LocalStatus::from_code(bytes[62]),
            head,
        };
        Some(Self {
            event,
            offset: get_u32(bytes, 16),
            len: get_u32(bytes, 20),
            frame_crc: get_u32(bytes, 4),
            rebuilt: flags & FLAG_REBUILT != 0,
            erased: flags & FLAG_ERASED != 0,
        })
    }

    /// The record of the same event without its frame, and the bytes that take the frame's place.
    pub(super) fn erase(&self) -> (Self, Vec<u8>) {
        let blank = blank_frame(self.len as usize);
        (Self { frame_crc: crc32c::crc32c(&blank), erased: true, ..*self }, blank)
    }
}

/// What an erased frame of `len` bytes is: a WebSocket header that fits, and zeros.
pub(super) fn blank_frame(len: usize) -> Vec<u8> {
    let mut blank = vec![0; len];
    // A longer header takes more of the length, so at most one of the three fits.
    for used in [2, 4, 10] {
        if let Some(message) = len.checked_sub(used)
            && let (header, fits) = ws_header(message)
            && fits == used
        {
            blank[..used].copy_from_slice(&header[..used]);
        }
    }
    blank
}

/// The header of an unmasked, final binary message of `len` bytes; the length of the header.
pub(super) fn ws_header(len: usize) -> ([u8; WS_HEADER_BYTES_MAX], usize) {
    let mut out = [0; WS_HEADER_BYTES_MAX];
    out[0] = 0x82;
    let used = match len {
        0..126 => {
            out[1] = len as u8;
            2
        }
        126..65_536 => {
            out[1] = 126;
            out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = 127;
            out[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    (out, used)
}

/// Steps over a WebSocket header: its own length, and the message's.
pub(super) fn parse_ws_header(bytes: &[u8]) -> Option<(usize, u64)> {
    if *bytes.first()? != 0x82 {
        return None;
    }
    let (used, len) = match *bytes.get(1)? {
        short @ 0..126 => (2, u64::from(short)),
        126 => (4, u64::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        _ => return None,
    };
    Some((used, len))
}

/// Where the message lies in the event that the stream goes on with: behind its WebSocket header, to
/// the event's end. `None` if these bytes are no header, or not all of one.
pub fn message_span(bytes: &[u8]) -> Option<Range<usize>> {
    let (used, len) = parse_ws_header(bytes)?;
    Some(used..used.checked_add(usize::try_from(len).ok()?)?)
}

pub(super) fn put_u32(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(out: &mut [u8], at: usize, value: u64) {
    out[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(get_u32(bytes, at)) | u64::from(get_u32(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let head = proptest::option::of((any::<u64>(), any::<[u8; 32]>(), any::<[u8; 32]>()));
        let ids = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>());
        let place = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>());
        let flags = (any::<bool>(), any::<bool>());
        (head, ids, place, 1..5u8, any::<u8>(), 0..3u8, flags).prop_map(
            |(
                head,
                (seq, account, host, host_seq),
                (offset, len, crc, time),
                kind,
                up,
                local,
                (rebuilt, erased),
            )| {
                Record {
                    event: LogRecord {
                        seq: RelaySeq(seq),
                        kind: EventKind::from_code(kind).unwrap(),
                        account: AccountId(account),
                        host: HostId(host),
                        host_seq: HostSeq(host_seq),
                        time_micros: time,
                        upstream: UpstreamStatus::from_code(up & 0x87),
                        local: LocalStatus::from_code(local),
                        head: head.map(|(rev, data, commit)| RepoHead { rev, data, commit }),
                    },
                    offset,
                    len,
                    frame_crc: crc,
                    rebuilt,
                    erased,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_comes_back_and_any_flipped_bit_is_seen(record in record(), bit in 0..1024usize) {
            let mut bytes = record.encode();
            prop_assert_eq!(Record::decode(&bytes), Some(record));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Record::decode(&bytes), None);
        }

        #[test]
        fn a_file_header_comes_back_and_any_flipped_bit_is_seen(
            first in any::<u64>(), base in any::<u64>(), bit in 0..512usize,
        ) {
            let header =
                Header { first_seq: RelaySeq(first), base: LogPos(base), created_micros: 7 };
            let mut bytes = header.encode(FileKind::Index);
            prop_assert_eq!(Header::decode(FileKind::Index, &bytes), Ok(header));
            prop_assert_eq!(Header::decode(FileKind::Data, &bytes), Err(HeaderFault::Damaged));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Header::decode(FileKind::Index, &bytes), Err(HeaderFault::Damaged));
        }

        #[test]
        fn a_websocket_header_comes_back(len in 0..5_000_000usize) {
            let (bytes, used) = ws_header(len);
            prop_assert_eq!(parse_ws_header(&bytes[..used]), Some((used, len as u64)));
            prop_assert_eq!(parse_ws_header(&bytes[..used - 1]), None);
            let blank = blank_frame(used + len);
            prop_assert_eq!(&blank[..used], &bytes[..used]);
            prop_assert!(blank[used..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_file_of_a_newer_version_is_named_as_such() {
        let header = Header { first_seq: RelaySeq(1), base: LogPos(0), created_micros: 0 };
        let mut bytes = header.encode(FileKind::Data);
        put_u32(&mut bytes, 8, VERSION + 1);
        let crc = crc32c::crc32c(&bytes[..HEADER_USED - 4]);
        put_u32(&mut bytes, HEADER_USED - 4, crc);
        assert_eq!(Header::decode(FileKind::Data, &bytes), Err(HeaderFault::Newer(VERSION + 1)));
    }
}
