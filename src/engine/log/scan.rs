//! Reading a segment from its first record to its last, checking everything.

use std::io;

use ports::RelaySeq;

use super::{
    erase::Gaps,
    format::{HEADER_BYTES, LogPos, RECORD_BYTES, Record},
    segment::{Extent, Segment},
};

const READ_BYTES: usize = 1 << 20;
const RECORDS_PER_READ: usize = 1024;

/// How far a segment is whole.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    /// What the good records and frames come to.
    pub(super) extent: Extent,
    /// What is wrong with the first record that is not good, if there is one.
    pub(super) fault: Option<&'static str>,
    /// Frames of taken-down accounts.
    pub(super) gaps: Gaps,
    /// Those of them that were not overwritten.
    pub(super) unblanked: Vec<Record>,
}

/// Checks at most `count` records of a segment and their frames.
pub(super) fn scan(segment: &Segment, count: u64) -> io::Result<Scan> {
    let mut reader = Frames { segment, len: segment.data.len()?, start: 0, buffer: Vec::new() };
    let extent = Extent {
        end_seq: segment.first_seq,
        end_pos: segment.base,
        oldest_micros: 0,
        newest_micros: 0,
    };
    let mut scan = Scan { extent, fault: None, gaps: Gaps::default(), unblanked: Vec::new() };
    let mut done = 0;
    while done < count {
        let records = read_records(segment, done, count)?;
        for bytes in &records {
            scan.fault = check_next(&mut reader, bytes, &mut scan)?;
            if scan.fault.is_some() {
                return Ok(scan);
            }
        }
        done += records.len() as u64;
    }
    Ok(scan)
}

fn read_records(
    segment: &Segment,
    done: u64,
    count: u64,
) -> io::Result<Vec<[u8; RECORD_BYTES as usize]>> {
    let many = (count - done).min(RECORDS_PER_READ as u64) as usize;
    let mut records = vec![[0; RECORD_BYTES as usize]; many];
    segment.index.read_exact_at(records.as_flattened_mut(), HEADER_BYTES + done * RECORD_BYTES)?;
    Ok(records)
}

/// Checks one record against what went before and against its frame, and moves `scan` past it.
fn check_next(
    reader: &mut Frames<'_>,
    bytes: &[u8; RECORD_BYTES as usize],
    scan: &mut Scan,
) -> io::Result<Option<&'static str>> {
    let Some(record) = Record::decode(bytes) else { return Ok(Some("wrong checksum of a record")) };
    let (base, extent) = (reader.segment.base, &mut scan.extent);
    if record.event.seq != extent.end_seq || u64::from(record.offset) != extent.end_pos.0 - base.0 {
        return Ok(Some("a record out of order"));
    }
    let Some(frame) = reader.frame(&record)? else { return Ok(Some("a frame is cut off")) };
    let whole = crc32c::crc32c(frame) == record.frame_crc;
    if record.erased {
        scan.gaps.push(record.offset.into(), record.end());
        if !whole {
            scan.unblanked.push(record);
        }
    } else if !whole {
        return Ok(Some("wrong checksum of a frame"));
    }
    note(extent, &record, base);
    Ok(None)
}

/// Moves `extent` past a good record.
pub(super) fn note(extent: &mut Extent, record: &Record, base: LogPos) {
    let time = record.event.time_micros;
    if extent.oldest_micros == 0 {
        extent.oldest_micros = time;
    }
    extent.newest_micros = extent.newest_micros.max(time);
    extent.end_seq = RelaySeq(record.event.seq.0 + 1);
    extent.end_pos = base.plus(record.end());
}

/// Reads a data file forwards, through a buffer.
struct Frames<'a> {
    segment: &'a Segment,
    /// Of the file.
    len: u64,
    /// What the buffer starts with, counted from the first frame.
    start: u64,
    buffer: Vec<u8>,
}

impl Frames<'_> {
    /// The bytes of a frame; `None` if the file ends before it does.
    fn frame(&mut self, record: &Record) -> io::Result<Option<&[u8]>> {
        let (from, to) = (u64::from(record.offset), record.end());
        if HEADER_BYTES + to > self.len {
            return Ok(None);
        }
        if from < self.start || to > self.start + self.buffer.len() as u64 {
            let left = (self.len - HEADER_BYTES - from) as usize;
            self.buffer.resize(left.min(READ_BYTES.max(record.len as usize)), 0);
            self.segment.data.read_exact_at(&mut self.buffer, HEADER_BYTES + from)?;
            self.start = from;
        }
        let within = (from - self.start) as usize;
        Ok(Some(&self.buffer[within..within + record.len as usize]))
    }
}
