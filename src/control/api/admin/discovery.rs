//! Other relays whose hosts are looked through.

use axum::{Json, extract::State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::{
        Shared,
        input::Input,
        page,
        reply::{ApiError, Reply, Success, success},
        time::rfc3339,
    },
    discovery::DiscoveryState,
    store::RefusedHost,
};

const HOSTNAME_BYTES_MAX: usize = 255;

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DiscoveryReply {
    /// Between looks; 0 is never. It is a setting.
    interval_seconds: u64,
    relays: Vec<DiscoveryRecord>,
}

/// A relay whose hosts are looked through.
#[derive(Debug, Serialize, ToSchema)]
struct DiscoveryRecord {
    /// Its base URL.
    relay: String,
    last_at: Option<String>,
    next_at: Option<String>,
    /// Hosts that it listed when it was last asked.
    hosts_seen: u64,
    /// Those of them that were added.
    hosts_added: u64,
    last_error: Option<String>,
}

impl From<DiscoveryState> for DiscoveryRecord {
    fn from(DiscoveryState { last, next_at }: DiscoveryState) -> Self {
        Self {
            relay: last.relay,
            last_at: Some(last.last_at).filter(|at| *at > 0).map(rfc3339),
            next_at: next_at.filter(|at| *at > 0).map(rfc3339),
            hosts_seen: last.hosts_seen,
            hosts_added: last.hosts_added,
            last_error: last.last_error,
        }
    }
}

/// The relays whose hosts are looked through, and what was last found there.
#[utoipa::path(
    get, path = "/admin/discovery/list", tag = "admin: discovery",
    responses((status = 200, body = DiscoveryReply))
)]
pub(super) async fn list(State(shared): State<Shared>) -> Reply<DiscoveryReply> {
    let relays = shared.discoverer.state().await.into_iter().map(DiscoveryRecord::from).collect();
    let interval_seconds = shared.discoverer.interval().as_secs();
    Ok(Json(DiscoveryReply { interval_seconds, relays }))
}

/// Looks through all of them now.
#[utoipa::path(
    post, path = "/admin/discovery/run", tag = "admin: discovery",
    responses((status = 200, body = Success))
)]
pub(super) async fn run(State(shared): State<Shared>) -> Reply<Success> {
    if !shared.discoverer.ask() {
        let message = "no relay is named by --discover-from";
        return Err(ApiError::new(StatusCode::CONFLICT, "NothingToDiscover", message));
    }
    success()
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RefusedInput {
    /// The last name of the page before.
    #[param(max_length = 255)]
    cursor: Option<String>,
    #[param(minimum = 1, maximum = 1000, default = 500)]
    limit: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RefusedReply {
    hosts: Vec<RefusedRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// A host that was found in a list, but could not be added.
#[derive(Debug, Serialize, ToSchema)]
struct RefusedRecord {
    hostname: String,
    reason: String,
    refused_at: String,
    /// How often it was tried.
    times: u64,
    /// It is left alone until then.
    retry_at: String,
}

impl From<RefusedHost> for RefusedRecord {
    fn from(host: RefusedHost) -> Self {
        Self {
            hostname: host.hostname,
            reason: host.reason,
            refused_at: rfc3339(host.refused_at),
            times: host.times,
            retry_at: rfc3339(host.retry_at),
        }
    }
}

/// Hosts that were found in a list, could not be added, and are left alone for now.
#[utoipa::path(
    get, path = "/admin/discovery/refused", tag = "admin: discovery", params(RefusedInput),
    responses((status = 200, body = RefusedReply))
)]
pub(super) async fn refused(
    State(shared): State<Shared>,
    Input(input): Input<RefusedInput>,
) -> Reply<RefusedReply> {
    let size = page::size("limit", input.limit, 500, 1000)?;
    let after = input.cursor.unwrap_or_default();
    if after.len() > HOSTNAME_BYTES_MAX {
        return Err(ApiError::invalid("\"cursor\" is the last name of the page before"));
    }
    let mut rows = shared.store.refused_hosts(&after, size + 1).await?;
    let more = rows.len() > size;
    rows.truncate(size);
    let cursor = rows.last().filter(|_| more).map(|last| last.hostname.clone());
    Ok(Json(RefusedReply { hosts: rows.into_iter().map(RefusedRecord::from).collect(), cursor }))
}
