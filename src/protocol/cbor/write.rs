//! The canonical writer. The order of map keys is the caller's duty.

use super::{FALSE, LINK_PREFIX, Major, NULL, TRUE};
use crate::cid::Cid;

/// An item's initial byte and argument, in the shortest form.
#[inline]
pub fn head(out: &mut Vec<u8>, major: Major, value: u64) {
    let major = (major as u8) << 5;
    if value < 24 {
        out.push(major | value as u8);
    } else if let Ok(value) = u8::try_from(value) {
        out.extend_from_slice(&[major | 0x18, value]);
    } else if let Ok(value) = u16::try_from(value) {
        out.push(major | 0x19);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(major | 0x1a);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(major | 0x1b);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[inline]
pub fn unsigned(out: &mut Vec<u8>, value: u64) {
    head(out, Major::Unsigned, value);
}

#[inline]
pub fn integer(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        head(out, Major::Negative, !value as u64);
    } else {
        head(out, Major::Unsigned, value as u64);
    }
}

#[inline]
pub fn byte_string(out: &mut Vec<u8>, bytes: &[u8]) {
    head(out, Major::Bytes, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[inline]
pub fn text(out: &mut Vec<u8>, text: &str) {
    head(out, Major::Text, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

#[inline]
pub fn array(out: &mut Vec<u8>, items: u64) {
    head(out, Major::Array, items);
}

#[inline]
pub fn map(out: &mut Vec<u8>, pairs: u64) {
    head(out, Major::Map, pairs);
}

#[inline]
pub fn boolean(out: &mut Vec<u8>, value: bool) {
    out.push(if value { TRUE } else { FALSE });
}

#[inline]
pub fn null(out: &mut Vec<u8>) {
    out.push(NULL);
}

#[inline]
pub fn link(out: &mut Vec<u8>, cid: &Cid) {
    out.extend_from_slice(&LINK_PREFIX);
    out.extend_from_slice(cid.as_bytes());
}
