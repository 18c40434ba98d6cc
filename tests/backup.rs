//! A backup of a running relay, the loss of everything, and the way back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{fs, path::Path, process::Command};

use harness::{Consumer, Postgres, Relay, consumer, corpus::Corpus};
use serde_json::Value;

fn run(relay: &Relay, command: &str, dir: &Path, rest: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_relayered"))
        .env_clear()
        .current_dir(dir.parent().unwrap())
        .args([command, dir.to_str().unwrap(), "--data-dir"])
        .arg(relay.data_dir())
        .args(rest)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn backup_under_load_loss_of_everything_and_restore() {
    drill(&[], &[], || {}, |()| {});
}

#[test]
fn the_same_with_a_database_on_a_server() {
    let Some(postgres) = Postgres::start() else {
        return harness::skipped("backup", "PostgreSQL is not installed");
    };
    drill(&["--db-url", &postgres.url()], &[], || {}, |()| lose(&postgres));
}

#[test]
fn the_same_with_the_servers_own_tools() {
    let Some(postgres) = Postgres::start() else {
        return harness::skipped("backup", "PostgreSQL is not installed");
    };
    let put_back = |dump: Vec<u8>| {
        lose(&postgres);
        postgres.load(&dump);
    };
    drill(&["--db-url", &postgres.url()], &["--log-only"], || postgres.dump(), put_back);
}

fn lose(postgres: &Postgres) {
    for sql in ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"] {
        postgres.query(sql);
    }
}

/// `save` is done before the backup, `put_back` before it is restored.
fn drill<T>(database: &[&str], how: &[&str], save: impl FnOnce() -> T, put_back: impl FnOnce(T)) {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let arguments = [database, &["--log-segment-bytes", "1MiB"]].concat();
    let mut relay = Relay::start(&plc, &arguments);
    for pds in &hosts {
        relay.add_host(pds);
    }
    let half = |frames: &[(u64, Vec<u8>)]| frames.len() / 2;
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        pds.push_all(frames[..half(frames)].iter().cloned());
    }
    let early = Consumer::connect(relay.api, Some(0));
    early.wait_for(corpus.event_count() / 3);
    // In mid-stream.
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("backup");
    let saved = save();
    let about = run(&relay, "backup", &dir, &[database, how].concat());
    assert!(about["segments"].as_u64().unwrap() > 1, "{about}");

    // What comes now is in no backup.
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        pds.push_all(frames[half(frames)..].iter().cloned());
    }
    let before = early.wait_for(corpus.event_count());
    let newest = consumer::event(before.last().unwrap()).seq;
    relay.kill();
    fs::remove_dir_all(relay.data_dir()).unwrap();
    put_back(saved);
    let restored = run(&relay, "restore", &dir, database);
    assert!(restored["nextSeq"].as_u64().unwrap() > newest);
    relay.launch();

    // A consumer goes on with its cursor, wherever that is: no number has two meanings.
    let replay = Consumer::connect(relay.api, Some(0)).wait_for(corpus.event_count());
    corpus.assert_complete(&replay);
    let held = replay.iter().take_while(|frame| consumer::event(frame).seq <= newest).count();
    assert!(held >= corpus.event_count() / 3, "{held}");
    assert!(replay[..held] == before[..held]);
    let middle = consumer::event(&before[held / 2]).seq;
    let rest = corpus.event_count() - held / 2 - 1;
    let went_on = Consumer::connect(relay.api, Some(middle)).wait_for(rest);
    assert!(went_on == replay[held / 2 + 1..]);
    let lost = corpus.event_count() - held;
    let behind = Consumer::connect(relay.api, Some(newest)).wait_for(lost);
    assert!(behind == replay[held..]);
}
