//! What the documentation of older relays tells operators to type: its calls by `curl`, its scripts,
//! and the lists of hosts that they take.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    path::Path,
    process::{Command, Output},
};

use harness::{ADMIN_KEY, Consumer, FakePds, FakePlc, Relay, corpus::Corpus, skipped};
use serde_json::{Value, json};

fn has_curl(test: &str) -> bool {
    let there = Command::new("curl").arg("--version").output().is_ok();
    if !there {
        skipped(test, "apt-get install curl");
    }
    there
}

/// Status and body of a call as the documentation writes it.
fn curl(relay: &Relay, path: &str, args: &[&str]) -> (u16, String) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--write-out", "\n%{http_code}"])
        .args(["-H", &format!("Authorization: Bearer {ADMIN_KEY}")])
        .args(args)
        .arg(format!("http://{}{path}", relay.api))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

fn get(relay: &Relay, path: &str) -> Value {
    let (status, body) = curl(relay, path, &[]);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// A POST without a body, with a JSON body, or with a form's content type and no body.
fn post(relay: &Relay, path: &str, body: Option<&Value>) {
    let text = body.map(Value::to_string);
    let args: Vec<&str> = match &text {
        Some(text) => vec!["-H", "Content-Type: application/json", "--data", text],
        None => vec!["-X", "POST"],
    };
    let (status, body) = curl(relay, path, &args);
    assert_eq!((status, body.as_str()), (200, r#"{"success":"true"}"#), "{path}");
}

#[test]
fn the_admin_calls_of_the_documentation_work_as_written() {
    if !has_curl("the_admin_calls_of_the_documentation_work_as_written") {
        return;
    }
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &["--trusted-domains", "*"]);
    let host = hosts[0].hostname();
    post(&relay, "/admin/pds/requestCrawl", Some(&json!({ "hostname": host })));
    hosts[0].wait_for_connection(1);
    hosts[0].push_all(corpus.hosts[0].iter().cloned());
    let frames = Consumer::connect(relay.api, Some(0)).wait_for(corpus.hosts[0].len());
    let did = harness::consumer::event(&frames[0]).did.to_owned();

    subscriptions(&relay, &host);
    accounts(&relay, &did);
    records(&relay, &host);
    mirror(&relay);
}

fn subscriptions(relay: &Relay, host: &str) {
    assert_eq!(get(relay, "/admin/subs/getUpstreamConns"), json!([host]));
    assert_eq!(get(relay, "/admin/subs/perDayLimit"), json!({ "limit": 50 }));
    post(relay, "/admin/subs/setPerDayLimit?limit=7", None);
    assert_eq!(get(relay, "/admin/subs/perDayLimit"), json!({ "limit": 7 }));
    assert_eq!(get(relay, "/admin/subs/getEnabled"), json!({ "enabled": true }));
    post(relay, "/admin/subs/setEnabled?enabled=false", None);
    assert_eq!(get(relay, "/admin/subs/getEnabled"), json!({ "enabled": false }));

    post(relay, "/admin/subs/banDomain", Some(&json!({ "Domain": "evil.example" })));
    let bans = get(relay, "/admin/subs/listDomainBans");
    assert_eq!(bans, json!({ "banned_domains": ["evil.example"] }));
    post(relay, "/admin/subs/unbanDomain", Some(&json!({ "Domain": "evil.example" })));
    assert_eq!(get(relay, "/admin/subs/listDomainBans"), json!({ "banned_domains": [] }));

    post(relay, &format!("/admin/subs/killUpstream?host={host}&block=true"), None);
    assert_eq!(get(relay, "/admin/subs/getUpstreamConns"), json!([]));
    post(relay, &format!("/admin/pds/unblock?host={host}"), None);
    post(relay, &format!("/admin/pds/block?host={host}"), None);
    post(relay, &format!("/admin/pds/unblock?host={host}"), None);
    let (status, _) =
        curl(relay, "/admin/pds/addTrustedDomain?domain=good.example", &["-X", "POST"]);
    assert_eq!(status, 200);
}

fn accounts(relay: &Relay, did: &str) {
    post(relay, "/admin/repo/takeDown", Some(&json!({ "did": did })));
    assert_eq!(get(relay, "/admin/repo/takedowns"), json!({ "dids": [did] }));
    post(relay, &format!("/admin/repo/reverseTakedown?did={did}"), None);
    assert_eq!(get(relay, "/admin/repo/takedowns"), json!({ "dids": [] }));
}

fn records(relay: &Relay, host: &str) {
    let limits = json!({
        "host": host, "per_second": 10, "per_hour": 1000, "per_day": 10_000, "crawl_rate": 5,
        "repo_limit": 500
    });
    post(relay, "/admin/pds/changeLimits", Some(&limits));
    let list = get(relay, "/admin/pds/list");
    let record = &list.as_array().unwrap()[0];
    for (field, is_right) in [
        ("Host", Value::is_string as fn(&Value) -> bool),
        ("Did", Value::is_string),
        ("SSL", Value::is_boolean),
        ("Cursor", Value::is_i64),
        ("Registered", Value::is_boolean),
        ("Blocked", Value::is_boolean),
        ("RateLimit", Value::is_number),
        ("CrawlRateLimit", Value::is_number),
        ("RepoCount", Value::is_u64),
        ("RepoLimit", Value::is_u64),
        ("HourlyEventLimit", Value::is_i64),
        ("DailyEventLimit", Value::is_i64),
        ("HasActiveConnection", Value::is_boolean),
        ("EventsSeenSinceStartup", Value::is_u64),
        ("UserCount", Value::is_u64),
    ] {
        assert!(is_right(&record[field]), "{field} of {record}");
    }
    let rates = ["PerSecondEventRate", "PerHourEventRate", "PerDayEventRate", "CrawlRate"];
    for rate in rates.map(|name| &record[name]) {
        assert!(rate["Max"].is_number() && rate["Window"].is_number(), "{record}");
    }
    assert_eq!(record["RepoLimit"], 500);
    assert_eq!(record["PerSecondEventRate"]["Max"], 10);
    assert_eq!(record["HourlyEventLimit"], 1000);

    let _consumer = Consumer::connect(relay.api, None);
    let rows = harness::eventually("the consumer to be listed", || {
        let rows = get(relay, "/admin/consumers/list");
        (!rows.as_array().unwrap().is_empty()).then_some(rows)
    });
    assert!(rows[0]["id"].is_u64() && rows[0]["events_consumed"].is_u64(), "{rows}");
    assert!(rows[0]["remote_addr"].is_string() && rows[0]["connected_at"].is_string(), "{rows}");
}

/// The relay keeps no repositories: what works on them says so.
fn mirror(relay: &Relay) {
    let form = ["-H", "Content-Type: application/x-www-form-urlencoded", "--data", ""];
    let (status, body) = curl(relay, "/admin/repo/compactAll", &form);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, body["error"].as_str()), (400, Some("MirrorDisabled")));
}

