//! `relayered admin …`: operates a running relay through its admin API.

mod add_hosts;
mod args;
mod client;
mod table;

use serde_json::{Map, Value, json};

pub(crate) use self::{
    add_hosts::add_all,
    args::AdminArgs,
    client::{Client, Target, block_on},
    table::say,
};
use self::{
    args::{
        AccountAction, ConsumersAction, DiscoveryAction, DomainAction, HostAction, LimitFlags,
        SettingsAction, SiblingsAction, StatusAction, Topic, TrustedDomainAction,
    },
    table::{Column, column},
};
use crate::fatal::{Code, Fatal};

const HOSTS: &[Column] = &[
    column("HOST", "/Host"),
    column("STATUS", "/Status"),
    column("CONNECTED", "/HasActiveConnection"),
    column("TRUSTED", "/Trusted"),
    column("ACCOUNTS", "/RepoCount"),
    column("LIMIT", "/RepoLimit"),
    column("CURSOR", "/Cursor"),
    column("EVENTS", "/EventsSeenSinceStartup"),
    column("REFUSED", "/EventsRefusedSinceStartup"),
    column("REASON", "/StatusReason"),
    column("LAST ERROR", "/LastError"),
];

const CONSUMERS: &[Column] = &[
    column("ID", "/id"),
    column("ADDRESS", "/remote_addr"),
    column("EVENTS", "/events_consumed"),
    column("SEQ", "/seq"),
    column("LAG", "/lag"),
    column("CONNECTED AT", "/connected_at"),
    column("USER AGENT", "/user_agent"),
];

const SIBLINGS: &[Column] = &[
    column("SIBLING", "/sibling"),
    column("QUEUED", "/queued"),
    column("OLDEST", "/oldest_at"),
    column("DELIVERED", "/delivered"),
    column("REFUSED", "/refused"),
    column("DROPPED", "/dropped"),
    column("FAILURES", "/failures"),
    column("NEXT ATTEMPT", "/next_attempt_at"),
    column("LAST OK", "/last_ok_at"),
    column("LAST ERROR", "/last_error"),
];

const DISCOVERY: &[Column] = &[
    column("RELAY", "/relay"),
    column("LAST LOOK", "/last_at"),
    column("NEXT", "/next_at"),
    column("HOSTS", "/hosts_seen"),
    column("ADDED", "/hosts_added"),
    column("LAST ERROR", "/last_error"),
];

const REFUSED: &[Column] = &[
    column("HOST", "/hostname"),
    column("TIMES", "/times"),
    column("AT", "/refused_at"),
    column("NOT BEFORE", "/retry_at"),
    column("REASON", "/reason"),
];

const AUDIT: &[Column] = &[
    column("AT", "/at"),
    column("ACTOR", "/actor"),
    column("REMOTE", "/remote"),
    column("ACTION", "/action"),
    column("SUBJECT", "/subject"),
    column("DETAIL", "/detail"),
    column("OUTCOME", "/outcome"),
];

pub(crate) fn run(args: AdminArgs, target: &Target, as_json: bool) -> Result<(), Fatal> {
    let admin = Admin { client: Client::admin(target)?, as_json };
    block_on(admin.run(args.topic))
}

/// One relay to operate, and how to tell what it answers.
struct Admin {
    client: Client,
    as_json: bool,
}

impl Admin {
    async fn run(&self, topic: Topic) -> Result<(), Fatal> {
        match topic {
            Topic::Host(args) => self.host(args.action).await,
            Topic::Domain(args) => self.domain(args.action).await,
            Topic::TrustedDomain(args) => self.trusted_domain(args.action).await,
            Topic::Account(args) => self.account(args.action).await,
            Topic::Consumers(args) => match args.action {
                ConsumersAction::List(_) => {
                    self.list("/admin/consumers/list", &[], "", CONSUMERS).await
                }
                ConsumersAction::Kick(args) => {
                    self.change("/admin/consumers/kick", json!({ "id": args.id })).await
                }
            },
            Topic::Settings(args) => match args.action {
                SettingsAction::Show(_) => self.show("/admin/settings", &[]).await,
                SettingsAction::Set(args) => {
                    self.change("/admin/settings", settings(&args.settings)?).await
                }
            },
            Topic::Siblings(args) => match args.action {
                SiblingsAction::List(_) => {
                    self.list("/admin/siblings/list", &[], "siblings", SIBLINGS).await
                }
                SiblingsAction::Retry(args) => {
                    let body = args.sibling.map_or(json!({}), |name| json!({ "sibling": name }));
                    self.change("/admin/siblings/retry", body).await
                }
            },
            Topic::Discovery(args) => match args.action {
                DiscoveryAction::List(_) => {
                    self.list("/admin/discovery/list", &[], "relays", DISCOVERY).await
                }
                DiscoveryAction::Run(_) => self.change("/admin/discovery/run", json!({})).await,
                DiscoveryAction::Refused(_) => {
                    self.pages("/admin/discovery/refused", "limit", "hosts", REFUSED).await
                }
            },
            Topic::Status(args) => match args.action {
                StatusAction::Stats(_) => self.show("/admin/stats", &[]).await,
                StatusAction::Log(_) => self.show("/admin/log", &[]).await,
                StatusAction::Signatures(_) => self.show("/admin/signatures", &[]).await,
            },
            Topic::Audit(args) => {
                let limit = args.limit.to_string();
                self.list("/admin/audit", &[("limit", &limit)], "entries", AUDIT).await
            }
            Topic::Explain(args) => {
                let name = if args.subject.starts_with("did:") { "did" } else { "host" };
                self.show("/explain", &[(name, &args.subject)]).await
            }
        }
    }

