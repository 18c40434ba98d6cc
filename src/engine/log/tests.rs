//! One behaviour of the log a test, on real files.

use std::{fs, ops::Range, path::Path, time::Duration};

use ports::{
    AccountId, EventKind, HostId, HostSeq, LocalStatus, LogControl, LogTail, LogWindow, RelaySeq,
    RepoHead, UpstreamStatus, ring::Doorbell,
};
use protocol::frame;
use tempfile::tempdir;

use super::{
    AppendError, Entry, Locate, LogConfig, LogError, LogPos, LogReader, LogWriter, Slice,
    faults::{Dice, Fault, FaultyDisk},
    format::{HEADER_BYTES, RECORD_BYTES, ws_header},
    open, recovery,
};

/// A frame of a given size.
pub(crate) struct Sample {
    pub(crate) frame: Vec<u8>,
    pub(crate) seq_span: Range<u32>,
}

impl Sample {
    pub(crate) fn new(filling: usize) -> Self {
        let status = "x".repeat(filling);
        let time = "2026-01-01T00:00:00.000Z";
        let frame =
            frame::account_frame("did:plc:abcdefghijklmnopqrstuvwx", time, false, Some(&status));
        let span = frame::parse(&frame).unwrap().seq_span;
        Self { frame, seq_span: span.start as u32..span.end as u32 }
    }

    pub(crate) fn entry(&self, time_micros: u64) -> Entry<'_> {
        Entry {
            kind: EventKind::Account,
            account: AccountId(7),
            host: HostId(3),
            host_seq: HostSeq(99),
            upstream: UpstreamStatus::ACTIVE,
            local: LocalStatus::Active,
            head: Some(RepoHead { rev: 1, data: [2; 32], commit: [3; 32] }),
            frame: &self.frame,
            seq_span: self.seq_span.clone(),
            time_micros,
        }
    }

    /// What must be stored for it.
    pub(super) fn stored(&self, seq: u64) -> Vec<u8> {
        let mut message = self.frame[..self.seq_span.start as usize].to_vec();
        frame::write_seq(seq, &mut message);
        message.extend_from_slice(&self.frame[self.seq_span.end as usize..]);
        let (header, used) = ws_header(message.len());
        [&header[..used], &message].concat()
    }
}

pub(crate) fn config(dir: &Path) -> LogConfig {
    LogConfig {
        segment_bytes_max: 16 << 10,
        chunk_bytes: 4 << 10,
        chunks_in_memory: 4,
        lease_size: 50,
        replay_window: Duration::from_secs(1 << 40),
        ..LogConfig::new(dir)
    }
}

/// Appends events one batch each, and gives what must be stored.
pub(super) fn append(writer: &mut LogWriter, count: usize, filling: usize) -> Vec<u8> {
    let mut stored = Vec::new();
    for _ in 0..count {
        let sample = Sample::new(filling);
        let seq = append_one(writer, &sample);
        stored.extend(sample.stored(seq.0));
    }
    stored
}

pub(super) fn append_one(writer: &mut LogWriter, sample: &Sample) -> RelaySeq {
    let mut tries = 0;
    loop {
        let result = writer.append(&sample.entry(1_000_000)).and_then(|seq| {
            writer.commit()?;
            Ok(seq)
        });
        match result {
            Ok(seq) => return seq,
            Err(AppendError::Behind) if tries < 1000 => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        tries += 1;
        writer.reader().shared.sync_to_head().unwrap();
    }
}

/// Opened, without threads.
pub(super) fn open_quiet(config: LogConfig) -> Result<LogWriter, LogError> {
    recovery::open(config, std::sync::Arc::new(super::storage::Disk))
}

pub(super) fn read_all(reader: &LogReader, mut pos: LogPos) -> Vec<u8> {
    let mut view = reader.view();
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        match view.slice(pos) {
            Slice::CaughtUp => return bytes,
            Slice::Memory(slice) => bytes.extend_from_slice(&slice),
            Slice::File(slice) => bytes.extend(slice.read().unwrap()),
            Slice::Checking => reader.shared.check_wanted(),
            Slice::Erased(next) => {
                pos = next;
                continue;
            }
            Slice::Gone => panic!("{pos:?} is gone"),
        }
        pos = pos.plus((bytes.len() - before) as u64);
    }
}

