//! `relayered log …` on the data directory of the real binary.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use harness::{Consumer, Relay, consumer, corpus::Corpus};
use serde_json::Value;

fn tool(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relayered"));
    command.env_clear().current_dir(data).arg("log").args(arguments).arg("--data-dir").arg(data);
    command.output().unwrap()
}

/// Runs it, and gives what it has printed.
fn printed(data: &Path, arguments: &[&str]) -> String {
    let output = tool(data, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A relay that has taken the corpus into several segments, and what consumers got.
fn relay_with_corpus() -> (Relay, Vec<Vec<u8>>) {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &["--log-segment-bytes", "1MiB"]);
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        relay.add_host(pds);
        pds.push_all(frames.iter().cloned());
    }
    let frames = Consumer::connect(relay.api, Some(0)).wait_for(corpus.event_count());
    (relay, frames)
}

/// The data files, oldest first.
fn segment_files(data: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(data.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .filter(|path| !path.ends_with("spare.log"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn the_tools_tell_what_consumers_got_and_name_damage() {
    let (mut relay, frames) = relay_with_corpus();
    let data = relay.data_dir();

    // Beside the running relay.
    assert!(printed(&data, &["verify"]).contains("all whole"));
    let info: Value = serde_json::from_str(&printed(&data, &["info", "--json"])).unwrap();
    assert_eq!(info["running"], true);
    let newest = consumer::event(frames.last().unwrap()).seq;
    let from = newest.to_string();
    assert_eq!(json_lines(&printed(&data, &["dump", "--json", "--from", &from])).len(), 1);
    let repair = tool(&data, &["repair"]);
    assert!(!repair.status.success());
    assert!(String::from_utf8_lossy(&repair.stderr).contains("in use by another process"));

    // Stopped in order.
    assert!(relay.terminate().success());
    let info: Value = serde_json::from_str(&printed(&data, &["info", "--json"])).unwrap();
    assert_eq!(info["running"], false);
    assert_eq!(info["events"], frames.len());
    assert_eq!(info["cleanNext"], newest + 1);
    let segments = info["segments"].as_array().unwrap();
    assert!(segments.len() > 1, "{info}");
    assert!(printed(&data, &["info"]).contains("stopped in order"));
    let verified = json_lines(&printed(&data, &["verify", "--json"]));
    assert_eq!(verified.len(), segments.len());

    dump_prints_what_consumers_got(&data, &frames);

    // One flipped bit in the middle of a frame.
    let path = segment_files(&data).remove(0);
    let before = fs::read(&path).unwrap();
    let mut bytes = before.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&path, &bytes).unwrap();
    let output = tool(&data, &["verify", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let lines = json_lines(&String::from_utf8(output.stdout).unwrap());
    let damaged: Vec<_> = lines.iter().filter(|line| !line["fault"].is_null()).collect();
    assert_eq!(damaged.len(), 1);
    assert_eq!(damaged[0]["file"], path.display().to_string());
    let seq = damaged[0]["fault"]["seq"].as_u64().unwrap();
    assert_eq!(seq, seq_at(&frames, middle - 4096));
    let output = tool(&data, &["verify"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("DAMAGED at seq {seq}")), "{text}");
    let output = tool(&data, &["dump", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let until = json_lines(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(until.last().unwrap()["seq"], seq - 1);

    // Whole again.
    fs::write(&path, &before).unwrap();
    assert!(printed(&data, &["verify"]).contains("all whole"));

    lease_faults_are_told(&data);
}

/// On standard output, where a program looks for them.
fn lease_faults_are_told(data: &Path) {
    let lease = data.join("log/lease");
    let before = fs::read(&lease).unwrap();
    let told = |what: &str| {
        let output = tool(data, &["verify", "--json"]);
        assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
        let lines = json_lines(&String::from_utf8(output.stdout).unwrap());
        let fault = lines.last().unwrap();
        assert_eq!(fault["file"], lease.display().to_string());
        assert!(fault["fault"]["what"].as_str().unwrap().contains(what), "{fault}");
    };
    let mut flipped = before.clone();
    flipped[20] ^= 1;
    fs::write(&lease, flipped).unwrap();
    told("wrong checksum");
    fs::remove_file(&lease).unwrap();
    told("missing");
    fs::write(&lease, &before).unwrap();
    // The log without the segments that came last.
    let last = segment_files(data).pop().unwrap();
    let held = last.with_extension("held");
    fs::rename(&last, &held).unwrap();
    fs::rename(last.with_extension("index"), held.with_extension("held2")).unwrap();
    told("missing");
    fs::rename(&held, &last).unwrap();
    fs::rename(held.with_extension("held2"), last.with_extension("index")).unwrap();
    assert!(printed(data, &["verify"]).contains("all whole"));
}

/// The number of the event whose stored bytes hold the byte at `offset` of the first segment.
fn seq_at(frames: &[Vec<u8>], offset: usize) -> u64 {
    let mut end = 0;
    for frame in frames {
        end += frame.len()
            + if frame.len() < 126 {
                2
            } else if frame.len() < 65_536 {
                4
            } else {
                10
            };
        if offset < end {
            return consumer::event(frame).seq;
        }
    }
    panic!("{offset} is behind all events")
}

fn dump_prints_what_consumers_got(data: &Path, frames: &[Vec<u8>]) {
    let events = json_lines(&printed(data, &["dump", "--json"]));
    assert_eq!(events.len(), frames.len());
    for (event, frame) in events.iter().zip(frames) {
        let expected = consumer::event(frame);
        assert_eq!(event["seq"], expected.seq);
        assert_eq!(event["did"], expected.did);
        assert_eq!(event["time"], expected.time);
        assert_eq!(event["bytes"], frame.len());
        if let protocol::frame::Body::Commit(body) = &expected.body {
            assert_eq!(event["body"]["rev"], body.rev);
            let paths: Vec<_> = body.ops.iter().map(|op| op.path).collect();
            let ops = event["body"]["ops"].as_array().unwrap();
            assert_eq!(
                ops.iter().map(|op| op["path"].as_str().unwrap()).collect::<Vec<_>>(),
                paths
            );
        }
    }
    let at = frames.len() / 2;
    let from = consumer::event(&frames[at]).seq.to_string();
    let text = printed(data, &["dump", "--from", &from, "--count", "3"]);
    assert_eq!(text.lines().count(), 3);
    assert!(text.starts_with(&format!("{from} ")), "{text}");
}

#[test]
fn after_a_kill_verify_is_content_and_repair_makes_a_clean_log() {
    let (mut relay, frames) = relay_with_corpus();
    let data = relay.data_dir();
    relay.kill();
    printed(&data, &["verify"]);
    assert!(printed(&data, &["info"]).contains("not stopped in order"));
    // A torn tail is no damage.
    let last = segment_files(&data).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    bytes.extend_from_slice(b"half a fra");
    fs::write(&last, bytes).unwrap();
    assert!(printed(&data, &["verify"]).contains("torn tail"));
    assert!(printed(&data, &["repair"]).contains("all whole"));
    assert!(!printed(&data, &["verify"]).contains("torn"));
    relay.launch();
    let replay = Consumer::connect(relay.api, Some(0)).wait_for(frames.len());
    assert!(replay == frames);
}

#[test]
fn errors_say_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    for command in ["info", "verify", "dump", "repair"] {
        let output = tool(empty.path(), &[command]);
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("--data-dir"), "{text}");
    }
    assert!(fs::read_dir(empty.path()).unwrap().next().is_none(), "a look has made files");
    assert_eq!(tool(empty.path(), &["dmup"]).status.code(), Some(64));
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}

#[test]
fn files_of_a_newer_format_are_refused_as_they_are() {
    let (mut relay, frames) = relay_with_corpus();
    let data = relay.data_dir();
    assert!(relay.terminate().success());
    let segments = segment_files(&data);
    let middle = &segments[segments.len() / 2];
    for path in [data.join("log/lease"), middle.clone(), middle.with_extension("index")] {
        let before = fs::read(&path).unwrap();
        // The first 64 bytes of each: the version at 8, and a checksum at the end.
        let mut bytes = before.clone();
        let version = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) + 1;
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let sum = crc32c(&bytes[..60]).to_le_bytes();
        bytes[60..64].copy_from_slice(&sum);
        fs::write(&path, &bytes).unwrap();
        relay.execute();
        assert_eq!(relay.wait_for_exit().code(), Some(78));
        let expected = format!("{} has format version {version}", path.display());
        assert!(relay.log().contains(&expected), "{}", relay.log());
        for command in ["verify", "info", "dump", "repair"] {
            let output = tool(&data, &[command]);
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success() && told.contains(&expected), "{command}: {told}");
        }
        assert!(fs::read(&path).unwrap() == bytes, "it was changed");
        fs::write(&path, before).unwrap();
    }
    relay.launch();
    assert!(Consumer::connect(relay.api, Some(0)).wait_for(frames.len()) == frames);
}
