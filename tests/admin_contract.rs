//! The admin API's contract, endpoint by endpoint: what each takes, what it answers, what it changes.
//! Nothing that the OpenAPI document names may be left out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
};

use harness::{
    ADMIN_KEY, Consumer, FakePds, FakePlc, Relay, author::Author, eventually, http, json as wire,
};
use serde_json::{Value, json};

const STRANGER: &str = "did:plc:zzzzzzzzzzzzzzzzzzzzzzzz";
const CID: &str = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a";

/// A relay with a host, two accounts and a consumer, and what was asked of it.
struct Scene {
    relay: Relay,
    pds: FakePds,
    authors: [Author; 2],
    seq: u64,
    consumer: Consumer,
    covered: RefCell<BTreeSet<(String, String)>>,
    /// Where nothing listens.
    gone: String,
    _plc: FakePlc,
}

impl Scene {
    fn new() -> Self {
        let (plc, pds) = (FakePlc::start(), FakePds::start());
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let gone = format!("http://localhost:{}", gone.port());
        let arguments = ["--sibling-relays", &gone, "--discover-from", &gone];
        let relay =
            Relay::start(&plc, &[&arguments[..], &["--trusted-domains", "*.test"]].concat());
        relay.add_host(&pds);
        let mut authors = [Author::new(1), Author::new(2)];
        let consumer = Consumer::connect(relay.api, Some(0));
        for (author, seq) in authors.iter_mut().zip(1..) {
            author.register(&plc, &pds);
            let mut post = author.post();
            post["seq"] = seq.into();
            pds.push(seq, wire::event("commit", &post));
        }
        consumer.wait_for(2);
        let covered = RefCell::default();
        Self { relay, pds, authors, seq: 2, consumer, covered, gone, _plc: plc }
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> http::Response {
        let path = target.split('?').next().unwrap().to_owned();
        self.covered.borrow_mut().insert((method.to_lowercase(), path));
        self.relay.admin(method, target, body)
    }

    fn get(&self, target: &str) -> Value {
        let reply = self.ask("GET", target, "");
        assert_eq!(reply.status, 200, "{target}: {reply:?}");
        reply.json()
    }

    /// A change that has nothing to tell.
    fn post(&self, target: &str, body: &Value) {
        let reply = self.ask("POST", target, &text(body));
        assert_eq!((reply.status, &*reply.body), (200, r#"{"success":"true"}"#), "{target}");
        assert!(reply.headers["content-type"].starts_with("application/json"), "{reply:?}");
    }

    fn refused(&self, method: &str, target: &str, body: &Value, status: u16, name: &str) {
        let reply = self.ask(method, target, &text(body));
        let error = reply.json();
        assert_eq!(
            (reply.status, error["error"].as_str()),
            (status, Some(name)),
            "{target} {body}"
        );
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    }

    fn host(&self) -> String {
        self.pds.hostname()
    }

    fn record(&self) -> Value {
        let list = self.get("/admin/pds/list");
        list.as_array().unwrap().iter().find(|row| row["Host"] == *self.host()).unwrap().clone()
    }

    fn wait_for_record(&self, field: &str, value: &Value) -> Value {
        eventually(field, || Some(self.record()).filter(|record| record[field] == *value))
    }
}

fn text(body: &Value) -> String {
    if body.is_null() { String::new() } else { body.to_string() }
}

/// Each field is there, and of its type: `s`tring, `b`oolean, `n`umber, `?` for a string or nothing,
/// `a`rray.
fn has_fields(record: &Value, fields: &[(char, &str)]) {
    for (kind, names) in fields {
        for name in names.split(' ') {
            let value = &record[name];
            let right = match kind {
                's' => value.is_string(),
                'b' => value.is_boolean(),
                'n' => value.is_i64() || value.is_u64(),
                'a' => value.is_array(),
                '?' => value.is_string() || value.is_null(),
                other => panic!("no kind {other}"),
            };
            assert!(right, "{name} is not {kind:?}: {record}");
        }
    }
}

fn is_time(value: &Value) -> bool {
    // 2026-01-31T23:59:59Z
    value
        .as_str()
        .is_some_and(|text| text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z'))
}

#[test]
fn every_endpoint_does_what_its_contract_says() {
    let mut scene = Scene::new();
    hosts(&scene);
    connections(&scene);
    limits(&scene);
    domains(&scene);
    accounts(&mut scene);
    consumers(&scene);
    settings(&scene);
    siblings_and_discovery(&scene);
    status(&scene);
    mirror(&scene);
    audit(&scene);
    public(&scene);
    let document = scene.relay.get("/openapi.json").json();
    let covered = scene.covered.borrow();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            assert!(
                covered.contains(&(method.clone(), path.clone())),
                "{method} {path} is not tried"
            );
        }
    }
}

fn hosts(scene: &Scene) {
    let record = scene.wait_for_record("Cursor", &json!(2));
    has_fields(
        &record,
        &[
            ('n', "ID Cursor RateLimit CrawlRateLimit RepoCount RepoLimit HourlyEventLimit"),
            ('n', "DailyEventLimit EventsSeenSinceStartup UserCount"),
            ('s', "CreatedAt Host Did AccountLimitAlertState Status StatusSince Strictness"),
            ('b', "SSL Registered Blocked HasActiveConnection AccountLimitAlertsSilenced Trusted"),
            ('?', "AccountLimitAlertSentAt StatusReason LastError LastErrorAt"),
        ],
    );
    for rate in ["PerSecondEventRate", "PerHourEventRate", "PerDayEventRate", "CrawlRate"] {
        has_fields(&record[rate], &[('n', "Max Window")]);
    }
    assert!(is_time(&record["CreatedAt"]) && is_time(&record["StatusSince"]), "{record}");
    assert_eq!(record["RepoCount"], 2);
    assert_eq!(record["EventsSeenSinceStartup"], 2);
    assert_eq!((&record["Status"], &record["Registered"]), (&json!("active"), &json!(true)));

    let list =
        |query: &str| scene.get(&format!("/admin/pds/list?{query}")).as_array().unwrap().len();
    assert_eq!((list("limit=1"), list("cursor=&q=LOCALHOST"), list("status=active")), (1, 1, 1));
    assert_eq!((list("cursor=1"), list("q=nowhere"), list("status=banned")), (0, 0, 0));
    for wrong in ["limit=0", "limit=x", "cursor=x", "status=bad"] {
        let target = format!("/admin/pds/list?{wrong}");
        scene.refused("GET", &target, &Value::Null, 400, "InvalidRequest");
    }
    // In whatever spelling.
    let detail = scene.get(&format!("/admin/pds/get?host=HTTP%3A%2F%2F{}%2F", scene.host()));
    assert_eq!((&detail["Host"], &detail["Refusals"]), (&json!(scene.host()), &json!([])));
    let unknown = "/admin/pds/get?host=pds.example.com";
    scene.refused("GET", unknown, &Value::Null, 404, "HostNotFound");
}

fn connections(scene: &Scene) {
    let host = scene.host();
    assert_eq!(scene.get("/admin/subs/getUpstreamConns"), json!([host]));
    // Connected already: that is fine, and limits are taken all the same.
    scene.post("/admin/pds/requestCrawl", &json!({ "hostname": host, "repo_limit": 77 }));
    assert_eq!(scene.record()["RepoLimit"], 77);
    for (body, name) in [
        (json!({}), "InvalidRequest"),
        (json!({ "hostname": "8.8.8.8" }), "InvalidRequest"),
        (json!({ "hostname": scene.gone }), "HostNotFound"),
    ] {
        scene.refused("POST", "/admin/pds/requestCrawl", &body, 400, name);
    }

    let kill = format!("/admin/subs/killUpstream?host={host}");
    scene.post(&kill, &Value::Null);
    scene.pds.wait_for_hang_up();
    eventually("no connection", || {
        (scene.get("/admin/subs/getUpstreamConns") == json!([])).then_some(())
    });
    scene.refused("POST", &kill, &Value::Null, 400, "HostNotConnected");
    let unknown = json!({ "host": "pds.example.com" });
    scene.refused("POST", "/admin/subs/killUpstream", &unknown, 400, "HostNotConnected");
    scene.refused("POST", "/admin/subs/killUpstream", &json!({}), 400, "InvalidRequest");

    scene.post(&format!("/admin/pds/block?host={host}"), &Value::Null);
    assert_eq!(scene.record()["Status"], "banned");
    let crawl = json!({ "hostname": host });
    scene.refused("POST", "/admin/pds/requestCrawl", &crawl, 403, "HostBanned");
    let before = scene.pds.cursors().len();
    scene.post("/admin/pds/unblock", &json!({ "HOST": host }));
    scene.pds.wait_for_connection(before + 1);
    scene.wait_for_record("HasActiveConnection", &json!(true));
    // A cut that stays.
    scene.post("/admin/subs/killUpstream", &json!({ "host": host, "block": true }));
    assert_eq!(scene.record()["Blocked"], true);
    scene.post(&format!("/admin/pds/unblock?host={host}"), &Value::Null);
    scene.pds.wait_for_connection(before + 2);
    scene.wait_for_record("HasActiveConnection", &json!(true));
    for action in ["block", "unblock"] {
        let target = format!("/admin/pds/{action}?host=pds.example.com");
        scene.refused("POST", &target, &Value::Null, 404, "HostNotFound");
    }

    scene.post("/admin/pds/resetCursor", &json!({ "host": host, "cursor": 1 }));
    scene.pds.wait_for_connection(before + 3);
    assert_eq!(scene.pds.cursors().last(), Some(&Some(1)));
    scene.wait_for_record("HasActiveConnection", &json!(true));
    for (body, status, name) in [
        (json!({ "host": host, "cursor": 1_u64 << 60 }), 400, "InvalidRequest"),
        (json!({ "host": host, "cursor": -1 }), 400, "InvalidRequest"),
        (json!({ "host": "pds.example.com" }), 404, "HostNotFound"),
    ] {
        scene.refused("POST", "/admin/pds/resetCursor", &body, status, name);
    }
}

fn limits(scene: &Scene) {
    let target = "/admin/pds/changeLimits";
    let host = scene.host();
    scene.post(
        target,
        &json!({ "host": host, "per_second": 11, "per_hour": 222, "per_day": 3333, "crawl_rate": 5,
                 "repo_limit": 44, "account_limit_alerts_silenced": true }),
    );
    let told = |record: &Value| {
        json!([
            record["RateLimit"],
            record["PerSecondEventRate"],
            record["HourlyEventLimit"],
            record["PerHourEventRate"],
            record["DailyEventLimit"],
            record["PerDayEventRate"],
            record["RepoLimit"],
            record["AccountLimitAlertsSilenced"],
        ])
    };
    let mut expected = json!([
        11, { "Max": 11, "Window": 1 }, 222, { "Max": 222, "Window": 3600 }, 3333,
        { "Max": 3333, "Window": 86_400 }, 44, true
    ]);
    assert_eq!(told(&scene.record()), expected);
    // Only what is given changes.
    scene.post(target, &json!({ "host": host, "repo_limit": 45 }));
    expected[6] = 45.into();
    assert_eq!(told(&scene.record()), expected);
    scene.refused("POST", target, &json!({ "host": host }), 400, "InvalidRequest");
    scene.refused("POST", target, &json!({ "repo_limit": 1 }), 400, "InvalidRequest");
    let wrong = json!({ "host": host, "per_day": "many" });
    scene.refused("POST", target, &wrong, 400, "InvalidRequest");
    let unknown = json!({ "host": "pds.example.com", "repo_limit": 5 });
    scene.refused("POST", target, &unknown, 404, "HostNotFound");
    scene.post(target, &json!({ "host": host, "default_rates": true, "repo_limit": 1000 }));

    let target = "/admin/pds/setStrictness";
    for word in ["lenient", "strict", "default"] {
        scene.post(target, &json!({ "host": host, "strictness": word }));
        assert_eq!(scene.record()["Strictness"], word);
    }
    let wrong = json!({ "host": host, "strictness": "loose" });
    scene.refused("POST", target, &wrong, 400, "InvalidRequest");
    let unknown = json!({ "host": "pds.example.com", "strictness": "strict" });
    scene.refused("POST", target, &unknown, 404, "HostNotFound");
}

fn domains(scene: &Scene) {
    let bans = || scene.get("/admin/subs/listDomainBans");
    assert_eq!(bans(), json!({ "banned_domains": [] }));
    // The reference's tools write the name in upper case.
    scene.post("/admin/subs/banDomain", &json!({ "Domain": "Evil.example.com" }));
    let again = json!({ "domain": "evil.example.com" });
    scene.refused("POST", "/admin/subs/banDomain", &again, 400, "DomainBanned");
    assert_eq!(bans(), json!({ "banned_domains": ["evil.example.com"] }));
    let below = json!({ "hostname": "pds.evil.example.com" });
    scene.refused("POST", "/admin/pds/requestCrawl", &below, 403, "HostBanned");
    scene.post("/admin/subs/unbanDomain", &json!({ "domain": "evil.example.com" }));
    assert_eq!(bans(), json!({ "banned_domains": [] }));
    for target in ["/admin/subs/banDomain", "/admin/subs/unbanDomain"] {
        scene.refused("POST", target, &json!({ "domain": "a b" }), 400, "InvalidRequest");
    }
    // A ban cuts live connections.
    scene.post("/admin/subs/banDomain", &json!({ "domain": scene.host() }));
    scene.pds.wait_for_hang_up();
    let before = scene.pds.cursors().len();
    scene.post("/admin/subs/unbanDomain", &json!({ "domain": scene.host() }));
    scene.post("/admin/pds/requestCrawl", &json!({ "hostname": scene.host() }));
    scene.pds.wait_for_connection(before + 1);

    let trusted = || scene.get("/admin/pds/listTrustedDomains")["trusted_domains"].clone();
    assert_eq!(trusted(), json!(["*.test"]));
    for (action, expected) in
        [("add", json!(["*.test", "good.example"])), ("remove", json!(["*.test"]))]
    {
        let target = format!("/admin/pds/{action}TrustedDomain?domain=Good.example");
        let reply = scene.ask("POST", &target, "");
        assert_eq!((reply.status, &*reply.body), (200, r#"{"success":true}"#));
        assert_eq!(trusted(), expected);
    }
    let target = "/admin/pds/addTrustedDomain?domain=*.test";
    scene.refused("POST", target, &Value::Null, 400, "DomainTrusted");
    let target = "/admin/pds/removeTrustedDomain?domain=good.example";
    scene.refused("POST", target, &Value::Null, 404, "DomainNotTrusted");
}

fn accounts(scene: &mut Scene) {
    let did = scene.authors[0].did.clone();
    let account = eventually("the commit in the database", || {
        let account = scene.get(&format!("/admin/repo/get?did={did}"));
        account["rev"].is_string().then_some(account)
    });
    has_fields(
        &account,
        &[
            ('s', "did host local_status rev commit"),
            ('b', "active upstream_active"),
            ('?', "status upstream_status"),
            ('n', "id"),
            ('a', "refusals"),
        ],
    );
    assert_eq!(
        (&account["active"], &account["rev"]),
        (&json!(true), &json!(scene.authors[0].rev()))
    );
    let unknown = format!("/admin/repo/get?did={STRANGER}");
    scene.refused("GET", &unknown, &Value::Null, 404, "RepoNotFound");
    scene.refused("GET", "/admin/repo/get?did=x", &Value::Null, 400, "InvalidRequest");

    let takedowns = |query: &str| scene.get(&format!("/admin/repo/takedowns?{query}"));
    assert_eq!(takedowns(""), json!({ "dids": [] }));
    let stranger = json!({ "did": STRANGER });
    scene.refused("POST", "/admin/repo/takeDown", &stranger, 404, "RepoNotFound");
    scene.refused("POST", "/admin/repo/reverseTakedown", &stranger, 404, "RepoNotFound");
    scene.refused("POST", "/admin/repo/takeDown", &json!({ "did": "x" }), 400, "InvalidRequest");
    scene.refused("POST", "/admin/repo/reverseTakedown", &json!({}), 400, "InvalidRequest");
    scene.post("/admin/repo/takeDown", &json!({ "did": did }));
    scene.post("/admin/repo/takeDown", &json!({ "did": STRANGER, "force": true }));
    assert_eq!(takedowns("cursor="), json!({ "dids": [did, STRANGER] }));
    let first = takedowns("size=1");
    assert_eq!(first["dids"], json!([did]));
    let rest = takedowns(&format!("size=1&cursor={}", first["cursor"].as_str().unwrap()));
    assert_eq!(rest, json!({ "dids": [STRANGER] }));
    for wrong in ["size=0", "size=1001", "cursor=1"] {
        let target = format!("/admin/repo/takedowns?{wrong}");
        scene.refused("GET", &target, &Value::Null, 400, "InvalidRequest");
    }
    let account = scene.get(&format!("/admin/repo/get?did={did}"));
    let told = json!([account["active"], account["status"], account["local_status"]]);
    assert_eq!(told, json!([false, "takendown", "takendown"]));
    for did in [did.as_str(), STRANGER] {
        scene.post(&format!("/admin/repo/reverseTakedown?did={did}"), &Value::Null);
    }
    assert_eq!(takedowns(""), json!({ "dids": [] }));
    // An `#account` of each for each way.
    scene.consumer.wait_for(6);
    scene.seq += 1;
    let mut post = scene.authors[1].post();
    post["seq"] = scene.seq.into();
    scene.pds.push(scene.seq, wire::event("commit", &post));
    scene.consumer.wait_for(7);
}

fn consumers(scene: &Scene) {
    let row = eventually("what the consumer got", || {
        let rows = scene.get("/admin/consumers/list");
        (rows[0]["lag"] == 0 && rows[0]["events_consumed"] == 7).then(|| rows[0].clone())
    });
    has_fields(
        &row,
        &[
            ('n', "id events_consumed bytes_consumed seq lag cursor shard"),
            ('s', "remote_addr user_agent connected_at"),
        ],
    );
    assert!(is_time(&row["connected_at"]), "{row}");
    assert_eq!(row["remote_addr"], "127.0.0.1");
    scene.refused("POST", "/admin/consumers/kick?id=99", &Value::Null, 404, "ConsumerNotFound");
    scene.refused("POST", "/admin/consumers/kick", &Value::Null, 400, "InvalidRequest");
    scene.post(&format!("/admin/consumers/kick?id={}", row["id"]), &Value::Null);
    scene.consumer.wait_for_end();
    eventually("no consumer", || (scene.get("/admin/consumers/list") == json!([])).then_some(()));
}

fn settings(scene: &Scene) {
    assert_eq!(scene.get("/admin/subs/perDayLimit"), json!({ "limit": 50 }));
    scene.post("/admin/subs/setPerDayLimit?limit=7", &Value::Null);
    assert_eq!(scene.get("/admin/subs/perDayLimit"), json!({ "limit": 7 }));
    assert_eq!(scene.get("/admin/subs/getEnabled"), json!({ "enabled": true }));
    scene.post("/admin/subs/setEnabled?enabled=false", &Value::Null);
    assert_eq!(scene.get("/admin/subs/getEnabled"), json!({ "enabled": false }));
    let crawl = json!({ "hostname": scene.host() });
    scene.refused("POST", "/xrpc/com.atproto.sync.requestCrawl", &crawl, 403, "Forbidden");
    for wrong in ["setPerDayLimit", "setPerDayLimit?limit=-1", "setEnabled", "setEnabled?enabled=x"]
    {
        let target = format!("/admin/subs/{wrong}");
        scene.refused("POST", &target, &Value::Null, 400, "InvalidRequest");
    }
    scene.post("/admin/settings", &json!({ "crawl_enabled": true, "new_hosts_per_day": 8 }));
    let settings = scene.get("/admin/settings");
    has_fields(
        &settings,
        &[
            ('b', "crawl_enabled"),
            ('s', "strictness"),
            ('n', "new_hosts_per_day replay_window_seconds replay_bytes max_consumers"),
            ('n', "max_consumers_per_address max_connections_per_address"),
            ('n', "discovery_interval_seconds"),
        ],
    );
    assert_eq!(scene.get("/admin/subs/perDayLimit"), json!({ "limit": 8 }));
    for wrong in [json!({}), json!({ "strictness": "x" }), json!({ "replay_window_seconds": 1 })] {
        scene.refused("POST", "/admin/settings", &wrong, 400, "InvalidRequest");
    }
}

fn siblings_and_discovery(scene: &Scene) {
    let row = scene.get("/admin/siblings/list")["siblings"][0].clone();
    has_fields(
        &row,
        &[
            ('s', "sibling"),
            ('n', "queued delivered refused dropped failures"),
            ('?', "oldest_at last_ok_at last_error last_error_at next_attempt_at"),
        ],
    );
    assert_eq!(row["sibling"], *scene.gone);
    assert!(row["queued"].as_u64().unwrap() > 0 && is_time(&row["oldest_at"]), "{row}");
    scene.post("/admin/siblings/retry", &json!({ "sibling": scene.gone }));
    scene.post("/admin/siblings/retry", &Value::Null);
    let unknown = json!({ "sibling": "https://x.example.com" });
    scene.refused("POST", "/admin/siblings/retry", &unknown, 404, "SiblingNotFound");

    scene.post("/admin/discovery/run", &Value::Null);
    let found = eventually("the failure of the relay that is not there", || {
        let found = scene.get("/admin/discovery/list");
        found["relays"][0]["last_error"].is_string().then_some(found)
    });
    has_fields(&found, &[('n', "interval_seconds")]);
    has_fields(
        &found["relays"][0],
        &[('s', "relay"), ('?', "last_at next_at last_error"), ('n', "hosts_seen hosts_added")],
    );
    assert_eq!(scene.get("/admin/discovery/refused?limit=1"), json!({ "hosts": [] }));
    let wrong = "/admin/discovery/refused?limit=0";
    scene.refused("GET", wrong, &Value::Null, 400, "InvalidRequest");
}

fn status(scene: &Scene) {
    let stats = scene.get("/admin/stats");
    has_fields(
        &stats,
        &[
            ('n', "newest_seq oldest_seq log_bytes events_received events_forwarded"),
            (
                'n',
                "events_refused bytes_received bytes_sent accounts_loaded events_parked consumers",
            ),
            ('b', "log_writable signature_alarm"),
        ],
    );
    has_fields(&stats["hosts"], &[('n', "connected active idle offline throttled banned")]);
    assert_eq!((&stats["newest_seq"], &stats["oldest_seq"]), (&json!(7), &json!(1)));
    let log = scene.get("/admin/log");
    has_fields(
        &log,
        &[
            ('n', "oldest_seq newest_seq synced_seq bytes window_seconds window_bytes free_bytes"),
            ('n', "segments segments_damaged write_errors sync_errors events_erased"),
            ('n', "erasures_pending"),
            ('b', "writable"),
            ('?', "why"),
        ],
    );
    assert_eq!(log["window_seconds"], 72 * 3600);
    let signatures = scene.get("/admin/signatures");
    has_fields(
        &signatures,
        &[
            ('s', "in_use"),
            ('n', "batches audits recomputed differences"),
            ('b', "alarm"),
            ('?', "first_difference"),
        ],
    );
    stream(scene);
    for path in ["/admin/explain", "/explain"] {
        let explained = scene.get(&format!("{path}?host={}", scene.host()));
        assert_eq!(explained["host"]["connected"], true);
        let explained = scene.get(&format!("{path}?did={}", scene.authors[0].did));
        assert_eq!(explained["account"]["known"], true);
        scene.refused("GET", path, &Value::Null, 400, "InvalidRequest");
        let unknown = format!("{path}?did={STRANGER}x");
        scene.refused("GET", &unknown, &Value::Null, 404, "RepoNotFound");
        let unknown = format!("{path}?host=pds.example.com");
        scene.refused("GET", &unknown, &Value::Null, 404, "HostNotFound");
    }
}

/// The same numbers, second by second.
fn stream(scene: &Scene) {
    let mut socket = TcpStream::connect(scene.relay.api).unwrap();
    socket.set_read_timeout(Some(harness::patience())).unwrap();
    let request = "GET /admin/stats/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer";
    write!(socket, "{request} {ADMIN_KEY}\r\n\r\n").unwrap();
    let lines = BufReader::new(socket).lines().map(Result::unwrap);
    let mut lines = lines.inspect(|line| assert!(!line.starts_with("HTTP/1.1 4"), "{line}"));
    assert!(lines.any(|line| line.eq_ignore_ascii_case("content-type: text/event-stream")));
    for _ in 0..2 {
        let event = lines.find_map(|line| Some(line.strip_prefix("data:")?.to_owned())).unwrap();
        let stats: Value = serde_json::from_str(&event).unwrap();
        assert_eq!(stats["newest_seq"], 7, "{stats}");
    }
    let stranger = http::request(scene.relay.api, "GET", "/admin/stats/stream", &[], "").unwrap();
    assert_eq!(stranger.status, 401);
}

fn mirror(scene: &Scene) {
    for (method, path) in [
        ("POST", "/admin/repo/compactAll?fast=true"),
        ("POST", "/admin/repo/compact"),
        ("POST", "/admin/repo/reset"),
        ("POST", "/admin/repo/verify"),
        ("GET", "/admin/pds/resync?host=pds.example.com"),
        ("POST", "/admin/pds/resync?host=pds.example.com"),
    ] {
        scene.refused(method, path, &Value::Null, 400, "MirrorDisabled");
    }
    scene.refused("GET", "/admin/nothing", &Value::Null, 404, "NotFound");
    let reply = scene.relay.admin("POST", "/admin/pds/list", "");
    assert_eq!((reply.status, &*reply.headers["allow"]), (405, "GET,HEAD"));
}

/// Every change of the functions above stands in the audit log, and nothing else does.
fn audit(scene: &Scene) {
    let mut entries = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = scene.get(&format!("/admin/audit?limit=7&cursor={cursor}"));
        entries.extend(page["entries"].as_array().unwrap().clone());
        let Some(next) = page.get("cursor") else { break };
        next.as_str().unwrap().clone_into(&mut cursor);
    }
    for entry in &entries {
        has_fields(entry, &[('n', "id"), ('s', "at actor remote action subject detail outcome")]);
        assert!(is_time(&entry["at"]), "{entry}");
        assert_eq!((&entry["actor"], &entry["remote"]), (&json!("key 1"), &json!("127.0.0.1")));
    }
    let ids: Vec<_> = entries.iter().map(|entry| entry["id"].as_u64().unwrap()).collect();
    assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");
    let noted: BTreeSet<_> =
        entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    let covered = scene.covered.borrow();
    let posts = covered.iter().filter(|(method, _)| method == "post");
    let changes: BTreeSet<_> = posts.filter_map(|(_, path)| path.strip_prefix("/admin/")).collect();
    assert_eq!(noted, changes);
    let has = |action: &str, subject: &str, outcome: &str| {
        entries.iter().any(|entry| {
            entry["action"] == action && entry["subject"] == subject && entry["outcome"] == outcome
        })
    };
    assert!(has("repo/takeDown", &scene.authors[0].did, "ok"));
    assert!(has("repo/takeDown", STRANGER, "RepoNotFound"));
    assert!(has("subs/banDomain", "Evil.example.com", "ok"));
    assert!(has("pds/unblock", &scene.host(), "ok"));
    assert!(has("repo/reset", "", "MirrorDisabled"));
    drop(covered);
    scene.refused("GET", "/admin/audit?limit=0", &Value::Null, 400, "InvalidRequest");
}

/// Methods that need no key, so that all of the document is tried; what they answer in particular is
/// held to the lexicons elsewhere.
fn public(scene: &Scene) {
    let did = format!("did={}", scene.authors[1].did);
    let record = format!("{did}&collection=app.bsky.feed.post&rkey=self");
    for (path, query, status) in [
        ("/_health", String::new(), 200),
        ("/xrpc/com.atproto.server.describeServer", String::new(), 200),
        ("/xrpc/com.atproto.sync.listHosts", String::new(), 200),
        ("/xrpc/com.atproto.sync.getHostStatus", format!("hostname={}", scene.host()), 200),
        ("/xrpc/com.atproto.sync.listRepos", String::new(), 200),
        (
            "/xrpc/com.atproto.sync.listReposByCollection",
            "collection=app.bsky.feed.post".into(),
            200,
        ),
        ("/xrpc/com.atproto.sync.getRepoStatus", did.clone(), 200),
        ("/xrpc/com.atproto.sync.getLatestCommit", did.clone(), 200),
        ("/xrpc/com.atproto.sync.getHead", did.clone(), 200),
        ("/xrpc/com.atproto.sync.getRepo", did.clone(), 302),
        ("/xrpc/com.atproto.sync.getCheckout", did.clone(), 302),
        ("/xrpc/com.atproto.sync.getRecord", record, 302),
        ("/xrpc/com.atproto.sync.getBlocks", format!("{did}&cids={CID}"), 302),
        ("/xrpc/com.atproto.sync.getBlob", format!("{did}&cid={CID}"), 302),
        ("/xrpc/com.atproto.sync.listBlobs", did.clone(), 302),
    ] {
        let reply = scene.ask("GET", &format!("{path}?{query}"), "");
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }
    for method in ["requestCrawl", "notifyOfUpdate"] {
        let target = format!("/xrpc/com.atproto.sync.{method}");
        let reply = scene.ask("POST", &target, &json!({ "hostname": scene.host() }).to_string());
        assert_eq!((reply.status, &*reply.body), (200, "{}"), "{method}");
    }
}
