//! TIDs: times as text that sorts as it counts. A `rev` is one.

use std::{fmt, str::FromStr};

use super::SyntaxError;

const DIGITS: &[u8; 32] = b"234567abcdefghijklmnopqrstuvwxyz";
const TID_BYTES: usize = 13;
const CLOCK_ID_BITS: u32 = 10;

/// A TID as the number which it spells: microseconds since 1970, then ten bits of clock id.
/// Numbers and texts have the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(u64);

impl Tid {
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: &[u8; TID_BYTES] = text.as_bytes().try_into().ok()?;
        let mut number = 0;
        for byte in bytes {
            number = number << 5 | u64::from(digit_value(*byte)?);
        }
        // Thirteen digits have 65 bits: the first of them must be zero.
        (bytes[0] <= b'j').then_some(Self(number))
    }

    /// The time in microseconds must have at most 53 bits: until the year 2255.
    pub fn from_parts(micros: u64, clock_id: u16) -> Self {
        let clock_id = u64::from(clock_id) & ((1 << CLOCK_ID_BITS) - 1);
        Self((micros << CLOCK_ID_BITS) | clock_id)
    }

    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }

    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// Microseconds since 1970.
    pub fn micros(self) -> u64 {
        self.0 >> CLOCK_ID_BITS
    }

    pub fn clock_id(self) -> u16 {
        (self.0 & ((1 << CLOCK_ID_BITS) - 1)) as u16
    }

    /// The text, without allocation.
    pub fn to_bytes(self) -> [u8; TID_BYTES] {
        let mut text = [0; TID_BYTES];
        let mut number = self.0;
        for byte in text.iter_mut().rev() {
            *byte = DIGITS[(number & 31) as usize];
            number >>= 5;
        }
        text
    }
}

pub fn check(text: &str) -> bool {
    Tid::parse(text).is_some()
}

fn digit_value(byte: u8) -> Option<u8> {
    match byte {
        b'2'..=b'7' => Some(byte - b'2'),
        b'a'..=b'z' => Some(byte - b'a' + 6),
        _ => None,
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_bytes();
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Tid {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        Self::parse(text).ok_or(SyntaxError("TID"))
    }
}
