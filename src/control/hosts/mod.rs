//! Upstream hosts: which there are, which are connected, and when to try those which are not.
//!
//! One task owns all of it. It dials (DNS, guard, TCP) with bounded parallelism, hands each socket to
//! the host's home shard, hears from the shards how connections fare, and writes cursors and statuses
//! to the store about once a second. Others talk to it through [`Hosts`].

mod budget;
mod crawl;
mod driver;
mod entry;
mod explain;
mod gate;
mod limits;
mod machine;
mod places;
mod refusals;
mod registry;
mod repo_status;
mod requests;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use ports::{HostId, HostSeq, Refusal, ShardReport, Strictness, UpstreamStatus};
use tokio::sync::{mpsc, oneshot};

pub use budget::{Allowance, BudgetConfig};
pub use crawl::{Caller, Crawl, CrawlRefusal};
pub use entry::{HostDeeds, HostLive, Slowed};
pub use explain::{AccountDetail, Explanation, HostDetail};
pub use machine::{Reason, RetryConfig};
pub use refusals::{Refusals, Refused};
pub use registry::HostNames;

use crate::{
    Shards,
    dial::{Dialer, FetchError, HostAddress},
    store::{HostFilter, HostPatch, HostRow, HostStatus, Store, StoreError},
};
use driver::Driver;
use repo_status::RepoStatuses;

#[derive(Clone, Debug)]
pub struct HostsConfig {
    pub retry: RetryConfig,
    pub budget: BudgetConfig,
    /// Dials (DNS and TCP) under way at once; also how fast connections ramp up at start. Zero: no
    /// connections at all.
    pub dials_max: usize,
    /// Requests to crawl that are being looked at, at once.
    pub probes_max: usize,
    /// For `describeServer`.
    pub probe_timeout: Duration,
    /// Of a host without a setting of its own.
    pub strictness: Strictness,
    /// Of a host that is not trusted.
    pub default_account_limit: u64,
    /// `example.com`, `*.example.com` (names below it) or `*` (all).
    pub trusted_domains: Vec<String>,
    pub new_hosts_per_day: u64,
    /// Whether the public may ask for crawls.
    pub crawl_enabled: bool,
    pub flush_interval: Duration,
}

impl Default for HostsConfig {
    fn default() -> Self {
        Self {
            retry: RetryConfig::default(),
            budget: BudgetConfig::default(),
            dials_max: 128,
            probes_max: 64,
            probe_timeout: Duration::from_secs(5),
            strictness: Strictness::Strict,
            default_account_limit: 100,
            trusted_domains: vec!["*.host.bsky.network".to_owned()],
            new_hosts_per_day: 50,
            crawl_enabled: true,
            flush_interval: Duration::from_secs(1),
        }
    }
}

/// A host's row together with what is going on with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostView {
    pub row: HostRow,
    pub live: HostLive,
}

/// For metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCounts {
    /// In the order of [`HostStatus::ALL`].
    pub by_status: [u64; HostStatus::ALL.len()],
    pub connected: u64,
    pub dialing: u64,
}

/// The task could not be reached: it ends only with the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host registry has ended")]
pub struct Ended;

enum Command {
    Report(ShardReport),
    Crawl {
        address: HostAddress,
        caller: Caller,
        reply: oneshot::Sender<Result<Crawl, CrawlRefusal>>,
    },
    Block {
        hostname: String,
        reply: oneshot::Sender<bool>,
    },
    Unblock {
        hostname: String,
        reply: oneshot::Sender<bool>,
    },
    Stop {
        hostname: String,
        reply: oneshot::Sender<bool>,
    },
    ResetCursor {
        hostname: String,
        cursor: Option<HostSeq>,
        reply: oneshot::Sender<bool>,
    },
    SetTrusted {
        /// Those of the store; the ones of the configuration hold beside them.
        domains: Vec<String>,
        reply: oneshot::Sender<Vec<(HostId, HostPatch)>>,
    },
    SetBans {
        domains: Vec<String>,
        reply: oneshot::Sender<()>,
    },
    Recrawl {
        status: HostStatus,
        reply: oneshot::Sender<u64>,
    },
    Row(Box<HostRow>),
    SetCrawl {
        enabled: Option<bool>,
        new_hosts_per_day: Option<u64>,
        reply: oneshot::Sender<(bool, u64)>,
    },
    SetDefaultStrictness {
        strictness: Option<Strictness>,
        reply: oneshot::Sender<Strictness>,
    },
    Live {
        host: HostId,
        reply: oneshot::Sender<Option<HostLive>>,
    },
    LiveOf {
        hosts: Vec<HostId>,
        reply: oneshot::Sender<HashMap<HostId, HostLive>>,
    },
    Counts(oneshot::Sender<HostCounts>),
    Flush(oneshot::Sender<()>),
    StopDialing,
}

