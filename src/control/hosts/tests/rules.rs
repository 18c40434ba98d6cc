//! Limits, trust, quarantine, strictness, gates, places, and what is told of all that.

use std::{collections::HashMap, time::Duration};

use ports::{
    HostFault, HostId, HostLimits, HostProgress, HostSeq, LocalStatus, Refusal, RefusalReason,
    ShardCommand, ShardReport, SlowReason, Strictness,
};

use super::*;

#[tokio::test]
async fn event_limits_follow_the_account_limit_and_reach_the_shard() {
    let mut bench = Bench::new(quick()).await;
    let pds = pds().await;
    bench.crawl(&pds.hostname()).await.unwrap();
    let socket = bench.socket().await;
    let derived = HostLimits { per_second: Some(50), per_hour: Some(2600), per_day: Some(21_000) };
    assert_eq!(socket.limits, derived);
    let patch =
        HostPatch { account_limit: Some(5000), per_hour: Some(Some(7)), ..HostPatch::default() };
    bench.hosts.update(&pds.hostname(), patch).await.unwrap();
    let changed = HostLimits { per_second: Some(55), per_hour: Some(7), per_day: Some(70_000) };
    let (_, command) = bench.commands.recv().await.unwrap();
    assert!(matches!(command, ShardCommand::SetHostLimits(_, limits) if limits == changed));
    // Why it is slowed and until when is told.
    let why = Some(SlowReason::PerHour);
    let slowed = ShardReport::HostSlowed { host: socket.host, why, until: Some(99) };
    bench.hosts.handle_report(ShardReport::HostOpen(socket.host));
    bench.hosts.handle_report(slowed);
    let live = bench.view(&pds.hostname()).await.live;
    assert_eq!(live.limits, changed);
    assert_eq!((live.status, live.status_reason), (HostStatus::Throttled, Some("per-hour")));
    assert_eq!((live.status_until, live.slowed.unwrap().why), (Some(99), SlowReason::PerHour));
    let over = ShardReport::HostSlowed { host: socket.host, why: None, until: None };
    bench.hosts.handle_report(over);
    assert_eq!(bench.view(&pds.hostname()).await.live.status, HostStatus::Active);
}

#[tokio::test]
async fn trust_comes_and_goes_with_the_domain() {
    let mut bench = Bench::new(quick()).await;
    let pds = pds().await;
    bench.crawl(&pds.hostname()).await.unwrap();
    bench.socket().await;
    assert!(bench.hosts.trust_domain(&pds.hostname()).await.unwrap());
    let spelling = pds.hostname().to_ascii_uppercase();
    assert!(!bench.hosts.trust_domain(&spelling).await.unwrap());
    let (_, command) = bench.commands.recv().await.unwrap();
    let unlimited = HostLimits::default();
    assert!(matches!(command, ShardCommand::SetHostLimits(_, limits) if limits == unlimited));
    let row = bench.view(&pds.hostname()).await.row;
    assert_eq!((row.trusted, row.account_limit), (true, 10_000_000));
    let all = ["*.host.bsky.network".to_owned(), pds.hostname()];
    assert_eq!(bench.hosts.trusted_domains().await.unwrap(), all);
    assert!(bench.hosts.untrust_domain(&pds.hostname()).await.unwrap());
    assert!(!bench.hosts.untrust_domain("*.host.bsky.network").await.unwrap());
    let row = bench.view(&pds.hostname()).await.row;
    assert_eq!((row.trusted, row.account_limit), (false, 100));
}

fn flood(host: HostId) -> ShardReport {
    ShardReport::Progress(vec![HostProgress { invalid: 1_000_000, ..HostProgress::new(host) }])
}

