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
    /// Whether lanes and library have differed on a signature.
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
        signature_alarm: ecdsa::status().differences > 0,
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

/// How signatures are verified, and whether the two ways have ever differed.
#[utoipa::path(
    get, path = "/admin/signatures", tag = "admin: status",
    responses((status = 200, body = Signatures))
)]
pub(super) async fn signatures() -> Reply<Signatures> {
    let status = ecdsa::status();
    let failed =
        matches!(status.in_use, ecdsa::InUse::LibrarySelfTest | ecdsa::InUse::LibraryAlarm);
    Ok(Json(Signatures {
        in_use: status.in_use.to_string(),
        batches: status.groups,
        audits: status.audits,
        recomputed: status.recomputed,
        differences: status.differences,
        alarm: failed || status.differences > 0,
        first_difference: status.first_difference.map(|difference| difference.to_string()),
    }))
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
