//! The control plane: HTTP API, identities, host bookkeeping, SQL store and telemetry.
//!
//! Everything here runs on one thread (Tokio, current_thread) and on the store's own thread, and is
//! never on the way of an event: shards ask through rings and go on with other accounts meanwhile.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking"))]

pub mod dial;
pub mod hosts;
pub mod identity;
mod link;
pub mod store;

pub use link::{Link, Shards};
