//! Accounts above their host's limit, and the places that get free.
//!
//! An account that comes when its host is full is made `throttled`. Places get free when accounts
//! are deleted or move away, and when limits rise: then throttled accounts come back, the oldest
//! first. The store is asked about once in a few seconds, so whatever is lost or happens twice on the
//! way is made good by the next look.

use std::time::{Duration, Instant};

use super::driver::{Done, Driver};
use crate::{
    Shards,
    store::{LocalChange, LocalSet, Store, StoreError},
};

/// Between two looks; at once after a limit was raised.
const INTERVAL: Duration = Duration::from_secs(2);
/// Accounts of one host that come back in one go.
const AT_ONCE: u64 = 500;

#[derive(Debug, Default)]
pub(super) struct Places {
    looked_at: Option<Instant>,
}

impl Driver {
    pub(super) fn look_after_places(&mut self) {
        let now = Instant::now();
        let due = self.places.as_ref().is_some_and(|places| {
            places.looked_at.is_none_or(|at| now.saturating_duration_since(at) >= INTERVAL)
        });
        if !due {
            return;
        }
        let Some(mut places) = self.places.take() else { return };
        places.looked_at = Some(now);
        let (store, shards) = (self.store.clone(), self.shards.clone());
        self.tasks.spawn(async move {
            if let Err(error) = fill(&store, &shards).await {
                tracing::error!(%error, "throttled accounts could not be looked after");
            }
            Done::Places(places)
        });
    }

    /// A limit was raised.
    pub(super) fn look_after_places_now(&mut self) {
        if let Some(places) = &mut self.places {
            places.looked_at = None;
        }
        self.look_after_places();
    }
}

async fn fill(store: &Store, shards: &Shards) -> Result<(), StoreError> {
    for (host, free) in store.hosts_with_places().await? {
        for account in store.throttled_oldest(host, free.min(AT_ONCE) as usize).await? {
            tracing::debug!(host = host.0, did = account.did, "a place for a throttled account");
            if let Some(LocalSet { row, changed: true }) =
                store.set_local(&account.did, LocalChange::Place).await?
            {
                shards.set_local(&row.did, row.state);
            }
        }
    }
    Ok(())
}
