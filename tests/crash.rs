//! SIGKILL in mid-stream, again and again: nothing is lost, sent twice, or renumbered.
//!
//! `RELAYERED_TEST_KILLS=300` makes it as many kills, `RELAYERED_TEST_SEED` another order of events.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{
    Consumer, Dice, consumer,
    dice::number,
    raw::{Got, RawConsumer},
    stage::Stage,
};

const KILLS: u64 = 25;

/// A consumer that connects again with the last number it has, and keeps all that it ever got.
#[derive(Default)]
struct Reader {
    frames: Vec<Vec<u8>>,
    open: Option<Consumer>,
}

impl Reader {
    fn connect(&mut self, stage: &Stage) {
        let newest = self.frames.last().map_or(0, |frame| consumer::event(frame).seq);
        self.open = Some(Consumer::connect(stage.relay.api, Some(newest)));
    }

    /// Takes what the connection that has ended brought: all of it is new.
    fn disconnect(&mut self) {
        let Some(open) = self.open.take() else { return };
        open.wait_for_end();
        let mut newest = self.frames.last().map_or(0, |frame| consumer::event(frame).seq);
        for frame in open.frames() {
            let seq = consumer::event(&frame).seq;
            assert!(seq > newest, "{seq} came behind {newest}");
            newest = seq;
            self.frames.push(frame);
        }
    }

    fn wait_for(&self, count: usize) {
        if let Some(open) = &self.open {
            open.wait_for(count.saturating_sub(self.frames.len()));
        }
    }
}

/// One who takes no more at a time than the sockets hold, so that it is always behind.
#[derive(Default)]
struct SlowReader {
    frames: Vec<Vec<u8>>,
    open: Option<RawConsumer>,
}

impl SlowReader {
    fn connect(&mut self, stage: &Stage) {
        let newest = self.frames.last().map_or(0, |frame| consumer::event(frame).seq);
        self.open = Some(RawConsumer::connect(stage.relay.api, &format!("?cursor={newest}")));
    }

    /// The relay is gone: what the sockets hold is left, and its last event may be cut.
    fn disconnect(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        while open.read_some(1 << 16) {}
        while let Some(got) = open.take_read() {
            if let Got::Event(frame) = got {
                self.frames.push(frame);
            }
        }
    }

