//! Wires the control plane together and runs it on one thread.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header};
use ports::{
    AccountAnswer, LogControl, LogTail, LookupWhy, ShardCommand, ShardReport,
    ring::{self, Doorbell},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{
    Barrier, Link, Shards,
    accounts::Accounts,
    api::{
        self, Addresses, AdminKeys, ConsumerLimits, Consumers, Failures, ServerLimits,
        TrustedProxies, server,
    },
    dial::{DialConfig, Dialer, FetchError},
    discovery::{Discoverer, DiscoveryConfig},
    hosts::{Hosts, HostsConfig, HostsError},
    identity::{IdentityConfig, Resolver},
    notices::Notices,
    siblings::{Siblings, SiblingsConfig, SiblingsError},
    store::{Recovery, Store, StoreError},
    telemetry::{self, Page, Recorder, ShardTallies},
};

/// For the database to take what is held back. Without an answer until then it counts as away: what
/// is in the log is not lost, and the process has to end.
const DATABASE_STOP_MAX: Duration = Duration::from_secs(1);

/// Connections that wait to be accepted: all consumers may come at once after a restart.
const LISTEN_BACKLOG: i32 = 4096;

#[derive(Debug)]
pub struct ControlConfig {
    /// Bound already, so that a port in use is known before anything else starts.
    pub api: StdListener,
    pub metrics: StdListener,
    pub admin_keys: AdminKeys,
    pub limits: ServerLimits,
    pub proxies: TrustedProxies,
    pub consumers: ConsumerLimits,
    /// Name and version, for the `Server` header.
    pub server: String,
    pub hosts: HostsConfig,
    pub dial: DialConfig,
    pub identity: IdentityConfig,
    pub siblings: SiblingsConfig,
    pub discovery: DiscoveryConfig,
}

/// The data plane, as the control plane gets it.
pub struct EngineLink {
    pub commands: Vec<ring::Sender<ShardCommand>>,
    pub reports: Vec<ring::Receiver<ShardReport>>,
    /// Rung when a report comes or a command ring has room again.
    pub bell: Arc<Doorbell>,
    /// For the store, which follows the log.
    pub tail: Box<dyn LogTail>,
    pub log_control: Arc<dyn LogControl>,
}

/// How far shutdown is. Only ever moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Running,
    /// No new hosts, consumers or requests; reports of the shards are still taken.
    Stopping,
    /// The shards have ended: write everything down and return.
    Ending,
}

