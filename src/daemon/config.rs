//! The configuration: flags, checked and typed.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use control::{discovery::DiscoveryConfig, siblings::SiblingAddress, store::DatabaseUrl};

use crate::args::{self, Flags, parse_bool};

/// An address to listen on; `ip` of `None` is all interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) ip: Option<IpAddr>,
    pub(crate) port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverChoice {
    Auto,
    Uring,
    Epoll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Everything that can be set from outside. Held apart from what the parts take, so that reading
/// it needs none of them.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) api: Listen,
    pub(crate) metrics: Listen,
    /// Empty: make one.
    pub(crate) admin_keys: Vec<String>,
    pub(crate) consumers_max: usize,
    /// `None`: no limit but that of all.
    pub(crate) consumers_per_address_max: Option<usize>,
    pub(crate) connections_per_address_max: Option<usize>,
    /// CIDR notation, checked.
    pub(crate) api_timeout: Duration,
    pub(crate) trusted_proxies: Vec<ipnet::IpNet>,
    pub(crate) consumer_stall: Duration,
    pub(crate) consumer_ping: Duration,
    pub(crate) database: DatabaseUrl,
    pub(crate) database_cache_bytes: u64,
    pub(crate) database_connections_max: usize,
    pub(crate) log_dir: PathBuf,
    pub(crate) replay_window: Duration,
    pub(crate) replay_bytes: Option<u64>,
    pub(crate) segment_bytes: u64,
    pub(crate) log_memory_bytes: Option<u64>,
    pub(crate) accounts_memory_bytes: u64,
    pub(crate) sync_interval: Duration,
    pub(crate) initial_seq: u64,
    pub(crate) trusted_domains: Vec<String>,
    pub(crate) account_limit: u64,
    pub(crate) new_hosts_per_day: u64,
    pub(crate) crawl_enabled: bool,
    pub(crate) insecure_hosts: bool,
    /// CIDR notation, checked.
    pub(crate) private_hosts: Vec<ipnet::IpNet>,
    pub(crate) lenient: bool,
    pub(crate) siblings: Vec<SiblingAddress>,
    pub(crate) discovery: DiscoveryConfig,
    pub(crate) plc_url: String,
    pub(crate) identities_max: usize,
    pub(crate) shards: Option<usize>,
    pub(crate) pin: Option<bool>,
    pub(crate) driver: DriverChoice,
    pub(crate) signatures: ecdsa::Settings,
    pub(crate) deployment: String,
}

/// How the log is written; known before anything else, so that all else can be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogOutput {
    pub(crate) level: tracing::Level,
    pub(crate) format: LogFormat,
    /// The level that was asked for if it is not one.
    pub(crate) unknown_level: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag} ({}): {problem}", variables(flag))]
pub(crate) struct ConfigError {
    flag: &'static str,
    problem: String,
}

/// The flag's environment variables, any of which may have set it.
fn variables(flag: &str) -> String {
    args::find(flag).map_or_else(String::new, |flag| flag.env.join(", "))
}

fn fault(flag: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError { flag, problem: problem.into() }
}

