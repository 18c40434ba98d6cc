//! A disk that fails under the real binary: every error of the event log shows in health and metrics, is
//! survived, and costs no event and no number.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{
    Consumer, Dice, Disk, Relay, consumer,
    disk::{EIO, ENOSPC, EROFS, IN_DATABASE, IN_LOG},
    eventually,
    stage::Stage,
};

const SMALL: [&str; 4] = ["--log-segment-bytes", "256KiB", "--log-memory", "2MiB"];

fn wait_for_health(relay: &Relay, status: u16) {
    eventually(&format!("health {status}"), || {
        (relay.get("/xrpc/_health").status == status).then_some(())
    });
}

fn seqs(frames: &[Vec<u8>]) -> Vec<u64> {
    frames.iter().map(|frame| consumer::event(frame).seq).collect()
}

fn assert_dense(frames: &[Vec<u8>]) {
    let seqs = seqs(frames);
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
}

#[test]
fn a_log_that_cannot_be_written_holds_hosts_up_and_loses_no_number() {
    let (mut stage, mut disk) = Stage::on_disk(&SMALL);
    let live = Consumer::connect(stage.relay.api, Some(0));
    let faults = [(EIO, "Input/output error"), (ENOSPC, "No space left"), (EROFS, "Read-only")];
    let part = stage.longest().div_ceil(faults.len() + 1);
    stage.push(0..part);
    live.wait_for(stage.count(part));
    for (number, (errno, text)) in faults.into_iter().enumerate() {
        disk.fail_writes(IN_LOG, errno);
        let (before, next) = (live.count(), (number + 1) * part..(number + 2) * part);
        stage.push(next.clone());
        wait_for_health(&stage.relay, 503);
        let body = stage.relay.get("/_health").body;
        assert!(body.contains(text), "{body}");
        assert!(stage.relay.metric("relayered_log_writable_count", "") < 0.5);
        // What there is is served; nothing that is not in the file.
        let served = Consumer::connect(stage.relay.api, Some(0)).wait_for(before);
        assert!(served[..before] == live.frames()[..before]);
        disk.fail_writes(IN_LOG, 0);
        wait_for_health(&stage.relay, 200);
        live.wait_for(stage.count(next.end));
        assert!(stage.relay.metric("relayered_log_writable_count", "") > 0.5);
    }
    let all = live.wait_for(stage.corpus.event_count());
    stage.corpus.assert_complete(&all);
    assert_dense(&all);
    assert!(stage.relay.metric("relayered_log_write_errors_total", "") > 0.5);
    assert!(stage.relay.terminate().success());
    disk.thaw();
    disk.check();
}

#[test]
fn a_sync_that_fails_is_never_taken_for_one_that_did_not() {
    for arguments in [["--sync-interval", "0s"], ["--sync-interval", "20ms"]] {
        let (mut stage, mut disk) = Stage::on_disk(&[&SMALL[..], &arguments].concat());
        let half = stage.longest() / 2;
        stage.push(0..half);
        let live = Consumer::connect(stage.relay.api, Some(0));
        live.wait_for(stage.count(half));
        disk.fail_syncs(IN_LOG, EIO);
        stage.push(half..usize::MAX);
        wait_for_health(&stage.relay, 503);
        let body = stage.relay.get("/_health").body;
        assert!(body.contains("Input/output error"), "{body}");
        disk.fail_syncs(IN_LOG, 0);
        wait_for_health(&stage.relay, 200);
        let all = live.wait_for(stage.corpus.event_count());
        stage.corpus.assert_complete(&all);
        assert_dense(&all);
        // The kernel has counted as clean what it could not write. All that was synced since is there.
        eventually("all of it to be synced", || {
            let synced = stage.relay.metric("relayered_log_synced_seq", "");
            (synced >= seqs(&all)[all.len() - 1] as f64).then_some(())
        });
        disk.freeze();
        stage.relay.kill();
        disk.thaw();
        disk.lose_power(&mut Dice(5));
        stage.relay.launch();
        let again = Consumer::connect(stage.relay.api, Some(0)).wait_for(all.len());
        assert!(again == all, "{arguments:?}");
    }
}

#[test]
fn a_log_that_cannot_be_read_is_not_served_and_a_start_says_so() {
    let (mut stage, mut disk) = Stage::on_disk(&SMALL);
    stage.push(0..usize::MAX);
    let all = Consumer::connect(stage.relay.api, Some(0)).wait_for(stage.corpus.event_count());
    // After a kill what could be torn would be read at the start.
    assert!(stage.relay.terminate().success());
    disk.thaw();
    disk.fail_reads(IN_LOG, EIO);
    stage.relay.execute();
    let status = stage.relay.wait_for_exit();
    assert_eq!(status.code(), Some(78), "{status}");
    let told = stage.relay.log();
    assert!(told.contains("Input/output error") && told.contains("/log/"), "{told}");
    disk.fail_reads(IN_LOG, 0);
    stage.relay.launch();
    disk.fail_reads(IN_LOG, EIO);
    let consumer = Consumer::connect(stage.relay.api, Some(0));
    let end = consumer.wait_for_end();
    assert!(end.starts_with("1011"), "{end}");
    assert!(consumer.frames().iter().all(|frame| protocol::frame::parse(frame).is_err()));
    // It was the disk, not the files.
    disk.fail_reads(IN_LOG, 0);
    assert!(Consumer::connect(stage.relay.api, Some(0)).wait_for(all.len()) == all);
}

#[test]
fn a_database_that_cannot_be_written_costs_no_event() {
    let (mut stage, disk) = Stage::on_disk(&SMALL);
    let (third, two) = (stage.longest() / 3, 2 * stage.longest() / 3);
    let live = Consumer::connect(stage.relay.api, Some(0));
    stage.push(0..third);
    live.wait_for(stage.count(third));
    disk.fail_writes(IN_DATABASE, EIO);
    stage.push(third..two);
    // Accounts that are new are waited for; those that are known go on.
    stage.relay.wait_for_line("disk I/O error");
    disk.fail_writes(IN_DATABASE, 0);
    live.wait_for(stage.count(two));
    stage.relay.kill();
    stage.relay.launch();
    stage.push(two..usize::MAX);
    let all = Consumer::connect(stage.relay.api, Some(0)).wait_for(stage.corpus.event_count());
    stage.corpus.assert_complete(&all);
    assert!(all.starts_with(&live.frames()));
    drop::<Disk>(disk);
}
