//! How the relay fares: numbers for the dashboard, signatures, and the event log.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_lite::{Stream, StreamExt as _, stream};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{Shared, reply::Reply},
    store::HostStatus,
    telemetry::Totals,
};

const STREAM_INTERVAL: Duration = Duration::from_secs(1);

/// Counters are since the start of the process, all else is as of now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stats {
    /// The newest event, and the oldest one that consumers can still get.
    newest_seq: u64,
    oldest_seq: Option<u64>,
    log_bytes: u64,
    log_writable: bool,
    events_received: u64,
    events_forwarded: u64,
    events_refused: u64,
    bytes_received: u64,
    bytes_sent: u64,
    /// Accounts in memory, and frames that wait for an identity.
    accounts_loaded: u64,
    events_parked: u64,
    consumers: u64,
    hosts: HostCount,
    /// Whether lanes and library have differed on a signature, or the lanes failed their self-test.
    signature_alarm: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HostCount {
    connected: u64,
    active: u64,
    idle: u64,
    offline: u64,
    throttled: u64,
    banned: u64,
}

async fn collect(shared: &Shared) -> Reply<Stats> {
    let bounds = shared.log.bounds();
    let Totals { received, forwarded, refused, received_bytes, sent_bytes, accounts, parked } =
        shared.tallies.totals();
    let counts = shared.hosts.counts().await?;
    let of = |wanted: HostStatus| {
        let mut pairs = HostStatus::ALL.into_iter().zip(counts.by_status);
        pairs.find(|(status, _)| *status == wanted).map_or(0, |(_, count)| count)
    };
    Ok(Json(Stats {
        newest_seq: bounds.newest.0,
        oldest_seq: bounds.oldest.map(|seq| seq.0),
        log_bytes: bounds.bytes,
        log_writable: shared.log.health().writable,
        events_received: received,
        events_forwarded: forwarded,
        events_refused: refused,
        bytes_received: received_bytes,
        bytes_sent: sent_bytes,
        accounts_loaded: accounts,
        events_parked: parked,
        consumers: shared.consumers.count() as u64,
        hosts: HostCount {
            connected: counts.connected,
            active: of(HostStatus::Active),
            idle: of(HostStatus::Idle),
            offline: of(HostStatus::Offline),
            throttled: of(HostStatus::Throttled),
            banned: of(HostStatus::Banned),
        },
        signature_alarm: Signatures::of(&ecdsa::status()).alarm,
    }))
}

/// Numbers that say how the relay fares.
#[utoipa::path(
    get, path = "/admin/stats", tag = "admin: status", responses((status = 200, body = Stats))
)]
pub(super) async fn stats(State(shared): State<Shared>) -> Reply<Stats> {
    collect(&shared).await
}