impl Config {
    pub(crate) fn from_flags(flags: &Flags) -> Result<Self, ConfigError> {
        let data_dir = PathBuf::from(flags.data_dir.as_deref().unwrap_or("./data/relayered"));
        Ok(Self {
            api: listen("api-listen", flags.api_listen.as_deref().unwrap_or(":2470"))?,
            metrics: listen("metrics-listen", flags.metrics_listen.as_deref().unwrap_or(":2471"))?,
            admin_keys: flags.admin_key.clone(),
            consumers_max: number("max-consumers", flags.max_consumers.as_deref(), 10_000)?,
            consumers_per_address_max: maximum(
                "max-consumers-per-address",
                flags.max_consumers_per_address.as_deref(),
                0,
            )?,
            connections_per_address_max: connections(flags)?,
            api_timeout: some_time("api-timeout", flags.api_timeout.as_deref(), "30s")?,
            trusted_proxies: networks("trusted-proxies", &flags.trusted_proxies)?,
            consumer_stall: some_time(
                "consumer-stall-time",
                flags.consumer_stall_time.as_deref(),
                "30s",
            )?,
            consumer_ping: some_time(
                "consumer-ping-interval",
                flags.consumer_ping_interval.as_deref(),
                "30s",
            )?,
            database: database(flags, &data_dir)?,
            database_cache_bytes: size("db-cache", flags.db_cache.as_deref(), "256MiB")?,
            database_connections_max: database_connections(flags)?,
            log_dir: flags.persist_dir.as_ref().map_or_else(|| data_dir.join("log"), PathBuf::from),
            replay_window: time("replay-window", flags.replay_window.as_deref(), "72h")?,
            replay_bytes: size_if("replay-bytes", flags.replay_bytes.as_deref())?,
            segment_bytes: size("log-segment-bytes", flags.log_segment_bytes.as_deref(), "256MiB")?,
            log_memory_bytes: size_if("log-memory", flags.log_memory.as_deref())?,
            accounts_memory_bytes: size(
                "accounts-memory",
                flags.accounts_memory.as_deref(),
                "4GiB",
            )?,
            sync_interval: time("sync-interval", flags.sync_interval.as_deref(), "100ms")?,
            initial_seq: initial_seq(flags)?,
            trusted_domains: trusted_domains(flags),
            account_limit: number(
                "default-account-limit",
                flags.default_account_limit.as_deref(),
                100,
            )?,
            new_hosts_per_day: number(
                "new-hosts-per-day-limit",
                flags.new_hosts_per_day_limit.as_deref(),
                50,
            )?,
            crawl_enabled: !flags.disable_request_crawl,
            insecure_hosts: flags.allow_insecure_hosts,
            private_hosts: networks("allow-private-hosts", &flags.allow_private_hosts)?,
            lenient: flags.lenient_sync_validation,
            siblings: siblings(&flags.sibling_relays)?,
            discovery: discovery(flags)?,
            plc_url: plc_url(flags)?,
            identities_max: number(
                "ident-cache-size",
                flags.ident_cache_size.as_deref(),
                5_000_000,
            )?,
            shards: shards(flags)?,
            pin: pin(flags)?,
            driver: driver(flags)?,
            signatures: signatures(flags)?,
            deployment: flags.env.clone().unwrap_or_else(|| "dev".into()),
        })
    }
}

impl LogOutput {
    pub(crate) fn from_flags(flags: &Flags) -> Result<Self, ConfigError> {
        let format = match flags.log_format.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => {
                return Err(fault("log-format", format!("{other:?} is neither text nor json")));
            }
        };
        let text = flags.log_level.as_deref().unwrap_or("info");
        // The variables for this are shared with other programs, which have other words.
        let level = match text.to_ascii_lowercase().as_str() {
            "warning" => Some(tracing::Level::WARN),
            text => text.parse().ok(),
        };
        let unknown_level = level.is_none().then(|| text.to_owned());
        Ok(Self { level: level.unwrap_or(tracing::Level::INFO), format, unknown_level })
    }
}

fn connections(flags: &Flags) -> Result<Option<usize>, ConfigError> {
    let given = flags.max_connections_per_address.as_deref();
    maximum("max-connections-per-address", given, 1024)
}

fn database(flags: &Flags, data_dir: &std::path::Path) -> Result<DatabaseUrl, ConfigError> {
    match &flags.db_url {
        Some(url) => DatabaseUrl::parse(url).map_err(|error| fault("db-url", error.to_string())),
        None => Ok(DatabaseUrl::File(data_dir.join("relayered.sqlite"))),
    }
}

fn initial_seq(flags: &Flags) -> Result<u64, ConfigError> {
    let seq = number("initial-seq-number", flags.initial_seq_number.as_deref(), 1)?;
    // Consumers read sequence numbers as JavaScript numbers.
    if seq == 0 || seq >= 1 << 53 {
        return Err(fault("initial-seq-number", "expected a number from 1 to 2^53 - 1"));
    }
    Ok(seq)
}

fn trusted_domains(flags: &Flags) -> Vec<String> {
    if flags.trusted_domains.is_empty() {
        return vec!["*.host.bsky.network".to_owned()];
    }
    flags.trusted_domains.iter().map(|domain| domain.to_ascii_lowercase()).collect()
}

/// A limit; 0 is none.
fn time(flag: &'static str, text: Option<&str>, default: &str) -> Result<Duration, ConfigError> {
    parse_time(flag, text.unwrap_or(default))
}

/// As [`time`], but not zero.
fn some_time(
    flag: &'static str,
    text: Option<&str>,
    default: &str,
) -> Result<Duration, ConfigError> {
    match time(flag, text, default)? {
        Duration::ZERO => Err(fault(flag, "must be more than 0")),
        some => Ok(some),
    }
}

fn size(flag: &'static str, text: Option<&str>, default: &str) -> Result<u64, ConfigError> {
    parse_size(flag, text.unwrap_or(default))
}

/// One that has no default.
fn size_if(flag: &'static str, text: Option<&str>) -> Result<Option<u64>, ConfigError> {
    text.map(|text| parse_size(flag, text)).transpose()
}

fn maximum(
    flag: &'static str,
    text: Option<&str>,
    default: usize,
) -> Result<Option<usize>, ConfigError> {
    Ok(Some(number(flag, text, default)?).filter(|limit| *limit > 0))
}

