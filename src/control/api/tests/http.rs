//! Connections, heads, bodies, and the handshake.

use super::*;

#[tokio::test]
async fn every_reply_names_the_relay_and_lets_pages_read() {
    let fixture = fixture().await;
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("GET", "/admin/pds/list"),
        ("PUT", "/xrpc/com.atproto.sync.listHosts"),
        ("OPTIONS", "/admin/pds/list"),
        ("HEAD", "/_health"),
        ("GET", SUBSCRIBE),
    ] {
        let reply = call(&fixture, method, path, "", "").await;
        let head = reply.head.to_ascii_lowercase();
        assert!(head.contains("server: relayered/0 (atproto-relay)"), "{method} {path}: {head}");
        assert!(head.contains("access-control-allow-origin: *"), "{method} {path}: {head}");
    }
}

#[tokio::test]
async fn head_and_options() {
    let fixture = fixture().await;
    let reply = call(&fixture, "HEAD", "/_health", "", "").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    let reply = call(&fixture, "OPTIONS", "/admin/pds/list", "Origin: https://x\r\n", "").await;
    assert_eq!(reply.status, 204);
    assert!(reply.head.to_ascii_lowercase().contains("access-control-allow-headers"));
    assert_eq!(call(&fixture, "HEAD", SUBSCRIBE, "", "").await.status, 405);
}

#[tokio::test]
async fn the_handshake_hands_the_socket_to_a_shard() {
    let mut fixture = fixture().await;
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    // A client may speak before it has seen the reply: a ping right behind the head.
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    let mut request = format!(
        "GET {SUBSCRIBE}?cursor=5 HTTP/1.1\r\nHost: x\r\nOrigin: https://other\r\n{UPGRADE}\r\n"
    )
    .into_bytes();
    request.extend(ping);
    client.write_all(&request).await.unwrap();
    let (shard, command) = fixture.commands.recv().await.unwrap();
    let ShardCommand::Consumer(mut socket) = command else { panic!("{command:?}") };
    assert_eq!(
        (shard, socket.start, socket.id.0),
        (ShardId(0), ports::ConsumerStart::Cursor(5), 1)
    );
    assert_eq!(socket.remote, client.local_addr().unwrap());
    // The socket is the client's: what the shard writes comes out behind the 101.
    std::io::Write::write_all(&mut socket.stream, b"frame").unwrap();
    let mut received = socket.received.clone();
    if received.is_empty() {
        let stream = TcpStream::from_std(socket.stream.try_clone().unwrap()).unwrap();
        stream.readable().await.unwrap();
        let mut buffer = [0; 16];
        let count = stream.try_read(&mut buffer).unwrap();
        received.extend(&buffer[..count]);
    }
    assert_eq!(received, ping);
    drop(socket);
    let mut reply = Vec::new();
    let _ = client.read_to_end(&mut reply).await;
    let reply = String::from_utf8(reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 101 "), "{reply}");
    let lower = reply.to_ascii_lowercase();
    assert!(lower.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{reply}");
    assert!(lower.contains("server: relayered/0 (atproto-relay)"), "{reply}");
    assert!(!lower.contains("sec-websocket-extensions"), "{reply}");
    assert!(reply.ends_with("\r\n\r\nframe"), "{reply}");
    let list = call(&fixture, "GET", "/admin/consumers/list", BEARER, "").await.json();
    assert_eq!(list[0]["id"], 1);
}

#[tokio::test]
async fn bad_handshakes_get_an_answer() {
    let fixture = fixture().await;
    for (path, headers, status) in [
        ("", "", 426),
        ("?cursor=-1", UPGRADE, 400),
        ("?cursor=abc", UPGRADE, 400),
        ("", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", 400),
        ("", "Connection: Upgrade\r\nUpgrade: h2c\r\n", 400),
        ("", "Upgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: x\r\n", 426),
    ] {
        let request = format!("GET {SUBSCRIBE}{path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let mut stream = TcpStream::connect(fixture.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&head),
            format!("HTTP/1.1 {status}"),
            "{path} {headers}"
        );
    }
    assert_eq!(fixture.shared.consumers.count(), 0);
}

#[tokio::test]
async fn consumers_beyond_the_limit_are_told() {
    let fixture = fixture_with(ServerLimits::default(), 0).await;
    let upgrade = UPGRADE.replace("Connection: Upgrade", "Connection: close, Upgrade");
    let request = format!("GET {SUBSCRIBE} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n");
    let reply = exchange(fixture.address, &[request.as_bytes()]).await;
    assert_eq!(reply.error(), (503, "TooManyConsumers".to_owned()));
    assert!(reply.head.to_ascii_lowercase().contains("retry-after"));
}

#[tokio::test]
async fn requests_in_single_bytes_are_understood() {
    let fixture = fixture().await;
    let request = b"GET /_health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let pieces: Vec<&[u8]> = request.chunks(1).collect();
    assert_eq!(exchange(fixture.address, &pieces).await.status, 200);
}

#[tokio::test]
async fn two_requests_in_one_packet_get_two_replies() {
    let fixture = fixture().await;
    let request = b"GET /_health HTTP/1.1\r\nHost: x\r\n\r\n\
                    GET /robots.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let reply = exchange(fixture.address, &[request]).await;
    assert!(reply.body.contains("User-agent"), "{}", reply.body);
}

#[tokio::test]
async fn heads_that_cannot_be_read_are_answered_like_all_others() {
    let fixture = fixture().await;
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(300));
    for (request, status, error) in [
        (&b"GARBAGE\r\n\r\n"[..], 400, "InvalidRequest"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "InvalidRequest"),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "InvalidRequest"),
        (many.as_bytes(), 431, "RequestTooLarge"),
    ] {
        let reply = exchange(fixture.address, &[request]).await;
        assert_eq!(reply.error(), (status, error.to_owned()), "{}", reply.head);
        assert!(reply.head.contains("Server: relayered/0 (atproto-relay)"), "{}", reply.head);
    }
}

#[tokio::test]
async fn broken_and_oversize_requests_do_no_harm() {
    let fixture = fixture().await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(40_000));
    let header = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(40_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
    let body = format!(
        "POST /xrpc/com.atproto.sync.requestCrawl HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Length: 100000\r\n\r\n{}",
        "z".repeat(100_000)
    );
    for (request, statuses) in [
        (long.as_bytes(), &[0, 414, 431][..]),
        (header.as_bytes(), &[0, 431]),
        (many.as_bytes(), &[0, 431]),
        (body.as_bytes(), &[0, 413]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[0, 400]),
        (b"GET / HTTP/9.9\r\n\r\n", &[0, 400, 505]),
        (b"GET  / HTTP/1.1\r\n\r\n", &[0, 400]),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", &[0, 400]),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", &[0, 400]),
        (b"\r\n\r\n\r\n\0\0\0", &[0, 400]),
    ] {
        let reply = exchange(fixture.address, &[request]).await;
        assert!(statuses.contains(&reply.status), "{}: {}", reply.status, reply.head);
    }
    assert_eq!(get(&fixture, "/_health").await.status, 200);
}

