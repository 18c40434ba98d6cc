//! The server's end of a connection, which gives the HTTP library's own error replies our form.
//!
//! A request head that can't be read never becomes a request: the library answers 400, 414 or 431 by
//! itself, without a body and without our headers. Those replies are known by what they lack, and
//! replaced on their way to the socket.
//!
//! A socket that is closed while there is something in it that nobody has read resets the connection,
//! which may overtake the reply. So what a client still sends is thrown away for a moment first.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, header};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

/// The library's own replies are shorter.
const BARE_REPLY_BYTES_MAX: usize = 256;
/// How long a client has to notice that it is to close as well.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    /// The name and version that every reply carries.
    server: String,
    write_timeout: Duration,
    /// There while the client takes nothing: when it will have had its time.
    stalled: Option<Pin<Box<Sleep>>>,
    /// There once nothing more is sent: when the client will have had its time.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, common: &HeaderMap, write_timeout: Duration) -> Self {
        let server = server_name(common).to_owned();
        Self { stream, server, write_timeout, stalled: None, lingering: None }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(sent) = Pin::new(&mut self.stream).poll_write(cx, bytes) {
            self.stalled = None;
            return Poll::Ready(sent);
        }
        let timeout = self.write_timeout;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no reply")))
    }

    /// What to send in place of these bytes, if they are a bare reply.
    fn replacement(&self, bytes: &[u8]) -> Option<String> {
        if bytes.len() > BARE_REPLY_BYTES_MAX || !bytes.starts_with(b"HTTP/1.1 4") {
            return None;
        }
        let head = std::str::from_utf8(bytes).ok()?;
        let (status, headers) = head.split_once("\r\n")?;
        let named = |name: &str| headers.split("\r\n").any(|line| line.starts_with(name));
        if named("server:") || !named("content-length: 0") {
            return None;
        }
        let status = status.strip_prefix("HTTP/1.1 ")?;
        let (error, message) = match status.get(..3)? {
            "414" | "431" => ("RequestTooLarge", "the request's head is too long"),
            _ => ("InvalidRequest", "this is not an HTTP/1.1 request that can be read"),
        };
        Some(error_reply(status, &self.server, error, message, ""))
    }
}

/// The `Server` header among those of every reply.
pub(super) fn server_name(common: &HeaderMap) -> &str {
    common.get(header::SERVER).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// A whole error reply, after which the connection is closed. `headers` end with a line break each.
pub(super) fn error_reply(
    status: &str,
    server: &str,
    error: &str,
    message: &str,
    headers: &str,
) -> String {
    let body = format!(r#"{{"error":"{error}","message":"{message}"}}"#);
    format!(
        "HTTP/1.1 {status}\r\nServer: {server}\r\nAccess-Control-Allow-Origin: *\r\n{headers}\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

/// Not vectored, so that a reply's head arrives here in one piece.
impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(reply) = self.replacement(buf) else { return self.poll_send(cx, buf) };
        // The last thing that is sent: if there is no room for all of it, the close says the rest.
        let _ = ready!(self.poll_send(cx, reply.as_bytes()))?;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        let Self { stream, lingering, .. } = &mut *self;
        let over = lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        while Instant::now() < over.deadline() {
            let mut bytes = [0; 4096];
            let mut unread = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *stream).poll_read(cx, &mut unread) {
                Poll::Ready(Ok(())) if !unread.filled().is_empty() => {}
                Poll::Ready(_ended) => break,
                Poll::Pending => return over.as_mut().poll(cx).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}
