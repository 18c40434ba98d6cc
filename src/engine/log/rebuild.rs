//! Makes an index anew from its data file, by walking the frames.
//!
//! Records of the old index that still fit are kept. For the others everything that stands in the
//! frame is found again; the ids of account and host and the host's own seq are not in there and
//! become zero.

use std::{
    io::{self, ErrorKind},
    path::Path,
    time::SystemTime,
};

use ports::{
    AccountId, EventKind, HostId, HostSeq, LocalStatus, LogRecord, RelaySeq, RepoHead, StatusWord,
    UpstreamStatus,
};
use protocol::{
    car::CarReader,
    cid::Cid,
    commit,
    frame::{self, Body, Event, FRAME_BYTES_MAX},
    syntax::tid::Tid,
};

use super::{
    erase::Gaps,
    format::{FileKind, HEADER_BYTES, Header, RECORD_BYTES, Record, parse_ws_header},
    scan::note,
    segment::Extent,
    shared::micros,
    storage::{Handle, Storage, replace_file},
};

pub(super) struct Rebuilt {
    pub(super) index: Handle,
    /// As far as the data file has whole frames with the expected numbers.
    pub(super) extent: Extent,
    /// Frames of taken-down accounts.
    pub(super) gaps: Gaps,
    /// Those of them that were not overwritten.
    pub(super) unblanked: Vec<Record>,
}

/// Replaces the index of a data file.
pub(super) fn rebuild(
    storage: &dyn Storage,
    header: Header,
    data: &Handle,
    path: &Path,
) -> io::Result<Rebuilt> {
    let old = match storage.open(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut extent = Extent {
        end_seq: header.first_seq,
        end_pos: header.base,
        oldest_micros: 0,
        newest_micros: 0,
    };
    let changed = data.file.metadata()?.modified()?.duration_since(SystemTime::UNIX_EPOCH);
    let time_micros = changed.map_or(0, micros);
    let mut bytes = header.encode(FileKind::Index).to_vec();
    bytes.resize(HEADER_BYTES as usize, 0);
    let (mut gaps, mut unblanked) = (Gaps::default(), Vec::new());
    let mut walk = Walk { data, len: data.len()?, frame: Vec::new() };
    loop {
        let offset = extent.end_pos.0 - header.base.0;
        let Some(message) = walk.frame_at(offset)? else { break };
        let place = Place { seq: extent.end_seq, offset: offset as u32, time_micros };
        let known = old.as_ref().and_then(|old| known_record(old, header.first_seq, &place));
        let record = match known {
            Some(record) if record.fits(&walk.frame) => record,
            // Flagged, but not overwritten any more.
            Some(record) if record.erased && record.len as usize == walk.frame.len() => {
                unblanked.push(record);
                record
            }
            // The record is whole, so it is the frame that is damaged.
            Some(_) => break,
            None => match read_record(&walk.frame, message, &place) {
                Some(record) => record,
                None => break,
            },
        };
        if record.erased {
            gaps.push(record.offset.into(), record.end());
        }
        note(&mut extent, &record, header.base);
        bytes.extend_from_slice(&record.encode());
    }
    replace_file(storage, path, &bytes)?;
    Ok(Rebuilt { index: storage.open(path)?, extent, gaps, unblanked })
}

struct Place {
    seq: RelaySeq,
    offset: u32,
    time_micros: u64,
}

struct Walk<'a> {
    data: &'a Handle,
    len: u64,
    /// The frame that was read last, WebSocket header and all.
    frame: Vec<u8>,
}

impl Walk<'_> {
    /// Reads the frame at `offset` and gives the length of its WebSocket header; `None` if there is
    /// no whole frame.
    fn frame_at(&mut self, offset: u64) -> io::Result<Option<usize>> {
        let left = self.len.saturating_sub(HEADER_BYTES + offset);
        let mut head = [0; 10];
        let head_len = left.min(head.len() as u64) as usize;
        self.data.read_exact_at(&mut head[..head_len], HEADER_BYTES + offset)?;
        let Some((used, len)) = parse_ws_header(&head[..head_len]) else { return Ok(None) };
        // A frame grows by at most eight bytes when our number replaces the host's.
        if len > FRAME_BYTES_MAX as u64 + 8 || used as u64 + len > left {
            return Ok(None);
        }
        self.frame.resize(used + len as usize, 0);
        self.data.read_exact_at(&mut self.frame, HEADER_BYTES + offset)?;
        Ok(Some(used))
    }
}

impl Record {
    fn fits(&self, frame: &[u8]) -> bool {
        self.len as usize == frame.len() && self.frame_crc == crc32c::crc32c(frame)
    }
}

fn known_record(old: &Handle, first: RelaySeq, place: &Place) -> Option<Record> {
    let mut bytes = [0; RECORD_BYTES as usize];
    let offset = HEADER_BYTES + (place.seq.0 - first.0) * RECORD_BYTES;
    old.read_exact_at(&mut bytes, offset).ok()?;
    let record = Record::decode(&bytes)?;
    (record.event.seq == place.seq && record.offset == place.offset).then_some(record)
}

/// A record from the frame alone. There is no checksum to hold it against, so the frame must be
/// strictly right, and its blocks must hash to their CIDs.
fn read_record(frame: &[u8], message: usize, place: &Place) -> Option<Record> {
    let erased = frame[message..].iter().all(|byte| *byte == 0);
    let (kind, upstream, head) = if erased {
        // Which of the two it was does not matter any more.
        (EventKind::Commit, UpstreamStatus::ACTIVE, None)
    } else {
        let event = frame::parse(&frame[message..]).ok()?;
        if event.seq != place.seq.0 {
            return None;
        }
        read_body(&event)?
    };
    Some(Record {
        event: LogRecord {
            seq: place.seq,
            kind,
            account: AccountId(0),
            host: HostId(0),
            host_seq: HostSeq(0),
            time_micros: place.time_micros,
            upstream,
            local: LocalStatus::Active,
            head,
        },
        offset: place.offset,
        len: frame.len() as u32,
        frame_crc: crc32c::crc32c(frame),
        rebuilt: true,
        erased,
    })
}

fn read_body(event: &Event<'_>) -> Option<(EventKind, UpstreamStatus, Option<RepoHead>)> {
    let active = UpstreamStatus::ACTIVE;
    Some(match &event.body {
        Body::Commit(body) => (EventKind::Commit, active, Some(read_head(body.rev, body.blocks)?)),
        Body::Sync(body) => (EventKind::Sync, active, Some(read_head(body.rev, body.blocks)?)),
        Body::Identity(_) => (EventKind::Identity, active, None),
        Body::Account(body) => {
            let word = body.status.map_or(StatusWord::None, StatusWord::parse);
            (EventKind::Account, UpstreamStatus { active: body.active, word }, None)
        }
    })
}

fn read_head(rev: &str, blocks: &[u8]) -> Option<RepoHead> {
    let car = CarReader::new(blocks).ok()?;
    let (root, mut data) = (car.root(), None::<Cid>);
    for block in car {
        let block = block.ok()?;
        if !block.cid.matches(block.data) {
            return None;
        }
        if block.cid == root {
            data = Some(commit::parse(block.data).ok()?.data);
        }
    }
    Some(RepoHead { rev: Tid::parse(rev)?.as_u64(), data: data?.digest(), commit: root.digest() })
}
