//! Replies: XRPC error JSON everywhere, and the headers that every reply carries.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::store::StoreError;

/// A request that failed: what the caller is told. What only operators should know is logged where
/// the error is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    name: &'static str,
    message: String,
    /// Seconds after which another try makes sense.
    retry_after: Option<u64>,
}

/// After which a request makes sense again that the database was needed for.
const AWAY_PAUSE_SECONDS: u64 = 5;

/// The body of every reply that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// A name that programs can act on.
    #[schema(value_type = String)]
    error: &'static str,
    /// What is wrong and what to do, for people.
    message: String,
}

/// The reply of admin calls that have nothing to tell.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Success {
    /// Always the text `true`.
    #[schema(value_type = String, pattern = "^true$")]
    success: &'static str,
}

pub(crate) type Reply<T> = Result<Json<T>, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        Self { status, name, message: message.into(), retry_after: None }
    }

    /// 400 `InvalidRequest`: a parameter is missing or wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", message)
    }

    pub(crate) fn bad_request(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, name, message)
    }

    pub(crate) fn not_found(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, name, message)
    }

    /// The reason is in the log, for the operator alone.
    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            "the relay could not do this; its operator finds the reason in the log",
        )
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed a request");
        if error.is_passing() {
            let message = "the relay cannot reach its database at present; events go on meanwhile";
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
                .retry_after(AWAY_PAUSE_SECONDS);
        }
        Self::internal()
    }
}

/// The name of the error that a reply carries, for the audit log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorName(pub(crate) &'static str);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: self.name, message: self.message };
        let mut response = (self.status, Json(body)).into_response();
        response.extensions_mut().insert(ErrorName(self.name));
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// 200 `{"success":"true"}`.
#[expect(clippy::unnecessary_wraps, reason = "it is the last word of handlers that may fail")]
pub(crate) fn success() -> Reply<Success> {
    Ok(Json(Success { success: "true" }))
}

/// The headers of every reply of the API. Any page may read what is public; admin calls carry their
/// key in a header, never in a cookie, so that another site's page can't borrow it.
pub(crate) fn common_headers(server: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::SERVER, server);
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers
}

/// The reply to every `OPTIONS`: what pages may send, whatever the path. No `Allow`, which would have to
/// name the methods of the one path.
pub(crate) fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET,HEAD,POST,OPTIONS"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Origin,Content-Type,Accept,Authorization"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}
