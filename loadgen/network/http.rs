//! The little of HTTP/1.1 that the simulated servers speak: one request head after the other,
//! answers with a length, connections that stay open.

use serde_json::Value;

use crate::wire;

/// Longest request head that is read.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    #[error("request head too long")]
    TooLong,
    #[error("malformed request head")]
    Malformed,
}

/// A request without body.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    /// The key, if this asks for a WebSocket.
    pub websocket_key: Option<&'a str>,
    /// Bytes of head and body.
    pub len: usize,
}

impl<'a> Request<'a> {
    /// The first parameter of that name, as it stands in the query.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

/// The request at the front of `bytes`, once all of it is there. A body is stepped over.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Request<'_>>, HttpError> {
    let Some(head_len) = wire::head_len(bytes) else {
        return if bytes.len() > HEAD_BYTES_MAX { Err(HttpError::TooLong) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&bytes[..head_len]).or(Err(HttpError::Malformed))?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(_version)) = (words.next(), words.next(), words.next())
    else {
        return Err(HttpError::Malformed);
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut websocket_key = None;
    let mut body_len = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("sec-websocket-key") {
            websocket_key = Some(value.trim());
        } else if name.eq_ignore_ascii_case("content-length") {
            body_len = value.trim().parse::<usize>().or(Err(HttpError::Malformed))?;
        }
    }
    if body_len > HEAD_BYTES_MAX {
        return Err(HttpError::TooLong);
    }
    let len = head_len + body_len;
    if bytes.len() < len {
        return Ok(None);
    }
    Ok(Some(Request { method, path, query, websocket_key, len }))
}

pub fn response(status: u16, body: &Value) -> Vec<u8> {
    raw_response(status, "application/json", &body.to_string())
}

pub(super) fn raw_response(status: u16, content_type: &str, body: &str) -> Vec<u8> {
    let reason = if status < 300 { "OK" } else { "Error" };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// `%3A` and its like; anything that is no escape stays.
pub(super) fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = match tail {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escape {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_cut_and_read() {
        let bytes = b"GET /xrpc/a.b?did=did%3Aplc%3Ax&cursor=5 HTTP/1.1\r\nHost: x\r\n\
            sec-websocket-key: abc\r\n\r\nmore";
        let request = parse_head(bytes).unwrap().unwrap();
        assert_eq!((request.method, request.path), ("GET", "/xrpc/a.b"));
        assert_eq!(request.param("cursor"), Some("5"));
        assert_eq!(percent_decode(request.param("did").unwrap()), "did:plc:x");
        assert_eq!(request.websocket_key, Some("abc"));
        assert_eq!(&bytes[request.len..], b"more");
        assert_eq!(parse_head(&bytes[..40]), Ok(None));
    }

    #[test]
    fn bodies_are_stepped_over() {
        let bytes = b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET";
        assert_eq!(&bytes[parse_head(bytes).unwrap().unwrap().len..], b"GET");
        assert_eq!(parse_head(&bytes[..bytes.len() - 4]), Ok(None));
    }

    #[test]
    fn bad_heads_are_refused() {
        assert_eq!(parse_head(b"nonsense\r\n\r\n"), Err(HttpError::Malformed));
        assert_eq!(parse_head(&vec![b'a'; HEAD_BYTES_MAX + 1]), Err(HttpError::TooLong));
        assert_eq!(percent_decode("a%2"), "a%2");
    }
}