#[tokio::test]
async fn a_client_that_sends_no_request_is_closed() {
    let limits = ServerLimits { timeout: Duration::from_millis(50), ..ServerLimits::default() };
    let fixture = fixture_with(limits, 10).await;
    let reply = exchange(fixture.address, &[b"GET / HT"]).await;
    assert!([0, 408].contains(&reply.status), "{}", reply.head);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told() {
    let fixture =
        fixture_with(ServerLimits { connections: 1, ..ServerLimits::default() }, 10).await;
    let mut held = TcpStream::connect(fixture.address).await.unwrap();
    held.write_all(b"GET /_health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    held.read_exact(&mut first).await.unwrap();
    let reply = exchange(fixture.address, &[]).await;
    assert_eq!(reply.error(), (503, "ServiceUnavailable".to_owned()));
}

#[tokio::test]
async fn connections_of_one_address_are_limited() {
    let limits = ServerLimits { connections_per_address: Some(1), ..ServerLimits::default() };
    let fixture = fixture_with(limits, 10).await;
    let mut held = TcpStream::connect(fixture.address).await.unwrap();
    held.write_all(b"GET /_health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    held.read_exact(&mut first).await.unwrap();
    assert_eq!(exchange(fixture.address, &[]).await.status, 503);
    fixture.shared.addresses.set_max(None);
    assert_eq!(get(&fixture, "/_health").await.status, 200);
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let limits = ServerLimits { timeout: Duration::from_millis(50), ..ServerLimits::default() };
    let fixture = fixture_with(limits, 10).await;
    let reply = exchange(fixture.address, &[b"GET /_health HTTP/1.1\r\nHost: x\r\n\r\n"]).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_client_that_takes_no_reply_is_closed() {
    let limits = ServerLimits { timeout: Duration::from_millis(50), ..ServerLimits::default() };
    let fixture = fixture_with(limits, 10).await;
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    // Replies without end, of which none is read: at last the server gives up the connection.
    let request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    while stream.write_all(&request).await.is_ok() {}
}

#[tokio::test]
async fn heads_of_sixteen_kibibytes_are_read() {
    let fixture = fixture().await;
    let request = |bytes: usize| {
        let start = "GET /_health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: ";
        format!("{start}{}\r\n\r\n", "y".repeat(bytes - start.len() - 4))
    };
    let fits = request(16 * 1024);
    assert_eq!(fits.len(), 16 * 1024);
    assert_eq!(exchange(fixture.address, &[fits.as_bytes()]).await.status, 200);
    let halves = fits.as_bytes().split_at(9000);
    assert_eq!(exchange(fixture.address, &[halves.0, halves.1]).await.status, 200);
    let lines = format!(
        "GET /_health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n",
        "a: b\r\n".repeat(200)
    );
    assert_eq!(exchange(fixture.address, &[lines.as_bytes()]).await.status, 200);
    let reply = exchange(fixture.address, &[request(20 * 1024).as_bytes()]).await;
    assert_eq!(reply.error(), (431, "RequestTooLarge".to_owned()), "{}", reply.head);
}
