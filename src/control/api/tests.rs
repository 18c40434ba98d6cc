//! The API over a loopback socket, byte for byte.

use std::{net::SocketAddr, sync::Mutex, time::Duration};

use ports::{HostId, LogBounds, LogHealth, LogStats, LogWindow, RelaySeq, ShardCommand, ShardId};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use super::*;
use crate::{
    dial::{DialConfig, DialPolicy, Dialer},
    discovery::DiscoveryConfig,
    hosts::HostsConfig,
    siblings::{Siblings, SiblingsConfig},
    store::{DatabaseUrl, NewHost},
};

struct Fixture {
    address: SocketAddr,
    shared: Shared,
    commands: mpsc::UnboundedReceiver<(ShardId, ShardCommand)>,
    log: Arc<FakeLog>,
}

/// A log that is well, or has a fault.
struct FakeLog {
    fault: Mutex<Option<Arc<String>>>,
    window: Mutex<LogWindow>,
}

impl Default for FakeLog {
    fn default() -> Self {
        let window = LogWindow { age: Duration::from_hours(72), bytes: None };
        Self { fault: Mutex::default(), window: Mutex::new(window) }
    }
}

impl LogControl for FakeLog {
    fn bounds(&self) -> LogBounds {
        LogBounds { oldest: None, newest: RelaySeq(0), synced: RelaySeq(0), bytes: 0 }
    }

    fn window(&self) -> LogWindow {
        *self.window.lock().unwrap()
    }

    fn set_window(&self, window: LogWindow) {
        *self.window.lock().unwrap() = window;
    }

    fn health(&self) -> LogHealth {
        let why = self.fault.lock().unwrap().clone();
        let stats = LogStats::default();
        LogHealth { writable: why.is_none(), why, free_bytes: Some(1), stats }
    }
}

async fn fixture_with(limits: ServerLimits, consumers_max: usize) -> Fixture {
    let store = Store::open(&DatabaseUrl::Memory).unwrap();
    for hostname in ["a.example.com", "b.example.com", "c.example.com"] {
        let host = NewHost {
            hostname: hostname.into(),
            tls: true,
            trusted: false,
            account_limit: 100,
            by_admin: false,
        };
        store.insert_host(host).await.unwrap();
    }
    let policy = DialPolicy { allow_insecure_hosts: true, ..DialPolicy::default() };
    let dialer = Dialer::new(DialConfig { policy, ..DialConfig::default() });
    let (shards, commands) = Shards::new(2);
    // No dials: nothing may leave the machine.
    let config = HostsConfig { dials_max: 0, ..HostsConfig::default() };
    let hosts =
        Hosts::start(config, store.clone(), dialer, [].into(), shards.clone()).await.unwrap();
    let consumers = Consumers::new(ConsumerLimits { all: consumers_max, per_address: None }, 2);
    let log = Arc::new(FakeLog::default());
    let none = SiblingsConfig::new([], None);
    let siblings = Siblings::start(none, store.clone()).await.unwrap();
    let from = DiscoveryConfig::default();
    let shared = Shared::new(Parts {
        siblings,
        discoverer: Discoverer::new(from, hosts.clone(), store.clone()).unwrap(),
        accounts: Accounts::new(store.clone(), shards.clone()),
        store,
        hosts,
        consumers,
        shards,
        keys: AdminKeys::new(["secret".to_owned()]),
        failures: Failures::default(),
        proxies: TrustedProxies::default(),
        addresses: Addresses::new(limits.connections_per_address, TrustedProxies::default()),
        log: Arc::clone(&log) as _,
        tallies: ShardTallies::new(2),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = HeaderValue::from_static("relayered/0 (atproto-relay)");
    tokio::spawn(serve(listener, shared.clone(), server, limits));
    Fixture { address, shared, commands, log }
}

async fn fixture() -> Fixture {
    fixture_with(ServerLimits::default(), 10).await
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{} {}", self.head, self.body))
    }

    fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap_or_default().to_owned())
    }
}

