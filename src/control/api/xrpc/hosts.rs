//! Upstream hosts: which there are, how they stand, and requests to crawl them.

use axum::{Json, extract::State};
use http::StatusCode;
use ports::HostId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::{
        Shared,
        client::Client,
        input::Input,
        page::{self, List},
        reply::{ApiError, Reply},
        time::rfc3339,
    },
    dial::HostAddress,
    hosts::{Caller, CrawlRefusal, HostView, HostsError},
};

impl From<HostsError> for ApiError {
    fn from(error: HostsError) -> Self {
        match error {
            HostsError::Store(error) => error.into(),
            other => {
                tracing::error!(error = %other, "the hosts could not be asked");
                Self::internal()
            }
        }
    }
}

impl From<CrawlRefusal> for ApiError {
    fn from(refusal: CrawlRefusal) -> Self {
        if let CrawlRefusal::Internal(reason) = &refusal {
            tracing::error!(reason, "a request to crawl failed");
        }
        let status =
            StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let error = Self::new(status, refusal.name(), refusal.to_string());
        match refusal.retry_after() {
            Some(wait) => error.retry_after(wait.as_secs().max(1)),
            None => error,
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct CrawlInput {
    /// The host's name, or its URL.
    hostname: String,
}

/// An empty object.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Empty {}

/// Asks this relay to subscribe to a host, which must answer `describeServer`.
#[utoipa::path(
    post, path = "/xrpc/com.atproto.sync.requestCrawl", tag = "sync", request_body = CrawlInput,
    responses((status = 200, body = Empty))
)]
pub(super) async fn request_crawl(
    State(shared): State<Shared>,
    Client(client): Client,
    Input(input): Input<CrawlInput>,
) -> Reply<Empty> {
    let outcome = shared.hosts.request_crawl(&input.hostname, Caller::Client(client)).await?;
    tracing::info!(hostname = input.hostname, ?outcome, "crawl requested");
    Ok(Json(Empty {}))
}

/// The old name of `requestCrawl`.
#[utoipa::path(
    post, path = "/xrpc/com.atproto.sync.notifyOfUpdate", tag = "sync", request_body = CrawlInput,
    responses((status = 200, body = Empty))
)]
#[deprecated]
pub(super) async fn notify_of_update(
    state: State<Shared>,
    client: Client,
    input: Input<CrawlInput>,
) -> Reply<Empty> {
    request_crawl(state, client, input).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListHostsInput {
    #[param(minimum = 1, maximum = 1000, default = 200)]
    limit: Option<u64>,
    cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListHostsReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    hosts: Vec<Host>,
}

/// A host as the lexicon has it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Host {
    hostname: String,
    /// Of the last event that is in the log or was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    account_count: u64,
    #[schema(value_type = String, pattern = "^(active|idle|offline|throttled|banned)$")]
    status: &'static str,
}

impl Host {
    fn new(host: &HostView) -> Self {
        Self {
            hostname: host.row.hostname.clone(),
            seq: host.live.cursor.map(|seq| seq.0),
            account_count: host.row.account_count,
            status: host.live.status.label(),
        }
    }
}

/// The hosts that this relay subscribes to, in the order in which they were added.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.sync.listHosts", tag = "sync", params(ListHostsInput),
    responses((status = 200, body = ListHostsReply))
)]
pub(super) async fn list_hosts(
    State(shared): State<Shared>,
    Input(input): Input<ListHostsInput>,
) -> Reply<ListHostsReply> {
    let size = page::size("limit", input.limit, 200, 1000)?;
    let after = page::after(List::Hosts, input.cursor.as_deref())?;
    let after = HostId(u32::try_from(after).unwrap_or(u32::MAX));
    let mut hosts = shared.hosts.page(after, size + 1).await?;
    let cursor = page::cut(&mut hosts, size, List::Hosts, |host| u64::from(host.row.id.0));
    Ok(Json(ListHostsReply { cursor, hosts: hosts.iter().map(Host::new).collect() }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HostStatusInput {
    hostname: String,
}

/// A host, and beyond the lexicon what holds it up, if anything does.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostStatusReply {
    #[serde(flatten)]
    host: Host,
    /// Why it has this status, if that is not plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    status_reason: Option<&'static str>,
    /// When the status ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    status_until: Option<String>,
    /// Why it is read more slowly than it sends, and until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    slowed_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slowed_until: Option<String>,
}

/// One host of those that this relay subscribes to.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.sync.getHostStatus", tag = "sync", params(HostStatusInput),
    responses((status = 200, body = HostStatusReply))
)]
pub(super) async fn get_host_status(
    State(shared): State<Shared>,
    Input(input): Input<HostStatusInput>,
) -> Reply<HostStatusReply> {
    let address = host_address(&input.hostname)?;
    let found = shared.hosts.find(&address.hostname).await?;
    let host = found.ok_or_else(|| host_not_found(&address.hostname))?;
    let live = &host.live;
    Ok(Json(HostStatusReply {
        host: Host::new(&host),
        status_reason: live.status_reason,
        status_until: live.status_until.map(rfc3339),
        slowed_by: live.slowed.map(|slowed| slowed.why.label()),
        slowed_until: live.slowed.and_then(|slowed| slowed.until).map(rfc3339),
    }))
}

pub(crate) fn host_address(text: &str) -> Result<HostAddress, ApiError> {
    HostAddress::parse(text).map_err(|error| ApiError::invalid(error.to_string()))
}

pub(crate) fn host_not_found(hostname: &str) -> ApiError {
    ApiError::not_found(
        "HostNotFound",
        format!("this relay does not know the host {hostname}; ask it to crawl with requestCrawl"),
    )
}
