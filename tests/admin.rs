//! The admin API from outside: keys, requests to crawl, and what is told of hosts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use data_encoding::BASE64;
use harness::{ADMIN_KEY, Consumer, FakePds, FakePlc, Relay, corpus::Corpus, http};
use serde_json::json;

#[test]
fn only_the_key_opens_the_admin_api() {
    let relay = Relay::start(&FakePlc::start(), &[]);
    let ask = |headers: &[(&str, &str)]| {
        http::request(relay.api, "GET", "/admin/pds/list", headers, "").unwrap()
    };
    let basic = |text: &str| format!("Basic {}", BASE64.encode(text.as_bytes()));
    for good in [format!("Bearer {ADMIN_KEY}"), basic(&format!("admin:{ADMIN_KEY}"))] {
        assert_eq!(ask(&[("Authorization", &good)]).status, 200, "{good}");
    }
    for bad in [
        "Bearer wrong".to_owned(),
        format!("Bearer {ADMIN_KEY}x"),
        "Bearer ".to_owned(),
        basic("admin:wrong"),
        basic(&format!("root:{ADMIN_KEY}")),
        "Basic %%%".to_owned(),
    ] {
        let reply = ask(&[("Authorization", &bad)]);
        assert_eq!(reply.status, 401, "{bad}");
        assert!(reply.headers["www-authenticate"].starts_with("Basic"), "{reply:?}");
        assert!(reply.json()["error"].is_string());
    }
    assert_eq!(ask(&[]).status, 401);
}

#[test]
fn a_host_in_the_list_shows_what_it_sent() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    relay.add_host(&hosts[0]);
    hosts[0].push_all(corpus.hosts[0].iter().cloned());
    Consumer::connect(relay.api, Some(0)).wait_for(corpus.hosts[0].len());
    let last = corpus.hosts[0].last().unwrap().0;
    let row = harness::eventually("the host's cursor to be told", || {
        let list = relay.admin("GET", "/admin/pds/list", "").json();
        let row = list.as_array().unwrap().first()?.clone();
        (row["Cursor"] == last).then_some(row)
    });
    assert_eq!(row["Host"], hosts[0].hostname());
    assert_eq!(row["SSL"], false);
    assert_eq!(row["HasActiveConnection"], true);
    assert_eq!(row["Blocked"], false);
    assert_eq!(row["EventsSeenSinceStartup"], corpus.hosts[0].len());

    let status = format!(
        "/xrpc/com.atproto.sync.getHostStatus?hostname={}",
        hosts[0].hostname().replace(':', "%3A")
    );
    assert_eq!(relay.get(&status).json()["status"], "active");
    let connected = relay.admin("GET", "/admin/subs/getUpstreamConns", "").json();
    assert_eq!(connected, json!([hosts[0].hostname()]));
}

#[test]
fn who_verifies_signatures_is_told() {
    let plc = FakePlc::start();
    let relay = Relay::start(&plc, &["--signatures", "library"]);
    let told = relay.admin("GET", "/admin/signatures", "").json();
    assert_eq!(told["in_use"], "library (as chosen)");
    assert_eq!((&told["batches"], &told["differences"]), (&json!(0), &json!(0)));
    assert_eq!((&told["alarm"], &told["first_difference"]), (&json!(false), &json!(null)));
    assert_eq!(relay.admin("GET", "/admin/stats", "").json()["signature_alarm"], false);
}

#[test]
fn requests_to_crawl_what_is_no_host_are_refused() {
    let relay = Relay::start(&FakePlc::start(), &[]);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = format!("localhost:{}", gone.port());
    for hostname in ["", "not a name", "-x.example.com", "http://", unreachable.as_str()] {
        let reply = relay.request_crawl(hostname);
        assert_eq!(reply.status, 400, "{hostname}: {reply:?}");
        assert!(reply.json()["error"].is_string() && reply.json()["message"].is_string());
    }
    assert_eq!(relay.admin("GET", "/admin/pds/list", "").json(), json!([]));
}

