//! The admin API from outside: keys, requests to crawl, and what is told of hosts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

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
