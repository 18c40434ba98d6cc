//! The stress tool: it plays the whole network around a relay on one machine.
//!
//! [`repo`] makes accounts that sign real commits; [`corpus`] makes many events of many accounts
//! before anything is measured; [`network`] is the PLC directory and the PDS hosts that emit them,
//! [`consumer`] the other end of the relay; [`driver`] moves the bytes, on glommio (io_uring) or on
//! plain threads. [`cli`] are the commands: `demo`, `run`, `consume`.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails may as well panic")
)]

pub mod cli;
pub mod client;
pub mod clock;
pub mod consume;
pub mod consumer;
pub mod corpus;
pub mod demo;
pub mod driver;
pub mod histogram;
pub mod network;
pub mod pace;
pub mod procfs;
pub mod random;
pub mod repo;
pub mod wire;
