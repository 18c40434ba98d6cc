//! The HTTP API on the relay's port: public XRPC methods, the firehose's handshake, admin routes.
//!
//! Requests are served on the control thread, none of which events wait for. A consumer's socket
//! leaves this server after the WebSocket handshake and lives on in a shard.

mod admin;
mod auth;
mod client;
mod consumer;
mod dash;
mod explain;
mod input;
mod openapi;
mod page;
mod passing_on;
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
    routing::get,
};
use http::{HeaderValue, StatusCode, header};
use ports::LogControl;
use tokio::net::TcpListener;
use utoipa_axum::routes;

pub(crate) use self::{admin::restore_settings, auth::Failures, server::Addresses};
pub use self::{
    auth::AdminKeys,
    client::TrustedProxies,
    consumer::{ConsumerLimits, Consumers},
    server::ServerLimits,
};
use self::{reply::ApiError, subscribe::subscribe_repos};
use crate::{
    accounts::Accounts, discovery::Discoverer, hosts::Hosts, link::Shards, siblings::Siblings,
    store::Store, telemetry::ShardTallies,
};

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
    pub(crate) accounts: Accounts,
    pub(crate) consumers: Consumers,
    pub(crate) shards: Shards,
    pub(crate) keys: AdminKeys,
    /// Wrong keys of late.
    pub(crate) failures: Failures,
    pub(crate) proxies: TrustedProxies,
    pub(crate) addresses: Addresses,
    pub(crate) log: Arc<dyn LogControl>,
    pub(crate) tallies: ShardTallies,
    pub(crate) siblings: Siblings,
    pub(crate) discoverer: Discoverer,
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
    let addresses = shared.addresses.clone();
    let common = reply::common_headers(server);
    server::serve(listener, routes(shared), common, limits, addresses).await;
}

fn routes(shared: Shared) -> Router {
    let auth = middleware::from_fn_with_state(shared.clone(), auth::require_key);
    let notes = middleware::from_fn_with_state(shared.clone(), admin::note_changes);
    let siblings = middleware::from_fn_with_state(shared.clone(), passing_on::pass_on);
    let (admin, admin_paths) = admin::routes().split_for_parts();
    let admin = admin
        .layer(siblings.clone())
        .route("/admin/{*path}", axum::routing::any(not_found))
        .layer(notes)
        .layer(auth);
    let public = xrpc::routes().routes(routes!(explain::explain));
    let (public, mut document) = public.split_for_parts();
    let public = public.layer(siblings);
    document.merge(admin_paths);
    let document: Arc<str> = openapi::finish(document).into();
    Router::new()
        .route("/", get(banner))
        .route("/robots.txt", get(robots))
        .route("/openapi.json", get(async move || openapi::reply(&document)))
        .route("/xrpc/com.atproto.sync.subscribeRepos", get(subscribe_repos))
        .merge(public)
        .merge(dash::routes())
        .merge(admin)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(shared)
}

async fn banner() -> Response {
    let text = "This is an AT Protocol relay: https://atproto.com\n\n\
                Most API routes are under /xrpc/\n\
                The firehose: /xrpc/com.atproto.sync.subscribeRepos\n\
                Why events of a host or an account do not come out: /explain?host= or ?did=\n\
                All routes, as OpenAPI: /openapi.json\n";
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

async fn robots() -> Response {
    let text = "# Hello! Crawling the public API is allowed; the firehose is the better way.\n\
                User-agent: *\nAllow: /\nDisallow: /admin/\n";
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

async fn not_found() -> ApiError {
    ApiError::not_found("NotFound", "there is nothing at this path")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        "this path takes another HTTP method; see the Allow header",
    )
}
