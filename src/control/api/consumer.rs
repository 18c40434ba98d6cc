//! Who reads the firehose: the registry of connected consumers.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::HeaderMap;
use ports::{ConsumerEnd, ConsumerId, ConsumerProgress, RelaySeq, ShardId};
use serde::Serialize;
use utoipa::ToSchema;

use super::{client::holder, time::rfc3339};

const USER_AGENT_BYTES_MAX: usize = 256;

#[derive(Clone, Debug)]
struct Consumer {
    shard: ShardId,
    remote: IpAddr,
    user_agent: String,
    /// Unix seconds.
    connected_at: u64,
    cursor: Option<u64>,
    seq: u64,
    events: u64,
    bytes: u64,
}

/// How many consumers there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerLimits {
    pub all: usize,
    /// Of one client address; `None`: no limit but that of all.
    pub per_address: Option<usize>,
}

/// Why a consumer is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMany {
    All,
    OfAddress,
}

#[derive(Debug)]
struct Inner {
    last_id: u64,
    consumers: BTreeMap<u64, Consumer>,
    limits: ConsumerLimits,
}

/// A consumer in `consumers/list`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConsumerRecord {
    id: u64,
    remote_addr: String,
    user_agent: String,
    events_consumed: u64,
    bytes_consumed: u64,
    connected_at: String,
    /// Where it asked to go on; absent for one that asked for what is new.
    cursor: Option<u64>,
    /// The last event that it was sent; 0 before the first.
    seq: u64,
    /// Events between it and the newest one.
    lag: u64,
    shard: u16,
}

/// Shared by the HTTP handlers, which add, and the reports of the shards, which count and remove.
#[derive(Clone, Debug)]
pub struct Consumers {
    inner: Arc<Mutex<Inner>>,
    shards: u16,
}

impl Consumers {
    pub fn new(limits: ConsumerLimits, shards: u16) -> Self {
        let inner = Inner { last_id: 0, consumers: BTreeMap::new(), limits };
        Self { inner: Arc::new(Mutex::new(inner)), shards: shards.max(1) }
    }

    pub(crate) fn limits(&self) -> ConsumerLimits {
        self.lock().limits
    }