#[test]
fn consumers_get_each_frame_with_our_seq_and_nothing_else_changed() {
    let dir = tempdir().unwrap();
    let (mut writer, reader) = open(config(dir.path())).unwrap();
    let stored = append(&mut writer, 100, 300);
    assert_eq!(read_all(&reader, LogPos(0)), stored);
    writer.close().unwrap();
    let (writer, reader) = open(config(dir.path())).unwrap();
    assert_eq!(read_all(&reader, LogPos(0)), stored);
    assert_eq!(reader.head(), (RelaySeq(100), LogPos(stored.len() as u64)));
    assert_eq!(writer.next_seq(), RelaySeq(101));
}

#[test]
fn an_event_above_all_sizes_gets_a_chunk_and_a_segment_of_its_own() {
    let dir = tempdir().unwrap();
    let (mut writer, reader) = open(config(dir.path())).unwrap();
    let mut stored = append(&mut writer, 3, 10);
    stored.extend(append(&mut writer, 2, 100_000));
    stored.extend(append(&mut writer, 3, 10));
    assert_eq!(read_all(&reader, LogPos(0)), stored);
}

#[test]
fn a_cursor_leads_to_the_event_behind_it() {
    let dir = tempdir().unwrap();
    let mut config = config(dir.path());
    config.initial_seq = 10;
    let mut writer = open_quiet(config).unwrap();
    let reader = writer.reader();
    assert_eq!(reader.locate(0).unwrap(), Locate::At(LogPos(0)));
    assert_eq!(reader.locate(10).unwrap(), Locate::Future);
    append(&mut writer, 50, 900);
    let len = Sample::new(900).stored(10).len() as u64;
    assert_eq!(reader.locate(0).unwrap(), Locate::At(LogPos(0)));
    assert_eq!(reader.locate(5).unwrap(), Locate::Outdated(LogPos(0)));
    assert_eq!(reader.locate(9).unwrap(), Locate::At(LogPos(0)));
    assert_eq!(reader.locate(10).unwrap(), Locate::At(LogPos(len)));
    let (newest, head) = reader.head();
    assert_eq!(newest, RelaySeq(59));
    assert_eq!(reader.locate(59).unwrap(), Locate::At(head));
    assert_eq!(reader.locate(60).unwrap(), Locate::Future);
    for seq in 10..60 {
        let Locate::At(pos) = reader.locate(seq - 1).unwrap() else { panic!("{seq}") };
        let view = reader.view();
        if seq > 10 {
            assert_eq!(view.seq_at(pos).unwrap(), RelaySeq(seq - 1));
        }
        assert_eq!(view.seq_at(pos.plus(1)).unwrap(), RelaySeq(seq - 1));
    }
}

#[test]
fn after_an_unclean_stop_numbers_go_on_behind_the_lease() {
    let dir = tempdir().unwrap();
    let mut writer = open_quiet(config(dir.path())).unwrap();
    append(&mut writer, 60, 10);
    drop(writer);
    let mut writer = open_quiet(config(dir.path())).unwrap();
    let reader = writer.reader();
    // 1..=50 were leased, then 51..=100.
    assert_eq!(writer.next_seq(), RelaySeq(101));
    assert_eq!(reader.head().0, RelaySeq(100));
    // A number that a consumer may have seen is not in the future.
    assert_eq!(reader.locate(80).unwrap(), Locate::At(reader.head_pos()));
    assert_eq!(append_one(&mut writer, &Sample::new(1)), RelaySeq(101));
    let Locate::At(pos) = reader.locate(80).unwrap() else { panic!() };
    assert_eq!(reader.locate(100).unwrap(), Locate::At(pos));
    assert_eq!(reader.view().seq_at(pos).unwrap(), RelaySeq(100));
}

