//! The task that owns the hosts: moves results between the registry, the network and the store.

use std::{
    collections::{HashMap, hash_map::Entry as MapEntry},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ports::{HostId, HostSeq, ShardReport};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until},
};

use super::{
    Caller, Command, Crawl, CrawlRefusal, HostCounts, HostNames, HostsConfig, HostsError,
    crawl::probe,
    machine::{Attempt, Reason},
    registry::{Batch, Effect, Registry},
};
use crate::{
    Shards,
    dial::{DialError, Dialer, HostAddress, HttpClient, Reach},
    store::{HostRow, HostStatus, NewHost, Store, StoreError},
};

const DAY: Duration = Duration::from_hours(24);
/// A `describeServer` reply is a few hundred bytes.
const PROBE_BYTES_MAX: usize = 64 * 1024;
/// The account limit of trusted hosts.
const TRUSTED_ACCOUNT_LIMIT: u64 = 10_000_000;
/// What is told to those whom a full queue or a used-up day turns away.
const RETRY_BUSY: Duration = Duration::from_secs(30);
const RETRY_NEW_HOST: Duration = Duration::from_hours(1);

type CrawlReply = oneshot::Sender<Result<Crawl, CrawlRefusal>>;

/// Results of the tasks that do the waiting.
enum Done {
    Dialed {
        host: HostId,
        attempt: Attempt,
        result: Result<std::net::TcpStream, DialError>,
    },
    /// A host answered the probe, or is refused.
    Probed {
        address: HostAddress,
        result: Result<(), CrawlRefusal>,
    },
    /// A new host's row is there, or why not.
    Inserted {
        address: HostAddress,
        result: Result<HostRow, CrawlRefusal>,
    },
    Flushed {
        hosts: Vec<HostId>,
        result: Result<(), StoreError>,
    },
}

/// Requests for one host while it is looked at: all get the one answer.
struct Asked {
    admin: bool,
    replies: Vec<CrawlReply>,
}

pub(super) struct Driver {
    config: HostsConfig,
    store: Store,
    dialer: Dialer,
    client: HttpClient,
    registry: Registry,
    inbox: mpsc::UnboundedReceiver<Command>,
    shards: Shards,
    tasks: JoinSet<Done>,
    asked: HashMap<String, Asked>,
    flushing: bool,
    /// Told when the flush under way is done, and when the one after it is.
    flushed: Vec<Box<dyn FnOnce() + Send>>,
    flushed_next: Vec<Box<dyn FnOnce() + Send>>,
}

impl Driver {
    pub(super) async fn load(
        config: HostsConfig,
        store: Store,
        dialer: Dialer,
        mut emitted: HashMap<HostId, Vec<HostSeq>>,
        shards: Shards,
        inbox: mpsc::UnboundedReceiver<Command>,
    ) -> Result<Self, HostsError> {
        let client =
            HttpClient::new(Reach::Guarded(dialer.clone()), config.probe_timeout, PROBE_BYTES_MAX)?;
        let now = Instant::now();
        let mut registry = Registry::new(
            config.retry,
            config.dials_max,
            config.strictness,
            random_seed(),
            store.domain_bans().await?,
        );
        for row in store.hosts().await? {
            let above_cursor = emitted.remove(&row.id).unwrap_or_default();
            registry.add(row, above_cursor, now);
        }
        Ok(Self {
            config,
            store,
            dialer,
            client,
            registry,
            inbox,
            shards,
            tasks: JoinSet::new(),
            asked: HashMap::new(),
            flushing: false,
            flushed: Vec::new(),
            flushed_next: Vec::new(),
        })
    }

    pub(super) fn names(&self) -> HostNames {
        self.registry.names()
    }

