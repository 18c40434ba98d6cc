//! The relay on PostgreSQL: the server goes and comes, and no event waits for it or is lost.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::TcpStream,
    process::{Command, Output},
};

use harness::{Consumer, Postgres, Relay, consumer, corpus::Corpus, eventually, postgres};
use protocol::frame::Body;

/// The last rev of each account in the frames of a firehose.
fn last_revs(frames: &[Vec<u8>]) -> BTreeMap<String, i64> {
    let mut revs = BTreeMap::new();
    for frame in frames {
        let event = consumer::event(frame);
        let rev = match &event.body {
            Body::Commit(commit) => commit.rev,
            Body::Sync(sync) => sync.rev,
            Body::Identity(_) | Body::Account(_) => continue,
        };
        revs.insert(event.did.to_owned(), rev_number(rev));
    }
    revs
}

/// The number that a TID encodes.
fn rev_number(rev: &str) -> i64 {
    const DIGITS: &str = "234567abcdefghijklmnopqrstuvwxyz";
    rev.chars().fold(0, |number, digit| number << 5 | DIGITS.find(digit).unwrap() as i64)
}

fn stored_revs(postgres: &Postgres) -> BTreeMap<String, i64> {
    let rows = postgres.query("SELECT did, rev FROM account WHERE rev IS NOT NULL");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn postgres(test: &str) -> Option<Postgres> {
    let postgres = Postgres::prepare();
    if postgres.is_none() {
        harness::skipped(test, "PostgreSQL is not installed");
    }
    postgres
}

#[test]
fn a_database_that_stops_and_comes_back_under_load_costs_no_event() {
    let Some(mut postgres) = postgres("database") else { return };
    postgres.launch();
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &["--db-url", &postgres.url()]);
    let consumer = Consumer::connect(relay.api, Some(0));
    let part = |number: usize| {
        for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
            let size = frames.len() / 4 + 1;
            pds.push_all(frames.iter().skip(number * size).take(size).cloned());
        }
    };
    for pds in &hosts {
        relay.add_host(pds);
    }
    part(0);
    part(1);
    let first_half: usize =
        corpus.hosts.iter().map(|frames| (2 * (frames.len() / 4 + 1)).min(frames.len())).sum();
    consumer.wait_for(first_half);

    for round in [2, 3] {
        // Once in the middle of transactions, once in order.
        if round == 2 {
            postgres.crash();
        } else {
            postgres.shut_down();
        }
        let before = consumer.count();
        part(round);
        // Events go on without the database.
        consumer.wait_for(before + 50);
        relay.wait_for_line("the connection to the database is lost");
        for refused in [
            relay.get("/xrpc/com.atproto.sync.listHosts"),
            relay.admin("GET", "/admin/repo/takedowns?cursor=&size=500", ""),
            relay.admin("POST", "/admin/repo/takeDown", r#"{"did":"did:web:a.example"}"#),
        ] {
            let name = refused.json()["error"].clone();
            assert_eq!((refused.status, name.as_str()), (503, Some("ServiceUnavailable")));
            assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
        }
        postgres.launch();
    }
    let frames = consumer.wait_for(corpus.event_count());
    corpus.assert_complete(&frames);

    let expected = last_revs(&frames);
    eventually("the rows to be as the log", || (stored_revs(&postgres) == expected).then_some(()));
    eventually("the cursors to be stored", || {
        let rows = postgres.query("SELECT hostname, last_seq FROM host");
        let stored: BTreeMap<String, Option<i64>> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        hosts
            .iter()
            .zip(&corpus.hosts)
            .all(|(pds, frames)| {
                let last = frames.last().map(|(seq, _)| *seq as i64);
                stored.get(&pds.hostname()) == Some(&last)
            })
            .then_some(())
    });
    let counted = postgres.query(
        "SELECT count(*) FROM host WHERE account_count <>
             (SELECT count(*) FROM account
              WHERE host_id = host.id AND upstream <> 3 AND local <> 2)",
    );
    assert_eq!(counted[0].get::<_, i64>(0), 0, "hosts whose accounts are counted wrongly");
}

