use proptest::prelude::*;
use tungstenite::protocol::frame::Frame;

use super::*;

const LIMIT: usize = 5_000_000;

/// Feeds a stream in pieces; all messages, and how it ended.
fn parse(stream: &[u8], cuts: &[usize]) -> (Vec<WsMessage>, Option<WsFault>) {
    let mut parser = WsParser::new(WsSide::Server, LIMIT);
    let mut buffer = BytesMut::new();
    let mut messages = Vec::new();
    let mut at = 0;
    let mut cuts = cuts.iter().copied().cycle();
    while at < stream.len() {
        let end = (at + cuts.next().unwrap_or(1).max(1)).min(stream.len());
        buffer.extend_from_slice(&stream[at..end]);
        at = end;
        loop {
            match parser.next(&mut buffer) {
                Ok(WsStep::Message(message)) => messages.push(message),
                Ok(WsStep::More { wanted }) => {
                    assert!(wanted > buffer.len());
                    break;
                }
                Err(fault) => return (messages, Some(fault)),
            }
        }
    }
    (messages, None)
}

fn frame(kind: Data, last: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Frame::message(payload.to_vec(), OpCode::Data(kind), last).format(&mut out).unwrap();
    out
}

fn control(frame: Frame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.format(&mut out).unwrap();
    out
}

/// The bytes of one message, and what they must be read as.
fn message() -> impl Strategy<Value = (Vec<u8>, Vec<WsMessage>)> {
    let payload = prop::collection::vec(any::<u8>(), 0..400);
    prop_oneof![
        payload.clone().prop_map(|bytes| {
            let wire = frame(Data::Binary, true, &bytes);
            (wire, vec![WsMessage::Binary(bytes.into())])
        }),
        prop::collection::vec(payload, 2..5).prop_map(|parts| {
            let mut wire = frame(Data::Binary, false, &parts[0]);
            wire.extend(control(Frame::ping(b"between".to_vec())));
            for (index, part) in parts.iter().enumerate().skip(1) {
                wire.extend(frame(Data::Continue, index + 1 == parts.len(), part));
            }
            let ping = WsMessage::Ping(Bytes::from_static(b"between"));
            (wire, vec![ping, WsMessage::Binary(parts.concat().into())])
        }),
        Just((frame(Data::Text, true, b"hello"), vec![WsMessage::Text])),
        Just((control(Frame::pong(Vec::new())), vec![WsMessage::Pong])),
    ]
}

proptest! {
    #[test]
    fn any_split_gives_the_same_messages(
        messages in prop::collection::vec(message(), 1..12),
        cuts in prop::collection::vec(1..200_usize, 1..8),
    ) {
        let wire: Vec<u8> = messages.iter().flat_map(|(wire, _)| wire.clone()).collect();
        let expected: Vec<WsMessage> = messages.into_iter().flat_map(|(_, read)| read).collect();
        prop_assert_eq!(parse(&wire, &cuts), (expected.clone(), None));
        prop_assert_eq!(parse(&wire, &[wire.len()]), (expected, None));
    }

    #[test]
    fn garbage_never_panics(stream in prop::collection::vec(any::<u8>(), 0..600)) {
        let whole = parse(&stream, &[stream.len()]);
        prop_assert_eq!(parse(&stream, &[1]), whole);
    }
}

#[test]
fn hostile_headers() {
    let check = |stream: &[u8], fault: WsFault| {
        assert_eq!(parse(stream, &[1]).1, Some(fault), "{stream:?}");
    };
    let huge = [&[0x82, 127][..], &u64::MAX.to_be_bytes()].concat();
    check(&huge, WsFault::TooLarge);
    let above = [&[0x82, 127][..], &(OVERSIZE_BYTES_MAX + 1).to_be_bytes()].concat();
    check(&above, WsFault::TooLarge);
    check(&[0xc2, 1, 0], WsFault::Protocol("reserved bits are set"));
    check(&[0x83, 0], WsFault::Protocol("unknown opcode"));
    check(&[0x80, 0], WsFault::Protocol("fragments out of order"));
    check(&[0x02, 0, 0x02, 0], WsFault::Protocol("fragments out of order"));
    check(&[0x09, 0], WsFault::Protocol("a long or fragmented control frame"));
    check(&[0x89, 126, 0, 126], WsFault::Protocol("a long or fragmented control frame"));
    let masked = WsFault::Protocol("masked where it must not be, or not where it must");
    check(&[0x82, 0x81, 1, 2, 3, 4, 5], masked);
}

