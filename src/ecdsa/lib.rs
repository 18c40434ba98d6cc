//! Signature verification for the two curves of the AT Protocol.

/// A parsed public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyingKey {
    K256(secp256k1::PublicKey),
    P256([u8; 65]),
}