#[test]
fn the_initial_seq_is_a_floor_that_survives_immediate_restarts() {
    let dir = tempdir().unwrap();
    let with = |initial_seq| LogConfig { initial_seq, ..config(dir.path()) };
    open_quiet(with(5000)).unwrap().close().unwrap();
    let writer = open_quiet(with(1)).unwrap();
    assert_eq!(writer.next_seq(), RelaySeq(5000));
    writer.close().unwrap();
    let mut writer = open_quiet(with(6000)).unwrap();
    assert_eq!(append_one(&mut writer, &Sample::new(1)), RelaySeq(6000));
    writer.close().unwrap();
    assert_eq!(open_quiet(with(7)).unwrap().next_seq(), RelaySeq(6001));
}

#[test]
fn one_process_at_a_time() {
    let dir = tempdir().unwrap();
    let writer = open_quiet(config(dir.path())).unwrap();
    assert!(matches!(open_quiet(config(dir.path())), Err(LogError::Locked { .. })));
    drop(writer);
    open_quiet(config(dir.path())).unwrap();
}

#[test]
fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let dir = tempdir().unwrap();
    let mut writer = open_quiet(config(dir.path())).unwrap();
    let stored = append(&mut writer, 5, 200);
    drop(writer);
    let one = Sample::new(200).stored(1).len() as u64;
    let image: Vec<_> = files(dir.path());
    let ends = [("log", HEADER_BYTES, one), ("index", HEADER_BYTES, RECORD_BYTES)];
    for (extension, header, unit) in ends {
        for cut in (0..5 * unit).step_by(17) {
            restore(dir.path(), &image);
            let path = dir.path().join(format!("{:020}.{extension}", 1));
            fs::File::options().write(true).open(&path).unwrap().set_len(header + cut).unwrap();
            let writer = open_quiet(config(dir.path())).unwrap();
            let whole = (cut / unit * one) as usize;
            assert_eq!(read_all(&writer.reader(), LogPos(0)), stored[..whole]);
            assert_eq!(writer.next_seq(), RelaySeq(51));
        }
    }
}

#[test]
fn a_lost_index_is_made_anew_from_the_data() {
    for clean in [false, true] {
        let dir = tempdir().unwrap();
        let mut writer = open_quiet(config(dir.path())).unwrap();
        let stored = append(&mut writer, 60, 500);
        writer.reader().shared.sync_to_head().unwrap();
        if clean {
            writer.close().unwrap();
        } else {
            drop(writer);
        }
        for (name, _) in files(dir.path()) {
            if name.contains(".index") {
                fs::remove_file(dir.path().join(name)).unwrap();
            }
        }
        let writer = open_quiet(config(dir.path())).unwrap();
        let reader = writer.reader();
        assert_eq!(read_all(&reader, LogPos(0)), stored);
        let mut records = Vec::new();
        reader.clone().read_after(RelaySeq(0), 1000, &mut records).unwrap();
        assert_eq!(records.len(), 60);
        assert_eq!(records[59].seq, RelaySeq(60));
        assert_eq!(records[59].kind, EventKind::Account);
        assert_eq!(records[59].account, AccountId(0));
    }
}

#[test]
fn a_damaged_frame_does_not_become_good_when_its_index_is_made_anew() {
    let dir = tempdir().unwrap();
    let mut writer = open_quiet(config(dir.path())).unwrap();
    append(&mut writer, 10, 500);
    writer.close().unwrap();
    let mut image = files(dir.path());
    for (name, bytes) in &mut image {
        if name.contains(".log") {
            // One letter of the text: still a well-formed frame.
            bytes[HEADER_BYTES as usize + 400] ^= 1;
        } else if name.contains(".index") {
            bytes.pop();
        }
    }
    restore(dir.path(), &image);
    assert!(matches!(open_quiet(config(dir.path())), Err(LogError::Damaged { seq: 1, .. })));
}

