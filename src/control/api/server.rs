//! The HTTP/1.1 server under the API: accepts, limits, and hands requests to the routes.
//!
//! Limits: connections that do HTTP (not consumers, which leave for the shards), bytes of a request's
//! head, time for sending it (which is also how long a connection may be idle).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request, response::Response};
use http::{HeaderMap, Method};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower_service::Service as _;

use super::{
    reply,
    socket::{self, Socket},
};

/// Bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    pub connections: usize,
    pub head_bytes: usize,
    /// For a whole request head, and between requests.
    pub head_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self { connections: 4096, head_bytes: 16 * 1024, head_timeout: Duration::from_secs(30) }
    }
}

/// The address of the client, among a request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Accepts connections until the task is dropped; connections already there are served on. Every
/// reply carries the `common` headers.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    common: HeaderMap,
    limits: ServerLimits,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
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
        match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => {
                let connection =
                    Connection { peer, routes: routes.clone(), common: Arc::clone(&common) };
                tokio::spawn(connection.run(stream, slot, limits));
            }
            Err(_full) => refuse(&stream, &common),
        }
    }
}

/// Says that there are too many connections, without ever waiting for the client.
fn refuse(stream: &TcpStream, common: &HeaderMap) {
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
}

struct Connection {
    peer: SocketAddr,
    routes: Router,
    /// Headers of every reply.
    common: Arc<HeaderMap>,
}

impl Connection {
    async fn run(self, stream: TcpStream, slot: OwnedSemaphorePermit, limits: ServerLimits) {
        // Small replies must not wait for the acknowledgement of what was sent before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let socket = Socket::new(stream, &self.common);
        let service = service_fn(|request: hyper::Request<Incoming>| self.answer(request));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_timeout)
            .max_buf_size(limits.head_bytes.max(8192))
            .half_close(false)
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, peer = %self.peer, "an HTTP connection failed");
        }
        drop(slot);
    }

    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
    ) -> Result<Response, std::convert::Infallible> {
        let mut response = if request.method() == Method::OPTIONS {
            reply::preflight()
        } else {
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(Peer(self.peer));
            self.routes.clone().call(request).await?
        };
        for (name, value) in self.common.iter() {
            response.headers_mut().insert(name, value.clone());
        }
        Ok(response)
    }
}
