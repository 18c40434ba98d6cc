//! What the black-box tests are made of: a PLC directory, PDS hosts, consumers, and the real binary.
//!
//! Everything listens on a free port of 127.0.0.1. Nothing here sleeps to let something happen: tests
//! wait for what they expect, with one patience for all ([`patience`]).

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test file uses its own part of the harness"
)]

pub mod author;
pub mod consumer;
pub mod corpus;
pub mod dice;
pub mod disk;
pub mod forge;
pub mod http;
pub mod json;
pub mod lab;
pub mod pds;
pub mod plc;
pub mod postgres;
pub mod raw;
pub mod relay;
pub mod seccomp;
pub mod stage;

use std::{
    env, thread,
    time::{Duration, Instant},
};

pub use consumer::Consumer;
pub use dice::Dice;
pub use disk::Disk;
pub use pds::{Describe, FakePds};
pub use plc::{FakePlc, Fault};
pub use postgres::Postgres;
pub use relay::Relay;

/// The admin key that every relay under test is started with.
pub const ADMIN_KEY: &str = "test-admin-key";

/// How long a test waits for something that must come: 30 s, or `RELAYERED_TEST_PATIENCE_MS`.
pub fn patience() -> Duration {
    let millis = env::var("RELAYERED_TEST_PATIENCE_MS").ok().and_then(|text| text.parse().ok());
    Duration::from_millis(millis.unwrap_or(30_000))
}

/// The rev of a #commit or #sync.
///
/// # Panics
/// If it is neither.
pub fn describe_rev(frame: &[u8]) -> String {
    match consumer::event(frame).body {
        protocol::frame::Body::Commit(body) => body.rev.to_owned(),
        protocol::frame::Body::Sync(body) => body.rev.to_owned(),
        other => panic!("{other:?}"),
    }
}

/// Asks again and again until there is an answer; for conditions that can't be waited for.
///
/// # Panics
/// When the patience is over.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// Whether a test that needs programs from outside the clone may be skipped: said once, with a remedy.
///
/// # Panics
/// In continuous integration, where nothing may be skipped.
pub fn skipped(test: &str, why: &str) {
    assert!(env::var_os("RELAYERED_TEST_REQUIRE_ALL").is_none(), "{test} can't run: {why}");
    eprintln!("{test}: skipped: {why}");
}
