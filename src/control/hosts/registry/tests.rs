use ports::RelaySeq;

use super::*;
use crate::store::HostMemory;

fn registry(dials_max: usize) -> Registry {
    let config = RegistryConfig {
        retry: RetryConfig::default(),
        budget: BudgetConfig::default(),
        dials_max,
        strictness: Strictness::Strict,
        account_limit: 100,
    };
    Registry::new(config, 1, Vec::new(), Vec::new(), Instant::now())
}

pub(in crate::hosts) fn row(id: u32, status: HostStatus) -> HostRow {
    HostRow {
        id: HostId(id),
        hostname: format!("pds{id}.a.com"),
        tls: true,
        status,
        status_reason: None,
        status_since: 0,
        trusted: false,
        strictness: None,
        cursor: Some(HostSeq(100)),
        account_count: 0,
        account_limit: 100,
        per_second: None,
        per_hour: None,
        per_day: None,
        alerts_silenced: false,
        last_error: None,
        last_error_at: None,
        memory: HostMemory::default(),
        created_at: 0,
    }
}

fn dials(registry: &mut Registry, now: Instant) -> Vec<(HostId, Attempt)> {
    registry.handle_timeout(now);
    std::iter::from_fn(|| registry.poll_effect())
        .filter_map(|effect| match effect {
            Effect::Dial { host, attempt, .. } => Some((host, attempt)),
            Effect::Command(..) | Effect::Flush => None,
        })
        .collect()
}

#[test]
fn connections_ramp_up_within_the_bound_and_dead_hosts_do_not_hold_up_live_ones() {
    let now = Instant::now();
    let mut registry = registry(8);
    for id in 1..=100 {
        let status = if id <= 50 { HostStatus::Active } else { HostStatus::Offline };
        registry.add(row(id, status), Vec::new(), now);
    }
    let mut dialed = Vec::new();
    loop {
        let batch = dials(&mut registry, now);
        assert!(batch.len() <= 8);
        if batch.is_empty() {
            break;
        }
        for (host, attempt) in batch {
            dialed.push(host);
            registry.handle_dial_failed(host, attempt, "down".to_owned(), now);
        }
    }
    dialed.sort_unstable();
    assert_eq!(dialed, (1..=50).map(HostId).collect::<Vec<_>>());
    // The offline ones are tried within the hour, spread out.
    let half = now + Duration::from_mins(30);
    let spread: usize = std::iter::from_fn(|| {
        let batch = dials(&mut registry, half);
        for (host, attempt) in &batch {
            registry.handle_dial_failed(*host, *attempt, "down".to_owned(), half);
        }
        (!batch.is_empty()).then_some(batch)
    })
    .flatten()
    .filter(|(host, _)| host.0 > 50)
    .count();
    assert!((10..=40).contains(&spread), "{spread}");
}

#[test]
fn what_could_not_be_written_is_written_again() {
    let now = Instant::now();
    let mut registry = registry(8);
    registry.add(row(1, HostStatus::Active), Vec::new(), now);
    let host = HostId(1);
    assert!(registry.take_batch(now).is_empty());
    let progress = HostProgress {
        cursor: Some(HostSeq(120)),
        log_floor: RelaySeq(1),
        received: 20,
        forwarded: 20,
        ..HostProgress::new(host)
    };
    registry.handle_progress(progress, now);
    assert!(registry.block(host, Reason::Blocked));
    let batch = registry.take_batch(now);
    assert_eq!((batch.progress.len(), batch.patches.len()), (1, 1));
    assert!(registry.take_batch(now).is_empty());
    registry.write_again(&batch.hosts());
    let patch = registry.take_batch(now).patches.remove(0).1;
    assert_eq!(patch.cursor, Some(Some(HostSeq(120))));
    let reason = Some("blocked-by-operator".to_owned());
    assert_eq!(patch.status, Some((HostStatus::Banned, reason)));
    assert!(registry.take_batch(now).is_empty());
}

#[test]
fn a_ban_of_a_domain_covers_what_is_below_it_and_nothing_beside() {
    let now = Instant::now();
    let mut registry = registry(8);
    registry.add(row(1, HostStatus::Active), Vec::new(), now);
    registry.set_bans(vec!["a.com".to_owned(), "b.org".to_owned()], now);
    for banned in ["a.com", "x.a.com", "x.y.a.com", "b.org", "pds1.a.com"] {
        assert!(registry.is_banned(banned), "{banned}");
    }
    for free in ["xa.com", "com", "a.com.org", "org"] {
        assert!(!registry.is_banned(free), "{free}");
    }
    // A host that the operator blocked by itself stays blocked when the domain is free again.
    registry.add(row(2, HostStatus::Active), Vec::new(), now);
    registry.block(HostId(2), Reason::Blocked);
    registry.set_bans(Vec::new(), now);
    assert!(!registry.is_banned("pds1.a.com"));
    assert!(registry.is_banned("pds2.a.com"));
    // And lifting the block does not undo a ban of the domain.
    registry.set_bans(vec!["a.com".to_owned()], now);
    registry.unblock(HostId(2), now);
    assert!(registry.is_banned("pds2.a.com"));
    assert_eq!(registry.live(HostId(2), now).unwrap().status_reason, Some("domain-ban"));
}

/// A socket to a host of which the store has no cursor.
fn first_contact(registry: &mut Registry, now: Instant) -> Vec<HostSocket> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let [(host, attempt)] = dials(registry, now)[..] else { panic!() };
    registry.handle_dialed(host, attempt, stream);
    sockets(registry)
}

fn sockets(registry: &mut Registry) -> Vec<HostSocket> {
    std::iter::from_fn(|| registry.poll_effect())
        .filter_map(|effect| match effect {
            Effect::Command(_, ShardCommand::Host(socket)) => Some(*socket),
            _ => None,
        })
        .collect()
}

#[test]
fn a_first_contact_waits_for_its_own_writing_and_for_no_other() {
    let now = Instant::now();
    let fresh = || HostRow { cursor: None, ..row(1, HostStatus::Active) };
    let host = [HostId(1)];
    // Changed once more while it is being written: by an operator's limits, say.
    let mut one = registry(8);
    one.add(fresh(), Vec::new(), now);
    assert!(first_contact(&mut one, now).is_empty());
    assert_eq!(one.take_batch(now).patches[0].1.cursor, Some(Some(HostSeq(0))));
    one.handle_row(HostRow { account_limit: 7, ..fresh() }, now);
    one.handle_stored(&host);
    let socket = sockets(&mut one).remove(0);
    assert_eq!((socket.resume.cursor, socket.limits.per_hour), (None, Some(2507)));
    // A write that was under way before does not count, and one that failed is made again.
    let mut other = registry(8);
    other.add(fresh(), Vec::new(), now);
    assert!(first_contact(&mut other, now).is_empty());
    other.handle_stored(&host);
    assert!(sockets(&mut other).is_empty());
    other.take_batch(now);
    other.write_again(&host);
    other.handle_stored(&host);
    assert!(sockets(&mut other).is_empty());
    assert_eq!(other.take_batch(now).patches[0].1.cursor, Some(Some(HostSeq(0))));
    other.handle_stored(&host);
    assert_eq!(sockets(&mut other).len(), 1);
}
