//! A host begins its numbering anew, and the relay dies in that moment: what it had sent under the new
//! numbers is recognised, also what has no rev (#account, #identity).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{Consumer, consumer, forge::renumber, stage::Stage};

/// The rest of the first host's stream, numbered from 1.
fn anew(stage: &Stage, from: usize) -> Vec<(u64, Vec<u8>)> {
    let rest = stage.corpus.hosts[0].iter().skip(from);
    (1..).zip(rest).map(|(seq, (_, frame))| (seq, renumber(frame, seq))).collect()
}

#[test]
fn a_crash_right_after_a_host_renumbers_repeats_nothing() {
    for power_loss in [false, true] {
        let (mut stage, mut disk) = Stage::on_disk(&[]);
        let half = stage.corpus.hosts[0].len() / 2;
        stage.hosts[0].push_all(stage.corpus.hosts[0][..half].iter().cloned());
        let before = Consumer::connect(stage.relay.api, Some(0)).wait_for(half);
        let newest = consumer::event(before.last().unwrap()).seq;
        assert!(stage.relay.terminate().success());
        disk.thaw();
        stage.relay.launch();
        stage.hosts[0].wait_for_connection(2);
        let rest = anew(&stage, half);
        let some = rest.len() / 2;
        stage.hosts[0].start_over(rest[..some].iter().cloned());
        for kill in 0..3 {
            // The first time before the place in the new numbering has been written down.
            Consumer::connect(stage.relay.api, Some(newest)).wait_for(1 + kill * some / 3);
            disk.freeze();
            stage.relay.kill();
            disk.thaw();
            if power_loss {
                disk.lose_power(&mut harness::Dice(kill as u64));
            }
            stage.relay.launch();
        }
        stage.hosts[0].push_all(rest[some..].iter().cloned());
        let all = Consumer::connect(stage.relay.api, Some(0)).wait_for(half + rest.len());
        let sent = stage.corpus.hosts[0].iter().map(|(_, frame)| consumer::without_seq(frame));
        let mut sent: Vec<_> = sent.collect();
        let mut got: Vec<_> = all.iter().map(|frame| consumer::without_seq(frame)).collect();
        sent.sort();
        got.sort();
        assert!(sent == got, "power loss {power_loss}: {} of {}", got.len(), sent.len());
    }
}