    /// Holds for those who come; nobody is thrown out.
    pub(crate) fn set_limits(&self, limits: ConsumerLimits) {
        self.lock().limits = limits;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic aborts the process, so a poisoned lock is never seen in earnest.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a consumer on the shard that has the fewest.
    pub(crate) fn add(
        &self,
        client: IpAddr,
        headers: &HeaderMap,
        cursor: Option<u64>,
        now: u64,
    ) -> Result<(ConsumerId, ShardId), TooMany> {
        let mut inner = self.lock();
        if inner.consumers.len() >= inner.limits.all {
            return Err(TooMany::All);
        }
        let (mut load, mut of_address) = (vec![0_usize; usize::from(self.shards)], 0);
        for consumer in inner.consumers.values() {
            if let Some(count) = load.get_mut(usize::from(consumer.shard.0)) {
                *count += 1;
            }
            of_address += usize::from(holder(consumer.remote) == holder(client));
        }
        if inner.limits.per_address.is_some_and(|max| of_address >= max) {
            return Err(TooMany::OfAddress);
        }
        let least = load.iter().enumerate().min_by_key(|(_, count)| **count);
        let shard = ShardId(least.map_or(0, |(shard, _)| shard as u16));
        inner.last_id += 1;
        let id = inner.last_id;
        let consumer = Consumer {
            shard,
            remote: client,
            user_agent: user_agent(headers),
            connected_at: now,
            cursor,
            seq: 0,
            events: 0,
            bytes: 0,
        };
        inner.consumers.insert(id, consumer);
        Ok((ConsumerId(id), shard))
    }

    /// A consumer has gone, or its connection never came to be.
    pub(crate) fn remove(&self, id: ConsumerId) {
        self.lock().consumers.remove(&id.0);
    }

    pub fn handle_closed(&self, id: ConsumerId, reason: ConsumerEnd) {
        let Some(consumer) = self.lock().consumers.remove(&id.0) else { return };
        metrics::counter!("relayered_consumer_ends_total", "reason" => reason.label()).increment(1);
        tracing::info!(
            consumer = id.0,
            remote = %consumer.remote,
            user_agent = consumer.user_agent,
            events = consumer.events,
            reason = reason.label(),
            "consumer gone"
        );
    }

    pub fn handle_progress(&self, progress: &[ConsumerProgress]) {
        let mut inner = self.lock();
        for report in progress {
            if let Some(consumer) = inner.consumers.get_mut(&report.id.0) {
                consumer.seq = report.seq.0;
                consumer.events = report.events_sent;
                consumer.bytes = report.bytes_sent;
            }
        }
    }

    pub fn count(&self) -> usize {
        self.lock().consumers.len()
    }

    /// The shard that serves a consumer.
    pub(crate) fn shard_of(&self, id: ConsumerId) -> Option<ShardId> {
        self.lock().consumers.get(&id.0).map(|consumer| consumer.shard)
    }

    /// All consumers, and how far each is behind the newest event.
    pub(crate) fn list(&self, newest: RelaySeq) -> Vec<ConsumerRecord> {
        let inner = self.lock();
        let rows = inner.consumers.iter().map(|(id, consumer)| {
            // Before its first event a consumer is where it asked to be.
            let at = consumer.cursor.map_or(consumer.seq, |cursor| cursor.max(consumer.seq));
            let live = consumer.seq == 0 && consumer.cursor.is_none();
            ConsumerRecord {
                id: *id,
                remote_addr: consumer.remote.to_string(),
                user_agent: consumer.user_agent.clone(),
                events_consumed: consumer.events,
                bytes_consumed: consumer.bytes,
                connected_at: rfc3339(consumer.connected_at),
                cursor: consumer.cursor,
                seq: consumer.seq,
                lag: if live { 0 } else { newest.0.saturating_sub(at) },
                shard: consumer.shard.0,
            }
        });
        rows.collect()
    }
}

fn user_agent(headers: &HeaderMap) -> String {
    let value = headers.get(http::header::USER_AGENT).map_or(&b""[..], |value| value.as_bytes());
    let kept = value.get(..value.len().min(USER_AGENT_BYTES_MAX)).unwrap_or_default();
    String::from_utf8_lossy(kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn consumers(all: usize, per_address: Option<usize>, shards: u16) -> Consumers {
        Consumers::new(ConsumerLimits { all, per_address }, shards)
    }

    #[test]
    fn consumers_spread_over_shards_up_to_the_limit() {
        let consumers = consumers(3, None, 2);
        let add = || consumers.add(ip("192.0.2.1"), &HeaderMap::new(), None, 0);
        let (first, shard) = add().unwrap();
        assert_eq!((first, shard), (ConsumerId(1), ShardId(0)));
        assert_eq!(add().unwrap().1, ShardId(1));
        assert_eq!(add().unwrap().1, ShardId(0));
        assert_eq!(add(), Err(TooMany::All));
        consumers.handle_closed(first, ConsumerEnd::Left);
        assert_eq!(add().unwrap(), (ConsumerId(4), ShardId(0)));
        consumers.set_limits(ConsumerLimits { all: 4, per_address: None });
        assert_eq!(add().unwrap(), (ConsumerId(5), ShardId(1)));
    }

    #[test]
    fn one_address_has_its_share() {
        let consumers = consumers(10, Some(2), 1);
        let add = |text| consumers.add(ip(text), &HeaderMap::new(), None, 0);
        let (first, _) = add("192.0.2.1").unwrap();
        add("192.0.2.1").unwrap();
        assert_eq!(add("192.0.2.1"), Err(TooMany::OfAddress));
        assert_eq!(add("::ffff:192.0.2.1"), Err(TooMany::OfAddress));
        add("192.0.2.2").unwrap();
        add("2001:db8::1").unwrap();
        add("2001:db8::2").unwrap();
        assert_eq!(add("2001:db8::3"), Err(TooMany::OfAddress));
        consumers.remove(first);
        add("192.0.2.1").unwrap();
    }

    #[test]
    fn progress_shows_in_the_list() {
        let consumers = consumers(10, None, 1);
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", "goat/1".parse().unwrap());
        let (id, _) = consumers.add(ip("198.51.100.7"), &headers, Some(5), 0).unwrap();
        consumers.add(ip("198.51.100.8"), &headers, None, 0).unwrap();
        let lags = || consumers.list(RelaySeq(12)).iter().map(|row| row.lag).collect::<Vec<_>>();
        assert_eq!(lags(), [7, 0]);
        consumers.handle_progress(&[ConsumerProgress {
            id,
            seq: RelaySeq(9),
            events_sent: 4,
            bytes_sent: 100,
        }]);
        assert_eq!(lags(), [3, 0]);
        let list = serde_json::to_value(consumers.list(RelaySeq(12))).unwrap();
        assert_eq!(list[0]["remote_addr"], "198.51.100.7");
        assert_eq!(list[0]["user_agent"], "goat/1");
        assert_eq!(list[0]["events_consumed"], 4);
        assert_eq!(list[0]["connected_at"], "1970-01-01T00:00:00Z");
    }
}
