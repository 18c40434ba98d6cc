//! SIGKILL in mid-stream: nothing is lost, sent twice, or renumbered.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeMap;

use harness::{Consumer, Relay, consumer, corpus::Corpus};

/// Collects by seq what consumers got over many connections; the same seq must be the same bytes.
#[derive(Default)]
struct Union(BTreeMap<u64, Vec<u8>>);

impl Union {
    fn add(&mut self, frames: Vec<Vec<u8>>) {
        for frame in frames {
            let seq = consumer::event(&frame).seq;
            if let Some(before) = self.0.get(&seq) {
                assert!(*before == frame, "seq {seq} was given to two events");
            }
            self.0.insert(seq, frame);
        }
    }

    fn newest(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    fn frames(&self) -> Vec<Vec<u8>> {
        self.0.values().cloned().collect()
    }
}

#[test]
fn kills_in_mid_stream_lose_and_repeat_nothing() {
    const KILLS: usize = 20;
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let mut relay = Relay::start(&plc, &[]);
    for pds in &hosts {
        relay.add_host(pds);
    }
    // A host of which nothing has come yet has no place to go on from after a kill.
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        pds.push_all(frames.iter().take(1).cloned());
    }
    Consumer::connect(relay.api, Some(0)).wait_for(hosts.len());
    let step = corpus.event_count() / corpus.hosts.len() / (KILLS + 1);
    let mut union = Union::default();
    let mut pushed = 1;
    for _ in 0..KILLS {
        for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
            pds.push_all(frames.iter().skip(pushed).take(step).cloned());
        }
        pushed += step;
        // In mid-stream: something new has come out, but hardly all of it.
        let before = union.newest();
        let consumer = Consumer::connect(relay.api, Some(before));
        consumer.wait_for(1);
        relay.kill();
        consumer.wait_for_end();
        union.add(consumer.frames());
        relay.launch();
    }
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        pds.push_all(frames.iter().skip(pushed).cloned());
    }
    let consumer = Consumer::connect(relay.api, Some(union.newest()));
    consumer.wait_until("the rest", |frames| union.0.len() + frames.len() >= corpus.event_count());
    union.add(consumer.frames());
    corpus.assert_complete(&union.frames());
    let replay = Consumer::connect(relay.api, Some(0)).wait_for(corpus.event_count());
    assert!(replay == union.frames(), "a replay from the log differs from what was sent live");
}
