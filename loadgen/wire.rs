//! WebSocket bytes: data frames by a cheap reader that parses in place, control frames, and both
//! sides of the handshake (keys and request through tungstenite).

use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::generate_request;
use tungstenite::handshake::derive_accept_key;

/// Larger than any message of the event stream may be, with the room of its header.
pub const MESSAGE_BYTES_MAX: usize = 5_000_000 + 1024;
/// Longest answer to a WebSocket request that is read.
const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const OP_CONTINUATION: u8 = 0x0;
const OP_TEXT: u8 = 0x1;
const OP_BINARY: u8 = 0x2;
pub const OP_CLOSE: u8 = 0x8;
pub const OP_PING: u8 = 0x9;
pub const OP_PONG: u8 = 0xa;

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("websocket frame with reserved bits or an unknown opcode: first byte {0:#04x}")]
    Header(u8),
    #[error("websocket frame masked by a server, or not masked by a client")]
    Mask,
    #[error("websocket control frame longer than 125 bytes or fragmented")]
    Control,
    #[error("continuation of nothing, or a new message inside a fragmented one")]
    Fragment,
    #[error("message of {0} bytes is longer than the limit")]
    TooLong(u64),
    #[error("handshake refused: {0}")]
    Handshake(String),
}

/// A message as it stands in the reader's buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Binary(&'a [u8]),
    Text(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    /// Status code (1005 if there is none) and reason.
    Close(u16, &'a [u8]),
}

/// Who sends to this reader: servers don't mask, clients must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Server,
    Client,
}

/// Cuts a byte stream into messages. Bytes are read straight into its buffer and parsed there.
#[derive(Debug)]
pub struct MessageReader {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    peer: Peer,
    fragments: Vec<u8>,
    fragmented: bool,
}

struct Header {
    first: u8,
    mask: Option<[u8; 4]>,
    /// Bytes before the payload.
    len: usize,
    payload_len: usize,
}

impl MessageReader {
    pub fn new(peer: Peer, buffer_bytes: usize) -> Self {
        Self {
            buffer: vec![0; buffer_bytes.max(256)],
            start: 0,
            end: 0,
            peer,
            fragments: Vec::new(),
            fragmented: false,
        }
    }

    /// Takes bytes that were read before, such as those behind a handshake.
    pub fn push(&mut self, bytes: &[u8]) {
        while self.buffer.len() - self.end < bytes.len() {
            let longer = (self.buffer.len() * 2).max(self.end + bytes.len());
            self.buffer.resize(longer, 0);
        }
        self.buffer[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Where to read the next bytes into. Never empty. Say with [`Self::filled`] how many came.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < self.buffer.len() / 4 {
            // The rest of a message goes to the front, at most once for each buffer of bytes.
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() - self.end < self.buffer.len() / 4 {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    pub fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// The next whole message, if all of it is there.
    pub fn poll_message(&mut self) -> Result<Option<Message<'_>>, WireError> {
        if !self.fragmented {
            self.fragments.clear();
        }
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let from = self.start + header.len;
            let to = from + header.payload_len;
            if to > self.end {
                return Ok(None);
            }
            self.start = to;
            if let Some(mask) = header.mask {
                for (index, byte) in self.buffer[from..to].iter_mut().enumerate() {
                    *byte ^= mask[index % 4];
                }
            }
            let fin = header.first & FIN != 0;
            match header.first & 0x0f {
                OP_BINARY | OP_TEXT if self.fragmented => return Err(WireError::Fragment),
                OP_BINARY if fin => return Ok(Some(Message::Binary(&self.buffer[from..to]))),
                OP_TEXT if fin => return Ok(Some(Message::Text(&self.buffer[from..to]))),
                OP_BINARY | OP_TEXT => {
                    self.fragmented = true;
                    self.fragments.extend_from_slice(&self.buffer[from..to]);
                }
                OP_CONTINUATION if !self.fragmented => return Err(WireError::Fragment),
                OP_CONTINUATION => {
                    self.fragments.extend_from_slice(&self.buffer[from..to]);
                    if self.fragments.len() > MESSAGE_BYTES_MAX {
                        return Err(WireError::TooLong(self.fragments.len() as u64));
                    }
                    if fin {
                        self.fragmented = false;
                        return Ok(Some(Message::Binary(&self.fragments)));
                    }
                }
                OP_PING => return Ok(Some(Message::Ping(&self.buffer[from..to]))),
                OP_PONG => return Ok(Some(Message::Pong)),
                OP_CLOSE => return Ok(Some(close_message(&self.buffer[from..to]))),
                _ => return Err(WireError::Header(header.first)),
            }
        }
    }

    fn header(&self) -> Result<Option<Header>, WireError> {
        let bytes = &self.buffer[self.start..self.end];
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(WireError::Header(first));
        }
        if (second & MASKED != 0) != (self.peer == Peer::Client) {
            return Err(WireError::Mask);
        }
        let (payload_len, extra) = match (second & 0x7f, rest) {
            (126, &[a, b, ..]) => (u64::from(u16::from_be_bytes([a, b])), 2),
            (127, _) => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 8),
                None => return Ok(None),
            },
            (126, _) => return Ok(None),
            (short, _) => (u64::from(short), 0),
        };
        let control = first & 0x08 != 0;
        if control && (payload_len > 125 || first & FIN == 0) {
            return Err(WireError::Control);
        }
        if payload_len > MESSAGE_BYTES_MAX as u64 {
            return Err(WireError::TooLong(payload_len));
        }
        let (mask, mask_len) = match (self.peer, &rest[extra..]) {
            (Peer::Server, _) => (None, 0),
            (Peer::Client, &[a, b, c, d, ..]) => (Some([a, b, c, d]), 4),
            (Peer::Client, _) => return Ok(None),
        };
        let len = 2 + extra + mask_len;
        Ok(Some(Header { first, mask, len, payload_len: payload_len as usize }))
    }
}