#[test]
fn a_blocked_host_is_cut_off_and_comes_back_when_unblocked() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let mut relay = Relay::start(&plc, &[]);
    relay.add_host(&pds);
    let target = |action: &str| format!("/admin/pds/{action}?host={}", pds.hostname());
    assert_eq!(relay.admin("POST", &target("block"), "").json(), json!({ "success": "true" }));
    pds.wait_for_hang_up();
    let refused = relay.request_crawl(&pds.hostname());
    assert_eq!((refused.status, refused.json()["error"].as_str()), (403, Some("HostBanned")));

    // A restart does not forget it.
    assert!(relay.terminate().success());
    relay.launch();
    let list = relay.admin("GET", "/admin/pds/list", "").json();
    assert_eq!(list[0]["Blocked"], true);
    assert_eq!(pds.cursors().len(), 1);
    assert_eq!(relay.admin("POST", &target("unblock"), "").status, 200);
    pds.wait_for_connection(2);
}

#[test]
fn public_requests_to_crawl_can_be_switched_off() {
    let pds = FakePds::start();
    let relay = Relay::start(&FakePlc::start(), &["--disable-request-crawl"]);
    let body = json!({ "hostname": pds.hostname() }).to_string();
    let headers = [("Content-Type", "application/json")];
    let target = "/xrpc/com.atproto.sync.requestCrawl";
    let reply = http::request(relay.api, "POST", target, &headers, &body).unwrap();
    assert_eq!(reply.status, 403, "{reply:?}");
    relay.add_host(&pds);
}

#[test]
fn the_dashboard_is_part_of_the_binary() {
    let plc = FakePlc::start();
    let relay = Relay::start(&plc, &[]);
    let page = relay.get("/dash/");
    assert_eq!(page.status, 200);
    assert!(page.headers["content-type"].starts_with("text/html"), "{page:?}");
    for file in ["/dash/dash.js", "/dash/dash.css"] {
        assert!(page.body.contains(file));
        assert_eq!(relay.get(file).status, 200, "{file}");
    }
}

#[test]
fn several_keys_hold_at_once_and_the_audit_log_tells_which() {
    let plc = FakePlc::start();
    let mut relay = Relay::start(&plc, &["--admin-key", "second", "--admin-key", "third"]);
    let set = |relay: &Relay, key: &str| {
        let headers = [("Authorization", key)];
        let target = "/admin/subs/setPerDayLimit?limit=5";
        http::request(relay.api, "POST", target, &headers, "").unwrap().status
    };
    let basic = format!("Basic {}", BASE64.encode(b"admin:second"));
    for key in [format!("Bearer {ADMIN_KEY}"), basic, "Bearer third".to_owned()] {
        assert_eq!(set(&relay, &key), 200, "{key}");
    }
    let audit = relay.admin("GET", "/admin/audit", "").json();
    let actors = audit["entries"].as_array().unwrap().iter().map(|entry| entry["actor"].clone());
    assert_eq!(actors.collect::<Vec<_>>(), ["key 3", "key 2", "key 1"]);
    assert!(!audit.to_string().contains("third"), "no key is noted");

    // A key that is withdrawn opens nothing any more.
    assert!(relay.terminate().success());
    relay.set_arguments(&plc, &["--admin-key", "third"]);
    relay.launch();
    assert_eq!((set(&relay, "Bearer second"), set(&relay, "Bearer third")), (401, 200));
    assert!(!relay.log().contains("third"), "no key is logged");
}

/// Asks for the stream, and what is answered.
fn subscribe(relay: &Relay) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(relay.api).unwrap();
    stream.set_read_timeout(Some(harness::patience())).unwrap();
    let request = "GET /xrpc/com.atproto.sync.subscribeRepos HTTP/1.1\r\nHost: x\r\n\
                   Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = String::new();
    let mut reader = BufReader::new(&stream);
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    drop(reader);
    (stream, head)
}

