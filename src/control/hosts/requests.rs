//! What the task does with requests to crawl: gates, the probe, the new host's row.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    Caller, Crawl, CrawlRefusal,
    crawl::probe,
    driver::{Done, Driver},
    gate::{Gate, client},
    limits::TRUSTED_ACCOUNT_LIMIT,
};
use crate::{
    dial::HostAddress,
    store::{HostRow, NewHost, Store, StoreError},
    unix_now,
};

const DAY_SECONDS: u64 = 86_400;
/// What is told to those whom a full queue or a used-up day turns away.
const RETRY_BUSY: Duration = Duration::from_secs(30);
const RETRY_NEW_HOST: Duration = Duration::from_hours(1);

/// Requests of one client: so many at once, and one in an interval.
const CLIENT_BURST: u32 = 120;
const CLIENT_INTERVAL: Duration = Duration::from_secs(1);
const CLIENTS_MAX: usize = 16_384;
/// Probes of one host that strangers may cause.
const PROBE_BURST: u32 = 6;
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBED_MAX: usize = 16_384;

pub(super) type CrawlReply = oneshot::Sender<Result<Crawl, CrawlRefusal>>;

/// Requests for one host while it is looked at: all get the one answer.
pub(super) struct Asked {
    admin: bool,
    replies: Vec<CrawlReply>,
}

/// What strangers may ask for, and how often.
pub(super) struct Gates {
    clients: Gate<IpAddr>,
    probes: Gate<String>,
}

impl Gates {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            clients: Gate::new(CLIENT_BURST, CLIENT_INTERVAL, CLIENTS_MAX, now),
            probes: Gate::new(PROBE_BURST, PROBE_INTERVAL, PROBED_MAX, now),
        }
    }
}

impl Driver {
    pub(super) fn handle_crawl(
        &mut self,
        address: HostAddress,
        caller: Caller,
        reply: CrawlReply,
        now: Instant,
    ) {
        let admin = !caller.is_stranger();
        if let Err(refusal) = self.admit(&address, caller, now) {
            let _ = reply.send(Err(refusal));
            return;
        }
        if let Some(id) = self.registry.id(&address.hostname)
            && self.registry.is_healthy(id)
        {
            self.registry.handle_request(id, address.tls, admin, now);
            let _ = reply.send(Ok(Crawl::Connected));
            return;
        }
        if let Some(asked) = self.asked.get_mut(&address.hostname) {
            asked.admin |= admin;
            asked.replies.push(reply);
            return;
        }
        if let Err(refusal) = self.admit_probe(&address, admin, now) {
            let _ = reply.send(Err(refusal));
            return;
        }
        self.asked.insert(address.hostname.clone(), Asked { admin, replies: vec![reply] });
        self.start_probe(address, admin);
    }

    /// Whether the caller may ask for this host at all.
    fn admit(
        &mut self,
        address: &HostAddress,
        caller: Caller,
        now: Instant,
    ) -> Result<(), CrawlRefusal> {
        let admin = !caller.is_stranger();
        if !admin && !self.config.crawl_enabled {
            return Err(CrawlRefusal::Disabled);
        }
        if let Caller::Client(ip) = caller {
            self.gates.clients.pass(client(ip), now).map_err(CrawlRefusal::limited)?;
        }
        if self.registry.is_banned(&address.hostname) {
            return Err(CrawlRefusal::Banned);
        }
        let quarantine = self.registry.id(&address.hostname).filter(|_| !admin);
        match quarantine.and_then(|id| self.registry.quarantined_for(id, now)) {
            Some(left) => Err(CrawlRefusal::Quarantined { retry_after: left }),
            None => Ok(()),
        }
    }

    /// Whether the host may be asked who it is: strangers can't have that done again and again.
    fn admit_probe(
        &mut self,
        address: &HostAddress,
        admin: bool,
        now: Instant,
    ) -> Result<(), CrawlRefusal> {
        if admin {
            return Ok(());
        }
        if self.asked.len() >= self.config.probes_max {
            return Err(CrawlRefusal::limited(RETRY_BUSY));
        }
        self.gates.probes.pass(address.hostname.clone(), now).map_err(CrawlRefusal::limited)
    }

