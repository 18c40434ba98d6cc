//! A blocking HTTP client for a relay's admin API, its metrics, and PLC directories: plain HTTP, one
//! request for each connection.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::wire;

const TIMEOUT: Duration = Duration::from_secs(15);
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Host and port of a URL of the form `http://host:port/…` or `ws://host:port/…`, and the rest.
pub fn split_url(url: &str) -> io::Result<(&str, &str)> {
    let rest = ["http://", "ws://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let rest = rest.ok_or_else(|| {
        io::Error::new(ErrorKind::InvalidInput, format!("{url}: only http:// and ws://"))
    })?;
    Ok(match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    })
}

/// The first IPv4 address of `host:port`, else any.
pub fn resolve(authority: &str) -> io::Result<SocketAddr> {
    let authority =
        if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let addresses: Vec<SocketAddr> = authority.to_socket_addrs()?.collect();
    let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    address.copied().ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no address"))
}

pub fn get(url: &str) -> io::Result<Answer> {
    request("GET", url, None, None)
}

/// Sends JSON; `admin_key` opens the admin API.
pub fn post(url: &str, admin_key: Option<&str>, body: &str) -> io::Result<Answer> {
    request("POST", url, admin_key, Some(body))
}

fn request(
    method: &str,
    url: &str,
    admin_key: Option<&str>,
    body: Option<&str>,
) -> io::Result<Answer> {
    let (authority, target) = split_url(url)?;
    let target = if target.is_empty() { "/" } else { target };
    let mut stream = TcpStream::connect_timeout(&resolve(authority)?, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n");
    if let Some(key) = admin_key {
        // Writing to a String cannot fail.
        let _ = write!(head, "Authorization: Bearer {key}\r\n");
    }
    let body = body.unwrap_or_default();
    if method == "POST" {
        head.push_str("Content-Type: application/json\r\n");
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        if let Some(answer) = parse(&answer) {
            return Ok(answer);
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::Error::new(ErrorKind::InvalidData, "malformed HTTP answer")),
            read => answer.extend_from_slice(&buffer[..read]),
        }
        if answer.len() > BODY_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "HTTP answer too long"));
        }
    }
}

/// The answer, once all of it is there. Servers here give a length or send in chunks.
fn parse(answer: &[u8]) -> Option<Answer> {
    let head_len = wire::head_len(answer)?;
    let head = std::str::from_utf8(&answer[..head_len]).ok()?.to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let field = |name: &str| {
        head.lines().filter_map(|line| line.split_once(':')).find(|(n, _)| *n == name).map(|f| f.1)
    };
    let body = &answer[head_len..];
    let body = match field("content-length") {
        Some(length) => body.get(..length.trim().parse().ok()?)?.to_vec(),
        None if field("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) => {
            dechunk(body)?
        }
        None => Vec::new(),
    };
    Some(Answer { status, body: String::from_utf8(body).ok()? })
}

fn dechunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let line_end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let line = std::str::from_utf8(&bytes[..line_end]).ok()?;
        let length = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        if length == 0 {
            return Some(out);
        }
        let data = bytes.get(line_end + 2..)?;
        out.extend_from_slice(data.get(..length)?);
        bytes = data.get(length + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_plain_and_chunked() {
        let plain = parse(b"HTTP/1.1 404 Nope\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        assert_eq!((plain.status, plain.body.as_str()), (404, "{}"));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap().body, "abcde");
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc").is_none());
    }

    #[test]
    fn urls_are_split() {
        assert_eq!(split_url("http://a:1/b?c").unwrap(), ("a:1", "/b?c"));
        assert_eq!(split_url("ws://a").unwrap(), ("a", ""));
        assert!(split_url("https://a").is_err());
    }
}
