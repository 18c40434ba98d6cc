//! A kill in every moment of what is done seldom: the repair at a start, an index that is made anew, the
//! erasure after a take-down, a stop in order, a backup, its restore, `log repair`. The process dies in a
//! change of its files that is chosen, half done; the next one finishes the work.
//!
//! `RELAYERED_TEST_CRASH_POINTS=200` tries up to so many places of each kind, `RELAYERED_TEST_SEED` others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use harness::{Consumer, Dice, Disk, consumer, dice::number, eventually, stage::Stage};
use protocol::frame::{Body, FrameKind};
use serde_json::json;

const POINTS: u64 = 3;
const SMALL: [&str; 4] = ["--log-segment-bytes", "256KiB", "--log-memory", "2MiB"];

/// All files of a folder, by their path in it.
type Image = BTreeMap<PathBuf, Vec<u8>>;

fn image(folder: &Path) -> Image {
    let mut found = Image::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            found.extend(image(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

fn put_back(folder: &Path, image: &Image) {
    let _ = fs::remove_dir_all(folder);
    for (name, bytes) in image {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn dice() -> Dice {
    let seed = number("RELAYERED_TEST_SEED").unwrap_or(1);
    eprintln!("RELAYERED_TEST_SEED={seed}");
    Dice(seed)
}

/// Some of the moments in `1..=changes`; in order, always with the first and the last.
fn moments(changes: u32, dice: &mut Dice) -> Vec<u32> {
    let points = number("RELAYERED_TEST_CRASH_POINTS").unwrap_or(POINTS) as usize;
    let mut all: Vec<u32> = (1..=changes).collect();
    while all.len() > points.max(2) {
        all.remove(1 + dice.below(all.len() - 2));
    }
    all
}

/// A relay that has taken all of the corpus and was killed, and what consumers got of it.
fn killed() -> (Stage, Vec<Vec<u8>>) {
    let mut stage = Stage::new(&SMALL);
    stage.push(0..usize::MAX);
    let all = Consumer::connect(stage.relay.api, Some(0)).wait_for(stage.corpus.event_count());
    // A segment of which nothing was synced is not repaired but removed.
    let newest = consumer::event(&all[all.len() - 1]).seq;
    stage.relay.wait_for_metric("relayered_log_synced_seq", "", newest as f64);
    stage.relay.kill();
    (stage, all)
}

fn segments(image: &Image) -> Vec<PathBuf> {
    let is_segment = |path: &&PathBuf| {
        path.extension().is_some_and(|extension| extension == "log") && !path.ends_with("spare.log")
    };
    image.keys().filter(is_segment).cloned().collect()
}

/// A start on these files dies in each of some moments; the next one, after a power loss or without,
/// serves what there was, and its numbers are new.
fn starts_die(stage: &mut Stage, files: &Image, expected: &[Vec<u8>], dice: &mut Dice) {
    let data = stage.relay.data_dir();
    let newest = consumer::event(expected.last().unwrap()).seq;
    put_back(&data, files);
    let disk = Disk::under(data.clone());
    stage.relay.set_environment(disk.environment());
    stage.relay.launch();
    let changes = disk.changes();
    stage.relay.kill();
    for moment in moments(changes, dice) {
        put_back(&data, files);
        let mut disk = Disk::under(data.clone());
        stage.relay.set_environment(disk.environment());
        disk.die_after(moment);
        stage.relay.execute();
        eventually("the relay to die", || stage.relay.has_ended().then_some(()));
        stage.relay.kill();
        disk.thaw();
        if dice.one_in(2) {
            disk.lose_power(dice);
        }
        stage.relay.launch();
        let replay = Consumer::connect(stage.relay.api, Some(0)).wait_for(expected.len());
        let same = replay.iter().zip(expected).take_while(|(one, other)| one == other).count();
        let told = replay.get(same).map(|frame| consumer::describe(frame));
        assert!(same == expected.len(), "moment {moment} of {changes}: {told:?} at {same}");
        // Where an index was lost it is not known which events of its host one was. Commits have revs.
        let again = |frame: &Vec<u8>| {
            let kind = consumer::event(frame).body.kind();
            matches!(kind, FrameKind::Account | FrameKind::Identity)
        };
        assert!(replay[expected.len()..].iter().all(again), "moment {moment} of {changes}");
        assert!(leased(&data) > newest, "moment {moment}: numbers would be given twice");
        stage.relay.kill();
    }
}

fn tool(data: &Path, arguments: &[&str], environment: Vec<(String, String)>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relayered"));
    command.env_clear().envs(environment).current_dir(data.parent().unwrap()).args(arguments);
    command.arg("--data-dir").arg(data).output().unwrap()
}

/// How many events the log has, and can be read.
fn events_in(data: &Path) -> usize {
    let dump = tool(data, &["log", "dump", "--json"], Vec::new());
    assert!(dump.status.success(), "{dump:?}");
    String::from_utf8(dump.stdout).unwrap().lines().count()
}

fn leased(data: &Path) -> u64 {
    let output = tool(data, &["log", "info", "--json"], Vec::new());
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    info["leased"].as_u64().unwrap()
}

#[test]
fn a_repair_that_dies_is_done_by_the_next_start() {
    let mut dice = dice();
    let (mut stage, all) = killed();
    let mut files = image(&stage.relay.data_dir());
    let last = segments(&files).pop().unwrap();
    files.get_mut(&last).unwrap().extend_from_slice(&[0x82, 0x7e, 0x10]);
    starts_die(&mut stage, &files, &all, &mut dice);
}

#[test]
fn an_index_that_is_being_made_anew_is_made_by_the_next_start() {
    let mut dice = dice();
    let (mut stage, all) = killed();
    let mut files = image(&stage.relay.data_dir());
    let all_segments = segments(&files);
    // One in the middle that is lost, and the newest one damaged.
    files.remove(&all_segments[1].with_extension("index")).unwrap();
    let newest = all_segments.last().unwrap().with_extension("index");
    files.get_mut(&newest).unwrap()[9] ^= 1;
    starts_die(&mut stage, &files, &all, &mut dice);
}

#[test]
fn an_erasure_that_dies_is_finished_by_the_next_start() {
    let mut dice = dice();
    let (mut stage, all) = killed();
    let data = stage.relay.data_dir();
    let did = consumer::event(&all[all.len() / 2]).did.to_owned();
    let is_gone = |frame: &Vec<u8>| {
        let event = consumer::event(frame);
        event.did == did && matches!(event.body.kind(), FrameKind::Commit | FrameKind::Sync)
    };
    let is_down = |frame: &Vec<u8>| {
        let event = consumer::event(frame);
        event.did == did && matches!(event.body, Body::Account(body) if !body.active)
    };
    let kept: Vec<_> = all.iter().filter(|frame| !is_gone(frame)).cloned().collect();
    let secrets: Vec<_> = all.iter().filter(|frame| is_gone(frame)).cloned().collect();
    assert!(secrets.len() > 3);
    stage.relay.launch();
    assert!(stage.relay.terminate().success());
    let files = image(&data);
    // Flags and frames one by one, and four syncs for each segment that has some.
    for moment in moments(3 * secrets.len() as u32, &mut dice) {
        put_back(&data, &files);
        let mut disk = Disk::under(data.clone());
        stage.relay.set_environment(disk.environment());
        stage.relay.launch();
        let consumer = Consumer::connect(stage.relay.api, Some(0));
        consumer.wait_for(all.len());
        let body = json!({ "did": did }).to_string();
        assert_eq!(stage.relay.admin("POST", "/admin/repo/takeDown", &body).status, 200);
        consumer.wait_for(all.len() + 1);
        disk.die_after(moment);
        // Written last.
        let (noted, before) = (data.join("log/erased"), files.get(Path::new("log/erased")));
        eventually("the end of the relay or of the erasure", || {
            let done = fs::read(&noted).is_ok_and(|bytes| Some(&bytes) != before);
            (stage.relay.has_ended() || done).then_some(())
        });
        disk.freeze();
        stage.relay.kill();
        disk.thaw();
        if dice.one_in(2) {
            disk.lose_power(&mut dice);
        }
        stage.relay.launch();
        // A power loss can take the take-down's event; the next start sends it again.
        let again = Consumer::connect(stage.relay.api, Some(0));
        again.wait_until("the take-down", |got| got.last().is_some_and(&is_down));
        let replay = Consumer::connect(stage.relay.api, Some(0)).wait_for(kept.len() + 1);
        assert!(replay[..kept.len()] == kept, "moment {moment}");
        assert!(replay.len() == kept.len() + 1 && is_down(&replay[kept.len()]));
        eventually("the bytes to be gone from the disk", || {
            let held: Vec<u8> = image(&data.join("log")).into_values().flatten().collect();
            let secret = &secrets[secrets.len() - 1];
            let bytes = &secret[consumer::event(secret).seq_span.end..];
            (!held.windows(bytes.len()).any(|window| window == bytes)).then_some(())
        });
        stage.relay.kill();
    }
}

#[test]
fn a_stop_in_order_that_dies_is_a_kill() {
    let mut dice = dice();
    let (mut stage, all) = killed();
    let data = stage.relay.data_dir();
    let files = image(&data);
    for moment in moments(20, &mut dice) {
        put_back(&data, &files);
        let mut disk = Disk::under(data.clone());
        stage.relay.set_environment(disk.environment());
        stage.relay.launch();
        disk.die_after(moment);
        // It may have come to its end before.
        let _ = stage.relay.terminate();
        disk.thaw();
        if dice.one_in(2) {
            disk.lose_power(&mut dice);
        }
        stage.relay.launch();
        let replay = Consumer::connect(stage.relay.api, Some(0)).wait_for(all.len());
        assert!(replay == all, "moment {moment}");
        stage.relay.kill();
    }
}

#[test]
fn a_log_repair_that_dies_is_done_by_the_next_one() {
    let mut dice = dice();
    let (stage, all) = killed();
    let data = stage.relay.data_dir();
    let mut files = image(&data);
    let last = segments(&files).pop().unwrap();
    files.get_mut(&last).unwrap().extend_from_slice(b"half a frame");
    put_back(&data, &files);
    let disk = Disk::under(data.clone());
    assert!(tool(&data, &["log", "repair"], disk.environment()).status.success());
    for moment in moments(disk.changes(), &mut dice) {
        put_back(&data, &files);
        let mut disk = Disk::under(data.clone());
        disk.die_after(moment);
        assert_eq!(tool(&data, &["log", "repair"], disk.environment()).status.code(), None);
        disk.thaw();
        disk.lose_power(&mut dice);
        assert!(tool(&data, &["log", "repair"], Vec::new()).status.success(), "moment {moment}");
        let verified = tool(&data, &["log", "verify"], Vec::new());
        assert!(verified.status.success(), "moment {moment}: {verified:?}");
        assert_eq!(events_in(&data), all.len(), "moment {moment}");
    }
}

#[test]
fn half_a_backup_is_none_and_half_a_restore_is_no_data_folder() {
    let mut dice = dice();
    let (mut stage, all) = killed();
    let (data, place) = (stage.relay.data_dir(), tempfile::tempdir().unwrap());
    let log = image(&data.join("log"));
    let whole = place.path().join("whole");
    fs::create_dir(&whole).unwrap();
    let disk = Disk::under(whole.clone());
    let backup = |dir: &Path, disk: &Disk| {
        tool(&data, &["backup", dir.to_str().unwrap()], disk.environment())
    };
    assert!(backup(&whole, &disk).status.success());
    for (count, moment) in moments(disk.changes(), &mut dice).into_iter().enumerate() {
        let half = place.path().join(format!("half{count}"));
        fs::create_dir(&half).unwrap();
        let disk = Disk::under(half.clone());
        disk.die_after(moment);
        assert_eq!(backup(&half, &disk).status.code(), None);
        let to = place.path().join(format!("to{count}"));
        let restored = tool(&to, &["restore", half.to_str().unwrap()], Vec::new());
        if restored.status.success() {
            // It died behind the end.
            assert_eq!(events_in(&to), all.len(), "moment {moment}");
        } else {
            let told = String::from_utf8_lossy(&restored.stderr).into_owned();
            assert!(told.contains("no complete backup"), "moment {moment}: {told}");
        }
        assert!(image(&data.join("log")) == log, "a backup changes nothing");
    }

    let restore =
        |disk: &Disk| tool(&data, &["restore", whole.to_str().unwrap()], disk.environment());
    put_back(&data, &Image::new());
    fs::create_dir(&data).unwrap();
    let disk = Disk::under(data.clone());
    assert!(restore(&disk).status.success());
    for moment in moments(disk.changes(), &mut dice) {
        put_back(&data, &Image::new());
        fs::create_dir(&data).unwrap();
        let mut disk = Disk::under(data.clone());
        disk.die_after(moment);
        assert_eq!(restore(&disk).status.code(), None);
        disk.thaw();
        disk.lose_power(&mut dice);
        let held = image(&data);
        let what = format!("moment {moment}: {:?}", held.keys());
        stage.relay.set_environment(Vec::new());
        stage.relay.execute();
        // Either there is nothing yet, or a part, which is refused; or it died behind the end.
        let begun = held.keys().any(|path| !path.ends_with("log/lock"));
        if begun && !held.contains_key(Path::new("log/lease")) {
            assert_eq!(stage.relay.wait_for_exit().code(), Some(78), "{what}");
            let told = stage.relay.log();
            assert!(told.contains("restore") || told.contains("database"), "{what}: {told}");
        } else {
            stage.relay.kill();
        }
    }
    fs::remove_dir_all(&data).unwrap();
    assert!(tool(&data, &["restore", whole.to_str().unwrap()], Vec::new()).status.success());
    stage.relay.launch();
    assert!(Consumer::connect(stage.relay.api, Some(0)).wait_for(all.len()) == all);
}
