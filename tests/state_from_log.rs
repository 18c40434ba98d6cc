//! The database is a view of the event log: one that was lost, or is older, is brought up to the log; and a
//! log that is older than its database never makes a number mean two things.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    fs,
    path::{Path, PathBuf},
};

use harness::{Consumer, consumer, stage::Stage};
use protocol::frame::FrameKind;
use serde_json::json;

const SMALL: [&str; 2] = ["--log-segment-bytes", "512KiB"];

fn database_files(data: &Path) -> Vec<PathBuf> {
    let names = ["relayered.sqlite", "relayered.sqlite-wal", "relayered.sqlite-shm"];
    names.iter().map(|name| data.join(name)).filter(|path| path.exists()).collect()
}

fn copy_files(files: &[PathBuf], to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in files {
        fs::copy(file, to.join(file.file_name().unwrap())).unwrap();
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn seq(frame: &[u8]) -> u64 {
    consumer::event(frame).seq
}

fn everything(stage: &Stage, count: usize) -> Vec<Vec<u8>> {
    Consumer::connect(stage.relay.api, Some(0)).wait_for(count)
}

#[test]
fn an_older_database_is_brought_up_to_the_log_and_nothing_is_sent_twice() {
    for clean in [true, false] {
        let mut stage = Stage::new(&SMALL);
        let (data, place) = (stage.relay.data_dir(), tempfile::tempdir().unwrap());
        let (early, late, end) = (100, 500, stage.longest());
        stage.push(0..early);
        everything(&stage, stage.count(early));
        assert!(stage.relay.terminate().success());
        copy_files(&database_files(&data), place.path());
        stage.relay.launch();
        stage.push(early..late);
        let before = everything(&stage, stage.count(late));
        assert!(before.iter().any(|frame| {
            let kind = consumer::event(frame).body.kind();
            matches!(kind, FrameKind::Account | FrameKind::Identity)
                && seq(frame) > stage.count(early) as u64
        }));
        if clean {
            assert!(stage.relay.terminate().success());
        } else {
            stage.relay.kill();
        }
        for file in database_files(&data) {
            fs::remove_file(file).unwrap();
        }
        copy_files(&database_files(place.path()), &data);
        // Its cursors are old, so hosts send again what the log has; #account and #identity have no rev.
        stage.relay.launch();
        stage.push(late..end);
        let all = everything(&stage, stage.corpus.event_count());
        stage.corpus.assert_complete(&all);
        assert!(all.starts_with(&before));
    }
}

#[test]
fn a_lost_database_is_made_anew_from_the_log() {
    let mut stage = Stage::new(&SMALL);
    let data = stage.relay.data_dir();
    let (half, end) = (stage.longest() / 2, stage.longest());
    stage.push(0..half);
    let mut before = everything(&stage, stage.count(half));
    let did = consumer::event(&before[0]).did.to_owned();
    let body = json!({ "did": did }).to_string();
    assert_eq!(stage.relay.admin("POST", "/admin/repo/takeDown", &body).status, 200);
    let told = Consumer::connect(stage.relay.api, Some(seq(before.last().unwrap()))).wait_for(1);
    stage.relay.kill();
    for file in database_files(&data) {
        fs::remove_file(file).unwrap();
    }
    stage.relay.launch();
    // What the log tells is there, before any host is: heads, and who was taken down.
    let status = |did: &str| {
        let target = format!("/xrpc/com.atproto.sync.getRepoStatus?did={did}");
        stage.relay.get(&target).json()
    };
    assert_eq!(status(&did)["status"], "takendown");
    let last = before.iter().rfind(|frame| {
        let event = consumer::event(frame);
        event.did != did && matches!(event.body.kind(), FrameKind::Commit)
    });
    let last = last.unwrap();
    let other = consumer::event(last).did;
    assert_eq!(status(other)["rev"], harness::describe_rev(last));
    // Hosts get other numbers than they had: nothing of one may be taken for another's.
    for pds in stage.hosts.iter().rev() {
        stage.relay.add_host(pds);
    }
    stage.push(half..end);
    before.retain(|frame| {
        let event = consumer::event(frame);
        event.did != did || !matches!(event.body.kind(), FrameKind::Commit | FrameKind::Sync)
    });
    before.extend(told);
    let rest = stage.corpus.hosts.iter().flat_map(|frames| frames.iter().skip(half));
    let rest: Vec<_> = rest.filter(|(_, frame)| consumer::event(frame).did != did).collect();
    let consumer = Consumer::connect(stage.relay.api, Some(seq(before.last().unwrap())));
    let of_others = |frames: &[Vec<u8>]| {
        frames.iter().filter(|frame| consumer::event(frame).did != did).count()
    };
    let after = consumer.wait_until("the rest", |got| of_others(got) >= rest.len());
    assert_eq!(of_others(&after), rest.len());
    let all = everything(&stage, before.len() + after.len());
    assert!(all.starts_with(&before) && all.ends_with(&after));
    assert!(seq(&after[0]) > seq(before.last().unwrap()));
    // And again, over a kill.
    stage.relay.kill();
    stage.relay.launch();
    assert!(everything(&stage, all.len()) == all);
}

/// What the log looks like when the relay starts again.
enum Log {
    Older,
    Gone,
    /// Only the lock is left.
    Emptied,
}

/// Without the word that something was lost.
fn events(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames.iter().filter(|frame| protocol::frame::parse(frame).is_ok()).cloned().collect()
}

#[test]
fn an_older_log_or_none_never_gives_a_number_a_second_meaning() {
    for found in [Log::Older, Log::Gone, Log::Emptied] {
        let mut stage = Stage::new(&SMALL);
        let (data, place) = (stage.relay.data_dir(), tempfile::tempdir().unwrap());
        // More than a lease is given out in between.
        let (early, late, end) = (50, 400, stage.longest());
        stage.push(0..early);
        let first = everything(&stage, stage.count(early));
        assert!(stage.relay.terminate().success());
        copy_files(&files_in(&data.join("log")), place.path());
        stage.relay.launch();
        stage.push(early..late);
        let before = everything(&stage, stage.count(late));
        let newest = seq(before.last().unwrap());
        assert!(stage.relay.terminate().success());
        fs::remove_dir_all(data.join("log")).unwrap();
        let kept = match found {
            Log::Older => {
                copy_files(&files_in(place.path()), &data.join("log"));
                &first[..]
            }
            Log::Emptied => {
                fs::create_dir(data.join("log")).unwrap();
                fs::write(data.join("log/lock"), "").unwrap();
                &[]
            }
            Log::Gone => &[],
        };
        stage.relay.launch();
        stage.relay.wait_for_line("events are missing: the event log is gone");
        // Whoever has the newest number goes on with it.
        let went_on = Consumer::connect(stage.relay.api, Some(newest));
        stage.push(late..end);
        let wanted = stage.corpus.event_count() - before.len();
        let rest = events(&went_on.wait_until("the rest", |got| events(got).len() == wanted));
        assert!(seq(&rest[0]) > newest + 100_000);
        stage.corpus.assert_complete(&[&before[..], &rest[..]].concat());
        let all = everything(&stage, kept.len() + rest.len());
        assert!(all == [kept, &rest[..]].concat());
    }
}