    /// Runs until all handles are gone.
    pub(super) async fn run(mut self) {
        let mut tick = interval(self.config.flush_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.registry.handle_timeout(Instant::now());
            self.carry_out();
            let due = self.registry.next_timeout();
            tokio::select! {
                command = self.inbox.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => return,
                },
                Some(done) = self.tasks.join_next() => match done {
                    Ok(done) => self.handle_done(done),
                    Err(error) => tracing::error!(%error, "a task of the host registry failed"),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
                _ = tick.tick() => self.flush(),
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.registry.poll_effect() {
            match effect {
                Effect::Dial { host, attempt, address } => {
                    let dialer = self.dialer.clone();
                    self.tasks.spawn(async move {
                        let result = dialer.connect(&address).await;
                        Done::Dialed { host, attempt, result }
                    });
                }
                Effect::Command(host, command) => self.shards.send_home(host, command),
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Report(report) => self.handle_report(report, now),
            Command::Crawl { address, caller, reply } => {
                self.handle_crawl(address, caller, reply, now);
            }
            Command::Block { hostname, reply } => {
                let id = self.registry.id(&hostname);
                let found = id.is_some_and(|id| self.registry.block(id, Reason::Blocked));
                self.reply_when_stored(reply, found);
            }
            Command::Unblock { hostname, reply } => {
                let id = self.registry.id(&hostname);
                let found = id.is_some_and(|id| self.registry.unblock(id, now));
                self.reply_when_stored(reply, found);
            }
            Command::Stop { hostname, reply } => {
                let id = self.registry.id(&hostname);
                let connected = id.is_some_and(|id| self.registry.stop(id));
                self.reply_when_stored(reply, connected);
            }
            Command::ResetCursor { hostname, cursor, reply } => {
                let id = self.registry.id(&hostname);
                let found = id.is_some_and(|id| self.registry.reset_cursor(id, cursor, now));
                self.reply_when_stored(reply, found);
            }
            Command::SetBans { domains, reply } => {
                self.registry.set_bans(domains, now);
                self.reply_when_stored(reply, ());
            }
            Command::Recrawl { status, reply } => {
                let _ = reply.send(self.registry.recrawl(status, now));
            }
            Command::Row(row) => self.registry.handle_row(*row),
            Command::SetCrawl { enabled, new_hosts_per_day, reply } => {
                self.config.crawl_enabled = enabled.unwrap_or(self.config.crawl_enabled);
                self.config.new_hosts_per_day =
                    new_hosts_per_day.unwrap_or(self.config.new_hosts_per_day);
                let _ = reply.send((self.config.crawl_enabled, self.config.new_hosts_per_day));
            }
            Command::Live { host, reply } => {
                let _ = reply.send(self.registry.live(host, now));
            }
            Command::LiveAll(reply) => {
                let _ = reply.send(self.registry.live_all(now));
            }
            Command::Counts(reply) => {
                let _ = reply.send(self.counts(now));
            }
            Command::Flush(reply) => self.reply_when_stored(reply, ()),
            Command::StopDialing => self.registry.stop_dialing(),
        }
    }

    fn handle_report(&mut self, report: ShardReport, now: Instant) {
        match report {
            ShardReport::HostOpen(host) => self.registry.handle_open(host, now),
            ShardReport::HostClosed { host, fault, progressed } => {
                tracing::debug!(host = host.0, fault = fault.label(), progressed, "host closed");
                self.registry.handle_closed(host, &fault, progressed, now);
            }
            ShardReport::Progress(hosts) => {
                for progress in hosts {
                    self.registry.handle_progress(progress);
                }
            }
            ShardReport::HostSlowed { .. }
            | ShardReport::LocalSet { .. }
            | ShardReport::Collections(_)
            | ShardReport::Lookup(_)
            | ShardReport::Consumers(_)
            | ShardReport::ConsumerClosed { .. }
            | ShardReport::Tally(_) => {}
        }
    }

    fn handle_crawl(
        &mut self,
        address: HostAddress,
        caller: Caller,
        reply: CrawlReply,
        now: Instant,
    ) {
        let admin = caller == Caller::Admin;
        let refusal = if !admin && !self.config.crawl_enabled {
            Some(CrawlRefusal::Disabled)
        } else if self.registry.is_banned(&address.hostname) {
            Some(CrawlRefusal::Banned)
        } else {
            None
        };
        if let Some(refusal) = refusal {
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
        let busy = !admin && self.asked.len() >= self.config.probes_max;
        match self.asked.entry(address.hostname.clone()) {
            MapEntry::Occupied(mut asked) => {
                asked.get_mut().admin |= admin;
                asked.get_mut().replies.push(reply);
            }
            MapEntry::Vacant(_) if busy => {
                let refusal = CrawlRefusal::RateLimited { retry_after: RETRY_BUSY };
                let _ = reply.send(Err(refusal));
            }
            MapEntry::Vacant(vacant) => {
                vacant.insert(Asked { admin, replies: vec![reply] });
                self.start_probe(address, admin);
            }
        }
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

    fn handle_done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Dialed { host, attempt, result: Ok(stream) } => {
                self.registry.handle_dialed(host, attempt, stream);
            }
            Done::Dialed { host, attempt, result: Err(error) } => {
                tracing::debug!(host = host.0, %error, "dial failed");
                self.registry.handle_dial_failed(host, attempt, error.to_string(), now);
            }
            Done::Probed { address, result: Err(refusal) } => {
                self.answer_crawl(&address, &Err(refusal));
            }
            Done::Probed { address, result: Ok(()) } => self.handle_probed(address, now),
            Done::Inserted { address, result: Err(refusal) } => {
                self.answer_crawl(&address, &Err(refusal));
            }
            Done::Inserted { address, result: Ok(row) } => {
                tracing::info!(host = row.hostname, id = row.id.0, "new host");
                self.registry.add(row, Vec::new(), now);
                self.answer_crawl(&address, &Ok(Crawl::Added));
            }
            Done::Flushed { hosts, result } => self.handle_flushed(hosts, result),
        }
    }

    fn handle_probed(&mut self, address: HostAddress, now: Instant) {
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
        let trusted = is_trusted(&self.config.trusted_domains, &address.hostname);
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

    fn answer_crawl(&mut self, address: &HostAddress, answer: &Result<Crawl, CrawlRefusal>) {
        if let Err(CrawlRefusal::Internal(error)) = answer {
            tracing::error!(host = address.hostname, error, "a host could not be added");
        }
        let Some(asked) = self.asked.remove(&address.hostname) else { return };
        for reply in asked.replies {
            // The asker may have gone.
            let _ = reply.send(answer.clone());
        }
    }

    fn counts(&self, now: Instant) -> HostCounts {
        let mut counts = HostCounts::default();
        for live in self.registry.live_all(now).values() {
            let place = HostStatus::ALL.iter().position(|status| *status == live.status);
            if let Some(cell) = place.and_then(|place| counts.by_status.get_mut(place)) {
                *cell += 1;
            }
            counts.connected += u64::from(live.connected);
            counts.dialing += u64::from(live.phase == "dialing");
        }
        counts
    }

    fn reply_when_stored<T: Send + 'static>(&mut self, reply: oneshot::Sender<T>, answer: T) {
        self.flushed_next.push(Box::new(move || {
            let _ = reply.send(answer);
        }));
        self.flush();
    }

    /// Starts to write what changed, unless a write is under way: then the next one takes it.
    fn flush(&mut self) {
        if self.flushing {
            return;
        }
        let batch = self.registry.take_batch();
        let told = std::mem::take(&mut self.flushed_next);
        if batch.is_empty() {
            for tell in told {
                tell();
            }
            return;
        }
        self.flushing = true;
        self.flushed = told;
        let store = self.store.clone();
        self.tasks.spawn(async move {
            let hosts = batch.hosts();
            Done::Flushed { hosts, result: write(&store, batch).await }
        });
    }

    fn handle_flushed(&mut self, hosts: Vec<HostId>, result: Result<(), StoreError>) {
        self.flushing = false;
        if let Err(error) = result {
            tracing::error!(%error, "host cursors and statuses could not be stored");
            self.registry.write_again(hosts);
        }
        for tell in std::mem::take(&mut self.flushed) {
            tell();
        }
        if !self.flushed_next.is_empty() {
            self.flush();
        }
    }
}

async fn write(store: &Store, batch: Batch) -> Result<(), StoreError> {
    // Progress first: a cursor that was set back must not be overtaken by an older one.
    if !batch.progress.is_empty() {
        store.save_progress(batch.progress).await?;
    }
    for (host, patch) in batch.patches {
        store.update_host(host, patch).await?;
    }
    Ok(())
}

async fn within_limit(store: &Store, limit: Option<u64>) -> Result<(), CrawlRefusal> {
    let Some(limit) = limit else { return Ok(()) };
    if store.hosts_added_since(a_day_ago()).await.map_err(internal)? >= limit {
        return Err(CrawlRefusal::RateLimited { retry_after: RETRY_NEW_HOST });
    }
    Ok(())
}

async fn insert(store: &Store, host: NewHost, per_day: u64) -> Result<HostRow, CrawlRefusal> {
    if host.by_admin {
        return store.insert_host(host).await.map_err(internal);
    }
    let inserted = store.insert_host_within(host, a_day_ago(), per_day).await.map_err(internal)?;
    inserted.ok_or(CrawlRefusal::RateLimited { retry_after: RETRY_NEW_HOST })
}

fn internal(error: StoreError) -> CrawlRefusal {
    CrawlRefusal::Internal(error.to_string())
}

/// In Unix seconds.
fn a_day_ago() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(DAY).as_secs()
}

/// Whether a pattern covers the name: `*`, the name itself, or `*.domain` for names below it.
pub(super) fn is_trusted(patterns: &[String], hostname: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_prefix('*') {
        Some(suffix) => hostname.ends_with(suffix),
        None => hostname == pattern,
    })
}

fn random_seed() -> u64 {
    use std::hash::BuildHasher;
    foldhash::fast::RandomState::default().hash_one(0_u8)
}
