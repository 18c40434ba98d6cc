//! The operator's routes, under `/admin`, as the reference relay's tools and `goat` call them.

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use http::StatusCode;
use ports::{ConsumerId, ShardCommand, Strictness};
use serde_json::{Value, json};

use super::{
    Shared,
    params::Params,
    reply::{ApiError, ApiResult, json, success},
    time::rfc3339,
    xrpc::{find_host, host_not_found},
};
use crate::{
    dial::HostAddress,
    hosts::{Caller, HostView},
    store::{HostPatch, HostRow, HostStatus},
};

/// Names of settings in the store.
pub(crate) const CRAWL_ENABLED: &str = "crawl_enabled";
pub(crate) const NEW_HOSTS_PER_DAY: &str = "new_hosts_per_day";

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/pds/requestCrawl", post(request_crawl))
        .route("/pds/list", get(list_hosts))
        .route("/pds/block", post(block))
        .route("/pds/unblock", post(unblock))
        .route("/pds/changeLimits", post(change_limits))
        .route("/subs/getUpstreamConns", get(upstream_connections))
        .route("/subs/killUpstream", post(kill_upstream))
        .route("/subs/getEnabled", get(get_enabled))
        .route("/subs/setEnabled", post(set_enabled))
        .route("/subs/perDayLimit", get(per_day_limit))
        .route("/subs/setPerDayLimit", post(set_per_day_limit))
        .route("/subs/listDomainBans", get(list_domain_bans))
        .route("/subs/banDomain", post(ban_domain))
        .route("/subs/unbanDomain", post(unban_domain))
        .route("/consumers/list", get(list_consumers))
        .route("/consumers/kick", post(kick_consumer))
}

async fn request_crawl(State(shared): State<Shared>, params: Params) -> ApiResult {
    let hostname = params.required("hostname")?;
    let outcome = shared.hosts.request_crawl(hostname, Caller::Admin).await?;
    tracing::info!(hostname, ?outcome, "crawl requested by the operator");
    let patch = limits_patch(&params)?;
    if patch != HostPatch::default() {
        let address = host_address(hostname)?;
        shared.hosts.update(&address.hostname, patch).await?;
    }
    success()
}

async fn list_hosts(State(shared): State<Shared>, params: Params) -> ApiResult {
    let limit = params.limit(usize::MAX, usize::MAX)?;
    let after = params.number("cursor")?.unwrap_or(0);
    let query = params.text("q").map(str::to_ascii_lowercase);
    let status = match params.text("status") {
        None => None,
        Some(word) => Some(HostStatus::parse(word).ok_or_else(|| {
            ApiError::invalid("\"status\" is one of active, idle, offline, throttled, banned")
        })?),
    };
    let hosts = shared.hosts.list().await?;
    let rows = hosts
        .iter()
        .filter(|host| u64::from(host.row.id.0) > after)
        .filter(|host| query.as_ref().is_none_or(|query| host.row.hostname.contains(query)))
        .filter(|host| status.is_none_or(|status| host.live.status == status))
        .take(limit)
        .map(host_record);
    json(rows.collect())
}