#[test]
fn a_declared_length_reserves_nothing() {
    let mut parser = WsParser::new(WsSide::Server, LIMIT);
    let mut buffer = BytesMut::from(&[0x82, 127, 0, 0, 0, 0, 0, 0x4c, 0x4b, 0x40][..]);
    let capacity = buffer.capacity();
    assert_eq!(parser.next(&mut buffer), Ok(WsStep::More { wanted: 5_000_010 }));
    assert_eq!(buffer.capacity(), capacity);
}

#[test]
fn fragments_are_bounded_in_number_and_sum() {
    let mut endless = frame(Data::Binary, false, b"");
    for _ in 0..FRAGMENTS_MAX {
        endless.extend(frame(Data::Continue, false, b""));
    }
    assert_eq!(parse(&endless, &[999]).1, Some(WsFault::Protocol("too many fragments")));

    let mut long = frame(Data::Text, false, &vec![0; OVERSIZE_BYTES_MAX as usize]);
    long.extend(frame(Data::Continue, true, b"x"));
    assert_eq!(parse(&long, &[1 << 20]), (vec![], Some(WsFault::TooLarge)));
}

#[test]
fn what_is_too_large_is_read_past() {
    let ping = WsMessage::Ping(Bytes::from_static(b"p"));
    let good = WsMessage::Binary(Bytes::from_static(b"good"));
    let behind = [control(Frame::ping(b"p".to_vec())), frame(Data::Binary, true, b"good")].concat();
    let whole = frame(Data::Binary, true, &vec![0; LIMIT + 1]);
    let mut fragments = frame(Data::Binary, false, &vec![0; LIMIT]);
    for _ in 0..3 {
        fragments.extend(control(Frame::ping(b"p".to_vec())));
        fragments.extend(frame(Data::Continue, false, &vec![0; 1000]));
    }
    fragments.extend(frame(Data::Continue, true, b""));
    for (oversize, pings) in [(whole, 0), (fragments, 3)] {
        let mut expected = vec![ping.clone(); pings];
        expected.extend([WsMessage::TooLarge, ping.clone(), good.clone()]);
        let wire = [oversize, behind.clone()].concat();
        assert_eq!(parse(&wire, &[1 << 16, 1]), (expected, None));
    }
}

#[test]
fn nothing_of_an_oversize_message_is_kept() {
    let mut parser = WsParser::new(WsSide::Server, LIMIT);
    let mut buffer = BytesMut::new();
    buffer.extend_from_slice(&[0x82, 127]);
    buffer.extend_from_slice(&OVERSIZE_BYTES_MAX.to_be_bytes());
    for _ in 0..OVERSIZE_BYTES_MAX >> 16 {
        assert_eq!(parser.next(&mut buffer), Ok(WsStep::More { wanted: 1 }));
        assert!(buffer.is_empty());
        buffer.extend_from_slice(&vec![0; 1 << 16]);
    }
    assert!(buffer.capacity() < 1 << 20);
    assert_eq!(parser.next(&mut buffer), Ok(WsStep::Message(WsMessage::TooLarge)));
}

#[test]
fn a_whole_message_shares_the_read_buffer() {
    let mut parser = WsParser::new(WsSide::Server, LIMIT);
    let mut buffer = BytesMut::from(&frame(Data::Binary, true, b"payload")[..]);
    let at = buffer[2..].as_ptr();
    let Ok(WsStep::Message(WsMessage::Binary(payload))) = parser.next(&mut buffer) else {
        panic!("one message");
    };
    assert_eq!((&payload[..], payload.as_ptr()), (&b"payload"[..], at));
}

#[test]
fn frames_of_a_client_are_unmasked() {
    let mut parser = WsParser::new(WsSide::Client, 1000);
    let mut buffer = BytesMut::from(&[0x89, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2][..]);
    let ping = WsMessage::Ping(Bytes::from_static(b"hi"));
    assert_eq!(parser.next(&mut buffer), Ok(WsStep::Message(ping)));
    let mut buffer = BytesMut::from(&[0x89, 0][..]);
    assert!(parser.next(&mut buffer).is_err());
}