/// The relay is up: where it listens, with the ports that were really bound.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    pub api: SocketAddr,
    pub metrics: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Hosts(#[from] HostsError),
    #[error(transparent)]
    Siblings(#[from] SiblingsError),
    #[error("identity look-ups cannot be set up: {0}")]
    Identity(String),
    #[error("other relays' hosts cannot be looked through: {0}")]
    Discovery(#[from] FetchError),
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    #[error("the name of the server cannot stand in an HTTP header")]
    ServerName,
}

/// Runs the control plane until the stage is [`Stage::Ending`].
///
/// Call it on a current-thread Tokio runtime. `started` is called once everything is up.
pub async fn run(
    config: ControlConfig,
    store: Store,
    engine: EngineLink,
    recorder: Recorder,
    mut stage: watch::Receiver<Stage>,
    started: impl FnOnce(Started),
) -> Result<(), ControlError> {
    let name = HeaderValue::from_str(&config.server).map_err(|_text| ControlError::ServerName)?;
    let EngineLink { commands, reports, bell, tail, log_control } = engine;
    let (shards, queue) = Shards::new(commands.len() as u16);
    let Recovery { emitted, records } = tokio::select! {
        followed = store.follow(tail) => followed?,
        // The database may be away for as long as it likes.
        () = wait_for(&mut stage, Stage::Ending) => return Ok(()),
    };
    tracing::info!(records, "the database is as of the end of the log");

    let dialer = Dialer::new(config.dial);
    let hosts =
        Hosts::start(config.hosts, store.clone(), dialer.clone(), emitted, shards.clone()).await?;
    let resolver = Resolver::start(config.identity, store.clone(), &dialer, hosts.names())
        .map_err(|error| ControlError::Identity(error.to_string()))?;
    let siblings = Siblings::start(config.siblings, store.clone()).await?;
    let discoverer = Discoverer::new(config.discovery, hosts.clone(), store.clone())?;
    let consumers = Consumers::new(config.consumers, shards.count());
    let tallies = ShardTallies::new(shards.count());
    let notices = Notices::start(store.clone());
    let dispatch = Dispatch {
        hosts: hosts.clone(),
        consumers: consumers.clone(),
        tallies: tallies.clone(),
        resolver: resolver.clone(),
        shards: shards.clone(),
        notices: notices.clone(),
    };
    let mut link = Link::new(commands, reports, bell, queue);
    let mut tasks = JoinSet::new();
    let (barrier, barriers) = Barrier::new();
    tasks.spawn(async move {
        link.run(barriers, |shard, report| dispatch.handle(shard, report)).await;
    });

    let (api, metrics) = (listener(config.api)?, listener(config.metrics)?);
    let addresses = Started { api: api.local_addr()?, metrics: metrics.local_addr()? };
    let shared = api::Shared::new(api::Parts {
        store: store.clone(),
        hosts: hosts.clone(),
        accounts: Accounts::start(store.clone(), shards.clone()).await?,
        consumers,
        shards,
        keys: config.admin_keys,
        failures: Failures::default(),
        addresses: Addresses::new(config.limits.connections_per_address, config.proxies.clone()),
        proxies: config.proxies,
        log: Arc::clone(&log_control),
        tallies: tallies.clone(),
        siblings,
        discoverer: discoverer.clone(),
    });
    api::restore_settings(&shared).await?;
    let mut servers = JoinSet::new();
    servers.spawn(discoverer.run());
    servers.spawn(api::serve(api, shared.clone(), name.clone(), config.limits));
    let page = Page::new(recorder, tallies, hosts.clone(), resolver, log_control);
    let common = HeaderMap::from_iter([(header::SERVER, name)]);
    let limits = ServerLimits { connections: 64, ..ServerLimits::default() };
    let unlimited = Addresses::new(None, TrustedProxies::default());
    servers.spawn(server::serve(metrics, telemetry::routes(page), common, limits, unlimited));
    started(addresses);

    wait_for(&mut stage, Stage::Stopping).await;
    tracing::info!("stopping: no new hosts and consumers");
    shared.set_stopping();
    hosts.stop_dialing();
    wait_for(&mut stage, Stage::Ending).await;
    servers.shutdown().await;
    write_down(&barrier, &store, &hosts, &notices).await?;
    tasks.shutdown().await;
    Ok(())
}

/// What is held back goes to the database, as far as it is there.
async fn write_down(
    barrier: &Barrier,
    store: &Store,
    hosts: &Hosts,
    notices: &Notices,
) -> Result<(), ControlError> {
    // The shards' last words tell how far the relay is with each host.
    barrier.reports_handled().await;
    let late = store.clone();
    let patience = tokio::spawn(async move {
        tokio::time::sleep(DATABASE_STOP_MAX).await;
        late.give_up();
    });
    let written = write_all(store, hosts, notices).await;
    patience.abort();
    written
}

async fn write_all(store: &Store, hosts: &Hosts, notices: &Notices) -> Result<(), ControlError> {
    notices.flush().await;
    hosts.flush().await?;
    match store.close().await {
        Err(error) if error.is_passing() => tracing::warn!(
            %error,
            "what the database does not know yet is read from the event log at the next start"
        ),
        closed => closed?,
    }
    Ok(())
}

/// A sender that is gone counts as the last stage: nobody is left to say anything else.
async fn wait_for(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    // The error says just that.
    let _ = stage.wait_for(|stage| *stage >= wanted).await;
}

/// Takes each report of a shard to whom it concerns.
struct Dispatch {
    hosts: Hosts,
    consumers: Consumers,
    tallies: ShardTallies,
    resolver: Resolver,
    shards: Shards,
    notices: Notices,
}

impl Dispatch {
    fn handle(&self, shard: ports::ShardId, report: ShardReport) {
        match report {
            ShardReport::Lookup(lookup) => {
                let (resolver, shards) = (self.resolver.clone(), self.shards.clone());
                let hosts = self.hosts.clone();
                // Bounded: a shard has one look-up in flight for an account, and few accounts wait.
                tokio::spawn(async move {
                    let (to, sender, did) = (lookup.shard, lookup.sender, lookup.did.clone());
                    let inactive = lookup.why == LookupWhy::Inactive;
                    let status = async {
                        if inactive { hosts.repo_status(sender, &did).await } else { None }
                    };
                    let (answer, host_status) = tokio::join!(resolver.answer(*lookup), status);
                    let answer = AccountAnswer { host_status, ..answer };
                    shards.send(to, ShardCommand::Account(Box::new(answer)));
                });
            }
            ShardReport::Consumers(progress) => self.consumers.handle_progress(&progress),
            ShardReport::ConsumerClosed { id, reason } => self.consumers.handle_closed(id, reason),
            ShardReport::Tally(tally) => {
                self.hosts.note_refusals(&tally.refusals);
                self.tallies.handle_tally(shard, &tally);
            }
            report @ ShardReport::HostOpen(_) => {
                metrics::counter!("relayered_upstream_connections_opened_total").increment(1);
                self.hosts.handle_report(report);
            }
            ShardReport::HostClosed { ref fault, .. } => {
                let name = "relayered_upstream_connections_closed_total";
                metrics::counter!(name, "fault" => fault.label()).increment(1);
                self.hosts.handle_report(report);
            }
            report @ (ShardReport::Progress(_) | ShardReport::HostSlowed { .. }) => {
                self.hosts.handle_report(report);
            }
            ShardReport::LocalSet { account, local } => {
                tracing::debug!(account = account.0, ?local, "local status set");
            }
            ShardReport::Noted(noted) => self.notices.upstream(noted),
            ShardReport::Collections(found) => self.notices.collections(found),
        }
    }
}

fn listener(listener: StdListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Binds a port; `ip` of `None` means all interfaces, IPv6 and IPv4 in one socket where there is IPv6.
pub fn bind(ip: Option<std::net::IpAddr>, port: u16) -> io::Result<StdListener> {
    match ip {
        Some(ip) => bind_address(SocketAddr::new(ip, port)),
        None => bind_address(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).or_else(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                return Err(error);
            }
            bind_address(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }),
    }
}

fn bind_address(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}
