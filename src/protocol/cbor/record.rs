//! Well-formedness of CBOR (RFC 8949, appendix C): all that a relay asks of a record.

use super::DEPTH_MAX;
use crate::error::{DecodeError, DecodeErrorKind as Kind};

const BREAK: u8 = 0xff;
const INDEFINITE: u8 = 31;

/// Checks that `bytes` hold one well-formed CBOR item, not nested too deep, and nothing else.
/// Floats, foreign tags and forms that are not canonical pass: what a record says and how is
/// between its author and its readers.
pub fn check_record(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut scan = Scan { bytes, at: 0 };
    scan.item(DEPTH_MAX)?;
    if scan.at == bytes.len() { Ok(()) } else { Err(scan.error(Kind::Trailing)) }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn error(&self, kind: Kind) -> DecodeError {
        DecodeError::new(kind, self.at)
    }

    fn skip(&mut self, count: u64) -> Result<(), DecodeError> {
        if count > (self.bytes.len() - self.at) as u64 {
            return Err(self.error(Kind::Truncated));
        }
        self.at += count as usize;
        Ok(())
    }

    fn at_break(&mut self) -> bool {
        let found = self.bytes.get(self.at) == Some(&BREAK);
        self.at += usize::from(found);
        found
    }

    /// `depth`: how many more containers may open.
    fn item(&mut self, depth: u32) -> Result<(), DecodeError> {
        let initial = *self.bytes.get(self.at).ok_or_else(|| self.error(Kind::Truncated))?;
        let (major, info) = (initial >> 5, initial & 0x1f);
        self.at += 1;
        if info == INDEFINITE {
            return self.indefinite(major, depth);
        }
        let value = self.argument(info)?;
        match major {
            0 | 1 => Ok(()),
            2 | 3 => self.skip(value),
            4 => self.items(value, depth),
            5 => self.items(value.saturating_mul(2), depth),
            6 => self.item(self.deeper(depth)?),
            _ if info == 24 && value < 32 => Err(self.error(Kind::Simple)),
            _ => Ok(()),
        }
    }

    fn argument(&mut self, info: u8) -> Result<u64, DecodeError> {
        if info < 24 {
            return Ok(u64::from(info));
        }
        if info > 27 {
            return Err(self.error(Kind::Reserved));
        }
        let start = self.at;
        self.skip(1 << (info - 24))?;
        let bytes = &self.bytes[start..self.at];
        Ok(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn deeper(&self, depth: u32) -> Result<u32, DecodeError> {
        depth.checked_sub(1).ok_or_else(|| self.error(Kind::Depth))
    }

    /// Each item takes a byte at least, so that a huge count ends with the input.
    fn items(&mut self, count: u64, depth: u32) -> Result<(), DecodeError> {
        let depth = self.deeper(depth)?;
        (0..count).try_for_each(|_| self.item(depth))
    }

    fn indefinite(&mut self, major: u8, depth: u32) -> Result<(), DecodeError> {
        let depth = self.deeper(depth)?;
        match major {
            2 | 3 => self.chunks(major),
            4 | 5 => {
                while !self.at_break() {
                    self.item(depth)?;
                    if major == 5 {
                        self.item(depth)?;
                    }
                }
                Ok(())
            }
            _ => Err(self.error(Kind::Reserved)),
        }
    }

    /// The chunks of a string of indefinite length: definite strings of the same type.
    fn chunks(&mut self, major: u8) -> Result<(), DecodeError> {
        while !self.at_break() {
            let initial = *self.bytes.get(self.at).ok_or_else(|| self.error(Kind::Truncated))?;
            if initial >> 5 != major {
                return Err(self.error(Kind::Reserved));
            }
            self.at += 1;
            let length = self.argument(initial & 0x1f)?;
            self.skip(length)?;
        }
        Ok(())
    }
}
