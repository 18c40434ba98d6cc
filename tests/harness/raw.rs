//! A consumer that reads when it is told to, and as little as it is told: bytes as they stand on the wire.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use protocol::frame::{self, Skim};
use socket2::{Domain, Socket, Type};

use super::{http, patience};

pub const SUBSCRIBE: &str = "/xrpc/com.atproto.sync.subscribeRepos";

/// The headers of a handshake; the key is the one of RFC 6455.
pub const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// What comes next in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// An event, as a message.
    Event(Vec<u8>),
    Info(String),
    Error(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    /// The connection ended, between two frames.
    End,
}

pub struct RawConsumer {
    stream: TcpStream,
    /// Read, and not yet taken.
    buffer: Vec<u8>,
}

impl RawConsumer {
    /// Makes the handshake and reads nothing. The kernel keeps little for who does not read.
    ///
    /// # Panics
    /// If the relay refuses.
    pub fn connect(api: SocketAddr, query: &str) -> Self {
        Self::connect_with_window(api, query, 64 << 10)
    }

    /// As [`Self::connect`]; the relay may send so many bytes beyond what was read.
    ///
    /// # Panics
    /// If the relay refuses.
    pub fn connect_with_window(api: SocketAddr, query: &str, bytes: usize) -> Self {
        let socket = Socket::new(Domain::for_address(api), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        socket.connect(&api.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(patience())).unwrap();
        stream.set_nodelay(true).unwrap();
        let headers: Vec<_> =
            UPGRADE.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let headers = headers.join("\r\n");
        let request =
            format!("GET {SUBSCRIBE}{query} HTTP/1.1\r\nHost: {api}\r\n{headers}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Self { stream, buffer: Vec::new() }
    }

    /// Reads at most so many bytes, so that some more of the stream is there; false at its end.
    pub fn read_some(&mut self, bytes: usize) -> bool {
        let start = self.buffer.len();
        self.buffer.resize(start + bytes, 0);
        let read = match self.stream.read(&mut self.buffer[start..]) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("{error}"),
        };
        self.buffer.truncate(start + read);
        read > 0
    }

    /// The next frame, whose bytes may have to be waited for.
    ///
    /// # Panics
    /// If nothing comes, or what comes is no frame of a server, or the end is within a frame.
    pub fn next(&mut self) -> Got {
        loop {
            if let Some(got) = self.take_read() {
                return got;
            }
            if !self.read_some(1 << 16) {
                assert!(self.buffer.is_empty(), "{} bytes of a cut frame", self.buffer.len());
                return Got::End;
            }
        }
    }

    /// The next frame that is no ping, and answers pings on the way.
    ///
    /// # Panics
    /// As [`Self::next`], and if pings are all that comes.
    pub fn next_answering(&mut self) -> Got {
        let deadline = Instant::now() + patience();
        loop {
            match self.next() {
                Got::Ping(payload) => {
                    assert!(Instant::now() < deadline, "nothing but pings");
                    self.send(0x8a, &payload);
                }
                other => return other,
            }
        }
    }

    /// A frame from what was read, if it is there in full.
    pub fn take_read(&mut self) -> Option<Got> {
        let [first, second, ..] = self.buffer[..] else { return None };
        let (start, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().unwrap()))),
            127 => (10, u64::from_be_bytes(self.buffer.get(2..10)?.try_into().unwrap()) as usize),
            length => (2, usize::from(length)),
        };
        assert!(length < 16 << 20, "a frame of {length} bytes");
        let payload = self.buffer.get(start..start + length)?.to_vec();
        self.buffer.drain(..start + length);
        Some(understand(first, payload))
    }

    /// Sends a masked frame with that first byte.
    pub fn send(&mut self, first: u8, payload: &[u8]) {
        let mut bytes = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes).unwrap();
    }
}

fn understand(first: u8, payload: Vec<u8>) -> Got {
    match first {
        0x82 => match frame::skim(&payload).unwrap() {
            Skim::Event { .. } => Got::Event(payload),
            Skim::Info { name, .. } => Got::Info(name.to_owned()),
            Skim::Error { error, .. } => Got::Error(error.to_owned()),
            Skim::Unknown { .. } => panic!("an unknown frame"),
        },
        0x88 => {
            let (code, reason) = payload.split_at(2);
            let code = u16::from_be_bytes(code.try_into().unwrap());
            Got::Close(code, String::from_utf8(reason.to_vec()).unwrap())
        }
        0x89 => Got::Ping(payload),
        0x8a => Got::Pong(payload),
        other => panic!("a frame that begins with {other:#x}"),
    }
}

/// A handshake that must not succeed.
pub fn refused(api: SocketAddr, query: &str) -> http::Response {
    http::request(api, "GET", &format!("{SUBSCRIBE}{query}"), &UPGRADE, "").unwrap()
}
