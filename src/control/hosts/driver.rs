//! The task that owns the hosts: moves results between the registry, the network and the store.

use std::{collections::HashMap, time::Instant};

use ports::{HostId, HostSeq, ShardReport};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until},
};

use super::{
    Command, HostCounts, HostNames, HostsConfig, HostsError,
    machine::{Attempt, Reason},
    places::Places,
    registry::{Batch, Effect, Registry, RegistryConfig},
    requests::{Asked, Gates},
};
use crate::{
    Shards,
    dial::{DialError, Dialer, HostAddress, HttpClient, Reach},
    hosts::CrawlRefusal,
    store::{HostRow, HostStatus, Store, StoreError},
};

/// A `describeServer` reply is a few hundred bytes.
const PROBE_BYTES_MAX: usize = 64 * 1024;

/// Results of the tasks that do the waiting.
pub(super) enum Done {
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
    /// Accounts that were above their hosts' limits have been looked after.
    Places(Places),
}

pub(super) struct Driver {
    pub(super) config: HostsConfig,
    pub(super) store: Store,
    dialer: Dialer,
    pub(super) client: HttpClient,
    pub(super) registry: Registry,
    inbox: mpsc::UnboundedReceiver<Command>,
    pub(super) shards: Shards,
    pub(super) tasks: JoinSet<Done>,
    pub(super) gates: Gates,
    pub(super) asked: HashMap<String, Asked>,
    /// `None` while they are being looked after.
    pub(super) places: Option<Places>,
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
        let limits = RegistryConfig {
            retry: config.retry,
            budget: config.budget,
            dials_max: config.dials_max,
            strictness: config.strictness,
            account_limit: config.default_account_limit,
        };
        let mut trusted = config.trusted_domains.clone();
        trusted.extend(store.trusted_domains().await?);
        let bans = store.domain_bans().await?;
        let mut registry = Registry::new(limits, random_seed(), bans, trusted, now);
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
            gates: Gates::new(now),
            asked: HashMap::new(),
            places: Some(Places::default()),
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
                _ = tick.tick() => {
                    self.flush();
                    self.look_after_places();
                }
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
                Effect::Flush => self.flush(),
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
            Command::SetTrusted { domains, reply } => {
                let mut trusted = self.config.trusted_domains.clone();
                trusted.extend(domains);
                let _ = reply.send(self.registry.set_trusted(trusted));
            }
            Command::SetBans { domains, reply } => {
                self.registry.set_bans(domains, now);
                self.reply_when_stored(reply, ());
            }
            Command::Recrawl { status, reply } => {
                let _ = reply.send(self.registry.recrawl(status, now));
            }
            Command::Row(row) => {
                self.registry.handle_row(*row, now);
                self.look_after_places_now();
            }
            Command::SetCrawl { enabled, new_hosts_per_day, reply } => {
                self.config.crawl_enabled = enabled.unwrap_or(self.config.crawl_enabled);
                self.config.new_hosts_per_day =
                    new_hosts_per_day.unwrap_or(self.config.new_hosts_per_day);
                let _ = reply.send((self.config.crawl_enabled, self.config.new_hosts_per_day));
            }
            Command::SetDefaultStrictness { strictness, reply } => {
                let _ = reply.send(self.registry.set_default_strictness(strictness));
            }
            Command::Live { host, reply } => {
                let _ = reply.send(self.registry.live(host, now));
            }
            Command::LiveOf { hosts, reply } => {
                let live = |host| Some((host, self.registry.live(host, now)?));
                let _ = reply.send(hosts.into_iter().filter_map(live).collect());
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
                    self.registry.handle_progress(progress, now);
                }
            }
            ShardReport::HostSlowed { host, why, until } => {
                self.registry.handle_slowed(host, why, until);
            }
            ShardReport::LocalSet { .. }
            | ShardReport::Noted(_)
            | ShardReport::Collections(_)
            | ShardReport::Lookup(_)
            | ShardReport::Consumers(_)
            | ShardReport::ConsumerClosed { .. }
            | ShardReport::Tally(_) => {}
        }
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
            Done::Probed { address, result } => self.handle_probed(address, result, now),
            Done::Inserted { address, result } => self.handle_inserted(&address, result, now),
            Done::Flushed { hosts, result } => self.handle_flushed(&hosts, result),
            Done::Places(places) => self.places = Some(places),
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
        let batch = self.registry.take_batch(Instant::now());
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

    fn handle_flushed(&mut self, hosts: &[HostId], result: Result<(), StoreError>) {
        self.flushing = false;
        match result {
            Ok(()) => self.registry.handle_stored(hosts),
            Err(error) => {
                tracing::error!(%error, "host cursors and statuses could not be stored");
                self.registry.write_again(hosts);
            }
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

fn random_seed() -> u64 {
    use std::hash::BuildHasher;
    foldhash::fast::RandomState::default().hash_one(0_u8)
}
