//! ECDSA over the two curves of the AT Protocol: parsing of keys, verification, and signing for
//! tools and tests.
//!
//! A signature is 64 bytes `r‖s`, over SHA-256 of the message, with `s` in the lower half of the
//! group order for *both* curves: the high twin of a valid signature is refused, so that nobody
//! but the signer can make a second valid signature of the same commit.
//!
//! One signature is verified by libsecp256k1 or, for P-256, by ring, the fastest ones there are. In a
//! batch, the signatures of each curve are verified eight at once where the CPU has AVX-512 IFMA
//! ([`Verifier`]), with the same verdicts. `k256` and `p256` sign, unpack points, and are oracles in
//! tests.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod kernel;
mod key;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod library;
mod self_test;
pub mod sha256;
pub mod sign;
#[cfg(test)]
mod tests;
mod verifier;
mod verify;

pub use key::{Curve, KeyError, VerifyingKey};
pub use verifier::{Difference, InUse, Settings, Signatures, Status, Verifier, prepare, status};
pub use verify::{Check, is_low_s, verify, verify_batch};
