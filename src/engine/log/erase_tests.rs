//! Take-downs: what was the account's is gone, all else is where and as it was.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use ports::{AccountId, EventKind, HostId, LocalStatus, LogControl, RelaySeq};
use protocol::frame;
use tempfile::tempdir;

use super::{
    AppendError, Entry, Locate, LogConfig, LogPos, LogReader, LogWriter, Slice,
    erase::{Gaps, Look, Step},
    faults::FaultyDisk,
    format::HEADER_BYTES,
    open, recovery,
    tests::{Sample, config, open_quiet, read_all},
    tools::LogFiles,
};

/// Stands in every frame of the account that is taken down, and nowhere else.
const SECRET: &str = "did:plc:secretsecretsecretsecret";
const OTHER: &str = "did:plc:otherotherotherotherothe";

fn sample(did: &str, filling: usize) -> Sample {
    let (time, status) = ("2026-01-01T00:00:00.000Z", "x".repeat(filling));
    let frame = frame::account_frame(did, time, false, Some(&status));
    let span = frame::parse(&frame).unwrap().seq_span;
    Sample { frame, seq_span: span.start as u32..span.end as u32 }
}

/// An event of one of the two accounts; the log does not look into a frame.
fn entry(sample: &Sample, secret: bool, kind: EventKind) -> Entry<'_> {
    Entry { kind, account: AccountId(if secret { 1 } else { 2 }), ..sample.entry(1_000_000) }
}

fn take_down(sample: &Sample) -> Entry<'_> {
    Entry {
        host: HostId::RELAY,
        local: LocalStatus::Takendown,
        ..entry(sample, true, EventKind::Account)
    }
}

fn put(writer: &mut LogWriter, entry: &Entry<'_>) -> Result<RelaySeq, AppendError> {
    writer.append(entry).and_then(|seq| writer.commit().map(|()| seq))
}

/// What consumers must get from now on: the stored frames by seq.
#[derive(Clone, Default)]
struct Expected(BTreeMap<u64, Vec<u8>>);

impl Expected {
    fn bytes(&self) -> Vec<u8> {
        self.0.values().flatten().copied().collect()
    }
}

/// Events of both accounts in turns; those of the secret one are not expected any more, but for its
/// #account and #identity.
fn fill(writer: &mut LogWriter, count: u64, filling: usize) -> Expected {
    let mut expected = Expected::default();
    let kinds = [EventKind::Commit, EventKind::Sync, EventKind::Commit, EventKind::Account];
    for number in 0..count {
        let (secret, kind) = (number % 3 > 0, kinds[number as usize % 4]);
        let did = if secret { SECRET } else { OTHER };
        let sample = sample(did, filling + number as usize % 50);
        let seq = put(writer, &entry(&sample, secret, kind)).unwrap();
        if number % 8 == 0 {
            writer.reader().shared.sync_to_head().unwrap();
        }
        if !secret || kind == EventKind::Account {
            expected.0.insert(seq.0, sample.stored(seq.0));
        }
    }
    expected
}

fn erase_all(reader: &LogReader) {
    while reader.shared.erase().unwrap() != Step::Idle {
        reader.shared.sync_to_head().unwrap();
    }
}

/// The data files and the chunks in memory hold the DID only in the frames that are expected.
fn assert_overwritten(reader: &LogReader, dir: &Path, expected: &Expected) {
    let secret = |bytes: &[u8]| {
        bytes.windows(SECRET.len()).filter(|window| *window == SECRET.as_bytes()).count()
    };
    let wanted = secret(&expected.bytes());
    let data = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let on_disk: Vec<_> = paths.filter(|path| data(path)).collect();
    assert_eq!(on_disk.iter().map(|path| secret(&fs::read(path).unwrap())).sum::<usize>(), wanted);
    for chunk in reader.shared.chunks.load().iter() {
        let bytes = super::MemorySlice::new(chunk, chunk.base(), usize::MAX);
        assert!(bytes.is_none_or(|bytes| secret(&bytes) <= wanted));
    }
}

