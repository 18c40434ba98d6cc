//! Why is it so? What this relay can tell of a host or an account: for owners of hosts who miss their
//! events, and for operators.

#![allow(unused_qualifications, reason = "the macro that describes routes writes them")]

use axum::{Json, extract::State};
use ports::{EventKind, Strictness};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Shared,
    input::Input,
    reply::{ApiError, Reply},
    time::rfc3339,
    xrpc::{check_did, host_address, host_not_found, repo_not_found, rev_text, standing},
};
use crate::hosts::{AccountDetail, HostDetail, HostView, Refused};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExplainInput {
    /// A hostname or URL.
    #[param(max_length = 512)]
    host: Option<String>,
    /// An account; give one of the two.
    #[param(max_length = 2048)]
    did: Option<String>,
}

/// Of a host or of an account, as was asked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explanation {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<HostExplained>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<AccountExplained>,
    /// The last events that were refused, the newest first; in memory, so none from before the
    /// relay's last start.
    refusals: Vec<RefusalRecord>,
}

#[derive(Debug, Serialize, ToSchema)]
struct HostExplained {
    hostname: String,
    #[schema(value_type = String)]
    status: &'static str,
    /// Why the host has this status, if that is not plain.
    #[schema(value_type = Option<String>)]
    status_reason: Option<&'static str>,
    status_since: String,
    /// When it ends by itself.
    status_until: Option<String>,
    connected: bool,
    connected_since: Option<String>,
    /// When an attempt to connect is made next, if one is planned.
    next_attempt_seconds: Option<u64>,
    /// The last event that is in the log or was refused.
    seq: Option<u64>,
    last_event_at: Option<String>,
    accounts: u64,
    account_limit: u64,
    events_per_second_limit: Option<u32>,
    events_per_hour_limit: Option<u32>,
    events_per_day_limit: Option<u32>,
    /// Why the host is read more slowly than it sends, and until when.
    #[schema(value_type = Option<String>)]
    slowed_by: Option<&'static str>,
    slowed_until: Option<String>,
    /// `strict` or `lenient`: the rules that its commits have to keep.
    #[schema(value_type = String)]
    strictness: &'static str,
    /// Since the relay's last start.
    events_received: u64,
    events_forwarded: u64,
    events_refused: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct AccountExplained {
    did: String,
    /// Whether the relay knows it: an account that is known by refused events alone is not.
    known: bool,
    active: bool,
    #[schema(value_type = Option<String>)]
    status: Option<&'static str>,
    rev: Option<String>,
    host: Option<String>,
    #[schema(value_type = Option<String>)]
    host_status: Option<&'static str>,
}

/// An event that was not sent on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefusalRecord {
    at: String,
    /// One of the reasons that the metric of refusals has as labels.
    #[schema(value_type = String)]
    reason: &'static str,
    /// Its number in the host's stream.
    seq: Option<u64>,
    #[schema(value_type = Option<String>)]
    kind: Option<&'static str>,
    did: Option<String>,
}

impl RefusalRecord {
    pub(crate) fn new(refused: &Refused) -> Self {
        let Refused { at, refusal } = refused;
        Self {
            at: rfc3339(*at),
            reason: refusal.reason.label(),
            seq: refusal.host_seq.map(|seq| seq.0),
            kind: refusal.kind.map(EventKind::label),
            did: refusal.did.as_deref().map(str::to_owned),
        }
    }
}

/// Why events of a host or an account do not come out, as far as this relay can tell.
#[utoipa::path(
    get, path = "/explain", tag = "diagnosis", params(ExplainInput),
    responses((status = 200, body = Explanation))
)]
pub(crate) async fn explain(
    State(shared): State<Shared>,
    Input(input): Input<ExplainInput>,
) -> Reply<Explanation> {
    match (input.host, input.did) {
        (Some(host), None) => {
            let address = host_address(&host)?;
            match shared.hosts.detail(&address.hostname).await? {
                Some(detail) => Ok(Json(of_host(&detail))),
                None => Err(host_not_found(&address.hostname)),
            }
        }
        (None, Some(did)) => {
            check_did(&did)?;
            let detail = shared.hosts.account_detail(&did).await?;
            if detail.state.is_none() && detail.refusals.is_empty() {
                return Err(repo_not_found("no event of the account has come to this relay"));
            }
            Ok(Json(of_account(detail)))
        }
        _ => Err(ApiError::invalid("give either \"host\" or \"did\"")),
    }
}

fn of_host(detail: &HostDetail) -> Explanation {
    let HostDetail { view: HostView { row, live }, refusals } = detail;
    let host = HostExplained {
        hostname: row.hostname.clone(),
        status: live.status.label(),
        status_reason: live.status_reason,
        status_since: rfc3339(row.status_since),
        status_until: live.status_until.map(rfc3339),
        connected: live.connected,
        connected_since: live.connected_since.map(rfc3339),
        next_attempt_seconds: live.next_attempt_in.map(|wait| wait.as_secs()),
        seq: live.cursor.map(|seq| seq.0),
        last_event_at: live.last_event_at.map(rfc3339),
        accounts: row.account_count,
        account_limit: row.account_limit,
        events_per_second_limit: live.limits.per_second,
        events_per_hour_limit: live.limits.per_hour,
        events_per_day_limit: live.limits.per_day,
        slowed_by: live.slowed.map(|slowed| slowed.why.label()),
        slowed_until: live.slowed.and_then(|slowed| slowed.until).map(rfc3339),
        strictness: strictness_label(live.strictness),
        events_received: live.received,
        events_forwarded: live.forwarded,
        events_refused: live.refused,
    };
    Explanation { host: Some(host), account: None, refusals: records(refusals) }
}

fn of_account(detail: AccountDetail) -> Explanation {
    let AccountDetail { did, state, host, refusals } = detail;
    let (active, status) = state.as_ref().map_or((false, None), standing);
    let account = AccountExplained {
        did,
        known: state.is_some(),
        active,
        status,
        rev: state.and_then(|state| state.head).map(|head| rev_text(&head)),
        host_status: host.as_ref().map(|host| host.live.status.label()),
        host: host.map(|host| host.row.hostname),
    };
    Explanation { host: None, account: Some(account), refusals: records(&refusals) }
}

fn records(refusals: &[Refused]) -> Vec<RefusalRecord> {
    refusals.iter().map(RefusalRecord::new).collect()
}

pub(crate) fn strictness_label(strictness: Strictness) -> &'static str {
    match strictness {
        Strictness::Strict => "strict",
        Strictness::Lenient => "lenient",
    }
}
