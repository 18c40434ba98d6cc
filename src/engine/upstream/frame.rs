//! [`RawFrame`]: one event of a host as it came, on its way to the shard that owns the account.

use std::ops::Range;

use bytes::Bytes;
use ports::{EventKind, HostId, HostSeq, ShardId, Strictness, ring::Weight};

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameOrigin {
    pub host: HostId,
    /// The shard that has the connection: it gets the [`Finished`](crate::accounts) ticket back.
    pub home: ShardId,
    pub strictness: Strictness,
    /// The host has gone back in its numbering, and the event's number is one that it had reached
    /// before: it may be an old event that comes again.
    pub rewound: bool,
}

/// What a cheap look at a frame has told: enough to route and number it, no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameOutline {
    pub kind: EventKind,
    pub host_seq: HostSeq,
    /// The bytes of the DID within the frame.
    pub did: Range<u32>,
}

/// A frame which was read and skimmed, but not checked.
///
/// Its bytes share a read buffer of up to 256 KiB with their neighbours. Who keeps a frame for
/// longer than a turn calls [`RawFrame::detach`], so that a short frame does not hold a long buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    bytes: Bytes,
    ticket: u64,
    host_seq: HostSeq,
    host: HostId,
    did: Range<u32>,
    home: ShardId,
    kind: EventKind,
    strictness: Strictness,
    rewound: bool,
}

impl RawFrame {
    /// `ticket` is the frame's place in its host's window; it comes back when the frame has ended.
    ///
    /// # Panics
    /// If the outline's DID is not a piece of text within `bytes`: it was made from other bytes.
    pub fn new(origin: FrameOrigin, ticket: u64, outline: FrameOutline, bytes: Bytes) -> Self {
        let frame = Self {
            bytes,
            ticket,
            host_seq: outline.host_seq,
            host: origin.host,
            did: outline.did,
            home: origin.home,
            kind: outline.kind,
            strictness: origin.strictness,
            rewound: origin.rewound,
        };
        assert!(!frame.did().is_empty(), "an outline belongs to the frame it was made from");
        frame
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    pub fn host(&self) -> HostId {
        self.host
    }

    pub fn home(&self) -> ShardId {
        self.home
    }

    pub fn host_seq(&self) -> HostSeq {
        self.host_seq
    }

    pub fn kind(&self) -> EventKind {
        self.kind
    }

    pub fn strictness(&self) -> Strictness {
        self.strictness
    }

    pub fn is_rewound(&self) -> bool {
        self.rewound
    }

    /// The DID as the frame spells it; its syntax has not been checked.
    pub fn did(&self) -> &str {
        self.bytes
            .get(self.did.start as usize..self.did.end as usize)
            .and_then(|did| std::str::from_utf8(did).ok())
            .unwrap_or_default()
    }

    /// Copies the frame out of the read buffer that it shares.
    pub fn detach(&mut self) {
        self.bytes = Bytes::copy_from_slice(&self.bytes);
    }
}

impl Weight for RawFrame {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_did_when_detached() {
        let origin = FrameOrigin {
            host: HostId(7),
            home: ShardId(1),
            strictness: Strictness::Strict,
            rewound: false,
        };
        let outline = FrameOutline { kind: EventKind::Commit, host_seq: HostSeq(3), did: 2..11 };
        let shared = Bytes::from_static(b"xxdid:web:ayyyyyyy");
        let mut frame = RawFrame::new(origin, 5, outline, shared.slice(..13));
        assert_eq!(frame.did(), "did:web:a");
        frame.detach();
        assert_eq!(frame.did(), "did:web:a");
        assert_eq!(frame.bytes().len(), 13);
        assert_eq!(frame.weight(), size_of::<RawFrame>() + 13);
    }
}
