//! Accounts and the newest commits of their repositories.

use axum::{Json, extract::State};
use ports::{AccountId, AccountState, RepoHead};
use protocol::{
    cid::{Cid, Codec},
    syntax::{nsid, tid::Tid},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{account, check_active, check_did, repo_not_found, standing};
use crate::api::{
    Shared,
    input::Input,
    page::{self, List},
    reply::{ApiError, Reply},
};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListReposInput {
    #[param(minimum = 1, maximum = 1000, default = 500)]
    limit: Option<u64>,
    cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListReposReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    repos: Vec<Repo>,
}

/// A repository of which at least one commit has been seen.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Repo {
    did: String,
    /// CID of the newest commit.
    head: String,
    rev: String,
    active: bool,
    /// Why not, if the account is not active.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    status: Option<&'static str>,
}

/// All repositories, those of inactive accounts included.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.sync.listRepos", tag = "sync", params(ListReposInput),
    responses((status = 200, body = ListReposReply))
)]
pub(super) async fn list_repos(
    State(shared): State<Shared>,
    Input(input): Input<ListReposInput>,
) -> Reply<ListReposReply> {
    let size = page::size("limit", input.limit, 500, 1000)?;
    let after = page::after(List::Repos, input.cursor.as_deref())?;
    let mut accounts = shared.store.accounts_after(after, size + 1).await?;
    let cursor = page::cut(&mut accounts, size, List::Repos, |account| account.state.id.0);
    let repos = accounts.into_iter().filter_map(|account| {
        let head = account.state.head?;
        let (active, status) = standing(&account.state);
        let (head, rev) = (commit_cid(&head), rev_text(&head));
        Some(Repo { did: account.did, head, rev, active, status })
    });
    Ok(Json(ListReposReply { cursor, repos: repos.collect() }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListByCollectionInput {
    /// The NSID of a collection.
    #[param(max_length = 317)]
    collection: String,
    #[param(minimum = 1, maximum = 2000, default = 500)]
    limit: Option<u64>,
    cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListByCollectionReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    repos: Vec<RepoDid>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RepoDid {
    did: String,
}

/// Active accounts that have created records in a collection.
///
/// The relay knows of a collection what its stream told: records that were created before it first
/// subscribed to the account's host, and collections that have become empty since, do not show.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.sync.listReposByCollection", tag = "sync",
    params(ListByCollectionInput), responses((status = 200, body = ListByCollectionReply))
)]
pub(super) async fn list_repos_by_collection(
    State(shared): State<Shared>,
    Input(input): Input<ListByCollectionInput>,
) -> Reply<ListByCollectionReply> {
    let size = page::size("limit", input.limit, 500, 2000)?;
    let after = AccountId(page::after(List::ReposByCollection, input.cursor.as_deref())?);
    if !nsid::check(&input.collection) {
        return Err(ApiError::invalid("\"collection\" is not an NSID"));
    }
    let mut accounts =
        shared.store.accounts_by_collection(&input.collection, after, size + 1).await?;
    let cursor =
        page::cut(&mut accounts, size, List::ReposByCollection, |account| account.state.id.0);
    let active = accounts.into_iter().filter(|account| standing(&account.state).0);
    let repos = active.map(|account| RepoDid { did: account.did }).collect();
    Ok(Json(ListByCollectionReply { cursor, repos }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DidInput {
    did: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RepoStatus {
    did: String,
    active: bool,
    /// Why not, if the account is not active.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    status: Option<&'static str>,
    /// Of the newest commit, if the account is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<String>,
}

/// How an account stands with this relay.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.sync.getRepoStatus", tag = "sync", params(DidInput),
    responses((status = 200, body = RepoStatus))
)]
pub(super) async fn get_repo_status(
    State(shared): State<Shared>,
    Input(input): Input<DidInput>,
) -> Reply<RepoStatus> {
    check_did(&input.did)?;
    let state = account(&shared, &input.did).await?;
    let (active, status) = standing(&state);
    let rev = state.head.filter(|_| active).map(|head| rev_text(&head));
    Ok(Json(RepoStatus { did: input.did, active, status, rev }))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LatestCommit {
    cid: String,
    rev: String,
}

/// The newest commit of an active account.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.sync.getLatestCommit", tag = "sync", params(DidInput),
    responses((status = 200, body = LatestCommit))
)]
pub(super) async fn get_latest_commit(
    State(shared): State<Shared>,
    Input(input): Input<DidInput>,
) -> Reply<LatestCommit> {
    check_did(&input.did)?;
    let state = account(&shared, &input.did).await?;
    let head = active_head(&state)?;
    Ok(Json(LatestCommit { cid: commit_cid(&head), rev: rev_text(&head) }))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Head {
    root: String,
}

/// The CID of the newest commit: the old form of `getLatestCommit`.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.sync.getHead", tag = "sync", params(DidInput),
    responses((status = 200, body = Head))
)]
#[deprecated]
pub(super) async fn get_head(
    State(shared): State<Shared>,
    Input(input): Input<DidInput>,
) -> Reply<Head> {
    check_did(&input.did)?;
    let found = shared.store.account_by_did(&input.did).await?;
    let head = found.and_then(|state| active_head(&state).ok());
    let head = head.ok_or_else(|| {
        ApiError::bad_request(
            "HeadNotFound",
            "this relay knows no active repository of the account",
        )
    })?;
    Ok(Json(Head { root: commit_cid(&head) }))
}

fn active_head(state: &AccountState) -> Result<RepoHead, ApiError> {
    check_active(state)?;
    state.head.ok_or_else(|| {
        repo_not_found("the account is known, but no commit of it has been seen yet")
    })
}

pub(crate) fn commit_cid(head: &RepoHead) -> String {
    Cid::from_digest(Codec::DagCbor, head.commit).to_string()
}

pub(crate) fn rev_text(head: &RepoHead) -> String {
    Tid::from_u64(head.rev).to_string()
}
