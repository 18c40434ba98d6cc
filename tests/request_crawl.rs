//! Requests to crawl: which names are taken for which host, what is refused under which name, and that
//! nothing remains of what was refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{
    Describe, FakePds,
    lab::{Host, Lab, UNTRUSTED},
};
use serde_json::json;

fn assert_no_trace(lab: &Lab) {
    assert_eq!(lab.relay.admin("GET", "/admin/pds/list", "").json(), json!([]));
    let listed = lab.relay.get("/xrpc/com.atproto.sync.listHosts").json();
    assert_eq!(listed["hosts"], json!([]));
}

/// Names that never are a host's, whoever asks.
const NO_NAMES: &[&str] = &[
    "",
    " ",
    ".",
    "..",
    "pds",
    "localhost",
    "https://localhost",
    "pds.example..com",
    ".pds.com",
    "-pds.com",
    "pds-.com",
    "pds_1.com",
    "pds.com:443",
    "pds.com:8443",
    "https://pds.com:443",
    "pds.com/xrpc",
    "https://pds.com/xrpc",
    "https://pds.com?x=1",
    "https://pds.com#x",
    "https://user@pds.com",
    "https://user:secret@pds.com",
    "pds.com@10.0.0.1",
    "ftp://pds.com",
    "at://pds.com",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "https://https://pds.com",
    "//pds.com",
    "https:pds.com",
    "https:\\\\pds.com",
    "pds.com\r\nHost: internal",
    "pds.com\u{0}",
    "p\u{0131}ds.com",
    "pds\u{3002}com",
    "\u{ff50}ds.com",
    "127.0.0.1",
    "http://127.0.0.1",
    "https://127.0.0.1:2470",
    "127.1",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "2130706433",
    "0",
    "0.0.0.0",
    "10.0.0.1",
    "169.254.169.254",
    "http://169.254.169.254/latest/meta-data",
    "192.168.1.1",
    "8.8.8.8",
    "[::1]",
    "https://[::1]",
    "https://[::1]:2470",
    "::1",
    "::ffff:127.0.0.1",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1%25eth0]",
    "[fd00::1]",
];

/// Names that lead nowhere on the public internet.
const RESERVED: &[&str] = &[
    "pds.local",
    "pds.localhost",
    "a.b.localhost",
    "pds.internal",
    "metadata.google.internal",
    "pds.test",
    "pds.example",
    "pds.invalid",
    "pds.alt",
    "pds.onion",
    "1.0.0.127.in-addr.arpa",
    "PDS.LOCAL.",
    "https://Pds.Internal/",
];

#[test]
fn what_is_no_public_name_is_refused_in_words_and_leaves_no_trace() {
    let lab = Lab::start(70, &[]);
    let asked = |reply: harness::http::Response, name: &str| {
        let error = reply.json();
        assert_eq!(reply.status, 400, "{name:?}: {reply:?}");
        assert_eq!(error["error"], "InvalidRequest", "{name:?}: {reply:?}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{name:?}");
    };
    // A stranger has 120 requests in a row.
    for name in NO_NAMES.iter().chain(RESERVED) {
        asked(lab.request_crawl(name), name);
        asked(lab.relay.request_crawl(name), name);
    }
    let long = format!("{}.com", "a.".repeat(200));
    asked(lab.request_crawl(&long), &long);
    asked(lab.request_crawl(&"a".repeat(10_000)), "ten thousand bytes");
    assert_no_trace(&lab);
}

#[test]
fn a_host_has_one_name_however_it_is_spelled_and_gets_one_connection() {
    let lab = Lab::start(71, &[]);
    let host = Host::start();
    let port = host.pds.hostname().split(':').nth(1).unwrap().to_owned();
    let spellings = [
        format!("localhost:{port}"),
        format!("LOCALHOST:{port}"),
        format!("http://localhost:{port}"),
        format!("http://LocalHost:{port}/"),
        format!("ws://localhost:{port}"),
        format!("HTTP://localhost.:{port}"),
    ];
    std::thread::scope(|scope| {
        for turn in 0..48 {
            let (lab, spelling) = (&lab, &spellings[turn % spellings.len()]);
            scope.spawn(move || {
                let reply = lab.request_crawl(spelling);
                assert_eq!(reply.status, 200, "{spelling}: {reply:?}");
            });
        }
    });
    host.pds.wait_for_connection(1);
    for spelling in &spellings {
        assert_eq!(lab.request_crawl(spelling).status, 200, "{spelling}");
    }
    assert_eq!(lab.relay.admin("GET", "/admin/pds/list", "").json().as_array().unwrap().len(), 1);
    assert_eq!((host.pds.cursors().len(), host.pds.open_connections()), (1, 1));
}

#[test]
fn who_does_not_describe_itself_as_a_host_is_refused_and_leaves_no_trace() {
    let lab = Lab::start(72, &[]);
    let secret = FakePds::start();
    let redirect = |path: &str| Describe::Redirect(format!("{}{path}", secret.url()));
    let cases = [
        ("an error", Describe::Status(500)),
        ("no such method", Describe::Status(404)),
        ("not allowed", Describe::Status(401)),
        ("a page", Describe::Body("<html></html>".to_owned())),
        ("nothing", Describe::Body(String::new())),
        ("a list", Describe::Body("[]".to_owned())),
        ("a lot", Describe::Body(format!("{{\"did\":\"{}\"}}", "x".repeat(1 << 20)))),
        ("a redirect to another host", redirect("/xrpc/com.atproto.server.describeServer")),
        ("a redirect to the cloud", Describe::Redirect("http://169.254.169.254/".to_owned())),
        ("a redirect to a file", Describe::Redirect("file:///etc/passwd".to_owned())),
        ("a redirect to itself", Describe::Redirect("/xrpc/x".to_owned())),
        ("silence", Describe::Hang),
    ];
    for (name, describe) in cases {
        let host = Host::start();
        host.pds.set_describe(describe);
        let reply = lab.request_crawl(&host.pds.hostname());
        assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("HostNotFound")), "{name}");
        assert_eq!(host.pds.cursors().len(), 0, "{name}");
    }
    // Nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reply = lab.request_crawl(&format!("localhost:{}", closed.port()));
    assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("HostNotFound")));
    assert_eq!((secret.describe_requests(), secret.cursors().len()), (0, 0));
    assert_no_trace(&lab);
}

