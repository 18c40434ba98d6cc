//! The index for the control plane: what SQL needs to follow the log.

use std::{
    io::{self, ErrorKind},
    sync::{Arc, atomic::Ordering},
};

use ports::{LogBounds, LogRecord, LogTail, RelaySeq};
use protocol::frame::{Skim, skim};

use super::{
    LogReader,
    format::{RECORD_BYTES, Record, parse_ws_header},
    segment::Segment,
    shared::Shared,
};

/// How many records are read with one call.
const RECORDS_PER_READ: u64 = 512;

impl LogTail for LogReader {
    fn bounds(&self) -> LogBounds {
        Self::bounds(self)
    }

    fn read_after(
        &mut self,
        after: RelaySeq,
        count: usize,
        records: &mut Vec<LogRecord>,
    ) -> io::Result<()> {
        let (mut next, mut left) = (after.next(), count as u64);
        let synced = self.shared.synced().0;
        let segments = self.shared.segments.load_full();
        for segment in segments.iter() {
            let end = segment.end_seq(synced);
            let from = next.max(segment.first_seq);
            if left > 0 && from < end {
                let many = left.min(end.0 - from.0);
                read_records(segment, from, many, records)?;
                left -= many;
                next = RelaySeq(from.0 + many);
            }
        }
        Ok(())
    }

    fn did_of(&mut self, seq: RelaySeq) -> io::Result<String> {
        let head = self.shared.head.load().0;
        let segments = self.shared.segments.load_full();
        let segment = Shared::segment_of(&segments, seq)
            .filter(|segment| seq < segment.end_seq(head))
            .ok_or_else(|| {
                io::Error::new(ErrorKind::NotFound, format!("no event with seq {seq}"))
            })?;
        read_did(segment, seq)
    }

    fn release(&mut self, through: RelaySeq) {
        self.shared.released.fetch_max(through.0, Ordering::Release);
        self.shared.keeper_bell.ring();
    }
}

fn read_records(
    segment: &Arc<Segment>,
    mut from: RelaySeq,
    count: u64,
    records: &mut Vec<LogRecord>,
) -> io::Result<()> {
    let end = from.0 + count;
    let mut bytes = vec![[0; RECORD_BYTES as usize]; count.min(RECORDS_PER_READ) as usize];
    while from.0 < end {
        bytes.truncate((end - from.0) as usize);
        segment.index.read_exact_at(bytes.as_flattened_mut(), segment.record_offset(from))?;
        for bytes in &bytes {
            match Record::decode(bytes) {
                Some(record) if record.event.seq == from => records.push(record.event),
                _ => return Err(segment.damaged(from)),
            }
            from = from.next();
        }
    }
    Ok(())
}

fn read_did(segment: &Segment, seq: RelaySeq) -> io::Result<String> {
    let record = segment.record(seq)?;
    if record.erased {
        return Err(io::Error::new(ErrorKind::NotFound, format!("seq {seq} has been erased")));
    }
    did_in(segment, &record).map(String::from).ok_or_else(|| segment.damaged(seq))
}

/// The DID in an event's frame, if that is whole.
pub(super) fn did_in(segment: &Segment, record: &Record) -> Option<Box<str>> {
    let mut bytes = vec![0; record.len as usize];
    let offset = segment.data_offset(segment.base.plus(u64::from(record.offset)));
    segment.data.read_exact_at(&mut bytes, offset).ok()?;
    if crc32c::crc32c(&bytes) != record.frame_crc {
        return None;
    }
    let (used, _) = parse_ws_header(&bytes)?;
    match skim(bytes.get(used..)?) {
        Ok(Skim::Event { did, .. }) => Some(did.into()),
        _ => None,
    }
}
