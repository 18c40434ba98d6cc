//! What this service is, and whether it is well.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    api::{Shared, reply::Reply},
    dial::HostAddress,
};

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServerDescription {
    /// `did:web` of the name by which the relay was asked.
    did: String,
    /// Empty: a relay has no accounts of its own.
    available_user_domains: Vec<String>,
    invite_code_required: bool,
    phone_verification_required: bool,
}

/// What this service is: a relay, on which no accounts can be made.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.server.describeServer", tag = "server",
    responses((status = 200, body = ServerDescription))
)]
pub(super) async fn describe_server(headers: HeaderMap) -> Reply<ServerDescription> {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let address = host.and_then(|host| HostAddress::parse(host).ok());
    let name = address.map_or_else(|| "localhost".to_owned(), |address| address.hostname);
    Ok(Json(ServerDescription {
        did: format!("did:web:{}", name.replace(':', "%3A")),
        available_user_domains: Vec::new(),
        invite_code_required: true,
        phone_verification_required: false,
    }))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    #[schema(value_type = String, pattern = "^ok$")]
    status: &'static str,
    #[schema(value_type = String)]
    version: &'static str,
}

/// Whether the relay is up and its database answers. Also at `/xrpc/_health`.
#[utoipa::path(
    get, path = "/_health", tag = "server",
    responses((status = 200, body = Health), (status = 500, body = serde_json::Value),
              (status = 503, body = serde_json::Value))
)]
pub(super) async fn health(State(shared): State<Shared>) -> Response {
    if !shared.is_ready() {
        return unwell(StatusCode::SERVICE_UNAVAILABLE, "the relay is starting or stopping");
    }
    if let Some(why) = shared.log.health().why {
        // Consumers are served as before.
        let message = format!("no events are taken from hosts: {why}");
        return unwell(StatusCode::SERVICE_UNAVAILABLE, &message);
    }
    match shared.store.ping().await {
        Ok(()) => Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") }).into_response(),
        Err(error) => {
            tracing::error!(%error, "health check");
            unwell(StatusCode::INTERNAL_SERVER_ERROR, "can't connect to database")
        }
    }
}

/// Both the reference relay's form and that of all other errors.
fn unwell(status: StatusCode, message: &str) -> Response {
    let body = json!({
        "status": "error", "msg": message, "error": "Unhealthy", "message": message,
    });
    (status, Json(body)).into_response()
}
