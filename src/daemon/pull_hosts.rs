//! `relayered pull-hosts`: the hosts that another relay has, added to one's own.

use std::collections::HashSet;

use argh::FromArgs;
use serde_json::{Map, Value, json};

use crate::{
    admin::{Client, Target, add_all, block_on, say},
    fatal::{Code, Fatal},
};

/// Pages at most: a relay that never ends its list is not followed for ever.
const PAGES_MAX: usize = 10_000;

/// Add the hosts that another relay lists to one's own relay, which must run.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(note = "One's own relay is named by
  --relay-url URL   or RELAY_URL, or RELAY_HOST [http://localhost:2470]
  --admin-key KEY   its admin key; or RELAY_ADMIN_KEY, RELAY_ADMIN_PASSWORD
  --json            outcomes as JSON, one a line
It looks at each host before it takes it. Hosts that it has are left as they are.")]
pub(crate) struct PullHostsArgs {
    /// the relay to take them from [https://bsky.network]
    #[argh(option, default = "\"https://bsky.network\".to_owned()")]
    relay_host: String,
    /// only hosts with one of these statuses there [active,idle]
    #[argh(option, default = "\"active,idle\".to_owned()")]
    status: String,
    /// only hosts with at least so many accounts there [0]
    #[argh(option, default = "0")]
    min_accounts: u64,
    /// not more hosts than this; those with most accounts first
    #[argh(option)]
    limit: Option<usize>,
    /// hosts on a page, 1 to 1000 [500]
    #[argh(option, default = "500")]
    batch_size: usize,
    /// accounts of each host at most
    #[argh(option)]
    account_limit: Option<u64>,
    /// hosts that are looked at at once [4]
    #[argh(option, default = "4")]
    parallel: usize,
    /// say what would be added, and add nothing
    #[argh(switch)]
    dry_run: bool,
}

pub(crate) fn run(args: &PullHostsArgs, target: &Target, as_json: bool) -> Result<(), Fatal> {
    if !(1..=1000).contains(&args.batch_size) {
        return Err(Fatal::new(Code::Usage, "--batch-size is a number from 1 to 1000"));
    }
    block_on(async {
        let there = Client::public(&args.relay_host)?;
        let own = Client::admin(target)?;
        let known = known_hosts(&own).await?;
        let listed = all_hosts(&there, args.batch_size).await?;
        let seen = listed.len();
        let mut chosen = choose(args, listed);
        let matching = chosen.len();
        chosen.retain(|host| !known.contains(host));
        chosen.truncate(args.limit.unwrap_or(usize::MAX));
        eprintln!(
            "{}: {seen} hosts, of which {matching} match; {} are to be added",
            there.base(),
            chosen.len()
        );
        if args.dry_run || chosen.is_empty() {
            for host in &chosen {
                say(host);
            }
            return Ok(());
        }
        let mut limits = Map::new();
        if let Some(limit) = args.account_limit {
            limits.insert("repo_limit".to_owned(), json!(limit));
        }
        add_all(&own, &chosen, &limits, args.parallel, as_json).await
    })
}

async fn known_hosts(own: &Client) -> Result<HashSet<String>, Fatal> {
    let list = own.get("/admin/pds/list", &[]).await?;
    let names = list.as_array().into_iter().flatten();
    let name = |host: &Value| host.get("Host")?.as_str().map(str::to_owned);
    Ok(names.filter_map(name).collect())
}

/// What another relay says of a host.
struct Listed {
    hostname: String,
    /// Empty: it says nothing.
    status: String,
    accounts: u64,
    /// Whether it has ever got an event from it.
    seen: bool,
}

impl Listed {
    fn read(host: &Value) -> Option<Self> {
        let text = |name: &str| host.get(name).and_then(Value::as_str);
        Some(Self {
            hostname: text("hostname")?.to_owned(),
            status: text("status").unwrap_or_default().to_owned(),
            accounts: host.get("accountCount").and_then(Value::as_u64).unwrap_or(0),
            seen: host.get("seq").and_then(Value::as_i64).is_some_and(|seq| seq > 0),
        })
    }
}

async fn all_hosts(there: &Client, batch: usize) -> Result<Vec<Listed>, Fatal> {
    let (limit, mut cursor, mut hosts) = (batch.to_string(), String::new(), Vec::new());
    for _ in 0..PAGES_MAX {
        let mut query = vec![("limit", limit.as_str())];
        if !cursor.is_empty() {
            query.push(("cursor", &cursor));
        }
        let page = there.get("/xrpc/com.atproto.sync.listHosts", &query).await?;
        let rows = page.get("hosts").and_then(Value::as_array).map(Vec::as_slice);
        let Some(rows) = rows else {
            let message = format!("{}: the list of hosts is not one", there.base());
            return Err(Fatal::new(Code::Unavailable, message));
        };
        hosts.extend(rows.iter().filter_map(Listed::read));
        match page.get("cursor").and_then(Value::as_str) {
            Some(next) if !next.is_empty() && next != cursor => next.clone_into(&mut cursor),
            _ => return Ok(hosts),
        }
    }
    Err(Fatal::new(Code::Unavailable, format!("{}: its list of hosts has no end", there.base())))
}

/// The names of those that are wanted, each once, those with most accounts first.
fn choose(args: &PullHostsArgs, mut listed: Vec<Listed>) -> Vec<String> {
    let statuses: Vec<&str> = args.status.split(',').map(str::trim).collect();
    listed.sort_by_key(|host| std::cmp::Reverse(host.accounts));
    let mut names = HashSet::new();
    let wanted = listed.into_iter().filter(|host| {
        statuses.contains(&host.status.as_str()) && host.seen && host.accounts >= args.min_accounts
    });
    wanted
        .map(|host| host.hostname.trim_end_matches('.').to_ascii_lowercase())
        .filter(|name| names.insert(name.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_chosen_by_what_the_other_relay_says_of_them() {
        let host = |name: &str, status: &str, accounts: u64, seq: i64| {
            Listed::read(&json!({
                "hostname": name, "status": status, "accountCount": accounts, "seq": seq
            }))
            .unwrap()
        };
        let listed = vec![
            host("small.example", "active", 1, 5),
            host("Big.example", "idle", 100, 5),
            host("big.example", "idle", 100, 5),
            host("gone.example", "offline", 100, 5),
            host("never.example", "active", 100, -1),
            Listed::read(&json!({ "hostname": "unknown.example" })).unwrap(),
        ];
        let args = PullHostsArgs::from_args(&["pull-hosts"], &[]).unwrap();
        assert_eq!(choose(&args, listed), ["big.example", "small.example"]);
        assert!(Listed::read(&json!({ "seq": 1 })).is_none());
    }
}
