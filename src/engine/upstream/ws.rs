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

/// A whole message, or a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WsMessage {
    Binary(Bytes),
    /// A text message; its contents are of no interest.
    Text,
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
    /// A message above the limit.
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
}

/// A message of which some fragments have come.
#[derive(Debug)]
struct Partial {
    binary: bool,
    fragments: u32,
    /// Counts text as well, though it is not kept.
    bytes: usize,
    payload: BytesMut,
}

impl WsParser {
    pub fn new(side: WsSide, message_bytes_max: usize) -> Self {
        Self { side, message_bytes_max, partial: None }
    }

    /// Takes the next message from the front of the buffer.
    ///
    /// # Errors
    /// If the peer breaks the protocol or a limit; the connection must be ended.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<WsStep, WsFault> {
        loop {
            let mut cursor = Cursor::new(&buffer[..]);
            let parsed =
                FrameHeader::parse(&mut cursor).map_err(|_| WsFault::Protocol("unknown opcode"))?;
            let Some((header, length)) = parsed else {
                return Ok(WsStep::More { wanted: buffer.len() + 1 });
            };
            let header_bytes = cursor.position() as usize;
            self.check(&header, length)?;
            // `check` has bounded the length.
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
                self.check_length(length.saturating_add(partial.bytes as u64))
            }
            (OpCode::Data(Data::Text | Data::Binary), None) => self.check_length(length),
            (OpCode::Data(_), _) => Err(WsFault::Protocol("fragments out of order")),
        }
    }

    fn check_length(&self, length: u64) -> Result<(), WsFault> {
        if length > self.message_bytes_max as u64 { Err(WsFault::TooLarge) } else { Ok(()) }
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
        let partial = self.partial.get_or_insert_with(|| Partial {
            binary: kind == Data::Binary,
            fragments: 0,
            bytes: 0,
            payload: BytesMut::new(),
        });
        partial.fragments += 1;
        partial.bytes += payload.len();
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
