//! The command line: aliases, environment and `.env` brought into one form, which argh reads.
//!
//! Flags win over the environment, the environment over the `.env` file.

mod db_command;
mod help;
mod log_command;
mod table;
mod tool_command;

use argh::FromArgs;

pub(crate) use self::table::find;
use self::table::{Flag, Kind};
pub(crate) use self::tool_command::Tool;
use crate::{admin::Target, env::Env};

/// The flags as argh reads them, all by their own names; values are text still.
#[derive(Clone, Debug, Default, FromArgs, PartialEq, Eq)]
#[argh(description = "an AT Protocol relay")]
pub(crate) struct Flags {
    #[argh(option, description = "address of the API")]
    pub(crate) api_listen: Option<String>,
    #[argh(option, description = "address of the metrics")]
    pub(crate) metrics_listen: Option<String>,
    #[argh(option, description = "admin keys")]
    pub(crate) admin_key: Vec<String>,
    #[argh(option, description = "consumers at most")]
    pub(crate) max_consumers: Option<String>,
    #[argh(option, description = "consumers of one address at most")]
    pub(crate) max_consumers_per_address: Option<String>,
    #[argh(option, description = "connections of one address at most")]
    pub(crate) max_connections_per_address: Option<String>,
    #[argh(option, description = "time for requests and replies")]
    pub(crate) api_timeout: Option<String>,
    #[argh(option, description = "proxies that are believed")]
    pub(crate) trusted_proxies: Vec<String>,
    #[argh(option, description = "time without progress of a consumer")]
    pub(crate) consumer_stall_time: Option<String>,
    #[argh(option, description = "time between pings of a consumer")]
    pub(crate) consumer_ping_interval: Option<String>,
    #[argh(option, description = "directory of all data")]
    pub(crate) data_dir: Option<String>,
    #[argh(option, description = "database")]
    pub(crate) db_url: Option<String>,
    #[argh(option, description = "memory for pages of a database")]
    pub(crate) db_cache: Option<String>,
    #[argh(option, description = "connections to a database server")]
    pub(crate) max_db_conn: Option<String>,
    #[argh(option, description = "directory of the event log")]
    pub(crate) persist_dir: Option<String>,
    #[argh(option, description = "age of the oldest event")]
    pub(crate) replay_window: Option<String>,
    #[argh(option, description = "bytes of the event log")]
    pub(crate) replay_bytes: Option<String>,
    #[argh(option, description = "bytes of a file of the event log")]
    pub(crate) log_segment_bytes: Option<String>,
    #[argh(option, description = "bytes of the event log in memory")]
    pub(crate) log_memory: Option<String>,
    #[argh(option, description = "bytes of accounts in memory")]
    pub(crate) accounts_memory: Option<String>,
    #[argh(option, description = "time between syncs of the event log")]
    pub(crate) sync_interval: Option<String>,
    #[argh(option, description = "floor of sequence numbers")]
    pub(crate) initial_seq_number: Option<String>,
    #[argh(option, description = "domains of trusted hosts")]
    pub(crate) trusted_domains: Vec<String>,
    #[argh(option, description = "accounts of a new host")]
    pub(crate) default_account_limit: Option<String>,
    #[argh(option, description = "new hosts a day")]
    pub(crate) new_hosts_per_day_limit: Option<String>,
    #[argh(switch, description = "no crawl requests from the public")]
    pub(crate) disable_request_crawl: bool,
    #[argh(switch, description = "hosts without TLS")]
    pub(crate) allow_insecure_hosts: bool,
    #[argh(option, description = "private networks with hosts")]
    pub(crate) allow_private_hosts: Vec<String>,
    #[argh(switch, description = "commits without prevData")]
    pub(crate) lenient_sync_validation: bool,
    #[argh(option, description = "sibling relays")]
    pub(crate) sibling_relays: Vec<String>,
    #[argh(option, description = "relays whose hosts are looked through")]
    pub(crate) discover_from: Vec<String>,
    #[argh(option, description = "time between looks")]
    pub(crate) discover_interval: Option<String>,
    #[argh(option, description = "PLC directory")]
    pub(crate) plc_host: Option<String>,
    #[argh(option, description = "identities in memory")]
    pub(crate) ident_cache_size: Option<String>,
    #[argh(option, description = "number of shards")]
    pub(crate) shards: Option<String>,
    #[argh(option, description = "pin threads")]
    pub(crate) pin: Option<String>,
    #[argh(option, description = "IO driver")]
    pub(crate) driver: Option<String>,
    #[argh(option, description = "who verifies signatures")]
    pub(crate) signatures: Option<String>,
    #[argh(option, description = "batches between audits")]
    pub(crate) signature_audit: Option<String>,
    #[argh(option, description = "log level")]
    pub(crate) log_level: Option<String>,
    #[argh(option, description = "log format")]
    pub(crate) log_format: Option<String>,
    #[argh(option, description = "name of the deployment")]
    pub(crate) env: Option<String>,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// Print this and leave.
    Print(String),
    Serve {
        flags: Box<Flags>,
        /// Flags and variables that were given and have no effect.
        ignored: Vec<String>,
    },
    /// A look at the event log's files.
    Log { command: LogCommand, flags: Box<Flags> },
    /// Work on databases of a relay that is stopped.
    Db(DbCommand),
    /// A command that talks to a relay.
    Tool { tool: Box<Tool>, target: Target, json: bool },
}

