//! What a host may: limits and strictness.

use axum::extract::State;
use ports::Strictness;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    api::{
        Shared,
        input::Input,
        reply::{ApiError, Reply, Success, success},
        xrpc::{host_address, host_not_found},
    },
    store::HostPatch,
};

/// What a request says of a host's limits; what it does not say stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) accounts: Option<u64>,
    pub(super) per_second: Option<u64>,
    pub(super) per_hour: Option<u64>,
    pub(super) per_day: Option<u64>,
    /// Rates that are not given follow from the account limit again.
    pub(super) default_rates: bool,
    pub(super) alerts_silenced: Option<bool>,
}

impl Limits {
    pub(super) fn patch(self) -> HostPatch {
        let rate = |rate: Option<u64>| rate.map(Some).or(self.default_rates.then_some(None));
        HostPatch {
            account_limit: self.accounts,
            per_second: rate(self.per_second),
            per_hour: rate(self.per_hour),
            per_day: rate(self.per_day),
            alerts_silenced: self.alerts_silenced,
            ..HostPatch::default()
        }
    }
}

/// What is not given stays as it is; something must be given.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ChangeLimitsInput {
    host: String,
    per_second: Option<u64>,
    per_hour: Option<u64>,
    per_day: Option<u64>,
    /// Taken for compatibility, without effect: this relay fetches no repositories.
    crawl_rate: Option<u64>,
    /// Accounts at most.
    repo_limit: Option<u64>,
    account_limit_alerts_silenced: Option<bool>,
    /// Event rates that are not given follow from the account limit again.
    default_rates: Option<bool>,
}

impl ChangeLimitsInput {
    fn limits(&self) -> Limits {
        Limits {
            accounts: self.repo_limit,
            per_second: self.per_second,
            per_hour: self.per_hour,
            per_day: self.per_day,
            default_rates: self.default_rates == Some(true),
            alerts_silenced: self.account_limit_alerts_silenced,
        }
    }
}

/// Changes the limits of a host, at once.
#[utoipa::path(
    post, path = "/admin/pds/changeLimits", tag = "admin: hosts", request_body = ChangeLimitsInput,
    responses((status = 200, body = Success))
)]
pub(super) async fn change_limits(
    State(shared): State<Shared>,
    Input(input): Input<ChangeLimitsInput>,
) -> Reply<Success> {
    let address = host_address(&input.host)?;
    let patch = input.limits().patch();
    let others = input.crawl_rate.is_some() || input.default_rates.is_some();
    if patch == HostPatch::default() && !others {
        return Err(ApiError::invalid(
            "give at least one of repo_limit, per_second, per_hour, per_day, crawl_rate, \
             default_rates, account_limit_alerts_silenced",
        ));
    }
    match shared.hosts.update(&address.hostname, patch).await? {
        Some(_row) => success(),
        None => Err(host_not_found(&address.hostname)),
    }
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StrictnessWord {
    /// Commits must be whole.
    Strict,
    /// Commits without `prevData` are passed on, and counted.
    Lenient,
    /// As the relay is set.
    Default,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct SetStrictnessInput {
    host: String,
    strictness: StrictnessWord,
}

/// Sets how strictly the commits of a host are held to the protocol.
#[utoipa::path(
    post, path = "/admin/pds/setStrictness", tag = "admin: hosts",
    request_body = SetStrictnessInput, responses((status = 200, body = Success))
)]
pub(super) async fn set_strictness(
    State(shared): State<Shared>,
    Input(input): Input<SetStrictnessInput>,
) -> Reply<Success> {
    let address = host_address(&input.host)?;
    let strictness = match input.strictness {
        StrictnessWord::Strict => Some(Strictness::Strict),
        StrictnessWord::Lenient => Some(Strictness::Lenient),
        StrictnessWord::Default => None,
    };
    match shared.hosts.set_strictness(&address.hostname, strictness).await? {
        Some(_row) => success(),
        None => Err(host_not_found(&address.hostname)),
    }
}
