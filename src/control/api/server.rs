//! The HTTP/1.1 server under the API: accepts, limits, and hands requests to the routes.
//!
//! Limits: connections that do HTTP (not consumers, which leave for the shards), in all and of one
//! address; bytes and lines of a request's head; time for sending it (which is also how long a
//! connection may be idle), for sending a body, and for taking a reply.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, Method, Version, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower_service::Service as _;

use super::{
    client::{TrustedProxies, holder},
    reply::{self, ApiError},
    socket::{self, Socket},
};

/// Lines of a request's head at most; its bytes are bounded apart from that.
const HEAD_LINES_MAX: usize = 256;
/// The server reads so much more than a head may have before it takes it for too long.
const HEAD_ROOM_BYTES: usize = 512;
/// Clients that are refused and have a moment to read so; those beyond are cut off.
const REFUSED_MAX: usize = 64;

/// Bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    pub connections: usize,
    /// `None`: no limit but that of all.
    pub connections_per_address: Option<usize>,
    pub head_bytes: usize,
    /// For a whole request head, and between requests; for a whole body; and for a client to take
    /// some of a reply.
    pub timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: None,
            head_bytes: 16 * 1024,
            timeout: Duration::from_secs(30),
        }
    }
}

/// How many connections each address holds. Those of trusted proxies are not counted. Clones share
/// the counts.
#[derive(Clone, Debug)]
pub(crate) struct Addresses(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// 0: no limit.
    max: AtomicUsize,
    held: Mutex<HashMap<IpAddr, usize>>,
    proxies: TrustedProxies,
}

impl Addresses {
    pub(crate) fn new(max: Option<usize>, proxies: TrustedProxies) -> Self {
        let max = AtomicUsize::new(max.unwrap_or(0));
        Self(Arc::new(Counts { max, held: Mutex::default(), proxies }))
    }

    pub(crate) fn max(&self) -> Option<usize> {
        Some(self.0.max.load(Ordering::Relaxed)).filter(|max| *max > 0)
    }

    /// Holds for connections that come; none is closed.
    pub(crate) fn set_max(&self, max: Option<usize>) {
        self.0.max.store(max.unwrap_or(0), Ordering::Relaxed);
    }

    /// A place for one more connection, unless there are as many as may be.
    fn enter(&self, peer: IpAddr) -> Option<Place> {
        let key = (!self.0.proxies.trusts(peer.to_canonical())).then(|| holder(peer));
        if let Some(key) = key {
            let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
            let count = held.entry(key).or_insert(0);
            if self.max().is_some_and(|max| *count >= max) {
                return None;
            }
            *count += 1;
        }
        Some(Place { addresses: self.clone(), key })
    }
}

/// Is given back when it is dropped.
#[derive(Debug)]
struct Place {
    addresses: Addresses,
    key: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut held = self.addresses.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                held.remove(&key);
            }
        }
    }
}

/// The address of the client, among a request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// How long a body may take to arrive, among a request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyTimeout(pub(crate) Duration);

/// Accepts connections until the task is dropped; connections already there are served on. Every
/// reply carries the `common` headers.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    common: HeaderMap,
    limits: ServerLimits,
    addresses: Addresses,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let refused = Arc::new(Semaphore::new(REFUSED_MAX));
    let common = Arc::new(common);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: wait for some to be closed.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let slot = Arc::clone(&slots).try_acquire_owned().ok();
        match slot.and_then(|slot| Some((slot, addresses.enter(peer.ip())?))) {
            Some(held) => {
                let connection =
                    Connection { peer, routes: routes.clone(), common: Arc::clone(&common) };
                tokio::spawn(connection.run(stream, held, limits));
            }
            None => refuse(stream, &common, &refused),
        }
    }
}

/// Says that there are too many connections.
fn refuse(stream: TcpStream, common: &HeaderMap, refused: &Arc<Semaphore>) {
    metrics::counter!("relayered_api_connections_refused_total").increment(1);
    let reply = socket::error_reply(
        "503 Service Unavailable",
        socket::server_name(common),
        "ServiceUnavailable",
        "too many connections; try again",
        "Retry-After: 5\r\n",
    );
    // A socket just accepted has room for this; if not, the close says it all.
    let _ = stream.try_write(reply.as_bytes());
    if let Ok(place) = Arc::clone(refused).try_acquire_owned() {
        let mut socket = Socket::new(stream, common, Duration::ZERO);
        tokio::spawn(async move {
            let _ = socket.shutdown().await;
            drop(place);
        });
    }
}

struct Connection {
    peer: SocketAddr,
    routes: Router,
    /// Headers of every reply.
    common: Arc<HeaderMap>,
}

impl Connection {
    async fn run(
        self,
        stream: TcpStream,
        held: (OwnedSemaphorePermit, Place),
        limits: ServerLimits,
    ) {
        // Small replies must not wait for the acknowledgement of what was sent before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let socket = Socket::new(stream, &self.common, limits.timeout);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            self.answer(request, BodyTimeout(limits.timeout))
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.timeout)
            .max_buf_size(limits.head_bytes.max(8192) + HEAD_ROOM_BYTES)
            .max_headers(HEAD_LINES_MAX)
            // Who has said all and closes that side still gets the reply.
            .half_close(true)
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, peer = %self.peer, "an HTTP connection failed");
        }
        drop(held);
    }

    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        body_timeout: BodyTimeout,
    ) -> Result<Response, std::convert::Infallible> {
        let mut response = if let Err(ambiguous) = check(&request) {
            let mut response = ambiguous.into_response();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        } else if request.method() == Method::OPTIONS {
            reply::preflight()
        } else {
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(Peer(self.peer));
            request.extensions_mut().insert(body_timeout);
            self.routes.clone().call(request).await?
        };
        for (name, value) in self.common.iter() {
            response.headers_mut().insert(name, value.clone());
        }
        Ok(response)
    }
}

/// What a proxy in front could have read in another way than this server is not answered, so that
/// nobody can smuggle a request past it.
fn check(request: &hyper::Request<Incoming>) -> Result<(), ApiError> {
    let headers = request.headers();
    let both = [header::TRANSFER_ENCODING, header::CONTENT_LENGTH];
    if both.iter().all(|name| headers.contains_key(name)) {
        return Err(ApiError::invalid("a body has either a length or a transfer coding"));
    }
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(ApiError::invalid("a request has one Host header"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_an_address_are_counted_and_come_back() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let addresses = Addresses::new(Some(2), proxies);
        let first = addresses.enter(ip("192.0.2.1")).unwrap();
        let _second = addresses.enter(ip("::ffff:192.0.2.1")).unwrap();
        assert!(addresses.enter(ip("192.0.2.1")).is_none());
        let _other = addresses.enter(ip("192.0.2.2")).unwrap();
        let proxied: Vec<_> = (0..9).map(|_| addresses.enter(ip("10.1.1.1")).unwrap()).collect();
        drop((first, proxied));
        addresses.set_max(None);
        let many: Vec<_> = (0..9).map(|_| addresses.enter(ip("192.0.2.1")).unwrap()).collect();
        drop(many);
        assert_eq!(addresses.0.held.lock().unwrap().len(), 2);
    }
}