/// A handle to the task that owns the hosts. Clones share it.
#[derive(Clone, Debug)]
pub struct Hosts {
    // Unbounded, as the task never waits: what comes in is bounded by the shards' rings and by the
    // limits of the HTTP server.
    commands: mpsc::UnboundedSender<Command>,
    names: HostNames,
    dialer: Dialer,
    store: Store,
    refusals: Refusals,
    statuses: RepoStatuses,
    /// Of the configuration.
    trusted: Vec<String>,
}

impl Hosts {
    /// Loads the hosts from the store and starts to connect to them.
    ///
    /// `emitted` comes from [`Store::follow`].
    pub async fn start(
        config: HostsConfig,
        store: Store,
        dialer: Dialer,
        emitted: HashMap<HostId, Vec<HostSeq>>,
        shards: Shards,
    ) -> Result<Self, HostsError> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let statuses = RepoStatuses::new(&dialer, config.probe_timeout)?;
        let trusted = config.trusted_domains.clone();
        let driver =
            Driver::load(config, store.clone(), dialer.clone(), emitted, shards, inbox).await?;
        let names = driver.names();
        tokio::spawn(driver.run());
        let refusals = Refusals::default();
        Ok(Self { commands, names, dialer, store, refusals, statuses, trusted })
    }

    /// Which host a name is, for identity look-ups.
    pub fn names(&self) -> HostNames {
        self.names.clone()
    }

    /// `HostOpen`, `HostClosed`, `Progress` and `HostSlowed`; other reports are ignored.
    pub fn handle_report(&self, report: ShardReport) {
        // Ended means that the process is going down.
        let _ = self.commands.send(Command::Report(report));
    }

    /// Keeps the refusals that a shard reports.
    pub fn note_refusals(&self, refusals: &[Refusal]) {
        self.refusals.note(refusals);
    }

    /// The last refusals of hosts and accounts.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// What a host says of an account of its own (`getRepoStatus`), within its pace. `None`: no
    /// answer, or not asked.
    pub(crate) async fn repo_status(&self, host: HostId, did: &str) -> Option<UpstreamStatus> {
        let row = self.store.host(host).await.ok()?;
        self.statuses.ask(host, &row.hostname, row.tls, did).await
    }

    /// Checks the host, and connects to it unless it is connected.
    ///
    /// # Cancel-safety
    /// A request that is dropped may still be carried out.
    pub async fn request_crawl(
        &self,
        hostname: &str,
        caller: Caller,
    ) -> Result<Crawl, CrawlRefusal> {
        let address = HostAddress::parse(hostname).map_err(CrawlRefusal::Hostname)?;
        address
            .check(self.dialer.policy(), caller == Caller::Admin)
            .map_err(CrawlRefusal::Hostname)?;
        self.ask(|reply| Command::Crawl { address, caller, reply })
            .await
            .unwrap_or_else(|ended| Err(CrawlRefusal::Internal(ended.to_string())))
    }

    /// All hosts in the order in which they were added.
    pub async fn list(&self) -> Result<Vec<HostView>, HostsError> {
        self.views(self.store.hosts().await?).await
    }

    /// Hosts above an id in the order of ids, without those that were never heard of and are not tried
    /// now.
    pub async fn page(&self, after: HostId, count: usize) -> Result<Vec<HostView>, HostsError> {
        let filter = HostFilter { heard: true, ..HostFilter::default() };
        self.views(self.store.hosts_page(filter, after, count).await?).await
    }

    async fn views(&self, rows: Vec<HostRow>) -> Result<Vec<HostView>, HostsError> {
        let hosts = rows.iter().map(|row| row.id).collect();
        let mut live = self.ask(|reply| Command::LiveOf { hosts, reply }).await?;
        let views = rows.into_iter().filter_map(|row| {
            let live = live.remove(&row.id)?;
            Some(view(row, live))
        });
        Ok(views.collect())
    }

    /// One host by its normalised name.
    pub async fn find(&self, hostname: &str) -> Result<Option<HostView>, HostsError> {
        let Some((host, live)) = self.live(hostname).await? else { return Ok(None) };
        Ok(Some(view(self.store.host(host).await?, live)))
    }

    /// What is going on with one host, by its normalised name.
    pub async fn live(&self, hostname: &str) -> Result<Option<(HostId, HostLive)>, HostsError> {
        let Some(host) = self.names.id(hostname) else { return Ok(None) };
        let live = self.ask(|reply| Command::Live { host, reply }).await?;
        Ok(live.map(|live| (host, live)))
    }

    pub async fn counts(&self) -> Result<HostCounts, HostsError> {
        Ok(self.ask(Command::Counts).await?)
    }

    /// Cuts the connection and makes no other; stored before it returns. False: no such host.
    pub async fn block(&self, hostname: &str) -> Result<bool, HostsError> {
        let hostname = hostname.to_owned();
        Ok(self.ask(|reply| Command::Block { hostname, reply }).await?)
    }

    /// Lifts a block and connects at once. False: no such host.
    pub async fn unblock(&self, hostname: &str) -> Result<bool, HostsError> {
        let hostname = hostname.to_owned();
        Ok(self.ask(|reply| Command::Unblock { hostname, reply }).await?)
    }

    /// Cuts the connection without blocking: the host comes back on request or after hours.
    /// False: not connected.
    pub async fn disconnect(&self, hostname: &str) -> Result<bool, HostsError> {
        let hostname = hostname.to_owned();
        Ok(self.ask(|reply| Command::Stop { hostname, reply }).await?)
    }

    /// Moves the cursor of a host and reconnects there; stored before it returns. Without a cursor
    /// the host is taken up at its live position. False: no such host.
    pub async fn reset_cursor(
        &self,
        hostname: &str,
        cursor: Option<HostSeq>,
    ) -> Result<bool, HostsError> {
        let hostname = hostname.to_owned();
        Ok(self.ask(|reply| Command::ResetCursor { hostname, cursor, reply }).await?)
    }

    /// Brings forward the next attempt at all hosts with this status, as fast as dials go. Returns
    /// how many there are; banned ones are not tried.
    pub async fn recrawl(&self, status: HostStatus) -> Result<u64, HostsError> {
        Ok(self.ask(|reply| Command::Recrawl { status, reply }).await?)
    }

    /// Replaces the banned domains, which the caller has stored. Live connections are cut.
    pub async fn set_domain_bans(&self, domains: Vec<String>) -> Result<(), HostsError> {
        Ok(self.ask(|reply| Command::SetBans { domains, reply }).await?)
    }

    /// Names whose hosts are trusted: those of the configuration, then those of the store.
    pub async fn trusted_domains(&self) -> Result<Vec<String>, HostsError> {
        let mut domains = self.trusted.clone();
        domains.extend(self.store.trusted_domains().await?);
        Ok(domains)
    }

    /// Trusts a domain (`example.com`, `*.example.com`), and hosts of that name from now on. False:
    /// it was trusted before.
    pub async fn trust_domain(&self, domain: &str) -> Result<bool, HostsError> {
        let domain = normal_domain(domain);
        let known = self.trusted.contains(&domain);
        let new = !known && self.store.trust_domain(&domain).await?;
        self.apply_trust().await?;
        Ok(new)
    }

    /// False: it was not trusted, or by the configuration.
    pub async fn untrust_domain(&self, domain: &str) -> Result<bool, HostsError> {
        let known = self.store.untrust_domain(&normal_domain(domain)).await?;
        self.apply_trust().await?;
        Ok(known)
    }

    async fn apply_trust(&self) -> Result<(), HostsError> {
        let domains = self.store.trusted_domains().await?;
        let patches = self.ask(|reply| Command::SetTrusted { domains, reply }).await?;
        for (host, patch) in patches {
            self.change(host, patch).await?;
        }
        Ok(())
    }

    /// The rules for a host's commits by the operator's word; `None`: those of the relay, until the
    /// host has shown that it keeps the strict ones. `None` back: no such host.
    pub async fn set_strictness(
        &self,
        hostname: &str,
        strictness: Option<Strictness>,
    ) -> Result<Option<HostRow>, HostsError> {
        let patch = HostPatch { strictness: Some(strictness), ..HostPatch::default() };
        self.update(hostname, patch).await
    }

    /// Changes limits, trust, strictness and the like. `status`, `cursor` and `tls` are not changed
    /// this way. `None`: no such host.
    pub async fn update(
        &self,
        hostname: &str,
        patch: HostPatch,
    ) -> Result<Option<HostRow>, HostsError> {
        let Some(host) = self.names.id(hostname) else { return Ok(None) };
        let patch = HostPatch {
            status: None,
            cursor: None,
            tls: None,
            last_error: None,
            memory: None,
            ..patch
        };
        self.change(host, patch).await.map(Some)
    }

    async fn change(&self, host: HostId, patch: HostPatch) -> Result<HostRow, HostsError> {
        let row = self.store.update_host(host, patch).await?;
        self.commands.send(Command::Row(Box::new(row.clone()))).map_err(|_| Ended)?;
        Ok(row)
    }

    /// Whether the public may ask for crawls, and the limit of new hosts a day.
    pub async fn crawl_settings(&self) -> Result<(bool, u64), HostsError> {
        self.set_crawl(None, None).await
    }

    /// Sets what is given and returns what holds then.
    pub async fn set_crawl(
        &self,
        enabled: Option<bool>,
        new_hosts_per_day: Option<u64>,
    ) -> Result<(bool, u64), HostsError> {
        Ok(self.ask(|reply| Command::SetCrawl { enabled, new_hosts_per_day, reply }).await?)
    }

    /// How strictly hosts without a setting of their own are held to the protocol.
    pub async fn default_strictness(&self) -> Result<Strictness, HostsError> {
        Ok(self.ask(|reply| Command::SetDefaultStrictness { strictness: None, reply }).await?)
    }

    /// Sets it for the connections that stand and for all later ones.
    pub async fn set_default_strictness(&self, strictness: Strictness) -> Result<(), HostsError> {
        let strictness = Some(strictness);
        self.ask(|reply| Command::SetDefaultStrictness { strictness, reply }).await?;
        Ok(())
    }

    /// No more attempts to connect, for shutdown.
    pub fn stop_dialing(&self) {
        let _ = self.commands.send(Command::StopDialing);
    }

    /// Returns once all reports handled before are in the store.
    pub async fn flush(&self) -> Result<(), HostsError> {
        Ok(self.ask(Command::Flush).await?)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }
}

/// A domain or pattern as it is stored: names know no upper case, and no dot at the end.
fn normal_domain(domain: &str) -> String {
    domain.trim_end_matches('.').to_ascii_lowercase()
}

/// The row with what the task knows better.
fn view(row: HostRow, live: HostLive) -> HostView {
    let row = HostRow {
        status: live.status,
        status_reason: live.status_reason.map(str::to_owned),
        cursor: live.cursor,
        last_error: live.last_error.clone(),
        ..row
    };
    HostView { row, live }
}

#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Http(#[from] FetchError),
    #[error(transparent)]
    Ended(#[from] Ended),
}
