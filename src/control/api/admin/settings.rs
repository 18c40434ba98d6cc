//! Settings that change while the relay runs, and outlive it: they win over the command line.

use std::time::Duration;

use axum::{Json, extract::State};
use ports::{LogWindow, Strictness};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::{
        Shared,
        consumer::ConsumerLimits,
        input::Input,
        reply::{ApiError, Reply, Success, success},
    },
    hosts::HostsError,
    store::{Store, StoreError},
};

/// Names in the store.
const CRAWL_ENABLED: &str = "crawl_enabled";
const NEW_HOSTS_PER_DAY: &str = "new_hosts_per_day";
const STRICTNESS: &str = "strictness";
const REPLAY_WINDOW: &str = "replay_window_seconds";
const REPLAY_BYTES: &str = "replay_bytes";
const MAX_CONSUMERS: &str = "max_consumers";
const MAX_CONSUMERS_PER_ADDRESS: &str = "max_consumers_per_address";
const MAX_CONNECTIONS_PER_ADDRESS: &str = "max_connections_per_address";
const DISCOVERY_INTERVAL: &str = "discovery_interval_seconds";

/// The shortest window: below it no consumer could come back.
const WINDOW_SECONDS_MIN: u64 = 60;
const WINDOW_SECONDS_MAX: u64 = 100 * 365 * 86_400;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DefaultStrictness {
    /// Commits must be whole.
    Strict,
    /// Commits without `prevData` are passed on, and counted.
    Lenient,
}

impl From<DefaultStrictness> for Strictness {
    fn from(word: DefaultStrictness) -> Self {
        match word {
            DefaultStrictness::Strict => Self::Strict,
            DefaultStrictness::Lenient => Self::Lenient,
        }
    }
}

impl From<Strictness> for DefaultStrictness {
    fn from(strictness: Strictness) -> Self {
        match strictness {
            Strictness::Strict => Self::Strict,
            Strictness::Lenient => Self::Lenient,
        }
    }
}

/// All settings as they hold now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Settings {
    /// Whether the public may ask for hosts to be crawled.
    crawl_enabled: bool,
    /// New hosts that the public may add within 24 hours.
    new_hosts_per_day: u64,
    /// Of hosts without a setting of their own.
    strictness: DefaultStrictness,
    /// How far back consumers can go.
    replay_window_seconds: u64,
    /// Bytes of the event log at most; 0 is no limit.
    replay_bytes: u64,
    max_consumers: u64,
    /// 0 is no limit.
    max_consumers_per_address: u64,
    /// HTTP connections; 0 is no limit.
    max_connections_per_address: u64,
    /// Between looks through the hosts of other relays; 0 is never.
    discovery_interval_seconds: u64,
}

/// Settings to change; those not given stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct SettingsPatch {
    crawl_enabled: Option<bool>,
    new_hosts_per_day: Option<u64>,
    strictness: Option<DefaultStrictness>,
    #[schema(minimum = 60, maximum = 3153600000_u64)]
    replay_window_seconds: Option<u64>,
    /// 0 is no limit.
    replay_bytes: Option<u64>,
    max_consumers: Option<u64>,
    /// 0 is no limit.
    max_consumers_per_address: Option<u64>,
    /// 0 is no limit.
    max_connections_per_address: Option<u64>,
    /// 0 is never.
    discovery_interval_seconds: Option<u64>,
}

impl SettingsPatch {
    fn check(&self) -> Result<(), ApiError> {
        let window = WINDOW_SECONDS_MIN..=WINDOW_SECONDS_MAX;
        if self.replay_window_seconds.is_some_and(|seconds| !window.contains(&seconds)) {
            return Err(ApiError::invalid(
                "\"replay_window_seconds\" must be between a minute and a hundred years",
            ));
        }
        Ok(())
    }

