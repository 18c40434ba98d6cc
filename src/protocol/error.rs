//! Why bytes from the network could not be read: a kind and a place, no text.

use std::fmt;

/// What is wrong, and at which byte of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    pub kind: DecodeErrorKind,
    pub offset: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DecodeErrorKind {
    /// The input ends inside an item.
    Truncated,
    /// Bytes follow the last item.
    Trailing,
    /// An integer or a length is not in its shortest form.
    NotMinimal,
    /// Indefinite length, or a reserved initial byte.
    Reserved,
    /// An item of another type than the one that belongs here.
    Type,
    /// Map keys are not text, not unique, or not in canonical order.
    KeyOrder,
    Utf8,
    Float,
    /// A simple value other than false, true and null.
    Simple,
    /// A tag other than 42.
    Tag,
    /// Not a version 1 CID with codec dag-cbor or raw and a SHA-256 hash.
    Cid,
    /// Nested deeper than [`crate::cbor::DEPTH_MAX`].
    Depth,
    /// A container or text above its limit.
    Length,
    /// An integer out of the range that its field allows.
    Range,
    FieldMissing,
    /// A field whose value is not one of those that its type allows.
    FieldInvalid,
    /// An operation with an unknown action, or with a CID that does not go with its action.
    OpInvalid,
    /// A message type or `op` that is none of the four events.
    FrameUnknown,
    /// Above [`crate::frame::FRAME_BYTES_MAX`].
    FrameTooLarge,
    /// A CAR header that is not version 1 with at least one root, or a broken block length.
    Car,
    /// More blocks than [`crate::car::BLOCKS_MAX`].
    BlocksTooMany,
    /// A block's bytes do not hash to its CID.
    BlockHash,
}

impl DecodeError {
    pub(crate) fn new(kind: DecodeErrorKind, offset: usize) -> Self {
        Self { kind, offset: u32::try_from(offset).unwrap_or(u32::MAX) }
    }

    /// The same error seen from an outer input, in which this one begins at `base`.
    pub(crate) fn shifted(self, base: usize) -> Self {
        Self::new(self.kind, base.saturating_add(self.offset as usize))
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.kind, self.offset)
    }
}

impl std::error::Error for DecodeError {}

impl fmt::Display for DecodeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "input ends inside an item",
            Self::Trailing => "bytes after the last item",
            Self::NotMinimal => "integer or length not in shortest form",
            Self::Reserved => "indefinite length or reserved initial byte",
            Self::Type => "item of the wrong type",
            Self::KeyOrder => "map keys not unique text in canonical order",
            Self::Utf8 => "text is not UTF-8",
            Self::Float => "floating-point number",
            Self::Simple => "simple value other than false, true, null",
            Self::Tag => "tag other than 42",
            Self::Cid => "CID of an unsupported form",
            Self::Depth => "nested too deep",
            Self::Length => "container or text too long",
            Self::Range => "integer out of range",
            Self::FieldMissing => "required field missing",
            Self::FieldInvalid => "field with a value that its type does not allow",
            Self::OpInvalid => "invalid operation",
            Self::FrameUnknown => "unknown message type",
            Self::FrameTooLarge => "frame too large",
            Self::Car => "broken CAR structure",
            Self::BlocksTooMany => "too many blocks",
            Self::BlockHash => "block does not hash to its CID",
        })
    }
}
