//! What is done ahead of need, so that the writer never waits for the disk, and what a crash makes of
//! it half way.

use std::{fs, path::Path, sync::atomic::Ordering};

use ports::RelaySeq;
use tempfile::tempdir;

use super::{
    AppendError, LogConfig, LogPos, LogWriter,
    faults::{Fault, FaultyDisk},
    recovery,
    tests::{Sample, append, append_one, config, files, open_quiet, read_all, restore},
};

#[test]
fn the_lease_is_renewed_ahead_and_never_overdrawn() {
    let dir = tempdir().unwrap();
    let mut writer = open_quiet(config(dir.path())).unwrap();
    let reader = writer.reader();
    let sample = Sample::new(10);
    let append = |writer: &mut LogWriter| {
        writer.append(&sample.entry(1)).and_then(|seq| writer.commit().map(|()| seq))
    };
    for seq in 1..=50 {
        assert_eq!(reader.shared.lease_wanted.load(Ordering::SeqCst), seq > 25, "{seq}");
        assert_eq!(append(&mut writer).unwrap(), RelaySeq(seq));
    }
    // Used up, and no new one on disk: it has to wait.
    assert!(matches!(append(&mut writer), Err(AppendError::Behind)));
    reader.shared.sync_to_head().unwrap();
    for seq in 51..=90 {
        assert_eq!(append(&mut writer).unwrap(), RelaySeq(seq));
    }
    // Half used up and renewed in time: no waiting at the end of the old one.
    reader.shared.sync_to_head().unwrap();
    for seq in 91..=140 {
        assert_eq!(append(&mut writer).unwrap(), RelaySeq(seq));
    }
    assert!(matches!(append(&mut writer), Err(AppendError::Behind)));
    drop(writer);
    assert_eq!(open_quiet(config(dir.path())).unwrap().next_seq(), RelaySeq(141));
}

/// Opened on a disk that answers no sync, with events in several segments.
fn open_unsynced(dir: &Path, disk: &std::sync::Arc<FaultyDisk>) -> (LogWriter, Vec<u8>) {
    let config = LogConfig { lease_size: 1000, ..config(dir) };
    let mut writer = recovery::open(config, disk.clone()).unwrap();
    writer.reader().shared.prepare_spare();
    let syncs = disk.syncs();
    let stored = append(&mut writer, 100, 900);
    assert_eq!(disk.syncs(), syncs, "the writer's thread has synced");
    assert_eq!(writer.synced(), RelaySeq(0));
    assert!(writer.reader().shared.segments.load().len() > 4);
    (writer, stored)
}

#[test]
fn events_go_on_into_new_segments_and_out_of_memory_while_the_disk_is_busy() {
    for settled in [false, true] {
        let dir = tempdir().unwrap();
        let disk = std::sync::Arc::new(FaultyDisk::new(5));
        let (writer, stored) = open_unsynced(dir.path(), &disk);
        assert_eq!(read_all(&writer.reader(), LogPos(0)), stored);
        if settled {
            writer.reader().shared.sync_to_head().unwrap();
            assert_eq!(writer.synced(), RelaySeq(100));
        }
        // Killed before (or after) the first segment has its names: nothing that was seen is lost.
        assert_ne!(dir.path().join("spare.log").exists(), settled);
        drop(writer);
        let writer = recovery::open(config(dir.path()), disk.clone()).unwrap();
        assert_eq!(read_all(&writer.reader(), LogPos(0)), stored);
        assert_eq!(writer.next_seq(), RelaySeq(1001));
        drop(writer);
        // What recovery has kept is on disk from then on.
        disk.lose_power();
        let writer = recovery::open(config(dir.path()), disk).unwrap();
        assert_eq!(read_all(&writer.reader(), LogPos(0)), stored);
        assert!(!dir.path().join("spare.log").exists());
    }
}

