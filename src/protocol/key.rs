//! Public keys as text: multikey, `did:key`, and the bare points of old DID documents.

use std::fmt;

use ecdsa::{Curve, VerifyingKey};

/// A varint multicodec before the compressed point says which curve it is on.
const CODEC_K256: [u8; 2] = [0xe7, 0x01];
const CODEC_P256: [u8; 2] = [0x80, 0x24];

const DID_KEY_PREFIX: &str = "did:key:";

/// Base58 takes time with the square of its length, so longer text is not looked into: 65 bytes
/// make 89 digits.
const TEXT_BYTES_MAX: usize = 100;

/// Why text is not a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Not `did:key:`.
    Prefix,
    /// Not `z` followed by base58btc, or too long for a key.
    Multibase,
    /// The multicodec is of no curve that the protocol allows, or a compressed point of it does
    /// not follow.
    Codec,
    Point(ecdsa::KeyError),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix => f.write_str("not a did:key"),
            Self::Multibase => f.write_str("not base58btc multibase of a key's length"),
            Self::Codec => f.write_str("not a compressed key of secp256k1 or P-256"),
            Self::Point(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for KeyError {}

/// `publicKeyMultibase` of a `Multikey`: `z`, then base58btc of multicodec and compressed point.
pub fn parse_multibase(text: &str) -> Result<VerifyingKey, KeyError> {
    let mut buffer = [0; TEXT_BYTES_MAX];
    let bytes = decode(text, &mut buffer)?;
    let (curve, point) = match bytes {
        [0xe7, 0x01, point @ ..] => (Curve::K256, point),
        [0x80, 0x24, point @ ..] => (Curve::P256, point),
        _ => return Err(KeyError::Codec),
    };
    // An uncompressed point would be a second spelling of the same key.
    if point.len() != 33 {
        return Err(KeyError::Codec);
    }
    VerifyingKey::from_sec1(curve, point).map_err(KeyError::Point)
}

/// `did:key:` followed by the multikey.
pub fn parse_did_key(text: &str) -> Result<VerifyingKey, KeyError> {
    parse_multibase(text.strip_prefix(DID_KEY_PREFIX).ok_or(KeyError::Prefix)?)
}

/// `publicKeyMultibase` of the key types of old: the bare point, most often uncompressed, without
/// a multicodec; the type of the entry says which curve.
pub fn parse_legacy_multibase(curve: Curve, text: &str) -> Result<VerifyingKey, KeyError> {
    let mut buffer = [0; TEXT_BYTES_MAX];
    let point = decode(text, &mut buffer)?;
    VerifyingKey::from_sec1(curve, point).map_err(KeyError::Point)
}

pub fn multibase_string(key: &VerifyingKey) -> String {
    let mut bytes = [0; 35];
    bytes[..2].copy_from_slice(match key.curve() {
        Curve::K256 => &CODEC_K256,
        Curve::P256 => &CODEC_P256,
    });
    bytes[2..].copy_from_slice(&key.to_sec1_compressed());
    format!("z{}", bs58::encode(bytes).into_string())
}

pub fn did_key_string(key: &VerifyingKey) -> String {
    format!("{DID_KEY_PREFIX}{}", multibase_string(key))
}

fn decode<'a>(text: &str, buffer: &'a mut [u8; TEXT_BYTES_MAX]) -> Result<&'a [u8], KeyError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(KeyError::Multibase);
    }
    let digits = text.strip_prefix('z').ok_or(KeyError::Multibase)?;
    let len = bs58::decode(digits).onto(&mut buffer[..]).map_err(|_| KeyError::Multibase)?;
    Ok(&buffer[..len])
}

#[cfg(test)]
mod tests;