#[test]
fn a_relay_starts_once_its_database_does() {
    let Some(mut postgres) = postgres("database") else { return };
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let mut relay = Relay::spawn(&plc, &["--db-url", &postgres.url()]);
    relay.wait_for_line("waiting for the database");
    postgres.launch();
    relay.wait_until_up();
    let consumer = Consumer::connect(relay.api, Some(0));
    relay.add_host(&hosts[0]);
    hosts[0].push_all(corpus.hosts[0].iter().take(20).cloned());
    consumer.wait_for(20);
    assert!(relay.terminate().success());
}

#[test]
fn a_relay_that_waits_for_its_database_can_be_stopped() {
    let Some(postgres) = postgres("database") else { return };
    let mut relay = Relay::spawn(&harness::FakePlc::start(), &["--db-url", &postgres.url()]);
    relay.wait_for_line("waiting for the database");
    assert!(relay.terminate().success());
}

#[test]
fn a_relay_whose_database_is_away_stops_in_order() {
    let Some(mut postgres) = postgres("database") else { return };
    postgres.launch();
    let mut relay = Relay::start(&harness::FakePlc::start(), &["--db-url", &postgres.url()]);
    postgres.crash();
    relay.wait_for_line("the connection to the database is lost");
    assert!(relay.terminate().success());
}

fn copy(from: &str, to: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relayered"));
    command.env_clear().args(["db", "copy", from, to]).output().unwrap()
}

#[test]
fn a_database_is_copied_to_the_other_kind_and_back() {
    let Some(mut postgres) = postgres("database") else { return };
    postgres.launch();
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let mut relay = Relay::start(&plc, &[]);
    let consumer = Consumer::connect(relay.api, Some(0));
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        relay.add_host(pds);
        pds.push_all(frames.iter().take(100).cloned());
    }
    let revs = last_revs(&consumer.wait_for(300));
    assert!(relay.terminate().success());

    let sqlite = format!("sqlite://{}", relay.data_dir().join("relayered.sqlite").display());
    let done = copy(&sqlite, &postgres.url());
    assert!(done.status.success(), "{done:?}");
    assert_eq!(stored_revs(&postgres), revs);
    let again = copy(&sqlite, &postgres.url());
    assert!(
        !again.status.success() && String::from_utf8_lossy(&again.stderr).contains("not empty")
    );

    // The relay goes on with the copy where it was with the original.
    relay.set_arguments(&plc, &["--db-url", &postgres.url()]);
    relay.launch();
    let consumer = Consumer::connect(relay.api, Some(0));
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        pds.push_all(frames.iter().skip(100).cloned());
    }
    let frames = consumer.wait_for(corpus.event_count());
    corpus.assert_complete(&frames);
    assert!(relay.terminate().success());
    assert_eq!(stored_revs(&postgres), last_revs(&frames));

    let back = format!("sqlite://{}", relay.data_dir().join("back.sqlite").display());
    let done = copy(&postgres.url(), &back);
    assert!(done.status.success(), "{done:?}");
    relay.set_arguments(&plc, &["--db-url", &back]);
    relay.launch();
    let repos = relay.get("/xrpc/com.atproto.sync.listRepos?limit=1000").json();
    assert_eq!(repos["repos"].as_array().unwrap().len(), last_revs(&frames).len());
}

