//! The API over a loopback socket, byte for byte.

mod admin;
mod http;
mod xrpc;

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
        accounts: Accounts::start(store.clone(), shards.clone()).await.unwrap(),
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