#[tokio::test]
async fn a_flood_leads_to_a_quarantine_that_outlives_a_restart() {
    let mut bench = Bench::new(quick()).await;
    let pds = pds().await;
    bench.crawl(&pds.hostname()).await.unwrap();
    let host = bench.socket().await.host;
    bench.hosts.handle_report(ShardReport::HostOpen(host));
    bench.hosts.handle_report(flood(host));
    assert_eq!(bench.dropped().await, host);
    bench.closed(host, HostFault::Stopped);
    // What was on its way is not charged twice.
    bench.hosts.handle_report(flood(host));
    let refusal = bench.crawl(&pds.hostname()).await.unwrap_err();
    assert_eq!((refusal.name(), refusal.status()), ("RateLimitExceeded", 429));
    assert!(refusal.retry_after().is_some_and(|wait| wait <= Duration::from_secs(10)));
    bench.hosts.flush().await.unwrap();
    let mut restarted = Bench::on(bench.store.clone(), quick(), HashMap::new()).await;
    let view = restarted.view(&pds.hostname()).await;
    assert_eq!(view.row.status, HostStatus::Throttled);
    assert_eq!(view.live.status_reason, Some("quarantine-invalid-events"));
    assert!(view.live.status_until.is_some() && view.live.quarantines == 1);
    // The operator ends it at once.
    let admin = restarted.hosts.request_crawl(&pds.hostname(), Caller::Admin).await;
    assert_eq!(admin, Ok(Crawl::Retried));
    assert_eq!(restarted.socket().await.host, host);
}

#[tokio::test]
async fn a_lenient_host_that_keeps_the_strict_rules_is_held_to_them() {
    let config = HostsConfig { strictness: Strictness::Lenient, ..quick() };
    let mut bench = Bench::new(config.clone()).await;
    let pds = pds().await;
    bench.crawl(&pds.hostname()).await.unwrap();
    let socket = bench.socket().await;
    let host = socket.host;
    assert_eq!(socket.strictness, Strictness::Lenient);
    bench.hosts.handle_report(ShardReport::HostOpen(host));
    let progress = |well_formed, waived| {
        let progress = HostProgress { well_formed, waived, ..HostProgress::new(host) };
        bench.hosts.handle_report(ShardReport::Progress(vec![progress]));
    };
    for (well_formed, waived) in [(90, 0), (50, 1), (90, 0)] {
        progress(well_formed, waived);
        assert_eq!(bench.view(&pds.hostname()).await.live.strictness, Strictness::Lenient);
    }
    progress(10, 0);
    let (_, command) = bench.commands.recv().await.unwrap();
    assert!(matches!(command, ShardCommand::SetStrictness(_, Strictness::Strict)), "{command:?}");
    bench.hosts.flush().await.unwrap();
    let mut restarted = Bench::on(bench.store.clone(), config, HashMap::new()).await;
    assert_eq!(restarted.socket().await.strictness, Strictness::Strict);
    // The operator's word goes before what was learnt.
    let lenient = Some(Strictness::Lenient);
    restarted.hosts.set_strictness(&pds.hostname(), lenient).await.unwrap();
    let (_, command) = restarted.commands.recv().await.unwrap();
    assert!(matches!(command, ShardCommand::SetStrictness(_, Strictness::Lenient)));
    restarted.hosts.set_strictness(&pds.hostname(), None).await.unwrap();
    let live = restarted.view(&pds.hostname()).await.live;
    assert_eq!(live.strictness, Strictness::Lenient, "it begins to learn anew");
}

#[tokio::test]
async fn from_the_first_connection_on_the_store_knows_of_it() {
    let mut bench = Bench::new(quick()).await;
    let pds = pds().await;
    bench.crawl(&pds.hostname()).await.unwrap();
    let socket = bench.socket().await;
    // Live, but a relay that ends now begins at the host's oldest the next time.
    assert_eq!(socket.resume.cursor, None);
    assert_eq!(bench.store.hosts().await.unwrap()[0].cursor, Some(HostSeq(0)));
    // A connection that did not come about was none.
    bench.closed(socket.host, HostFault::Handshake { status: 503 });
    assert_eq!(bench.socket().await.resume.cursor, None);
    bench.hosts.handle_report(ShardReport::HostOpen(socket.host));
    bench.closed(socket.host, HostFault::Closed);
    assert_eq!(bench.socket().await.resume.cursor, Some(HostSeq(0)));
}