    fn take_rest(&mut self, stage: &Stage, count: usize) {
        self.connect(stage);
        let open = self.open.as_mut().unwrap();
        while self.frames.len() < count {
            match open.next_answering() {
                Got::Event(frame) => self.frames.push(frame),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Replays from some place in the past in each life of the relay; what each got, and behind which number.
#[derive(Default)]
struct Replayer {
    replays: Vec<(u64, Vec<Vec<u8>>)>,
    open: Option<(u64, Consumer)>,
}

impl Replayer {
    fn connect(&mut self, stage: &Stage, behind: u64) {
        self.open = Some((behind, Consumer::connect(stage.relay.api, Some(behind))));
    }

    fn disconnect(&mut self) {
        let Some((behind, open)) = self.open.take() else { return };
        open.wait_for_end();
        self.replays.push((behind, open.frames()));
    }

    /// Each got just what stands in the log, from its place on.
    fn check(&self, log: &[Vec<u8>]) {
        for (behind, frames) in &self.replays {
            let start = log.partition_point(|frame| consumer::event(frame).seq <= *behind);
            assert!(log[start..].starts_with(frames), "a replay behind {behind} differs");
        }
    }
}

/// When the relay dies.
fn pass_time(dice: &mut Dice, readers: &[Reader], stage: &Stage, pushed: usize) {
    let reader = &readers[dice.below(readers.len())];
    match dice.below(4) {
        // At once, before anything has come, or while the hosts connect.
        0 => {}
        // In mid-stream: something has come out, but hardly all of it.
        1 => reader.wait_for(reader.frames.len() + 1),
        // When one consumer has half of what there is, or all of it.
        2 => reader.wait_for(stage.count(pushed) / 2),
        _ => reader.wait_for(stage.count(pushed)),
    }
}

fn drill(stage: &mut Stage, kills: u64, dice: &mut Dice) {
    // A host of which nothing has come yet has no place to go on from after a kill.
    stage.push(0..1);
    Consumer::connect(stage.relay.api, Some(0)).wait_for(stage.hosts.len());
    let mut readers: Vec<Reader> = (0..4).map(|_| Reader::default()).collect();
    let (mut slow, mut replayer) = (SlowReader::default(), Replayer::default());
    let end = stage.longest();
    let mut pushed = 1;
    for kill in 1..=kills {
        let next = 1 + (end - 1) * kill as usize / (kills as usize + 1);
        stage.push(pushed..next);
        let advanced = next > pushed;
        pushed = next;
        // Not everyone is there every time.
        for reader in &mut readers {
            if dice.below(4) > 0 {
                reader.connect(stage);
            }
        }
        slow.connect(stage);
        let known = &readers[dice.below(readers.len())].frames;
        let behind = known.get(dice.below(2 * known.len() + 1)).map(|frame| consumer::event(frame));
        replayer.connect(stage, behind.map_or(0, |event| event.seq));
        if advanced {
            pass_time(dice, &readers, stage, pushed);
        }
        // Most are killed; whoever is stopped in order has to take up the same way.
        if dice.below(6) == 0 {
            assert!(stage.relay.terminate().success());
        } else {
            stage.relay.kill();
        }
        readers.iter_mut().for_each(Reader::disconnect);
        slow.disconnect();
        replayer.disconnect();
        stage.relay.launch();
    }
    stage.push(pushed..end);
    for reader in &mut readers {
        reader.connect(stage);
        reader.wait_for(stage.corpus.event_count());
    }
    let replay = Consumer::connect(stage.relay.api, Some(0)).wait_for(stage.corpus.event_count());
    stage.corpus.assert_complete(&replay);
    slow.take_rest(stage, replay.len());
    assert!(slow.frames == replay, "who reads slowly got something else than who does not");
    replayer.check(&replay);
    stage.relay.kill();
    for mut reader in readers {
        reader.disconnect();
        assert!(reader.frames == replay, "what was sent live differs from a replay of the log");
    }
}

/// The number of an event that was sent just now.
fn newest(stage: &Stage, pushed: usize) -> u64 {
    let all = Consumer::connect(stage.relay.api, Some(0)).wait_for(stage.count(pushed));
    consumer::event(&all[all.len() - 1]).seq
}

#[test]
fn the_first_number_is_a_floor_whatever_happens_in_between() {
    let mut stage = Stage::new(&["--initial-seq-number", "5000"]);
    stage.push(0..1);
    let mut before = newest(&stage, 1);
    assert_eq!(before, 4999 + stage.hosts.len() as u64);
    for (round, floor) in [5000, 90_000, 1, 2_000_000, 90_000].into_iter().enumerate() {
        stage.set_arguments(&["--initial-seq-number", &floor.to_string()]);
        // Killed at once, stopped at once: numbers that nobody has seen are no floor to go by.
        for kill in [true, false, true] {
            if kill {
                stage.relay.kill();
            } else {
                assert!(stage.relay.terminate().success());
            }
            stage.relay.launch();
        }
        stage.push(round + 1..round + 2);
        let seq = newest(&stage, round + 2);
        assert!(seq >= floor && seq > before, "{seq} behind {before}, not below {floor}");
        before = seq;
    }
}

#[test]
fn kills_with_every_event_on_disk_before_it_is_sent() {
    let small = ["--log-segment-bytes", "256KiB", "--log-memory", "2MiB"];
    let mut stage = Stage::new(&[&small[..], &["--sync-interval", "0s"]].concat());
    drill(&mut stage, KILLS / 5, &mut Dice(3));
}

#[test]
fn kills_in_mid_stream_lose_and_repeat_nothing() {
    let kills = number("RELAYERED_TEST_KILLS").unwrap_or(KILLS);
    let seed = number("RELAYERED_TEST_SEED").unwrap_or(1);
    eprintln!("{kills} kills, RELAYERED_TEST_SEED={seed}");
    // Small files, so that kills come while segments begin and end.
    let mut stage = Stage::new(&["--log-segment-bytes", "256KiB", "--log-memory", "2MiB"]);
    drill(&mut stage, kills, &mut Dice(seed));
}
