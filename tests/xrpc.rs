//! The public methods against the real binary: what the lexicons say of their parameters, replies
//! and errors, with accounts and hosts that really sent events.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeSet;

use harness::{
    Consumer, FakePds, FakePlc, Relay, author::Author, eventually, http, json, stage::Stage,
};
use serde_json::{Value, json};

const CID: &str = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a";
const STRANGER: &str = "did:plc:zzzzzzzzzzzzzzzzzzzzzzzz";

fn xrpc(relay: &Relay, method: &str, query: &str) -> http::Response {
    relay.get(&format!("/xrpc/com.atproto.sync.{method}?{query}"))
}

fn error(reply: &http::Response) -> (u16, String) {
    let body = reply.json();
    assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{reply:?}");
    (reply.status, body["error"].as_str().unwrap().to_owned())
}

fn named(status: u16, name: &str) -> (u16, String) {
    (status, name.to_owned())
}

/// All pages of a list: the items under `key`.
fn pages(relay: &Relay, method: &str, query: &str, key: &str) -> Vec<Vec<Value>> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let reply = xrpc(relay, method, &format!("{query}&cursor={cursor}"));
        assert_eq!(reply.status, 200, "{reply:?}");
        let page = reply.json();
        pages.push(page[key].as_array().unwrap().clone());
        let Some(next) = page.get("cursor") else { return pages };
        let next = next.as_str().unwrap();
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert!(!next.is_empty() && next.bytes().all(safe) && next != cursor, "{next}");
        next.clone_into(&mut cursor);
    }
}

/// A relay with one host, whose accounts have each made posts.
struct Scene {
    relay: Relay,
    pds: FakePds,
    authors: Vec<Author>,
    seq: u64,
    _plc: FakePlc,
}

impl Scene {
    fn new(accounts: u64) -> Self {
        let (plc, pds) = (FakePlc::start(), FakePds::start());
        let relay = Relay::start(&plc, &[]);
        relay.add_host(&pds);
        let mut authors: Vec<_> = (1..=accounts).map(Author::new).collect();
        for author in &authors {
            author.register(&plc, &pds);
        }
        let mut scene = Self { relay, pds, authors: Vec::new(), seq: 0, _plc: plc };
        for author in &mut authors {
            scene.push("commit", author.post());
        }
        scene.authors = authors;
        scene.wait_for("all posts", |relay, scene| {
            let listed = xrpc(relay, "listRepos", "").json()["repos"].as_array().unwrap().len();
            listed == scene.authors.len()
        });
        scene
    }

    fn push(&mut self, kind: &str, mut body: Value) {
        self.seq += 1;
        body["seq"] = self.seq.into();
        self.pds.push(self.seq, json::event(kind, &body));
    }

    fn wait_for(&self, what: &str, done: impl Fn(&Relay, &Self) -> bool) {
        eventually(what, || done(&self.relay, self).then_some(()));
    }

    fn wait_for_status(&self, did: &str, status: &str) {
        self.wait_for(status, |relay, _| {
            xrpc(relay, "getRepoStatus", &format!("did={did}")).json()["status"] == status
        });
    }
}

