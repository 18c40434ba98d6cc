//! The audit log: every change that an operator asks for, with who, from where, what and how it
//! ended.

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::Method;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::{
        Shared,
        auth::KeyNumber,
        client::{self, Client},
        input::{self, Given, Input},
        page::{self, List},
        reply::{ApiError, ErrorName, Reply},
        time::rfc3339,
    },
    store::{AuditEntry, AuditRow},
};

/// Parameters that say what a change is about, in the order in which they are looked for.
const SUBJECTS: [&str; 5] = ["did", "host", "hostname", "domain", "id"];
/// The prefix that all routes share.
const PREFIX: &str = "/admin/";

/// Lets a request through and notes it if it is one for a change.
pub(crate) async fn note_changes(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if *request.method() != Method::POST {
        return Ok(next.run(request).await);
    }
    let Client(remote) = client::of(&shared, request.extensions(), request.headers())?;
    let key = request.extensions().get::<KeyNumber>().map_or(0, |key| key.0);
    let path = request.uri().path();
    let action = path.strip_prefix(PREFIX).unwrap_or(path).to_owned();
    let (parts, body) = request.into_parts();
    let body = input::read_body(&parts, body).await?;
    // What can't be read changes nothing: the handler says what is wrong.
    let given = Given::of(&parts, &body).unwrap_or_default();
    let request = Request::from_parts(parts, Body::from(body));
    let response = next.run(request).await;
    let outcome = response.extensions().get::<ErrorName>().map_or("ok", |name| name.0);
    let subject = SUBJECTS.into_iter().find_map(|name| given.text(name)).unwrap_or_default();
    tracing::info!(action, subject, key, %remote, outcome, "asked for by the operator");
    let entry = AuditEntry {
        actor: format!("key {key}"),
        remote: remote.to_string(),
        action,
        subject: subject.to_owned(),
        detail: given.to_json(),
        outcome: outcome.to_owned(),
    };
    if let Err(error) = shared.store.audit_append(entry).await {
        // The change is made, and stands in the log above.
        tracing::error!(%error, "the audit log could not be written");
    }
    Ok(response)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListInput {
    cursor: Option<String>,
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditReply {
    entries: Vec<AuditRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// A change that an operator asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditRecord {
    id: u64,
    at: String,
    /// Which of the configured keys the request came with.
    actor: String,
    /// The client's address.
    remote: String,
    /// The route, without its prefix.
    action: String,
    /// The account, host, domain or consumer.
    subject: String,
    /// All parameters, as JSON.
    detail: String,
    /// `ok`, or the name of the error.
    outcome: String,
}

impl AuditRecord {
    fn new(row: AuditRow) -> Self {
        let AuditEntry { actor, remote, action, subject, detail, outcome } = row.entry;
        let at = rfc3339(row.at);
        Self { id: row.id, at, actor, remote, action, subject, detail, outcome }
    }
}

/// The changes that operators asked for, the newest first.
#[utoipa::path(
    get, path = "/admin/audit", tag = "admin: audit", params(ListInput),
    responses((status = 200, body = AuditReply))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Input(input): Input<ListInput>,
) -> Reply<AuditReply> {
    let size = page::size("limit", input.limit, 100, 1000)?;
    let before = page::after(List::Audit, input.cursor.as_deref())?;
    let mut rows = shared.store.audit_list(Some(before).filter(|id| *id > 0), size + 1).await?;
    let cursor = page::cut(&mut rows, size, List::Audit, |row| row.id);
    Ok(Json(AuditReply { entries: rows.into_iter().map(AuditRecord::new).collect(), cursor }))
}