#[test]
fn a_missing_segment_is_named() {
    let dir = tempdir().unwrap();
    let mut writer = open_quiet(config(dir.path())).unwrap();
    append(&mut writer, 100, 900);
    writer.close().unwrap();
    let image = files(dir.path());
    let data: Vec<_> = image.iter().filter(|(name, _)| name.contains(".log")).collect();
    assert!(data.len() > 4);
    // The oldest may go: the window is shorter then. Without any other the log has a gap.
    for (position, (name, _)) in data.iter().enumerate() {
        restore(dir.path(), &image);
        fs::remove_file(dir.path().join(name)).unwrap();
        fs::remove_file(dir.path().join(name.replace(".log", ".index"))).unwrap();
        match open_quiet(config(dir.path())) {
            Ok(writer) => {
                assert_eq!(position, 0);
                assert!(writer.reader().bounds().oldest > Some(RelaySeq(1)));
            }
            Err(error) => {
                assert!(position > 0);
                assert!(error.to_string().contains(name.as_str()), "{error}");
            }
        }
    }
}

#[test]
fn a_missing_lease_is_accepted_only_with_a_floor_above_all_numbers() {
    let dir = tempdir().unwrap();
    let mut writer = open_quiet(config(dir.path())).unwrap();
    append(&mut writer, 3, 10);
    drop(writer);
    fs::remove_file(dir.path().join("lease")).unwrap();
    assert!(matches!(open_quiet(config(dir.path())), Err(LogError::Lease { .. })));
    let config = LogConfig { initial_seq: 1000, ..config(dir.path()) };
    assert_eq!(open_quiet(config).unwrap().next_seq(), RelaySeq(1000));
}

/// Whatever bit is flipped: the log opens and serves only right bytes, or it refuses.
#[test]
fn no_damaged_byte_is_ever_served() {
    let dir = tempdir().unwrap();
    let mut dice = Dice(1);
    for clean in [true, false] {
        let at = dir.path().join(format!("{clean}"));
        let mut writer = open_quiet(config(&at)).unwrap();
        let stored = append(&mut writer, 60, 400);
        writer.reader().shared.sync_to_head().unwrap();
        if clean {
            writer.close().unwrap();
        } else {
            drop(writer);
        }
        let image = files(&at);
        for _ in 0..150 {
            let mut damaged = image.clone();
            let file = dice.below(damaged.len() as u64) as usize;
            if damaged[file].1.is_empty() {
                continue;
            }
            let bit = dice.below(damaged[file].1.len() as u64 * 8);
            damaged[file].1[bit as usize / 8] ^= 1 << (bit % 8);
            restore(&at, &damaged);
            let Ok(writer) = open_quiet(config(&at)) else { continue };
            assert!(writer.next_seq().0 > 60);
            serves_only(&writer.reader(), &stored);
        }
    }
}

/// Reads all that can be read; it must be a part of `stored`.
fn serves_only(reader: &LogReader, stored: &[u8]) {
    let mut view = reader.view();
    let Ok(Locate::At(mut pos) | Locate::Outdated(mut pos)) = reader.locate(0) else { return };
    loop {
        let bytes = match view.slice(pos) {
            Slice::CaughtUp => return,
            Slice::Memory(slice) => slice.to_vec(),
            Slice::File(slice) => slice.read().unwrap(),
            Slice::Checking => {
                reader.shared.check_wanted();
                continue;
            }
            Slice::Erased(_) => panic!("nobody was taken down"),
            Slice::Gone => {
                // Damage was found: the reader goes on behind it, and is told so.
                match reader.locate(1).unwrap() {
                    Locate::Outdated(next) if next > pos => pos = next,
                    other => panic!("{other:?}"),
                }
                continue;
            }
        };
        assert_eq!(bytes, stored[pos.0 as usize..pos.0 as usize + bytes.len()]);
        pos = pos.plus(bytes.len() as u64);
    }
}

