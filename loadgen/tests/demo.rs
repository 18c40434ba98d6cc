//! The whole demonstration, small: directory, hosts, relay and consumers, every event compared.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::Command;

use serde_json::Value;

#[path = "../../tests/harness/seccomp.rs"]
mod seccomp;

fn demo(prepare: impl FnOnce(&mut Command)) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(["demo", "--json", "--accounts", "40", "--hosts", "4", "--prefill", "40"]);
    command.args(["--events", "1500", "--rate", "300", "--paced-seconds", "1"]);
    command.args(["--consumers", "2", "--fan-out-events", "500", "--idle-seconds", "0"]);
    prepare(&mut command);
    let output = command.output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {log}", output.status);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

fn assert_all_arrived(summary: &Value) {
    let delivered = &summary["delivered"];
    assert!(delivered["expected"].as_u64().is_some_and(|count| count >= 2000), "{summary:#}");
    assert_eq!(delivered["received"], delivered["expected"], "{summary:#}");
    for fault in ["lost", "repeated", "altered", "seq_faults"] {
        assert_eq!(delivered[fault], 0, "{fault} in {summary:#}");
    }
    assert_eq!(delivered["others_alike"], true, "{summary:#}");
}

#[test]
fn every_event_of_the_network_arrives_once() {
    assert_all_arrived(&demo(|_| {}));
}

#[test]
fn the_same_where_io_uring_is_forbidden() {
    let summary = demo(seccomp::forbid_io_uring);
    assert_all_arrived(&summary);
    let driver = summary["driver"].to_string().to_lowercase();
    assert!(driver.contains("threads"), "{summary:#}");
}
