//! Writes canonical DAG-CBOR, item by item. The caller keeps the order of map keys.
//!
//! It shares nothing with the relay's own reader and writer on purpose: a fault in one cannot hide
//! behind the same fault in the other.

use protocol::cid::Cid;

const UNSIGNED: u8 = 0 << 5;
const NEGATIVE: u8 = 1 << 5;
const BYTES: u8 = 2 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;
const CID_TAG: [u8; 2] = [0xd8, 42];

fn head(major: u8, value: u64, out: &mut Vec<u8>) {
    let bytes = value.to_be_bytes();
    match value {
        0..24 => out.push(major | value as u8),
        24..0x100 => out.extend([major | 0x18, bytes[7]]),
        0x100..0x1_0000 => {
            out.push(major | 0x19);
            out.extend(&bytes[6..]);
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 0x1a);
            out.extend(&bytes[4..]);
        }
        _ => {
            out.push(major | 0x1b);
            out.extend(&bytes);
        }
    }
}

pub fn map(pairs: usize, out: &mut Vec<u8>) {
    head(MAP, pairs as u64, out);
}

pub fn array(items: usize, out: &mut Vec<u8>) {
    head(ARRAY, items as u64, out);
}

pub fn integer(value: i64, out: &mut Vec<u8>) {
    match u64::try_from(value) {
        Ok(value) => head(UNSIGNED, value, out),
        Err(_) => head(NEGATIVE, !value as u64, out),
    }
}

pub fn unsigned(value: u64, out: &mut Vec<u8>) {
    head(UNSIGNED, value, out);
}

pub fn text(value: &str, out: &mut Vec<u8>) {
    head(TEXT, value.len() as u64, out);
    out.extend(value.as_bytes());
}

/// A key of a map, and its text.
pub fn text_field(key: &str, value: &str, out: &mut Vec<u8>) {
    text(key, out);
    text(value, out);
}

pub fn bytes(value: &[u8], out: &mut Vec<u8>) {
    head(BYTES, value.len() as u64, out);
    out.extend(value);
}

pub fn boolean(value: bool, out: &mut Vec<u8>) {
    out.push(if value { 0xf5 } else { 0xf4 });
}

pub fn null(out: &mut Vec<u8>) {
    out.push(0xf6);
}

/// A link: tag 42 around a zero byte and the CID.
pub fn link(cid: &Cid, out: &mut Vec<u8>) {
    out.extend(CID_TAG);
    head(BYTES, 37, out);
    out.push(0);
    out.extend(cid.as_bytes());
}

pub fn link_or_null(cid: Option<&Cid>, out: &mut Vec<u8>) {
    match cid {
        Some(cid) => link(cid, out),
        None => null(out),
    }
}

pub fn text_or_null(value: Option<&str>, out: &mut Vec<u8>) {
    match value {
        Some(value) => text(value, out),
        None => null(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_read_back(value in any::<i64>()) {
            let mut out = Vec::new();
            integer(value, &mut out);
            prop_assert_eq!(serde_ipld_dagcbor::from_slice::<i64>(&out).unwrap(), value);
        }

        #[test]
        fn texts_read_back(value in ".{0,300}") {
            let mut out = Vec::new();
            text(&value, &mut out);
            prop_assert_eq!(serde_ipld_dagcbor::from_slice::<String>(&out).unwrap(), value);
        }
    }
}
