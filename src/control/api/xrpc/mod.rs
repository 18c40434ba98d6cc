//! Public XRPC methods other than the firehose, as the lexicons of `com.atproto.sync` describe them.

#![allow(unused_qualifications, reason = "the macro that describes routes writes them")]

mod hosts;
mod redirect;
mod repos;
mod server;

use axum::extract::Path;
use http::StatusCode;
use ports::{AccountState, Effective, effective};
use protocol::syntax::did;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use self::{
    hosts::{host_address, host_not_found},
    repos::{commit_cid, rev_text},
};
use super::{Shared, reply::ApiError};

#[expect(deprecated, reason = "the document calls old methods so; they are served all the same")]
pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(server::describe_server))
        .routes(routes!(server::health))
        .routes(routes!(hosts::request_crawl))
        .routes(routes!(hosts::notify_of_update))
        .routes(routes!(hosts::list_hosts))
        .routes(routes!(hosts::get_host_status))
        .routes(routes!(repos::list_repos))
        .routes(routes!(repos::list_repos_by_collection))
        .routes(routes!(repos::get_repo_status))
        .routes(routes!(repos::get_latest_commit))
        .routes(routes!(repos::get_head))
        .routes(routes!(redirect::get_repo))
        .routes(routes!(redirect::get_checkout))
        .routes(routes!(redirect::get_record))
        .routes(routes!(redirect::get_blocks))
        .routes(routes!(redirect::get_blob))
        .routes(routes!(redirect::list_blobs))
        .route("/xrpc/_health", axum::routing::get(server::health))
        .route("/xrpc/{*method}", axum::routing::any(unknown_method))
}

/// Any method that this relay does not have.
async fn unknown_method(Path(method): Path<String>) -> ApiError {
    let shown: String = method.chars().take(128).collect();
    ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "MethodNotImplemented",
        format!("this relay has no method {shown:?}"),
    )
}

pub(crate) fn check_did(did: &str) -> Result<(), ApiError> {
    did::check(did).map(drop).map_err(|_syntax| ApiError::invalid("\"did\" is not a DID"))
}

pub(crate) async fn account(shared: &Shared, did: &str) -> Result<AccountState, ApiError> {
    match shared.store.account_by_did(did).await? {
        Some(state) => Ok(state),
        None => Err(repo_not_found("this relay does not know the account")),
    }
}

pub(crate) fn repo_not_found(message: &str) -> ApiError {
    ApiError::not_found("RepoNotFound", message)
}

/// Whether the account is active as this relay sees it, and the word for why not.
pub(crate) fn standing(state: &AccountState) -> (bool, Option<&'static str>) {
    let Effective { active, word } = effective(state.upstream, state.local);
    (active, word.label())
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
    Err(ApiError::bad_request(name, message))
}
