//! Public XRPC methods other than the firehose.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri, header};
use ports::{AccountState, Effective, HostId, RepoHead, effective};
use protocol::{
    cid::{Cid, Codec},
    syntax::{did, tid::Tid},
};
use serde_json::{Value, json};

use super::{
    Shared,
    params::Params,
    reply::{ApiError, ApiResult, json},
};
use crate::{
    dial::HostAddress,
    hosts::{Caller, CrawlRefusal, HostView, HostsError},
};

impl From<HostsError> for ApiError {
    fn from(error: HostsError) -> Self {
        match error {
            HostsError::Store(error) => error.into(),
            other => {
                tracing::error!(error = %other, "the hosts could not be asked");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "InternalServerError",
                    "the relay could not do this; its operator finds the reason in the log",
                )
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

pub(crate) async fn health(State(shared): State<Shared>) -> Response {
    let fault = |status: StatusCode, message: &str| {
        let body = json!({ "status": "error", "msg": message, "error": "Unhealthy",
                           "message": message });
        (status, Json(body)).into_response()
    };
    if !shared.is_ready() {
        return fault(StatusCode::SERVICE_UNAVAILABLE, "the relay is starting or stopping");
    }
    let log = shared.log.health();
    if let Some(why) = log.why {
        // Consumers are served as before.
        let message = format!("no events are taken from hosts: {why}");
        return fault(StatusCode::SERVICE_UNAVAILABLE, &message);
    }
    match shared.store.ping().await {
        Ok(()) => Json(super::healthy()).into_response(),
        Err(error) => {
            tracing::error!(%error, "health check");
            fault(StatusCode::INTERNAL_SERVER_ERROR, "can't connect to database")
        }
    }
}

/// Any method that this relay does not have.
pub(crate) async fn unknown_method(Path(method): Path<String>) -> ApiError {
    let shown: String = method.chars().take(128).collect();
    ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "MethodNotImplemented",
        format!("this relay has no method {shown:?}"),
    )
}

pub(crate) async fn request_crawl(State(shared): State<Shared>, params: Params) -> ApiResult {
    let hostname = params.required("hostname")?;
    let outcome = shared.hosts.request_crawl(hostname, Caller::Public).await?;
    tracing::info!(hostname, ?outcome, "crawl requested");
    json(json!({}))
}

pub(crate) async fn list_hosts(State(shared): State<Shared>, params: Params) -> ApiResult {
    let limit = params.limit(200, 1000)?;
    let after = params.number("cursor")?.unwrap_or(0);
    let mut hosts = shared.hosts.list().await?;
    hosts.retain(|host| u64::from(host.row.id.0) > after && !is_refused_unseen(host));
    let more = hosts.len() > limit;
    hosts.truncate(limit);
    let cursor = hosts.last().filter(|_| more).map(|host| host.row.id.to_string());
    let rows: Vec<Value> = hosts.iter().map(host_json).collect();
    json(with_cursor(json!({ "hosts": rows }), cursor))
}

/// A host that was blocked before anything came from it: nobody's business.
fn is_refused_unseen(host: &HostView) -> bool {
    host.live.cursor.is_none() && host.live.status == crate::store::HostStatus::Banned
}

fn host_json(host: &HostView) -> Value {
    let mut row = json!({
        "hostname": host.row.hostname,
        "status": host.live.status.label(),
        "accountCount": host.row.account_count,
    });
    if let Some(seq) = host.live.cursor {
        row["seq"] = json!(seq.0);
    }
    row
}

pub(crate) async fn get_host_status(State(shared): State<Shared>, params: Params) -> ApiResult {
    let hostname = params.required("hostname")?;
    let address =
        HostAddress::parse(hostname).map_err(|error| ApiError::invalid(error.to_string()))?;
    match find_host(&shared, &address.hostname).await? {
        Some(host) => json(host_json(&host)),
        None => Err(host_not_found(&address.hostname)),
    }
}

pub(crate) fn host_not_found(hostname: &str) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "HostNotFound",
        format!("this relay does not know the host {hostname}; ask it to crawl with requestCrawl"),
    )
}

pub(crate) async fn find_host(
    shared: &Shared,
    hostname: &str,
) -> Result<Option<HostView>, ApiError> {
    Ok(shared.hosts.find(hostname).await?)
}

