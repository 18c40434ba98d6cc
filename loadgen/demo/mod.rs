//! `loadgen demo` and `loadgen run`: the simulated network around a relay, phase by phase, and a
//! verdict at the end.

mod bounds;
mod phase;
mod relay;
mod replay;
mod report;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::consumer::{ConsumerReport, Watch};
use crate::corpus::{self, CorpusSpec, verify};
use crate::driver::{self, DriverChoice, DriverError, DriverHandle};
use crate::network::Network;
use crate::procfs;

use bounds::Bounds;
use phase::{PhasePlan, PhaseResult};
use relay::{Relay, wait_until};
use replay::Manner;
use report::{Delivered, Summary};

pub use relay::RELAY_COMMAND;

/// Signatures that are timed for the comparison.
const SIGNATURE_SAMPLE: usize = 5000;

/// Where the relay is.
#[derive(Clone, Debug)]
pub enum RelayPlace {
    /// Started by us, from our own executable.
    Child {
        verbose: bool,
        arguments: Vec<String>,
    },
    Running {
        api: String,
        admin_key: String,
        metrics: Option<String>,
        pid: Option<u32>,
    },
}

#[derive(Clone, Debug)]
pub struct Options {
    /// The corpus without the number of its events, which comes from the phases.
    pub spec: CorpusSpec,
    pub events: u32,
    pub rate: f64,
    pub paced_seconds: u32,
    /// With readers beside it.
    pub beside_seconds: u32,
    pub consumers: u32,
    pub fan_out_events: u32,
    pub idle_seconds: u32,
    /// Consumers that read the whole log, alone and beside the paced phase.
    pub readers: u32,
    /// Beside it they read at all speeds.
    pub mixed_readers: bool,
    /// Events under way at full speed; zero for no limit.
    pub in_flight: usize,
    pub cache: Option<PathBuf>,
    pub driver: DriverChoice,
    pub executors: usize,
    pub patience: Duration,
    pub json: bool,
    pub relay: RelayPlace,
    /// Zero: any free port.
    pub plc_port: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("the relay could not be started: {0}")]
    Start(io::Error),
    #[error("the relay cannot be reached: {0}")]
    Relay(io::Error),
    #[error("the relay refuses to crawl {hostname}: {status} {body}")]
    Crawl { hostname: String, status: u16, body: String },
    #[error("the relay has connected to {connected} of {hosts} hosts only")]
    HostsMissing { connected: usize, hosts: usize },
    #[error("a consumer could not connect to the relay")]
    Consumer,
}

impl Options {
    /// The phases, in order. The first makes every account known to the relay.
    fn plan(&self) -> Vec<PhasePlan> {
        let paced = |seconds: u32| (self.rate * f64::from(seconds)) as u32;
        let beside = if self.readers > 0 { paced(self.beside_seconds) } else { 0 };
        let plans = [
            ("warm-up", self.spec.accounts, None, 0, None),
            ("full speed", self.events, None, 0, None),
            ("paced", paced(self.paced_seconds), Some(self.rate), 0, None),
            ("replay beside", beside, Some(self.rate), 0, Some(self.readers())),
            ("fan-out", self.fan_out_events, None, self.consumers, None),
        ];
        let mut first = 0;
        let mut phases = Vec::new();
        for (name, events, rate, consumers, readers) in plans {
            if events > 0 {
                let end = first + events;
                phases.push(PhasePlan { name, first, end, rate, consumers, readers });
                first += events;
            }
        }
        phases
    }

    fn readers(&self) -> (u32, Manner) {
        (self.readers, if self.mixed_readers { Manner::Mixed } else { Manner::Again })
    }
}

/// What the phases work with.
struct Stage<'a> {
    options: &'a Options,
    network: Arc<Network>,
    driver: DriverHandle,
    relay: Relay,
    /// The consumer that compares everything.
    witness: Arc<ConsumerReport>,
    /// Those that joined for the fan-out.
    others: Vec<Arc<ConsumerReport>>,
}

impl Stage<'_> {
    fn say(&self, text: &str) {
        say(self.options, text);
    }
}

fn say(options: &Options, text: &str) {
    if !options.json {
        println!("{text}");
    }
}

/// Runs all phases. True: every event arrived once, in order, unaltered.
pub fn run(options: &Options) -> Result<bool, DemoError> {
    let plan = options.plan();
    let end = plan.last().map_or(0, |last| last.end);
    let spec =
        CorpusSpec { events: end.saturating_sub(options.spec.accounts), ..options.spec.clone() };
    let start = Instant::now();
    let corpus = Arc::new(corpus::load_or_generate(&spec, options.cache.as_deref()));
    let generate_seconds = start.elapsed().as_secs_f64();
    say(options, &report::corpus_text(&corpus.summary(), generate_seconds));

    let network = Arc::new(Network::new(Arc::clone(&corpus), options.in_flight));
    let driver = driver::start(options.driver, &network, options.plc_port, options.executors)?;
    let relay = Relay::reach(&options.relay, &network.plc_url())?;
    let mut stage = open_stage(options, network, driver, relay)?;

    let mut phases = Vec::new();
    for plan in &plan {
        if plan.consumers > 0 {
            join_consumers(&mut stage, plan.consumers)?;
        }
        let result = phase::run(&stage, plan);
        stage.say(&report::phase_text(&result));
        let complete = result.complete;
        phases.push(result);
        if !complete {
            break;
        }
    }
    let bounds = measure_bounds(&stage);
    let replayed = measure_replay(&stage);
    let idle = measure_idle(&stage);
    let signature = match plan.iter().find(|plan| plan.name == "full speed") {
        Some(plan) => verify::signature_cost(&corpus, plan.first, plan.end, SIGNATURE_SAMPLE),
        None => verify::signature_cost(&corpus, 0, end, SIGNATURE_SAMPLE),
    };
    let delivered = delivered(&stage, &phases, end);
    let refusals = stage.relay.refusals();
    let resident_bytes = stage.relay.pid.and_then(procfs::resident_bytes);
    let stop = stage.relay.stop();
    let summary = Summary {
        corpus: corpus.summary(),
        generate_seconds,
        driver: stage.driver.kind,
        bounds,
        replayed,
        relay_idle_percent: idle,
        signature,
        delivered,
        refusals,
        resident_bytes,
        relay_stop_seconds: stop.as_ref().map(|(_, time)| time.as_secs_f64()),
        relay_stopped_cleanly: stop
            .as_ref()
            .map(|(status, _)| status.as_ref().is_ok_and(std::process::ExitStatus::success)),
        phases,
    };
    let good = summary.good();
    if options.json {
        println!("{}", summary.to_json());
    } else {
        println!("{}", report::summary_text(&summary));
    }
    Ok(good)
}