#[tokio::test]
async fn one_client_and_one_host_can_be_asked_for_at_a_pace() {
    let bench = Bench::new(HostsConfig::default()).await;
    let closing = FakeHttp::start(|_| Reply::Close).await;
    let mut outcomes = HashMap::new();
    for number in 0..200 {
        let client = Caller::Client(format!("192.0.2.{}", number % 2).parse().unwrap());
        let name = if number < 20 { closing.hostname() } else { format!("localhost:{number}") };
        let refusal = bench.hosts.request_crawl(&name, client).await.unwrap_err();
        *outcomes.entry((number < 20, refusal.name())).or_insert(0) += 1;
    }
    assert!(closing.connections() <= 10, "{}", closing.connections());
    assert_eq!(outcomes[&(true, "HostNotFound")] + outcomes[&(true, "RateLimitExceeded")], 20);
    let one = Caller::Client("192.0.2.7".parse().unwrap());
    let mut limited = 0;
    for _ in 0..300 {
        let refusal = bench.hosts.request_crawl("a.localhost", one).await.unwrap_err();
        limited += usize::from(refusal.name() == "RateLimitExceeded");
    }
    // A name that is none costs nothing, and is told so.
    assert_eq!(limited, 0);
    let healthy = pds().await;
    bench.crawl(&healthy.hostname()).await.unwrap();
    for _ in 0..300 {
        let outcome = bench.hosts.request_crawl(&healthy.hostname(), one).await;
        limited += usize::from(outcome.is_err());
    }
    assert!((150..=180).contains(&limited), "{limited}");
    let admin = bench.hosts.request_crawl(&healthy.hostname(), Caller::Admin).await;
    assert_eq!(admin, Ok(Crawl::Connected));
}

#[tokio::test]
async fn throttled_accounts_come_back_the_oldest_first() {
    let config = HostsConfig { default_account_limit: 2, ..quick() };
    let mut bench = Bench::new(config).await;
    let pds = pds().await;
    bench.crawl(&pds.hostname()).await.unwrap();
    let host = bench.socket().await.host;
    for number in 0..6 {
        let state = bench.store.create_account(&format!("did:plc:{number}"), host).await.unwrap();
        assert_eq!(state.local == LocalStatus::Throttled, number >= 2);
    }
    let patch = HostPatch { account_limit: Some(5), ..HostPatch::default() };
    bench.hosts.update(&pds.hostname(), patch).await.unwrap();
    let mut back = Vec::new();
    while back.len() < 3 {
        if let ShardCommand::SetLocal(set) = bench.commands.recv().await.unwrap().1 {
            assert_eq!((set.state.local, set.state.host), (LocalStatus::Active, host));
            back.push(set.did);
        }
    }
    assert_eq!(back, ["did:plc:2".into(), "did:plc:3".into(), "did:plc:4".into()]);
    let left = bench.store.throttled_oldest(host, 9).await.unwrap();
    assert_eq!((left.len(), left[0].did.as_str()), (1, "did:plc:5"));
    // Who comes new does not overtake who waits.
    let patch = HostPatch { account_limit: Some(7), ..HostPatch::default() };
    let row = bench.store.hosts().await.unwrap().remove(0);
    bench.store.update_host(row.id, patch).await.unwrap();
    let newer = bench.store.create_account("did:plc:newer", host).await.unwrap();
    assert_eq!(newer.local, LocalStatus::Throttled);
}

#[tokio::test]
async fn what_is_known_of_hosts_and_accounts_is_told() {
    let mut bench = Bench::new(quick()).await;
    let pds = pds().await;
    bench.crawl(&pds.hostname()).await.unwrap();
    let host = bench.socket().await.host;
    let did = "did:plc:aaaabbbbccccddddeeeeffff";
    let refusal = Refusal {
        host,
        host_seq: Some(HostSeq(7)),
        kind: None,
        did: Some(did.into()),
        reason: RefusalReason::SignatureInvalid,
    };
    bench.hosts.note_refusals(std::slice::from_ref(&refusal));
    let spelling = pds.hostname().to_ascii_uppercase();
    let Some(Explanation::Host(detail)) = bench.hosts.explain(&spelling).await.unwrap() else {
        panic!()
    };
    assert_eq!((detail.view.row.id, &detail.refusals[0].refusal), (host, &refusal));
    // An account that is not known has refusals all the same.
    let Some(Explanation::Account(detail)) = bench.hosts.explain(did).await.unwrap() else {
        panic!()
    };
    assert_eq!((detail.state, detail.host.is_none(), detail.refusals.len()), (None, true, 1));
    bench.store.create_account(did, host).await.unwrap();
    let detail = bench.hosts.account_detail(did).await.unwrap();
    assert_eq!(detail.host.unwrap().row.hostname, pds.hostname());
    for nothing in ["did:plc:nobody", "nobody.com", "not a name", ""] {
        assert_eq!(bench.hosts.explain(nothing).await.unwrap(), None, "{nothing}");
    }
}
