//! Starts all parts in order, waits for a signal, and stops them in order.
//!
//! Start: ports, database, log and shards, recovery of the database from the log, hosts, API.
//! Stop: no new hosts and consumers; the shards drain into the log and say goodbye to consumers; what
//! control holds is written down.

use std::{
    fs, io,
    io::Read as _,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use control::{
    ControlConfig, ControlError, EngineLink, Stage,
    api::{AdminKeys, ConsumerLimits, ServerLimits, TrustedProxies},
    dial::{DialConfig, DialPolicy},
    hosts::HostsConfig,
    identity::IdentityConfig,
    siblings::SiblingsConfig,
    store::{Store, StoreConfig, StoreError},
    telemetry::Recorder,
};
use engine::{
    config::EngineConfig,
    log::LogConfig,
    rt::Driver,
    wiring::{self, Engine, EngineHandle},
};
use ports::{Strictness, ring::Doorbell};
use tokio::sync::watch;

use crate::{
    config::{Config, DriverChoice, Listen},
    fatal::{Code, Fatal},
    files, signals,
};

/// For the data plane to drain, sync and close; together with the next below five seconds.
const ENGINE_STOP_MAX: Duration = Duration::from_secs(3);
/// For the control plane to write everything down.
const CONTROL_STOP_MAX: Duration = Duration::from_millis(1500);
/// Pause between attempts to reach the database at start; it doubles from one to the other.
const DATABASE_PAUSE_MIN: Duration = Duration::from_millis(500);
const DATABASE_PAUSE_MAX: Duration = Duration::from_secs(10);

/// What the main thread waits for.
pub(crate) enum Event {
    Signal(i32),
    /// An attempt to open the database has ended.
    Database(Result<Store, StoreError>),
    /// The control thread has ended.
    Control(Result<(), ControlError>),
}

pub(crate) fn run(config: Config) -> Result<(), Fatal> {
    let (sender, events) = mpsc::channel();
    signals::start(sender.clone()).map_err(|error| Fatal::of(Code::Software, &error))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        deployment = config.deployment,
        "relayered starts"
    );
    files::raise_limit(config.consumers_max);
    let api = bind(config.api, "--api-listen")?;
    let metrics = bind(config.metrics, "--metrics-listen")?;
    let recorder = Recorder::install().map_err(|error| Fatal::of(Code::Software, &error))?;
    let Some(store) = open_store(&config, &sender, &events)? else { return Ok(()) };
    prepare_signatures(config.signatures);
    let bell = Doorbell::new();
    let engine = start_engine(&config, &store, &bell)?;
    let (stage, stages) = watch::channel(Stage::Running);
    let Engine { commands, reports, log, driver, handle } = engine;
    tracing::info!(shards = commands.len(), driver = driver.label(), "the data plane runs");
    let tail = Box::new(log.clone());
    let link = EngineLink { commands, reports, bell, tail, log_control: Arc::new(log) };
    let control = control_config(&config, api, metrics)?;
    spawn_control(control, store, link, recorder, stages, sender)?;
    wait(&events, handle, &stage)
}

/// Opens the database; one that cannot be reached is waited for. `None`: told to stop meanwhile.
fn open_store(
    config: &Config,
    sender: &mpsc::Sender<Event>,
    events: &mpsc::Receiver<Event>,
) -> Result<Option<Store>, Fatal> {
    let stopped = |signal| {
        tracing::info!(signal, "stopped before the database could be reached");
        Ok(None)
    };
    let store_config = StoreConfig {
        cache_bytes: config.database_cache_bytes,
        alone: true,
        connections_max: config.database_connections_max,
    };
    let mut pause = DATABASE_PAUSE_MIN;
    loop {
        // On a thread of its own, as a server that is there but silent may be waited for.
        let (url, sender) = (config.database.clone(), sender.clone());
        let open = move || {
            // Nobody listens any more if the process ends meanwhile.
            let _ = sender.send(Event::Database(Store::open_with(&url, store_config)));
        };
        thread::Builder::new()
            .name("store-open".into())
            .spawn(open)
            .map_err(|error| Fatal::of(Code::Software, &error))?;
        let error = match events.recv() {
            Ok(Event::Database(Ok(store))) => return Ok(Some(store)),
            Ok(Event::Database(Err(error))) => error,
            Ok(Event::Signal(signal)) => return stopped(signal),
            Ok(Event::Control(_)) | Err(_) => {
                return Err(Fatal::new(Code::Software, "the database was not opened"));
            }
        };
        if !error.is_passing() {
            return Err(Fatal::of(Code::Config, &error).remedy(
                "Check --db-url and --data-dir: the directory must be writable, and a database of \
                 a newer version needs the newer program",
            ));
        }
        tracing::warn!(
            database = %config.database,
            %error,
            "waiting for the database: the relay starts once it answers; next try in {pause:?}"
        );
        if let Ok(Event::Signal(signal)) = events.recv_timeout(pause) {
            return stopped(signal);
        }
        pause = (pause * 2).min(DATABASE_PAUSE_MAX);
    }
}

