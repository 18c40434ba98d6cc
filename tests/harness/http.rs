//! As much HTTP/1.1 as tests need: one request for each connection, both ways.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use super::patience;

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// The request head's bytes, for a handshake that wants to read them itself.
    pub head: Vec<u8>,
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("")
    }

    pub fn query(&self, name: &str) -> Option<String> {
        let query = self.target.split_once('?')?.1;
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(
            |(_, value)| {
                let value = value.replace("%3A", ":").replace("%3a", ":");
                value.replace("%2F", "/").replace("%2f", "/")
            },
        )
    }
}

#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Response {
    /// # Panics
    /// If the body is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }
}

/// Listens on a free port and gives each connection, with its request read, to the handler.
pub fn serve(handler: impl Fn(Request, TcpStream) + Send + Sync + 'static) -> SocketAddr {
    serve_on(TcpListener::bind("127.0.0.1:0").unwrap(), handler)
}

/// The same on a socket that is bound already.
pub fn serve_on(
    listener: TcpListener,
    handler: impl Fn(Request, TcpStream) + Send + Sync + 'static,
) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    let handler = Arc::new(handler);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let handler = Arc::clone(&handler);
            thread::spawn(move || {
                if let Ok(request) = read_request(&stream) {
                    handler(request, stream);
                }
            });
        }
    });
    address
}

fn read_request(stream: &TcpStream) -> io::Result<Request> {
    // A byte at a time: what follows the head belongs to the handler.
    let mut head = Vec::new();
    let mut byte = [0];
    let mut stream = stream;
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or("").split(' ');
    Ok(Request {
        method: first.next().unwrap_or("").to_owned(),
        target: first.next().unwrap_or("").to_owned(),
        headers: parse_headers(lines),
        head,
    })
}

fn parse_headers<'a>(lines: impl Iterator<Item = &'a str>) -> HashMap<String, String> {
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect()
}

/// Writes a reply and closes.
pub fn reply(stream: TcpStream, status: u16, content_type: &str, body: &str) {
    reply_with(stream, status, &[("Content-Type", content_type)], body);
}

/// The same with any headers.
pub fn reply_with(mut stream: TcpStream, status: u16, headers: &[(&str, &str)], body: &str) {
    let mut lines = String::new();
    for (name, value) in headers {
        lines.extend([name, ": ", value, "\r\n"]);
    }
    let _ = write!(
        stream,
        "HTTP/1.1 {status} Status\r\n{lines}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

/// Sends one request and reads the whole reply.
///
/// # Errors
/// As the socket's.
pub fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(patience()))?;
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len())?;
    read_response(stream)
}

fn read_response(stream: TcpStream) -> io::Result<Response> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let status = lines.first().and_then(|line| line.split(' ').nth(1)).and_then(|s| s.parse().ok());
    let headers = parse_headers(lines.iter().skip(1).map(String::as_str));
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        read_chunks(&mut reader, &mut body)?;
    } else {
        reader.read_to_end(&mut body)?;
    }
    let status = status.ok_or_else(|| io::Error::other(format!("no status line: {lines:?}")))?;
    Ok(Response { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk)?;
        if size == 0 {
            return Ok(());
        }
        body.extend_from_slice(&chunk[..size]);
    }
}
