//! Metrics: what the shards and the control plane counted, for Prometheus.
//!
//! Names are `relayered_<stage>_<noun>_<unit>`. Labels come from enums alone: no host, no DID, no
//! address, so that strangers cannot make the page grow.

mod page;
mod process;
mod tally;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

pub(crate) use self::page::{Page, routes};
pub use self::tally::{ShardTallies, Totals};

/// Renders what has been counted.
#[derive(Clone)]
pub struct Recorder(PrometheusHandle);

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("metrics: {0}")]
    Build(#[from] BuildError),
    #[error("metrics have been set up already in this process")]
    Installed,
}

impl Recorder {
    /// Makes this process's recorder. Once, before anything is counted.
    pub fn install() -> Result<Self, TelemetryError> {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_again| TelemetryError::Installed)?;
        describe();
        Ok(Self(handle))
    }

    pub(crate) fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

/// The help texts, one for each metric of this crate.
fn describe() {
    describe_counters();
    describe_gauges();
}

fn describe_counters() {
    for (name, help) in [
        ("relayered_upstream_events_total", "Events received from hosts, by kind."),
        ("relayered_upstream_received_bytes", "Bytes of frames received from hosts."),
        ("relayered_upstream_connections_opened_total", "Connections to hosts that came to stand."),
        (
            "relayered_upstream_connections_closed_total",
            "Connections to hosts that ended, by fault.",
        ),
        ("relayered_sequencer_events_total", "Events that were numbered and logged, by kind."),
        ("relayered_accounts_refusals_total", "Frames not forwarded, by reason."),
        ("relayered_log_write_errors_total", "Batches of events that the disk did not take."),
        ("relayered_log_syncs_total", "Syncs of the log's files."),
        ("relayered_log_sync_errors_total", "Those that failed; they are tried again."),
        ("relayered_log_segments_removed_total", "Segments that were out of the window."),
        (
            "relayered_log_events_erased_total",
            "Events of taken-down accounts, overwritten on disk.",
        ),
        (
            "relayered_accounts_remarks_total",
            "Events forwarded although not quite right, by remark.",
        ),
        ("relayered_fanout_sent_bytes", "Bytes sent to consumers."),
        ("relayered_consumer_ends_total", "Consumers that went, by reason."),
        ("relayered_api_wrong_keys_total", "Requests to /admin with a key that is none."),
        ("relayered_api_connections_refused_total", "HTTP connections refused for their number."),
        ("relayered_discovery_hosts_added_total", "Hosts added from the lists of other relays."),
        ("relayered_identity_lookups_total", "Account look-ups answered, by outcome."),
        ("relayered_signatures_batches_total", "Batches of signatures verified in lanes."),
        ("relayered_signatures_audits_total", "Those that the library verified as well."),
        ("relayered_signatures_recomputed_total", "Signatures that lanes left to the library."),
        (
            "relayered_signatures_differences_total",
            "ALARM if not 0: signatures on which lanes and library differed.",
        ),
    ] {
        metrics::describe_counter!(name, help);
    }
}

fn describe_gauges() {
    for (name, help) in [
        ("relayered_accounts_loaded_count", "Accounts in the shards' memory."),
        ("relayered_accounts_parked_count", "Frames that wait for an identity."),
        ("relayered_consumer_connections_count", "Connected consumers."),
        ("relayered_upstream_connections_count", "Hosts connected to the shards."),
        ("relayered_hosts_count", "Known hosts, by status."),
        ("relayered_hosts_dialing_count", "Hosts being dialed."),
        ("relayered_identity_cached_count", "Identities in memory."),
        ("relayered_identity_queued_count", "Look-ups that wait for their turn."),
        ("relayered_identity_fetching_count", "DID documents being fetched."),
        ("relayered_signatures_in_lanes_count", "1 if signatures are verified in lanes."),
        ("relayered_log_oldest_seq", "The oldest event in the log."),
        ("relayered_log_newest_seq", "The newest event that consumers can get."),
        ("relayered_log_synced_seq", "The newest event that survives power loss."),
        ("relayered_log_size_bytes", "Bytes of the log on disk."),
        (
            "relayered_log_writable_count",
            "0 while the disk does not take events: hosts are made to wait until it does.",
        ),
        ("relayered_log_free_bytes", "Room on the log's file system."),
        ("relayered_log_segments_count", "Segments of the log."),
        ("relayered_log_segments_damaged_count", "Those found damaged, which are not served."),
        (
            "relayered_log_erasures_pending_count",
            "Take-downs whose older events are not all overwritten yet.",
        ),
        ("relayered_log_sync_max_seconds", "The longest sync since the start."),
        ("relayered_store_reachable", "0 while the database is away."),
        ("relayered_store_lag_events", "Events in the log that SQL does not hold yet."),
        ("relayered_process_cpu_seconds", "CPU time used by the process."),
        ("relayered_process_resident_bytes", "Resident memory of the process."),
        ("relayered_process_open_fds_count", "Open file descriptors."),
        ("relayered_process_threads_count", "Threads of the process."),
        ("relayered_process_start_seconds", "Unix time at which the process started."),
    ] {
        metrics::describe_gauge!(name, help);
    }
}
