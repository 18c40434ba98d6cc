//! The WebSocket handshake with a host, without IO: bytes out, bytes in.
//!
//! The reply's head is given to the library alone, up to its last byte, so that what follows stays
//! in our read buffer.

use std::io::{self, Read, Write};

use bytes::BytesMut;
use ports::{HostFault, HostSeq};
use tungstenite::{
    client::IntoClientRequest,
    error::Error,
    handshake::{HandshakeError, MidHandshake, client::ClientHandshake},
    http::{HeaderValue, Response},
};

/// A reply's head above this is not one.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// What a relay says in its `Server` header.
const RELAY_MARK: &str = "atproto-relay";

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Handshake {
    middle: MidHandshake<ClientHandshake<Memory>>,
}

/// How a step went.
#[derive(Debug)]
pub(super) enum HandshakeStep {
    /// The reply's head is not complete.
    More(Handshake),
    /// Frames follow; what came of them is in the buffer.
    Done,
}

impl Handshake {
    /// Begins: writes the request to `out`.
    ///
    /// # Errors
    /// If the host's name can't stand in a request.
    pub(super) fn start(
        hostname: &str,
        cursor: Option<HostSeq>,
        user_agent: &str,
        out: &mut Vec<u8>,
    ) -> Result<Self, HostFault> {
        let unusable = HostFault::Handshake { status: 0 };
        let query = cursor.map(|seq| format!("?cursor={seq}")).unwrap_or_default();
        let url = format!("ws://{hostname}/xrpc/com.atproto.sync.subscribeRepos{query}");
        let mut request = url.into_client_request().map_err(|_| unusable.clone())?;
        let agent = HeaderValue::from_str(user_agent).map_err(|_| unusable.clone())?;
        request.headers_mut().insert("User-Agent", agent);
        let started = ClientHandshake::start(Memory::default(), request, None)
            .map_err(|_| unusable.clone())?;
        // The request is written; then there is nothing to read yet.
        match started.handshake() {
            Err(HandshakeError::Interrupted(mut middle)) => {
                out.append(&mut middle.get_mut().get_mut().output);
                Ok(Self { middle })
            }
            Ok(_) | Err(HandshakeError::Failure(_)) => Err(unusable),
        }
    }

    /// Takes the reply's head from the front of the buffer, once it is there.
    ///
    /// # Errors
    /// If the host refuses, is a relay, or does not speak the protocol.
    pub(super) fn handle(mut self, buffer: &mut BytesMut) -> Result<HandshakeStep, HostFault> {
        let Some(head_bytes) = head_len(buffer) else {
            if buffer.len() > HEAD_BYTES_MAX {
                return Err(HostFault::Handshake { status: 0 });
            }
            return Ok(HandshakeStep::More(self));
        };
        let head = buffer.split_to(head_bytes);
        self.middle.get_mut().get_mut().input = head.to_vec();
        match self.middle.handshake() {
            Ok((_, reply)) if is_relay(&reply) => Err(HostFault::Relay),
            Ok(_) => Ok(HandshakeStep::Done),
            Err(HandshakeError::Failure(Error::Http(reply))) if is_relay(&reply) => {
                Err(HostFault::Relay)
            }
            Err(HandshakeError::Failure(Error::Http(reply))) => {
                Err(HostFault::Handshake { status: reply.status().as_u16() })
            }
            Err(_) => Err(HostFault::Handshake { status: 0 }),
        }
    }
}

/// The length of the head, with the empty line that ends it.
fn head_len(buffer: &[u8]) -> Option<usize> {
    let searched = &buffer[..buffer.len().min(HEAD_BYTES_MAX)];
    searched.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn is_relay(reply: &Response<Option<Vec<u8>>>) -> bool {
    let servers = reply.headers().get_all("Server");
    servers.iter().any(|server| {
        server.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains(RELAY_MARK))
    })
}

/// A stream in memory: what was put in can be read, and then there is no more for now.
#[derive(Debug, Default)]
struct Memory {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(self.input.len());
        buffer[..count].copy_from_slice(&self.input[..count]);
        self.input.drain(..count);
        Ok(count)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tungstenite::handshake::derive_accept_key;

    use super::*;

    fn start() -> (Handshake, String) {
        let mut out = Vec::new();
        let shake =
            Handshake::start("pds.test:2583", Some(HostSeq(7)), "relayered/0", &mut out).unwrap();
        (shake, String::from_utf8(out).unwrap())
    }

    /// The reply to that request, with a `Server` header and what follows.
    fn reply(request: &str, server: &str, rest: &[u8]) -> BytesMut {
        let key =
            request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Server: {server}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        BytesMut::from(&[head.as_bytes(), rest].concat()[..])
    }

    #[test]
    fn asks_with_name_and_cursor() {
        let (_, request) = start();
        let line = "GET /xrpc/com.atproto.sync.subscribeRepos?cursor=7 HTTP/1.1\r\n";
        assert!(request.starts_with(line), "{request}");
        assert!(request.contains("Host: pds.test:2583\r\n"), "{request}");
        assert!(request.to_lowercase().contains("user-agent: relayered/0\r\n"), "{request}");
    }

    #[test]
    fn leaves_the_frames_in_the_buffer() {
        let (mut shake, request) = start();
        let whole = reply(&request, "pds", b"\x82\x01x");
        for end in 1..whole.len() - 3 {
            let mut part = BytesMut::from(&whole[..end]);
            shake = match shake.handle(&mut part).unwrap() {
                HandshakeStep::More(shake) => shake,
                HandshakeStep::Done => panic!("done after {end} bytes"),
            };
        }
        let mut buffer = whole;
        assert!(matches!(shake.handle(&mut buffer), Ok(HandshakeStep::Done)));
        assert_eq!(&buffer[..], b"\x82\x01x");
    }

    #[test]
    fn faults() {
        let check = |bytes: &[u8], expected: HostFault| {
            let (shake, _) = start();
            assert_eq!(shake.handle(&mut BytesMut::from(bytes)).unwrap_err(), expected);
        };
        let status = |status| HostFault::Handshake { status };
        check(b"HTTP/1.1 429 Slow down\r\nContent-Length: 0\r\n\r\n", status(429));
        check(b"HTTP/1.1 404 No\r\nServer: indigo (atproto-relay)\r\n\r\n", HostFault::Relay);
        check(b"HTTP/1.1 101 Fine\r\n\r\n", status(0));
        check(b"220 smtp.test\r\n\r\n", status(0));
        check(&vec![b'x'; HEAD_BYTES_MAX + 1], status(0));
        let (shake, request) = start();
        let fault = shake.handle(&mut reply(&request, "Relay (ATProto-Relay)", b"")).unwrap_err();
        assert_eq!(fault, HostFault::Relay);
    }
}
