//! DIDs as keys of maps: a did:plc is 15 bytes, any other one is boxed text.

const PLC_PREFIX: &str = "did:plc:";
/// Characters of base32 behind the prefix.
const PLC_CHARS: usize = 24;
/// 24 characters of 5 bits.
pub(super) const PLC_BYTES: usize = 15;

/// A DID looked at in a frame: what maps are asked with, without allocating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DidRef<'a> {
    Plc([u8; PLC_BYTES]),
    /// did:web, and whatever claims to be a did:plc but does not have its 24 characters: the
    /// directory does not know such a DID, and says so.
    Other(&'a str),
}

/// A DID that is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum DidKey {
    Plc([u8; PLC_BYTES]),
    Other(Box<str>),
}

impl<'a> DidRef<'a> {
    pub(super) fn new(did: &'a str) -> Self {
        did.strip_prefix(PLC_PREFIX).and_then(decode_base32).map_or(Self::Other(did), Self::Plc)
    }

    pub(super) fn to_key(self) -> DidKey {
        match self {
            Self::Plc(id) => DidKey::Plc(id),
            Self::Other(did) => DidKey::Other(did.into()),
        }
    }
}

impl DidKey {
    pub(super) fn as_ref(&self) -> DidRef<'_> {
        match self {
            Self::Plc(id) => DidRef::Plc(*id),
            Self::Other(did) => DidRef::Other(did),
        }
    }

    /// The DID as text.
    pub(super) fn text(&self) -> Box<str> {
        match self {
            Self::Plc(id) => encode_base32(id).into(),
            Self::Other(did) => did.clone(),
        }
    }
}

/// Reads exactly 24 characters of lower-case base32 without padding.
fn decode_base32(text: &str) -> Option<[u8; PLC_BYTES]> {
    let text: &[u8; PLC_CHARS] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; PLC_BYTES];
    for (bytes, chars) in bytes.chunks_exact_mut(5).zip(text.chunks_exact(8)) {
        let mut bits = 0u64;
        for char in chars {
            let value = match char {
                b'a'..=b'z' => char - b'a',
                b'2'..=b'7' => char - b'2' + 26,
                _ => return None,
            };
            bits = bits << 5 | u64::from(value);
        }
        bytes.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(bytes)
}

fn encode_base32(id: &[u8; PLC_BYTES]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity(PLC_PREFIX.len() + PLC_CHARS);
    text.push_str(PLC_PREFIX);
    for bytes in id.chunks_exact(5) {
        let bits = bytes.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
        for place in (0..8).rev() {
            text.push(char::from(ALPHABET[(bits >> (place * 5) & 31) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_did_plc_is_15_bytes_and_comes_back_as_it_was() {
        for did in ["did:plc:44ybard66vv44zksje25o7dz", "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"] {
            let key = DidRef::new(did).to_key();
            assert!(matches!(key, DidKey::Plc(_)));
            assert_eq!(&*key.text(), did);
            assert_eq!(key.as_ref(), DidRef::new(did));
        }
    }

    #[test]
    fn what_is_not_exactly_a_did_plc_is_kept_as_text() {
        for did in [
            "did:web:example.com",
            "did:plc:44YBARD66vv44zksje25o7dz",
            "did:plc:44ybard66vv44zksje25o7d",
            "did:plc:44ybard66vv44zksje25o7dzz",
            "did:plc:conformancecommit0000000",
        ] {
            let key = DidRef::new(did).to_key();
            assert_eq!(key, DidKey::Other(did.into()));
            assert_eq!(&*key.text(), did);
        }
    }

    #[test]
    fn different_dids_have_different_keys() {
        let a = DidRef::new("did:plc:44ybard66vv44zksje25o7dz");
        let b = DidRef::new("did:plc:44ybard66vv44zksje25o7d2");
        assert_ne!(a, b);
    }
}