#[test]
fn limits_of_consumers_and_connections_change_while_the_relay_runs() {
    let relay = Relay::start(&FakePlc::start(), &[]);
    let set = |name: &str, value: u64| {
        let body = json!({ name: value }).to_string();
        assert_eq!(relay.admin("POST", "/admin/settings", &body).status, 200, "{name}");
    };
    let refused = |status: u16| {
        let (_, head) = subscribe(&relay);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(head.to_ascii_lowercase().contains("retry-after: "), "{head}");
    };
    let taken = || {
        let (stream, head) = subscribe(&relay);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        stream
    };
    let first = taken();
    set("max_consumers_per_address", 1);
    refused(429);
    set("max_consumers_per_address", 0);
    let _second = taken();
    set("max_consumers", 2);
    refused(503);
    // A place that is given up is there for the next one.
    drop(first);
    harness::eventually("a place", || {
        subscribe(&relay).1.starts_with("HTTP/1.1 101 ").then_some(())
    });
    set("max_consumers", 100);
    let _third = taken();

    let mut held = TcpStream::connect(relay.api).unwrap();
    held.set_read_timeout(Some(harness::patience())).unwrap();
    let mut ask = |method: &str, target: &str| {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\r\n"
        );
        held.write_all(request.as_bytes()).unwrap();
        let mut reply = [0; 1024];
        let count = held.read(&mut reply).unwrap();
        String::from_utf8_lossy(&reply[..count]).into_owned()
    };
    let target = |max: u64| format!("/admin/settings?max_connections_per_address={max}");
    assert!(ask("POST", &target(1)).starts_with("HTTP/1.1 200 "));
    assert_eq!(relay.get("/_health").status, 503);
    assert!(ask("POST", &target(0)).starts_with("HTTP/1.1 200 "));
    assert_eq!(relay.get("/_health").status, 200);
}

#[test]
fn what_an_operator_sets_outlives_the_relay() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let mut relay = Relay::start(&plc, &[]);
    relay.add_host(&pds);
    let host = pds.hostname();
    let settings = json!({
        "crawl_enabled": false, "new_hosts_per_day": 3, "strictness": "lenient",
        "replay_window_seconds": 7200, "replay_bytes": 1_000_000_000, "max_consumers": 7,
        "max_consumers_per_address": 2, "max_connections_per_address": 50,
        "discovery_interval_seconds": 90,
    });
    for (target, body) in [
        ("/admin/settings", settings.clone()),
        ("/admin/pds/changeLimits", json!({ "host": host, "per_hour": 5, "repo_limit": 6 })),
        ("/admin/pds/setStrictness", json!({ "host": host, "strictness": "strict" })),
        ("/admin/pds/addTrustedDomain", json!({ "domain": "*.good.example" })),
        ("/admin/subs/banDomain", json!({ "domain": "evil.example" })),
        (
            "/admin/repo/takeDown",
            json!({ "did": "did:plc:zzzzzzzzzzzzzzzzzzzzzzzz", "force": true }),
        ),
    ] {
        let reply = relay.admin("POST", target, &body.to_string());
        assert_eq!(reply.status, 200, "{target}: {reply:?}");
    }
    let tell = |relay: &Relay| {
        let paths = [
            "/admin/settings",
            "/admin/pds/listTrustedDomains",
            "/admin/subs/listDomainBans",
            "/admin/repo/takedowns",
            "/admin/audit",
        ];
        let mut told = paths.map(|path| relay.admin("GET", path, "").json()).to_vec();
        let record = &relay.admin("GET", "/admin/pds/list", "").json()[0];
        let fields = ["Host", "PerHourEventRate", "RepoLimit", "Strictness"];
        told.extend(fields.map(|field| record[field].clone()));
        told
    };
    let before = tell(&relay);
    assert_eq!(before[0], settings);
    // They win over the command line of the next start, whether the relay ends well or not.
    relay.kill();
    let arguments = [
        ["--new-hosts-per-day-limit", "9"],
        ["--replay-window", "72h"],
        ["--max-consumers", "1"],
        ["--discover-interval", "1h"],
    ];
    relay.set_arguments(&plc, arguments.as_flattened());
    relay.launch();
    assert_eq!(tell(&relay), before);
}