fn assert_serves(reader: &LogReader, expected: &Expected) {
    assert!(read_all(reader, LogPos(0)) == expected.bytes(), "a replay of everything");
    // A cursor at any number, the erased ones among them, leads to what is behind it.
    for cursor in [0, 1, 7, 20, 33, reader.head().0.0] {
        let (Locate::At(pos) | Locate::Outdated(pos)) = reader.locate(cursor).unwrap() else {
            panic!("cursor {cursor}")
        };
        let rest = Expected(expected.0.range(cursor + 1..).map(|(k, v)| (*k, v.clone())).collect());
        assert!(read_all(reader, pos) == rest.bytes(), "cursor {cursor}");
    }
}

fn with_memory(dir: &Path, chunks: usize) -> LogConfig {
    LogConfig { chunks_in_memory: chunks, lease_size: 1000, ..config(dir) }
}

#[test]
fn a_take_down_reaches_the_past_and_nothing_else() {
    // From files, from both, from memory alone.
    for chunks in [2, 6, 1000] {
        let dir = tempdir().unwrap();
        let mut writer = open_quiet(with_memory(dir.path(), chunks)).unwrap();
        let reader = writer.reader();
        let mut expected = fill(&mut writer, 100, 700);
        let down = sample(SECRET, 9);
        let head = reader.head_pos();
        let seq = put(&mut writer, &take_down(&down)).unwrap();
        expected.0.insert(seq.0, down.stored(seq.0));
        // From the first moment nobody gets what has not been looked through; the news itself comes.
        for pos in [LogPos(0), LogPos(head.0 - 1)] {
            assert!(matches!(reader.view().slice(pos), Slice::Checking));
        }
        assert!(matches!(reader.view().slice(head), Slice::Memory(_)));
        assert_eq!(reader.shared.erase().unwrap(), Step::Unsynced);
        assert_serves(&reader, &expected);
        assert_eq!(reader.health().stats.erasures_pending, 1);
        reader.shared.sync_to_head().unwrap();
        assert_eq!(reader.shared.erase().unwrap(), Step::Done);
        let stats = reader.health().stats;
        assert_eq!((stats.erasures_pending, stats.events_erased), (0, 50));
        assert_serves(&reader, &expected);
        assert_overwritten(&reader, dir.path(), &expected);

        // Reversed: what comes now flows, until the next take-down.
        let later = fill(&mut writer, 20, 300);
        let back = sample(SECRET, 1);
        let seq = put(&mut writer, &entry(&back, true, EventKind::Commit)).unwrap();
        expected.0.extend(later.0);
        let mut with_back = expected.clone();
        with_back.0.insert(seq.0, back.stored(seq.0));
        let tail = read_all(&reader, head);
        assert!(tail.ends_with(&back.stored(seq.0)));
        let seq = put(&mut writer, &take_down(&down)).unwrap();
        expected.0.insert(seq.0, down.stored(seq.0));
        erase_all(&reader);
        assert_serves(&reader, &expected);

        // After a stop in order, a kill, and with the index lost.
        writer.close().unwrap();
        for round in 0..3 {
            let writer = open_quiet(with_memory(dir.path(), chunks)).unwrap();
            assert_eq!(writer.reader().shared.erase().unwrap(), Step::Idle, "round {round}");
            assert_serves(&writer.reader(), &expected);
            assert_overwritten(&writer.reader(), dir.path(), &expected);
            drop(writer);
            if round == 1 {
                for entry in fs::read_dir(dir.path()).unwrap() {
                    let path = entry.unwrap().path();
                    if path.extension().is_some_and(|extension| extension == "index") {
                        fs::remove_file(path).unwrap();
                    }
                }
            }
        }
        let files = LogFiles::open(dir.path()).unwrap();
        let mut erased = 0;
        let verified = files.verify(|info| {
            assert_eq!(info.fault, None);
            erased += info.erased;
        });
        assert_eq!(verified.unwrap(), (true, None));
        let mut dumped = 0;
        files
            .dump(RelaySeq(1), |_, message| {
                dumped += u64::from(message.is_none());
                true
            })
            .unwrap();
        assert!(erased > 50 && dumped == erased, "{erased} {dumped}");
    }
}