fn close_message(payload: &[u8]) -> Message<'_> {
    match payload {
        [high, low, reason @ ..] => Message::Close(u16::from_be_bytes([*high, *low]), reason),
        _ => Message::Close(1005, &[]),
    }
}

/// Header of an unmasked binary message, as a server sends it.
pub fn write_binary_header(payload_len: usize, out: &mut Vec<u8>) {
    out.push(FIN | OP_BINARY);
    match payload_len {
        0..126 => out.push(payload_len as u8),
        126..0x1_0000 => {
            out.push(126);
            out.extend((payload_len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend((payload_len as u64).to_be_bytes());
        }
    }
}

/// Length of the header that [`write_binary_header`] wrote at the front of `bytes`.
pub fn binary_header_len(bytes: &[u8]) -> usize {
    match bytes.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    }
}

/// A whole control frame. A client's is masked with zeros, which leaves the payload as it is.
pub fn control_frame(opcode: u8, payload: &[u8], from: Peer) -> Vec<u8> {
    let payload = &payload[..payload.len().min(125)];
    let mut out = Vec::with_capacity(payload.len() + 6);
    out.push(FIN | opcode);
    match from {
        Peer::Server => out.push(payload.len() as u8),
        Peer::Client => out.extend([MASKED | payload.len() as u8, 0, 0, 0, 0]),
    }
    out.extend(payload);
    out
}

pub fn close_frame(code: u16, reason: &str, from: Peer) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.bytes().take(120));
    control_frame(OP_CLOSE, &payload, from)
}

/// A client's handshake: the request to send, and what the answer must prove.
#[derive(Debug)]
pub struct ClientHandshake {
    pub request: Vec<u8>,
    accept: String,
}

impl ClientHandshake {
    /// `url` is `ws://host:port/path?query`.
    pub fn new(url: &str) -> Result<Self, WireError> {
        let request =
            url.into_client_request().map_err(|error| WireError::Handshake(error.to_string()))?;
        let (request, key) =
            generate_request(request).map_err(|error| WireError::Handshake(error.to_string()))?;
        Ok(Self { request, accept: derive_accept_key(key.as_bytes()) })
    }

    /// Looks for the whole answer at the front of `bytes`: its length, once it is there and right.
    pub fn check(&self, bytes: &[u8]) -> Result<Option<usize>, WireError> {
        let Some(head_len) = head_len(bytes) else {
            return match bytes.len() {
                HANDSHAKE_BYTES_MAX.. => Err(WireError::Handshake("answer too long".into())),
                _ => Ok(None),
            };
        };
        let head = String::from_utf8_lossy(&bytes[..head_len]);
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            let body = String::from_utf8_lossy(&bytes[head_len..]);
            return Err(WireError::Handshake(format!("{status} {body}")));
        }
        let accepted = lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
            name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == self.accept
        });
        if !accepted {
            return Err(WireError::Handshake("wrong or missing Sec-WebSocket-Accept".into()));
        }
        Ok(Some(head_len))
    }
}

/// A server's answer to a client's key.
pub fn accept_response(key: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    )
    .into_bytes()
}

/// Length of an HTTP head with its closing empty line, if all of it is there.
pub fn head_len(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