fn networks(flag: &'static str, texts: &[String]) -> Result<Vec<ipnet::IpNet>, ConfigError> {
    let network = |text: &String| {
        let single = text.parse::<IpAddr>().map(ipnet::IpNet::from);
        text.parse().or(single).map_err(|_not_a_network| {
            fault(flag, format!("{text:?} is not a network such as 10.0.0.0/8"))
        })
    };
    texts.iter().map(network).collect()
}

fn siblings(texts: &[String]) -> Result<Vec<SiblingAddress>, ConfigError> {
    let address =
        |text: &String| SiblingAddress::parse(text).map_err(|why| fault("sibling-relays", why));
    texts.iter().map(address).collect()
}

fn discovery(flags: &Flags) -> Result<DiscoveryConfig, ConfigError> {
    // A bare name is meant as it is everywhere else.
    let relay = |text: &String| {
        if text.contains("://") {
            base_url("discover-from", text)
        } else {
            base_url("discover-from", &format!("https://{text}"))
        }
    };
    let relays = flags.discover_from.iter().map(relay).collect::<Result<_, _>>()?;
    let interval = time("discover-interval", flags.discover_interval.as_deref(), "24h")?;
    Ok(DiscoveryConfig { relays, interval })
}

fn plc_url(flags: &Flags) -> Result<String, ConfigError> {
    base_url("plc-host", flags.plc_host.as_deref().unwrap_or("https://plc.directory"))
}

fn base_url(flag: &'static str, text: &str) -> Result<String, ConfigError> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(host) if !host.is_empty() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err(fault(flag, format!("{text:?} does not begin with https:// or http://"))),
    }
}

fn shards(flags: &Flags) -> Result<Option<usize>, ConfigError> {
    let Some(_) = flags.shards else { return Ok(None) };
    match number("shards", flags.shards.as_deref(), 0)? {
        count @ 1..=256 => Ok(Some(count)),
        _ => Err(fault("shards", "expected a number from 1 to 256")),
    }
}

fn pin(flags: &Flags) -> Result<Option<bool>, ConfigError> {
    let Some(text) = &flags.pin else { return Ok(None) };
    match parse_bool(text) {
        Some(pin) => Ok(Some(pin)),
        None => Err(fault("pin", format!("{text:?} is neither true nor false"))),
    }
}

fn driver(flags: &Flags) -> Result<DriverChoice, ConfigError> {
    match flags.driver.as_deref() {
        None | Some("auto") => Ok(DriverChoice::Auto),
        Some("uring" | "io_uring") => Ok(DriverChoice::Uring),
        Some("epoll") => Ok(DriverChoice::Epoll),
        Some(other) => Err(fault("driver", format!("{other:?} is not auto, uring or epoll"))),
    }
}

fn signatures(flags: &Flags) -> Result<ecdsa::Settings, ConfigError> {
    let signatures = match flags.signatures.as_deref() {
        None | Some("auto") => ecdsa::Signatures::Auto,
        Some("library") => ecdsa::Signatures::Library,
        Some(_) => return Err(fault("signatures", "expected auto or library")),
    };
    let default = ecdsa::Settings::default().audit_every;
    let audit_every = number("signature-audit", flags.signature_audit.as_deref(), default)?;
    Ok(ecdsa::Settings { signatures, audit_every })
}

fn database_connections(flags: &Flags) -> Result<usize, ConfigError> {
    match number("max-db-conn", flags.max_db_conn.as_deref(), 40)? {
        0 => Err(fault("max-db-conn", "at least one is needed: it writes")),
        count => Ok(count),
    }
}

fn number<T: std::str::FromStr>(
    flag: &'static str,
    text: Option<&str>,
    default: T,
) -> Result<T, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    text.trim()
        .parse()
        .map_err(|_not_a_number| fault(flag, format!("{text:?} is not a number of 0 or more")))
}

/// `:2470`, `127.0.0.1:2470`, `[::1]:2470`, `localhost:2470`.
fn listen(flag: &'static str, text: &str) -> Result<Listen, ConfigError> {
    let wrong =
        || fault(flag, format!("{text:?} is not an address such as :2470 or 127.0.0.1:2470"));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_not_a_port| wrong())?;
    let ip = match host {
        "" | "*" => None,
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        host => {
            let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            Some(bare.unwrap_or(host).parse().map_err(|_not_an_ip| wrong())?)
        }
    };
    Ok(Listen { ip, port })
}

/// A number and the unit behind it.
fn split_unit(text: &str) -> Option<(f64, &str)> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

