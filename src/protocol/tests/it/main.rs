//! Tests of the crate's public face: vectors, recorded frames, properties, fuzz corpora.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test that fails may as well panic"
)]

mod cbor;
mod conformance;
mod data;
mod frames;
mod fuzz;
mod hostile;
mod inversion;
mod recorded;
mod vectors;