    async fn host(&self, action: HostAction) -> Result<(), Fatal> {
        match action {
            HostAction::List(args) => {
                let filters = [("q", &args.query), ("status", &args.status)];
                let query: Vec<(&str, &str)> = filters
                    .iter()
                    .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
                    .collect();
                self.list("/admin/pds/list", &query, "", HOSTS).await
            }
            HostAction::Connected(_) => self.names("/admin/subs/getUpstreamConns", "").await,
            HostAction::Add(args) => add_hosts::run(&self.client, args, self.as_json).await,
            HostAction::Block(args) => {
                self.change("/admin/pds/block", json!({ "host": args.host })).await
            }
            HostAction::Unblock(args) => {
                self.change("/admin/pds/unblock", json!({ "host": args.host })).await
            }
            HostAction::Disconnect(args) => {
                self.change("/admin/subs/killUpstream", json!({ "host": args.host })).await
            }
            HostAction::Limits(args) => {
                let mut body = args.limits().to_json();
                if let Some(silent) = args.silence_alerts {
                    body.insert("account_limit_alerts_silenced".to_owned(), json!(silent));
                }
                if args.default_rates {
                    body.insert("default_rates".to_owned(), json!(true));
                }
                if body.is_empty() {
                    return Err(Fatal::new(Code::Usage, "no limit is given")
                        .remedy("See relayered admin host limits --help"));
                }
                body.insert("host".to_owned(), json!(args.host));
                self.change("/admin/pds/changeLimits", Value::Object(body)).await
            }
            HostAction::Strictness(args) => {
                let body = json!({ "host": args.host, "strictness": args.strictness });
                self.change("/admin/pds/setStrictness", body).await
            }
            HostAction::Detail(args) => self.show("/admin/pds/get", &[("host", &args.host)]).await,
            HostAction::ResetCursor(args) => {
                let body = json!({ "host": args.host, "cursor": args.cursor });
                self.change("/admin/pds/resetCursor", body).await
            }
        }
    }

    async fn domain(&self, action: DomainAction) -> Result<(), Fatal> {
        match action {
            DomainAction::List(_) => {
                self.names("/admin/subs/listDomainBans", "banned_domains").await
            }
            DomainAction::Ban(args) => {
                self.change("/admin/subs/banDomain", json!({ "domain": args.domain })).await
            }
            DomainAction::Unban(args) => {
                self.change("/admin/subs/unbanDomain", json!({ "domain": args.domain })).await
            }
        }
    }

    async fn trusted_domain(&self, action: TrustedDomainAction) -> Result<(), Fatal> {
        match action {
            TrustedDomainAction::List(_) => {
                self.names("/admin/pds/listTrustedDomains", "trusted_domains").await
            }
            TrustedDomainAction::Add(args) => {
                self.change("/admin/pds/addTrustedDomain", json!({ "domain": args.domain })).await
            }
            TrustedDomainAction::Remove(args) => {
                self.change("/admin/pds/removeTrustedDomain", json!({ "domain": args.domain }))
                    .await
            }
        }
    }