#[test]
fn relays_are_known_by_their_server_header() {
    let lab = Lab::start(73, &[]);
    for server in ["indigo-relay/1.2 (atproto-relay)", "atproto-relay", "x/1 atproto-relay y"] {
        let host = Host::start();
        host.pds.set_server_header(server);
        let reply = lab.request_crawl(&host.pds.hostname());
        assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("HostNotFound")));
        assert_eq!(host.pds.cursors().len(), 0);
    }
    assert_no_trace(&lab);
}

/// The form of the body, and requests that are none.
#[test]
fn bodies_that_are_none_are_refused() {
    let lab = Lab::start(74, &[]);
    let target = "/xrpc/com.atproto.sync.requestCrawl";
    let json = [("Content-Type", "application/json")];
    let ask = |method: &str, headers: &[(&str, &str)], body: &str| {
        harness::http::request(lab.relay.api, method, target, headers, body).unwrap()
    };
    for body in ["", "{", "[]", "null", "{}", r#"{"hostname":5}"#, r#"{"hostname":null}"#] {
        let reply = ask("POST", &json, body);
        assert_eq!(
            (reply.status, &reply.json()["error"]),
            (400, &json!("InvalidRequest")),
            "{body}"
        );
    }
    let large = format!(r#"{{"hostname":"{}"}}"#, "a".repeat(1 << 20));
    assert_eq!(ask("POST", &json, &large).status, 413);
    assert!(matches!(ask("GET", &[], "").status, 400 | 404 | 405));
    assert_no_trace(&lab);
}

#[test]
fn the_places_of_a_day_are_counted_over_restarts_and_not_for_the_operator() {
    let arguments = [UNTRUSTED, &["--new-hosts-per-day-limit", "2"]].concat();
    let mut lab = Lab::start(75, &arguments);
    let hosts: Vec<Host> = (0..6).map(|_| Host::start()).collect();
    let name = |at: usize| hosts[at].pds.hostname();
    assert_eq!(lab.request_crawl(&name(0)).status, 200);
    // Those of the operator take no place.
    assert_eq!(lab.relay.request_crawl(&name(1)).status, 200);
    assert_eq!(lab.request_crawl(&name(2)).status, 200);
    for kill in [false, true] {
        let refused = lab.request_crawl(&name(3));
        assert_eq!(
            (refused.status, &refused.json()["error"]),
            (429, &json!("RateLimitExceeded")),
            "{refused:?}"
        );
        assert!(refused.headers["retry-after"].parse::<u64>().unwrap() > 0);
        // Hosts that are known are none of the new ones.
        assert_eq!(lab.request_crawl(&name(0)).status, 200);
        assert_eq!((hosts[3].pds.describe_requests(), hosts[3].pds.cursors().len()), (0, 0));
        lab.restart(kill);
    }
    assert_eq!(lab.request_crawl(&name(3)).status, 429);
    assert_eq!(lab.relay.request_crawl(&name(4)).status, 200);
    let set = lab.relay.admin("POST", "/admin/subs/setPerDayLimit?limit=3", "");
    assert_eq!(set.status, 200, "{set:?}");
    assert_eq!(lab.request_crawl(&name(3)).status, 200);
    assert_eq!(lab.request_crawl(&name(5)).status, 429);
}

#[test]
fn hosts_of_banned_domains_and_blocked_ones_are_refused_by_name() {
    let mut lab = Lab::start(76, &[]);
    let ban = |lab: &Lab, method: &str, domain: &str| {
        let body = json!({ "domain": domain }).to_string();
        let reply = lab.relay.admin("POST", &format!("/admin/subs/{method}"), &body);
        reply.status
    };
    assert_eq!(ban(&lab, "banDomain", "evil.com"), 200);
    assert_eq!(ban(&lab, "banDomain", "Evil.COM."), 400, "it is the same one");
    for kill in [false, true] {
        for name in ["evil.com", "a.evil.com", "x.y.EVIL.com.", "https://a.evil.com/"] {
            let reply = lab.request_crawl(name);
            let refused = (reply.status, reply.json()["error"].clone());
            assert_eq!(refused, (403, json!("HostBanned")), "{name}");
        }
        lab.restart(kill);
    }
    assert_eq!(ban(&lab, "unbanDomain", "evil.com"), 200);
    let left = lab.relay.admin("GET", "/admin/subs/listDomainBans", "").json();
    assert_eq!(left["banned_domains"], json!([]));

    let host = lab.host();
    let target = format!("/admin/pds/block?host={}", host.pds.hostname());
    assert_eq!(lab.relay.admin("POST", &target, "").status, 200);
    host.pds.wait_for_hang_up();
    let reply = lab.request_crawl(&host.pds.hostname());
    assert_eq!((reply.status, &reply.json()["error"]), (403, &json!("HostBanned")));
    lab.restart(true);
    let reply = lab.request_crawl(&host.pds.hostname());
    assert_eq!((reply.status, &reply.json()["error"]), (403, &json!("HostBanned")));
    assert_eq!(host.pds.cursors().len(), 1);
}