#[test]
fn old_and_surplus_segments_go_and_readers_are_told() {
    let dir = tempdir().unwrap();
    let config = LogConfig { replay_window: Duration::from_secs(100), ..config(dir.path()) };
    let mut writer = open_quiet(config).unwrap();
    let reader = writer.reader();
    let sample = Sample::new(900);
    for second in 0..200 {
        writer.append(&sample.entry(1 + second * 1_000_000)).unwrap();
        writer.commit().unwrap();
        reader.shared.sync_to_head().unwrap();
    }
    reader.shared.remove_old(200_000_000);
    let oldest = reader.bounds().oldest.unwrap().0;
    assert!((70..=100).contains(&oldest), "{oldest}");
    assert!(matches!(reader.locate(3).unwrap(), Locate::Outdated(_)));
    assert!(matches!(reader.view().slice(LogPos(0)), Slice::Gone));
    reader.set_window(LogWindow { age: Duration::from_secs(1000), bytes: Some(40_000) });
    assert_eq!(reader.window().bytes, Some(40_000));
    reader.shared.remove_old(200_000_000);
    assert!(reader.bounds().bytes <= 40_000);
    // Nothing new comes: what there is gets old all the same.
    reader.set_window(LogWindow { age: Duration::from_secs(100), bytes: None });
    writer.maintain(1_000_000_000);
    reader.shared.sync_to_head().unwrap();
    reader.shared.remove_old(1_000_000_000);
    assert_eq!(reader.bounds().oldest, None);
    assert_eq!(reader.locate(3).unwrap(), Locate::Outdated(reader.head_pos()));
    assert_eq!(append_one(&mut writer, &sample), RelaySeq(201));
    writer.close().unwrap();
}

#[test]
fn a_full_disk_takes_nothing_and_heals_by_itself() {
    let dir = tempdir().unwrap();
    let disk = std::sync::Arc::new(FaultyDisk::new(1));
    let mut writer = recovery::open(config(dir.path()), disk.clone()).unwrap();
    let reader = writer.reader();
    let mut stored = append(&mut writer, 3, 10);
    disk.set_fault(Some(Fault::Full));
    let sample = Sample::new(10);
    let seq = writer.append(&sample.entry(1)).unwrap();
    for _ in 0..3 {
        assert!(matches!(writer.commit(), Err(AppendError::Io(_))));
        assert_eq!(reader.head().0, RelaySeq(3));
        assert!(!reader.health().writable);
    }
    disk.set_fault(None);
    writer.commit().unwrap();
    stored.extend(sample.stored(seq.0));
    assert!(reader.health().writable);
    assert_eq!(read_all(&reader, LogPos(0)), stored);
}

#[test]
fn a_start_on_a_disk_that_can_not_be_changed_is_refused_and_changes_nothing() {
    let dir = tempdir().unwrap();
    let disk = std::sync::Arc::new(FaultyDisk::new(1));
    let mut writer = recovery::open(config(dir.path()), disk.clone()).unwrap();
    append(&mut writer, 60, 500);
    drop(writer);
    let image = files(dir.path());
    disk.set_fault(Some(Fault::ReadOnly));
    let refused = recovery::open(config(dir.path()), disk.clone());
    assert!(matches!(refused, Err(LogError::Io { .. })));
    assert!(files(dir.path()) == image);
    disk.set_fault(None);
    recovery::open(config(dir.path()), disk).unwrap();
}

/// After a stop in order, a kill, and with nothing there yet.
#[test]
fn a_start_on_a_disk_that_takes_nothing_serves_and_goes_on_when_it_does() {
    for (fault, stop) in [(Fault::Full, 0), (Fault::Full, 1), (Fault::Full, 2)] {
        let dir = tempdir().unwrap();
        let disk = std::sync::Arc::new(FaultyDisk::new(1));
        let mut stored = Vec::new();
        if stop < 2 {
            let mut writer = recovery::open(config(dir.path()), disk.clone()).unwrap();
            stored = append(&mut writer, 60, 500);
            writer.reader().shared.sync_to_head().unwrap();
            if stop == 0 {
                writer.close().unwrap();
            } else {
                drop(writer);
            }
        }
        disk.set_fault(Some(fault));
        let mut writer = recovery::open(config(dir.path()), disk.clone()).unwrap();
        let reader = writer.reader();
        assert!(!reader.health().writable);
        assert_eq!(read_all(&reader, LogPos(0)), stored);
        let sample = Sample::new(10);
        for _ in 0..3 {
            assert!(matches!(writer.append(&sample.entry(1)), Err(AppendError::Behind)));
            reader.shared.sync_to_head().unwrap_err();
        }
        disk.set_fault(None);
        reader.shared.sync_to_head().unwrap();
        assert!(reader.health().writable);
        let seq = append_one(&mut writer, &sample);
        assert!(seq.0 > if stop == 2 { 0 } else { 60 });
        stored.extend(sample.stored(seq.0));
        assert_eq!(read_all(&reader, LogPos(0)), stored);
        writer.close().unwrap();
        let writer = recovery::open(config(dir.path()), disk).unwrap();
        assert_eq!(read_all(&writer.reader(), LogPos(0)), stored);
    }
}

