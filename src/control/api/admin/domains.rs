//! Domains whose hosts are banned, and domains whose hosts are trusted.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{
    Shared,
    input::Input,
    reply::{ApiError, Reply, Success, success},
};

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BannedDomains {
    banned_domains: Vec<String>,
}

/// The banned domains.
#[utoipa::path(
    get, path = "/admin/subs/listDomainBans", tag = "admin: domains",
    responses((status = 200, body = BannedDomains))
)]
pub(super) async fn list_bans(State(shared): State<Shared>) -> Reply<BannedDomains> {
    Ok(Json(BannedDomains { banned_domains: shared.store.domain_bans().await? }))
}

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct BanInput {
    /// A ban holds for the domain and all names below it.
    domain: String,
}

/// Bans a domain: connections to its hosts are cut, and none is made again.
#[utoipa::path(
    post, path = "/admin/subs/banDomain", tag = "admin: domains", request_body = BanInput,
    responses((status = 200, body = Success))
)]
pub(super) async fn ban(
    State(shared): State<Shared>,
    Input(input): Input<BanInput>,
) -> Reply<Success> {
    let domain = domain_name(&input.domain)?;
    if !shared.store.ban_domain(&domain).await? {
        let message = format!("{domain} is banned already");
        return Err(ApiError::bad_request("DomainBanned", message));
    }
    apply_bans(&shared).await
}

/// Lifts the ban of a domain.
#[utoipa::path(
    post, path = "/admin/subs/unbanDomain", tag = "admin: domains", request_body = BanInput,
    responses((status = 200, body = Success))
)]
pub(super) async fn unban(
    State(shared): State<Shared>,
    Input(input): Input<BanInput>,
) -> Reply<Success> {
    let domain = domain_name(&input.domain)?;
    shared.store.unban_domain(&domain).await?;
    apply_bans(&shared).await
}

async fn apply_bans(shared: &Shared) -> Reply<Success> {
    let domains = shared.store.domain_bans().await?;
    shared.hosts.set_domain_bans(domains).await?;
    success()
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TrustedDomains {
    trusted_domains: Vec<String>,
}

/// The domains whose hosts are trusted: those of the command line, then those added here.
#[utoipa::path(
    get, path = "/admin/pds/listTrustedDomains", tag = "admin: domains",
    responses((status = 200, body = TrustedDomains))
)]
pub(super) async fn list_trusted(State(shared): State<Shared>) -> Reply<TrustedDomains> {
    Ok(Json(TrustedDomains { trusted_domains: shared.hosts.trusted_domains().await? }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TrustInput {
    /// A name, `*.example.com` for all names below it, or `*` for all.
    domain: String,
}

/// As the seed's relay answers: true, not text.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Trusted {
    success: bool,
}

/// Trusts the hosts of a domain: they get high limits.
#[utoipa::path(
    post, path = "/admin/pds/addTrustedDomain", tag = "admin: domains", params(TrustInput),
    responses((status = 200, body = Trusted))
)]
pub(super) async fn trust(
    State(shared): State<Shared>,
    Input(input): Input<TrustInput>,
) -> Reply<Trusted> {
    let pattern = domain_pattern(&input.domain)?;
    if !shared.hosts.trust_domain(&pattern).await? {
        let message = format!("{pattern} is trusted already");
        return Err(ApiError::bad_request("DomainTrusted", message));
    }
    Ok(Json(Trusted { success: true }))
}

/// Trusts a domain no longer, unless the command line does.
#[utoipa::path(
    post, path = "/admin/pds/removeTrustedDomain", tag = "admin: domains", params(TrustInput),
    responses((status = 200, body = Trusted))
)]
pub(super) async fn distrust(
    State(shared): State<Shared>,
    Input(input): Input<TrustInput>,
) -> Reply<Trusted> {
    let pattern = domain_pattern(&input.domain)?;
    if !shared.hosts.untrust_domain(&pattern).await? {
        return Err(ApiError::not_found(
            "DomainNotTrusted",
            format!("{pattern} is not among the domains added through this API"),
        ));
    }
    Ok(Json(Trusted { success: true }))
}

fn domain_pattern(text: &str) -> Result<String, ApiError> {
    match text.strip_prefix('*') {
        None => domain_name(text),
        Some("") => Ok("*".to_owned()),
        Some(rest) => {
            let below = rest.strip_prefix('.');
            let below = below.ok_or_else(|| ApiError::invalid("a * stands before a dot"))?;
            domain_name(below).map(|name| format!("*.{name}"))
        }
    }
}

/// A domain: lower case, with at least one dot or a single label such as `test`.
fn domain_name(text: &str) -> Result<String, ApiError> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    // The host `localhost:PORT` is the only one with a port.
    let bare = match name.split_once(':') {
        Some(("localhost", port)) if port.parse::<u16>().is_ok() => "localhost",
        _ => &name,
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if bare.len() > 253 || !bare.split('.').all(label) {
        return Err(ApiError::invalid("\"domain\" is not a domain name"));
    }
    Ok(name)
}