/// The record of `pds/list`: the fields of the reference relay, old and new, and ours.
fn host_record(host: &HostView) -> Value {
    let HostView { row, live } = host;
    let rates = Rates::of(row);
    let rate = |max: u64, window: u64| json!({ "Max": max, "Window": window });
    let mut record = json!({
        "ID": row.id.0,
        "CreatedAt": rfc3339(row.created_at),
        "Host": row.hostname,
        "Did": "",
        "SSL": row.tls,
        "Cursor": live.cursor.map_or(-1, |seq| seq.0 as i64),
        "Registered": live.status == HostStatus::Active,
        "Blocked": live.status == HostStatus::Banned,
        "RateLimit": rates.second,
        "CrawlRateLimit": 0,
        "RepoCount": row.account_count,
        "RepoLimit": row.account_limit,
        "HourlyEventLimit": rates.hour,
        "DailyEventLimit": rates.day,
        "HasActiveConnection": live.connected,
        "EventsSeenSinceStartup": live.received,
        "PerSecondEventRate": rate(rates.second, 1),
        "PerHourEventRate": rate(rates.hour, 3600),
        "PerDayEventRate": rate(rates.day, 86_400),
        "CrawlRate": rate(0, 1),
        "UserCount": row.account_count,
        "AccountLimitAlertsSilenced": row.alerts_silenced,
        "AccountLimitAlertState": "ok",
        "Status": live.status.label(),
        "StatusReason": live.status_reason,
        "StatusSince": rfc3339(row.status_since),
        "Trusted": row.trusted,
        "Strictness": strictness_label(row.strictness),
        "LastError": live.last_error,
        "LastErrorAt": row.last_error_at.map(rfc3339),
    });
    record["Phase"] = json!(live.phase);
    record["EventsForwardedSinceStartup"] = json!(live.forwarded);
    record["EventsRefusedSinceStartup"] = json!(live.refused);
    record["ConnectFailures"] = json!(live.failures);
    record["NextAttemptSeconds"] = json!(live.next_attempt_in.map(|wait| wait.as_secs()));
    record
}

/// The event rates that hold for a host.
struct Rates {
    second: u64,
    hour: u64,
    day: u64,
}

impl Rates {
    fn of(row: &HostRow) -> Self {
        let limit = row.account_limit;
        let derived = if row.trusted {
            Self { second: 5000, hour: 50_000_000, day: 500_000_000 }
        } else {
            Self { second: 50 + limit / 1000, hour: 2500 + limit, day: 20_000 + 10 * limit }
        };
        Self {
            second: row.per_second.unwrap_or(derived.second),
            hour: row.per_hour.unwrap_or(derived.hour),
            day: row.per_day.unwrap_or(derived.day),
        }
    }
}

fn strictness_label(strictness: Option<Strictness>) -> &'static str {
    match strictness {
        None => "default",
        Some(Strictness::Strict) => "strict",
        Some(Strictness::Lenient) => "lenient",
    }
}

async fn block(State(shared): State<Shared>, params: Params) -> ApiResult {
    let address = host_address(params.required("host")?)?;
    if !shared.hosts.block(&address.hostname).await? {
        return Err(host_not_found(&address.hostname));
    }
    audit("pds/block", &address.hostname);
    success()
}

async fn unblock(State(shared): State<Shared>, params: Params) -> ApiResult {
    let address = host_address(params.required("host")?)?;
    if !shared.hosts.unblock(&address.hostname).await? {
        return Err(host_not_found(&address.hostname));
    }
    audit("pds/unblock", &address.hostname);
    success()
}

async fn change_limits(State(shared): State<Shared>, params: Params) -> ApiResult {
    let address = host_address(params.required("host")?)?;
    let patch = limits_patch(&params)?;
    if patch == HostPatch::default() && params.text("crawl_rate").is_none() {
        return Err(ApiError::invalid(
            "give at least one of repo_limit, per_second, per_hour, per_day, crawl_rate, \
             account_limit_alerts_silenced",
        ));
    }
    match shared.hosts.update(&address.hostname, patch).await? {
        Some(_row) => {
            audit("pds/changeLimits", &address.hostname);
            success()
        }
        None => Err(host_not_found(&address.hostname)),
    }
}

/// The limits among the parameters; those not given stay as they are. `crawl_rate` is taken and has
/// no effect: this relay fetches no repositories.
fn limits_patch(params: &Params) -> Result<HostPatch, ApiError> {
    params.number("crawl_rate")?;
    Ok(HostPatch {
        account_limit: params.number("repo_limit")?,
        per_second: params.number("per_second")?.map(Some),
        per_hour: params.number("per_hour")?.map(Some),
        per_day: params.number("per_day")?.map(Some),
        alerts_silenced: params.flag("account_limit_alerts_silenced")?,
        ..HostPatch::default()
    })
}

async fn upstream_connections(State(shared): State<Shared>) -> ApiResult {
    let hosts = shared.hosts.list().await?;
    let connected = hosts.iter().filter(|host| host.live.connected);
    json(connected.map(|host| json!(host.row.hostname)).collect())
}