/// Before the shards start: they would wait for the tables with their first batch.
fn prepare_signatures(settings: ecdsa::Settings) {
    let in_use = ecdsa::prepare(settings, |difference| {
        tracing::error!(
            %difference,
            "ALARM: a signature was verified wrongly; the library verifies all from now on. \
             Please report this line"
        );
    });
    if in_use == ecdsa::InUse::LibrarySelfTest {
        tracing::error!(%in_use, "signatures; please report this line with the CPU's model");
    } else {
        tracing::info!(%in_use, audit_every = settings.audit_every, "signatures");
    }
}

fn bind(listen: Listen, flag: &str) -> Result<std::net::TcpListener, Fatal> {
    control::bind(listen.ip, listen.port).map_err(|error| {
        let ip = listen.ip.map(|ip| ip.to_string()).unwrap_or_default();
        Fatal::new(Code::Config, format!("cannot listen on {ip}:{} ({flag}): {error}", listen.port))
            .remedy("Is another relay running? Choose another port, or stop it")
    })
}

fn start_engine(config: &Config, store: &Store, bell: &Arc<Doorbell>) -> Result<Engine, Fatal> {
    let known = store.log_seq_blocking().map_err(|error| Fatal::of(Code::Software, &error))?;
    let mut engine = EngineConfig::new(LogConfig::new(&config.log_dir));
    engine.log.segment_bytes_max = config.segment_bytes;
    engine.log.sync_interval = config.sync_interval;
    engine.log.replay_window = config.replay_window;
    engine.log.replay_bytes = config.replay_bytes;
    engine.log.initial_seq = config.initial_seq;
    engine.log.followed = true;
    engine.log.known_seq = known.0;
    if let Some(bytes) = config.log_memory_bytes {
        let chunks = bytes / engine.log.chunk_bytes as u64;
        engine.log.chunks_in_memory = usize::try_from(chunks).unwrap_or(usize::MAX).max(2);
    }
    engine.limits.accounts_memory_bytes = config.accounts_memory_bytes;
    engine.consumers.stall = config.consumer_stall;
    engine.consumers.ping = config.consumer_ping;
    engine.driver = match config.driver {
        DriverChoice::Auto => Driver::Auto,
        DriverChoice::Uring => Driver::Uring,
        DriverChoice::Epoll => Driver::Epoll,
    };
    if let Some(shards) = config.shards {
        engine.shards = shards;
    }
    if let Some(pin) = config.pin {
        engine.pin = pin;
    }
    wiring::start(engine, bell).map_err(|error| Fatal::of(Code::Config, &error))
}

fn control_config(
    config: &Config,
    api: std::net::TcpListener,
    metrics: std::net::TcpListener,
) -> Result<ControlConfig, Fatal> {
    let policy = DialPolicy {
        allow_insecure_hosts: config.insecure_hosts,
        private_hosts: config.private_hosts.clone(),
    };
    let strictness = if config.lenient { Strictness::Lenient } else { Strictness::Strict };
    let keys = admin_keys(config)?;
    Ok(ControlConfig {
        api,
        metrics,
        // Siblings are expected to have our first key; a random one they can't know.
        siblings: SiblingsConfig::new(config.siblings.clone(), config.admin_keys.first().cloned()),
        discovery: config.discovery.clone(),
        admin_keys: AdminKeys::new(keys),
        limits: ServerLimits {
            connections_per_address: config.connections_per_address_max,
            timeout: config.api_timeout,
            ..ServerLimits::default()
        },
        proxies: TrustedProxies::new(config.trusted_proxies.clone()),
        consumers: ConsumerLimits {
            all: config.consumers_max,
            per_address: config.consumers_per_address_max,
        },
        server: format!("relayered/{} (atproto-relay)", env!("CARGO_PKG_VERSION")),
        hosts: HostsConfig {
            strictness,
            default_account_limit: config.account_limit,
            trusted_domains: config.trusted_domains.clone(),
            new_hosts_per_day: config.new_hosts_per_day,
            crawl_enabled: config.crawl_enabled,
            ..HostsConfig::default()
        },
        dial: DialConfig { policy, ..DialConfig::default() },
        identity: IdentityConfig {
            plc_url: config.plc_url.clone(),
            cache_entries_max: config.identities_max,
            ..IdentityConfig::default()
        },
    })
}

