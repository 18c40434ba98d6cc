use std::{collections::BTreeMap, path::Path, time::Duration};

use ports::{EventKind, LogControl, ring};
use tempfile::tempdir;

use super::*;
use crate::log::{self, LogConfig, LogPos, LogReader, Slice};

struct Event {
    frame: Vec<u8>,
    seq_at: u32,
}

/// An event that says which lane it is from and its place in it.
fn event(lane: u32, number: u32) -> Event {
    let did = format!("did:web:lane{lane}.number{number}");
    let frame = protocol::frame::account_frame(&did, "2026-01-01T00:00:00.000Z", true, None);
    let span = protocol::frame::parse(&frame).unwrap().seq_span;
    assert_eq!(span.len(), 1);
    Event { seq_at: span.start as u32, frame }
}

impl Weight for Event {
    fn weight(&self) -> usize {
        self.frame.len()
    }
}

impl Sequence for Event {
    fn entry(&self, time_micros: u64) -> Entry<'_> {
        Entry {
            kind: EventKind::Account,
            account: ports::AccountId(1),
            host: ports::HostId(1),
            host_seq: ports::HostSeq(1),
            upstream: ports::UpstreamStatus::ACTIVE,
            local: ports::LocalStatus::Active,
            head: None,
            frame: &self.frame,
            seq_span: self.seq_at..self.seq_at + 1,
            time_micros,
        }
    }
}

fn config(dir: &Path) -> LogConfig {
    LogConfig {
        segment_bytes_max: 64 << 10,
        chunk_bytes: 16 << 10,
        chunks_in_memory: 4,
        sync_interval: Duration::from_millis(1),
        ..LogConfig::new(dir)
    }
}

/// The DIDs of all events, in order.
fn dids(reader: &LogReader) -> Vec<String> {
    let (mut view, mut bytes, mut pos) = (reader.view(), Vec::new(), LogPos(0));
    loop {
        let before = bytes.len();
        match view.slice(pos) {
            Slice::CaughtUp => break,
            Slice::Memory(slice) => bytes.extend_from_slice(&slice),
            Slice::File(slice) => bytes.extend(slice.read().unwrap()),
            Slice::Gone | Slice::Checking | Slice::Erased(_) => panic!("nothing was removed"),
        }
        pos = pos.plus((bytes.len() - before) as u64);
    }
    let (mut dids, mut rest) = (Vec::new(), &bytes[..]);
    while !rest.is_empty() {
        let len = rest[1] as usize;
        assert!(len < 126);
        let event = protocol::frame::parse(&rest[2..2 + len]).unwrap();
        assert_eq!(event.seq, dids.len() as u64 + 1);
        dids.push(event.did.to_owned());
        rest = &rest[2 + len..];
    }
    dids
}

#[test]
fn every_event_gets_one_number_and_lanes_keep_their_order() {
    const LANES: u32 = 3;
    const EVENTS: u32 = 4000;
    let dir = tempdir().unwrap();
    let (writer, reader) = log::open(config(dir.path())).unwrap();
    let bell = Doorbell::new();
    let (mut senders, mut lanes, mut progress) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..LANES {
        let shard_bell = Doorbell::new();
        let (sender, events) = ring::ring(128, 1 << 20, &bell, &shard_bell);
        let lane = LaneProgress::new(Arc::clone(&shard_bell));
        senders.push((sender, shard_bell, Arc::clone(&lane)));
        progress.push(Arc::clone(&lane));
        lanes.push(Lane { events, progress: lane });
    }
    let sequencer = Sequencer::start(writer, lanes, bell, None).unwrap();
    std::thread::scope(|scope| {
        for (lane, (mut sender, shard_bell, progress)) in senders.into_iter().enumerate() {
            scope.spawn(move || {
                for number in 0..EVENTS {
                    let mut event = event(lane as u32, number);
                    while let Err(back) = sender.push(event) {
                        event = back;
                        sender.ring();
                        shard_bell.wait(Duration::from_secs(10));
                    }
                    if number % 10 == 0 {
                        sender.ring();
                    }
                }
                sender.ring();
                // The bell alone must do: nobody looks at a clock here.
                while progress.synced() < u64::from(EVENTS) {
                    shard_bell.wait(Duration::from_mins(1));
                }
            });
        }
    });
    assert!(sequencer.stop());
    let mut next = BTreeMap::new();
    let dids = dids(&reader);
    for did in &dids {
        let (lane, number) =
            did.strip_prefix("did:web:lane").unwrap().split_once(".number").unwrap();
        let expected = next.entry(lane.to_owned()).or_insert(0);
        assert_eq!(number.parse::<u32>().unwrap(), *expected);
        *expected += 1;
    }
    assert_eq!(dids.len() as u32, LANES * EVENTS);
    assert!(progress.iter().all(|lane| lane.appended() == u64::from(EVENTS)));
}

#[test]
fn a_stop_takes_what_is_in_the_rings_and_leaves_the_log_clean() {
    let dir = tempdir().unwrap();
    let config = LogConfig { sync_interval: Duration::from_hours(1), ..config(dir.path()) };
    let (writer, reader) = log::open(config.clone()).unwrap();
    let (bell, shard_bell) = (Doorbell::new(), Doorbell::new());
    let (mut sender, events) = ring::ring(1024, 1 << 20, &bell, &shard_bell);
    let progress = LaneProgress::new(Arc::clone(&shard_bell));
    let lanes = vec![Lane { events, progress: Arc::clone(&progress) }];
    let sequencer = Sequencer::start(writer, lanes, bell, None).unwrap();
    for number in 0..700 {
        assert!(sender.push(event(0, number)).is_ok());
    }
    assert!(sequencer.stop());
    assert_eq!((progress.appended(), progress.synced()), (700, 700));
    assert_eq!(dids(&reader).len(), 700);
    let (writer, _) = log::open(config).unwrap();
    assert_eq!(writer.next_seq(), RelaySeq(701));
}

#[test]
fn a_disk_that_fails_makes_the_shards_wait_and_loses_nothing() {
    let dir = tempdir().unwrap();
    let disk = Arc::new(log::FaultyDisk::new(1));
    let (writer, reader) = log::open_faulty(config(dir.path()), &disk);
    let (bell, shard_bell) = (Doorbell::new(), Doorbell::new());
    let (mut sender, events) = ring::ring(32, 1 << 20, &bell, &shard_bell);
    let progress = LaneProgress::new(Arc::clone(&shard_bell));
    let lanes = vec![Lane { events, progress: Arc::clone(&progress) }];
    let sequencer = Sequencer::start(writer, lanes, bell, None).unwrap();
    let mut number = 0;
    for fault in [log::Fault::Full, log::Fault::Sync] {
        disk.set_fault(Some(fault));
        // Until the ring stays full although the sequencer was told, or (while syncs fail) so far
        // that it must have taken notice.
        let until = number + 100;
        while number < until && sender.push(event(0, number)).is_ok() {
            number += 1;
            sender.ring();
        }
        while reader.health().writable {
            std::thread::yield_now();
        }
        let synced = progress.synced();
        assert!(synced < u64::from(number));
        disk.set_fault(None);
        while progress.synced() < u64::from(number) {
            shard_bell.wait(Duration::from_mins(1));
        }
        assert!(reader.health().writable);
    }
    assert!(sequencer.stop());
    assert_eq!(dids(&reader).len() as u32, number);
}
