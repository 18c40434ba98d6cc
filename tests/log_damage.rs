//! Torn tails, flipped bits and lost files in the data folder of the real binary: a start repairs or
//! refuses; it never serves a wrong byte and never gives a number twice.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use harness::{ADMIN_KEY, Consumer, Relay, consumer, corpus::Corpus, eventually};

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }
}

type Image = BTreeMap<String, Vec<u8>>;

fn read_image(dir: &Path) -> Image {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().into(), fs::read(path).unwrap()))
        .collect()
}

fn write_image(dir: &Path, image: &Image) {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).unwrap();
    for (name, bytes) in image {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

/// Does something to one file, and says what.
fn damage(image: &mut Image, dice: &mut Dice) -> String {
    let names: Vec<_> = image.keys().filter(|name| *name != "lock").cloned().collect();
    let name = &names[dice.below(names.len())];
    let bytes = image.get_mut(name).unwrap();
    let at = dice.below(bytes.len());
    match dice.below(5) {
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
        _ if !bytes.is_empty() => {
            bytes[at] ^= 1 << dice.below(8);
            format!("{name} bit at {at}")
        }
        _ => format!("{name} left alone"),
    }
}

/// Started on the folder; `None` if it has refused.
fn start(data: &Path) -> Option<(Child, SocketAddr)> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_relayered"))
        .env_clear()
        .current_dir(data)
        .args(["--api-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data-dir", "."])
        .args(["--admin-key", ADMIN_KEY, "--plc-host", "http://127.0.0.1:1", "--shards", "1"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("listening api="));
    // The pipe must not fill up, nor break.
    std::thread::spawn(move || lines.for_each(drop));
    let Some(line) = line else {
        let status = eventually("a refusal", || child.try_wait().unwrap());
        assert!(!status.success() && status.code().is_some(), "{status}");
        return None;
    };
    let api = line.split("api=").nth(1).unwrap().split_whitespace().next().unwrap();
    Some((child, api.parse().unwrap()))
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

#[test]
fn a_start_repairs_or_refuses_and_never_serves_wrong_bytes() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let mut relay = Relay::start(&plc, &["--log-segment-bytes", "1MiB"]);
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        relay.add_host(pds);
        pds.push_all(frames.iter().cloned());
    }
    let frames = Consumer::connect(relay.api, Some(0)).wait_for(corpus.event_count());
    let right: BTreeMap<u64, Vec<u8>> =
        frames.into_iter().map(|frame| (consumer::event(&frame).seq, frame)).collect();
    let newest = *right.last_key_value().unwrap().0;
    relay.kill();
    let killed = read_image(&relay.data_dir().join("log"));
    relay.launch();
    assert!(relay.terminate().success());
    let stopped = read_image(&relay.data_dir().join("log"));

    let place = tempfile::tempdir().unwrap();
    let mut dice = Dice(4);
    let (mut refused, mut served) = (0, 0);
    for round in 0..24 {
        let mut image = if round % 2 == 0 { killed.clone() } else { stopped.clone() };
        let what = damage(&mut image, &mut dice);
        write_image(&place.path().join("log"), &image);
        let Some((mut child, api)) = start(place.path()) else {
            refused += 1;
            continue;
        };
        served += 1;
        let end = tool_end(place.path(), newest);
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
        assert!(leased(place.path()) > newest, "{what}: numbers would be given twice");
    }
    assert!(refused > 0 && served > 0, "{refused} refused, {served} served");
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
