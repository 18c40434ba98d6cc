//! Torn tails, flipped bits and lost files in the data folder of the real binary, in files of every kind: a
//! start repairs or refuses, with a message that says of what; it never serves a wrong byte and never gives
//! a number twice.
//!
//! `RELAYERED_TEST_DAMAGES=500` makes it as many, `RELAYERED_TEST_SEED` others; a failure names its seed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use harness::{ADMIN_KEY, Consumer, Dice, consumer, dice::number, eventually, stage::Stage};
use protocol::frame::Body;
use serde_json::json;

const DAMAGES: u64 = 24;

/// The data folder: files by their path in it.
type Image = BTreeMap<String, Vec<u8>>;

fn read_image(data: &Path) -> Image {
    let mut image = Image::new();
    for folder in ["", "log/"] {
        for entry in fs::read_dir(data.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{folder}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_file() && name != "log/lock" && !name.ends_with("-shm") {
                image.insert(name, fs::read(path).unwrap());
            }
        }
    }
    image
}

fn write_image(data: &Path, image: &Image) {
    let _ = fs::remove_dir_all(data);
    fs::create_dir_all(data.join("log")).unwrap();
    for (name, bytes) in image {
        fs::write(data.join(name), bytes).unwrap();
    }
}

/// What a file is: its name or, of a segment's two files, which of them.
fn kind(name: &str) -> &str {
    match name.strip_prefix("log/0") {
        Some(rest) if rest.contains('x') => "index",
        Some(_) => "data",
        None => name,
    }
}

/// Does something to one file, of a kind that is chosen first; says what.
fn damage(image: &mut Image, dice: &mut Dice) -> String {
    let mut names: Vec<_> = image.keys().cloned().collect();
    let kinds: BTreeSet<_> = names.iter().map(|name| kind(name).to_owned()).collect();
    let chosen = kinds.iter().nth(dice.below(kinds.len())).unwrap();
    names.retain(|name| kind(name) == chosen);
    let name = &names[dice.below(names.len())];
    let bytes = image.get_mut(name).unwrap();
    // Headers are small, and there is much to hit in them.
    let reach = if dice.one_in(3) { bytes.len().min(4096 + 128) } else { bytes.len() };
    let at = dice.below(reach);
    match dice.below(6) {
        0 if !bytes.is_empty() => {
            bytes.truncate(at);
            format!("{name} cut at {at}")
        }
        1 if !bytes.is_empty() => {
            let end = bytes.len().min(at + 512);
            bytes[at..end].fill(0);
            format!("{name} zeros at {at}")
        }
        2 => {
            image.remove(name);
            format!("{name} lost")
        }
        3 => {
            bytes.extend((0..at % 3000).map(|byte| byte as u8));
            format!("{name} longer by {}", at % 3000)
        }
        4 if !bytes.is_empty() => {
            let end = bytes.len().min(at + 1 + dice.below(64));
            bytes[at..end].iter_mut().for_each(|byte| *byte = dice.next() as u8);
            format!("{name} noise at {at}..{end}")
        }
        _ if !bytes.is_empty() => {
            bytes[at] ^= 1 << dice.below(8);
            format!("{name} bit at {at}")
        }
        _ => format!("{name} left alone"),
    }
}

