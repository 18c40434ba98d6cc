//! Sibling relays: what waits for them.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api::{
        Shared,
        input::Input,
        reply::{ApiError, Reply, Success, success},
        time::rfc3339,
    },
    siblings::SiblingState,
};

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Siblings {
    siblings: Vec<SiblingRecord>,
}

/// A relay that changes are passed on to.
#[derive(Debug, Serialize, ToSchema)]
struct SiblingRecord {
    /// Its origin.
    sibling: String,
    /// Changes that wait.
    queued: u64,
    /// When the oldest of these was made.
    oldest_at: Option<String>,
    delivered: u64,
    /// Changes that it would not make.
    refused: u64,
    /// Changes lost because too many waited, since the start.
    dropped: u64,
    /// Attempts in a row that failed.
    failures: u32,
    last_ok_at: Option<String>,
    last_error: Option<String>,
    last_error_at: Option<String>,
    /// When the next attempt is made, if it has to wait.
    next_attempt_at: Option<String>,
}

impl From<SiblingState> for SiblingRecord {
    fn from(state: SiblingState) -> Self {
        Self {
            sibling: state.sibling,
            queued: state.queued,
            oldest_at: state.oldest_at.map(rfc3339),
            delivered: state.delivered,
            refused: state.refused,
            dropped: state.dropped,
            failures: state.failures,
            last_ok_at: state.last_ok_at.map(rfc3339),
            last_error: state.last_error,
            last_error_at: state.last_error_at.map(rfc3339),
            next_attempt_at: state.next_attempt_at.map(rfc3339),
        }
    }
}

/// The sibling relays, and what waits for each.
#[utoipa::path(
    get, path = "/admin/siblings/list", tag = "admin: siblings",
    responses((status = 200, body = Siblings))
)]
pub(super) async fn list(State(shared): State<Shared>) -> Reply<Siblings> {
    let siblings = shared.siblings.state().into_iter().map(SiblingRecord::from).collect();
    Ok(Json(Siblings { siblings }))
}

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct RetryInput {
    /// Without it: all.
    sibling: Option<String>,
}

/// Tries a sibling now instead of later.
#[utoipa::path(
    post, path = "/admin/siblings/retry", tag = "admin: siblings", request_body = RetryInput,
    responses((status = 200, body = Success))
)]
pub(super) async fn retry(
    State(shared): State<Shared>,
    Input(input): Input<RetryInput>,
) -> Reply<Success> {
    let name = input.sibling.as_deref();
    if shared.siblings.retry(name) == 0 && name.is_some() {
        let message = "there is no such sibling; siblings/list names them";
        return Err(ApiError::not_found("SiblingNotFound", message));
    }
    success()
}
