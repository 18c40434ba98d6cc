//! The command line of `relayered admin`.

use argh::FromArgs;

/// Operate a running relay through its admin API.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(note = "Behind any of these commands:
  --relay-url URL   the relay; or RELAY_URL, or RELAY_HOST [http://localhost:2470]
  --admin-key KEY   its admin key; or RELAY_ADMIN_KEY, RELAY_ADMIN_PASSWORD
  --json            the reply as JSON instead of a table")]
pub(crate) struct AdminArgs {
    #[argh(subcommand)]
    pub(super) topic: Topic,
}

#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand)]
pub(super) enum Topic {
    Host(HostArgs),
    Domain(DomainArgs),
    TrustedDomain(TrustedDomainArgs),
    Account(AccountArgs),
    Consumers(ConsumersArgs),
    Settings(SettingsArgs),
    Siblings(SiblingsArgs),
    Discovery(DiscoveryArgs),
    Status(StatusArgs),
    Audit(AuditArgs),
    Explain(ExplainArgs),
}

/// Hosts: list, add, block, limits, …
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "host")]
pub(super) struct HostArgs {
    #[argh(subcommand)]
    pub(super) action: HostAction,
}

#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand)]
pub(super) enum HostAction {
    List(HostList),
    Connected(HostConnected),
    Add(HostAdd),
    Block(HostBlock),
    Unblock(HostUnblock),
    Disconnect(HostDisconnect),
    Limits(HostLimits),
    Strictness(HostStrictness),
    Detail(HostDetail),
    ResetCursor(HostResetCursor),
}

/// All hosts, or some of them.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "list")]
pub(super) struct HostList {
    /// only names that contain this
    #[argh(option, short = 'q')]
    pub(super) query: Option<String>,
    /// only hosts that are active, idle, offline, throttled or banned
    #[argh(option)]
    pub(super) status: Option<String>,
}

/// The names of the hosts that are connected.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "connected")]
pub(super) struct HostConnected {}

/// Limits of a host; those not given stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LimitFlags {
    pub(super) accounts: Option<u64>,
    pub(super) per_second: Option<u64>,
    pub(super) per_hour: Option<u64>,
    pub(super) per_day: Option<u64>,
}

/// Adds hosts, or tries at once those that are there.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "add")]
pub(super) struct HostAdd {
    /// names or URLs of hosts
    #[argh(positional)]
    pub(super) hosts: Vec<String>,
    /// file with a host on each line; what is behind a # is left out; - is standard input
    #[argh(option, short = 'f')]
    pub(super) file: Option<String>,
    /// accounts of the host at most
    #[argh(option)]
    pub(super) account_limit: Option<u64>,
    /// events a second at most
    #[argh(option)]
    pub(super) per_second: Option<u64>,
    /// events an hour at most
    #[argh(option)]
    pub(super) per_hour: Option<u64>,
    /// events a day at most
    #[argh(option)]
    pub(super) per_day: Option<u64>,
    /// hosts that are looked at at once [4]
    #[argh(option, default = "4")]
    pub(super) parallel: usize,
}

impl HostAdd {
    pub(super) fn limits(&self) -> LimitFlags {
        let Self { account_limit: accounts, per_second, per_hour, per_day, .. } = *self;
        LimitFlags { accounts, per_second, per_hour, per_day }
    }
}

/// Cuts the connection to a host and makes no other.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "block")]
pub(super) struct HostBlock {
    #[argh(positional)]
    pub(super) host: String,
}

/// Lifts a block and connects.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "unblock")]
pub(super) struct HostUnblock {
    #[argh(positional)]
    pub(super) host: String,
}

/// Cuts the connection to a host, which may come back later.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "disconnect")]
pub(super) struct HostDisconnect {
    #[argh(positional)]
    pub(super) host: String,
}

/// Changes limits of a host; those not given stay as they are.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "limits")]
pub(super) struct HostLimits {
    #[argh(positional)]
    pub(super) host: String,
    /// accounts of the host at most
    #[argh(option)]
    pub(super) account_limit: Option<u64>,
    /// events a second at most
    #[argh(option)]
    pub(super) per_second: Option<u64>,
    /// events an hour at most
    #[argh(option)]
    pub(super) per_hour: Option<u64>,
    /// events a day at most
    #[argh(option)]
    pub(super) per_day: Option<u64>,
    /// event rates that are not given follow from the account limit again
    #[argh(switch)]
    pub(super) default_rates: bool,
    /// no warnings of the account limit (true or false)
    #[argh(option)]
    pub(super) silence_alerts: Option<bool>,
}

impl HostLimits {
    pub(super) fn limits(&self) -> LimitFlags {
        let Self { account_limit: accounts, per_second, per_hour, per_day, .. } = *self;
        LimitFlags { accounts, per_second, per_hour, per_day }
    }
}

/// Whether commits of a host without prevData are refused: strict, lenient or default.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "strictness")]
pub(super) struct HostStrictness {
    #[argh(positional)]
    pub(super) host: String,
    #[argh(positional)]
    pub(super) strictness: String,
}

/// All that is known of one host.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "detail")]
pub(super) struct HostDetail {
    #[argh(positional)]
    pub(super) host: String,
}

/// Reads a host's stream from another place on.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "reset-cursor")]
pub(super) struct HostResetCursor {
    #[argh(positional)]
    pub(super) host: String,
    /// go on behind this event of the host; without it at the newest
    #[argh(option)]
    pub(super) cursor: Option<u64>,
}

/// Domains of which no host is taken.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "domain")]
pub(super) struct DomainArgs {
    #[argh(subcommand)]
    pub(super) action: DomainAction,
}

