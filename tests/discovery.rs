//! Hosts from the lists of other relays: found again and again, and not asked for ever.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use harness::{FakePds, FakePlc, Relay, eventually, http};
use serde_json::{Value, json};

/// Another relay, whose list can be changed.
struct OtherRelay {
    url: String,
    hosts: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl OtherRelay {
    fn start() -> Self {
        let (hosts, asked) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::<AtomicUsize>::default());
        let (listed, counting) = (Arc::clone(&hosts), Arc::clone(&asked));
        let address = http::serve(move |request, stream| {
            assert_eq!(request.path(), "/xrpc/com.atproto.sync.listHosts");
            let begin: usize = request.query("cursor").map_or(0, |cursor| cursor.parse().unwrap());
            let hosts = listed.lock().unwrap();
            // Pages of two, whatever is asked for.
            let mut page = json!({ "hosts": hosts.iter().skip(begin).take(2).collect::<Vec<_>>() });
            if begin + 2 < hosts.len() {
                page["cursor"] = json!((begin + 2).to_string());
            } else {
                counting.fetch_add(1, Ordering::SeqCst);
            }
            http::reply(stream, 200, "application/json", &page.to_string());
        });
        Self { url: format!("http://{address}"), hosts, asked }
    }

    fn list(&self, hostname: &str, status: &str) {
        let host = json!({ "hostname": hostname, "status": status, "seq": 7, "accountCount": 1 });
        self.hosts.lock().unwrap().push(host);
    }
}

/// A server that is no PDS, and how often it was asked whether it is one.
fn no_pds() -> (String, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let counting = Arc::clone(&asked);
    let address = http::serve(move |_, stream| {
        counting.fetch_add(1, Ordering::SeqCst);
        http::reply(stream, 404, "text/plain", "nothing here");
    });
    (format!("localhost:{}", address.port()), asked)
}

/// What the relay tells of the last look, once it has looked so often.
fn look(relay: &Relay, other: &OtherRelay, times: usize) -> Value {
    eventually("a look at the other relay", || {
        let state = relay.admin("GET", "/admin/discovery/list", "").json();
        let looked = other.asked.load(Ordering::SeqCst) >= times;
        let noted = relay.log().matches("looked through the hosts of another relay").count();
        (looked && noted >= times).then(|| state["relays"][0].clone())
    })
}

#[test]
fn new_hosts_are_found_and_refused_ones_left_alone() {
    let (other, plc) = (OtherRelay::start(), FakePlc::start());
    let (first, second, gone) = (FakePds::start(), FakePds::start(), FakePds::start());
    let (refused, asked) = no_pds();
    other.list(&first.hostname(), "active");
    other.list(&gone.hostname(), "offline");
    other.list(&refused, "active");
    other.list("not a name", "active");
    let arguments = ["--discover-from", &other.url, "--new-hosts-per-day-limit", "0"];
    let mut relay = Relay::start(&plc, &arguments);
    first.wait_for_connection(1);
    let seen = look(&relay, &other, 1);
    assert_eq!((&seen["hosts_seen"], &seen["hosts_added"]), (&json!(4), &json!(1)));
    assert!(seen["last_error"].is_null() && seen["next_at"].is_string(), "{seen}");
    let list = relay.admin("GET", "/admin/discovery/refused", "").json();
    assert_eq!(list["hosts"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(
        (&list["hosts"][0]["hostname"], &list["hosts"][0]["times"]),
        (&json!(refused), &json!(1))
    );
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    relay.wait_for_metric("relayered_discovery_hosts_added_total", "", 1.0);

    // What is new there comes with the next look; what was refused is not asked again.
    other.list(&second.hostname(), "active");
    assert_eq!(relay.admin("POST", "/admin/discovery/run", "").status, 200);
    second.wait_for_connection(1);
    let seen = look(&relay, &other, 2);
    assert_eq!((&seen["hosts_seen"], &seen["hosts_added"]), (&json!(5), &json!(1)));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(gone.cursors().is_empty());

    // A restart does not begin anew; a shorter interval holds at once.
    assert!(relay.terminate().success());
    relay.launch();
    first.wait_for_connection(2);
    assert_eq!(other.asked.load(Ordering::SeqCst), 2);
    let interval = r#"{"discovery_interval_seconds":1}"#;
    assert_eq!(relay.admin("POST", "/admin/settings", interval).status, 200);
    eventually("two more looks", || (other.asked.load(Ordering::SeqCst) >= 4).then_some(()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_relay_that_is_away_is_told_of() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let from = format!("http://{gone}");
    let relay = Relay::start(&FakePlc::start(), &["--discover-from", &from]);
    let error = eventually("the failure to be told", || {
        let state = relay.admin("GET", "/admin/discovery/list", "").json();
        state["relays"][0]["last_error"].as_str().map(str::to_owned)
    });
    assert!(!error.is_empty());
    assert_eq!(relay.get("/xrpc/_health").status, 200);

    let without = Relay::start(&FakePlc::start(), &[]);
    assert_eq!(without.admin("POST", "/admin/discovery/run", "").status, 409);
}
