//! The HTTP API on the relay's port: public XRPC methods, the firehose's handshake, admin routes.
//!
//! Requests are served on the control thread, none of which events wait for. A consumer's socket
//! leaves this server after the WebSocket handshake and lives on in a shard.

mod admin;
mod auth;
mod consumer;
mod dash;
mod params;
mod reply;
pub(crate) mod server;
mod socket;
mod subscribe;
#[cfg(test)]
mod tests;
mod time;
mod xrpc;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router, middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use ports::LogControl;
use serde_json::json;
use tokio::net::TcpListener;

pub(crate) use self::admin::{CRAWL_ENABLED, NEW_HOSTS_PER_DAY};
pub use self::{auth::AdminKeys, consumer::Consumers, server::ServerLimits};
use self::{reply::ApiError, subscribe::subscribe_repos};
use crate::{hosts::Hosts, link::Shards, store::Store};

/// What handlers work with. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Inner>);

pub(crate) struct Inner {
    parts: Parts,
    ready: AtomicBool,
}

/// The parts of the control plane, and the log's handle.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) hosts: Hosts,
    pub(crate) consumers: Consumers,
    pub(crate) shards: Shards,
    pub(crate) keys: AdminKeys,
    pub(crate) log: Arc<dyn LogControl>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("ready", &self.ready).finish_non_exhaustive()
    }
}

impl std::ops::Deref for Shared {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner { parts, ready: AtomicBool::new(true) }))
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed)
    }

    /// The relay stops: health checks fail and no consumer is taken any more.
    pub(crate) fn set_stopping(&self) {
        self.0.ready.store(false, Ordering::Relaxed);
    }
}

/// Serves the API until the task is dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Shared,
    server: HeaderValue,
    limits: ServerLimits,
) {
    server::serve(listener, routes(shared), reply::common_headers(server), limits).await;
}

fn routes(shared: Shared) -> Router {
    let admin = admin::routes()
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(shared.clone(), auth::require_key));
    Router::new()
        .route("/", get(banner))
        .route("/robots.txt", get(robots))
        .route("/_health", get(xrpc::health))
        .route("/xrpc/_health", get(xrpc::health))
        .route("/xrpc/com.atproto.sync.subscribeRepos", get(subscribe_repos))
        .route("/xrpc/com.atproto.sync.requestCrawl", post(xrpc::request_crawl))
        .route("/xrpc/com.atproto.sync.listHosts", get(xrpc::list_hosts))
        .route("/xrpc/com.atproto.sync.getHostStatus", get(xrpc::get_host_status))
        .route("/xrpc/com.atproto.sync.listRepos", get(xrpc::list_repos))
        .route("/xrpc/com.atproto.sync.getRepoStatus", get(xrpc::get_repo_status))
        .route("/xrpc/com.atproto.sync.getLatestCommit", get(xrpc::get_latest_commit))
        .route("/xrpc/com.atproto.sync.getRepo", get(xrpc::get_repo))
        .route("/xrpc/{*method}", axum::routing::any(xrpc::unknown_method))
        .merge(dash::routes())
        .nest("/admin", admin)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(shared)
}

async fn banner() -> Response {
    let text = "This is an AT Protocol relay: https://atproto.com\n\n\
                Most API routes are under /xrpc/\n\
                The firehose: /xrpc/com.atproto.sync.subscribeRepos\n";
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

async fn robots() -> Response {
    let text = "# Hello! Crawling the public API is allowed; the firehose is the better way.\n\
                User-agent: *\nAllow: /\nDisallow: /admin/\n";
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "NotFound", "there is nothing at this path")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        "this path takes another HTTP method; see the Allow header",
    )
}

/// The body of a health check that passes.
fn healthy() -> serde_json::Value {
    json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })
}
