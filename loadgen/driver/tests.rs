//! Both drivers, with the simulated hosts on one side and consumers straight on them: a host's own
//! stream is a stream like the relay's.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::*;
use crate::clock;
use crate::corpus::{Corpus, CorpusSpec, generate};
use crate::network::Service;
use crate::pace::Phase;

const PATIENCE: Duration = Duration::from_secs(30);

fn one_host() -> Arc<Corpus> {
    let spec =
        CorpusSpec { accounts: 5, hosts: 1, events: 300, prefill: 5, ..CorpusSpec::default() };
    Arc::new(generate(&spec))
}

/// Drivers that work here: io_uring may be forbidden where the tests run.
fn choices() -> Vec<DriverChoice> {
    let uring = uring::probe().is_ok();
    if !uring {
        eprintln!("io_uring cannot be used here: only the thread driver is tested");
    }
    uring.then_some(DriverChoice::Glommio).into_iter().chain([DriverChoice::Threads]).collect()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let ticks = crossbeam::channel::tick(Duration::from_millis(5));
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        ticks.recv().unwrap();
    }
}

fn address(network: &Network, service: Service) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, network.port(service).unwrap()).into()
}

#[test]
fn a_consumer_gets_the_hosts_stream_whole() {
    let corpus = one_host();
    let total = corpus.events.len() as u32;
    for choice in choices() {
        let network = Arc::new(Network::new(Arc::clone(&corpus), 40));
        let mut driver = start(choice, &network, 0, 1).unwrap();
        let host = address(&network, Service::Host(0));
        let live = driver.consume(host, None, Watch::Compare(Arc::clone(&network)));
        wait_for("the stream", || network.hosts_connected() == 1);
        let notice = clock::now_nanos() + PHASE_NOTICE.as_nanos() as u64;
        network.pace.set(Phase::full_speed(0, 100, notice));
        wait_for("the first phase", || live.events.load(Ordering::Acquire) == 100);
        network.pace.set(Phase::at_rate(100, total, clock::now_nanos(), 2000.0));
        wait_for("the second phase", || live.events.load(Ordering::Acquire) == u64::from(total));
        assert_eq!(live.faults(), 0, "{choice:?}");
        assert_eq!(live.last_seq.load(Ordering::Relaxed), u64::from(total));
        assert_eq!(live.latency.percentiles().count, u64::from(total));

        let replayed = driver.consume(host, Some(0), Watch::Count);
        wait_for("the replay", || replayed.events.load(Ordering::Acquire) == u64::from(total));
        assert_eq!(
            replayed.digest.load(Ordering::Relaxed),
            live.digest.load(Ordering::Relaxed),
            "{choice:?}: the same bytes"
        );
        let behind = driver.consume(host, Some(u64::from(total) - 7), Watch::Count);
        wait_for("the rest", || behind.events.load(Ordering::Acquire) == 7);
        let future = driver.consume(host, Some(u64::from(total) + 1), Watch::Count);
        wait_for("the refusal", || future.closed.load(Ordering::Acquire));
        assert_eq!(future.events.load(Ordering::Acquire), 1, "{choice:?}: the error frame");
    }
}

#[test]
fn documents_and_status_are_served() {
    for choice in choices() {
        let network = Arc::new(Network::new(one_host(), 0));
        let driver = start(choice, &network, 0, 1).unwrap();
        let account = &network.corpus.accounts[3];
        let answer = get(address(&network, Service::Plc), &format!("/{}", account.did));
        assert!(answer.contains(&network.hostname(0)), "{answer}");
        let answer = get(address(&network, Service::Plc), "/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa");
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let status = format!("/xrpc/com.atproto.sync.getRepoStatus?did={}", account.did);
        let answer = get(address(&network, Service::Host(0)), &status);
        assert!(answer.contains("\"active\":true"), "{answer}");
        let answer =
            get(address(&network, Service::Host(0)), "/xrpc/com.atproto.server.describeServer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        drop(driver);
    }
}

fn get(address: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_lost_consumer_is_told() {
    let corpus = one_host();
    let network = Arc::new(Network::new(Arc::clone(&corpus), 40));
    let mut driver = start(DriverChoice::Threads, &network, 0, 1).unwrap();
    let report = driver.consume((Ipv4Addr::LOCALHOST, 9).into(), None, Watch::Count);
    wait_for("the refusal", || report.closed.load(Ordering::Acquire));
}