#[test]
fn the_eraser_does_it_by_itself_while_events_go_on() {
    for interval in [0, 1] {
        let dir = tempdir().unwrap();
        let sync_interval = std::time::Duration::from_millis(interval);
        let (mut writer, reader) =
            open(LogConfig { sync_interval, ..with_memory(dir.path(), 4) }).unwrap();
        let mut expected = Expected::default();
        for _ in 0..10 {
            expected.0.extend(fill(&mut writer, 20, 400).0);
            let down = sample(SECRET, 9);
            let seq = put(&mut writer, &take_down(&down)).unwrap();
            expected.0.insert(seq.0, down.stored(seq.0));
        }
        while reader.health().stats.erasures_pending > 0 {
            std::thread::yield_now();
        }
        assert_serves(&reader, &expected);
        assert_overwritten(&reader, dir.path(), &expected);
        assert!(reader.health().writable);
    }
}

/// A kill, or power loss, at any operation of an erasure: the next start ends it.
#[test]
fn a_crash_in_the_middle_is_gone_on_with() {
    for power in [false, true] {
        for operations in 1..200 {
            let dir = tempdir().unwrap();
            let disk = Arc::new(FaultyDisk::new(operations));
            let config = with_memory(dir.path(), 3);
            let mut writer = recovery::open(config.clone(), disk.clone()).unwrap();
            let mut expected = fill(&mut writer, 40, 500);
            let down = sample(SECRET, 9);
            let seq = put(&mut writer, &take_down(&down)).unwrap();
            expected.0.insert(seq.0, down.stored(seq.0));
            let reader = writer.reader();
            reader.shared.sync_to_head().unwrap();
            disk.stop_after(Some(operations));
            let finished = reader.shared.erase().is_ok();
            drop(writer);
            disk.stop_after(None);
            if power {
                disk.lose_power();
            }
            let writer = recovery::open(config, disk).unwrap();
            let reader = writer.reader();
            if !finished {
                // Not served in between.
                assert!(matches!(reader.view().slice(LogPos(0)), Slice::Checking));
            }
            erase_all(&reader);
            assert_serves(&reader, &expected);
            assert_overwritten(&reader, dir.path(), &expected);
            if finished {
                break;
            }
            assert!(operations < 199, "never finished");
        }
    }
}

#[test]
fn a_take_down_that_power_loss_takes_away_has_erased_nothing() {
    let dir = tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::new(1));
    let config = with_memory(dir.path(), 3);
    let mut writer = recovery::open(config.clone(), disk.clone()).unwrap();
    let reader = writer.reader();
    let all = {
        fill(&mut writer, 40, 500);
        reader.shared.sync_to_head().unwrap();
        read_all(&reader, LogPos(0))
    };
    put(&mut writer, &take_down(&sample(SECRET, 9))).unwrap();
    assert_eq!(reader.shared.erase().unwrap(), Step::Unsynced);
    drop((writer, reader));
    disk.lose_power();
    let writer = recovery::open(config, disk).unwrap();
    let reader = writer.reader();
    if reader.shared.erasures.pending() == 0 {
        assert!(read_all(&reader, LogPos(0)) == all);
    }
}