/// `relayered db …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DbCommand {
    /// Between URLs as for `--db-url`.
    Copy { from: String, to: String },
}

/// `relayered log …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogCommand {
    Info { json: bool },
    Verify { json: bool },
    Dump { from: u64, count: u64, json: bool },
    Repair { json: bool },
}

/// What is wrong with the command line or the environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgsError {
    /// It can't be read.
    #[error("{0}. See relayered --help")]
    Usage(String),
    /// A command's own part of it can't be read.
    #[error("{1}. See relayered {0} --help")]
    Command(String, String),
    /// It can be read, and holds a value that is none.
    #[error("{0}")]
    Value(String),
}

/// Reads the command line (without the program's name) and the environment.
pub(crate) fn parse(args: &[String], env: &impl Env) -> Result<Invocation, ArgsError> {
    if let Some(("db", args)) = args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return Ok(match db_command::parse(args)? {
            Some(command) => Invocation::Db(command),
            None => Invocation::Print(help::text()),
        });
    }
    if let Some(tool) = tool_command::take(args, env)? {
        return Ok(tool);
    }
    let (command, args) = log_command::take(args)?;
    let mut given = Given::default();
    if let Some(text) = given.take_args(&args)? {
        return Ok(Invocation::Print(text));
    }
    for flag in table::all() {
        if !given.has(flag.name)
            && let Some((name, text)) = env.first(flag.env)
        {
            given.take_env(flag, name, &text)?;
        }
    }
    let canonical: Vec<&str> = given.canonical.iter().map(String::as_str).collect();
    let flags = Flags::from_args(&["relayered"], &canonical)
        .map_err(|exit| ArgsError::Usage(exit.output.trim().to_owned()))?;
    let flags = Box::new(flags);
    Ok(match command {
        Some(command) => Invocation::Log { command, flags },
        None => Invocation::Serve { flags, ignored: given.ignored },
    })
}

/// Flags in their one form.
#[derive(Default)]
struct Given {
    names: Vec<&'static str>,
    canonical: Vec<String>,
    ignored: Vec<String>,
}

impl Given {
    fn has(&self, name: &str) -> bool {
        self.names.contains(&name)
    }

