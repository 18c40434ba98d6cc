//! Hosts that other relays list are looked through again and again, and those that are new here are
//! added. A host that is refused is left alone for longer each time, and in the end for good.

mod list;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::sleep,
};

use self::list::{Listed, page};
use crate::{
    dial::{FetchError, HostAddress, HttpClient, Reach},
    hosts::{Caller, CrawlRefusal, Hosts},
    store::{Discovery, RefusedHost, Store, StoreError},
    unix_now,
};

/// For a page of a relay's list.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Pages of a list at most: one that never ends is not followed for ever.
const PAGES_MAX: usize = 10_000;
/// New hosts that are looked at in one go; the rest has its turn the next time.
const LOOKS_MAX: u64 = 10_000;
/// New hosts that are looked at at once.
const PARALLEL: usize = 4;
/// A relay that could not be asked is asked again after this, if not earlier by the interval.
const FAILED_PAUSE: Duration = Duration::from_hours(1);
/// While the database is away.
const DATABASE_PAUSE: Duration = Duration::from_secs(5);
/// As long as nothing is to be done.
const IDLE: Duration = Duration::from_hours(24);

const DAY_SECONDS: u64 = 86_400;
/// A refused host is tried again after a day, twice as long each time, up to this.
const REFUSED_SECONDS_MAX: u64 = 30 * DAY_SECONDS;
/// After so many refusals (which takes some four months) it is not tried again.
const REFUSALS_MAX: u64 = 8;
/// What was refused is forgotten after a year, as nobody lists most of it any more.
const REFUSED_SECONDS_KEPT: u64 = 365 * DAY_SECONDS;

#[derive(Clone, Debug, Default)]
pub struct DiscoveryConfig {
    /// Base URLs of the relays whose hosts are looked through.
    pub relays: Vec<String>,
    /// Zero: never.
    pub interval: Duration,
}

/// What is told of a relay whose hosts are looked through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryState {
    /// `last_at` is 0 if it has not been asked yet.
    pub last: Discovery,
    /// Unix seconds; `None`: not by itself.
    pub next_at: Option<u64>,
}

/// What the task goes by.
#[derive(Clone, Copy, Debug)]
struct Orders {
    interval: Duration,
    /// How often an operator has asked for a look at all relays.
    asked: u64,
}

/// A handle to the task. Clones share it.
#[derive(Clone, Debug)]
pub struct Discoverer {
    relays: Arc<[String]>,
    orders: watch::Sender<Orders>,
    client: HttpClient,
    hosts: Hosts,
    store: Store,
    /// What was last seen of each relay.
    seen: Arc<Mutex<Vec<Discovery>>>,
}

impl Discoverer {
    pub fn new(config: DiscoveryConfig, hosts: Hosts, store: Store) -> Result<Self, FetchError> {
        let client = HttpClient::new(Reach::Trusted, PAGE_TIMEOUT, PAGE_BYTES_MAX)?;
        let never = |relay: &String| Discovery { relay: relay.clone(), ..Discovery::default() };
        let seen = Arc::new(Mutex::new(config.relays.iter().map(never).collect()));
        let (orders, _) = watch::channel(Orders { interval: config.interval, asked: 0 });
        Ok(Self { relays: config.relays.into(), orders, client, hosts, store, seen })
    }

    pub fn interval(&self) -> Duration {
        self.orders.borrow().interval
    }

    /// Zero: never.
    pub fn set_interval(&self, interval: Duration) {
        self.orders.send_modify(|orders| orders.interval = interval);
    }

    /// Has all relays looked through now. `false`: there are none.
    pub fn ask(&self) -> bool {
        self.orders.send_modify(|orders| orders.asked += 1);
        !self.relays.is_empty()
    }

    pub async fn state(&self) -> Vec<DiscoveryState> {
        let interval = self.interval();
        let state = |last: &Discovery| DiscoveryState {
            last: last.clone(),
            next_at: (!interval.is_zero()).then(|| due_at(last, interval)),
        };
        self.seen.lock().await.iter().map(state).collect()
    }

