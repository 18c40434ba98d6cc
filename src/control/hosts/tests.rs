//! The registry and its task against fake hosts on loopback.

use std::{collections::HashMap, time::Duration};

use ports::{
    HostFault, HostId, HostProgress, HostSeq, HostSocket, ShardCommand, ShardId, ShardReport,
    Strictness,
};
use tokio::sync::mpsc;

use super::*;
use crate::{
    dial::{
        DialConfig, DialPolicy,
        fake::{FakeHttp, Reply},
    },
    store::{DatabaseUrl, NewHost},
};

mod rules;

/// The hosts' task with a store in memory; the test plays the shards.
struct Bench {
    hosts: Hosts,
    store: Store,
    commands: mpsc::UnboundedReceiver<(ShardId, ShardCommand)>,
}

impl Bench {
    async fn new(config: HostsConfig) -> Self {
        let store = Store::open(&DatabaseUrl::Memory).unwrap();
        Self::on(store, config, HashMap::new()).await
    }

    async fn on(store: Store, config: HostsConfig, emitted: HashMap<HostId, Vec<HostSeq>>) -> Self {
        let policy = DialPolicy { allow_insecure_hosts: true, ..DialPolicy::default() };
        let dialer = Dialer::new(DialConfig { policy, ..DialConfig::default() });
        let (shards, commands) = Shards::new(2);
        let hosts = Hosts::start(config, store.clone(), dialer, emitted, shards).await.unwrap();
        Self { hosts, store, commands }
    }

    async fn crawl(&self, hostname: &str) -> Result<Crawl, CrawlRefusal> {
        self.hosts.request_crawl(hostname, Caller::Public).await
    }

    async fn socket(&mut self) -> Box<HostSocket> {
        match self.commands.recv().await.unwrap() {
            (shard, ShardCommand::Host(socket)) => {
                assert_eq!(u32::from(shard.0), socket.host.0 % 2);
                socket
            }
            other => panic!("{other:?}"),
        }
    }

    async fn dropped(&mut self) -> HostId {
        match self.commands.recv().await.unwrap() {
            (_, ShardCommand::DropHost(host)) => host,
            other => panic!("{other:?}"),
        }
    }

    fn closed(&self, host: HostId, fault: HostFault) {
        self.hosts.handle_report(ShardReport::HostClosed { host, fault, progressed: false });
    }

    fn progress(&self, host: HostId, cursor: u64) {
        let progress = HostProgress {
            cursor: Some(HostSeq(cursor)),
            received: 1,
            forwarded: 1,
            ..HostProgress::new(host)
        };
        self.hosts.handle_report(ShardReport::Progress(vec![progress]));
    }

    async fn view(&self, hostname: &str) -> HostView {
        let list = self.hosts.list().await.unwrap();
        list.into_iter().find(|view| view.row.hostname == hostname).unwrap()
    }
}

/// Retries come at once, so that no test waits.
fn quick() -> HostsConfig {
    let retry = RetryConfig {
        first: Duration::from_millis(1),
        max: Duration::from_millis(2),
        request_gap: Duration::ZERO,
        ..RetryConfig::default()
    };
    HostsConfig { retry, ..HostsConfig::default() }
}