    fn start_probe(&mut self, address: HostAddress, admin: bool) {
        let (client, store) = (self.client.clone(), self.store.clone());
        // With the day's places used up, strangers can't make the relay ask hosts for nothing.
        let limit = (!admin && self.registry.id(&address.hostname).is_none())
            .then_some(self.config.new_hosts_per_day);
        self.tasks.spawn(async move {
            let result = match within_limit(&store, limit).await {
                Ok(()) => probe(&client, &address).await,
                Err(refusal) => Err(refusal),
            };
            Done::Probed { address, result }
        });
    }

    pub(super) fn handle_probed(
        &mut self,
        address: HostAddress,
        result: Result<(), CrawlRefusal>,
        now: Instant,
    ) {
        if let Err(refusal) = result {
            self.answer_crawl(&address, &Err(refusal));
            return;
        }
        let admin = self.asked.get(&address.hostname).is_some_and(|asked| asked.admin);
        // A ban may have come while the host was being asked.
        if self.registry.is_banned(&address.hostname) {
            self.answer_crawl(&address, &Err(CrawlRefusal::Banned));
            return;
        }
        if let Some(id) = self.registry.id(&address.hostname) {
            self.registry.handle_request(id, address.tls, admin, now);
            self.answer_crawl(&address, &Ok(Crawl::Retried));
            return;
        }
        let trusted = self.registry.is_trusted(&address.hostname);
        let host = NewHost {
            hostname: address.hostname.clone(),
            tls: address.tls,
            trusted,
            account_limit: if trusted {
                TRUSTED_ACCOUNT_LIMIT
            } else {
                self.config.default_account_limit
            },
            by_admin: admin,
        };
        let (store, limit) = (self.store.clone(), self.config.new_hosts_per_day);
        self.tasks.spawn(async move {
            let result = insert(&store, host, limit).await;
            Done::Inserted { address, result }
        });
    }

    pub(super) fn handle_inserted(
        &mut self,
        address: &HostAddress,
        result: Result<HostRow, CrawlRefusal>,
        now: Instant,
    ) {
        let answer = result.map(|row| {
            tracing::info!(host = row.hostname, id = row.id.0, "new host");
            self.registry.add(row, Vec::new(), now);
            Crawl::Added
        });
        self.answer_crawl(address, &answer);
    }

    fn answer_crawl(&mut self, address: &HostAddress, answer: &Result<Crawl, CrawlRefusal>) {
        if let Err(CrawlRefusal::Internal(error) | CrawlRefusal::Away(error)) = answer {
            tracing::error!(host = address.hostname, error, "a host could not be added");
        }
        let Some(asked) = self.asked.remove(&address.hostname) else { return };
        for reply in asked.replies {
            // The asker may have gone.
            let _ = reply.send(answer.clone());
        }
    }
}

async fn within_limit(store: &Store, limit: Option<u64>) -> Result<(), CrawlRefusal> {
    let Some(limit) = limit else { return Ok(()) };
    if store.hosts_added_since(a_day_ago()).await.map_err(internal)? >= limit {
        return Err(CrawlRefusal::limited(RETRY_NEW_HOST));
    }
    Ok(())
}

async fn insert(store: &Store, host: NewHost, per_day: u64) -> Result<HostRow, CrawlRefusal> {
    if host.by_admin {
        return store.insert_host(host).await.map_err(internal);
    }
    let inserted = store.insert_host_within(host, a_day_ago(), per_day).await.map_err(internal)?;
    inserted.ok_or(CrawlRefusal::limited(RETRY_NEW_HOST))
}

fn internal(error: StoreError) -> CrawlRefusal {
    let why = error.to_string();
    if error.is_passing() { CrawlRefusal::Away(why) } else { CrawlRefusal::Internal(why) }
}

/// In Unix seconds.
fn a_day_ago() -> u64 {
    unix_now().saturating_sub(DAY_SECONDS)
}
