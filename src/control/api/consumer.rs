//! Who reads the firehose: the registry of connected consumers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::HeaderMap;
use ports::{ConsumerEnd, ConsumerId, ConsumerProgress, ShardId};
use serde_json::{Value, json};

use super::time::rfc3339;

const USER_AGENT_BYTES_MAX: usize = 256;

#[derive(Clone, Debug)]
struct Consumer {
    shard: ShardId,
    remote: String,
    user_agent: String,
    /// Unix seconds.
    connected_at: u64,
    cursor: Option<u64>,
    seq: u64,
    events: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Inner {
    last_id: u64,
    consumers: BTreeMap<u64, Consumer>,
}

/// Shared by the HTTP handlers, which add, and the reports of the shards, which count and remove.
#[derive(Clone, Debug)]
pub struct Consumers {
    inner: Arc<Mutex<Inner>>,
    max: usize,
    shards: u16,
}

impl Consumers {
    pub fn new(max: usize, shards: u16) -> Self {
        Self { inner: Arc::default(), max, shards: shards.max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic aborts the process, so a poisoned lock is never seen in earnest.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a consumer on the shard that has the fewest. `None`: there are as many as may be.
    pub(crate) fn add(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        cursor: Option<u64>,
        now: u64,
    ) -> Option<(ConsumerId, ShardId)> {
        let mut inner = self.lock();
        if inner.consumers.len() >= self.max {
            return None;
        }
        let mut load = vec![0_usize; usize::from(self.shards)];
        for consumer in inner.consumers.values() {
            if let Some(count) = load.get_mut(usize::from(consumer.shard.0)) {
                *count += 1;
            }
        }
        let (shard, _) = load.iter().enumerate().min_by_key(|(_, count)| **count)?;
        let shard = ShardId(shard as u16);
        inner.last_id += 1;
        let id = inner.last_id;
        let consumer = Consumer {
            shard,
            remote: remote_address(peer, headers),
            user_agent: user_agent(headers),
            connected_at: now,
            cursor,
            seq: 0,
            events: 0,
            bytes: 0,
        };
        inner.consumers.insert(id, consumer);
        Some((ConsumerId(id), shard))
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
            remote = consumer.remote,
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

    /// The reply of `consumers/list`.
    pub(crate) fn to_json(&self) -> Value {
        let inner = self.lock();
        let rows = inner.consumers.iter().map(|(id, consumer)| {
            json!({
                "id": id,
                "remote_addr": consumer.remote,
                "user_agent": consumer.user_agent,
                "events_consumed": consumer.events,
                "bytes_consumed": consumer.bytes,
                "connected_at": rfc3339(consumer.connected_at),
                "cursor": consumer.cursor,
                "seq": consumer.seq,
                "shard": consumer.shard.0,
            })
        });
        rows.collect()
    }
}

/// The peer's address without its port. A reverse proxy on the same machine or network tells whom it
/// speaks for; others are not believed.
fn remote_address(peer: SocketAddr, headers: &HeaderMap) -> String {
    let ip = peer.ip().to_canonical();
    if is_near(ip) {
        let forwarded = headers.get("x-forwarded-for").or_else(|| headers.get("x-real-ip"));
        let last = forwarded
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.rsplit(',').next())
            .and_then(|value| value.trim().parse::<IpAddr>().ok());
        if let Some(client) = last {
            return client.to_string();
        }
    }
    ip.to_string()
}

fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    }
}

fn user_agent(headers: &HeaderMap) -> String {
    let value = headers.get(http::header::USER_AGENT).map_or(&b""[..], |value| value.as_bytes());
    let kept = value.get(..value.len().min(USER_AGENT_BYTES_MAX)).unwrap_or_default();
    String::from_utf8_lossy(kept).into_owned()
}

#[cfg(test)]
mod tests {
    use ports::RelaySeq;

    use super::*;

    fn peer(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn consumers_spread_over_shards_up_to_the_limit() {
        let consumers = Consumers::new(3, 2);
        let add = || consumers.add(peer("192.0.2.1:1"), &HeaderMap::new(), None, 0);
        let (first, shard) = add().unwrap();
        assert_eq!((first, shard), (ConsumerId(1), ShardId(0)));
        assert_eq!(add().unwrap().1, ShardId(1));
        assert_eq!(add().unwrap().1, ShardId(0));
        assert!(add().is_none());
        consumers.handle_closed(first, ConsumerEnd::Left);
        assert_eq!(add().unwrap(), (ConsumerId(4), ShardId(0)));
    }

    #[test]
    fn progress_shows_in_the_list() {
        let consumers = Consumers::new(10, 1);
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", "goat/1".parse().unwrap());
        let (id, _) = consumers.add(peer("[::ffff:198.51.100.7]:9"), &headers, Some(5), 0).unwrap();
        consumers.handle_progress(&[ConsumerProgress {
            id,
            seq: RelaySeq(9),
            events_sent: 4,
            bytes_sent: 100,
        }]);
        let list = consumers.to_json();
        assert_eq!(list[0]["remote_addr"], "198.51.100.7");
        assert_eq!(list[0]["user_agent"], "goat/1");
        assert_eq!(list[0]["events_consumed"], 4);
        assert_eq!(list[0]["connected_at"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn only_near_proxies_are_believed() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "203.0.113.9, 198.51.100.1".parse().unwrap());
        assert_eq!(remote_address(peer("127.0.0.1:1"), &headers), "198.51.100.1");
        assert_eq!(remote_address(peer("192.0.2.1:1"), &headers), "192.0.2.1");
    }
}
