//! ECDSA over the two curves of the AT Protocol: parsing of keys, verification, and signing for
//! tools and tests.
//!
//! A signature is 64 bytes `r‖s`, over SHA-256 of the message, with `s` in the lower half of the
//! group order for *both* curves: the high twin of a valid signature is refused, so that nobody
//! but the signer can make a second valid signature of the same commit.
//!
//! secp256k1 is verified by libsecp256k1 and P-256 by ring, the fastest ones there are; `k256` and
//! `p256` sign, unpack points, and are the oracles in tests.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod key;
pub mod sign;
#[cfg(test)]
mod tests;
mod verify;

pub use key::{Curve, KeyError, VerifyingKey};
pub use verify::{Check, is_low_s, verify, verify_batch};