#[test]
fn bad_parameters_unknown_methods_and_wrong_verbs_get_xrpc_errors() {
    let relay = Relay::start(&FakePlc::start(), &[]);
    for (method, query) in [
        ("listHosts", "limit=0"),
        ("listHosts", "limit=1001"),
        ("listHosts", "limit=x"),
        ("listHosts", "limit=1&limit=2"),
        ("listHosts", "cursor=1"),
        ("listRepos", "limit=0"),
        ("listRepos", "limit=1001"),
        ("listRepos", "limit=-1"),
        ("listRepos", "cursor=%00"),
        ("listReposByCollection", ""),
        ("listReposByCollection", "collection=nsid"),
        ("listReposByCollection", "collection=app.bsky.feed.post&limit=2001"),
        ("getHostStatus", ""),
        ("getHostStatus", "hostname=not%20a%20name"),
        ("getRepoStatus", ""),
        ("getRepoStatus", "did=alice.test"),
        ("getRepoStatus", "did=did:plc:"),
        ("getLatestCommit", "did=x"),
        ("getHead", "did=x"),
        ("getRepo", "did=x"),
        ("getRepo", &format!("did={STRANGER}&since=yesterday")),
        ("getRecord", &format!("did={STRANGER}&collection=app.bsky.feed.post")),
        ("getRecord", &format!("did={STRANGER}&collection=x&rkey=y")),
        ("getRecord", &format!("did={STRANGER}&collection=app.bsky.feed.post&rkey=%2F")),
        ("getBlocks", &format!("did={STRANGER}")),
        ("getBlocks", &format!("did={STRANGER}&cids=x")),
        ("getBlob", &format!("did={STRANGER}&cid=x")),
        ("getCheckout", ""),
        ("listBlobs", &format!("did={STRANGER}&limit=1001")),
        ("subscribeRepos", "cursor=-1"),
    ] {
        let reply = xrpc(&relay, method, query);
        let (status, name) = error(&reply);
        // A request for the stream that is no handshake is told so first.
        let upgrade = (method, status) == ("subscribeRepos", 426);
        assert!(
            upgrade || (status, name.as_str()) == (400, "InvalidRequest"),
            "{method} {reply:?}"
        );
    }
    for method in ["com.atproto.repo.getRecord", "com.example.x", "x", "com.atproto.sync.getrepo"] {
        for verb in ["GET", "POST"] {
            let reply =
                http::request(relay.api, verb, &format!("/xrpc/{method}"), &[], "").unwrap();
            assert_eq!(error(&reply), named(501, "MethodNotImplemented"), "{verb} {method}");
        }
    }
    for (verb, method) in [
        ("POST", "listHosts"),
        ("POST", "getRepoStatus"),
        ("POST", "getRepo"),
        ("GET", "requestCrawl"),
        ("GET", "notifyOfUpdate"),
        ("DELETE", "listRepos"),
        ("POST", "subscribeRepos"),
    ] {
        let target = format!("/xrpc/com.atproto.sync.{method}");
        let reply = http::request(relay.api, verb, &target, &[], "").unwrap();
        assert_eq!(reply.status, 405, "{verb} {method}");
        assert!(reply.json()["error"].is_string() && reply.headers.contains_key("allow"));
    }
}

#[test]
fn what_is_not_there_is_named_as_the_lexicons_do() {
    let relay = Relay::start(&FakePlc::start(), &[]);
    let did = format!("did={STRANGER}");
    for (method, query) in [
        ("getRepoStatus", did.clone()),
        ("getLatestCommit", did.clone()),
        ("getRepo", did.clone()),
        ("getCheckout", did.clone()),
        ("getRecord", format!("{did}&collection=app.bsky.feed.post&rkey=self")),
        ("getBlocks", format!("{did}&cids={CID}")),
        ("getBlob", format!("{did}&cid={CID}")),
        ("listBlobs", did.clone()),
    ] {
        assert_eq!(error(&xrpc(&relay, method, &query)), named(404, "RepoNotFound"), "{method}");
    }
    assert_eq!(error(&xrpc(&relay, "getHead", &did)), named(400, "HeadNotFound"));
    let unknown = xrpc(&relay, "getHostStatus", "hostname=pds.example.com");
    assert_eq!(error(&unknown), named(404, "HostNotFound"));
    assert_eq!(xrpc(&relay, "listHosts", "").json(), json!({ "hosts": [] }));
    assert_eq!(xrpc(&relay, "listRepos", "").json(), json!({ "repos": [] }));
    let none = xrpc(&relay, "listReposByCollection", "collection=app.bsky.feed.post");
    assert_eq!(none.json(), json!({ "repos": [] }));
}