    /// The settings as the store keeps them.
    fn stored(&self) -> Vec<(&'static str, String)> {
        let strictness = self.strictness.map(|word| match word {
            DefaultStrictness::Strict => "strict".to_owned(),
            DefaultStrictness::Lenient => "lenient".to_owned(),
        });
        let number = |value: Option<u64>| value.map(|number| number.to_string());
        let all = [
            (CRAWL_ENABLED, self.crawl_enabled.map(|enabled| enabled.to_string())),
            (NEW_HOSTS_PER_DAY, number(self.new_hosts_per_day)),
            (STRICTNESS, strictness),
            (REPLAY_WINDOW, number(self.replay_window_seconds)),
            (REPLAY_BYTES, number(self.replay_bytes)),
            (MAX_CONSUMERS, number(self.max_consumers)),
            (MAX_CONSUMERS_PER_ADDRESS, number(self.max_consumers_per_address)),
            (MAX_CONNECTIONS_PER_ADDRESS, number(self.max_connections_per_address)),
            (DISCOVERY_INTERVAL, number(self.discovery_interval_seconds)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// What was set in an earlier run. A value that can't be read counts as not set.
    async fn load(store: &Store) -> Result<Self, StoreError> {
        async fn read<T: std::str::FromStr>(
            store: &Store,
            name: &'static str,
        ) -> Result<Option<T>, StoreError> {
            Ok(store.setting(name).await?.and_then(|text| text.parse().ok()))
        }
        let strictness = store.setting(STRICTNESS).await?;
        Ok(Self {
            crawl_enabled: read(store, CRAWL_ENABLED).await?,
            new_hosts_per_day: read(store, NEW_HOSTS_PER_DAY).await?,
            strictness: match strictness.as_deref() {
                Some("strict") => Some(DefaultStrictness::Strict),
                Some("lenient") => Some(DefaultStrictness::Lenient),
                _ => None,
            },
            replay_window_seconds: read(store, REPLAY_WINDOW).await?,
            replay_bytes: read(store, REPLAY_BYTES).await?,
            max_consumers: read(store, MAX_CONSUMERS).await?,
            max_consumers_per_address: read(store, MAX_CONSUMERS_PER_ADDRESS).await?,
            max_connections_per_address: read(store, MAX_CONNECTIONS_PER_ADDRESS).await?,
            discovery_interval_seconds: read(store, DISCOVERY_INTERVAL).await?,
        })
    }

    /// Puts the settings in force.
    async fn apply(&self, shared: &Shared) -> Result<(), HostsError> {
        if self.crawl_enabled.is_some() || self.new_hosts_per_day.is_some() {
            shared.hosts.set_crawl(self.crawl_enabled, self.new_hosts_per_day).await?;
        }
        if let Some(word) = self.strictness {
            shared.hosts.set_default_strictness(word.into()).await?;
        }
        if self.replay_window_seconds.is_some() || self.replay_bytes.is_some() {
            let LogWindow { age, bytes } = shared.log.window();
            shared.log.set_window(LogWindow {
                age: self.replay_window_seconds.map_or(age, Duration::from_secs),
                bytes: self.replay_bytes.map_or(bytes, |bytes| Some(bytes).filter(|b| *b > 0)),
            });
        }
        let ConsumerLimits { all, per_address } = shared.consumers.limits();
        shared.consumers.set_limits(ConsumerLimits {
            all: self.max_consumers.map_or(all, |max| max as usize),
            per_address: self.max_consumers_per_address.map_or(per_address, limit),
        });
        if let Some(max) = self.max_connections_per_address {
            shared.addresses.set_max(limit(max));
        }
        if let Some(seconds) = self.discovery_interval_seconds {
            shared.discoverer.set_interval(Duration::from_secs(seconds));
        }
        Ok(())
    }
}

fn limit(number: u64) -> Option<usize> {
    Some(number as usize).filter(|number| *number > 0)
}

/// Puts in force what was set in an earlier run.
pub(crate) async fn restore(shared: &Shared) -> Result<(), HostsError> {
    let patch = SettingsPatch::load(&shared.store).await?;
    if patch != SettingsPatch::default() {
        tracing::info!(?patch, "settings made through the admin API hold");
        patch.apply(shared).await?;
    }
    Ok(())
}

async fn change(shared: &Shared, patch: SettingsPatch) -> Reply<Success> {
    patch.check()?;
    patch.apply(shared).await?;
    for (name, value) in patch.stored() {
        shared.store.set_setting(name, value).await?;
    }
    success()
}

/// The settings as they hold now.
#[utoipa::path(
    get, path = "/admin/settings", tag = "admin: settings",
    responses((status = 200, body = Settings))
)]
pub(super) async fn get_settings(State(shared): State<Shared>) -> Reply<Settings> {
    let (crawl_enabled, new_hosts_per_day) = shared.hosts.crawl_settings().await?;
    let LogWindow { age, bytes } = shared.log.window();
    let ConsumerLimits { all, per_address } = shared.consumers.limits();
    Ok(Json(Settings {
        crawl_enabled,
        new_hosts_per_day,
        strictness: shared.hosts.default_strictness().await?.into(),
        replay_window_seconds: age.as_secs(),
        replay_bytes: bytes.unwrap_or(0),
        max_consumers: all as u64,
        max_consumers_per_address: per_address.unwrap_or(0) as u64,
        max_connections_per_address: shared.addresses.max().unwrap_or(0) as u64,
        discovery_interval_seconds: shared.discoverer.interval().as_secs(),
    }))
}

/// Changes settings, at once and for later runs.
#[utoipa::path(
    post, path = "/admin/settings", tag = "admin: settings", request_body = SettingsPatch,
    responses((status = 200, body = Success))
)]
pub(super) async fn set_settings(
    State(shared): State<Shared>,
    Input(patch): Input<SettingsPatch>,
) -> Reply<Success> {
    if patch == SettingsPatch::default() {
        return Err(ApiError::invalid("give at least one setting; GET shows which there are"));
    }
    change(&shared, patch).await
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Enabled {
    enabled: bool,
}

/// Whether the public may ask for hosts to be crawled.
#[utoipa::path(
    get, path = "/admin/subs/getEnabled", tag = "admin: settings",
    responses((status = 200, body = Enabled))
)]
pub(super) async fn get_enabled(State(shared): State<Shared>) -> Reply<Enabled> {
    let (enabled, _) = shared.hosts.crawl_settings().await?;
    Ok(Json(Enabled { enabled }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SetEnabledInput {
    enabled: bool,
}

/// Lets the public ask for hosts to be crawled, or not.
#[utoipa::path(
    post, path = "/admin/subs/setEnabled", tag = "admin: settings", params(SetEnabledInput),
    responses((status = 200, body = Success))
)]
pub(super) async fn set_enabled(
    State(shared): State<Shared>,
    Input(input): Input<SetEnabledInput>,
) -> Reply<Success> {
    let crawl_enabled = Some(input.enabled);
    change(&shared, SettingsPatch { crawl_enabled, ..SettingsPatch::default() }).await
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PerDayLimit {
    limit: u64,
}

/// How many new hosts the public may add within 24 hours.
#[utoipa::path(
    get, path = "/admin/subs/perDayLimit", tag = "admin: settings",
    responses((status = 200, body = PerDayLimit))
)]
pub(super) async fn per_day_limit(State(shared): State<Shared>) -> Reply<PerDayLimit> {
    let (_, limit) = shared.hosts.crawl_settings().await?;
    Ok(Json(PerDayLimit { limit }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SetPerDayLimitInput {
    limit: u64,
}

/// Sets how many new hosts the public may add within 24 hours.
#[utoipa::path(
    post, path = "/admin/subs/setPerDayLimit", tag = "admin: settings",
    params(SetPerDayLimitInput), responses((status = 200, body = Success))
)]
pub(super) async fn set_per_day_limit(
    State(shared): State<Shared>,
    Input(input): Input<SetPerDayLimitInput>,
) -> Reply<Success> {
    let new_hosts_per_day = Some(input.limit);
    change(&shared, SettingsPatch { new_hosts_per_day, ..SettingsPatch::default() }).await
}