pub(crate) async fn list_repos(State(shared): State<Shared>, params: Params) -> ApiResult {
    let limit = params.limit(500, 1000)?;
    let after = params.number("cursor")?.unwrap_or(0);
    let mut accounts = shared.store.accounts_after(after, limit + 1).await?;
    let more = accounts.len() > limit;
    accounts.truncate(limit);
    let cursor = accounts.last().filter(|_| more).map(|account| account.state.id.to_string());
    let repos: Vec<Value> = accounts
        .iter()
        .filter_map(|account| Some((account, account.state.head?)))
        .map(|(account, head)| {
            let mut repo = json!({
                "did": account.did,
                "head": commit_cid(&head),
                "rev": rev_text(&head),
            });
            add_status(&mut repo, &account.state);
            repo
        })
        .collect();
    json(with_cursor(json!({ "repos": repos }), cursor))
}

pub(crate) async fn get_repo_status(State(shared): State<Shared>, params: Params) -> ApiResult {
    let did = did_param(&params)?;
    let state = account(&shared, did).await?;
    let mut reply = json!({ "did": did });
    add_status(&mut reply, &state);
    if let Some(head) = state.head.filter(|_| standing(&state).0) {
        reply["rev"] = json!(rev_text(&head));
    }
    json(reply)
}

pub(crate) async fn get_latest_commit(State(shared): State<Shared>, params: Params) -> ApiResult {
    let did = did_param(&params)?;
    let state = account(&shared, did).await?;
    check_active(&state)?;
    let head = state.head.ok_or_else(|| {
        repo_not_found("the account is known, but no commit of it has been seen yet")
    })?;
    json(json!({ "cid": commit_cid(&head), "rev": rev_text(&head) }))
}

/// A relay holds no repositories: the account's own host has it.
pub(crate) async fn get_repo(State(shared): State<Shared>, uri: Uri, params: Params) -> ApiResult {
    let did = did_param(&params)?;
    let state = account(&shared, did).await?;
    check_active(&state)?;
    let hosts = shared.hosts.list().await?;
    let host = hosts
        .iter()
        .find(|host| host.row.id == state.host && state.host != HostId::RELAY)
        .ok_or_else(|| repo_not_found("the account has no host"))?;
    let scheme = if host.row.tls { "https" } else { "http" };
    let location = format!(
        "{scheme}://{}{}",
        host.row.hostname,
        uri.path_and_query().map_or("/", |path| path.as_str())
    );
    Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response())
}

fn did_param(params: &Params) -> Result<&str, ApiError> {
    let did = params.required("did")?;
    match did::check(did) {
        Ok(_method) => Ok(did),
        Err(_syntax) => Err(ApiError::invalid("\"did\" is not a DID")),
    }
}

async fn account(shared: &Shared, did: &str) -> Result<AccountState, ApiError> {
    match shared.store.account_by_did(did).await? {
        Some((state, _identity)) => Ok(state),
        None => Err(repo_not_found("this relay does not know the account")),
    }
}

fn repo_not_found(message: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "RepoNotFound", message)
}

/// Whether the account is active as this relay sees it, and the word for why not.
fn standing(state: &AccountState) -> (bool, Option<&'static str>) {
    let Effective { active, word } = effective(state.upstream, state.local);
    (active, word.label())
}

fn add_status(object: &mut Value, state: &AccountState) {
    let (active, word) = standing(state);
    object["active"] = json!(active);
    if let Some(word) = word {
        object["status"] = json!(word);
    }
}

fn check_active(state: &AccountState) -> Result<(), ApiError> {
    let (active, word) = standing(state);
    if active {
        return Ok(());
    }
    let (name, message) = match word {
        Some("takendown") => ("RepoTakendown", "the account is taken down"),
        Some("suspended") => ("RepoSuspended", "the account is suspended"),
        Some("deleted") => return Err(repo_not_found("the account is deleted")),
        // The lexicon has no name for other reasons.
        _ => ("RepoDeactivated", "the account is not active"),
    };
    Err(ApiError::new(StatusCode::BAD_REQUEST, name, message))
}

fn commit_cid(head: &RepoHead) -> String {
    Cid::from_digest(Codec::DagCbor, head.commit).to_string()
}

fn rev_text(head: &RepoHead) -> String {
    Tid::from_u64(head.rev).to_string()
}

/// An absent cursor means that there is no more.
fn with_cursor(mut object: Value, cursor: Option<String>) -> Value {
    if let Some(cursor) = cursor {
        object["cursor"] = Value::String(cursor);
    }
    object
}