#[test]
fn the_relay_tells_what_it_is() {
    let relay = Relay::start(&FakePlc::start(), &[]);
    let describe = |host: &str| {
        let target = "/xrpc/com.atproto.server.describeServer";
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut stream = std::net::TcpStream::connect(relay.api).unwrap();
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let text = std::io::read_to_string(stream).unwrap();
        serde_json::from_str::<Value>(text.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let described = describe("relay.example.com");
    assert_eq!(described["did"], "did:web:relay.example.com");
    assert_eq!(described["availableUserDomains"], json!([]));
    assert_eq!(describe("localhost:2470")["did"], "did:web:localhost%3A2470");
    for health in ["/_health", "/xrpc/_health"] {
        let reply = relay.get(health).json();
        assert_eq!(reply["status"], "ok");
        assert!(reply["version"].as_str().unwrap().starts_with(|c: char| c.is_ascii_digit()));
    }
    let robots = relay.get("/robots.txt");
    assert!(robots.headers["content-type"].starts_with("text/plain"));
    assert!(robots.body.contains("User-agent: *\nAllow: /\n"));
    assert!(relay.get("/").body.contains("/xrpc/com.atproto.sync.subscribeRepos"));
}

#[test]
fn crawl_requests_of_strangers_under_both_names() {
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let relay = Relay::start(&plc, &[]);
    let post = |method: &str, body: &str| {
        let headers = [("Content-Type", "application/json")];
        let target = format!("/xrpc/com.atproto.sync.{method}");
        http::request(relay.api, "POST", &target, &headers, body).unwrap()
    };
    let body = json!({ "hostname": pds.hostname() }).to_string();
    assert_eq!(post("notifyOfUpdate", &body).json(), json!({}));
    pds.wait_for_connection(1);
    assert_eq!(post("requestCrawl", &body).json(), json!({}));
    let status = eventually("a stream", || {
        let query = format!("hostname={}", pds.hostname());
        let status = xrpc(&relay, "getHostStatus", &query).json();
        (status["status"] == "active").then_some(status)
    });
    assert_eq!(status["hostname"], pds.hostname());
    assert_eq!(pds.cursors().len(), 1);
    for (body, name) in [
        ("", "InvalidRequest"),
        ("{}", "InvalidRequest"),
        ("[]", "InvalidRequest"),
        ("{\"hostname\":5}", "InvalidRequest"),
        ("{\"hostname\":\"-.-\"}", "InvalidRequest"),
        ("{\"hostname\":\"localhost:1\"}", "HostNotFound"),
    ] {
        assert_eq!(error(&post("requestCrawl", body)), named(400, name), "{body}");
    }
    assert_eq!(xrpc(&relay, "listHosts", "").json()["hosts"].as_array().unwrap().len(), 1);

    // A blocked host, a host too many for today, and no more requests at all.
    let other = FakePds::start();
    let asks = |pds: &FakePds| {
        let body = json!({ "hostname": pds.hostname() }).to_string();
        post("requestCrawl", &body)
    };
    let change = |target: &str| assert_eq!(relay.admin("POST", target, "").status, 200, "{target}");
    change("/admin/subs/setPerDayLimit?limit=1");
    let reply = asks(&other);
    assert_eq!(error(&reply), named(429, "RateLimitExceeded"));
    assert!(reply.headers["retry-after"].parse::<u64>().unwrap() > 0);
    assert_eq!(asks(&pds).json(), json!({}), "a host that is known is not counted");
    change(&format!("/admin/pds/block?host={}", pds.hostname()));
    assert_eq!(error(&asks(&pds)), named(403, "HostBanned"));
    change("/admin/subs/setEnabled?enabled=false");
    assert_eq!(error(&asks(&other)), named(403, "Forbidden"));
}

#[test]
fn lists_come_whole_over_deep_pages() {
    let stage = Stage::new(&[]);
    let consumer = Consumer::connect(stage.relay.api, Some(0));
    stage.push(0..usize::MAX);
    consumer.wait_for(stage.corpus.event_count());
    let all: BTreeSet<&str> = stage.corpus.dids().collect();
    let dids = |pages: &[Vec<Value>]| -> Vec<String> {
        pages.iter().flatten().map(|repo| repo["did"].as_str().unwrap().to_owned()).collect()
    };
    let whole = eventually("all accounts in the database", || {
        let list = pages(&stage.relay, "listRepos", "limit=1000", "repos");
        (list[0].len() == all.len()).then(|| dids(&list))
    });
    for limit in [1, 7, 79, 80] {
        let list = pages(&stage.relay, "listRepos", &format!("limit={limit}"), "repos");
        assert_eq!(list.len(), all.len().div_ceil(limit), "pages of {limit}");
        assert_eq!(dids(&list), whole, "pages of {limit}");
    }
    assert_eq!(whole.iter().map(String::as_str).collect::<BTreeSet<_>>(), all);

    let last: Vec<_> = stage.corpus.hosts.iter().map(|frames| frames.last().unwrap().0).collect();
    let hosts = eventually("the hosts' cursors to be told", || {
        let hosts = pages(&stage.relay, "listHosts", "limit=1", "hosts").concat();
        let seqs = hosts.iter().map(|host| host["seq"].as_u64());
        seqs.eq(last.iter().map(|seq| Some(*seq))).then_some(hosts)
    });
    let names: Vec<_> = hosts.iter().map(|host| host["hostname"].as_str().unwrap()).collect();
    let expected: Vec<_> = stage.hosts.iter().map(FakePds::hostname).collect();
    assert_eq!(names, expected);
    assert!(hosts.iter().all(|host| host["status"] == "active"));
    let accounts: u64 = hosts.iter().map(|host| host["accountCount"].as_u64().unwrap()).sum();
    assert_eq!(accounts, all.len() as u64);
    // A cursor belongs to its list.
    let cursor =
        xrpc(&stage.relay, "listRepos", "limit=1").json()["cursor"].as_str().unwrap().to_owned();
    let foreign = xrpc(&stage.relay, "listHosts", &format!("cursor={cursor}"));
    assert_eq!(error(&foreign), named(400, "InvalidRequest"));
}

#[test]
fn collections_are_learned_from_events() {
    let mut scene = Scene::new(3);
    let mut authors = std::mem::take(&mut scene.authors);
    let list = |scene: &Scene, collection: &str, limit: usize| -> Vec<String> {
        let query = format!("collection={collection}&limit={limit}");
        let found = pages(&scene.relay, "listReposByCollection", &query, "repos").concat();
        found.iter().map(|repo| repo["did"].as_str().unwrap().to_owned()).collect()
    };
    for author in &mut authors[1..] {
        let record = harness::author::record(7);
        let commit = author.commit(&[("com.example.likes/self", Some(record))]);
        scene.push("commit", commit);
    }
    let authors: BTreeSet<_> = authors[1..].iter().map(|author| author.did.clone()).collect();
    let likes = eventually("the collection", || {
        let likes = list(&scene, "com.example.likes", 500);
        (likes.len() == 2).then_some(likes)
    });
    assert_eq!(likes.iter().cloned().collect::<BTreeSet<_>>(), authors);
    for limit in [1, 2, 500] {
        assert_eq!(list(&scene, "com.example.likes", limit), likes);
    }
    assert_eq!(list(&scene, "com.example.none", 500), Vec::<String>::new());
    // Accounts that are not active are left out, and come back.
    let taken = json!({ "did": likes[0] }).to_string();
    assert_eq!(scene.relay.admin("POST", "/admin/repo/takeDown", &taken).status, 200);
    eventually("the rest", || (list(&scene, "com.example.likes", 1) == likes[1..]).then_some(()));
    assert_eq!(scene.relay.admin("POST", "/admin/repo/reverseTakedown", &taken).status, 200);
    eventually("both", || (list(&scene, "com.example.likes", 1) == likes).then_some(()));
}

#[test]
fn commits_are_told_and_repositories_redirected_while_the_account_is_active() {
    let scene = Scene::new(1);
    let author = &scene.authors[0];
    let did = format!("did={}", author.did);
    let status = xrpc(&scene.relay, "getRepoStatus", &did).json();
    assert_eq!(status, json!({ "did": author.did, "active": true, "rev": author.rev() }));
    let latest = xrpc(&scene.relay, "getLatestCommit", &did).json();
    assert_eq!(latest["rev"], author.rev());
    let head = xrpc(&scene.relay, "getHead", &did).json();
    assert_eq!(head["root"], latest["cid"]);
    let listed = &xrpc(&scene.relay, "listRepos", "").json()["repos"][0];
    assert_eq!(
        *listed,
        json!({ "did": author.did, "head": latest["cid"], "rev": author.rev(), "active": true })
    );
    for (method, query) in redirected(&did) {
        let reply = xrpc(&scene.relay, method, &query);
        let place = format!("{}/xrpc/com.atproto.sync.{method}?{query}", scene.pds.url());
        assert_eq!((reply.status, &reply.headers["location"]), (302, &place), "{method}");
    }
}

/// Requests that only the account's host can answer.
fn redirected(did: &str) -> [(&'static str, String); 7] {
    [
        ("getRepo", did.to_owned()),
        ("getRepo", format!("{did}&since=3jzfcijpj2z2a")),
        ("getCheckout", did.to_owned()),
        ("getRecord", format!("{did}&collection=app.bsky.feed.post&rkey=self")),
        ("getBlocks", format!("{did}&cids={CID}&cids={CID}")),
        ("getBlob", format!("{did}&cid={CID}")),
        ("listBlobs", format!("{did}&limit=10&cursor=abc")),
    ]
}

#[test]
fn of_accounts_that_are_not_active_nothing_is_given_out() {
    let mut scene = Scene::new(5);
    let authors = std::mem::take(&mut scene.authors);
    let said = [
        ("suspended", named(400, "RepoSuspended")),
        ("deactivated", named(400, "RepoDeactivated")),
        ("takendown", named(400, "RepoTakendown")),
        ("deleted", named(404, "RepoNotFound")),
    ];
    for (author, (status, _)) in authors.iter().zip(&said) {
        scene.push("account", author.account(false, Some(status)));
    }
    let taken = &authors[4].did;
    let body = json!({ "did": taken }).to_string();
    assert_eq!(scene.relay.admin("POST", "/admin/repo/takeDown", &body).status, 200);
    let own = ("takendown", named(400, "RepoTakendown"));
    for (author, (status, expected)) in authors.iter().zip(said.iter().chain([&own])) {
        scene.wait_for_status(&author.did, status);
        let did = format!("did={}", author.did);
        let told = xrpc(&scene.relay, "getRepoStatus", &did).json();
        assert_eq!(told, json!({ "did": author.did, "active": false, "status": status }));
        for (method, query) in
            redirected(&did).into_iter().chain([("getLatestCommit", did.clone())])
        {
            let reply = xrpc(&scene.relay, method, &query);
            assert_eq!(error(&reply), *expected, "{status} {method}");
            assert!(!reply.headers.contains_key("location"));
        }
        assert_eq!(error(&xrpc(&scene.relay, "getHead", &did)), named(400, "HeadNotFound"));
        let list = xrpc(&scene.relay, "listRepos", "").json();
        let listed = list["repos"].as_array().unwrap().iter().find(|r| r["did"] == author.did);
        if let Some(listed) = listed {
            assert_eq!(
                (&listed["active"], listed["status"].as_str()),
                (&json!(false), Some(*status))
            );
        } else {
            assert_eq!(*status, "deleted", "only a deleted account may be missing");
        }
    }
}