fn script(relay: &Relay, name: &str, host: &str, key: &str) -> Output {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/scripts").join(name);
    Command::new(path)
        .arg(host)
        .env("RELAY_HOST", format!("http://{}", relay.api))
        .env("RELAY_ADMIN_KEY", key)
        .output()
        .unwrap()
}

#[test]
fn the_scripts_take_a_host_each() {
    if !has_curl("the_scripts_take_a_host_each") {
        return;
    }
    let relay = Relay::start(&FakePlc::start(), &[]);
    let hosts = [FakePds::start(), FakePds::start()];
    for host in &hosts {
        let output = script(&relay, "crawl_pds.sh", &host.hostname(), ADMIN_KEY);
        assert!(output.status.success(), "{output:?}");
        host.wait_for_connection(1);
    }
    let list = relay.admin("GET", "/admin/pds/list", "").json();
    for record in list.as_array().unwrap() {
        assert_eq!(record["PerSecondEventRate"]["Max"], 100);
        assert_eq!(record["PerHourEventRate"]["Max"], 1_000_000);
        assert_eq!(record["RepoLimit"], 1_000_000);
    }
    let output = script(&relay, "sync_pds.sh", &hosts[0].hostname(), ADMIN_KEY);
    let (said, noted) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && noted.contains("nothing to sync"), "{output:?}");
    assert!(said.contains(&hosts[0].hostname()), "{said}");

    for (name, host, key) in [
        ("crawl_pds.sh", "-x.example.com", ADMIN_KEY),
        ("crawl_pds.sh", "quote\"d", ADMIN_KEY),
        ("crawl_pds.sh", "pds.example.com", "wrong \"key\\"),
        ("sync_pds.sh", "unknown.example.com", ADMIN_KEY),
        ("sync_pds.sh", "pds.example.com", "wrong"),
    ] {
        let output = script(&relay, name, host, key);
        assert!(!output.status.success(), "{name} {host}: {output:?}");
    }
}
