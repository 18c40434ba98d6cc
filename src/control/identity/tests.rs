//! The resolver against fake directories on loopback.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use ports::{LookupWhy, RelaySeq, ShardId};

use super::*;
use crate::{
    dial::{
        DialConfig, DialPolicy,
        fake::{FakeHttp, Reply},
    },
    store::{DatabaseUrl, NewHost},
};

const DID: &str = "did:plc:aaaabbbbccccddddeeeeffff";

fn document(did: &str, pds: &str) -> String {
    format!(
        r##"{{"id":"{did}","alsoKnownAs":["at://alice.test"],"verificationMethod":[],
        "service":[{{"id":"#atproto_pds","type":"AtprotoPersonalDataServer",
        "serviceEndpoint":"{pds}"}}]}}"##
    )
}

struct Bench {
    resolver: Resolver,
    store: Store,
    host: HostId,
}

impl Bench {
    async fn new(plc: &FakeHttp) -> Self {
        let config = IdentityConfig {
            plc_url: format!("{}/", plc.url()),
            fetch_timeout: Duration::from_millis(300),
            fresh_gap: Duration::from_millis(20),
            fresh_burst: 1,
            newer_wait_max: Duration::from_mins(1),
            ttl_failed: Duration::ZERO,
            ..IdentityConfig::default()
        };
        let store = Store::open(&DatabaseUrl::Memory).unwrap();
        let host = NewHost {
            hostname: "pds.a.com".to_owned(),
            tls: true,
            trusted: false,
            account_limit: 100,
            by_admin: true,
        };
        let host = store.insert_host(host).await.unwrap();
        let names = HostNames::default();
        names.insert(&host.hostname, host.id);
        let policy = DialPolicy { allow_insecure_hosts: true, ..DialPolicy::default() };
        let dialer = Dialer::new(DialConfig { policy, ..DialConfig::default() });
        let resolver = Resolver::start(config, store.clone(), &dialer, names).unwrap();
        Self { resolver, store, host: host.id }
    }

    async fn ask(&self, did: &str, sender: HostId, fresh: bool) -> AccountAnswer {
        let lookup = AccountLookup {
            did: did.into(),
            shard: ShardId(0),
            sender,
            why: LookupWhy::State,
            fresh,
            state_wanted: true,
            as_of: RelaySeq(0),
        };
        self.resolver.answer(lookup).await
    }
}

#[tokio::test]
async fn an_account_is_made_only_for_the_host_that_its_document_names() {
    let plc = FakeHttp::start(|path| {
        assert_eq!(path, format!("/{DID}"));
        Reply::json(document(DID, "https://PDS.a.com:443/"))
    })
    .await;
    let bench = Bench::new(&plc).await;
    let stranger = bench.ask(DID, HostId(99), false).await;
    assert_eq!(stranger.state, None);
    let IdentityAnswer::Found(identity) = stranger.identity else { panic!() };
    assert_eq!((identity.host, identity.handle.as_deref()), (Some(bench.host), Some("alice.test")));
    assert!(bench.store.account_by_did(DID).await.unwrap().is_none());
    let own = bench.ask(DID, bench.host, false).await;
    assert!(!own.fresh);
    let state = own.state.unwrap();
    assert_eq!(state.host, bench.host);
    // The next one finds it there.
    assert_eq!(bench.ask(DID, HostId(99), false).await.state, Some(state));
    assert_eq!(plc.requests(), 1);
    // And what is fetched is kept for the next start.
    assert!(bench.ask(DID, bench.host, true).await.fresh);
    let stored = bench.store.account_as_of(DID, RelaySeq(0)).await.unwrap().identity;
    assert_eq!(stored.unwrap().pds.as_deref(), Some("pds.a.com"));
}

#[tokio::test]
async fn many_questions_for_one_did_are_one_request() {
    let plc = FakeHttp::start(|_| Reply::json(document(DID, "https://pds.a.com"))).await;
    let bench = Bench::new(&plc).await;
    let mut asks = JoinSet::new();
    for _ in 0..50 {
        let resolver = bench.resolver.clone();
        asks.spawn(async move { resolver.identity(DID, false).await });
    }
    for answer in asks.join_all().await {
        assert!(matches!(answer, IdentityAnswer::Found(_)));
    }
    assert_eq!(plc.requests(), 1);
}

