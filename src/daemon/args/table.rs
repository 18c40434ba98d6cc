//! Every flag of the relay: its names, its environment variables, and its help.

/// What stands behind a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One value; given twice, the last one counts.
    Value(&'static str),
    /// Any number of values: the flag is repeated, the variable holds them separated by commas.
    List(&'static str),
    Switch,
    /// Other relays have it; this one takes it and says that it has no effect.
    IgnoredValue,
    IgnoredSwitch,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    /// The first that is set counts.
    pub(crate) env: &'static [&'static str],
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
}

pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) flags: &'static [Flag],
}

use Kind::{IgnoredSwitch, IgnoredValue, List, Switch, Value};

macro_rules! flag {
    ($name:literal $(| $alias:literal)*, [$($env:literal),*], $kind:expr, $default:literal, $help:literal) => {
        Flag {
            name: $name,
            aliases: &[$($alias),*],
            env: &[$($env),*],
            kind: $kind,
            default: $default,
            help: $help,
        }
    };
}

pub(crate) const GROUPS: &[Group] = &[
    Group {
        title: "Serving",
        flags: &[
            flag!(
                "api-listen" | "bind",
                ["RELAY_API_LISTEN", "RELAY_API_BIND"],
                Value("ADDR"),
                ":2470",
                "Where the API and the firehose listen. `:2470` is all interfaces, \
                 `127.0.0.1:2470` one of them, port 0 any free port."
            ),
            flag!(
                "metrics-listen",
                ["RELAY_METRICS_LISTEN"],
                Value("ADDR"),
                ":2471",
                "Where Prometheus fetches /metrics. Keep it private."
            ),
            flag!(
                "admin-key" | "admin-password",
                ["RELAY_ADMIN_KEY", "RELAY_ADMIN_PASSWORD"],
                List("KEY"),
                "random",
                "Opens /admin as `Authorization: Bearer KEY` or as the \
                 password of user admin. Several may hold at once. Without one a random key is \
                 made and printed at start."
            ),
            flag!(
                "max-consumers",
                ["RELAY_MAX_CONSUMERS"],
                Value("N"),
                "10000",
                "Connected consumers at most; those beyond are told to try later."
            ),
            flag!(
                "max-consumers-per-address",
                ["RELAY_MAX_CONSUMERS_PER_ADDRESS"],
                Value("N"),
                "0",
                "Connected consumers of one client address (or IPv6 /64) at most; 0 is no limit."
            ),
            flag!(
                "max-connections-per-address",
                ["RELAY_MAX_CONNECTIONS_PER_ADDRESS"],
                Value("N"),
                "1024",
                "HTTP connections from one address (or IPv6 /64) at most; 0 is no limit. Consumers \
                 and trusted proxies do not count."
            ),
            flag!(
                "api-timeout",
                ["RELAY_API_TIMEOUT"],
                Value("TIME"),
                "30s",
                "For a client of the API to send a request's head, to send its body, and to take \
                 some of the reply; and for how long a connection may be idle."
            ),
            flag!(
                "trusted-proxies",
                ["RELAY_TRUSTED_PROXIES"],
                List("CIDR"),
                "none",
                "Networks of reverse proxies whose X-Forwarded-For (or Forwarded) tells the \
                 client's address. Others are not believed."
            ),
            flag!(
                "consumer-stall-time",
                ["RELAY_CONSUMER_STALL_TIME"],
                Value("TIME"),
                "30s",
                "A consumer that takes no byte for so long gets ConsumerTooSlow and is closed."
            ),
            flag!(
                "consumer-ping-interval",
                ["RELAY_CONSUMER_PING_INTERVAL"],
                Value("TIME"),
                "30s",
                "A consumer to whom nothing was sent for so long is pinged, and closed if it does \
                 not answer within the same time."
            ),
        ],
    },
    Group {
        title: "Data",
        flags: &[
            flag!(
                "data-dir",
                ["DATA_DIR"],
                Value("DIR"),
                "./data/relayered",
                "Holds the database and the event log unless they are put elsewhere."
            ),
            flag!(
                "db-url",
                ["DATABASE_URL"],
                Value("URL"),
                "sqlite://DATA_DIR/relayered.sqlite",
                "`sqlite://PATH`, `sqlite:///absolute/path`, `sqlite=PATH`, \
                 `postgres://USER:PASSWORD@HOST/NAME?sslmode=verify-full`, or `postgres=` and \
                 `key=value` pairs. A server that cannot be reached is waited for."
            ),
            flag!(
                "db-cache",
                ["RELAY_DB_CACHE"],
                Value("SIZE"),
                "256MiB",
                "Memory for pages of a SQLite database. With some ten million accounts more of it \
                 makes them faster to update."
            ),
            flag!(
                "max-db-conn" | "max-metadb-connections",
                ["MAX_DB_CONNECTIONS", "MAX_METADB_CONNECTIONS"],
                Value("N"),
                "40",
                "Connections to the database at most. One writes; the others answer the API's \
                 questions beside it, and are made when there is something to ask. (For SQLite \
                 as many as there are processors are enough.)"
            ),
            flag!(
                "persist-dir" | "disk-persister-dir",
                ["RELAY_PERSIST_DIR", "RELAY_PERSISTER_DIR"],
                Value("DIR"),
                "DATA_DIR/log",
                "Holds the event log."
            ),
            flag!(
                "replay-window" | "event-playback-ttl",
                ["RELAY_REPLAY_WINDOW", "RELAY_EVENT_PLAYBACK_TTL"],
                Value("TIME"),
                "72h",
                "How far back consumers can go with a cursor."
            ),
            flag!(
                "replay-bytes",
                ["RELAY_REPLAY_BYTES"],
                Value("SIZE"),
                "no limit",
                "Bytes of the event log at most; what is older goes first, even within the window."
            ),
            flag!(
                "log-segment-bytes",
                ["RELAY_LOG_SEGMENT_BYTES"],
                Value("SIZE"),
                "256MiB",
                "Bytes of one file of the event log."
            ),
            flag!(
                "log-memory",
                ["RELAY_LOG_MEMORY"],
                Value("SIZE"),
                "64MiB",
                "The newest part of the event log that is served from memory."
            ),
            flag!(
                "accounts-memory",
                ["RELAY_ACCOUNTS_MEMORY"],
                Value("SIZE"),
                "4GiB",
                "Memory for the state of accounts, 160 bytes each. Beyond it those are forgotten that \
                 were not heard of for the longest time, and read from the database again when \
                 they are."
            ),
            flag!(
                "sync-interval",
                ["RELAY_SYNC_INTERVAL"],
                Value("TIME"),
                "100ms",
                "How often the event log is synced to disk. Power loss costs at most this much; \
                 it is fetched again from the hosts. 0 syncs every batch before it is sent."
            ),
            flag!(
                "initial-seq-number",
                ["RELAY_INITIAL_SEQ_NUMBER"],
                Value("N"),
                "1",
                "Sequence numbers start at this number at least, for a relay that takes the place \
                 of another."
            ),
        ],
    },
    Group {
        title: "Hosts and accounts",
        flags: &[
            flag!(
                "trusted-domains",
                ["RELAY_TRUSTED_DOMAINS"],
                List("DOMAIN"),
                "*.host.bsky.network",
                "Hosts with high limits: a name, `*.example.com` for all \
                 names below it, `*` for all."
            ),
            flag!(
                "default-account-limit" | "default-repo-limit",
                ["RELAY_DEFAULT_ACCOUNT_LIMIT", "RELAY_DEFAULT_REPO_LIMIT"],
                Value("N"),
                "100",
                "Accounts of a new host that is not trusted."
            ),
            flag!(
                "new-hosts-per-day-limit",
                ["RELAY_NEW_HOSTS_PER_DAY_LIMIT"],
                Value("N"),
                "50",
                "New hosts that the public may add within 24 hours."
            ),
            flag!(
                "disable-request-crawl",
                ["RELAY_DISABLE_REQUEST_CRAWL"],
                Switch,
                "false",
                "Only the operator adds hosts."
            ),
            flag!(
                "allow-insecure-hosts" | "crawl-insecure-ws",
                ["RELAY_ALLOW_INSECURE_HOSTS"],
                Switch,
                "false",
                "Also hosts without TLS, and `localhost:PORT`. For development."
            ),
            flag!(
                "allow-private-hosts",
                ["RELAY_ALLOW_PRIVATE_HOSTS"],
                List("CIDR"),
                "none",
                "Networks in which hosts may be although their addresses are not public, as \
                 10.0.0.0/8."
            ),
            flag!(
                "lenient-sync-validation",
                ["RELAY_LENIENT_SYNC_VALIDATION"],
                Switch,
                "false",
                "Pass on commits without `prevData` (and count them)."
            ),
            flag!(
                "sibling-relays" | "next-crawler",
                ["RELAY_SIBLING_RELAYS", "RELAY_NEXT_CRAWLER"],
                List("URL"),
                "none",
                "Relays to which admin changes and crawl requests are passed on, in order and until they \
                 have them: a name or URL, with `admin:KEY@` before the name if its admin key is \
                 not our first one. They may name each other in any way; a change is made once."
            ),
            flag!(
                "discover-from",
                ["RELAY_DISCOVER_FROM"],
                List("URL"),
                "none",
                "Relays whose lists of hosts are looked through for hosts that are new here. What \
                 they list is added without a daily limit."
            ),
            flag!(
                "discover-interval",
                ["RELAY_DISCOVER_INTERVAL"],
                Value("TIME"),
                "24h",
                "Time between looks; 0 is never. A setting of the admin API wins."
            ),
        ],
    },
    Group {
        title: "Identities",
        flags: &[
            flag!(
                "plc-host",
                ["RELAY_PLC_HOST", "ATP_PLC_HOST"],
                Value("URL"),
                "https://plc.directory",
                "The directory of did:plc."
            ),
            flag!(
                "ident-cache-size" | "did-cache-size",
                ["RELAY_IDENT_CACHE_SIZE", "RELAY_DID_CACHE_SIZE"],
                Value("N"),
                "5000000",
                "DID documents kept in memory at most."
            ),
        ],
    },
    Group {
        title: "Machine",
        flags: &[
            flag!(
                "shards",
                ["RELAY_SHARDS"],
                Value("N"),
                "one for each core",
                "Threads that read hosts, verify events and serve consumers."
            ),
            flag!("pin", ["RELAY_PIN"], Value("BOOL"), "true", "Bind each shard to a core."),
            flag!(
                "driver",
                ["RELAY_DRIVER"],
                Value("NAME"),
                "auto",
                "`uring`, `epoll`, or `auto`: io_uring where the kernel allows it."
            ),
            flag!(
                "signatures",
                ["RELAY_SIGNATURES"],
                Value("NAME"),
                "auto",
                "`auto`: eight signatures at once where the CPU has AVX-512 IFMA. \
                 `library`: each by libsecp256k1 or ring."
            ),
            flag!(
                "signature-audit",
                ["RELAY_SIGNATURE_AUDIT"],
                Value("N"),
                "1024",
                "One batch in N is verified by the library as well; 0 is none. A difference is an \
                 alarm: the library's verdict stands, and it verifies all from then on."
            ),
        ],
    },
    Group {
        title: "Log output",
        flags: &[
            flag!(
                "log-level",
                ["RELAY_LOG_LEVEL", "GOLOG_LOG_LEVEL", "GO_LOG_LEVEL", "LOG_LEVEL"],
                Value("LEVEL"),
                "info",
                "error, warn, info, debug or trace. The log goes to \
                 standard error."
            ),
            flag!(
                "log-format",
                ["RELAY_LOG_FORMAT", "GOLOG_LOG_FMT"],
                Value("FORMAT"),
                "text",
                "text or json."
            ),
            flag!(
                "env",
                ["ENVIRONMENT"],
                Value("NAME"),
                "dev",
                "Name of this deployment, in the log."
            ),
        ],
    },
    Group {
        title: "Taken for compatibility, without effect",
        flags: &[
            flag!(
                "host-concurrency" | "concurrency-per-pds",
                ["RELAY_HOST_CONCURRENCY", "RELAY_CONCURRENCY_PER_PDS"],
                IgnoredValue,
                "",
                ""
            ),
            flag!("max-queue-per-pds", ["RELAY_MAX_QUEUE_PER_PDS"], IgnoredValue, "", ""),
            flag!("time-seq", ["RELAY_TIME_SEQUENCE"], IgnoredSwitch, "", ""),
            flag!(
                "bsky-social-rate-limit-skip",
                ["BSKY_SOCIAL_RATE_LIMIT_SKIP"],
                IgnoredValue,
                "",
                ""
            ),
            flag!("enable-db-tracing" | "db-tracing", [], IgnoredSwitch, "", ""),
            flag!("enable-jaeger-tracing" | "jaeger", [], IgnoredSwitch, "", ""),
            flag!("enable-otel-tracing", [], IgnoredSwitch, "", ""),
            flag!(
                "otel-exporter-otlp-endpoint",
                ["OTEL_EXPORTER_OTLP_ENDPOINT"],
                IgnoredValue,
                "",
                ""
            ),
            flag!(
                "account-limit-alert-threshold",
                ["RELAY_ACCOUNT_LIMIT_ALERT_THRESHOLD"],
                IgnoredValue,
                "",
                ""
            ),
            flag!(
                "account-limit-alert-interval",
                ["RELAY_ACCOUNT_LIMIT_ALERT_INTERVAL"],
                IgnoredValue,
                "",
                ""
            ),
            flag!(
                "account-limit-alert-repeat-interval",
                ["RELAY_ACCOUNT_LIMIT_ALERT_REPEAT_INTERVAL"],
                IgnoredValue,
                "",
                ""
            ),
            flag!(
                "account-limit-alert-dashboard-url",
                ["RELAY_ACCOUNT_LIMIT_ALERT_DASHBOARD_URL", "RELAY_ALERT_DASHBOARD_URL"],
                IgnoredValue,
                "",
                ""
            ),
            flag!(
                "slack-alert-channel",
                ["RELAY_SLACK_ALERT_CHANNEL", "RELAY_ALERT_SLACK_CHANNEL"],
                IgnoredValue,
                "",
                ""
            ),
            flag!(
                "slack-alert-token",
                ["RELAY_SLACK_ALERT_TOKEN", "RELAY_ALERT_SLACK_TOKEN"],
                IgnoredValue,
                "",
                ""
            ),
        ],
    },
];

pub(crate) fn all() -> impl Iterator<Item = &'static Flag> {
    GROUPS.iter().flat_map(|group| group.flags)
}

/// The flag with this name or alias, without the dashes.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name || flag.aliases.contains(&name))
}