/// Sends the pieces and reads until the server closes.
async fn exchange(address: SocketAddr, pieces: &[&[u8]]) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        // The server may have answered and closed before it has read all.
        if stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

async fn call(fixture: &Fixture, method: &str, path: &str, headers: &str, body: &str) -> Reply {
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n{length}{headers}\r\n{body}"
    );
    exchange(fixture.address, &[request.as_bytes()]).await
}

async fn get(fixture: &Fixture, path: &str) -> Reply {
    call(fixture, "GET", path, "", "").await
}

const BEARER: &str = "Authorization: Bearer secret\r\n";
const SUBSCRIBE: &str = "/xrpc/com.atproto.sync.subscribeRepos";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

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
async fn errors_are_xrpc_json() {
    let fixture = fixture().await;
    for (method, path, status, name) in [
        ("GET", "/xrpc/com.example.unknown", 501, "MethodNotImplemented"),
        ("POST", "/xrpc/com.example.unknown", 501, "MethodNotImplemented"),
        ("GET", "/xrpc/com.atproto.sync.requestCrawl", 405, "MethodNotAllowed"),
        ("POST", SUBSCRIBE, 405, "MethodNotAllowed"),
        ("GET", "/elsewhere", 404, "NotFound"),
        ("GET", "/admin/nothing", 401, "AuthenticationRequired"),
        ("GET", "/xrpc/com.atproto.sync.listHosts?limit=0", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.listHosts?cursor=x", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getHostStatus", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getHostStatus?hostname=x.example.com", 404, "HostNotFound"),
        ("GET", "/xrpc/com.atproto.sync.getRepoStatus?did=x", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getRepoStatus?did=did:plc:x", 404, "RepoNotFound"),
        ("POST", "/xrpc/com.atproto.sync.requestCrawl", 400, "InvalidRequest"),
        ("GET", "/xrpc/%00", 501, "MethodNotImplemented"),
        ("GET", "/xrpc/com.atproto.sync.getRepo?did=did:plc:x", 404, "RepoNotFound"),
        ("GET", "/xrpc/com.atproto.sync.getRepo?did=did:plc:x&since=x", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getRecord?did=did:plc:x", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getBlob?did=did:plc:x&cid=x", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getBlocks?did=did:plc:x", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getHead?did=did:plc:x", 400, "HeadNotFound"),
        ("GET", "/xrpc/com.atproto.sync.notifyOfUpdate", 405, "MethodNotAllowed"),
        ("POST", "/xrpc/com.atproto.sync.notifyOfUpdate", 400, "InvalidRequest"),
        ("GET", "/xrpc/", 404, "NotFound"),
    ] {
        let reply = call(&fixture, method, path, "", "").await;
        assert_eq!(reply.error(), (status, name.to_owned()), "{method} {path}");
        assert!(reply.json()["message"].is_string(), "{method} {path}");
    }
}

#[tokio::test]
async fn health_follows_the_stage_and_the_store() {
    let fixture = fixture().await;
    assert_eq!(get(&fixture, "/xrpc/_health").await.json()["status"], "ok");
    *fixture.log.fault.lock().unwrap() = Some(Arc::new("write to /log: no space left".into()));
    for path in ["/_health", "/xrpc/_health"] {
        let reply = get(&fixture, path).await;
        assert_eq!(reply.status, 503);
        assert!(reply.json()["message"].as_str().unwrap().contains("no space left"));
    }
    *fixture.log.fault.lock().unwrap() = None;
    fixture.shared.set_stopping();
    assert_eq!(get(&fixture, "/xrpc/_health").await.status, 503);
    assert_eq!(get(&fixture, SUBSCRIBE).await.status, 503);
    fixture.shared.0.ready.store(true, Ordering::Relaxed);
    fixture.shared.store.close().await.unwrap();
    assert_eq!(get(&fixture, "/_health").await.status, 500);
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
    assert_eq!((shard, socket.cursor, socket.id.0), (ShardId(0), Some(5), 1));
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
        ("", "Upgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: x\r\n", 400),
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
    let limits =
        ServerLimits { head_timeout: Duration::from_millis(50), ..ServerLimits::default() };
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
async fn hosts_are_listed_in_pages() {
    let fixture = fixture().await;
    let page = get(&fixture, "/xrpc/com.atproto.sync.listHosts?limit=2").await.json();
    assert_eq!(page["hosts"][0]["hostname"], "a.example.com");
    assert_eq!(page["hosts"].as_array().unwrap().len(), 2);
    let cursor = page["cursor"].as_str().unwrap();
    let path = format!("/xrpc/com.atproto.sync.listHosts?limit=2&cursor={cursor}");
    let page = get(&fixture, &path).await.json();
    assert_eq!(page["hosts"][0]["hostname"], "c.example.com");
    assert!(page.get("cursor").is_none());
    let path = "/xrpc/com.atproto.sync.getHostStatus?hostname=HTTPS://A.Example.com";
    let status = get(&fixture, path).await.json();
    assert_eq!(
        (&status["hostname"], &status["status"]),
        (&"a.example.com".into(), &"active".into())
    );
}

#[tokio::test]
async fn accounts_are_listed_with_their_status() {
    let fixture = fixture().await;
    let state = fixture.shared.store.create_account("did:plc:abc", HostId(1)).await.unwrap();
    let path = "/xrpc/com.atproto.sync.getLatestCommit?did=did:plc:abc";
    assert_eq!(get(&fixture, path).await.error().0, 404);
    let status = get(&fixture, "/xrpc/com.atproto.sync.getRepoStatus?did=did:plc:abc").await.json();
    assert_eq!((&status["active"], status.get("rev")), (&true.into(), None));
    assert_eq!(state.host, HostId(1));
    let cid = "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm";
    for rest in [
        "getRepo?did=did:plc:abc&since=3jzfcijpj2z2a".to_owned(),
        "getCheckout?did=did:plc:abc".to_owned(),
        "getRecord?did=did:plc:abc&collection=app.bsky.feed.post&rkey=self".to_owned(),
        format!("getBlocks?did=did:plc:abc&cids={cid}&cids={cid}"),
        format!("getBlob?did=did:plc:abc&cid={cid}"),
        "listBlobs?did=did:plc:abc&limit=5&cursor=whatever".to_owned(),
    ] {
        let path = format!("/xrpc/com.atproto.sync.{rest}");
        let reply = get(&fixture, &path).await;
        assert_eq!(reply.status, 302, "{path} {}", reply.body);
        let location = format!("location: https://a.example.com{path}\r\n");
        assert!(reply.head.contains(&location), "{}", reply.head);
    }
    let repos = get(&fixture, "/xrpc/com.atproto.sync.listRepos").await.json();
    assert_eq!(repos, serde_json::json!({ "repos": [] }));
}

#[tokio::test]
async fn admin_calls_take_parameters_from_anywhere() {
    let fixture = fixture().await;
    let basic = "Authorization: Basic YWRtaW46c2VjcmV0\r\n";
    for (path, headers, body) in [
        ("/admin/subs/banDomain", BEARER, r#"{"Domain":"One.test"}"#),
        ("/admin/subs/banDomain", basic, r#"{"domain":"two.test"}"#),
        ("/admin/subs/banDomain?domain=three.test", BEARER, ""),
    ] {
        let reply = call(&fixture, "POST", path, headers, body).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"success":"true"}"#));
    }
    let form = format!("{BEARER}Content-Type: application/x-www-form-urlencoded\r\n");
    let reply = call(&fixture, "POST", "/admin/subs/unbanDomain", &form, "domain=two.test").await;
    assert_eq!(reply.status, 200);
    let reply = call(&fixture, "POST", "/admin/subs/banDomain?domain=one.test", BEARER, "").await;
    assert_eq!(reply.error().0, 400);
    let bans = call(&fixture, "GET", "/admin/subs/listDomainBans", BEARER, "").await.json();
    assert_eq!(bans["banned_domains"], serde_json::json!(["one.test", "three.test"]));
    let reply = call(&fixture, "GET", "/admin/subs/listDomainBans", "", "").await;
    assert!(reply.head.to_ascii_lowercase().contains("www-authenticate: basic"));
}

#[tokio::test]
async fn admin_settings_of_hosts_and_crawls_are_kept() {
    let fixture = fixture().await;
    let post = async |path: &str, body: &str| call(&fixture, "POST", path, BEARER, body).await;
    assert_eq!(post("/admin/subs/setEnabled?enabled=false", "").await.status, 200);
    assert_eq!(post("/admin/subs/setPerDayLimit?limit=7", "").await.status, 200);
    assert_eq!(post("/admin/subs/setPerDayLimit?limit=x", "").await.status, 400);
    let enabled = call(&fixture, "GET", "/admin/subs/getEnabled", BEARER, "").await.json();
    assert_eq!(enabled, serde_json::json!({ "enabled": false }));
    let limit = call(&fixture, "GET", "/admin/subs/perDayLimit", BEARER, "").await.json();
    assert_eq!(limit, serde_json::json!({ "limit": 7 }));
    let setting = fixture.shared.store.setting("crawl_enabled").await.unwrap();
    assert_eq!(setting.as_deref(), Some("false"));
    let crawl = r#"{"hostname":"a.example.com"}"#;
    let reply = post("/xrpc/com.atproto.sync.requestCrawl", crawl).await;
    assert_eq!(reply.error(), (403, "Forbidden".to_owned()));

    let limits = r#"{"host":"a.example.com","repo_limit":500,"per_second":9}"#;
    assert_eq!(post("/admin/pds/changeLimits", limits).await.status, 200);
    assert_eq!(post("/admin/pds/changeLimits", r#"{"host":"a.example.com"}"#).await.status, 400);
    let unknown = r#"{"host":"x.example.com","repo_limit":5}"#;
    assert_eq!(post("/admin/pds/changeLimits", unknown).await.error().0, 404);
    assert_eq!(post("/admin/pds/block?host=a.example.com", "").await.status, 200);
    let list = call(&fixture, "GET", "/admin/pds/list", BEARER, "").await.json();
    let host = &list[0];
    assert_eq!(host["Host"], "a.example.com");
    assert_eq!(host["RepoLimit"], 500);
    assert_eq!(host["PerSecondEventRate"]["Max"], 9);
    assert_eq!(host["PerHourEventRate"]["Max"], 3000);
    assert_eq!((&host["Blocked"], &host["Status"]), (&true.into(), &"banned".into()));
    assert_eq!(post("/admin/pds/unblock?host=a.example.com", "").await.status, 200);
    let list = call(&fixture, "GET", "/admin/pds/list?q=A.EX&status=active", BEARER, "").await;
    assert_eq!(list.json()[0]["Blocked"], false);
    let kill = post("/admin/subs/killUpstream?host=a.example.com", "").await;
    assert_eq!(kill.error().0, 400);
    let connected = call(&fixture, "GET", "/admin/subs/getUpstreamConns", BEARER, "").await;
    assert_eq!(connected.body, "[]");
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
    let limits =
        ServerLimits { head_timeout: Duration::from_millis(50), ..ServerLimits::default() };
    let fixture = fixture_with(limits, 10).await;
    let reply = exchange(fixture.address, &[b"GET /_health HTTP/1.1\r\nHost: x\r\n\r\n"]).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_client_that_takes_no_reply_is_closed() {
    let limits =
        ServerLimits { write_timeout: Duration::from_millis(50), ..ServerLimits::default() };
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

#[tokio::test]
async fn who_sends_wrong_keys_has_to_wait() {
    let fixture = fixture().await;
    let ask = async |header: &str| call(&fixture, "GET", "/admin/pds/list", header, "").await;
    for _ in 0..40 {
        assert_eq!(ask("").await.status, 401);
    }
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(ask("Authorization: Bearer wrong\r\n").await.status);
    }
    assert_eq!((statuses[0], statuses[39]), (401, 429), "{statuses:?}");
    let reply = ask(BEARER).await;
    assert_eq!(reply.error(), (429, "RateLimitExceeded".to_owned()));
    assert!(reply.head.to_ascii_lowercase().contains("retry-after: "), "{}", reply.head);
}

#[tokio::test]
async fn settings_hold_at_once_and_after_a_restart() {
    let fixture = fixture().await;
    let post = async |body: &str| call(&fixture, "POST", "/admin/settings", BEARER, body).await;
    let read = async || call(&fixture, "GET", "/admin/settings", BEARER, "").await.json();
    let before = read().await;
    assert_eq!(before["replay_window_seconds"], 72 * 3600);
    assert_eq!(before["strictness"], "strict");
    for wrong in [
        "{}",
        r#"{"strictness":"loose"}"#,
        r#"{"replay_window_seconds":5}"#,
        r#"{"max_consumers":-1}"#,
    ] {
        assert_eq!(post(wrong).await.error(), (400, "InvalidRequest".to_owned()), "{wrong}");
    }
    assert_eq!(read().await, before);
    let all = serde_json::json!({
        "crawl_enabled": false, "new_hosts_per_day": 3, "strictness": "lenient",
        "replay_window_seconds": 3600, "replay_bytes": 1000, "max_consumers": 7,
        "max_consumers_per_address": 2, "max_connections_per_address": 50,
        "discovery_interval_seconds": 90,
    });
    assert_eq!(post(&all.to_string()).await.status, 200);
    assert_eq!(read().await, all);
    assert_eq!(post(r#"{"replay_bytes":0}"#).await.status, 200);
    // What a new process does with the same database.
    fixture.shared.consumers.set_limits(ConsumerLimits { all: 10, per_address: None });
    fixture.shared.hosts.set_crawl(Some(true), Some(50)).await.unwrap();
    restore_settings(&fixture.shared).await.unwrap();
    let mut expected = all;
    expected["replay_bytes"] = 0.into();
    assert_eq!(read().await, expected);
}

#[tokio::test]
async fn the_document_names_the_routes_and_their_keys() {
    let fixture = fixture().await;
    let document = get(&fixture, "/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let crawl = &document["paths"]["/admin/pds/requestCrawl"]["post"];
    assert_eq!(crawl["security"][0], serde_json::json!({ "bearer": [] }));
    let list = &document["paths"]["/xrpc/com.atproto.sync.listHosts"]["get"];
    assert!(list.get("security").is_none());
    assert!(list["responses"].get("default").is_some());
    assert!(get(&fixture, "/").await.body.contains("/openapi.json"));
    // What it names is there.
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = method.to_ascii_uppercase();
            let status = call(&fixture, &method, path, BEARER, "").await.status;
            assert!(![0, 404, 405, 501].contains(&status), "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn a_relay_without_mirror_says_so() {
    let fixture = fixture().await;
    for (method, path) in [
        ("POST", "/admin/repo/compactAll"),
        ("POST", "/admin/repo/compact?did=did:plc:x&fast=true"),
        ("POST", "/admin/repo/reset"),
        ("POST", "/admin/repo/verify"),
        ("GET", "/admin/pds/resync?host=a.example.com"),
        ("POST", "/admin/pds/resync?host=a.example.com"),
    ] {
        let reply = call(&fixture, method, path, BEARER, "").await;
        assert_eq!(reply.error(), (400, "MirrorDisabled".to_owned()), "{method} {path}");
    }
}
