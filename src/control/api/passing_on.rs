//! Changes that siblings should make as well: taken from them once, and passed on to them.

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;

use super::{
    Shared, input,
    reply::{ApiError, success},
};
use crate::siblings::{Arrival, Change, Kind, Way};

/// Around all routes that may change something. In the admin part it stands behind the check of the
/// key; what a stranger says of where a request comes from is not believed.
pub(crate) async fn pass_on(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(kind) = Change::kind_of(request.method(), request.uri()) else {
        return Ok(next.run(request).await);
    };
    let way = match Arrival::of(request.headers()) {
        Arrival::Local if !shared.siblings.is_empty() => None,
        Arrival::Relayed(way)
            if kind == Kind::Admin || shared.keys.allow(request.headers()).is_some() =>
        {
            Some(way)
        }
        Arrival::Local | Arrival::Relayed(_) | Arrival::Foreign => {
            return Ok(next.run(request).await);
        }
    };
    let (parts, body) = request.into_parts();
    let body = input::read_body(&parts, body).await?;
    let change = Change::of(kind, &parts.uri, &body);
    // A look at a stranger's host takes seconds, and is done twice without harm.
    let _order = match kind {
        Kind::Admin => Some(shared.siblings.in_order().await),
        Kind::Crawl => None,
    };
    if way.as_ref().is_some_and(|way| shared.siblings.is_known(way)) {
        return Ok(success().into_response());
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if is_final(&response, way.as_ref()) {
        shared.siblings.pass_on(change, way.as_ref()).await?;
    }
    Ok(response)
}

/// Whether the change has been made, or is one that a sibling made and this relay never will: others
/// may still make it.
fn is_final(response: &Response, way: Option<&Way>) -> bool {
    let status = response.status();
    status.is_success()
        || way.is_some()
            && status.is_client_error()
            && !matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}