/// The same once a second, as server-sent events, until the relay stops or the client goes.
pub(super) async fn stream(
    State(shared): State<Shared>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ticks = stream::unfold((shared, true), async |(shared, first)| {
        if !first {
            tokio::time::sleep(STREAM_INTERVAL).await;
        }
        let Json(stats) = collect(&shared).await.ok().filter(|_| shared.is_ready())?;
        let event = Event::default().json_data(&stats).ok()?;
        Some((Ok(event), (shared, false)))
    });
    Sse::new(ticks.boxed()).keep_alive(KeepAlive::default())
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Signatures {
    /// What verifies batches of signatures, and why.
    in_use: String,
    /// Batches verified in lanes, and those of them that the library verified as well.
    batches: u64,
    audits: u64,
    /// Signatures that lanes left to the library.
    recomputed: u64,
    /// Signatures on which lanes and library differed.
    differences: u64,
    alarm: bool,
    /// What is needed to repeat the first difference.
    first_difference: Option<String>,
}

impl Signatures {
    fn of(status: &ecdsa::Status) -> Self {
        let failed =
            matches!(status.in_use, ecdsa::InUse::LibrarySelfTest | ecdsa::InUse::LibraryAlarm);
        Self {
            in_use: status.in_use.to_string(),
            batches: status.groups,
            audits: status.audits,
            recomputed: status.recomputed,
            differences: status.differences,
            alarm: failed || status.differences > 0,
            first_difference: status.first_difference.as_ref().map(ToString::to_string),
        }
    }
}

/// How signatures are verified, and whether the two ways have ever differed.
#[utoipa::path(
    get, path = "/admin/signatures", tag = "admin: status",
    responses((status = 200, body = Signatures))
)]
pub(super) async fn signatures() -> Reply<Signatures> {
    Ok(Json(Signatures::of(&ecdsa::status())))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LogStatus {
    oldest_seq: Option<u64>,
    newest_seq: u64,
    /// The newest event that survives power loss.
    synced_seq: u64,
    bytes: u64,
    window_seconds: u64,
    /// 0 is no limit.
    window_bytes: u64,
    /// While it is false no events are taken from hosts.
    writable: bool,
    why: Option<String>,
    free_bytes: Option<u64>,
    segments: u64,
    segments_damaged: u64,
    write_errors: u64,
    sync_errors: u64,
    /// Events of taken-down accounts, overwritten on disk since the start.
    events_erased: u64,
    /// Take-downs whose older events are not all overwritten yet.
    erasures_pending: u64,
}

/// What the event log holds, and how it is with its disk.
#[utoipa::path(
    get, path = "/admin/log", tag = "admin: status", responses((status = 200, body = LogStatus))
)]
pub(super) async fn log(State(shared): State<Shared>) -> Reply<LogStatus> {
    let (bounds, window, health) = (shared.log.bounds(), shared.log.window(), shared.log.health());
    Ok(Json(LogStatus {
        oldest_seq: bounds.oldest.map(|seq| seq.0),
        newest_seq: bounds.newest.0,
        synced_seq: bounds.synced.0,
        bytes: bounds.bytes,
        window_seconds: window.age.as_secs(),
        window_bytes: window.bytes.unwrap_or(0),
        writable: health.writable,
        why: health.why.map(|why| why.to_string()),
        free_bytes: health.free_bytes,
        segments: health.stats.segments,
        segments_damaged: health.stats.segments_damaged,
        write_errors: health.stats.write_errors,
        sync_errors: health.stats.sync_errors,
        events_erased: health.stats.events_erased,
        erasures_pending: health.stats.erasures_pending,
    }))
}

#[cfg(test)]
mod tests {
    use ecdsa::{Curve, Difference, InUse, Status, sign::SigningKey};

    use super::*;

    fn status(in_use: InUse, first_difference: Option<Difference>) -> Status {
        let differences = u64::from(first_difference.is_some());
        Status { in_use, groups: 2048, audits: 2, differences, first_difference, recomputed: 7 }
    }

    #[test]
    fn a_difference_is_an_alarm_and_can_be_repeated_from_what_is_told() {
        let key = SigningKey::from_seed(Curve::P256, b"alarm").verifying_key();
        let difference = Difference { key, digest: [0xab; 32], signature: [0xcd; 64], lanes: true };
        let told = Signatures::of(&status(InUse::LibraryAlarm, Some(difference)));
        assert!(told.alarm && told.in_use.starts_with("library"));
        assert_eq!((told.batches, told.audits, told.recomputed, told.differences), (2048, 2, 7, 1));
        let text = told.first_difference.unwrap();
        assert!(text.contains(&"ab".repeat(32)) && text.contains(&"cd".repeat(64)), "{text}");
    }

    #[test]
    fn lanes_that_fail_their_self_test_are_an_alarm_and_a_choice_is_none() {
        assert!(Signatures::of(&status(InUse::LibrarySelfTest, None)).alarm);
        for in_use in [InUse::Lanes, InUse::LibraryChosen, InUse::LibraryNoLanes] {
            let told = Signatures::of(&status(in_use, None));
            assert!(!told.alarm && told.first_difference.is_none(), "{in_use}");
        }
    }
}