/// `72h`, `5m`, `1h30m`, `500ms`.
fn parse_time(flag: &'static str, text: &str) -> Result<Duration, ConfigError> {
    let wrong = || fault(flag, format!("{text:?} is not a time such as 72h, 5m or 30s"));
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, behind) = split_unit(rest).ok_or_else(wrong)?;
        let unit = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, next) = behind.split_at(unit);
        seconds += number
            * match unit {
                "d" => 86_400.0,
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" => 1e-6,
                "" if number == 0.0 => 0.0,
                _ => return Err(wrong()),
            };
        rest = next;
    }
    // Ten years: more is a mistake, and would overflow clocks.
    if !(0.0..=10.0 * 366.0 * 86_400.0).contains(&seconds) {
        return Err(wrong());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// `512MiB`, `10GB`, `1000000`.
fn parse_size(flag: &'static str, text: &str) -> Result<u64, ConfigError> {
    let wrong = || fault(flag, format!("{text:?} is not a size such as 512MiB or 10GB"));
    let (number, unit) = split_unit(text.trim()).ok_or_else(wrong)?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "kb" => 1e3,
        "m" | "mib" => 1024.0 * 1024.0,
        "mb" => 1e6,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "gb" => 1e9,
        "t" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "tb" => 1e12,
        _ => return Err(wrong()),
    };
    let bytes = number * factor;
    if !(1.0..=1e18).contains(&bytes) {
        return Err(wrong());
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parsed = |text: &str| listen("api-listen", text).map(|at| (at.ip, at.port));
        assert_eq!(parsed(":2470").unwrap(), (None, 2470));
        assert_eq!(parsed("127.0.0.1:0").unwrap(), (Some("127.0.0.1".parse().unwrap()), 0));
        assert_eq!(parsed("[::1]:5").unwrap(), (Some("::1".parse().unwrap()), 5));
        assert_eq!(parsed("localhost:5").unwrap(), (Some("127.0.0.1".parse().unwrap()), 5));
        for bad in ["2470", "", ":", ":99999", "example.com:1", "1.2.3.4"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_sizes() {
        for (text, seconds) in [
            ("72h", 259_200.0),
            ("5m", 300.0),
            ("30s", 30.0),
            ("1h30m", 5400.0),
            ("250ms", 0.25),
            ("0", 0.0),
        ] {
            assert_eq!(parse_time("x", text).unwrap(), Duration::from_secs_f64(seconds), "{text}");
        }
        for bad in ["", "72", "h", "5 m", "-5m", "99999999d", "5y"] {
            assert!(parse_time("x", bad).is_err(), "{bad}");
        }
        for (text, bytes) in
            [("1", 1), ("512MiB", 512 << 20), ("10GB", 10_000_000_000), ("1.5k", 1536)]
        {
            assert_eq!(parse_size("x", text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "x", "5x", "0", "-1", "9999999TB"] {
            assert!(parse_size("x", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let config = Config::from_flags(&Flags::default()).unwrap();
        assert_eq!(config.api, Listen { ip: None, port: 2470 });
        assert_eq!(config.log_dir, PathBuf::from("./data/relayered/log"));
        let file = PathBuf::from("./data/relayered/relayered.sqlite");
        assert_eq!(config.database, DatabaseUrl::File(file));
        assert_eq!(config.replay_window, Duration::from_hours(72));
        assert_eq!(config.trusted_domains, ["*.host.bsky.network"]);
    }

    #[test]
    fn wrong_values_name_their_flag() {
        let wrong = [
            Flags { shards: Some("0".into()), ..Flags::default() },
            Flags { initial_seq_number: Some("0".into()), ..Flags::default() },
            Flags { plc_host: Some("plc.directory".into()), ..Flags::default() },
            Flags { db_url: Some("mysql://x".into()), ..Flags::default() },
            Flags { allow_private_hosts: vec!["10.0.0.0/99".into()], ..Flags::default() },
            Flags { trusted_proxies: vec!["proxy".into()], ..Flags::default() },
            Flags { driver: Some("kqueue".into()), ..Flags::default() },
            Flags { signatures: Some("fast".into()), ..Flags::default() },
            Flags { signature_audit: Some("-1".into()), ..Flags::default() },
        ];
        for flags in wrong {
            let error = Config::from_flags(&flags).unwrap_err().to_string();
            assert!(error.starts_with("--"), "{error}");
        }
    }

    #[test]
    fn log_levels_of_other_programs() {
        let level = |text: &str| {
            let flags = Flags { log_level: Some(text.into()), ..Flags::default() };
            LogOutput::from_flags(&flags).unwrap()
        };
        assert_eq!(level("DEBUG").level, tracing::Level::DEBUG);
        assert_eq!(level("warning").level, tracing::Level::WARN);
        assert_eq!(level("dpanic").unknown_level.as_deref(), Some("dpanic"));
    }
}
