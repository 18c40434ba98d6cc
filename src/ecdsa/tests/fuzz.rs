//! The fuzz target over its corpus, and over seeded input that is always the same.

#[path = "../fuzz/targets.rs"]
#[allow(unreachable_pub, reason = "the fuzz crate exports it")]
mod targets;

use std::fs;

use ecdsa::InUse;

const INPUTS: u64 = 60;

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn lanes_agree_with_the_libraries() {
    let folder = format!("{}/fuzz/corpus/batch", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    assert!(!files.is_empty(), "no corpus in {folder}");
    for file in files {
        assert!(targets::batch(&fs::read(&file).unwrap()) > 0, "{}", file.display());
    }
    let mut state = 1;
    let mut good = 0;
    for _ in 0..INPUTS {
        let length = next(&mut state) % 1500;
        let input: Vec<u8> = (0..length).map(|_| next(&mut state) as u8).collect();
        good += targets::batch(&input);
    }
    let status = targets::LANES.status();
    assert!(good > 300, "only {good} good signatures");
    assert_eq!(status.differences, 0);
    // Sums that the lanes leave to the library are among them.
    assert!(status.in_use != InUse::Lanes || (status.groups > 60 && status.recomputed > 20));
}