    /// Looks through the relays whenever it is time to, until the task is dropped.
    ///
    /// # Cancel-safety
    /// Dropped in the middle of a look, hosts that are being added may still be added.
    pub async fn run(self) {
        if self.relays.is_empty() {
            return;
        }
        self.load().await;
        let mut orders = self.orders.subscribe();
        let mut answered = orders.borrow_and_update().asked;
        loop {
            let Orders { interval, asked } = *orders.borrow_and_update();
            let all = asked != answered;
            answered = asked;
            for relay in self.due(interval, all).await {
                self.look(&relay).await;
            }
            let wait = self.wait(interval).await;
            tokio::select! {
                () = sleep(wait) => {}
                // The handle in `self` holds the other end.
                _ = orders.changed() => {}
            }
        }
    }

    /// What is known from earlier runs.
    async fn load(&self) {
        let known = loop {
            match self.store.discoveries().await {
                Ok(known) => break known,
                Err(error) if error.is_passing() => sleep(DATABASE_PAUSE).await,
                Err(error) => {
                    tracing::error!(%error, "earlier looks at other relays' hosts are not known");
                    return;
                }
            }
        };
        let mut seen = self.seen.lock().await;
        for last in seen.iter_mut() {
            if let Some(row) = known.iter().find(|row| row.relay == last.relay) {
                last.clone_from(row);
            }
        }
    }

    async fn due(&self, interval: Duration, all: bool) -> Vec<String> {
        let now = unix_now();
        let is_due =
            |last: &&Discovery| all || !interval.is_zero() && due_at(last, interval) <= now;
        self.seen.lock().await.iter().filter(is_due).map(|last| last.relay.clone()).collect()
    }

    async fn wait(&self, interval: Duration) -> Duration {
        if interval.is_zero() {
            return IDLE;
        }
        let seen = self.seen.lock().await;
        let next = seen.iter().map(|last| due_at(last, interval)).min().unwrap_or(u64::MAX);
        // At least a second, as times are whole ones.
        Duration::from_secs(next.saturating_sub(unix_now()).max(1)).min(IDLE)
    }

    /// Looks through the hosts of one relay, and notes how it went.
    async fn look(&self, relay: &str) {
        let began = Instant::now();
        let mut look = Discovery { relay: relay.to_owned(), ..Discovery::default() };
        let looked = self.look_through(&mut look).await;
        look.last_at = unix_now();
        look.last_error = looked.err().map(|why| why.to_string());
        if let Some(error) = &look.last_error {
            tracing::warn!(relay, error, "the hosts of another relay could not be looked through");
        }
        tracing::info!(
            relay,
            hosts = look.hosts_seen,
            added = look.hosts_added,
            took = ?began.elapsed(),
            "looked through the hosts of another relay"
        );
        metrics::counter!("relayered_discovery_hosts_added_total").increment(look.hosts_added);
        if let Err(error) = self.store.save_discovery(look.clone()).await {
            tracing::warn!(%error, "a look at another relay's hosts could not be noted");
        }
        for last in self.seen.lock().await.iter_mut().filter(|last| last.relay == relay) {
            last.clone_from(&look);
        }
    }

    async fn look_through(&self, look: &mut Discovery) -> Result<(), Why> {
        self.store.forget_refused(unix_now().saturating_sub(REFUSED_SECONDS_KEPT)).await?;
        let (mut cursor, mut looks) = (None, 0);
        for _ in 0..PAGES_MAX {
            let (hosts, next) = page(&self.client, &look.relay, cursor.as_deref()).await?;
            look.hosts_seen += hosts.len() as u64;
            let candidates = self.candidates(hosts).await?;
            let room = usize::try_from(LOOKS_MAX - looks).unwrap_or(usize::MAX);
            let chosen: Vec<HostAddress> = candidates.into_iter().take(room).collect();
            looks += chosen.len() as u64;
            look.hosts_added += self.add(chosen).await?;
            if next.is_none() || next == cursor || looks >= LOOKS_MAX {
                return Ok(());
            }
            cursor = next;
        }
        Err(Why::Endless)
    }