#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand)]
pub(super) enum DomainAction {
    List(DomainList),
    Ban(DomainBan),
    Unban(DomainUnban),
}

/// The banned domains.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "list")]
pub(super) struct DomainList {}

/// Bans a domain and all names below it; connections to its hosts are cut.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "ban")]
pub(super) struct DomainBan {
    #[argh(positional)]
    pub(super) domain: String,
}

/// Lifts the ban of a domain.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "unban")]
pub(super) struct DomainUnban {
    #[argh(positional)]
    pub(super) domain: String,
}

/// Domains whose hosts have high limits.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "trusted-domain")]
pub(super) struct TrustedDomainArgs {
    #[argh(subcommand)]
    pub(super) action: TrustedDomainAction,
}

#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand)]
pub(super) enum TrustedDomainAction {
    List(TrustedList),
    Add(TrustedAdd),
    Remove(TrustedRemove),
}

/// The trusted domains.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "list")]
pub(super) struct TrustedList {}

/// Trusts a domain: a name, or *.example.com for all names below it.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "add")]
pub(super) struct TrustedAdd {
    #[argh(positional)]
    pub(super) domain: String,
}

/// Trusts a domain no longer.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "remove")]
pub(super) struct TrustedRemove {
    #[argh(positional)]
    pub(super) domain: String,
}

/// Accounts: take down, reverse, list, status.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "account")]
pub(super) struct AccountArgs {
    #[argh(subcommand)]
    pub(super) action: AccountAction,
}

#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand)]
pub(super) enum AccountAction {
    Takedown(AccountTakedown),
    Reverse(AccountReverse),
    List(AccountList),
    Status(AccountStatus),
}

/// Takes an account down: its events are erased from the log, and no others are passed on.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "takedown")]
pub(super) struct AccountTakedown {
    #[argh(positional)]
    pub(super) did: String,
    /// also an account that the relay has not met
    #[argh(switch)]
    pub(super) force: bool,
}

/// Reverses a take-down.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "reverse")]
pub(super) struct AccountReverse {
    #[argh(positional)]
    pub(super) did: String,
}

/// The accounts that are taken down.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "list")]
pub(super) struct AccountList {}

/// What the relay holds of an account.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "status")]
pub(super) struct AccountStatus {
    #[argh(positional)]
    pub(super) did: String,
}

/// Who reads the firehose.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "consumers")]
pub(super) struct ConsumersArgs {
    #[argh(subcommand)]
    pub(super) action: ConsumersAction,
}

#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand)]
pub(super) enum ConsumersAction {
    List(ConsumersList),
    Kick(ConsumersKick),
}

/// The connected consumers.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "list")]
pub(super) struct ConsumersList {}

/// Cuts the connection of a consumer.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "kick")]
pub(super) struct ConsumersKick {
    #[argh(positional)]
    pub(super) id: u64,
}

/// Settings that can be changed while the relay runs.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "settings")]
pub(super) struct SettingsArgs {
    #[argh(subcommand)]
    pub(super) action: SettingsAction,
}

#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand)]
pub(super) enum SettingsAction {
    Show(SettingsShow),
    Set(SettingsSet),
}

/// All settings.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "show")]
pub(super) struct SettingsShow {}

/// Changes settings.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "set")]
pub(super) struct SettingsSet {
    /// NAME=VALUE, with the names that `show` shows
    #[argh(positional)]
    pub(super) settings: Vec<String>,
}

/// Relays that changes are passed on to.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "siblings")]
pub(super) struct SiblingsArgs {
    #[argh(subcommand)]
    pub(super) action: SiblingsAction,
}

#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand)]
pub(super) enum SiblingsAction {
    List(SiblingsList),
    Retry(SiblingsRetry),
}

/// What waits for each sibling, and what went wrong.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "list")]
pub(super) struct SiblingsList {}

/// Tries now instead of later.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "retry")]
pub(super) struct SiblingsRetry {
    /// the sibling as `list` shows it; without it all
    #[argh(positional)]
    pub(super) sibling: Option<String>,
}

/// Relays whose hosts are looked through for hosts that are new here.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "discovery")]
pub(super) struct DiscoveryArgs {
    #[argh(subcommand)]
    pub(super) action: DiscoveryAction,
}

#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand)]
pub(super) enum DiscoveryAction {
    List(DiscoveryList),
    Run(DiscoveryRun),
    Refused(DiscoveryRefused),
}

/// The relays, and what was last found there.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "list")]
pub(super) struct DiscoveryList {}

/// Looks through all of them now.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "run")]
pub(super) struct DiscoveryRun {}

/// Hosts that were found there, could not be added, and are left alone for now.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "refused")]
pub(super) struct DiscoveryRefused {}

/// How the relay fares: its counters, its event log, its signatures.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "status")]
pub(super) struct StatusArgs {
    #[argh(subcommand)]
    pub(super) action: StatusAction,
}

#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand)]
pub(super) enum StatusAction {
    Stats(StatusStats),
    Log(StatusLog),
    Signatures(StatusSignatures),
}

/// The figures of the dashboard.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "stats")]
pub(super) struct StatusStats {}

/// The event log: window, size, whether the disk takes events.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "log")]
pub(super) struct StatusLog {}

/// How signatures are verified.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "signatures")]
pub(super) struct StatusSignatures {}

/// Changes that operators made, the newest first.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "audit")]
pub(super) struct AuditArgs {
    /// how many [50]
    #[argh(option, default = "50")]
    pub(super) limit: u64,
}

/// Why events of a host or an account are not in the firehose.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(subcommand, name = "explain")]
pub(super) struct ExplainArgs {
    /// a host, or a DID
    #[argh(positional)]
    pub(super) subject: String,
}