/// Started on the folder; what it has said, if it has refused.
fn start(data: &Path) -> Result<(Child, SocketAddr), String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_relayered"))
        .env_clear()
        .current_dir(data)
        .args(["--api-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data-dir", "."])
        .args(["--admin-key", ADMIN_KEY, "--plc-host", "http://127.0.0.1:1", "--shards", "1"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    let found = lines.find(|line| {
        said.push(line.clone());
        line.contains("listening api=")
    });
    // The pipe must not fill up, nor break.
    std::thread::spawn(move || lines.for_each(drop));
    let Some(line) = found else {
        let status = eventually("a refusal", || child.try_wait().unwrap());
        assert!(status.code().is_some_and(|code| code != 0), "{status}: {}", said.join("\n"));
        return Err(said.join("\n"));
    };
    let api = line.split("api=").nth(1).unwrap().split_whitespace().next().unwrap();
    Ok((child, api.parse().unwrap()))
}

/// What a replay of everything brings, until it ends or nothing more can come.
fn replay(api: SocketAddr, newest: u64) -> Vec<Vec<u8>> {
    let consumer = Consumer::connect(api, Some(0));
    let newest_of = |frames: &[Vec<u8>]| {
        frames.iter().rev().find_map(|frame| protocol::frame::parse(frame).ok()).map(|one| one.seq)
    };
    eventually("the end of the replay", || {
        let frames = consumer.frames();
        // The relay's head tells where the end is; a damaged window may have nothing at all.
        (consumer.ended() || newest_of(&frames) >= Some(newest)).then_some(())
    });
    consumer.frames()
}

/// A refusal names what it is about, and what to do is never to read a stack.
fn assert_clear(told: &str, what: &str) {
    let last = told.lines().find(|line| line.starts_with("relayered: ")).unwrap_or_default();
    assert!(
        ["log/", "database", "sqlite"].iter().any(|text| last.contains(text)),
        "{what}: {told}"
    );
    assert!(!told.contains("panicked"), "{what}: {told}");
}

/// What a relay has left: killed in mid-stream, and stopped in order. Some accounts were taken down.
fn images() -> (Image, Image, BTreeMap<u64, Vec<u8>>) {
    let mut stage = Stage::new(&["--log-segment-bytes", "1MiB"]);
    stage.push(0..usize::MAX);
    let consumer = Consumer::connect(stage.relay.api, Some(0));
    let mut frames = consumer.wait_for(stage.corpus.event_count());
    let did = consumer::event(&frames[0]).did.to_owned();
    let body = json!({ "did": did }).to_string();
    assert_eq!(stage.relay.admin("POST", "/admin/repo/takeDown", &body).status, 200);
    frames = consumer.wait_for(frames.len() + 1);
    eventually("the erasure", || {
        let pending = stage.relay.metric("relayered_log_erasures_pending_count", "");
        (pending < 0.5 && stage.relay.data_dir().join("log/erased").exists()).then_some(())
    });
    frames.retain(|frame| {
        let event = consumer::event(frame);
        event.did != did || matches!(event.body, Body::Account(_) | Body::Identity(_))
    });
    let right = frames.into_iter().map(|frame| (consumer::event(&frame).seq, frame)).collect();
    stage.relay.kill();
    let killed = read_image(&stage.relay.data_dir());
    stage.relay.launch();
    assert!(stage.relay.terminate().success());
    (killed, read_image(&stage.relay.data_dir()), right)
}

#[test]
fn a_start_repairs_or_refuses_and_never_serves_wrong_bytes() {
    let (killed, stopped, right) = images();
    let newest = *right.last_key_value().unwrap().0;
    let place = tempfile::tempdir().unwrap();
    let seed = number("RELAYERED_TEST_SEED").unwrap_or(4);
    let mut kinds: BTreeMap<String, [u32; 2]> = BTreeMap::new();
    for round in 0..number("RELAYERED_TEST_DAMAGES").unwrap_or(DAMAGES) {
        let seed = seed + round;
        let mut dice = Dice(seed);
        let mut image = if dice.one_in(2) { killed.clone() } else { stopped.clone() };
        let damage = damage(&mut image, &mut dice);
        let what = format!("RELAYERED_TEST_SEED={seed}: {damage}");
        write_image(place.path(), &image);
        let count = kinds.entry(kind(damage.split(' ').next().unwrap()).to_owned()).or_default();
        match start(place.path()) {
            Err(told) => {
                assert_clear(&told, &what);
                count[0] += 1;
            }
            Ok(running) => {
                check_served(place.path(), running, &right, newest, &what);
                count[1] += 1;
            }
        }
    }
    eprintln!("refused and started, by what was damaged: {kinds:?}");
    let [refused, served] =
        kinds.values().fold([0, 0], |sum, one| [sum[0] + one[0], sum[1] + one[1]]);
    assert!(refused > 0 && served > 0, "{refused} refused, {served} served");
}

fn check_served(
    data: &Path,
    (mut child, api): (Child, SocketAddr),
    right: &BTreeMap<u64, Vec<u8>>,
    newest: u64,
    what: &str,
) {
    let end = tool_end(data, newest);
    for frame in replay(api, end) {
        let Ok(event) = protocol::frame::parse(&frame) else {
            assert!(matches!(
                protocol::frame::skim(&frame),
                Ok(protocol::frame::Skim::Info { .. } | protocol::frame::Skim::Error { .. })
            ));
            continue;
        };
        assert!(right.get(&event.seq) == Some(&frame), "{what}: seq {} is wrong", event.seq);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(leased(data) > newest, "{what}: numbers would be given twice");
}

fn info(data: &Path) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_relayered"))
        .env_clear()
        .current_dir(data)
        .args(["log", "info", "--json", "--data-dir", "."])
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn leased(data: &Path) -> u64 {
    info(data)["leased"].as_u64().unwrap()
}

/// The newest event that is left.
fn tool_end(data: &Path, newest: u64) -> u64 {
    let info = info(data);
    let last =
        info["segments"].as_array().unwrap().iter().filter_map(|one| one["lastSeq"].as_u64());
    last.max().unwrap_or(0).min(newest)
}