    async fn account(&self, action: AccountAction) -> Result<(), Fatal> {
        match action {
            AccountAction::Takedown(args) => {
                let body = json!({ "did": args.did, "force": args.force });
                self.change("/admin/repo/takeDown", body).await
            }
            AccountAction::Reverse(args) => {
                self.change("/admin/repo/reverseTakedown", json!({ "did": args.did })).await
            }
            AccountAction::List(_) => self.takedowns().await,
            AccountAction::Status(args) => {
                self.show("/admin/repo/get", &[("did", &args.did)]).await
            }
        }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Fatal> {
        Ok(self.client.get(path, query).await?)
    }

    /// A change, of which there is nothing to tell but that it was made.
    async fn change(&self, path: &str, body: Value) -> Result<(), Fatal> {
        let reply = self.client.post(path, &body).await?;
        if self.as_json {
            say(&reply.to_string());
        }
        Ok(())
    }

    /// An object.
    async fn show(&self, path: &str, query: &[(&str, &str)]) -> Result<(), Fatal> {
        let reply = self.get(path, query).await?;
        say(&if self.as_json { reply.to_string() } else { table::fields(&reply) });
        Ok(())
    }

    /// An array of objects, or one that stands in an object under a name.
    async fn list(
        &self,
        path: &str,
        query: &[(&str, &str)],
        name: &str,
        columns: &[Column],
    ) -> Result<(), Fatal> {
        let reply = self.get(path, query).await?;
        if self.as_json {
            say(&reply.to_string());
            return Ok(());
        }
        let rows = if name.is_empty() { &reply } else { reply.get(name).unwrap_or(&reply) };
        match rows.as_array().map(Vec::as_slice) {
            Some([]) => say("(none)"),
            Some(rows) => say(&table::records(columns, rows)),
            None => say(&table::fields(&reply)),
        }
        Ok(())
    }

    /// An array of names, or one that stands in an object under a name.
    async fn names(&self, path: &str, name: &str) -> Result<(), Fatal> {
        let reply = self.get(path, &[]).await?;
        if self.as_json {
            say(&reply.to_string());
            return Ok(());
        }
        let names = if name.is_empty() { &reply } else { reply.get(name).unwrap_or(&reply) };
        for one in names.as_array().into_iter().flatten() {
            say(one.as_str().unwrap_or_default());
        }
        Ok(())
    }

    /// All pages of objects that stand under a name, as one table; as JSON, one object a line.
    async fn pages(
        &self,
        path: &str,
        size: &str,
        name: &str,
        columns: &[Column],
    ) -> Result<(), Fatal> {
        let (mut cursor, mut all) = (String::new(), Vec::new());
        loop {
            let mut page = self.get(path, &[(size, "500"), ("cursor", &cursor)]).await?;
            let next = page.get("cursor").and_then(Value::as_str).unwrap_or_default().to_owned();
            if let Some(Value::Array(rows)) = page.get_mut(name) {
                all.append(rows);
            }
            if next.is_empty() || next == cursor {
                break;
            }
            cursor = next;
        }
        if self.as_json {
            for row in &all {
                say(&row.to_string());
            }
        } else {
            say(&if all.is_empty() { "(none)".into() } else { table::records(columns, &all) });
        }
        Ok(())
    }

    /// All pages.
    async fn takedowns(&self) -> Result<(), Fatal> {
        let mut cursor = String::new();
        loop {
            let page =
                self.get("/admin/repo/takedowns", &[("size", "500"), ("cursor", &cursor)]).await?;
            for did in page.get("dids").and_then(Value::as_array).into_iter().flatten() {
                say(&if self.as_json {
                    json!({ "did": did }).to_string()
                } else {
                    did.as_str().unwrap_or_default().to_owned()
                });
            }
            match page.get("cursor").and_then(Value::as_str) {
                Some(next) if !next.is_empty() && next != cursor => next.clone_into(&mut cursor),
                _ => return Ok(()),
            }
        }
    }
}

impl LimitFlags {
    /// As the admin API names them; those not given are left out.
    fn to_json(self) -> Map<String, Value> {
        let named = [
            ("repo_limit", self.accounts),
            ("per_second", self.per_second),
            ("per_hour", self.per_hour),
            ("per_day", self.per_day),
        ];
        let given = named.into_iter().filter_map(|(name, limit)| Some((name, limit?)));
        given.map(|(name, limit)| (name.to_owned(), json!(limit))).collect()
    }
}

/// `NAME=VALUE …` as an object; numbers and truth values as such.
fn settings(pairs: &[String]) -> Result<Value, Fatal> {
    let mut body = Map::new();
    for pair in pairs {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Fatal::new(Code::Usage, format!("{pair:?} is not of the form NAME=VALUE")));
        };
        let value = match value {
            "true" | "false" => json!(value == "true"),
            text => text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number)),
        };
        body.insert(name.to_owned(), value);
    }
    if body.is_empty() {
        return Err(Fatal::new(Code::Usage, "no setting is given")
            .remedy("relayered admin settings show has their names"));
    }
    Ok(Value::Object(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_pairs() {
        let pairs = ["a=true", "b=7", "c=lenient", "d="].map(str::to_owned);
        let body = settings(&pairs).unwrap();
        assert_eq!(body, json!({ "a": true, "b": 7, "c": "lenient", "d": "" }));
        assert!(settings(&["x".to_owned()]).is_err());
        assert!(settings(&[]).is_err());
    }

    #[test]
    fn only_limits_that_are_given_are_sent() {
        let limits = LimitFlags { per_hour: Some(0), accounts: Some(5), ..LimitFlags::default() };
        assert_eq!(Value::Object(limits.to_json()), json!({ "per_hour": 0, "repo_limit": 5 }));
    }
}
