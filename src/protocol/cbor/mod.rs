//! Strict DAG-CBOR without allocation: a cursor over borrowed bytes, and a canonical writer.
//!
//! The cursor accepts exactly the canonical form: shortest integers and lengths, definite lengths,
//! text keys in order (by length, then by bytes) and unique, integers of 64 bits with sign, no
//! floats, of the simple values only false, true and null, of the tags only 42 with a CID.
//! [`check_record`] is the exception: records are not the relay's business, so it asks only for
//! well-formed CBOR.

mod record;
pub mod write;

pub use record::check_record;

use crate::{
    cid::Cid,
    error::{DecodeError, DecodeErrorKind as Kind},
};

/// Items may be nested this deep.
pub const DEPTH_MAX: u32 = 32;
/// Elements of an array, or pairs of a map.
pub const CONTAINER_ITEMS_MAX: u64 = 131_072;
/// Bytes of a map key.
pub const KEY_BYTES_MAX: usize = 8_192;

/// A CID link: tag 42, byte string of 37 bytes, multibase identity prefix.
pub(crate) const LINK_PREFIX: [u8; 5] = [0xd8, 0x2a, 0x58, 0x25, 0x00];

const NULL: u8 = 0xf6;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;

/// The major type of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Major {
    Unsigned = 0,
    Negative = 1,
    Bytes = 2,
    Text = 3,
    Array = 4,
    Map = 5,
    Tag = 6,
    Simple = 7,
}

const MAJORS: [Major; 8] = [
    Major::Unsigned,
    Major::Negative,
    Major::Bytes,
    Major::Text,
    Major::Array,
    Major::Map,
    Major::Tag,
    Major::Simple,
];