async fn pds() -> FakeHttp {
    FakeHttp::start(|path| {
        assert_eq!(path, "/xrpc/com.atproto.server.describeServer");
        Reply::json(r#"{"did":"did:web:localhost","availableUserDomains":[]}"#)
    })
    .await
}

#[tokio::test]
async fn a_new_host_is_probed_stored_and_handed_to_its_home_shard() {
    let mut bench = Bench::new(HostsConfig::default()).await;
    let pds = pds().await;
    assert_eq!(bench.crawl(&pds.hostname()).await, Ok(Crawl::Added));
    let socket = bench.socket().await;
    assert_eq!(*socket.hostname, *pds.hostname());
    assert!(!socket.tls);
    assert_eq!(socket.strictness, Strictness::Strict);
    assert_eq!(socket.resume.cursor, None);
    assert_eq!(bench.hosts.names().id(&pds.hostname()), Some(socket.host));
    bench.hosts.handle_report(ShardReport::HostOpen(socket.host));
    bench.progress(socket.host, 40);
    bench.hosts.flush().await.unwrap();
    let row = &bench.store.hosts().await.unwrap()[0];
    assert_eq!((row.cursor, row.account_limit, row.trusted), (Some(HostSeq(40)), 100, false));
    let view = bench.view(&pds.hostname()).await;
    assert!(view.live.connected);
    assert_eq!((view.row.status, view.live.received), (HostStatus::Active, 1));
    // Asked again, the host is not bothered.
    let before = pds.requests();
    assert_eq!(bench.crawl(&pds.hostname()).await, Ok(Crawl::Connected));
    assert_eq!(pds.requests(), before);
    let counts = bench.hosts.counts().await.unwrap();
    assert_eq!((counts.by_status[0], counts.connected), (1, 1));
}

#[tokio::test]
async fn fifty_requests_at_once_lead_to_one_probe_and_one_connection() {
    let mut bench = Bench::new(HostsConfig::default()).await;
    let pds = pds().await;
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..50 {
        let spellings = ["localhost", "LOCALHOST", "http://localhost", "ws://LocalHost"];
        let name = format!("{}:{}", spellings[number % 4], pds.port);
        let hosts = bench.hosts.clone();
        requests.spawn(async move { hosts.request_crawl(&name, Caller::Public).await });
    }
    for result in requests.join_all().await {
        result.unwrap();
    }
    let socket = bench.socket().await;
    bench.hosts.handle_report(ShardReport::HostOpen(socket.host));
    bench.hosts.flush().await.unwrap();
    assert_eq!(bench.store.hosts().await.unwrap().len(), 1);
    assert_eq!((pds.requests(), pds.connections()), (1, 2));
    assert!(bench.commands.try_recv().is_err());
}

#[tokio::test]
async fn refused_requests_leave_no_trace() {
    let bench = Bench::new(HostsConfig::default()).await;
    bench.store.ban_domain("bad.com").await.unwrap();
    bench.hosts.set_domain_bans(vec!["bad.com".to_owned()]).await.unwrap();
    let relay = FakeHttp::start(|_| {
        Reply::json("{}").with_header("server: relayered/0.1.0 (atproto-relay)")
    })
    .await;
    let redirect =
        FakeHttp::start(|_| Reply::status(302).with_header("location: http://127.0.0.1/")).await;
    let huge = FakeHttp::start(|_| Reply::json(vec![b' '; 1 << 20])).await;
    let closing = FakeHttp::start(|_| Reply::Close).await;
    let check = async |name: &str, expect: &str, status: u16| {
        let refusal = bench.crawl(name).await.unwrap_err();
        assert_eq!((refusal.name(), refusal.status()), (expect, status), "{name}: {refusal}");
    };
    check("127.0.0.1:80", "InvalidRequest", 400).await;
    check("pds.internal", "InvalidRequest", 400).await;
    check("pds.a.bad.com", "HostBanned", 403).await;
    check("bad.com.", "HostBanned", 403).await;
    check(&relay.hostname(), "HostNotFound", 400).await;
    check(&redirect.hostname(), "HostNotFound", 400).await;
    check(&huge.hostname(), "HostNotFound", 400).await;
    check(&closing.hostname(), "HostNotFound", 400).await;
    bench.hosts.set_crawl(Some(false), None).await.unwrap();
    check(&relay.hostname(), "Forbidden", 403).await;
    assert!(bench.store.hosts().await.unwrap().is_empty());
}

#[tokio::test]
async fn new_hosts_a_day_are_limited_for_the_public_and_over_restarts() {
    let config = HostsConfig { new_hosts_per_day: 1, ..HostsConfig::default() };
    let bench = Bench::new(config.clone()).await;
    let (first, second) = (pds().await, pds().await);
    assert_eq!(bench.crawl(&first.hostname()).await, Ok(Crawl::Added));
    let again = Bench::on(bench.store.clone(), config, HashMap::new()).await;
    for bench in [&bench, &again] {
        let refusal = bench.crawl(&second.hostname()).await.unwrap_err();
        assert_eq!((refusal.name(), refusal.status()), ("RateLimitExceeded", 429));
        assert!(refusal.retry_after().is_some());
    }
    let admin = again.hosts.request_crawl(&second.hostname(), Caller::Admin).await;
    assert_eq!(admin, Ok(Crawl::Added));
}

#[tokio::test]
async fn the_days_limit_holds_for_requests_at_once_and_saves_others_the_question() {
    let config = HostsConfig { new_hosts_per_day: 2, ..HostsConfig::default() };
    let bench = Bench::new(config).await;
    let mut servers = Vec::new();
    for _ in 0..6 {
        servers.push(pds().await);
    }
    let mut requests = tokio::task::JoinSet::new();
    for server in &servers {
        let (hosts, name) = (bench.hosts.clone(), server.hostname());
        requests.spawn(async move { hosts.request_crawl(&name, Caller::Public).await });
    }
    let results = requests.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
    assert_eq!(bench.store.hosts().await.unwrap().len(), 2);
    let late = pds().await;
    assert_eq!(bench.crawl(&late.hostname()).await.unwrap_err().status(), 429);
    assert_eq!(late.connections(), 0);
    let known = bench.store.hosts().await.unwrap().remove(0).hostname;
    assert!(bench.crawl(&known).await.is_ok());
    assert_eq!(bench.hosts.find(&known).await.unwrap().unwrap().row.hostname, known);
    assert!(bench.hosts.find("nobody.com").await.unwrap().is_none());
}

#[tokio::test]
async fn a_blocked_host_stays_blocked_and_comes_back_when_unblocked() {
    let mut bench = Bench::new(quick()).await;
    let pds = pds().await;
    bench.crawl(&pds.hostname()).await.unwrap();
    let host = bench.socket().await.host;
    bench.hosts.handle_report(ShardReport::HostOpen(host));
    assert!(bench.hosts.block(&pds.hostname()).await.unwrap());
    assert_eq!(bench.dropped().await, host);
    // What the shard still had to say does not bring it back.
    bench.progress(host, 7);
    bench.closed(host, HostFault::Stopped);
    assert_eq!(bench.crawl(&pds.hostname()).await, Err(CrawlRefusal::Banned));
    bench.hosts.flush().await.unwrap();
    let row = bench.store.hosts().await.unwrap().remove(0);
    assert_eq!((row.status, row.cursor), (HostStatus::Banned, Some(HostSeq(7))));
    assert_eq!(row.status_reason.as_deref(), Some("blocked-by-operator"));
    let mut restarted = Bench::on(bench.store.clone(), quick(), HashMap::new()).await;
    assert!(restarted.commands.try_recv().is_err());
    assert!(restarted.hosts.unblock(&pds.hostname()).await.unwrap());
    let socket = restarted.socket().await;
    assert_eq!(socket.resume.cursor, Some(HostSeq(7)));
}

#[tokio::test]
async fn a_domain_ban_cuts_connections_and_its_end_brings_them_back() {
    let mut bench = Bench::new(quick()).await;
    let pds = pds().await;
    bench.crawl(&pds.hostname()).await.unwrap();
    let host = bench.socket().await.host;
    bench.hosts.handle_report(ShardReport::HostOpen(host));
    bench.hosts.set_domain_bans(vec![pds.hostname()]).await.unwrap();
    assert_eq!(bench.dropped().await, host);
    bench.closed(host, HostFault::Stopped);
    assert_eq!(bench.view(&pds.hostname()).await.live.status_reason, Some("domain-ban"));
    bench.hosts.set_domain_bans(Vec::new()).await.unwrap();
    assert_eq!(bench.socket().await.host, host);
}

#[tokio::test]
async fn a_future_cursor_resets_the_cursor_and_only_a_request_reconnects() {
    let mut bench = Bench::new(quick()).await;
    let pds = pds().await;
    bench.crawl(&pds.hostname()).await.unwrap();
    let host = bench.socket().await.host;
    bench.hosts.handle_report(ShardReport::HostOpen(host));
    bench.progress(host, 900);
    bench.closed(host, HostFault::ErrorFrame("FutureCursor".into()));
    // A report that was on its way does not bring the old cursor back.
    bench.progress(host, 901);
    bench.hosts.flush().await.unwrap();
    let view = bench.view(&pds.hostname()).await;
    assert_eq!((view.row.status, view.row.cursor), (HostStatus::Idle, None));
    assert_eq!(view.live.status_reason, Some("future-cursor"));
    assert_eq!(view.live.last_error.as_deref(), Some("error-frame: FutureCursor"));
    assert_eq!(bench.crawl(&pds.hostname()).await, Ok(Crawl::Retried));
    let socket = bench.socket().await;
    assert_eq!((socket.resume.cursor, socket.resume.reset), (Some(HostSeq(0)), true));
    bench.hosts.handle_report(ShardReport::HostOpen(host));
    bench.progress(host, 3);
    bench.hosts.flush().await.unwrap();
    assert_eq!(bench.store.hosts().await.unwrap()[0].cursor, Some(HostSeq(3)));
}

#[tokio::test]
async fn a_start_resumes_every_host_where_it_was() {
    let store = Store::open(&DatabaseUrl::Memory).unwrap();
    let (first, second) = (pds().await, pds().await);
    let mut emitted = HashMap::new();
    for (number, server) in [(0_u64, &first), (1, &second)] {
        let host = NewHost {
            hostname: server.hostname(),
            tls: false,
            trusted: false,
            account_limit: 100,
            by_admin: true,
        };
        let row = store.insert_host(host).await.unwrap();
        let patch = HostPatch { cursor: Some(Some(HostSeq(number + 10))), ..HostPatch::default() };
        store.update_host(row.id, patch).await.unwrap();
        emitted.insert(row.id, vec![HostSeq(number + 12)]);
    }
    // One dial at a time still brings all.
    let config = HostsConfig { dials_max: 1, ..quick() };
    let mut bench = Bench::on(store, config, emitted).await;
    let mut resumed = Vec::new();
    for _ in 0..2 {
        let socket = bench.socket().await;
        resumed.push((socket.resume.cursor.unwrap().0, socket.resume.emitted[0].0));
    }
    resumed.sort_unstable();
    assert_eq!(resumed, [(10, 12), (11, 13)]);
}

#[tokio::test]
async fn a_failing_host_is_retried_until_it_is_there() {
    let mut bench = Bench::new(quick()).await;
    let pds = pds().await;
    bench.crawl(&pds.hostname()).await.unwrap();
    for _ in 0..5 {
        let host = bench.socket().await.host;
        bench.closed(host, HostFault::Handshake { status: 503 });
    }
    let host = bench.socket().await.host;
    bench.hosts.handle_report(ShardReport::HostOpen(host));
    let view = bench.view(&pds.hostname()).await;
    assert_eq!((view.live.failures, view.live.connected), (5, true));
    assert_eq!(view.live.last_error.as_deref(), Some("handshake: HTTP status 503"));
    // The operator disconnects it: idle, not blocked.
    assert!(bench.hosts.disconnect(&pds.hostname()).await.unwrap());
    assert_eq!(bench.dropped().await, host);
    bench.closed(host, HostFault::Stopped);
    assert_eq!(bench.view(&pds.hostname()).await.row.status, HostStatus::Idle);
    assert!(!bench.hosts.disconnect(&pds.hostname()).await.unwrap());
    // All such hosts can be called at once.
    assert_eq!(bench.hosts.recrawl(HostStatus::Idle).await.unwrap(), 1);
    assert_eq!(bench.hosts.recrawl(HostStatus::Banned).await.unwrap(), 0);
    let host = bench.socket().await.host;
    bench.hosts.handle_report(ShardReport::HostOpen(host));
    assert!(bench.hosts.disconnect(&pds.hostname()).await.unwrap());
    assert_eq!(bench.dropped().await, host);
    bench.closed(host, HostFault::Stopped);
    // And moves its cursor.
    assert!(bench.hosts.reset_cursor(&pds.hostname(), Some(HostSeq(5))).await.unwrap());
    let resume = bench.socket().await.resume;
    assert_eq!((resume.cursor, resume.reset), (Some(HostSeq(5)), true));
}

#[tokio::test]
async fn settings_of_a_host_reach_the_store_and_its_shard() {
    let mut bench = Bench::new(quick()).await;
    let pds = pds().await;
    bench.crawl(&pds.hostname()).await.unwrap();
    let host = bench.socket().await.host;
    let patch = HostPatch {
        account_limit: Some(7),
        strictness: Some(Some(Strictness::Lenient)),
        ..HostPatch::default()
    };
    let row = bench.hosts.update(&pds.hostname(), patch).await.unwrap().unwrap();
    assert_eq!(row.account_limit, 7);
    assert!(matches!(
        bench.commands.recv().await.unwrap().1,
        ShardCommand::SetStrictness(id, Strictness::Lenient) if id == host
    ));
    assert_eq!(bench.hosts.update("nobody.com", HostPatch::default()).await.unwrap(), None);
}