#[test]
fn a_relay_whose_database_is_silent_stops_in_order() {
    let Some(mut postgres) = postgres("database") else { return };
    postgres.launch();
    let plc = harness::FakePlc::start();
    let mut relay = Relay::start(&plc, &["--db-url", &postgres.url()]);
    let frozen = postgres.freeze();
    // Something waits for the answer when the end comes.
    let mut asking = TcpStream::connect(relay.api).unwrap();
    asking.write_all(b"GET /_health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let ended = relay.terminate();
    postgres::kill("CONT", &frozen);
    assert!(ended.success(), "{}", relay.log());
}

#[test]
fn two_relays_do_not_share_a_database() {
    let Some(mut postgres) = postgres("database") else { return };
    postgres.launch();
    let plc = harness::FakePlc::start();
    let mut first = Relay::start(&plc, &["--db-url", &postgres.url()]);
    let mut second = Relay::spawn(&plc, &["--db-url", &postgres.url()]);
    let line = second.wait_for_line("another relay uses this database");
    assert!(line.contains("give each relay a database of its own"), "{line}");
    let copied = copy(&postgres.url(), "sqlite://:memory:");
    let why = String::from_utf8_lossy(&copied.stderr).into_owned();
    assert!(!copied.status.success() && why.contains("another relay"), "{why}");
    // The first is not disturbed, also when its connection has to be made anew.
    postgres.crash();
    first.wait_for_line("the connection to the database is lost");
    postgres.launch();
    let stopped = if eventually("one of them to have the database", || {
        let back = first.log().contains("the database is back");
        (back || second.log().contains("listening api=")).then_some(back)
    }) {
        first.terminate()
    } else {
        // The one that waited was quicker: then the other has to wait.
        first.kill();
        return;
    };
    assert!(stopped.success());
    second.wait_until_up();
    assert!(second.terminate().success());
}

#[test]
fn tls_to_the_database_is_checked_as_sslmode_says() {
    let Some(mut postgres) = postgres("database") else { return };
    let port = postgres.listen_with_tls();
    postgres.launch();
    let ca = postgres.ca().display().to_string().replace('/', "%2F");
    let url = |host: &str, rest: &str| {
        format!("postgres://relayered@{host}:{port}/postgres?hostaddr=127.0.0.1&sslmode={rest}")
    };
    let plc = harness::FakePlc::start();
    for good in [
        url("web.relay-test.net", &format!("verify-full&sslrootcert={ca}")),
        url("other.example", &format!("verify-ca&sslrootcert={ca}")),
        url("other.example", "require"),
        url("other.example", "prefer"),
    ] {
        let mut relay = Relay::start(&plc, &["--db-url", &good]);
        let rows = postgres.query(
            "SELECT s.ssl FROM pg_stat_ssl AS s JOIN pg_stat_activity AS a ON a.pid = s.pid
             WHERE a.application_name = 'relayered'",
        );
        assert!(rows.len() == 1 && rows[0].get::<_, bool>(0), "{good}");
        assert!(relay.terminate().success());
    }
    for bad in [
        url("other.example", &format!("verify-full&sslrootcert={ca}")),
        url("web.relay-test.net", "verify-full"),
        url("web.relay-test.net", "verify-ca"),
    ] {
        let mut relay = Relay::spawn(&plc, &["--db-url", &bad]);
        let line = relay.wait_for_line("waiting for the database");
        assert!(line.to_lowercase().contains("certificate"), "{bad}: {line}");
        assert!(relay.terminate().success());
    }
}

#[test]
fn accounts_that_are_new_while_the_database_is_away_come_through_once_it_is_back() {
    let Some(mut postgres) = postgres("database") else { return };
    postgres.launch();
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &["--db-url", &postgres.url()]);
    let consumer = Consumer::connect(relay.api, Some(0));
    for pds in &hosts {
        relay.add_host(pds);
    }
    // The accounts of the first host are known, those of the others have not been heard of.
    let half = corpus.hosts[0].len() / 2;
    hosts[0].push_all(corpus.hosts[0][..half].iter().cloned());
    consumer.wait_for(half);
    postgres.crash();
    for (pds, frames) in hosts.iter().zip(&corpus.hosts).skip(1) {
        pds.push_all(frames.iter().cloned());
    }
    relay.wait_for_metric("relayered_accounts_parked_count", "", 1.0);
    // Neither the first host nor the data path waits for them.
    let known: BTreeSet<&str> =
        corpus.hosts[0][..half].iter().map(|(_, frame)| consumer::event(frame).did).collect();
    let more = corpus.hosts[0][half..]
        .iter()
        .filter(|(_, frame)| known.contains(consumer::event(frame).did));
    let more = more.count();
    assert!(more > 50, "{more} events of accounts that are known");
    hosts[0].push_all(corpus.hosts[0][half..].iter().cloned());
    consumer.wait_for(half + more);
    relay.wait_for_metric("relayered_accounts_parked_count", "", 1.0);
    postgres.launch();
    let frames = consumer.wait_for(corpus.event_count());
    corpus.assert_complete(&frames);
    let expected = last_revs(&frames);
    eventually("the rows to be as the log", || (stored_revs(&postgres) == expected).then_some(()));
}
