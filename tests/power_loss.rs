//! Power loss in mid-stream: what was not synced is gone, in part, or in another order, in the event log
//! and in the database. No number gets a second meaning, and no event of a host is lost; with
//! `--sync-interval 0` nobody has ever seen an event that is not in the log afterwards.
//!
//! `RELAYERED_TEST_POWER_LOSSES=300` makes it as many, `RELAYERED_TEST_SEED` others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::collections::{BTreeMap, HashSet};

use harness::{Consumer, Dice, Disk, consumer, dice::number, eventually, stage::Stage};

const LOSSES: u64 = 8;
const SMALL: [&str; 4] = ["--log-segment-bytes", "256KiB", "--log-memory", "2MiB"];

/// All that anyone was ever sent, by its number.
#[derive(Default)]
struct Witness(BTreeMap<u64, Vec<u8>>);

impl Witness {
    fn note(&mut self, frames: Vec<Vec<u8>>) {
        for frame in frames {
            let seq = consumer::event(&frame).seq;
            let known = self.0.entry(seq).or_insert_with(|| frame.clone());
            assert!(*known == frame, "{seq} has two meanings: {}", consumer::describe(&frame));
        }
    }

    fn newest(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(seq, _)| *seq)
    }
}

/// A consumer that goes on with its cursor each time, and keeps all that it ever got.
#[derive(Default)]
struct Reader {
    cursor: u64,
    events: HashSet<Vec<u8>>,
    open: Option<Consumer>,
}

impl Reader {
    fn connect(&mut self, stage: &Stage) {
        self.open = Some(Consumer::connect(stage.relay.api, Some(self.cursor)));
    }

    /// All frames of the connection that has ended.
    fn disconnect(&mut self) -> Vec<Vec<u8>> {
        let Some(open) = self.open.take() else { return Vec::new() };
        open.wait_for_end();
        let frames = open.frames();
        for frame in &frames {
            let seq = consumer::event(frame).seq;
            assert!(seq > self.cursor, "{seq} came behind {}", self.cursor);
            self.cursor = seq;
            self.events.insert(consumer::without_seq(frame));
        }
        frames
    }
}

/// Sends the events, and has the process end in the middle of them, or when all have come.
fn send_and_fall(
    stage: &mut Stage,
    disk: &mut Disk,
    dice: &mut Dice,
    events: std::ops::Range<usize>,
) {
    let watch = Consumer::connect(stage.relay.api, Some(0));
    let mode = dice.below(4);
    match mode {
        // In the middle of a write, or between any two changes.
        0 => disk.die_after(1 + dice.below(200) as u32),
        1 => disk.slow_syncs(300),
        _ => {}
    }
    let all = stage.count(events.end);
    let wanted = if mode == 0 { all } else { [0, 1, all / 2, all][dice.below(4)] };
    stage.push(events);
    eventually("the moment to fall", || {
        (stage.relay.has_ended() || watch.count() >= wanted).then_some(())
    });
    disk.freeze();
    stage.relay.kill();
    disk.thaw();
    disk.slow_syncs(0);
    // Some are only kills: what they leave unsynced can be lost in the next power loss.
    if dice.below(4) > 0 {
        disk.lose_power(dice);
    }
}

fn drill(arguments: &[&str], synced_first: bool, losses: u64, seed: u64) {
    eprintln!("{losses} power losses, RELAYERED_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let (mut stage, mut disk) = Stage::on_disk(&[&SMALL[..], arguments].concat());
    let mut witness = Witness::default();
    let mut readers: Vec<Reader> = (0..3).map(|_| Reader::default()).collect();
    // A host of which nothing has been stored yet has no place to go on from.
    stage.push(0..1);
    Consumer::connect(stage.relay.api, Some(0)).wait_for(stage.hosts.len());
    assert!(stage.relay.terminate().success());
    disk.thaw();
    disk.check();
    stage.relay.launch();
    let (end, mut pushed) = (stage.longest(), 1);
    for loss in 1..=losses {
        let next = 1 + (end - 1) * loss as usize / (losses as usize + 1);
        for reader in &mut readers {
            if dice.below(3) > 0 {
                reader.connect(&stage);
            }
        }
        send_and_fall(&mut stage, &mut disk, &mut dice, pushed..next);
        pushed = next;
        for reader in &mut readers {
            witness.note(reader.disconnect());
        }
        stage.relay.launch();
        if synced_first {
            let held = replay(&stage, witness.newest());
            assert!(witness.0.keys().all(|seq| held.contains(seq)), "seen, and not in the log");
        }
    }
    stage.push(pushed..end);
    let all = Consumer::connect(stage.relay.api, Some(0)).wait_for(stage.corpus.event_count());
    stage.corpus.assert_complete(&all);
    let events: HashSet<_> = all.iter().map(|frame| consumer::without_seq(frame)).collect();
    let newest = consumer::event(all.last().unwrap()).seq;
    witness.note(all);
    for mut reader in readers {
        reader.connect(&stage);
        if reader.cursor < newest {
            reader.open.as_ref().unwrap().wait_until("the newest event", |got| {
                got.last().is_some_and(|frame| consumer::event(frame).seq == newest)
            });
        }
        reader.open.as_ref().unwrap().hang_up();
        witness.note(reader.disconnect());
        assert!(reader.events == events, "a consumer has missed something");
    }
}

/// The numbers of all events up to a number.
fn replay(stage: &Stage, newest: u64) -> HashSet<u64> {
    let consumer = Consumer::connect(stage.relay.api, Some(0));
    let frames = consumer.wait_until("what was seen", |got| {
        newest == 0 || got.last().is_some_and(|frame| consumer::event(frame).seq >= newest)
    });
    frames.iter().map(|frame| consumer::event(frame).seq).collect()
}

#[test]
fn power_loss_gives_no_number_a_second_meaning_and_loses_no_event() {
    let losses = number("RELAYERED_TEST_POWER_LOSSES").unwrap_or(LOSSES);
    drill(&[], false, losses, number("RELAYERED_TEST_SEED").unwrap_or(1));
}

#[test]
fn what_was_sent_with_every_event_synced_first_is_in_the_log_after_power_loss() {
    let losses = number("RELAYERED_TEST_POWER_LOSSES").unwrap_or(LOSSES);
    let seed = number("RELAYERED_TEST_SEED").unwrap_or(2);
    drill(&["--sync-interval", "0s"], true, losses, seed);
}
