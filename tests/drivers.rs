//! The relay runs on io_uring where it may, on epoll where it may not, and says which.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{Consumer, Relay, corpus::Corpus, seccomp};

fn passes_the_corpus(relay: &Relay, corpus: &Corpus, hosts: &[harness::FakePds]) {
    let consumer = Consumer::connect(relay.api, None);
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        relay.add_host(pds);
        pds.push_all(frames.iter().cloned());
    }
    corpus.assert_complete(&consumer.wait_for(corpus.event_count()));
}

#[test]
fn epoll_where_seccomp_forbids_io_uring() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start_prepared(&plc.url(), &[], seccomp::forbid_io_uring);
    relay.wait_for_line("epoll");
    passes_the_corpus(&relay, &corpus, &hosts);
}

#[test]
fn epoll_by_flag() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &["--driver", "epoll"]);
    relay.wait_for_line("epoll");
    passes_the_corpus(&relay, &corpus, &hosts);
}

#[test]
fn io_uring_where_it_is_allowed() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &[]);
    relay.wait_for_line("driver=");
    if relay.log().contains("epoll") {
        return harness::skipped("io_uring_where_it_is_allowed", "this machine forbids io_uring");
    }
    assert!(relay.log().contains("io_uring"));
    passes_the_corpus(&relay, &corpus, &hosts);
}