#[test]
fn a_reader_in_the_middle_of_an_erased_event_gets_no_byte_of_it() {
    for chunks in [2, 1000] {
        let dir = tempdir().unwrap();
        let mut writer = open_quiet(with_memory(dir.path(), chunks)).unwrap();
        let reader = writer.reader();
        // Two erased events in a row, then one of the other account.
        let secret = sample(SECRET, 3000);
        for _ in 0..2 {
            put(&mut writer, &entry(&secret, true, EventKind::Commit)).unwrap();
        }
        fill(&mut writer, 30, 500);
        let Locate::At(second) = reader.locate(1).unwrap() else { panic!() };
        let Locate::At(third) = reader.locate(2).unwrap() else { panic!() };
        let held = reader.view().slice(LogPos(0));
        put(&mut writer, &take_down(&sample(SECRET, 9))).unwrap();
        erase_all(&reader);
        let mut view = reader.view();
        for (pos, erased) in
            [(LogPos(0), true), (second, true), (LogPos(7), false), (second.plus(1), false)]
        {
            match view.slice(pos) {
                // Chunks end between events, so it may take two steps.
                Slice::Erased(next) => {
                    assert!(erased && (next == third || next == second), "{pos:?}");
                }
                Slice::Gone => assert!(!erased, "{pos:?}"),
                other => panic!("{pos:?}: {other:?}"),
            }
        }
        // What is held already: from memory it stays as it was; from a file it says that it does not.
        match held {
            Slice::Memory(slice) => {
                assert!(slice.starts_with(&secret.stored(1)));
                assert!(slice.is_stale());
            }
            Slice::File(slice) => {
                slice.read().unwrap();
                assert!(!slice.is_sound());
            }
            other => panic!("{other:?}"),
        }
        let sound = view.slice(third);
        assert!(!matches!(sound, Slice::File(slice) if !slice.is_sound()));
    }
}

#[test]
fn an_account_of_the_same_number_but_another_did_is_left_alone() {
    let dir = tempdir().unwrap();
    let mut writer = open_quiet(with_memory(dir.path(), 3)).unwrap();
    let reader = writer.reader();
    let other = sample(OTHER, 50);
    put(&mut writer, &entry(&other, true, EventKind::Commit)).unwrap();
    let secret = sample(SECRET, 50);
    put(&mut writer, &entry(&secret, true, EventKind::Commit)).unwrap();
    let down = sample(SECRET, 9);
    put(&mut writer, &take_down(&down)).unwrap();
    erase_all(&reader);
    assert_eq!(read_all(&reader, LogPos(0)), [other.stored(1), down.stored(3)].concat());
}

#[test]
fn a_blank_frame_that_is_damaged_is_made_blank_again() {
    let dir = tempdir().unwrap();
    let mut writer = open_quiet(with_memory(dir.path(), 3)).unwrap();
    let mut expected = fill(&mut writer, 40, 500);
    let down = sample(SECRET, 9);
    let seq = put(&mut writer, &take_down(&down)).unwrap();
    expected.0.insert(seq.0, down.stored(seq.0));
    erase_all(&writer.reader());
    writer.close().unwrap();
    let path = dir.path().join(format!("{:020}.log", 1));
    let before = fs::read(&path).unwrap();
    let mut bytes = before.clone();
    // In the second event.
    bytes[HEADER_BYTES as usize + 900] = 7;
    fs::write(&path, bytes).unwrap();
    let writer = open_quiet(with_memory(dir.path(), 3)).unwrap();
    assert_serves(&writer.reader(), &expected);
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn gaps_are_looked_up() {
    let mut gaps = Gaps::default();
    for (start, end) in [(10, 20), (20, 25), (40, 41)] {
        gaps.push(start, end);
    }
    for (at, look) in [
        (0, Look::Clear(10)),
        (10, Look::Erased(25)),
        (11, Look::Within),
        (20, Look::Erased(25)),
        (24, Look::Within),
        (25, Look::Clear(40)),
        (40, Look::Erased(41)),
        (41, Look::Clear(u64::MAX)),
    ] {
        assert_eq!(gaps.look(at), look, "{at}");
    }
    assert_eq!(Gaps::default().look(3), Look::Clear(u64::MAX));
    assert_eq!(gaps.with(&gaps), gaps);
}