async fn kill_upstream(State(shared): State<Shared>, params: Params) -> ApiResult {
    let address = host_address(params.required("host")?)?;
    let block = params.flag("block")?.unwrap_or(false);
    let Some(host) = find_host(&shared, &address.hostname).await? else {
        return Err(host_not_found(&address.hostname));
    };
    if !host.live.connected {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "HostNotConnected",
            format!("there is no connection to {}", address.hostname),
        ));
    }
    if block {
        shared.hosts.block(&address.hostname).await?;
    } else {
        shared.hosts.disconnect(&address.hostname).await?;
    }
    audit("subs/killUpstream", &address.hostname);
    success()
}

async fn get_enabled(State(shared): State<Shared>) -> ApiResult {
    let (enabled, _) = shared.hosts.crawl_settings().await?;
    json(json!({ "enabled": enabled }))
}

async fn set_enabled(State(shared): State<Shared>, params: Params) -> ApiResult {
    params.required("enabled")?;
    let enabled = params.flag("enabled")?;
    let (enabled, _) = shared.hosts.set_crawl(enabled, None).await?;
    shared.store.set_setting(CRAWL_ENABLED, enabled.to_string()).await?;
    audit("subs/setEnabled", &enabled.to_string());
    success()
}

async fn per_day_limit(State(shared): State<Shared>) -> ApiResult {
    let (_, limit) = shared.hosts.crawl_settings().await?;
    json(json!({ "limit": limit }))
}

async fn set_per_day_limit(State(shared): State<Shared>, params: Params) -> ApiResult {
    params.required("limit")?;
    let limit = params.number("limit")?;
    let (_, limit) = shared.hosts.set_crawl(None, limit).await?;
    shared.store.set_setting(NEW_HOSTS_PER_DAY, limit.to_string()).await?;
    audit("subs/setPerDayLimit", &limit.to_string());
    success()
}

async fn list_domain_bans(State(shared): State<Shared>) -> ApiResult {
    json(json!({ "banned_domains": shared.store.domain_bans().await? }))
}

async fn ban_domain(State(shared): State<Shared>, params: Params) -> ApiResult {
    let domain = domain(&params)?;
    if !shared.store.ban_domain(&domain).await? {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "DomainBanned",
            format!("{domain} is banned already"),
        ));
    }
    apply_bans(&shared).await?;
    audit("subs/banDomain", &domain);
    success()
}

async fn unban_domain(State(shared): State<Shared>, params: Params) -> ApiResult {
    let domain = domain(&params)?;
    shared.store.unban_domain(&domain).await?;
    apply_bans(&shared).await?;
    audit("subs/unbanDomain", &domain);
    success()
}

async fn apply_bans(shared: &Shared) -> Result<(), ApiError> {
    let domains = shared.store.domain_bans().await?;
    Ok(shared.hosts.set_domain_bans(domains).await?)
}

async fn list_consumers(State(shared): State<Shared>) -> ApiResult {
    json(shared.consumers.to_json())
}

async fn kick_consumer(State(shared): State<Shared>, params: Params) -> ApiResult {
    params.required("id")?;
    let id = ConsumerId(params.number("id")?.unwrap_or(0));
    let Some(shard) = shared.consumers.shard_of(id) else {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "ConsumerNotFound",
            format!("there is no consumer {id}; see consumers/list"),
        ));
    };
    shared.shards.send(shard, ShardCommand::DropConsumer(id));
    audit("consumers/kick", &id.to_string());
    success()
}

fn host_address(text: &str) -> Result<HostAddress, ApiError> {
    HostAddress::parse(text).map_err(|error| ApiError::invalid(error.to_string()))
}

/// A domain to ban: lower case, with at least one dot or a single label such as `test`.
fn domain(params: &Params) -> Result<String, ApiError> {
    let text = params.required("domain")?.trim_end_matches('.').to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if text.len() > 253 || !text.split('.').all(label) {
        return Err(ApiError::invalid("\"domain\" is not a domain name"));
    }
    Ok(text)
}

/// One line for every change that an operator makes.
fn audit(action: &str, target: &str) {
    tracing::info!(action, target, "changed by the operator");
}
