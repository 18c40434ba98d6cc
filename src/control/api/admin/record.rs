//! The record of a host in `pds/list`: the fields of the reference relay, old and new, and ours.

use ports::{HostLimits, Strictness};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{explain::strictness_label, time::rfc3339},
    hosts::HostView,
    store::HostStatus,
};

/// A share of the account limit from which on the operator should look at it.
const ALERT_SHARE: f64 = 0.8;

/// A host with its state, its counters and its limits. A rate of -1 is none.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HostRecord {
    #[serde(rename = "ID")]
    id: u32,
    created_at: String,
    host: String,
    did: String,
    #[serde(rename = "SSL")]
    ssl: bool,
    /// -1: nothing has come from the host yet.
    cursor: i64,
    registered: bool,
    blocked: bool,
    rate_limit: i64,
    crawl_rate_limit: i64,
    repo_count: u64,
    repo_limit: u64,
    hourly_event_limit: i64,
    daily_event_limit: i64,
    has_active_connection: bool,
    events_seen_since_startup: u64,
    per_second_event_rate: Rate,
    per_hour_event_rate: Rate,
    per_day_event_rate: Rate,
    crawl_rate: Rate,
    user_count: u64,
    account_limit_alerts_silenced: bool,
    /// `ok`, or `warning` near the account limit.
    #[schema(value_type = String)]
    account_limit_alert_state: &'static str,
    #[schema(value_type = String)]
    status: &'static str,
    #[schema(value_type = Option<String>)]
    status_reason: Option<&'static str>,
    status_since: String,
    /// When the status ends by itself.
    status_until: Option<String>,
    /// Why the host is read more slowly than it sends, and until when.
    #[schema(value_type = Option<String>)]
    slowed_by: Option<&'static str>,
    slowed_until: Option<String>,
    trusted: bool,
    /// `strict`, `lenient`, or `default`.
    #[schema(value_type = String)]
    strictness: &'static str,
    /// What holds now: a host that has shown that it keeps the strict rules is held to them.
    #[schema(value_type = String)]
    strictness_in_force: &'static str,
    last_error: Option<String>,
    last_error_at: Option<String>,
    /// What the connection is at.
    #[schema(value_type = String)]
    phase: &'static str,
    events_forwarded_since_startup: u64,
    events_refused_since_startup: u64,
    connect_failures: u32,
    next_attempt_seconds: Option<u64>,
    connected_since: Option<String>,
    last_event_at: Option<String>,
    invalid_events_since_startup: u64,
    forced_lookups_since_startup: u64,
    new_accounts_since_startup: u64,
    /// Quarantines that are not forgiven yet.
    quarantines: u32,
}

/// At most so many events in so many seconds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Rate {
    max: i64,
    window: u64,
}

impl HostRecord {
    pub(crate) fn new(host: &HostView) -> Self {
        let HostView { row, live } = host;
        let HostLimits { per_second, per_hour, per_day } = live.limits;
        let (second, hour, day) = (rate(per_second), rate(per_hour), rate(per_day));
        let near = row.account_count as f64 >= row.account_limit as f64 * ALERT_SHARE;
        Self {
            id: row.id.0,
            created_at: rfc3339(row.created_at),
            host: row.hostname.clone(),
            did: String::new(),
            ssl: row.tls,
            cursor: live.cursor.map_or(-1, |seq| seq.0 as i64),
            registered: live.status == HostStatus::Active,
            blocked: live.status == HostStatus::Banned,
            rate_limit: second,
            crawl_rate_limit: 0,
            repo_count: row.account_count,
            repo_limit: row.account_limit,
            hourly_event_limit: hour,
            daily_event_limit: day,
            has_active_connection: live.connected,
            events_seen_since_startup: live.received,
            per_second_event_rate: Rate { max: second, window: 1 },
            per_hour_event_rate: Rate { max: hour, window: 3600 },
            per_day_event_rate: Rate { max: day, window: 86_400 },
            crawl_rate: Rate { max: 0, window: 1 },
            user_count: row.account_count,
            account_limit_alerts_silenced: row.alerts_silenced,
            account_limit_alert_state: if near { "warning" } else { "ok" },
            status: live.status.label(),
            status_reason: live.status_reason,
            status_since: rfc3339(row.status_since),
            status_until: live.status_until.map(rfc3339),
            slowed_by: live.slowed.map(|slowed| slowed.why.label()),
            slowed_until: live.slowed.and_then(|slowed| slowed.until).map(rfc3339),
            trusted: row.trusted,
            strictness: setting_label(row.strictness),
            strictness_in_force: strictness_label(live.strictness),
            last_error: live.last_error.clone(),
            last_error_at: row.last_error_at.map(rfc3339),
            phase: live.phase,
            events_forwarded_since_startup: live.forwarded,
            events_refused_since_startup: live.refused,
            connect_failures: live.failures,
            next_attempt_seconds: live.next_attempt_in.map(|wait| wait.as_secs()),
            connected_since: live.connected_since.map(rfc3339),
            last_event_at: live.last_event_at.map(rfc3339),
            invalid_events_since_startup: live.deeds.invalid,
            forced_lookups_since_startup: live.deeds.forced_lookups,
            new_accounts_since_startup: live.deeds.new_accounts,
            quarantines: live.quarantines,
        }
    }
}

/// A rate as the record tells it: -1 is none.
fn rate(limit: Option<u32>) -> i64 {
    limit.map_or(-1, i64::from)
}

fn setting_label(strictness: Option<Strictness>) -> &'static str {
    strictness.map_or("default", strictness_label)
}