    /// Those that are not known here, and not to be left alone.
    async fn candidates(&self, hosts: Vec<Listed>) -> Result<Vec<HostAddress>, Why> {
        let (names, now) = (self.hosts.names(), unix_now());
        let mut candidates: Vec<HostAddress> = Vec::new();
        for host in hosts.iter().filter(|host| host.is_alive()) {
            let Ok(address) = HostAddress::parse(&host.hostname) else { continue };
            let known = names.id(&address.hostname).is_some() || candidates.contains(&address);
            if !known && !is_left_alone(self.store.refused_host(&address.hostname).await?, now) {
                candidates.push(address);
            }
        }
        Ok(candidates)
    }

    /// Adds what can be added; returns how many were.
    async fn add(&self, addresses: Vec<HostAddress>) -> Result<u64, Why> {
        let (mut left, mut tasks, mut added) = (addresses.into_iter(), JoinSet::new(), 0);
        loop {
            while tasks.len() < PARALLEL
                && let Some(address) = left.next()
            {
                let hosts = self.hosts.clone();
                tasks.spawn(async move {
                    let asked = if address.tls { "https" } else { "http" };
                    let name = format!("{asked}://{}", address.hostname);
                    let outcome = hosts.request_crawl(&name, Caller::Discovery).await;
                    (address.hostname, outcome)
                });
            }
            let Some(done) = tasks.join_next().await else { return Ok(added) };
            // Tasks neither panic nor are they aborted.
            let Ok((hostname, outcome)) = done else { continue };
            match outcome {
                Ok(_) => {
                    added += 1;
                    self.store.unrefuse_host(&hostname).await?;
                }
                Err(CrawlRefusal::Internal(why) | CrawlRefusal::Away(why)) => {
                    return Err(Why::Here(why));
                }
                Err(refusal @ (CrawlRefusal::Unreachable(_) | CrawlRefusal::Relay)) => {
                    self.refuse(&hostname, &refusal.to_string()).await?;
                }
                // Refused without having been asked: this is cheap, and may change here.
                Err(refusal) => tracing::debug!(host = hostname, %refusal, "listed, but refused"),
            }
        }
    }

    async fn refuse(&self, hostname: &str, reason: &str) -> Result<(), StoreError> {
        let before = self.store.refused_host(hostname).await?.map_or(0, |refused| refused.times);
        let retry_at = unix_now() + pause_seconds(before + 1);
        self.store.refuse_host(hostname, reason, retry_at).await
    }
}

/// When a relay is to be asked next, in Unix seconds.
fn due_at(last: &Discovery, interval: Duration) -> u64 {
    if last.last_at == 0 {
        return 0;
    }
    let failed = last.last_error.is_some();
    let pause = if failed { interval.min(FAILED_PAUSE) } else { interval };
    last.last_at.saturating_add(pause.as_secs())
}

/// How long a host is left alone after its refusals.
fn pause_seconds(times: u64) -> u64 {
    if times >= REFUSALS_MAX {
        return REFUSED_SECONDS_KEPT;
    }
    (DAY_SECONDS << (times - 1)).min(REFUSED_SECONDS_MAX)
}

fn is_left_alone(refused: Option<RefusedHost>, now: u64) -> bool {
    refused.is_some_and(|refused| refused.retry_at > now || refused.times >= REFUSALS_MAX)
}

/// Why a look ended early.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("{0}")]
    There(#[from] FetchError),
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    #[error("what it answered is no list of hosts")]
    NoList,
    #[error("its list of hosts has no end")]
    Endless,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Here(String),
}
