//! HTTP/1.1 byte by byte against the real binary: what clients, proxies and attackers send.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use harness::{ADMIN_KEY, FakePlc, Relay, patience};
use serde_json::Value;

const LIST_HOSTS: &str = "/xrpc/com.atproto.sync.listHosts";
const SET_LIMIT: &str = "/admin/subs/setPerDayLimit";

/// A connection that stays open between requests.
struct Wire(BufReader<TcpStream>);

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Reply {
    fn error(&self) -> (u16, String) {
        let json: Value =
            serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        assert!(json["message"].is_string(), "{self:?}");
        (self.status, json["error"].as_str().unwrap().to_owned())
    }
}

impl Wire {
    fn open(api: SocketAddr) -> Self {
        let stream = TcpStream::connect(api).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // Who is hung up on while it sends still reads what was said.
        let _ = self.0.get_mut().write_all(bytes.as_ref());
    }

    /// The next reply; `None` at the end of the connection.
    fn read(&mut self, head_only: bool) -> Option<Reply> {
        let mut line = String::new();
        if self.0.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; if head_only { 0 } else { length }];
        self.0.read_exact(&mut body).unwrap();
        Some(Reply { status, headers, body: String::from_utf8(body).unwrap() })
    }

    fn reply(&mut self) -> Reply {
        self.read(false).unwrap()
    }

    fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Reply {
        self.send(bytes);
        self.reply()
    }

    fn ended(&mut self) -> bool {
        self.0.get_ref().set_read_timeout(Some(patience())).unwrap();
        // An orderly end or a reset: both are ends.
        self.0.read(&mut [0]).map_or(true, |count| count == 0)
    }
}

fn relay() -> Relay {
    Relay::start(&FakePlc::start(), &[])
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: relay.example\r\n\r\n")
}

fn post(target: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: relay.example\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\
         Content-Type: application/json\r\n{headers}\r\n{body}"
    )
}

fn per_day(relay: &Relay) -> u64 {
    relay.admin("GET", "/admin/subs/perDayLimit", "").json()["limit"].as_u64().unwrap()
}