/// Every way in which a directory can fail, and what it means.
#[tokio::test]
async fn faults_of_the_directory_are_told_apart() {
    use IdentityAnswer::{NotFound, Unavailable};
    let check = async |reply: fn() -> Reply, expect: IdentityAnswer| {
        let plc = FakeHttp::start(move |_| reply()).await;
        let bench = Bench::new(&plc).await;
        let answer = bench.ask(DID, bench.host, false).await;
        assert_eq!((answer.identity, answer.state), (expect, None));
        assert!(plc.connections() >= 1);
    };
    check(|| Reply::status(404), NotFound).await;
    check(|| Reply::status(410), NotFound).await;
    check(|| Reply::status(400), NotFound).await;
    check(|| Reply::status(429).with_header("retry-after: 1"), Unavailable).await;
    check(|| Reply::status(500), Unavailable).await;
    check(|| Reply::status(503), Unavailable).await;
    check(|| Reply::status(403), Unavailable).await;
    check(|| Reply::status(301).with_header("location: http://127.0.0.1/"), Unavailable).await;
    check(|| Reply::Silent, Unavailable).await;
    check(|| Reply::Close, Unavailable).await;
    check(|| Reply::json(vec![b' '; 300 * 1024]), Unavailable).await;
    check(|| Reply::json("<html>busy</html>"), Unavailable).await;
    check(|| Reply::json("[".repeat(200_000)), Unavailable).await;
    check(|| Reply::json(document("did:plc:other", "https://pds.a.com")), NotFound).await;
    check(|| Reply::json(format!(r#"{{"id":"{DID}"}}"#)), NotFound).await;
}

#[tokio::test]
async fn known_accounts_outlive_an_outage_and_heal_after_it() {
    let status = Arc::new(AtomicU16::new(200));
    let answering = Arc::clone(&status);
    let plc = FakeHttp::start(move |_| match answering.load(Ordering::SeqCst) {
        200 => Reply::json(document(DID, "https://pds.a.com")),
        status => Reply::status(status),
    })
    .await;
    let bench = Bench::new(&plc).await;
    assert!(bench.ask(DID, bench.host, false).await.fresh);
    status.store(500, Ordering::SeqCst);
    let insisting = bench.ask(DID, bench.host, true);
    let others = async {
        while plc.requests() < 2 {
            tokio::task::yield_now().await;
        }
        let content = bench.ask(DID, bench.host, false).await;
        assert!(matches!(content.identity, IdentityAnswer::Found(_)));
        status.store(200, Ordering::SeqCst);
    };
    let (insisting, ()) = tokio::join!(insisting, others);
    assert!(insisting.fresh && insisting.state.is_some());
}

#[tokio::test]
async fn did_web_is_asked_on_its_own_host() {
    let web = FakeHttp::start(|path| {
        assert_eq!(path, "/.well-known/did.json");
        Reply::json("{}")
    })
    .await;
    let bench = Bench::new(&web).await;
    let did = format!("did:web:localhost%3A{}", web.port);
    let answer = bench.resolver.identity(&did, false).await;
    // The document has no id.
    assert_eq!(answer, IdentityAnswer::NotFound);
    assert_eq!(web.requests(), 1);
    for refused in ["did:web:localhost", "did:web:a.internal", "did:web:10.0.0.1", "did:key:zabc"] {
        assert_eq!(bench.resolver.identity(refused, true).await, IdentityAnswer::NotFound);
    }
    assert_eq!(web.connections(), 1);
}

#[tokio::test]
async fn did_web_of_a_local_host_resolves() {
    let port = Arc::new(AtomicU16::new(0));
    let own = Arc::clone(&port);
    let web = FakeHttp::start(move |_| {
        let did = format!("did:web:localhost%3A{}", own.load(Ordering::SeqCst));
        Reply::json(document(&did, "https://pds.a.com"))
    })
    .await;
    port.store(web.port, Ordering::SeqCst);
    let bench = Bench::new(&web).await;
    let did = format!("did:web:localhost%3A{}", web.port);
    let answer = bench.ask(&did, bench.host, false).await;
    assert_eq!(answer.state.unwrap().host, bench.host);
    assert!(answer.fresh);
}

#[test]
fn only_a_directory_on_loopback_is_not_spared() {
    for url in ["http://localhost:2582", "http://127.0.0.1:1/", "http://[::1]:80", "localhost"] {
        assert!(is_loopback(url), "{url}");
    }
    for url in ["https://plc.directory", "http://localhost.com/", "https://10.0.0.1:80"] {
        assert!(!is_loopback(url), "{url}");
    }
}
