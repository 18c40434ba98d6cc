//! The shards' tallies as counters and gauges.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::Counter;
use ports::{EventKind, RefusalReason, Remark, ShardId, Tally};

/// Adds up what the shards report. Counters are looked up once, at start.
#[derive(Clone, Debug)]
pub struct ShardTallies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    received: Vec<Handle>,
    forwarded: Vec<Handle>,
    refused: Vec<Handle>,
    remarks: Vec<Handle>,
    received_bytes: Handle,
    sent_bytes: Handle,
    /// What each shard holds as of its last report.
    held: Mutex<Vec<Held>>,
    counted: Mutex<Totals>,
}

/// Sums over all shards: of what was counted since the start, and of what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub received: u64,
    pub forwarded: u64,
    pub refused: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub accounts: u64,
    pub parked: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    accounts: u64,
    parked: u64,
    consumers: u64,
    hosts: u64,
}

struct Handle(Counter);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counter")
    }
}

impl ShardTallies {
    pub fn new(shards: u16) -> Self {
        let kinds = |name: &'static str| {
            let counter = |kind: EventKind| Handle(metrics::counter!(name, "kind" => kind.label()));
            EventKind::ALL.into_iter().map(counter).collect()
        };
        let refusal = |reason: &RefusalReason| {
            let label = reason.label();
            Handle(metrics::counter!("relayered_accounts_refusals_total", "reason" => label))
        };
        let remark = |remark: Remark| {
            let label = remark.label();
            Handle(metrics::counter!("relayered_accounts_remarks_total", "remark" => label))
        };
        Self(Arc::new(Inner {
            received: kinds("relayered_upstream_events_total"),
            forwarded: kinds("relayered_sequencer_events_total"),
            refused: RefusalReason::ALL.iter().map(refusal).collect(),
            remarks: Remark::ALL.into_iter().map(remark).collect(),
            received_bytes: Handle(metrics::counter!("relayered_upstream_received_bytes")),
            sent_bytes: Handle(metrics::counter!("relayered_fanout_sent_bytes")),
            held: Mutex::new(vec![Held::default(); usize::from(shards)]),
            counted: Mutex::default(),
        }))
    }

    pub fn handle_tally(&self, shard: ShardId, tally: &Tally) {
        let add = |handles: &[Handle], counts: &[u64]| {
            for (handle, count) in handles.iter().zip(counts) {
                if *count > 0 {
                    handle.0.increment(*count);
                }
            }
        };
        add(&self.0.received, &tally.received);
        add(&self.0.forwarded, &tally.forwarded);
        add(&self.0.refused, &tally.refused);
        add(&self.0.remarks, &tally.remarks);
        self.0.received_bytes.0.increment(tally.received_bytes);
        self.0.sent_bytes.0.increment(tally.sent_bytes);
        self.count(tally);
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.get_mut(usize::from(shard.0)) {
            *held = Held {
                accounts: tally.accounts,
                parked: tally.parked,
                consumers: tally.consumers,
                hosts: tally.hosts,
            };
        }
    }

    fn count(&self, tally: &Tally) {
        let mut counted = self.0.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.received += tally.received.iter().sum::<u64>();
        counted.forwarded += tally.forwarded.iter().sum::<u64>();
        counted.refused += tally.refused.iter().sum::<u64>();
        counted.received_bytes += tally.received_bytes;
        counted.sent_bytes += tally.sent_bytes;
    }

    pub(crate) fn totals(&self) -> Totals {
        let counted = *self.0.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        Totals {
            accounts: held.iter().map(|held| held.accounts).sum(),
            parked: held.iter().map(|held| held.parked).sum(),
            ..counted
        }
    }

    /// Sets the gauges to the sums over all shards.
    pub(super) fn publish(&self) {
        let held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |field: fn(&Held) -> u64| held.iter().map(field).sum::<u64>() as f64;
        metrics::gauge!("relayered_accounts_loaded_count").set(sum(|held| held.accounts));
        metrics::gauge!("relayered_accounts_parked_count").set(sum(|held| held.parked));
        metrics::gauge!("relayered_consumer_connections_count").set(sum(|held| held.consumers));
        metrics::gauge!("relayered_upstream_connections_count").set(sum(|held| held.hosts));
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn tallies_add_up_and_gauges_are_sums() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let tallies = ShardTallies::new(2);
            let mut tally = Tally { accounts: 5, received_bytes: 100, ..Tally::default() };
            tally.refused[RefusalReason::RevStale.index()] = 3;
            tally.forwarded[EventKind::Commit.index()] = 2;
            tallies.handle_tally(ShardId(0), &tally);
            tallies.handle_tally(ShardId(1), &tally);
            tallies.handle_tally(ShardId(1), &tally);
            tallies.publish();
            let totals = tallies.totals();
            assert_eq!((totals.refused, totals.forwarded, totals.accounts), (9, 6, 10));
        });
        let page = handle.render();
        for line in [
            "relayered_accounts_refusals_total{reason=\"rev-stale\"} 9",
            "relayered_accounts_refusals_total{reason=\"did-syntax\"} 0",
            "relayered_sequencer_events_total{kind=\"commit\"} 6",
            "relayered_upstream_received_bytes 300",
            "relayered_accounts_loaded_count 10",
        ] {
            assert!(page.contains(line), "{line} in\n{page}");
        }
    }
}
