//! Signing keys for tools and tests. The relay itself signs nothing.

use k256::ecdsa::signature::Signer;
use sha2::{Digest, Sha256};

use crate::{Curve, VerifyingKey};

/// A private key of either curve.
#[derive(Clone)]
pub struct SigningKey(Secret);

#[derive(Clone)]
enum Secret {
    K256(k256::ecdsa::SigningKey),
    P256(p256::ecdsa::SigningKey),
}

impl SigningKey {
    /// The private key with this number; `None` if it is zero or not below the group order.
    pub fn from_bytes(curve: Curve, bytes: &[u8; 32]) -> Option<Self> {
        match curve {
            Curve::K256 => k256::ecdsa::SigningKey::from_slice(bytes).ok().map(Secret::K256),
            Curve::P256 => p256::ecdsa::SigningKey::from_slice(bytes).ok().map(Secret::P256),
        }
        .map(Self)
    }

    /// A private key made from a seed: always the same for the same seed. Not for real accounts.
    pub fn from_seed(curve: Curve, seed: &[u8]) -> Self {
        let mut bytes: [u8; 32] = Sha256::digest(seed).into();
        loop {
            // One try in 2^32 (P-256) or 2^128 (secp256k1) is out of range.
            if let Some(key) = Self::from_bytes(curve, &bytes) {
                return key;
            }
            bytes = Sha256::digest(bytes).into();
        }
    }

    pub fn curve(&self) -> Curve {
        match self.0 {
            Secret::K256(_) => Curve::K256,
            Secret::P256(_) => Curve::P256,
        }
    }

    pub fn verifying_key(&self) -> VerifyingKey {
        let parsed = match &self.0 {
            Secret::K256(key) => VerifyingKey::from_sec1(
                Curve::K256,
                key.verifying_key().to_sec1_point(true).as_bytes(),
            ),
            Secret::P256(key) => VerifyingKey::from_sec1(
                Curve::P256,
                key.verifying_key().to_sec1_point(true).as_bytes(),
            ),
        };
        parsed.expect("the public half of a private key is a point of its curve")
    }

    /// Signs SHA-256 of the message: `r‖s` with low `s`, deterministic (RFC 6979).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        match &self.0 {
            Secret::K256(key) => {
                let signature: k256::ecdsa::Signature = key.sign(message);
                signature.normalize_s().to_bytes().into()
            }
            Secret::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.normalize_s().to_bytes().into()
            }
        }
    }
}

/// Tells the curve, never the number.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({:?})", self.curve())
    }
}