/// Connects the relay to all hosts, and the witness to the relay.
fn open_stage(
    options: &Options,
    network: Arc<Network>,
    mut driver: DriverHandle,
    relay: Relay,
) -> Result<Stage<'_>, DemoError> {
    say(
        options,
        &format!(
            "network: {} hosts, directory {}, driver {:?}; relay http://{}{}",
            network.hosts.len(),
            network.plc_url(),
            driver.kind,
            relay.api,
            relay.pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        ),
    );
    for host in 0..network.hosts.len() as u32 {
        relay.request_crawl(&network.hostname(host))?;
    }
    let hosts = network.hosts.len();
    if !wait_until(options.patience, || network.hosts_connected() == hosts) {
        return Err(DemoError::HostsMissing { connected: network.hosts_connected(), hosts });
    }
    let witness = driver.consume(relay.api, None, Watch::Compare(Arc::clone(&network)));
    if !wait_until(options.patience, || witness.connected.load(Ordering::Acquire)) {
        return Err(DemoError::Consumer);
    }
    Ok(Stage { options, network, driver, relay, witness, others: Vec::new() })
}

/// Connects more consumers where the witness is, so that all get the same from here on.
fn join_consumers(stage: &mut Stage<'_>, count: u32) -> Result<(), DemoError> {
    let cursor = stage.witness.last_seq.load(Ordering::Relaxed);
    for _ in 0..count {
        stage.others.push(stage.driver.consume(stage.relay.api, Some(cursor), Watch::Count));
    }
    let all = || stage.others.iter().all(|other| other.connected.load(Ordering::Acquire));
    if wait_until(stage.options.patience, all) { Ok(()) } else { Err(DemoError::Consumer) }
}

/// The machine's bounds for replays, if any are measured.
fn measure_bounds(stage: &Stage<'_>) -> Option<Bounds> {
    if stage.options.readers == 0 {
        return None;
    }
    let bounds = bounds::measure()
        .inspect_err(|error| tracing::error!("the bounds of a replay: {error}"))
        .ok()?;
    stage.say(&report::bounds_text(&bounds, stage.network.corpus.summary().mean_frame_bytes));
    Some(bounds)
}

/// Replays of the whole log by one reader and by all of them, with nothing else going on.
fn measure_replay(stage: &Stage<'_>) -> Vec<replay::Replayed> {
    let all = stage.options.readers;
    let groups = if all > 1 { vec![1, all] } else { vec![all; all as usize] };
    let measured = groups.into_iter().filter_map(|count| {
        let replayed = replay::alone(stage, count)
            .inspect_err(|error| tracing::error!("the replay could not be measured: {error}"))
            .ok()?;
        stage.say(&report::replayed_text(&replayed));
        Some(replayed)
    });
    measured.collect()
}

/// The relay's CPU with nothing to do, in per cent of a core.
fn measure_idle(stage: &Stage<'_>) -> Option<f64> {
    let pid = stage.relay.pid?;
    if stage.options.idle_seconds == 0 {
        return None;
    }
    // Whatever the last phase has left behind is over after a second.
    wait_until(Duration::from_secs(1), || false);
    let total = || procfs::threads_cpu_nanos(pid).iter().map(|(_, nanos)| nanos).sum::<u64>();
    let (before, start) = (total(), Instant::now());
    wait_until(Duration::from_secs(u64::from(stage.options.idle_seconds)), || false);
    let used = total().saturating_sub(before);
    Some(100.0 * used as f64 / start.elapsed().as_nanos() as f64)
}

fn delivered(stage: &Stage<'_>, phases: &[PhaseResult], end: u32) -> Delivered {
    let witness = &stage.witness;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let fan_out = phases.iter().find(|phase| phase.consumers > 1);
    let expected_by_others = fan_out.map_or(0, |phase| u64::from(phase.events));
    let first = stage.others.first().map(|other| load(&other.digest));
    let others_alike = stage.others.iter().all(|other| {
        load(&other.events) == expected_by_others && Some(load(&other.digest)) == first
    });
    Delivered {
        expected: u64::from(end),
        received: load(&witness.events),
        lost: load(&witness.lost),
        repeated: load(&witness.repeated),
        altered: load(&witness.altered),
        seq_faults: load(&witness.seq_faults),
        disconnected: witness.closed.load(Ordering::Acquire),
        others: stage.others.len(),
        others_alike,
    }
}
