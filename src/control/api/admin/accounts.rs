//! Accounts: take-downs, and what is known of one.

use axum::{Json, extract::State};
use ports::{AccountId, LocalStatus};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::{
        Shared,
        explain::RefusalRecord,
        input::Input,
        page::{self, List},
        reply::{ApiError, Reply, Success, success},
        xrpc::{check_did, commit_cid, repo_not_found, rev_text, standing},
    },
    hosts::AccountDetail,
};

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct TakeDownInput {
    #[schema(max_length = 2048)]
    did: String,
    /// Also an account that this relay does not know yet: it is blocked ahead.
    force: Option<bool>,
}

/// Takes an account down: its events are refused from now on, and those in the log are erased.
#[utoipa::path(
    post, path = "/admin/repo/takeDown", tag = "admin: accounts", request_body = TakeDownInput,
    responses((status = 200, body = Success))
)]
pub(super) async fn take_down(
    State(shared): State<Shared>,
    Input(input): Input<TakeDownInput>,
) -> Reply<Success> {
    check_did(&input.did)?;
    match shared.accounts.take_down(&input.did, input.force == Some(true)).await? {
        Some(_state) => success(),
        None => {
            Err(repo_not_found("this relay does not know the account; \"force\" blocks it ahead"))
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ReverseInput {
    #[schema(max_length = 2048)]
    did: String,
}

/// Reverses a take-down: events of the account are taken again. What was erased stays so.
#[utoipa::path(
    post, path = "/admin/repo/reverseTakedown", tag = "admin: accounts",
    request_body = ReverseInput, responses((status = 200, body = Success))
)]
pub(super) async fn reverse_takedown(
    State(shared): State<Shared>,
    Input(input): Input<ReverseInput>,
) -> Reply<Success> {
    check_did(&input.did)?;
    match shared.accounts.reverse_takedown(&input.did).await? {
        Some(_state) => success(),
        None => Err(repo_not_found("this relay does not know the account")),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListTakedownsInput {
    cursor: Option<String>,
    #[param(minimum = 1, maximum = 1000, default = 500)]
    size: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Takedowns {
    dids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// The accounts that are taken down.
#[utoipa::path(
    get, path = "/admin/repo/takedowns", tag = "admin: accounts", params(ListTakedownsInput),
    responses((status = 200, body = Takedowns))
)]
pub(super) async fn list_takedowns(
    State(shared): State<Shared>,
    Input(input): Input<ListTakedownsInput>,
) -> Reply<Takedowns> {
    let size = page::size("size", input.size, 500, 1000)?;
    let after = AccountId(page::after(List::Takedowns, input.cursor.as_deref())?);
    let mut accounts = shared.store.takedowns_after(after, size + 1).await?;
    let cursor = page::cut(&mut accounts, size, List::Takedowns, |account| account.state.id.0);
    Ok(Json(Takedowns { dids: accounts.into_iter().map(|account| account.did).collect(), cursor }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AccountInput {
    #[param(max_length = 2048)]
    did: String,
}

/// An account as this relay keeps it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AccountRecord {
    did: String,
    id: u64,
    /// The host that its document names, as of its last event.
    host: Option<String>,
    /// What counts: the relay's own word before the host's.
    active: bool,
    #[schema(value_type = Option<String>)]
    status: Option<&'static str>,
    /// What its host says.
    upstream_active: bool,
    #[schema(value_type = Option<String>)]
    upstream_status: Option<&'static str>,
    /// What the relay itself says: `active`, `takendown`, or `throttled` by its host's limit.
    #[schema(value_type = String)]
    local_status: &'static str,
    rev: Option<String>,
    commit: Option<String>,
    /// The newest first.
    refusals: Vec<RefusalRecord>,
}

/// One account, with the last events of it that were refused.
#[utoipa::path(
    get, path = "/admin/repo/get", tag = "admin: accounts", params(AccountInput),
    responses((status = 200, body = AccountRecord))
)]
pub(super) async fn get_account(
    State(shared): State<Shared>,
    Input(input): Input<AccountInput>,
) -> Reply<AccountRecord> {
    check_did(&input.did)?;
    let detail = shared.hosts.account_detail(&input.did).await.map_err(ApiError::from)?;
    let AccountDetail { did, state, host, refusals } = detail;
    let state = state.ok_or_else(|| repo_not_found("this relay does not know the account"))?;
    let (active, status) = standing(&state);
    Ok(Json(AccountRecord {
        did,
        id: state.id.0,
        host: host.map(|host| host.row.hostname),
        active,
        status,
        upstream_active: state.upstream.active,
        upstream_status: state.upstream.word.label(),
        local_status: match state.local {
            LocalStatus::Active => "active",
            LocalStatus::Takendown => "takendown",
            LocalStatus::Throttled => "throttled",
        },
        rev: state.head.map(|head| rev_text(&head)),
        commit: state.head.map(|head| commit_cid(&head)),
        refusals: refusals.iter().map(RefusalRecord::new).collect(),
    }))
}
