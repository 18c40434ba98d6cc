//! The hand parser against tungstenite, and hostile headers.

use std::io::Cursor;

use proptest::prelude::*;
use tungstenite::protocol::frame::FrameSocket;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use super::*;

fn read_all(bytes: &[u8], step: usize, peer: Peer) -> Result<Vec<(char, Vec<u8>)>, WireError> {
    let mut reader = MessageReader::new(peer, 256);
    let mut messages = Vec::new();
    let mut rest = bytes;
    loop {
        while let Some(message) = reader.poll_message()? {
            messages.push(match message {
                Message::Binary(data) => ('b', data.to_vec()),
                Message::Text(data) => ('t', data.to_vec()),
                Message::Ping(data) => ('p', data.to_vec()),
                Message::Pong => ('q', Vec::new()),
                Message::Close(code, reason) => ('c', [&code.to_be_bytes(), reason].concat()),
            });
        }
        if rest.is_empty() {
            return Ok(messages);
        }
        let space = reader.space();
        let taken = step.min(space.len()).min(rest.len());
        space[..taken].copy_from_slice(&rest[..taken]);
        reader.filled(taken);
        rest = &rest[taken..];
    }
}

fn encode(messages: &[(u8, Vec<u8>)], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut socket = FrameSocket::new(Cursor::new(Vec::new()));
    for (kind, data) in messages {
        let opcode = match kind {
            0 => OpCode::Data(Data::Binary),
            1 => OpCode::Control(Control::Ping),
            _ => OpCode::Data(Data::Text),
        };
        let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
        socket.write(Frame::from_payload(header, data.clone().into())).unwrap();
    }
    socket.flush().unwrap();
    socket.into_inner().0.into_inner()
}

proptest! {
    #[test]
    fn reads_what_tungstenite_writes(
        messages in prop::collection::vec((0u8..3, prop::collection::vec(any::<u8>(), 0..120)), 0..12),
        large in 0usize..70_000,
        step in 1usize..5000,
        masked in any::<bool>(),
    ) {
        let mut messages = messages;
        messages.push((0, vec![7; large]));
        let (mask, peer) = if masked { (Some([1, 2, 3, 4]), Peer::Client) } else { (None, Peer::Server) };
        let read = read_all(&encode(&messages, mask), step, peer).unwrap();
        let expected: Vec<_> = messages
            .into_iter()
            .map(|(kind, data)| (['b', 'p', 't'][usize::from(kind)], data))
            .collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), step in 1usize..50) {
        let _ = read_all(&bytes, step, Peer::Server);
        let _ = read_all(&bytes, step, Peer::Client);
    }

    #[test]
    fn tungstenite_reads_our_headers(length in prop::sample::select(vec![0usize, 1, 125, 126, 127, 65_535, 65_536, 70_000])) {
        let mut bytes = Vec::new();
        write_binary_header(length, &mut bytes);
        prop_assert_eq!(binary_header_len(&bytes), bytes.len());
        bytes.resize(bytes.len() + length, 9);
        let mut socket = FrameSocket::new(Cursor::new(bytes));
        let frame = socket.read(None).unwrap().unwrap();
        prop_assert_eq!(frame.into_payload().len(), length);
    }
}

#[test]
fn fragments_are_joined_around_a_ping() {
    let bytes = [
        &[0x02, 3][..],
        b"abc",
        &[0x89, 1],
        b"!",
        &[0x00, 2],
        b"de",
        &[0x80, 1],
        b"f",
        &[0x82, 1],
        b"g",
    ]
    .concat();
    let messages = read_all(&bytes, 1, Peer::Server).unwrap();
    assert_eq!(messages, [('p', b"!".to_vec()), ('b', b"abcdef".to_vec()), ('b', b"g".to_vec())]);
}

#[test]
fn hostile_headers_are_refused() {
    for (name, bytes) in [
        ("reserved bit", &[0xc2, 0][..]),
        ("unknown opcode", &[0x83, 0]),
        ("masked by a server", &[0x82, 0x80, 0, 0, 0, 0]),
        ("long ping", &[0x89, 126, 0, 200]),
        ("fragmented ping", &[0x09, 0]),
        ("huge length", &[0x82, 127, 0x7f, 0, 0, 0, 0, 0, 0, 0]),
        ("continuation of nothing", &[0x80, 0]),
        ("new message inside another", &[0x02, 0, 0x82, 0]),
    ] {
        assert!(read_all(bytes, 100, Peer::Server).is_err(), "{name}");
    }
}

#[test]
fn handshake_answers_are_checked() {
    let handshake = ClientHandshake::new("ws://localhost:1234/xrpc/x?cursor=5").unwrap();
    let request = String::from_utf8(handshake.request.clone()).unwrap();
    assert!(request.starts_with("GET /xrpc/x?cursor=5 HTTP/1.1\r\n"), "{request}");
    let key = request
        .split("\r\n")
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .unwrap()
        .1;
    let mut answer = accept_response(key);
    let length = answer.len();
    answer.extend(b"\x82\x00");
    assert_eq!(handshake.check(&answer).unwrap(), Some(length));
    assert_eq!(handshake.check(&answer[..20]).unwrap(), None);
    assert!(handshake.check(&accept_response("bm90IHRoZSBrZXk=")).is_err());
    assert!(handshake.check(b"HTTP/1.1 429 Too Many Requests\r\n\r\n").is_err());
}