#[test]
fn unsynced_segments_behind_a_lost_tail_go_at_power_loss() {
    for seed in 0..40 {
        let dir = tempdir().unwrap();
        let disk = std::sync::Arc::new(FaultyDisk::new(seed));
        let (writer, stored) = open_unsynced(dir.path(), &disk);
        drop(writer);
        disk.lose_power();
        let writer = recovery::open(config(dir.path()), disk.clone()).unwrap();
        let kept = read_all(&writer.reader(), LogPos(0));
        assert_eq!(kept, stored[..kept.len()], "seed {seed}");
        assert_eq!(writer.next_seq(), RelaySeq(1001));
        writer.close().unwrap();
        recovery::open(config(dir.path()), disk).unwrap();
    }
}

#[test]
fn a_failed_sync_writes_again_what_has_left_memory() {
    let dir = tempdir().unwrap();
    let disk = std::sync::Arc::new(FaultyDisk::new(9));
    let (writer, stored) = open_unsynced(dir.path(), &disk);
    disk.set_fault(Some(Fault::Sync));
    writer.reader().shared.sync_to_head().unwrap_err();
    disk.set_fault(None);
    writer.reader().shared.sync_to_head().unwrap();
    drop(writer);
    disk.lose_power();
    let writer = recovery::open(config(dir.path()), disk).unwrap();
    assert_eq!(read_all(&writer.reader(), LogPos(0)), stored);
}

#[test]
fn spare_files_are_put_away_at_a_start_wherever_a_crash_came() {
    let dir = tempdir().unwrap();
    let mut writer = open_quiet(config(dir.path())).unwrap();
    let mut stored = append(&mut writer, 2, 900);
    writer.reader().shared.sync_to_head().unwrap();
    let writer = {
        writer.reader().shared.prepare_spare();
        // Prepared and not used.
        drop(writer);
        let writer = open_quiet(config(dir.path())).unwrap();
        assert!(!dir.path().join("spare.log").exists());
        assert_eq!(read_all(&writer.reader(), LogPos(0)), stored);
        writer
    };
    let mut writer = writer;
    writer.reader().shared.prepare_spare();
    let first = writer.next_seq().0;
    stored.extend(append(&mut writer, 3, 900));
    drop(writer);
    // In use: not renamed yet, renamed by half, renamed.
    let image = files(dir.path());
    for renamed in [&[][..], &["log"], &["index"], &["log", "index"]] {
        restore(dir.path(), &image);
        for extension in renamed {
            let spare = dir.path().join(format!("spare.{extension}"));
            fs::rename(spare, dir.path().join(format!("{first:020}.{extension}"))).unwrap();
        }
        let writer = open_quiet(config(dir.path())).unwrap();
        assert_eq!(read_all(&writer.reader(), LogPos(0)), stored);
    }
    // Taken, but without a header.
    restore(dir.path(), &image);
    fs::write(dir.path().join("spare.log"), b"").unwrap();
    let writer = open_quiet(config(dir.path())).unwrap();
    assert!(stored.starts_with(&read_all(&writer.reader(), LogPos(0))));
    assert_eq!(files(dir.path()).iter().filter(|(name, _)| name.contains("spare")).count(), 0);
}

#[test]
fn a_log_that_is_older_than_what_is_known_elsewhere_goes_on_well_behind_that() {
    let dir = tempdir().unwrap();
    let with = |known_seq| LogConfig { known_seq, ..config(dir.path()) };
    // None at all; then one that is ahead of what is known, as it should be.
    let mut writer = open_quiet(with(700)).unwrap();
    let first = append_one(&mut writer, &Sample::new(1));
    assert!(first.0 > 700 + 100_000, "{first}");
    let before = files(dir.path());
    writer.close().unwrap();
    let mut writer = open_quiet(with(first.0)).unwrap();
    let second = append_one(&mut writer, &Sample::new(1));
    assert_eq!(second, first.next());
    writer.close().unwrap();
    // An older copy is put back.
    restore(dir.path(), &before);
    let known = first.0 + 1_000_000;
    assert!(open_quiet(with(known)).unwrap().next_seq().0 > known + 100_000);
}
