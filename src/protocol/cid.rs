//! Content identifiers of the only form that the AT Protocol allows: version 1, codec dag-cbor
//! or raw, SHA-256. Such a CID is 36 bytes and is compared as bytes.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

use crate::error::{DecodeError, DecodeErrorKind};

/// Bytes of a CID: version, codec, hash function, hash length, hash.
pub const CID_BYTES: usize = 36;

const VERSION: u8 = 0x01;
const SHA2_256: u8 = 0x12;
const SHA2_256_BYTES: u8 = 0x20;

/// What the block behind a CID holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    Raw = 0x55,
    DagCbor = 0x71,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cid([u8; CID_BYTES]);

impl Cid {
    /// Reads a CID that fills `bytes`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let invalid = DecodeError { kind: DecodeErrorKind::Cid, offset: 0 };
        let bytes: &[u8; CID_BYTES] = bytes.try_into().map_err(|_| invalid)?;
        let [VERSION, codec, SHA2_256, SHA2_256_BYTES, ..] = *bytes else { return Err(invalid) };
        if codec == Codec::DagCbor as u8 || codec == Codec::Raw as u8 {
            Ok(Self(*bytes))
        } else {
            Err(invalid)
        }
    }

    pub fn as_bytes(&self) -> &[u8; CID_BYTES] {
        &self.0
    }

    #[inline]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest.copy_from_slice(&self.0[4..]);
        digest
    }

    #[inline]
    pub fn codec(&self) -> Codec {
        if self.0[1] == Codec::Raw as u8 { Codec::Raw } else { Codec::DagCbor }
    }

    #[inline]
    pub fn is_dag_cbor(&self) -> bool {
        self.codec() == Codec::DagCbor
    }

    #[inline]
    pub const fn from_digest(codec: Codec, digest: [u8; 32]) -> Self {
        let mut bytes = [0; CID_BYTES];
        bytes[0] = VERSION;
        bytes[1] = codec as u8;
        bytes[2] = SHA2_256;
        bytes[3] = SHA2_256_BYTES;
        let mut i = 0;
        while i < 32 {
            bytes[4 + i] = digest[i];
            i += 1;
        }
        Self(bytes)
    }

    /// The CID of a DAG-CBOR block.
    pub fn of_dag_cbor(data: &[u8]) -> Self {
        Self::from_digest(Codec::DagCbor, Sha256::digest(data).into())
    }

    /// Whether `data` is the block that this CID names.
    #[inline]
    pub fn matches(&self, data: &[u8]) -> bool {
        self.0[4..] == Sha256::digest(data)[..]
    }
}

impl fmt::Display for Cid {
    /// Multibase `b`: base32 in lower case without padding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut text = [b'b'; 1 + (CID_BYTES * 8).div_ceil(5)];
        let (mut bits, mut bit_count, mut at) = (0u32, 0u32, 1);
        for byte in self.0 {
            bits = (bits << 8) | u32::from(byte);
            bit_count += 8;
            while bit_count >= 5 {
                bit_count -= 5;
                text[at] = ALPHABET[(bits >> bit_count & 31) as usize];
                at += 1;
            }
        }
        text[at] = ALPHABET[(bits << (5 - bit_count) & 31) as usize];
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cid({self})")
    }
}

impl FromStr for Cid {
    type Err = DecodeError;

    /// Reads any multibase form of a CID, as long as the CID itself is of the allowed form.
    fn from_str(text: &str) -> Result<Self, DecodeError> {
        let invalid = DecodeError { kind: DecodeErrorKind::Cid, offset: 0 };
        let cid = ::cid::Cid::try_from(text).map_err(|_| invalid)?;
        Self::parse(&cid.to_bytes())
    }
}
