//! Hosts: which there are, and whether they are connected.

use axum::{Json, extract::State};
use ports::HostSeq;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{limits::Limits, record::HostRecord};
use crate::{
    api::{
        Shared,
        explain::RefusalRecord,
        input::Input,
        page,
        reply::{ApiError, Reply, Success, success},
        xrpc::{host_address, host_not_found},
    },
    hosts::Caller,
    store::{HostPatch, HostStatus},
};

/// Records of `pds/list` at most, if a limit is given.
const LIST_MAX: usize = 100_000;

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct CrawlInput {
    /// The host's name, or its URL.
    hostname: String,
    per_second: Option<u64>,
    per_hour: Option<u64>,
    per_day: Option<u64>,
    /// Taken for compatibility, without effect: this relay fetches no repositories.
    #[expect(dead_code, reason = "it must be a number all the same")]
    crawl_rate: Option<u64>,
    /// Accounts at most.
    repo_limit: Option<u64>,
}

/// Adds a host, or tries one at once that is there: after a look at it, without daily limit.
#[utoipa::path(
    post, path = "/admin/pds/requestCrawl", tag = "admin: hosts", request_body = CrawlInput,
    responses((status = 200, body = Success))
)]
pub(super) async fn request_crawl(
    State(shared): State<Shared>,
    Input(input): Input<CrawlInput>,
) -> Reply<Success> {
    let limits = Limits {
        accounts: input.repo_limit,
        per_second: input.per_second,
        per_hour: input.per_hour,
        per_day: input.per_day,
        ..Limits::default()
    };
    let patch = limits.patch();
    let outcome = shared.hosts.request_crawl(&input.hostname, Caller::Admin).await?;
    tracing::info!(hostname = input.hostname, ?outcome, "crawl requested by the operator");
    if patch != HostPatch::default() {
        let address = host_address(&input.hostname)?;
        shared.hosts.update(&address.hostname, patch).await?;
    }
    success()
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListHostsInput {
    /// The `ID` of the last record of the page before.
    #[param(pattern = "^[0-9]{0,9}$")]
    cursor: Option<String>,
    /// Without it: all.
    #[param(minimum = 1, maximum = 100_000)]
    limit: Option<u64>,
    /// Part of the name.
    q: Option<String>,
    /// One of `active`, `idle`, `offline`, `throttled`, `banned`.
    #[param(pattern = "^(active|idle|offline|throttled|banned)?$")]
    status: Option<String>,
}

/// The hosts in the order in which they were added.
#[utoipa::path(
    get, path = "/admin/pds/list", tag = "admin: hosts", params(ListHostsInput),
    responses((status = 200, body = [HostRecord]))
)]
pub(super) async fn list_hosts(
    State(shared): State<Shared>,
    Input(input): Input<ListHostsInput>,
) -> Reply<Vec<HostRecord>> {
    let limit = page::size("limit", input.limit, usize::MAX, LIST_MAX)?;
    let after = match input.cursor.as_deref() {
        None | Some("") => 0,
        Some(text) => text.parse::<u32>().map_err(|_not_an_id| {
            ApiError::invalid("\"cursor\" is the ID of the last record of the page before")
        })?,
    };
    let query = input.q.map(|text| text.to_ascii_lowercase());
    let status = match input.status.as_deref().filter(|word| !word.is_empty()) {
        None => None,
        Some(word) => Some(HostStatus::parse(word).ok_or_else(|| {
            ApiError::invalid("\"status\" is one of active, idle, offline, throttled, banned")
        })?),
    };
    let hosts = shared.hosts.list().await?;
    let rows = hosts
        .iter()
        .filter(|host| host.row.id.0 > after)
        .filter(|host| query.as_ref().is_none_or(|query| host.row.hostname.contains(query)))
        .filter(|host| status.is_none_or(|status| host.live.status == status))
        .take(limit)
        .map(HostRecord::new);
    Ok(Json(rows.collect()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HostInput {
    host: String,
}

/// A host with the last events of it that were refused.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HostDetailRecord {
    #[serde(flatten)]
    record: HostRecord,
    /// The newest first.
    #[serde(rename = "Refusals")]
    refusals: Vec<RefusalRecord>,
}

/// One host, with the last events of it that were refused.
#[utoipa::path(
    get, path = "/admin/pds/get", tag = "admin: hosts", params(HostInput),
    responses((status = 200, body = HostDetailRecord))
)]
pub(super) async fn get_host(
    State(shared): State<Shared>,
    Input(input): Input<HostInput>,
) -> Reply<HostDetailRecord> {
    let address = host_address(&input.host)?;
    let detail = shared.hosts.detail(&address.hostname).await?;
    let detail = detail.ok_or_else(|| host_not_found(&address.hostname))?;
    Ok(Json(HostDetailRecord {
        record: HostRecord::new(&detail.view),
        refusals: detail.refusals.iter().map(RefusalRecord::new).collect(),
    }))
}

