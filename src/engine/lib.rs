//! The data plane: PDS hosts in, one verified and numbered firehose out.
//!
//! One folder a stage, in the order in which an event passes them: [`upstream`] reads a frame from a
//! host, [`accounts`] verifies it on the shard that owns the account, [`sequencer`] numbers it,
//! [`log`] keeps it, [`fanout`] sends the log to consumers. [`shard`] is the loop that drives the
//! stages of one thread, [`rt`] the only module that knows the runtime, [`wiring`] starts and stops
//! all threads. To read the crate, begin at [`wiring`].

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")
)]

pub mod config;

pub mod rt;

pub mod upstream;

pub mod accounts;

pub mod sequencer;

pub mod log;

pub mod fanout;

pub mod shard;

mod refusals;

pub mod wiring;

pub use config::{EngineConfig, Limits, RingLimits};
pub use wiring::{Engine, EngineError, EngineHandle, start};
