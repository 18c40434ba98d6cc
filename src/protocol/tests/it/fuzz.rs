//! Each fuzz target over its corpus, and over a few thousand mutations of it that are always the
//! same.

#[path = "../../fuzz/targets.rs"]
#[allow(unreachable_pub, reason = "the fuzz crate exports these functions")]
mod targets;

use std::fs;

use crate::data;

const MUTATIONS: u64 = 3_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn mutate(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    const TELLING: [u8; 16] = [
        0x00, 0x17, 0x18, 0x1b, 0x40, 0x5f, 0x60, 0x7b, 0x80, 0x9b, 0xa0, 0xbb, 0xd8, 0xf6, 0xfb,
        0xff,
    ];
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = TELLING[random.below(TELLING.len())],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, TELLING[random.below(TELLING.len())]),
            4 if !bytes.is_empty() => drop(bytes.remove(at)),
            5 => {
                let end = (at + random.below(64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let from = random.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

fn run(name: &str, target: fn(&[u8])) {
    let folder = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    assert!(!files.is_empty(), "no corpus in {folder}");
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    for input in &corpus {
        target(input);
    }
    let mut random = Random(1);
    for _ in 0..MUTATIONS {
        let input = &corpus[random.below(corpus.len())];
        let other = &corpus[random.below(corpus.len())];
        target(&mutate(input, other, &mut random));
    }
}

#[test]
fn cbor() {
    run("cbor", targets::cbor);
}

#[test]
fn frame() {
    run("frame", targets::frame);
    for case in data::json("relay-conformance/corpus.json") {
        targets::frame(&data::hex(case["hex"].as_str().unwrap()));
    }
}

#[test]
fn car() {
    run("car", targets::car);
}

#[test]
fn commit() {
    run("commit", targets::commit);
}

#[test]
fn node() {
    run("node", targets::node);
}

#[test]
fn inversion() {
    run("inversion", targets::inversion);
}

#[test]
fn did_doc() {
    run("did_doc", targets::did_doc);
}

#[test]
fn key() {
    run("key", targets::key);
}

#[test]
fn syntax() {
    run("syntax", targets::syntax);
}