/// Cuts the connection to a host and makes no other.
#[utoipa::path(
    post, path = "/admin/pds/block", tag = "admin: hosts", params(HostInput),
    responses((status = 200, body = Success))
)]
pub(super) async fn block(
    State(shared): State<Shared>,
    Input(input): Input<HostInput>,
) -> Reply<Success> {
    let address = host_address(&input.host)?;
    done(shared.hosts.block(&address.hostname).await?, &address.hostname)
}

/// Lifts a block, and connects.
#[utoipa::path(
    post, path = "/admin/pds/unblock", tag = "admin: hosts", params(HostInput),
    responses((status = 200, body = Success))
)]
pub(super) async fn unblock(
    State(shared): State<Shared>,
    Input(input): Input<HostInput>,
) -> Reply<Success> {
    let address = host_address(&input.host)?;
    done(shared.hosts.unblock(&address.hostname).await?, &address.hostname)
}

fn done(known: bool, hostname: &str) -> Reply<Success> {
    if known { success() } else { Err(host_not_found(hostname)) }
}

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ResetCursorInput {
    host: String,
    /// The host's sequence number behind which to go on: 0 is its oldest event, and without a number
    /// only what comes from now on is taken.
    #[schema(maximum = 9007199254740991_u64)]
    cursor: Option<u64>,
}

/// Sets the place in a host's stream from which this relay goes on, and reconnects there.
///
/// Nothing is sent out twice by it: commits that have been seen are known by their revs.
#[utoipa::path(
    post, path = "/admin/pds/resetCursor", tag = "admin: hosts", request_body = ResetCursorInput,
    responses((status = 200, body = Success))
)]
pub(super) async fn reset_cursor(
    State(shared): State<Shared>,
    Input(input): Input<ResetCursorInput>,
) -> Reply<Success> {
    let address = host_address(&input.host)?;
    if input.cursor.is_some_and(|cursor| cursor >= 1 << 53) {
        return Err(ApiError::invalid("\"cursor\" is greater than any sequence number"));
    }
    let known = shared.hosts.reset_cursor(&address.hostname, input.cursor.map(HostSeq)).await?;
    done(known, &address.hostname)
}

/// The names of the hosts that are connected.
#[utoipa::path(
    get, path = "/admin/subs/getUpstreamConns", tag = "admin: hosts",
    responses((status = 200, body = [String]))
)]
pub(super) async fn upstream_connections(State(shared): State<Shared>) -> Reply<Vec<String>> {
    let hosts = shared.hosts.list().await?;
    let connected = hosts.into_iter().filter(|host| host.live.connected);
    Ok(Json(connected.map(|host| host.row.hostname).collect()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct KillInput {
    host: String,
    /// Do not connect again.
    block: Option<bool>,
}

/// Cuts the connection to a host. It comes back on a request to crawl it, or after hours.
#[utoipa::path(
    post, path = "/admin/subs/killUpstream", tag = "admin: hosts", params(KillInput),
    responses((status = 200, body = Success))
)]
pub(super) async fn kill_upstream(
    State(shared): State<Shared>,
    Input(input): Input<KillInput>,
) -> Reply<Success> {
    let address = host_address(&input.host)?;
    let hostname = &address.hostname;
    let found = shared.hosts.find(hostname).await?;
    if !found.is_some_and(|host| host.live.connected) {
        return Err(ApiError::bad_request(
            "HostNotConnected",
            format!("there is no connection to {hostname}"),
        ));
    }
    if input.block == Some(true) {
        shared.hosts.block(hostname).await?;
    } else {
        shared.hosts.disconnect(hostname).await?;
    }
    success()
}