/// A cursor over bytes that should hold canonical DAG-CBOR.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The keys of a map whose header has been read: hands them out and checks their order.
#[derive(Clone, Copy, Debug)]
pub struct MapKeys<'a> {
    remaining: u32,
    previous: Option<&'a [u8]>,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The offset of the next byte.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    /// What has been read since `start`, which was a [`Self::position`] of this reader.
    #[inline]
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// An error of this kind at this place.
    #[inline]
    pub fn error(&self, kind: Kind) -> DecodeError {
        DecodeError::new(kind, self.at)
    }

    /// Fails unless everything has been read.
    #[inline]
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.error(Kind::Trailing)) }
    }

    /// Steps over exactly these bytes if they are next.
    #[inline]
    pub(crate) fn literal(&mut self, bytes: &[u8]) -> bool {
        let found = self.bytes[self.at..].starts_with(bytes);
        self.at += if found { bytes.len() } else { 0 };
        found
    }

    /// Steps over bytes of whatever meaning.
    #[inline]
    pub(crate) fn raw(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        self.take(count as u64)
    }

    #[inline]
    fn peek(&self) -> Result<u8, DecodeError> {
        self.bytes.get(self.at).copied().ok_or_else(|| self.error(Kind::Truncated))
    }

    #[inline]
    fn take(&mut self, count: u64) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        if count > rest.len() as u64 {
            return Err(self.error(Kind::Truncated));
        }
        let taken = &rest[..count as usize];
        self.at += count as usize;
        Ok(taken)
    }

    /// Reads an item's head: its major type and argument. For [`Major::Simple`] the argument is
    /// the simple value; floats are refused here.
    #[inline]
    fn head(&mut self) -> Result<(Major, u64), DecodeError> {
        let initial = self.peek()?;
        let major = MAJORS[usize::from(initial >> 5)];
        let info = initial & 0x1f;
        if info < 24 {
            self.at += 1;
            return Ok((major, u64::from(info)));
        }
        self.long_head(major, info)
    }

    fn long_head(&mut self, major: Major, info: u8) -> Result<(Major, u64), DecodeError> {
        let start = *self;
        if info > 27 {
            return Err(start.error(Kind::Reserved));
        }
        if major == Major::Simple {
            return Err(start.error(if info == 24 { Kind::Simple } else { Kind::Float }));
        }
        self.at += 1;
        let width = 1u64 << (info - 24);
        let value = self.take(width)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let smallest = match width {
            1 => 24,
            2 => 0x100,
            4 => 0x1_0000,
            _ => 0x1_0000_0000,
        };
        if value < smallest { Err(start.error(Kind::NotMinimal)) } else { Ok((major, value)) }
    }

    #[inline]
    fn expect(&mut self, wanted: Major) -> Result<u64, DecodeError> {
        let start = *self;
        let (major, value) = self.head()?;
        if major == wanted { Ok(value) } else { Err(start.error(Kind::Type)) }
    }

    /// An integer of 64 bits with sign.
    #[inline]
    pub fn integer(&mut self) -> Result<i64, DecodeError> {
        let start = *self;
        let (major, value) = self.head()?;
        let magnitude = i64::try_from(value).map_err(|_| start.error(Kind::Range));
        match major {
            Major::Unsigned => magnitude,
            Major::Negative => Ok(-1 - magnitude?),
            _ => Err(start.error(Kind::Type)),
        }
    }

    /// An integer that is not negative.
    #[inline]
    pub fn unsigned(&mut self) -> Result<u64, DecodeError> {
        let start = *self;
        u64::try_from(self.integer()?).map_err(|_| start.error(Kind::Range))
    }

    #[inline]
    pub fn boolean(&mut self) -> Result<bool, DecodeError> {
        let value = match self.peek()? {
            FALSE => false,
            TRUE => true,
            _ => return Err(self.error(Kind::Type)),
        };
        self.at += 1;
        Ok(value)
    }

    #[inline]
    pub fn byte_string(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.expect(Major::Bytes)?;
        self.take(length)
    }

    #[inline]
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.expect(Major::Text)?;
        let start = *self;
        str::from_utf8(self.take(length)?).map_err(|_| start.error(Kind::Utf8))
    }

    /// Steps over `null` if it is next.
    #[inline]
    pub fn null(&mut self) -> bool {
        let found = self.bytes.get(self.at) == Some(&NULL);
        self.at += usize::from(found);
        found
    }

    /// `null`, or what `read` reads.
    #[inline]
    pub fn nullable<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.null() { Ok(None) } else { read(self).map(Some) }
    }

    /// A link: tag 42 around a CID.
    #[inline]
    pub fn link(&mut self) -> Result<Cid, DecodeError> {
        let start = *self;
        let (major, tag) = self.head()?;
        if major != Major::Tag {
            return Err(start.error(Kind::Type));
        }
        if tag != 42 {
            return Err(start.error(Kind::Tag));
        }
        self.link_body()
    }

    fn link_body(&mut self) -> Result<Cid, DecodeError> {
        let start = *self;
        match self.byte_string()? {
            [0, cid @ ..] => Cid::parse(cid).map_err(|_| start.error(Kind::Cid)),
            _ => Err(start.error(Kind::Cid)),
        }
    }

    /// The head of an array: how many items follow.
    #[inline]
    pub fn array(&mut self) -> Result<u32, DecodeError> {
        let start = *self;
        let count = self.expect(Major::Array)?;
        start.container(count)
    }

    /// The head of a map.
    #[inline]
    pub fn map(&mut self) -> Result<MapKeys<'a>, DecodeError> {
        let start = *self;
        let count = self.expect(Major::Map)?;
        Ok(MapKeys { remaining: start.container(count)?, previous: None })
    }

    #[inline]
    fn container(&self, count: u64) -> Result<u32, DecodeError> {
        if count > CONTAINER_ITEMS_MAX { Err(self.error(Kind::Length)) } else { Ok(count as u32) }
    }

    /// Steps over one item of any type, checking all of it.
    pub fn skip(&mut self) -> Result<(), DecodeError> {
        self.skip_within(DEPTH_MAX)
    }

    /// `depth` bounds the recursion: how many more containers may open.
    fn skip_within(&mut self, depth: u32) -> Result<(), DecodeError> {
        let start = *self;
        let (major, value) = self.head()?;
        match major {
            Major::Unsigned | Major::Negative => match i64::try_from(value) {
                Ok(_) => Ok(()),
                Err(_) => Err(start.error(Kind::Range)),
            },
            Major::Bytes => self.take(value).map(|_| ()),
            Major::Text => match str::from_utf8(self.take(value)?) {
                Ok(_) => Ok(()),
                Err(_) => Err(start.error(Kind::Utf8)),
            },
            Major::Array => {
                let count = start.container(value)?;
                let depth = depth.checked_sub(1).ok_or_else(|| start.error(Kind::Depth))?;
                (0..count).try_for_each(|_| self.skip_within(depth))
            }
            Major::Map => {
                let remaining = start.container(value)?;
                let depth = depth.checked_sub(1).ok_or_else(|| start.error(Kind::Depth))?;
                let mut keys = MapKeys { remaining, previous: None };
                while keys.next(self)?.is_some() {
                    self.skip_within(depth)?;
                }
                Ok(())
            }
            Major::Tag if value == 42 => self.link_body().map(|_| ()),
            Major::Tag => Err(start.error(Kind::Tag)),
            Major::Simple if (20..=22).contains(&value) => Ok(()),
            Major::Simple => Err(start.error(Kind::Simple)),
        }
    }
}

impl<'a> MapKeys<'a> {
    /// How many keys are still to come.
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// The next key, after which `reader` stands at its value; `None` behind the last pair.
    #[inline]
    pub fn next(&mut self, reader: &mut Reader<'a>) -> Result<Option<&'a str>, DecodeError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let start = *reader;
        let (major, length) = reader.head()?;
        if major != Major::Text {
            return Err(start.error(Kind::KeyOrder));
        }
        if length > KEY_BYTES_MAX as u64 {
            return Err(start.error(Kind::Length));
        }
        let key = reader.take(length)?;
        let text = str::from_utf8(key).map_err(|_| start.error(Kind::Utf8))?;
        if self.previous.is_some_and(|previous| !in_order(previous, key)) {
            return Err(start.error(Kind::KeyOrder));
        }
        self.remaining -= 1;
        self.previous = Some(key);
        Ok(Some(text))
    }
}

/// Whether two map keys may follow each other: the shorter first, then by bytes, never equal.
#[inline]
fn in_order(first: &[u8], second: &[u8]) -> bool {
    (first.len(), first) < (second.len(), second)
}
