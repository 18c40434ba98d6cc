//! Verification of one signature, and of all signatures of a turn.

use crate::{Curve, VerifyingKey, library, verifier::process_verifier};

/// One signature to check.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    pub key: &'a VerifyingKey,
    /// Hashed here with SHA-256.
    pub message: &'a [u8],
    pub signature: &'a [u8; 64],
}

/// Half of each curve's group order, rounded down: the largest `s` that is low.
const HALF_ORDER_K256: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];
const HALF_ORDER_P256: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xde, 0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

/// Whether the signature's `s` is in the lower half. Numbers of equal length in big-endian order
/// compare as their bytes do.
pub fn is_low_s(curve: Curve, signature: &[u8; 64]) -> bool {
    signature[32..] <= half_order(curve)[..]
}

pub(crate) fn half_order(curve: Curve) -> &'static [u8; 32] {
    match curve {
        Curve::K256 => &HALF_ORDER_K256,
        Curve::P256 => &HALF_ORDER_P256,
    }
}

/// Whether `signature` (`r‖s`) is the key's signature of the message, with low `s`.
pub fn verify(key: &VerifyingKey, message: &[u8], signature: &[u8; 64]) -> bool {
    library::verify(&Check { key, message, signature })
}

/// Checks all signatures and leaves one verdict for each in `verdicts`, in the same order, with the
/// process's verifier (see [`crate::prepare`]).
///
/// What was in `verdicts` is dropped; its room is used again.
pub fn verify_batch(checks: &[Check<'_>], verdicts: &mut Vec<bool>) {
    process_verifier().verify_batch(checks, verdicts);
}
