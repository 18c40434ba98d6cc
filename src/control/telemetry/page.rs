//! `/metrics` on the second port.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use ports::{LogBounds, LogControl, LogHealth};

use super::{Recorder, ShardTallies, process};
use crate::{
    hosts::{HostCounts, Hosts},
    identity::{IdentityStats, Resolver},
    store::HostStatus,
};

/// What a scrape looks at.
#[derive(Clone)]
pub(crate) struct Page(Arc<Sources>);

struct Sources {
    recorder: Recorder,
    tallies: ShardTallies,
    hosts: Hosts,
    resolver: Resolver,
    log: Arc<dyn LogControl>,
}

impl Page {
    pub(crate) fn new(
        recorder: Recorder,
        tallies: ShardTallies,
        hosts: Hosts,
        resolver: Resolver,
        log: Arc<dyn LogControl>,
    ) -> Self {
        Self(Arc::new(Sources { recorder, tallies, hosts, resolver, log }))
    }

    async fn render(&self) -> String {
        self.0.tallies.publish();
        process::publish();
        publish_log(self.0.log.bounds(), &self.0.log.health());
        match self.0.hosts.counts().await {
            Ok(counts) => publish_hosts(&counts),
            Err(error) => tracing::warn!(%error, "hosts could not be counted for /metrics"),
        }
        publish_identities(&self.0.resolver.stats().await);
        publish_signatures(&ecdsa::status());
        self.0.recorder.render()
    }
}

fn publish_hosts(counts: &HostCounts) {
    for (status, count) in HostStatus::ALL.into_iter().zip(counts.by_status) {
        metrics::gauge!("relayered_hosts_count", "status" => status.label()).set(count as f64);
    }
    metrics::gauge!("relayered_hosts_dialing_count").set(counts.dialing as f64);
}

fn publish_log(bounds: LogBounds, health: &LogHealth) {
    metrics::gauge!("relayered_log_oldest_seq").set(bounds.oldest.map_or(0.0, |seq| seq.0 as f64));
    metrics::gauge!("relayered_log_newest_seq").set(bounds.newest.0 as f64);
    metrics::gauge!("relayered_log_synced_seq").set(bounds.synced.0 as f64);
    metrics::gauge!("relayered_log_size_bytes").set(bounds.bytes as f64);
    metrics::gauge!("relayered_log_writable_count").set(f64::from(u8::from(health.writable)));
    if let Some(bytes) = health.free_bytes {
        metrics::gauge!("relayered_log_free_bytes").set(bytes as f64);
    }
    let stats = &health.stats;
    metrics::gauge!("relayered_log_segments_count").set(stats.segments as f64);
    metrics::gauge!("relayered_log_segments_damaged_count").set(stats.segments_damaged as f64);
    metrics::gauge!("relayered_log_erasures_pending_count").set(stats.erasures_pending as f64);
    metrics::gauge!("relayered_log_sync_max_seconds").set(stats.sync_micros_max as f64 / 1e6);
    metrics::counter!("relayered_log_write_errors_total").absolute(stats.write_errors);
    metrics::counter!("relayered_log_syncs_total").absolute(stats.syncs);
    metrics::counter!("relayered_log_sync_errors_total").absolute(stats.sync_errors);
    metrics::counter!("relayered_log_segments_removed_total").absolute(stats.segments_removed);
    metrics::counter!("relayered_log_events_erased_total").absolute(stats.events_erased);
}

fn publish_signatures(status: &ecdsa::Status) {
    let lanes = status.in_use == ecdsa::InUse::Lanes;
    metrics::gauge!("relayered_signatures_in_lanes_count").set(f64::from(u8::from(lanes)));
    metrics::counter!("relayered_signatures_batches_total").absolute(status.groups);
    metrics::counter!("relayered_signatures_audits_total").absolute(status.audits);
    metrics::counter!("relayered_signatures_recomputed_total").absolute(status.recomputed);
    metrics::counter!("relayered_signatures_differences_total").absolute(status.differences);
}

fn publish_identities(stats: &IdentityStats) {
    for (outcome, count) in [
        ("cached", stats.hits),
        ("joined", stats.joined),
        ("turned-away", stats.turned_away),
        ("found", stats.found),
        ("not-found", stats.not_found),
        ("unavailable", stats.unavailable),
    ] {
        metrics::counter!("relayered_identity_lookups_total", "outcome" => outcome).absolute(count);
    }
    metrics::gauge!("relayered_identity_cached_count").set(stats.cached as f64);
    metrics::gauge!("relayered_identity_queued_count").set(stats.queued as f64);
    metrics::gauge!("relayered_identity_fetching_count").set(stats.in_flight as f64);
}

pub(crate) fn routes(page: Page) -> Router {
    Router::new()
        .route("/metrics", get(metrics_page))
        .fallback(async || (StatusCode::NOT_FOUND, "metrics are at /metrics\n"))
        .with_state(page)
}

async fn metrics_page(State(page): State<Page>) -> Response {
    let text = page.render().await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
