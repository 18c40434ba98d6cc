//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;

use crate::consume::{self, ConsumeOptions, Output};
use crate::corpus::CorpusSpec;
use crate::demo::{self, Options, RelayPlace};
use crate::driver::DriverChoice;

/// Plays the AT Protocol network around a relay on this machine: a PLC directory, PDS hosts whose
/// accounts sign real commits, and consumers. All of it on loopback.
#[derive(FromArgs)]
struct Loadgen {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Demo(Demo),
    Run(Run),
    Consume(Consume),
}

/// Defines a command with the options of the simulated network and its own.
macro_rules! network_command {
    ($(#[$meta:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$meta])*
        struct $name {
            $($own)*
            /// events at full speed, with one consumer (default 50000)
            #[argh(option, default = "50_000")]
            events: u32,

            /// events a second of the paced phase, all hosts together (default 2000)
            #[argh(option, default = "2000.0")]
            rate: f64,

            /// seconds of the paced phase, in which latency is measured (default 8; 0 leaves it out)
            #[argh(option, default = "8")]
            paced_seconds: u32,

            /// seconds of the same with --readers beside it (default: as many)
            #[argh(option)]
            beside_seconds: Option<u32>,

            /// consumers that join for the fan-out phase (default 16; 0 leaves it out)
            #[argh(option, default = "16")]
            consumers: u32,

            /// events of the fan-out phase, at full speed (default 20000)
            #[argh(option, default = "20_000")]
            fan_out_events: u32,

            /// seconds in which the relay's idle CPU is measured (default 4; 0 leaves it out)
            #[argh(option, default = "4")]
            idle_seconds: u32,

            /// consumers that read the whole log from its start: beside a second paced phase, and alone
            /// (default 0, which leaves it out)
            #[argh(option, default = "0")]
            readers: u32,

            /// the readers beside the paced phase read at all speeds and stay, instead of starting
            /// again and again at full speed
            #[argh(switch)]
            mixed_readers: bool,

            /// events under way at full speed, all hosts together (default 2048); 0 for as many as
            /// TCP takes, which then drops and retransmits where a loopback buffer is full
            #[argh(option, default = "2048")]
            in_flight: usize,

            /// accounts (default 1000)
            #[argh(option, default = "1000")]
            accounts: u32,

            /// PDS hosts that share them (default 20)
            #[argh(option, default = "20")]
            hosts: u32,

            /// records in each repository before the first event (default 300)
            #[argh(option, default = "300")]
            prefill: u32,

            /// share of accounts with P-256 keys, the others have secp256k1 (default 0.2)
            #[argh(option, default = "0.2")]
            p256: f64,

            /// seed of all that is random; the same seed gives the same events (default 1)
            #[argh(option, default = "1")]
            seed: u64,

            /// file that keeps the signed events for the next run with the same sizes and seed
            #[argh(option)]
            cache: Option<PathBuf>,

            /// auto, glommio (io_uring), or threads (one for each connection; default auto)
            #[argh(option, default = "DriverChoice::Auto")]
            driver: DriverChoice,

            /// threads of the glommio driver (default 1)
            #[argh(option, default = "1")]
            executors: usize,

            /// seconds without any progress after which a phase is given up (default 20)
            #[argh(option, default = "20")]
            patience: u64,

            /// print the summary as JSON, and nothing else on stdout
            #[argh(switch)]
            json: bool,
        }

        impl $name {
            fn options(&self, relay: RelayPlace, plc_port: u16) -> Options {
                Options {
                    spec: CorpusSpec {
                        seed: self.seed,
                        accounts: self.accounts.max(1),
                        hosts: self.hosts.clamp(1, self.accounts.max(1)),
                        events: 0,
                        prefill: self.prefill,
                        p256_share: self.p256,
                        ..CorpusSpec::default()
                    },
                    events: self.events,
                    rate: self.rate.max(1.0),
                    paced_seconds: self.paced_seconds,
                    beside_seconds: self.beside_seconds.unwrap_or(self.paced_seconds),
                    consumers: self.consumers,
                    fan_out_events: if self.consumers == 0 { 0 } else { self.fan_out_events },
                    idle_seconds: self.idle_seconds,
                    readers: self.readers,
                    mixed_readers: self.mixed_readers,
                    in_flight: self.in_flight,
                    cache: self.cache.clone(),
                    driver: self.driver,
                    executors: self.executors,
                    patience: Duration::from_secs(self.patience),
                    json: self.json,
                    relay,
                    plc_port,
                }
            }
        }
    };
}

network_command! {
    /// Starts a relay and the simulated network around it, and measures: full speed with one
    /// consumer, a fixed rate for latency, full speed with many consumers, idle. Every event is
    /// compared with what the host sent. Exits with 1 if any was lost, repeated or altered.
    #[derive(FromArgs)]
    #[argh(subcommand, name = "demo")]
    Demo {
        /// show what the relay logs
        #[argh(switch, short = 'v')]
        verbose: bool,

        /// an argument for the relay; may be repeated (--relay-arg --shards --relay-arg 1)
        #[argh(option)]
        relay_arg: Vec<String>,
    }
}

network_command! {
    /// The same against a relay that is already running. It must have been started with
    /// --allow-insecure-hosts, --plc-host http://127.0.0.1:PLC_PORT and a
    /// --default-account-limit of at least accounts / hosts.
    #[derive(FromArgs)]
    #[argh(subcommand, name = "run")]
    Run {
        /// the relay's API, as http://127.0.0.1:2470
        #[argh(option)]
        relay: String,

        /// the relay's admin key, for adding the hosts
        #[argh(option)]
        admin_key: String,

        /// port of the simulated PLC directory
        #[argh(option)]
        plc_port: u16,

        /// the relay's metrics, as http://127.0.0.1:2471/metrics, for the count of refusals
        #[argh(option)]
        metrics: Option<String>,

        /// the relay's process, for its CPU time
        #[argh(option)]
        relay_pid: Option<u32>,
    }
}

/// Prints or counts the events of a stream. With --check, exits with 1 if one breaks the rules:
/// seq and each account's rev rise, frames are strict, and with --plc the signature holds and the
/// operations lead from prevData to the signed tree.
#[derive(FromArgs)]
#[argh(subcommand, name = "consume")]
struct Consume {
    /// a relay or PDS, as ws://127.0.0.1:2470
    #[argh(positional)]
    url: String,

    /// begin behind this seq; 0 for the oldest event
    #[argh(option)]
    cursor: Option<u64>,

    /// print events as JSON, one a line
    #[argh(switch)]
    json: bool,

    /// print only counts, each second and at the end
    #[argh(switch)]
    count: bool,

    /// check each event
    #[argh(switch)]
    check: bool,

    /// PLC directory for the signing keys, as http://127.0.0.1:2582
    #[argh(option)]
    plc: Option<String>,

    /// end after so many events
    #[argh(option)]
    events: Option<u64>,

    /// end after so many seconds
    #[argh(option)]
    seconds: Option<u64>,
}

/// Runs the command; `args` begin with the program's name.
pub fn main(args: &[String]) -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .init();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let command = match Loadgen::from_args(&["loadgen"], &words) {
        Ok(loadgen) => loadgen.command,
        Err(exit) if exit.status.is_ok() => {
            println!("{}", exit.output);
            return ExitCode::SUCCESS;
        }
        Err(exit) => {
            eprintln!("{}", exit.output);
            return ExitCode::from(64);
        }
    };
    let result = match command {
        Command::Demo(command) => {
            let relay = RelayPlace::Child {
                verbose: command.verbose,
                arguments: command.relay_arg.clone(),
            };
            demo::run(&command.options(relay, 0)).map_err(|error| error.to_string())
        }
        Command::Run(command) => {
            let relay = RelayPlace::Running {
                api: command.relay.trim_end_matches('/').to_owned(),
                admin_key: command.admin_key.clone(),
                metrics: command.metrics.clone(),
                pid: command.relay_pid,
            };
            let options = command.options(relay, command.plc_port);
            demo::run(&options).map_err(|error| error.to_string())
        }
        Command::Consume(command) => consume::consume(&command.options())
            .map(|violations| violations == 0)
            .map_err(|error| error.to_string()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::from(2)
        }
    }
}

impl Consume {
    fn options(&self) -> ConsumeOptions {
        ConsumeOptions {
            url: self.url.clone(),
            cursor: self.cursor,
            output: match (self.count, self.json) {
                (true, _) => Output::Count,
                (false, true) => Output::Json,
                (false, false) => Output::Text,
            },
            check: self.check || self.plc.is_some(),
            plc: self.plc.clone(),
            events_max: self.events,
            time_max: self.seconds.map(Duration::from_secs),
        }
    }
}