    /// Takes the whole command line; returns text to print if that is all that is asked for.
    fn take_args(&mut self, args: &[String]) -> Result<Option<String>, ArgsError> {
        let mut rest = args.iter();
        let mut subcommand = None;
        while let Some(arg) = rest.next() {
            match arg.as_str() {
                "--help" | "-h" | "help" => return Ok(Some(help::text())),
                "--version" | "-V" | "version" => return Ok(Some(help::version())),
                _ => {}
            }
            let Some(text) = arg.strip_prefix("--") else {
                check_subcommand(arg, &mut subcommand)?;
                continue;
            };
            let (name, inline) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (text, None),
            };
            let flag = find(name).ok_or_else(|| unknown(name))?;
            let value = match (flag.kind, inline) {
                (Kind::Switch | Kind::IgnoredSwitch, inline) => inline,
                (_, Some(inline)) => Some(inline),
                (_, None) => Some(
                    rest.next()
                        .cloned()
                        .ok_or_else(|| ArgsError::Usage(format!("--{name} needs a value")))?,
                ),
            };
            self.push(flag, &format!("--{name}"), value)?;
        }
        Ok(None)
    }

    fn take_env(&mut self, flag: &'static Flag, name: &str, text: &str) -> Result<(), ArgsError> {
        if let Kind::List(_) = flag.kind {
            for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
                self.push(flag, name, Some(item.to_owned()))?;
            }
            return Ok(());
        }
        self.push(flag, name, Some(text.trim().to_owned()))
    }

    fn push(
        &mut self,
        flag: &'static Flag,
        source: &str,
        value: Option<String>,
    ) -> Result<(), ArgsError> {
        let seen = self.has(flag.name);
        self.names.push(flag.name);
        let long = format!("--{}", flag.name);
        match flag.kind {
            Kind::IgnoredValue | Kind::IgnoredSwitch => self.ignored.push(source.to_owned()),
            Kind::Switch => {
                let on = value.as_deref().map_or(Some(true), parse_bool).ok_or_else(|| {
                    let text = value.as_deref().unwrap_or_default();
                    ArgsError::Value(format!("{source}: {text:?} is neither true nor false"))
                })?;
                self.canonical.retain(|arg| *arg != long);
                if on {
                    self.canonical.push(long);
                }
            }
            Kind::Value(_) | Kind::List(_) => {
                if seen && matches!(flag.kind, Kind::Value(_)) {
                    self.remove(&long);
                }
                self.canonical.extend([long, value.unwrap_or_default()]);
            }
        }
        Ok(())
    }

    /// Removes a flag given before, with its value.
    fn remove(&mut self, long: &str) {
        if let Some(at) = self.canonical.iter().position(|arg| arg == long) {
            self.canonical.drain(at..(at + 2).min(self.canonical.len()));
        }
    }
}

/// `true`, `false` and the like.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "yes" | "on" => Some(true),
        "0" | "f" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn check_subcommand(arg: &str, seen: &mut Option<String>) -> Result<(), ArgsError> {
    if arg.starts_with('-') && arg.len() > 1 {
        return Err(ArgsError::Usage(format!("unknown flag {arg}; flags have two dashes")));
    }
    if let Some(before) = seen {
        return Err(ArgsError::Usage(format!("{arg:?} behind {before:?}: one command at a time")));
    }
    if arg != "serve" {
        return Err(ArgsError::Usage(format!(
            "unknown command {arg:?}; the commands are serve, which is also what relayered does \
             without any, log, db, backup, restore, admin, pull-hosts, check-host and plc-import"
        )));
    }
    *seen = Some(arg.to_owned());
    Ok(())
}

/// Names the flag that was meant, unless none is like it.
fn unknown(name: &str) -> ArgsError {
    let names = table::all().flat_map(|flag| std::iter::once(&flag.name).chain(flag.aliases));
    let near = names
        .map(|known| (distance(name, known), *known))
        .filter(|(distance, known)| *distance * 2 <= known.len().max(name.len()) + 2)
        .min();
    ArgsError::Usage(match near {
        Some((_, near)) => format!("unknown flag --{name}; the nearest is --{near}"),
        None => format!("unknown flag --{name}"),
    })
}

/// How many letters must be changed, added or taken away to make one name of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            let cost = (diagonal + usize::from(from != *to)).min(above + 1).min(left + 1);
            diagonal = above;
            left = cost;
            *cell = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;
