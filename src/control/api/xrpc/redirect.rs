//! What a relay does not hold, repositories and blobs: the account's own host has it.
//!
//! Redirects go to hosts that this relay subscribes to, never to where a document or a caller wishes.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri, header};
use ports::HostId;
use protocol::syntax::{nsid, record_key, tid};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{account, check_active, check_did, repo_not_found};
use crate::{
    api::{Shared, input::Input, reply::ApiError},
    dial::HostAddress,
};

type Redirect = Result<Response, ApiError>;

async fn redirect(shared: &Shared, did: &str, uri: &Uri) -> Redirect {
    check_did(did)?;
    let state = account(shared, did).await?;
    check_active(&state)?;
    if state.host == HostId::RELAY {
        return Err(repo_not_found("the account has no host"));
    }
    let host = shared.store.host(state.host).await?;
    let origin = HostAddress { hostname: host.hostname, tls: host.tls }.http_origin();
    let location = format!("{origin}{}", uri.path_and_query().map_or("/", |path| path.as_str()));
    Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response())
}

fn check(valid: bool, name: &str, what: &str) -> Result<(), ApiError> {
    if valid { Ok(()) } else { Err(ApiError::invalid(format!("{name:?} is not {what}"))) }
}

fn check_cid(name: &str, text: &str) -> Result<(), ApiError> {
    check(cid::Cid::try_from(text).is_ok(), name, "a CID")
}

fn check_since(since: Option<&str>) -> Result<(), ApiError> {
    check(since.is_none_or(tid::check), "since", "a TID")
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct GetRepoInput {
    did: String,
    /// Only what is newer than this rev.
    since: Option<String>,
}

/// A repository as a CAR file: a redirect to the account's host.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.sync.getRepo", tag = "sync", params(GetRepoInput),
    responses((status = 302, description = "The same request to the account's host"))
)]
pub(super) async fn get_repo(
    State(shared): State<Shared>,
    uri: Uri,
    Input(input): Input<GetRepoInput>,
) -> Redirect {
    check_since(input.since.as_deref())?;
    redirect(&shared, &input.did, &uri).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct GetCheckoutInput {
    did: String,
}

/// The old form of `getRepo`.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.sync.getCheckout", tag = "sync", params(GetCheckoutInput),
    responses((status = 302, description = "The same request to the account's host"))
)]
#[deprecated]
pub(super) async fn get_checkout(
    State(shared): State<Shared>,
    uri: Uri,
    Input(input): Input<GetCheckoutInput>,
) -> Redirect {
    redirect(&shared, &input.did, &uri).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct GetRecordInput {
    did: String,
    collection: String,
    rkey: String,
}

/// The proof of a record: a redirect to the account's host.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.sync.getRecord", tag = "sync", params(GetRecordInput),
    responses((status = 302, description = "The same request to the account's host"))
)]
pub(super) async fn get_record(
    State(shared): State<Shared>,
    uri: Uri,
    Input(input): Input<GetRecordInput>,
) -> Redirect {
    check(nsid::check(&input.collection), "collection", "an NSID")?;
    check(record_key::check(&input.rkey), "rkey", "a record key")?;
    redirect(&shared, &input.did, &uri).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct GetBlocksInput {
    did: String,
    /// Repeated, once for each block.
    cids: Vec<String>,
}

/// Blocks of a repository: a redirect to the account's host.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.sync.getBlocks", tag = "sync", params(GetBlocksInput),
    responses((status = 302, description = "The same request to the account's host"))
)]
pub(super) async fn get_blocks(
    State(shared): State<Shared>,
    uri: Uri,
    Input(input): Input<GetBlocksInput>,
) -> Redirect {
    for cid in &input.cids {
        check_cid("cids", cid)?;
    }
    redirect(&shared, &input.did, &uri).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct GetBlobInput {
    did: String,
    cid: String,
}

/// A blob: a redirect to the account's host.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.sync.getBlob", tag = "sync", params(GetBlobInput),
    responses((status = 302, description = "The same request to the account's host"))
)]
pub(super) async fn get_blob(
    State(shared): State<Shared>,
    uri: Uri,
    Input(input): Input<GetBlobInput>,
) -> Redirect {
    check_cid("cid", &input.cid)?;
    redirect(&shared, &input.did, &uri).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListBlobsInput {
    did: String,
    since: Option<String>,
    #[param(minimum = 1, maximum = 1000, default = 500)]
    limit: Option<u64>,
    /// One that the account's host gave out.
    #[expect(dead_code, reason = "the account's host reads it")]
    cursor: Option<String>,
}

/// The blobs of an account: a redirect to the account's host.
#[utoipa::path(
    get, path = "/xrpc/com.atproto.sync.listBlobs", tag = "sync", params(ListBlobsInput),
    responses((status = 302, description = "The same request to the account's host"))
)]
pub(super) async fn list_blobs(
    State(shared): State<Shared>,
    uri: Uri,
    Input(input): Input<ListBlobsInput>,
) -> Redirect {
    check_since(input.since.as_deref())?;
    crate::api::page::size("limit", input.limit, 500, 1000)?;
    redirect(&shared, &input.did, &uri).await
}