/// The configured keys, or a random one, which is told once.
fn admin_keys(config: &Config) -> Result<Vec<String>, Fatal> {
    let keys: Vec<String> =
        config.admin_keys.iter().filter(|key| !key.is_empty()).cloned().collect();
    if !keys.is_empty() {
        return Ok(keys);
    }
    let mut bytes = [0_u8; 16];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(
        |error| {
            Fatal::new(Code::Software, format!("no random admin key: /dev/urandom: {error}"))
                .remedy("Give one with --admin-key")
        },
    )?;
    let key = format!("{:032x}", u128::from_be_bytes(bytes));
    // Not through the log: its level may hide it, and its readers may be many.
    eprintln!(
        "relayered: no --admin-key (RELAY_ADMIN_KEY) was given. For this run it is:\n    \
         Authorization: Bearer {key}"
    );
    Ok(vec![key])
}

/// The control plane's thread: one Tokio runtime, which nothing that moves events waits for.
fn spawn_control(
    config: ControlConfig,
    store: Store,
    link: EngineLink,
    recorder: Recorder,
    stages: watch::Receiver<Stage>,
    events: mpsc::Sender<Event>,
) -> Result<(), Fatal> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("control-dns")
        .build()
        .map_err(|error| Fatal::of(Code::Software, &error))?;
    let work = move || {
        let result = runtime.block_on(control::run(config, store, link, recorder, stages, |at| {
            tracing::info!(api = %at.api, metrics = %at.metrics, "listening");
        }));
        // Look-ups of names that nobody waits for any more must not hold up the end.
        runtime.shutdown_background();
        // The main thread may have given up waiting.
        let _ = events.send(Event::Control(result));
    };
    let spawned = thread::Builder::new().name("control".into()).spawn(work);
    spawned.map(drop).map_err(|error: io::Error| Fatal::of(Code::Software, &error))
}

/// Waits for a signal and stops in order.
fn wait(
    events: &mpsc::Receiver<Event>,
    engine: EngineHandle,
    stage: &watch::Sender<Stage>,
) -> Result<(), Fatal> {
    match events.recv() {
        Ok(Event::Signal(signal)) => {
            tracing::info!(signal, "stopping");
            stage.send_replace(Stage::Stopping);
            let closed = engine.shutdown(ENGINE_STOP_MAX);
            stage.send_replace(Stage::Ending);
            match events.recv_timeout(CONTROL_STOP_MAX) {
                Ok(Event::Control(result)) => result.map_err(|error| control_fault(&error))?,
                _ => {
                    return Err(Fatal::new(
                        Code::Software,
                        "the database could not be written in time",
                    )
                    .remedy("Nothing is lost: the next start reads it again from the event log"));
                }
            }
            if !closed {
                return Err(Fatal::new(
                    Code::Software,
                    "the event log could not be closed in order",
                )
                .remedy("The next start repairs it; see the lines above for the reason"));
            }
            tracing::info!("stopped");
            Ok(())
        }
        Ok(Event::Control(result)) => {
            engine.shutdown(ENGINE_STOP_MAX);
            match result {
                Ok(()) => Ok(()),
                Err(error) => Err(control_fault(&error)),
            }
        }
        Ok(Event::Database(_)) | Err(_) => {
            Err(Fatal::new(Code::Software, "all threads have ended"))
        }
    }
}

fn control_fault(error: &ControlError) -> Fatal {
    Fatal::of(Code::Software, error)
}
