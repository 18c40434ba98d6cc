//! Verification of one signature by the libraries: libsecp256k1 for secp256k1, ring for P-256.
//!
//! Their verdict is the one that stands: the lanes are held against it.

use sha2::{Digest, Sha256};

use crate::{Check, is_low_s, key::Point};

/// A signature of secp256k1 whose message has been hashed.
#[derive(Clone, Copy)]
pub(crate) struct Item<'a> {
    pub(crate) key: &'a secp256k1::PublicKey,
    pub(crate) digest: [u8; 32],
    /// `r‖s`, in range or not.
    pub(crate) signature: &'a [u8; 64],
}

impl<'a> Item<'a> {
    pub(crate) fn new(
        key: &'a secp256k1::PublicKey,
        message: &[u8],
        signature: &'a [u8; 64],
    ) -> Self {
        Self { key, digest: Sha256::digest(message).into(), signature }
    }
}

pub(crate) fn verify(check: &Check<'_>) -> bool {
    match &check.key.0 {
        Point::K256(point) => verify_item(&Item::new(point, check.message, check.signature)),
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

/// libsecp256k1 refuses high `s` by itself.
pub(crate) fn verify_item(item: &Item<'_>) -> bool {
    let Ok(signature) = secp256k1::ecdsa::Signature::from_compact(item.signature) else {
        return false;
    };
    let digest = secp256k1::Message::from_digest(item.digest);
    secp256k1::ecdsa::verify(&signature, digest, item.key).is_ok()
}

/// A verdict for each item.
pub(crate) fn verify_items(items: &[Item<'_>], verdicts: &mut [bool]) {
    for (item, verdict) in items.iter().zip(verdicts) {
        *verdict = verify_item(item);
    }
}