#[test]
fn a_connection_serves_many_requests_and_none_is_mixed_up() {
    let relay = relay();
    let mut wire = Wire::open(relay.api);
    for round in 0..50 {
        assert_eq!(wire.ask(get("/_health")).status, 200, "{round}");
        assert_eq!(wire.ask(get("/xrpc/com.example.none")).error().0, 501, "{round}");
        assert_eq!(wire.ask(get("/nothing")).error().0, 404, "{round}");
    }
    // Pipelined: replies come in the order of the requests.
    let both = (get("/robots.txt") + &get(LIST_HOSTS) + &get("/admin/pds/list")).repeat(20);
    wire.send(both);
    for round in 0..20 {
        assert!(wire.reply().body.contains("User-agent"), "{round}");
        assert_eq!(wire.reply().body, r#"{"hosts":[]}"#, "{round}");
        assert_eq!(wire.reply().error().0, 401, "{round}");
    }
    // Of a client that wants no more, the connection is closed; likewise of one of HTTP/1.0.
    wire.send("GET /_health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(wire.reply().headers["connection"], "close");
    assert!(wire.ended());
    let mut old = Wire::open(relay.api);
    assert_eq!(old.ask("GET /_health HTTP/1.0\r\n\r\n").status, 200);
    assert!(old.ended());
}

#[test]
fn bodies_come_whole_in_chunks_in_pieces_or_when_they_are_asked_for() {
    let relay = relay();
    let mut wire = Wire::open(relay.api);
    let chunked = "Transfer-Encoding: chunked\r\n";
    let body = "8;name=value\r\n{\"limit\"\r\n3\r\n:7}\r\n0\r\nTrailer: x\r\n\r\n";
    assert_eq!(wire.ask(post(SET_LIMIT, chunked, body)).status, 200);
    assert_eq!(per_day(&relay), 7);

    // Byte by byte, head and body alike.
    let pieces = post(SET_LIMIT, "Content-Length: 11\r\n", r#"{"limit":8}"#)
        + &post(SET_LIMIT, chunked, "b\r\n{\"limit\":9}\r\n0\r\n\r\n");
    for byte in pieces.as_bytes() {
        wire.send([*byte]);
    }
    assert_eq!((wire.reply().status, wire.reply().status), (200, 200));
    assert_eq!(per_day(&relay), 9);

    wire.send(post(SET_LIMIT, "Content-Length: 12\r\nExpect: 100-continue\r\n", ""));
    assert_eq!(wire.reply().status, 100);
    assert_eq!(wire.ask(r#"{"limit":10}"#).status, 200);
    assert_eq!(per_day(&relay), 10);
    // Without a key nobody is asked for a body.
    wire.send(
        "POST /admin/subs/setPerDayLimit HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\
         Expect: 100-continue\r\n\r\n",
    );
    assert_eq!(wire.reply().error().0, 401);
}

#[test]
fn bodies_that_are_too_long_or_break_off_are_refused() {
    let relay = relay();
    let padded = |bytes: usize| format!(r#"{{"limit":11{}}}"#, " ".repeat(bytes - 12));
    let length = |bytes: usize| format!("Content-Length: {bytes}\r\n");
    let mut wire = Wire::open(relay.api);
    let fits = 16 * 1024;
    assert_eq!(wire.ask(post(SET_LIMIT, &length(fits), &padded(fits))).status, 200);
    assert_eq!(per_day(&relay), 11);
    for bytes in [fits + 1, 300_000] {
        let reply = wire.ask(post(SET_LIMIT, &length(bytes), &padded(bytes)));
        assert_eq!(reply.error(), (413, "PayloadTooLarge".to_owned()));
    }
    // The connection is as good as before.
    assert_eq!(wire.ask(get("/_health")).status, 200);
    // Nobody waits for what could never fit.
    let mut wire = Wire::open(relay.api);
    assert_eq!(wire.ask(post(SET_LIMIT, &length(10_000_000_000), "")).error().0, 413);
    let mut wire = Wire::open(relay.api);
    let endless = "ffff\r\n".to_owned() + &"x".repeat(0xffff) + "\r\n";
    wire.send(post(SET_LIMIT, "Transfer-Encoding: chunked\r\n", ""));
    for _ in 0..40 {
        wire.send(&endless);
    }
    assert!(wire.read(false).is_none_or(|reply| reply.error().0 == 413));

    for (headers, body) in [
        ("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4\r\n{\"li"),
        ("Content-Length: 100\r\n", "{\"limit\":66"),
    ] {
        let mut wire = Wire::open(relay.api);
        wire.send(post(SET_LIMIT, headers, body));
        wire.0.get_ref().shutdown(Shutdown::Write).unwrap();
        let reply = wire.read(false);
        assert!(reply.as_ref().is_none_or(|reply| reply.status == 400), "{body}: {reply:?}");
    }
    assert_eq!(per_day(&relay), 11);
}

#[test]
fn a_request_that_two_servers_could_read_differently_is_refused() {
    let relay = relay();
    for headers in [
        "Content-Length: 12\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 12\r\n",
        "Content-Length: 11\r\nContent-Length: 12\r\n",
        "Content-Length: 11, 12\r\n",
        "Content-Length: +11\r\n",
        "Content-Length: 0x0b\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Bad Header: x\r\n",
        "NoColon\r\n",
        "Host: other.example\r\n",
        "X: a\0b\r\n",
    ] {
        let mut wire = Wire::open(relay.api);
        wire.send(post(SET_LIMIT, headers, r#"{"limit":66}"#));
        let reply = wire.reply();
        assert_eq!(reply.error(), (400, "InvalidRequest".to_owned()), "{headers}");
        assert!(wire.ended(), "{headers}");
    }
    assert_eq!(per_day(&relay), 50);
}

#[test]
fn a_client_that_has_said_all_still_gets_its_replies() {
    let relay = relay();
    let mut wire = Wire::open(relay.api);
    let change = post(SET_LIMIT, "Content-Length: 11\r\n", r#"{"limit":5}"#);
    wire.send(change + &get(LIST_HOSTS) + &get("/admin/pds/list"));
    wire.0.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(wire.reply().status, 200);
    assert_eq!(wire.reply().body, r#"{"hosts":[]}"#);
    assert_eq!(wire.reply().error().0, 401);
    assert!(wire.ended());
    assert_eq!(per_day(&relay), 5);
}

#[test]
fn who_is_slow_is_let_go_and_nobody_waits_for_it() {
    let relay = Relay::start(&FakePlc::start(), &["--api-timeout", "2s"]);
    // Each has said so much, and then says the rest byte by byte without ever coming to an end.
    let starts = [
        String::new(),
        "GET /_health HTTP/1.1\r\nHost: x\r\nCookie: ".to_owned(),
        post(SET_LIMIT, "Content-Length: 9999\r\n", "{"),
        post(SET_LIMIT, "Transfer-Encoding: chunked\r\n", "fff\r\n{"),
    ];
    let mut slow: Vec<_> = starts.iter().map(|_| Wire::open(relay.api)).collect();
    let mut told = vec![None; slow.len()];
    for (wire, start) in slow.iter_mut().zip(&starts) {
        wire.send(start);
        wire.0.get_ref().set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    }
    while told.iter().any(Option::is_none) {
        assert_eq!(relay.get("/_health").status, 200);
        for (index, (wire, told)) in slow.iter_mut().zip(&mut told).enumerate() {
            if told.is_some() {
                continue;
            }
            if index > 0 {
                wire.send(" ");
            }
            let waits = |kind| matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut);
            *told = match wire.0.fill_buf() {
                Err(error) if waits(error.kind()) => None,
                Ok(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                Err(_reset) => Some(String::new()),
            };
        }
    }
    assert_eq!(told[..2], [Some(String::new()), Some(String::new())]);
    for reply in told[2..].iter().flatten() {
        assert!(reply.starts_with("HTTP/1.1 408 ") && reply.contains("RequestTimeout"), "{reply}");
    }
    // One that takes no replies can't make the relay hold them for ever, either.
    let mut greedy = TcpStream::connect(relay.api).unwrap();
    while greedy.write_all(get("/openapi.json").repeat(100).as_bytes()).is_ok() {}
    assert_eq!(per_day(&relay), 50);
}

#[test]
fn mistaken_upgrades_get_an_answer() {
    const STREAM: &str = "/xrpc/com.atproto.sync.subscribeRepos";
    let relay = relay();
    let handshake = |version: &str, headers: &str| {
        format!(
            "GET {STREAM} {version}\r\nHost: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             {headers}\r\n"
        )
    };
    let both = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    let websocket = format!("{both}Sec-WebSocket-Version: 13\r\n");
    for (request, expected) in [
        (get(STREAM), (426, "UpgradeRequired")),
        (handshake("HTTP/1.1", &websocket.replace("13", "8")), (426, "UpgradeRequired")),
        (handshake("HTTP/1.1", both), (400, "InvalidRequest")),
        (handshake("HTTP/1.1", &websocket.replace("websocket", "h2c")), (400, "InvalidRequest")),
        (handshake("HTTP/1.1", &websocket.replace(", Upgrade", "")), (400, "InvalidRequest")),
        (handshake("HTTP/1.0", &websocket), (400, "InvalidRequest")),
        (
            handshake("HTTP/1.1", &websocket).replace("Sec-WebSocket-Key", "X"),
            (400, "InvalidRequest"),
        ),
        (
            handshake("HTTP/1.1", &websocket).replace(" HTTP", "?cursor=-1 HTTP"),
            (400, "InvalidRequest"),
        ),
        (handshake("HTTP/1.1", &websocket).replace("GET", "POST"), (405, "MethodNotAllowed")),
        (handshake("HTTP/1.1", &websocket).replace(STREAM, "/nothing"), (404, "NotFound")),
    ] {
        let mut wire = Wire::open(relay.api);
        let reply = wire.ask(&request);
        assert_eq!(reply.error(), (expected.0, expected.1.to_owned()), "{request}");
        if expected.0 == 426 {
            assert_eq!(reply.headers["upgrade"], "websocket");
            assert_eq!(reply.headers["sec-websocket-version"], "13");
        }
    }
    // An upgrade is an offer, which this server need not take.
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let mut wire = Wire::open(relay.api);
    for offer in [h2c, &websocket] {
        let request = format!("GET /_health HTTP/1.1\r\nHost: x\r\n{offer}\r\n");
        assert_eq!(wire.ask(request).status, 200);
    }
    assert_eq!(relay.admin("GET", "/admin/consumers/list", "").body, "[]");
    let reply = wire.ask(handshake("HTTP/1.1", &websocket));
    assert_eq!((reply.status, &*reply.headers["upgrade"]), (101, "websocket"));
}

#[test]
fn heads_of_sixteen_kibibytes_are_read_and_longer_ones_refused() {
    let relay = relay();
    let head = |bytes: usize| {
        let start = "GET /_health HTTP/1.1\r\nHost: x\r\nCookie: ";
        format!("{start}{}\r\n\r\n", "c".repeat(bytes - start.len() - 4))
    };
    let mut wire = Wire::open(relay.api);
    for _ in 0..3 {
        assert_eq!(wire.ask(head(16 * 1024)).status, 200);
    }
    let too_long = get(&format!("/{}", "p".repeat(70_000)));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    for (request, statuses) in
        [(head(17 * 1024), &[431][..]), (many, &[431]), (too_long, &[414, 431])]
    {
        let mut wire = Wire::open(relay.api);
        // A little at a time, so that the answer comes before all is sent.
        let (first, rest) = request.as_bytes().split_at((16 * 1024 + 600).min(request.len() - 1));
        wire.send(first);
        wire.send(rest);
        // What nobody has read does not cost the client its answer.
        let reply = wire.reply();
        assert!(statuses.contains(&reply.status), "{reply:?}");
        assert_eq!(reply.error().1, "RequestTooLarge");
        assert!(wire.ended());
    }
}

#[test]
fn other_methods_and_other_forms_of_targets() {
    let relay = relay();
    let mut wire = Wire::open(relay.api);
    for path in ["/", "/_health", "/xrpc/_health", LIST_HOSTS, "/robots.txt", "/openapi.json"] {
        let got = wire.ask(get(path));
        wire.send(get(path).replacen("GET", "HEAD", 1));
        let head = wire.read(true).unwrap();
        assert_eq!((got.status, head.status), (200, 200), "{path}");
        assert_eq!(head.headers["content-length"], got.body.len().to_string(), "{path}");
        for reply in [&got, &head] {
            assert_eq!(reply.headers["access-control-allow-origin"], "*", "{path}");
            let server = &reply.headers["server"];
            assert!(server.starts_with("relayered/") && server.ends_with(" (atproto-relay)"));
        }
    }
    for target in ["*", "/", LIST_HOSTS, "/admin/pds/list", "/nothing"] {
        let reply = wire.ask(format!(
            "OPTIONS {target} HTTP/1.1\r\nHost: x\r\nOrigin: https://page.example\r\n\
             Access-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: authorization,content-type\r\n\r\n"
        ));
        assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{target}");
        assert_eq!(reply.headers["access-control-allow-origin"], "*", "{target}");
        assert!(reply.headers["access-control-allow-methods"].contains("POST"), "{target}");
        let headers = reply.headers["access-control-allow-headers"].to_ascii_lowercase();
        assert!(headers.contains("authorization") && headers.contains("content-type"));
    }
    // As clients ask a proxy, and as proxies hand it on.
    assert_eq!(wire.ask(get("http://relay.example/_health")).status, 200);
    assert_eq!(wire.ask(get("http://relay.example")).status, 200);
    assert_eq!(wire.ask(get("http://other.example/nothing?x")).error().0, 404);
    for method in ["PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
        let reply = wire.ask(get(LIST_HOSTS).replacen("GET", method, 1));
        assert_eq!(reply.error(), (405, "MethodNotAllowed".to_owned()), "{method}");
        assert!(reply.headers["allow"].contains("GET"), "{method}: {reply:?}");
    }
}

#[test]
fn garbage_harms_nobody() {
    let relay = relay();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let request = post(SET_LIMIT, "Content-Length: 12\r\n", r#"{"limit":66}"#);
    for round in 0..300 {
        let mut wire = Wire::open(relay.api);
        let noise: Vec<u8> = (0..round % 97).flat_map(|_| random()).collect();
        let cut = random()[0] as usize % request.len();
        let bytes = match round % 3 {
            0 => noise,
            // A request that breaks off, or has noise in its head.
            1 => request.as_bytes()[..cut].to_vec(),
            _ => [&request.as_bytes()[..cut.min(60)], &noise, b"\r\n\r\n"].concat(),
        };
        wire.send(bytes);
        let _ = wire.0.get_ref().shutdown(Shutdown::Write);
        while let Some(reply) = wire.read(false) {
            assert!((400..500).contains(&reply.status), "{reply:?}");
        }
    }
    for hello in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut wire = Wire::open(relay.api);
        wire.send(hello);
        let _ = wire.0.get_ref().shutdown(Shutdown::Write);
        let reply = wire.read(false);
        assert!(reply.as_ref().is_none_or(|reply| reply.error().0 == 400), "{reply:?}");
    }
    assert_eq!((per_day(&relay), relay.get("/_health").status), (50, 200));
}

#[test]
fn a_thousand_clients_at_once_are_served() {
    const CLIENTS: usize = 900;
    let relay = relay();
    let mut wires: Vec<_> = (0..CLIENTS).map(|_| Wire::open(relay.api)).collect();
    for round in 0..3 {
        for wire in &mut wires {
            wire.send(get("/_health"));
        }
        for (number, wire) in wires.iter_mut().enumerate() {
            assert_eq!(wire.reply().status, 200, "round {round}, client {number}");
        }
    }
}

#[test]
fn connections_beyond_the_limit_of_an_address_are_told_and_places_come_back() {
    let relay = Relay::start(&FakePlc::start(), &["--max-connections-per-address", "3"]);
    let mut held: Vec<_> = (0..3).map(|_| Wire::open(relay.api)).collect();
    for wire in &mut held {
        assert_eq!(wire.ask(get("/_health")).status, 200);
    }
    let mut refused = Wire::open(relay.api);
    let reply = refused.ask(get("/_health"));
    assert_eq!(reply.error(), (503, "ServiceUnavailable".to_owned()));
    assert!(reply.headers.contains_key("retry-after"));
    assert!(refused.ended());
    held.clear();
    harness::eventually("a place", || {
        let mut wire = Wire::open(relay.api);
        wire.send(get("/_health"));
        wire.read(false).filter(|reply| reply.status == 200)
    });
}

#[test]
fn a_proxy_is_believed_only_if_it_is_trusted() {
    let guess = |relay: &Relay, forwarded: &str| {
        let request = format!(
            "GET /admin/pds/list HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {forwarded}\r\n\
             Authorization: Bearer wrong\r\n\r\n"
        );
        Wire::open(relay.api).ask(request)
    };
    let behind = Relay::start(&FakePlc::start(), &["--trusted-proxies", "127.0.0.0/8"]);
    let open = relay();
    for number in 0..30 {
        assert_eq!(guess(&behind, "203.0.113.1").status, 401, "{number}");
        assert_eq!(guess(&open, &format!("203.0.113.{number}")).status, 401, "{number}");
    }
    let reply = guess(&behind, "203.0.113.1");
    assert_eq!(reply.error(), (429, "RateLimitExceeded".to_owned()));
    assert!(reply.headers["retry-after"].parse::<u64>().unwrap() <= 61);
    // Others behind the proxy are not held up; without trust all of it was one client.
    assert_eq!(guess(&behind, "203.0.113.2").status, 401);
    assert_eq!(guess(&open, "203.0.113.200").status, 429);
    // What an operator does through the proxy is noted with the operator's address.
    let request =
        post("/admin/subs/setPerDayLimit?limit=5", "X-Forwarded-For: 203.0.113.7\r\n", "");
    assert_eq!(Wire::open(behind.api).ask(request).status, 200);
    let audit = behind.admin("GET", "/admin/audit?limit=1", "").json();
    assert_eq!(audit["entries"][0]["remote"], "203.0.113.7");
}
