//! The control plane: HTTP API, identities, host bookkeeping, SQL store and telemetry.
//!
//! Everything here runs on one thread (Tokio, current_thread) and on the store's own thread, and is
//! never on the way of an event: shards ask through rings and go on with other accounts meanwhile.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking"))]

mod accounts;
pub mod api;
mod bucket;
mod cache;
pub mod checkup;
pub mod dial;
pub mod discovery;
pub mod hosts;
pub mod identity;
mod link;
mod notices;
mod run;
pub mod siblings;
pub mod store;
pub mod telemetry;

pub use link::{Barrier, Link, Shards};
pub use run::{ControlConfig, ControlError, EngineLink, Stage, Started, bind, run};

/// Unix seconds.
pub(crate) fn unix_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
