//! Public keys, parsed once and kept in the form that verification wants.

use std::fmt;

use p256::elliptic_curve::sec1::ToSec1Point;

/// The two curves that the AT Protocol allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// secp256k1, `ES256K`.
    K256,
    /// NIST P-256 (secp256r1), `ES256`.
    P256,
}

/// A parsed public key: a point known to lie on its curve.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey(pub(crate) Point);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// libsecp256k1's own form of an unpacked point.
    K256(secp256k1::PublicKey),
    /// Uncompressed SEC1, which is what ring reads: unpacking costs a square root, so it is done
    /// once, here.
    P256([u8; SEC1_UNCOMPRESSED_BYTES]),
}

const SEC1_COMPRESSED_BYTES: usize = 33;
const SEC1_UNCOMPRESSED_BYTES: usize = 65;

/// Leading byte of an uncompressed point.
const UNCOMPRESSED: u8 = 4;

const STORED_K256: u8 = 1;
const STORED_P256: u8 = 2;

/// One of these sits beside each account in memory.
const _: () = assert!(size_of::<VerifyingKey>() <= 68);

/// Why bytes are not a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Neither 33 bytes starting with 2 or 3, nor 65 starting with 4.
    Form,
    /// The coordinates are out of range or not on the curve.
    NotOnCurve,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "not a compressed or uncompressed point",
            Self::NotOnCurve => "not a point of the curve",
        })
    }
}

impl std::error::Error for KeyError {}

impl VerifyingKey {
    /// Bytes of the storage form.
    pub const STORED_BYTES: usize = 1 + SEC1_UNCOMPRESSED_BYTES;

    /// Parses a SEC1 point, compressed or uncompressed. Hybrid forms (leading 6 or 7) are refused,
    /// though libraries take them: one key should not have many spellings.
    pub fn from_sec1(curve: Curve, bytes: &[u8]) -> Result<Self, KeyError> {
        match (bytes.len(), bytes.first()) {
            (SEC1_COMPRESSED_BYTES, Some(2 | 3))
            | (SEC1_UNCOMPRESSED_BYTES, Some(&UNCOMPRESSED)) => {}
            _ => return Err(KeyError::Form),
        }
        match curve {
            Curve::K256 => secp256k1::PublicKey::from_slice(bytes)
                .map(|point| Self(Point::K256(point)))
                .map_err(|_| KeyError::NotOnCurve),
            Curve::P256 => {
                let key =
                    p256::PublicKey::from_sec1_bytes(bytes).map_err(|_| KeyError::NotOnCurve)?;
                let mut point = [0; SEC1_UNCOMPRESSED_BYTES];
                point.copy_from_slice(key.to_sec1_point(false).as_bytes());
                Ok(Self(Point::P256(point)))
            }
        }
    }

    pub fn curve(&self) -> Curve {
        match self.0 {
            Point::K256(_) => Curve::K256,
            Point::P256(_) => Curve::P256,
        }
    }

    /// The point in 33 bytes, as `did:key` spells it.
    pub fn to_sec1_compressed(&self) -> [u8; SEC1_COMPRESSED_BYTES] {
        match &self.0 {
            Point::K256(point) => point.serialize(),
            Point::P256(point) => {
                let mut bytes = [0; SEC1_COMPRESSED_BYTES];
                bytes.copy_from_slice(&point[..SEC1_COMPRESSED_BYTES]);
                // The parity of y picks one of the two points with this x.
                bytes[0] = 2 + (point[SEC1_UNCOMPRESSED_BYTES - 1] & 1);
                bytes
            }
        }
    }

    /// The point in 65 bytes: 4, x, y.
    pub fn to_sec1_uncompressed(&self) -> [u8; SEC1_UNCOMPRESSED_BYTES] {
        match &self.0 {
            Point::K256(point) => point.serialize_uncompressed(),
            Point::P256(point) => *point,
        }
    }

    /// The form for storage: a byte for the curve, then the uncompressed point, so that reading it
    /// back needs no square root.
    pub fn to_bytes(&self) -> [u8; Self::STORED_BYTES] {
        let mut bytes = [0; Self::STORED_BYTES];
        bytes[0] = match self.curve() {
            Curve::K256 => STORED_K256,
            Curve::P256 => STORED_P256,
        };
        bytes[1..].copy_from_slice(&self.to_sec1_uncompressed());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote. Checked like any other input: a stored key may have
    /// been damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let (tag, point) = bytes.split_first().ok_or(KeyError::Form)?;
        if point.len() != SEC1_UNCOMPRESSED_BYTES {
            return Err(KeyError::Form);
        }
        match *tag {
            STORED_K256 => Self::from_sec1(Curve::K256, point),
            STORED_P256 => Self::from_sec1(Curve::P256, point),
            _ => Err(KeyError::Form),
        }
    }
}

impl std::hash::Hash for VerifyingKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.to_bytes().hash(state);
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({:?} ", self.curve())?;
        for byte in self.to_sec1_compressed() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}