#[test]
fn after_a_failed_sync_everything_is_written_once_more() {
    let dir = tempdir().unwrap();
    let disk = std::sync::Arc::new(FaultyDisk::new(3));
    let mut writer = recovery::open(config(dir.path()), disk.clone()).unwrap();
    let reader = writer.reader();
    let stored = append(&mut writer, 8, 200);
    disk.set_fault(Some(Fault::Sync));
    reader.shared.sync_to_head().unwrap_err();
    assert_eq!(reader.bounds().synced, RelaySeq(0));
    assert!(!reader.health().writable);
    writer.append(&Sample::new(1).entry(1)).unwrap();
    assert!(matches!(writer.commit(), Err(AppendError::Behind)));
    disk.set_fault(None);
    reader.shared.sync_to_head().unwrap();
    assert_eq!(reader.bounds().synced, RelaySeq(8));
    drop(writer);
    disk.lose_power();
    let writer = recovery::open(config(dir.path()), disk).unwrap();
    assert_eq!(read_all(&writer.reader(), LogPos(0)), stored);
}

#[test]
fn the_index_gives_only_what_is_synced() {
    let dir = tempdir().unwrap();
    let mut writer = open_quiet(config(dir.path())).unwrap();
    let mut reader = writer.reader();
    append(&mut writer, 70, 600);
    let synced = reader.bounds().synced;
    let mut records = Vec::new();
    reader.read_after(RelaySeq(0), 1000, &mut records).unwrap();
    assert_eq!(records.len() as u64, synced.0);
    reader.shared.sync_to_head().unwrap();
    records.clear();
    reader.read_after(RelaySeq(10), 30, &mut records).unwrap();
    assert_eq!(
        records.iter().map(|record| record.seq.0).collect::<Vec<_>>(),
        (11..41).collect::<Vec<_>>()
    );
    assert_eq!(records[0].account, AccountId(7));
    assert_eq!(records[0].host_seq, HostSeq(99));
    assert_eq!(records[0].head.unwrap().commit, [3; 32]);
    assert_eq!(reader.did_of(RelaySeq(33)).unwrap(), "did:plc:abcdefghijklmnopqrstuvwx");
    assert!(reader.did_of(RelaySeq(71)).is_err());
}

#[test]
fn the_sync_thread_rings_when_all_is_on_disk() {
    let dir = tempdir().unwrap();
    let config = LogConfig { sync_interval: Duration::from_millis(1), ..config(dir.path()) };
    let (mut writer, reader) = open(config).unwrap();
    let bell = Doorbell::new();
    writer.set_synced_bell(bell.clone());
    for round in 1..=20 {
        append(&mut writer, 1, 10);
        while reader.bounds().synced.0 < round {
            bell.wait(Duration::from_secs(10));
        }
    }
}

#[test]
fn slices_stay_as_they_are_while_the_log_moves_on() {
    let dir = tempdir().unwrap();
    let (mut writer, reader) = open(config(dir.path())).unwrap();
    let stored = append(&mut writer, 1, 2000);
    let Slice::Memory(slice) = reader.view().slice(LogPos(0)) else { panic!() };
    append(&mut writer, 100, 2000);
    assert_eq!(&*slice, stored);
    assert!(matches!(reader.view().slice(LogPos(0)), Slice::File(_)));
}

pub(super) fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

pub(super) fn restore(dir: &Path, image: &[(String, Vec<u8>)]) {
    for (name, _) in files(dir) {
        fs::remove_file(dir.join(name)).unwrap();
    }
    for (name, bytes) in image {
        fs::write(dir.join(name), bytes).unwrap();
    }
}
