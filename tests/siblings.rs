//! Sibling relays: what is decided at one is made once at each, whichever way it comes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use harness::{ADMIN_KEY, FakePds, FakePlc, Relay, eventually, http};
use serde_json::{Value, json};

/// A fixed address before a relay, whose own changes with each start.
struct Door {
    address: SocketAddr,
    behind: Arc<Mutex<Option<SocketAddr>>>,
}

impl Door {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let behind: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let to = Arc::clone(&behind);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let to = *to.lock().unwrap();
                if let Some(relay) = to.and_then(|to| TcpStream::connect(to).ok()) {
                    join(&stream, &relay);
                    join(&relay, &stream);
                }
            }
        });
        Self { address, behind }
    }

    fn lead_to(&self, relay: &Relay) {
        *self.behind.lock().unwrap() = Some(relay.api);
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Copies what comes from one socket to the other, until it ends.
fn join(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

/// Relays with doors before them; `siblings` names those of each by their numbers.
fn relays(siblings: &[&[usize]]) -> (Vec<Relay>, Vec<Door>) {
    let plc = FakePlc::start();
    let doors: Vec<Door> = siblings.iter().map(|_| Door::new()).collect();
    let relays = siblings.iter().zip(&doors).map(|(siblings, door)| {
        let urls: Vec<String> = siblings.iter().map(|number| doors[*number].url()).collect();
        let args: Vec<&str> =
            urls.iter().flat_map(|url| ["--sibling-relays", url.as_str()]).collect();
        let relay = Relay::start(&plc, &args);
        door.lead_to(&relay);
        relay
    });
    (relays.collect(), doors)
}

fn ban(relay: &Relay, action: &str, domain: &str) {
    let body = json!({ "domain": domain }).to_string();
    let reply = relay.admin("POST", &format!("/admin/subs/{action}"), &body);
    assert_eq!(reply.status, 200, "{reply:?}");
}

fn bans(relay: &Relay) -> Vec<String> {
    let reply = relay.admin("GET", "/admin/subs/listDomainBans", "").json();
    serde_json::from_value(reply["banned_domains"].clone()).unwrap()
}

fn wait_for_bans(relay: &Relay, wanted: &[&str]) {
    eventually(&format!("the bans {wanted:?}"), || (bans(relay) == wanted).then_some(()));
}

fn siblings(relay: &Relay) -> Value {
    relay.admin("GET", "/admin/siblings/list", "").json()["siblings"].clone()
}

fn wait_until_delivered(relay: &Relay) {
    eventually("all changes to be delivered", || {
        let all = siblings(relay);
        all.as_array().unwrap().iter().all(|one| one["queued"] == 0).then_some(())
    });
}

#[test]
fn a_change_goes_round_a_ring_and_ends_where_it_began() {
    let (relays, _doors) = relays(&[&[1], &[2], &[0]]);
    ban(&relays[0], "banDomain", "one.example");
    ban(&relays[1], "banDomain", "two.example");
    for relay in &relays {
        wait_for_bans(relay, &["one.example", "two.example"]);
    }
    ban(&relays[2], "unbanDomain", "one.example");
    for relay in &relays {
        wait_for_bans(relay, &["two.example"]);
    }
    relays.iter().for_each(wait_until_delivered);
    // Each passed on each change once, also the one to which it then was nothing new.
    for relay in &relays {
        assert_eq!(siblings(relay)[0]["delivered"], 3);
    }
}

#[test]
fn a_sibling_that_was_down_gets_all_in_order() {
    // All name all others.
    let (mut relays, doors) = relays(&[&[1, 2], &[0, 2], &[0, 1]]);
    relays[2].kill();
    for turn in 0..5 {
        ban(&relays[0], "banDomain", "flip.example");
        ban(&relays[0], "banDomain", &format!("d{turn}.example"));
        ban(&relays[0], "unbanDomain", "flip.example");
    }
    let wanted = ["d0.example", "d1.example", "d2.example", "d3.example", "d4.example"];
    wait_for_bans(&relays[1], &wanted);
    let down = eventually("the failure to be told", || {
        let all = siblings(&relays[0]);
        let down = all.as_array().unwrap().iter().find(|one| one["sibling"] == doors[2].url());
        down.filter(|one| one["failures"].as_u64() > Some(0)).cloned()
    });
    assert_eq!(down["queued"], 15, "{down}");
    assert!(down["last_error"].is_string() && down["next_attempt_at"].is_string(), "{down}");

    // The one that has changes to deliver forgets nothing in a restart.
    assert!(relays[0].terminate().success());
    relays[0].launch();
    doors[0].lead_to(&relays[0]);
    relays[2].launch();
    doors[2].lead_to(&relays[2]);
    for relay in &relays[..2] {
        assert_eq!(relay.admin("POST", "/admin/siblings/retry", "{}").status, 200);
    }
    wait_for_bans(&relays[2], &wanted);
    relays.iter().for_each(wait_until_delivered);
    for relay in &relays {
        assert_eq!(bans(relay), wanted);
    }
}

#[test]
fn hosts_accounts_and_crawls_are_passed_on() {
    let (relays, _doors) = relays(&[&[1], &[0]]);
    let (pds, public) = (FakePds::start(), FakePds::start());
    relays[0].add_host(&pds);
    pds.wait_for_connection(2);
    let limits = json!({ "host": pds.hostname(), "repo_limit": 7 }).to_string();
    assert_eq!(relays[1].admin("POST", "/admin/pds/changeLimits", &limits).status, 200);
    let record = |relay: &Relay| {
        let target = format!("/admin/pds/get?host={}", pds.hostname());
        relay.admin("GET", &target, "").json()
    };
    eventually("the limit", || (record(&relays[0])["RepoLimit"] == 7).then_some(()));
    // A cut with a block is a block also where there is no connection.
    let kill = format!("/admin/subs/killUpstream?host={}&block=true", pds.hostname());
    assert_eq!(relays[0].admin("POST", &kill, "").status, 200);
    for relay in &relays {
        eventually("the block", || (record(relay)["Blocked"] == true).then_some(()));
    }
    // Neither relay has met the account.
    let did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
    let down = json!({ "did": did, "force": true }).to_string();
    assert_eq!(relays[0].admin("POST", "/admin/repo/takeDown", &down).status, 200);
    eventually("the take-down", || {
        let dids = relays[1].admin("GET", "/admin/repo/takedowns", "").json();
        (dids["dids"] == json!([did])).then_some(())
    });
    let body = json!({ "hostname": public.hostname() }).to_string();
    let target = "/xrpc/com.atproto.sync.requestCrawl";
    let headers = [("Content-Type", "application/json")];
    let reply = http::request(relays[0].api, "POST", target, &headers, &body).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    public.wait_for_connection(2);
}

#[test]
fn what_comes_from_elsewhere_is_made_and_not_passed_on() {
    let (relays, _doors) = relays(&[&[1], &[]]);
    let post = |headers: &[(&str, &str)], domain: &str| {
        let key = format!("Bearer {ADMIN_KEY}");
        let all = [&[("Authorization", key.as_str())], headers].concat();
        let body = json!({ "domain": domain }).to_string();
        let target = "/admin/subs/banDomain";
        assert_eq!(http::request(relays[0].api, "POST", target, &all, &body).unwrap().status, 200);
    };
    post(&[("Via", "HTTP/1.1 atproto-relay")], "other.example");
    post(&[("User-Agent", "indigo-relay/1 (atproto-relay)")], "third.example");
    post(&[("Via", "1.1 atproto-relay-00000000000000aa (change 9)")], "numbered.example");
    // Older than the last one of that relay: known.
    post(&[("Via", "1.1 atproto-relay-00000000000000aa (change 8)")], "older.example");
    post(&[], "mine.example");
    wait_for_bans(&relays[1], &["mine.example", "numbered.example"]);
    let here = ["mine.example", "numbered.example", "other.example", "third.example"];
    assert_eq!(bans(&relays[0]), here);
}
