//! The WebSocket layer of a host's stream: finds messages in the read buffer, in place.
//!
//! A message in one frame becomes a slice of the read buffer, refcounted, without a copy. Only a
//! message in fragments is put together in a buffer of its own. Nothing is ever reserved for a
//! length that was merely declared: the caller reads on until the bytes are there.

use std::io::Cursor;

use bytes::{Buf, Bytes, BytesMut};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// A control frame's payload is at most this long.
const CONTROL_BYTES_MAX: u64 = 125;

/// So many frames a message may come in. Honest senders use a handful.
const FRAGMENTS_MAX: u32 = 1024;

/// A message above the limit is read past, unseen, up to this size: a host would send it again at
/// each reconnect, and what is behind it must come. Beyond, the connection is not worth reading.
const OVERSIZE_BYTES_MAX: u64 = 64 << 20;

/// A whole message, or a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WsMessage {
    Binary(Bytes),
    /// A text message; its contents are of no interest.
    Text,
    /// A message above the limit, which was not kept.
    TooLarge,
    Ping(Bytes),
    Pong,
    Close,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WsStep {
    Message(WsMessage),
    /// The buffer holds no whole frame; `wanted` is how long it must become for the next step, as
    /// far as can be told.
    More {
        wanted: usize,
    },
}

/// The stream can't be followed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WsFault {
    /// A message so far above the limit that it is not read past.
    TooLarge,
    Protocol(&'static str),
}

/// Which side of the connection is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WsSide {
    /// Frames from a server: never masked.
    Server,
    /// Frames from a client: always masked.
    Client,
}

/// Parses the frames of one connection.
#[derive(Debug)]
pub struct WsParser {
    side: WsSide,
    message_bytes_max: usize,
    partial: Option<Partial>,
    /// Bytes of the present frame that are thrown away as they come.
    skip: u64,
}

/// A message of which some fragments have come.
#[derive(Debug, Default)]
struct Partial {
    binary: bool,
    fragments: u32,
    /// Counts text and what is too large as well, though they are not kept.
    bytes: u64,
    payload: BytesMut,
    /// Above the limit: nothing is kept.
    oversize: bool,
    /// The frame that is being skipped is the message's last.
    ends: bool,
}

impl WsParser {
    pub fn new(side: WsSide, message_bytes_max: usize) -> Self {
        Self { side, message_bytes_max, partial: None, skip: 0 }
    }

    /// Takes the next message from the front of the buffer.
    ///
    /// # Errors
    /// If the peer breaks the protocol or a limit; the connection must be ended.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<WsStep, WsFault> {
        loop {
            if !self.skip_over(buffer) {
                return Ok(WsStep::More { wanted: 1 });
            }
            if self.partial.take_if(|partial| partial.oversize && partial.ends).is_some() {
                return Ok(WsStep::Message(WsMessage::TooLarge));
            }
            let mut cursor = Cursor::new(&buffer[..]);
            let parsed =
                FrameHeader::parse(&mut cursor).map_err(|_| WsFault::Protocol("unknown opcode"))?;
            let Some((header, length)) = parsed else {
                return Ok(WsStep::More { wanted: buffer.len() + 1 });
            };
            let header_bytes = cursor.position() as usize;
            self.check(&header, length)?;
            if self.is_oversize(&header, length)? {
                buffer.advance(header_bytes);
                self.skip = length;
                continue;
            }
            // The length is bounded by now.
            let total = header_bytes + length as usize;
            if buffer.len() < total {
                return Ok(WsStep::More { wanted: total });
            }
            buffer.advance(header_bytes);
            let mut payload = buffer.split_to(length as usize);
            if let Some(mask) = header.mask {
                unmask(&mut payload, mask);
            }
            if let Some(message) = self.take(&header, payload) {
                return Ok(WsStep::Message(message));
            }
        }
    }

    /// All that can be said of a frame by its header.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<(), WsFault> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(WsFault::Protocol("reserved bits are set"));
        }
        if header.mask.is_some() != (self.side == WsSide::Client) {
            return Err(WsFault::Protocol("masked where it must not be, or not where it must"));
        }
        match (header.opcode, &self.partial) {
            (OpCode::Control(_), _) => {
                if !header.is_final || length > CONTROL_BYTES_MAX {
                    return Err(WsFault::Protocol("a long or fragmented control frame"));
                }
                Ok(())
            }
            (OpCode::Data(Data::Continue), Some(partial)) => {
                if partial.fragments >= FRAGMENTS_MAX {
                    return Err(WsFault::Protocol("too many fragments"));
                }
                Ok(())
            }
            (OpCode::Data(Data::Text | Data::Binary), None) => Ok(()),
            (OpCode::Data(_), _) => Err(WsFault::Protocol("fragments out of order")),
        }
    }

    /// Throws away what is to be skipped; returns whether all of it has come.
    fn skip_over(&mut self, buffer: &mut BytesMut) -> bool {
        let count = usize::try_from(self.skip).unwrap_or(usize::MAX).min(buffer.len());
        buffer.advance(count);
        self.skip -= count as u64;
        self.skip == 0
    }

    /// Whether the frame belongs to a message above the limit, which then is only counted.
    fn is_oversize(&mut self, header: &FrameHeader, length: u64) -> Result<bool, WsFault> {
        if matches!(header.opcode, OpCode::Control(_)) {
            return Ok(false);
        }
        let bytes = self.partial.as_ref().map_or(0, |partial| partial.bytes).saturating_add(length);
        if bytes <= self.message_bytes_max as u64 {
            return Ok(false);
        }
        if bytes > OVERSIZE_BYTES_MAX {
            return Err(WsFault::TooLarge);
        }
        let partial = self.partial.get_or_insert_with(Partial::default);
        partial.oversize = true;
        partial.ends = header.is_final;
        partial.fragments += 1;
        partial.bytes = bytes;
        partial.payload = BytesMut::new();
        Ok(true)
    }

    /// Takes a frame which was checked; gives a message if it is complete.
    fn take(&mut self, header: &FrameHeader, payload: BytesMut) -> Option<WsMessage> {
        match header.opcode {
            OpCode::Control(Control::Ping) => Some(WsMessage::Ping(payload.freeze())),
            OpCode::Control(Control::Pong) => Some(WsMessage::Pong),
            OpCode::Control(_) => Some(WsMessage::Close),
            OpCode::Data(Data::Binary) if header.is_final => {
                Some(WsMessage::Binary(payload.freeze()))
            }
            OpCode::Data(Data::Text) if header.is_final => Some(WsMessage::Text),
            OpCode::Data(kind) => self.take_fragment(kind, header.is_final, &payload),
        }
    }

    fn take_fragment(&mut self, kind: Data, last: bool, payload: &[u8]) -> Option<WsMessage> {
        let partial = self
            .partial
            .get_or_insert_with(|| Partial { binary: kind == Data::Binary, ..Partial::default() });
        partial.fragments += 1;
        partial.bytes += payload.len() as u64;
        if partial.binary {
            partial.payload.extend_from_slice(payload);
        }
        if !last {
            return None;
        }
        let whole = self.partial.take()?;
        Some(if whole.binary { WsMessage::Binary(whole.payload.freeze()) } else { WsMessage::Text })
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests;
