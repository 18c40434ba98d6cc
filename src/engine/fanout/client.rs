//! Listens to a consumer: control frames are heeded, everything else is ignored, but bounded.

use std::{rc::Rc, time::Duration};

use bytes::BytesMut;
use ports::ConsumerEnd;

use super::ConsumerLink;
use crate::{
    rt::{self, SocketReader},
    upstream::{WsMessage, WsParser, WsSide, WsStep},
};

/// A client has no reason to say even this much at once.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Nor this much within [`HEARD_TIME`], whatever it is.
const HEARD_BYTES_MAX: usize = 1 << 20;
const HEARD_TIME: Duration = Duration::from_mins(1);

const READ_BYTES: usize = 1 << 10;

/// Listens until the client closes, goes away, or misbehaves.
pub(super) async fn listen(link: Rc<ConsumerLink>, mut reader: SocketReader, received: Vec<u8>) {
    let mut parser = WsParser::new(WsSide::Client, MESSAGE_BYTES_MAX);
    let mut buffer = BytesMut::from(&received[..]);
    let mut heard = received.len();
    let mut since = rt::now();
    while take_all(&link, &mut parser, &mut buffer) && heard <= HEARD_BYTES_MAX {
        buffer.reserve(READ_BYTES);
        let (result, returned) = reader.read(buffer).await;
        buffer = returned;
        match result {
            Ok(0) | Err(_) => return link.note_deaf(),
            Ok(count) => {
                let now = rt::now();
                if now.duration_since(since) >= HEARD_TIME {
                    (heard, since) = (0, now);
                }
                heard += count;
            }
        }
        link.note_heard();
    }
    link.end(ConsumerEnd::Protocol);
    // Until it hangs up, or the socket is shut: unread bytes would turn our last words into a reset.
    loop {
        buffer.clear();
        buffer.reserve(READ_BYTES);
        let (result, returned) = reader.read(buffer).await;
        buffer = returned;
        if matches!(result, Ok(0) | Err(_)) {
            return link.note_deaf();
        }
    }
}

/// Heeds all messages in the buffer; false once there is nothing more to listen for.
fn take_all(link: &ConsumerLink, parser: &mut WsParser, buffer: &mut BytesMut) -> bool {
    loop {
        match parser.next(buffer) {
            Ok(WsStep::More { .. }) => return true,
            Ok(WsStep::Message(WsMessage::Ping(payload))) => link.owe_pong(payload),
            Ok(WsStep::Message(WsMessage::Close)) => {
                link.end(ConsumerEnd::Left);
                return false;
            }
            Ok(WsStep::Message(WsMessage::Binary(_) | WsMessage::Text | WsMessage::Pong)) => {}
            Ok(WsStep::Message(WsMessage::TooLarge)) | Err(_) => return false,
        }
    }
}
