//! Verification of one signature by the libraries: libsecp256k1 for secp256k1, ring for P-256.
//!
//! Their verdict is the one that stands: the lanes are held against it.

use sha2::{Digest, Sha256};

use crate::{Check, is_low_s, key::Point};

pub(crate) fn verify(check: &Check<'_>) -> bool {
    match &check.key.0 {
        Point::K256(point) => {
            let Ok(signature) = secp256k1::ecdsa::Signature::from_compact(check.signature) else {
                return false;
            };
            let digest = secp256k1::Message::from_digest(digest(check));
            // libsecp256k1 refuses high `s` by itself.
            secp256k1::ecdsa::verify(&signature, digest, point).is_ok()
        }
        Point::P256(point) => {
            let key = ring::signature::UnparsedPublicKey::new(
                &ring::signature::ECDSA_P256_SHA256_FIXED,
                point,
            );
            is_low_s(check.key.curve(), check.signature)
                && key.verify(check.message, check.signature).is_ok()
        }
    }
}

/// What a signature is of.
pub(crate) fn digest(check: &Check<'_>) -> [u8; 32] {
    Sha256::digest(check.message).into()
}
